"""The check: bytes of a CheckRequest in, bytes of a CheckResponse out, for any transport.

Invariant: every path ends in exactly one decision, recorded once; whatever raises is a refusal; and
a check awaits nothing but the ledger where the token is known and no rule asks to confirm it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Final, Protocol

from authz.core import mcp
from authz.core.admin_pages import PAGE
from authz.core.answers import (
    TRACEPARENT,
    UpstreamChanges,
    refusal,
    upstream,
    with_assertion,
    with_traceparent,
)
from authz.core.catalogue import UNLISTED, Catalogue
from authz.core.decision import (
    Allow,
    BearerRequest,
    Decision,
    Deny,
    PendingDecision,
    authorize,
    conclude,
    confirmed,
    denied,
    judges_route,
    read,
)
from authz.core.identity_cache import IdentityCache
from authz.core.ledger import Ledger, UnavailableError
from authz.core.limits import Limit
from authz.core.policy import Policy, Server
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError
from authz.core.step_up import StepUpPrompt
from authz.envoy import codec
from authz.envoy.data_planes import ENVOY, CheckRequestFormat
from authz.ledger.deadline import Deadline
from authz.server.refusal_limiter import BAD_TOKENS, RefusalLimiter
from authz.telemetry.recorder import Recorder
from authz.telemetry.traces import CURRENT, Trace, Tracer
from authz.tokens.verifier import Stage

FAULTS: Final = {"issuer": Reason.ISSUER_UNAVAILABLE, "redis": Reason.LEDGER_UNAVAILABLE}
# The longest body in which the id of a refused request is looked for: whoever has no token yet
# sends short messages, and strangers must not make us read long ones.
_ID_BODY: Final = 16 * 1024


class PrincipalSource(Protocol):
    """Turn a bearer token into a principal."""

    def cached(self, token: str) -> Principal | None:
        """Return the principal of a token that was verified before and still holds."""
        ...

    async def verify(
        self,
        token: str,
        *,
        opaque: bool,
        passed: Callable[[Stage], None],
        before_asking: Callable[[], None],
    ) -> Principal:
        """Verify a token.

        Args:
            token: the token.
            opaque: whether the issuer may be asked about one that is not signed.
            passed: told of each stage that the token has passed.
            before_asking: called before the issuer is asked; what it raises goes on.

        Raises:
            RefusedError: where it is no valid access token of the issuer.
            UnavailableError: where the issuer had to be asked and did not answer.
        """
        ...

    async def confirm(self, token: str, principal: Principal, since: float) -> Principal:
        """Return the principal of a verified token as the issuer sees it since a moment.

        Raises:
            RefusedError: where the token is not active any more.
            UnavailableError: where the issuer did not answer.
        """
        ...


class StepUpPrompter(Protocol):
    """Offer step-ups and approvals."""

    def admitted(self, allow: Allow) -> None:
        """Take notice of an admitted request, at once."""
        ...

    async def offer(self, deny: Deny) -> StepUpPrompt | None:
        """Return the step-up or approval that a refusal offers, as its client is told of it.

        Raises:
            UnavailableError: where what is to be approved could not be kept.
        """
        ...


class Signer(Protocol):
    """Sign who calls."""

    def assertion(self, principal: Principal, server: Server) -> str:
        """Return a statement that this principal calls this server now."""
        ...


class DecisionTrail(Protocol):
    """Keep decisions beyond the log."""

    def decision(
        self, decision: Decision, request: HttpRequest | None, cache: IdentityCache | None = None
    ) -> None:
        """Take a decision, at once; it is kept after the answer is on its way."""
        ...


class PageChecker(Protocol):
    """Decide about requests for admin pages (`authz.server.page_check.PageCheck`)."""

    async def __call__(
        self, request: HttpRequest, recorder: Recorder, started: float, trace: Trace | None = None
    ) -> bytes:
        """Answer the check of a request whose route names a page, and record it."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Hold all that one configuration means; a reload swaps it whole.

    Attributes:
        policy: the rules.
        verifier: for the tokens of the policy's issuer.
        ledger: revocations, step-ups, limits.
        deadline: after it any check is answered, come what may.
        offers: the step-ups that refusals offer; None where none are offered.
        bad_tokens: about how many tokens the issuer is asked in vain for one address.
        identity: signs who calls, for servers that ask for it; None where none does.
        cache: what was made of the policy and of who asks.
        catalogues: what the servers have listed, by server: the newest, at any time.
        plane: what the CheckRequests are like.
        trail: keeps what was decided about operations; None where nothing is kept.
        pages: decides about admin pages; None where there are none.
    """

    policy: Policy
    verifier: PrincipalSource
    ledger: Ledger
    deadline: Deadline
    offers: StepUpPrompter | None = None
    bad_tokens: Limit = BAD_TOKENS
    identity: Signer | None = None
    cache: IdentityCache = field(default_factory=IdentityCache)
    catalogues: Mapping[str, Catalogue] = field(default_factory=dict)
    plane: CheckRequestFormat = ENVOY
    trail: DecisionTrail | None = None
    pages: PageChecker | None = None


class Check:
    """Decide about one request at a time, for as many at once as a transport sends."""

    def __init__(
        self,
        snapshot: Snapshot,
        recorder: Recorder,
        refusals: RefusalLimiter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Build the check; `snapshot` and `former` may be replaced at any time by assignment.

        `former` holds the servers that a reload only moved, at their former upstreams, while Envoy
        may still have the routes to them (decision 23).
        """
        self.snapshot = snapshot
        self.former: Snapshot | None = None
        self._recorder = recorder
        self._refusal_limiter = refusals
        self._clock = clock

    async def __call__(self, raw: bytes, traceparent: str = "") -> bytes:
        """Answer one CheckRequest. Raises nothing but CancelledError.

        Args:
            raw: the CheckRequest.
            traceparent: what the call's metadata says of Envoy's own span; empty for nothing.
        """
        started = perf_counter()
        tracer = self._recorder.tracer
        trace = None if tracer is None else _begin(tracer, traceparent, started)
        request: HttpRequest | None = None
        snapshot = self.snapshot
        with self._recorder.metrics.in_flight.track_inprogress():
            try:
                request = codec.decode(raw, snapshot.plane)
                if PAGE in request.context:
                    return await self._page(request, snapshot, started, trace)
                snapshot = self._snapshot_for(request, snapshot)
                decision = await self._decide(request, snapshot, trace)
                if isinstance(decision, Allow):
                    if snapshot.offers is not None:
                        snapshot.offers.admitted(decision)
                    now, request_id = self._clock(), request.request_id
                    origin = request.headers.get("origin")
                    policy, cache = snapshot.policy, snapshot.cache
                    changes = upstream(decision, policy, now, request_id, origin, cache=cache)
                    if decision.server.signed_identity:
                        changes = _signed(decision, changes, snapshot)
                    if trace is not None:
                        changes = _traced(changes, tracer, trace)
                    answer = codec.encode_allow(changes, cache)
                else:
                    decision, offer = await self._offered(decision, snapshot, trace)
                    answer = _refuse(decision, request, offer, snapshot.policy)
            except RefusedError as refused:
                decision = Deny(refused.reason, refused.detail)
                answer = _refuse(decision, request)
            except Exception as error:  # noqa: BLE001 - the last line: whatever happened, nobody is let in
                decision, answer = self._broken(error)
        elapsed = perf_counter() - started
        self._recorder.decision(decision, request, elapsed, snapshot.cache, trace=trace)
        if snapshot.trail is not None:
            snapshot.trail.decision(decision, request, snapshot.cache)
        return answer

    async def _page(
        self, request: HttpRequest, snapshot: Snapshot, started: float, trace: Trace | None
    ) -> bytes:
        """Answer for a route that names a page.

        Raises:
            RefusedError: UNKNOWN_PAGE, where there are none.
        """
        if snapshot.pages is None:
            raise RefusedError(Reason.UNKNOWN_PAGE)
        return await snapshot.pages(request, self._recorder, started, trace)

    def _snapshot_for(self, request: HttpRequest, current: Snapshot) -> Snapshot:
        """Return the configuration whose rules are for the upstream that the route leads to.

        A server that the current one does not have is judged, and refused, by the current one.
        """
        former = self.former
        if former is None or request.context.get("server", "") not in current.policy.servers:
            return current
        if judges_route(current.policy, request) or not judges_route(former.policy, request):
            return current
        return former

    async def _offered(
        self, deny: Deny, snapshot: Snapshot, trace: Trace | None
    ) -> tuple[Deny, StepUpPrompt | None]:
        """Return the step-up or approval that goes with a refusal.

        Where what is to be approved could not be kept, that is what is told: nobody is sent to a
        page that has nothing.
        """
        if snapshot.offers is None or (deny.step_up is None and deny.approval is None):
            return deny, None
        if trace is not None:
            trace.step_up_at = perf_counter()
        try:
            return deny, await snapshot.offers.offer(deny)
        except UnavailableError as fault:
            self._recorder.fault(fault.dependency, fault.detail)
            late = _unavailable(deny.server, deny.principal, fault.dependency, fault.detail)
            return replace(late, message=deny.message), None

    def _broken(self, error: Exception) -> tuple[Deny, bytes]:
        # The class of the exception, not its text: that may quote what a caller sent.
        detail = type(error).__name__
        self._recorder.crash(error)
        return Deny(Reason.INTERNAL, detail), codec.FALLBACK_DENY

    async def _decide(
        self, request: HttpRequest, snapshot: Snapshot, trace: Trace | None
    ) -> Decision:
        if trace is not None:
            trace.adopt(request.headers.get(TRACEPARENT, ""))
        call = read(request, snapshot.policy)
        if isinstance(call, Deny):
            return call
        # Who asks, once that is proved: a fault after it is told as a refusal of the operation.
        known: Principal | None = None
        try:
            with snapshot.deadline.block():
                if trace is not None:
                    trace.token_at = perf_counter()
                principal = await self._principal(call, snapshot)
                if isinstance(principal, Deny):
                    return principal
                known = principal
                return await self._judge(call, principal, snapshot, trace)
        except TimeoutError:
            return _unavailable(call.server, known, "issuer", "the deadline has passed")
        except UnavailableError as fault:
            self._recorder.fault(fault.dependency, fault.detail)
            return _unavailable(
                call.server, known, fault.dependency, fault.detail, fault.retry_after
            )

    async def _principal(self, call: BearerRequest, snapshot: Snapshot) -> Principal | Deny:
        known = snapshot.verifier.cached(call.token)
        self._recorder.metrics.token_cache.labels("miss" if known is None else "hit").inc()
        return await self._verified(call, snapshot) if known is None else known

    async def _judge(
        self, call: BearerRequest, principal: Principal, snapshot: Snapshot, trace: Trace | None
    ) -> Decision:
        if trace is not None:
            trace.rules_at = perf_counter()
        now = self._clock()
        wait = self._refusal_limiter.principal_must_wait(principal, now)
        if wait is not None:
            return _too_many(call, wait, principal)
        catalogue = snapshot.catalogues.get(call.server.name, UNLISTED)
        pending = authorize(
            call, principal, snapshot.policy, now, snapshot.cache, catalogue=catalogue
        )
        if isinstance(pending, PendingDecision) and pending.confirm_since is not None:
            if trace is not None:
                trace.confirm_at = perf_counter()
            pending = await _confirmed(pending, pending.confirm_since, snapshot, now)
        if isinstance(pending, PendingDecision):
            if trace is not None:
                trace.ledger_at = perf_counter()
            taken = await snapshot.ledger.take(pending.query)
            if trace is not None:
                trace.answer_at = perf_counter()
            decision = conclude(pending, taken)
        else:
            decision = pending
        if isinstance(decision, Deny):
            self._refusal_limiter.refused(principal, self._clock())
        return decision

    async def _verified(self, call: BearerRequest, snapshot: Snapshot) -> Principal | Deny:
        """Return who sent a token that is not known yet."""
        stranger = _Stranger(call, snapshot.bad_tokens, self._refusal_limiter, self._clock)
        try:
            return await snapshot.verifier.verify(
                call.token,
                opaque=call.server.accepts_opaque,
                passed=stranger.passed,
                before_asking=stranger.wait,
            )
        except MustWaitError as late:
            return _too_many(call, late.seconds)
        except RefusedError as refused:
            stranger.failed()
            return denied(refused, call.server)
        except UnavailableError:
            # Made-up tokens hold a call each for the whole deadline while the issuer hangs.
            stranger.failed()
            raise


class MustWaitError(Exception):
    """Say that an address has presented too many tokens that nobody is known to have signed.

    Attributes:
        seconds: how long it has to wait.
    """

    def __init__(self, seconds: int) -> None:
        """Keep how long."""
        super().__init__(seconds)
        self.seconds = seconds


class _Stranger:
    """Count a token among those about which the issuer was asked in vain for its address.

    What is refused without asking costs the next one nothing, and one that the issuer has signed
    (an expired one of a new key) is nobody's guess.
    """

    def __init__(
        self,
        call: BearerRequest,
        limit: Limit,
        refusals: RefusalLimiter,
        clock: Callable[[], float],
    ) -> None:
        self._call = call
        self._limit = limit
        self._refusal_limiter = refusals
        self._clock = clock
        self._has_good_signature = False
        self._issuer_was_asked = False

    def passed(self, stage: Stage) -> None:
        """Take notice of a stage that the token has passed."""
        if stage is Stage.SIGNATURE:
            self._has_good_signature = True

    def wait(self) -> None:
        """Refuse to ask the issuer for an address that has presented too many bad tokens.

        Raises:
            MustWaitError: where it has to wait.
        """
        address, token = self._call.request.address, self._call.token
        seconds = self._refusal_limiter.address_must_wait(
            address, token, self._clock(), self._limit
        )
        if seconds is not None:
            raise MustWaitError(seconds)
        self._issuer_was_asked = True

    def failed(self) -> None:
        """Count the token, where that is due."""
        if self._issuer_was_asked and not self._has_good_signature:
            address, token = self._call.request.address, self._call.token
            self._refusal_limiter.bad_token(address, token, self._clock(), self._limit)


async def _confirmed(
    pending: PendingDecision, since: float, snapshot: Snapshot, now: float
) -> PendingDecision | Deny:
    call, principal = pending.call, pending.principal
    try:
        principal = await snapshot.verifier.confirm(call.token, principal, since)
    except RefusedError as refused:
        deny = denied(refused, call.server)
        return replace(deny, message=pending.message, principal=principal)
    catalogue = snapshot.catalogues.get(call.server.name, UNLISTED)
    return confirmed(pending, principal, snapshot.policy, now, snapshot.cache, catalogue=catalogue)


def _too_many(call: BearerRequest, wait: int, principal: Principal | None = None) -> Deny:
    return Deny(Reason.TOO_MANY_REFUSALS, "", call.server, principal=principal, retry_after=wait)


def _unavailable(
    server: Server | None,
    principal: Principal | None,
    dependency: str,
    detail: str,
    retry_after: int | None = None,
) -> Deny:
    reason = FAULTS.get(dependency, Reason.INTERNAL)
    return Deny(reason, detail, server, principal=principal, retry_after=retry_after)


def _signed(allow: Allow, changes: UpstreamChanges, snapshot: Snapshot) -> UpstreamChanges:
    """Return what goes to a server that asks for a signed identity."""
    if snapshot.identity is None:  # which the configuration does not allow
        raise RuntimeError("no key to sign with")
    return with_assertion(changes, snapshot.identity.assertion(allow.principal, allow.server))


def _begin(tracer: Tracer, traceparent: str, started: float) -> Trace:
    """Begin the trace of a check, in its own task."""
    trace = tracer.begin(traceparent, started)
    trace.read_at = started
    CURRENT.set(trace)
    return trace


def _traced(changes: UpstreamChanges, tracer: Tracer | None, trace: Trace) -> UpstreamChanges:
    """Return what goes to a server, with this trace; where Envoy traces, it says that itself."""
    if tracer is None or trace.is_parent_trusted or not tracer.propagates:
        return changes
    return with_traceparent(changes, tracer.traceparent(trace))


def _refuse(
    deny: Deny,
    request: HttpRequest | None,
    offer: StepUpPrompt | None = None,
    policy: Policy | None = None,
) -> bytes:
    request_id = "" if request is None else request.request_id
    if policy is None:
        return codec.encode_deny(refusal(deny, None, request_id), deny.reason.label)
    if request is not None and deny.server is not None and _has_slash(request.path):
        # The document of the URL that was asked for (RFC 9728, section 3.3: clients compare).
        server = replace(deny.server, metadata_url=f"{deny.server.metadata_url}/")
        deny = replace(deny, server=server)
    asked = _asked(deny, request, policy)
    answer = refusal(deny, asked, request_id, offer, policy.refusals)
    return codec.encode_deny(answer, deny.reason.label)


def _has_slash(path: str) -> bool:
    """Tell whether a server was asked for by its URL with a slash at the end."""
    return path.partition("?")[0].endswith("/")


def _asked(deny: Deny, request: HttpRequest | None, policy: Policy) -> mcp.Envelope | None:
    """Return the request to answer, where its message was read or may be looked at."""
    if deny.message is not None:
        return deny.message.envelope
    if request is None:
        return None
    longest = _ID_BODY if deny.principal is None else policy.max_body
    return mcp.envelope(request.body, request.headers, max_body=longest, bounds=policy.json)
