"""The decision, in pure steps; the edge does the I/O between them.

    read      shape, server, token                  HttpRequest          → BearerRequest | Deny
    authorize message, audience, people, scopes, …  BearerRequest, Principal
                                                                         → PendingDecision | Deny
    confirmed the same, after introspection         PendingDecision, Principal
                                                                         → PendingDecision | Deny
    conclude  revoked, stepped up, within limits    PendingDecision, LedgerAnswer
                                                                         → Allow | Deny

The third is taken only where a rule asks to confirm tokens at the issuer.

The message of a POST is read after its token was verified, so that strangers cannot make us read
a megabyte of JSON (docs/decisions/0005).

Invariant: `Allow` is constructed in one place, in `conclude`, and only from a `PendingDecision`
and a `Taken`: every rule has passed by then. Everything else is a `Deny`.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from authz.core import mcp
from authz.core.approval import Approval, ApprovalKey
from authz.core.catalogue import UNLISTED, Catalogue
from authz.core.detail import Detail
from authz.core.evaluation import StaticEvaluation, evaluate, every_check, scopes
from authz.core.exact_call import ExactCall, exact_call
from authz.core.exchanges import Exchange, exchange
from authz.core.identity_cache import IdentityCache
from authz.core.ledger import (
    ApprovalDeclined,
    ApprovalMissing,
    LedgerAnswer,
    Mode,
    OverLimit,
    Query,
    Revoked,
    SessionOfAnother,
    StepUpKey,
    StepUpMissing,
    StepUpTooOld,
    Taken,
)
from authz.core.limits import Quota, takes_of
from authz.core.mcp import NAME_HEADER
from authz.core.methods import PROMPTS_GET, TOOLS_CALL, Counts
from authz.core.parameter_headers import parameter_headers
from authz.core.policy import (
    MODERN,
    DeclaredClient,
    Policy,
    Rule,
    Server,
    StepUpFallback,
)
from authz.core.principal import Client, Principal
from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError, bearer_token, check_shape, single
from authz.core.second_factor import (
    Evidence,
    Proof,
    SecondFactor,
    StepUpNeed,
    merge,
    proves,
    satisfies,
)
from authz.core.session import HEADER as SESSION_HEADER
from authz.core.session import named_session, session_of
from authz.core.step_up import QUESTIONS, ApprovalRequest, StepUpTicket

_UNAUTHORIZED: Final = 401  # RFC 9110, section 15.5.2
# Characters of a session id: with longer ones, which callers choose, too much would be cached.
_MAX_CACHED_ID: Final = 256
# In place of a method: the response may hold any list.
RESUMED: Final = "resumed"
# Characters of a resource's URI on the page of a step-up.
_MAX_SHOWN: Final = 256


@dataclass(frozen=True, slots=True)
class BearerRequest:
    """A request to a known server, with the token that it presents.

    Attributes:
        server: whose rules apply.
        request: what was sent; the body of a POST is not read yet.
        token: the bearer token, not verified yet.
        session_id: the session that the request names; None where it names none.
    """

    server: Server
    request: HttpRequest
    token: str = field(repr=False)
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class PendingDecision:
    """Hold a call that passed every rule which needs no ledger, and what the ledger is asked.

    Attributes:
        call, principal: what asks, and who.
        message: the JSON-RPC message of a POST; None for GET (stream) and DELETE (end of session).
        query: what the ledger is asked.
        confirm_since: the token has to be introspected first, unless it was since then (seconds
            since the epoch); None where no rule requires that, or it was done. Until then the
            call is never allowed.
        offer: the step-up that is offered where the ledger finds it missing; None where none is.
        only_stale: whether all that is missing is a more recent log-in; it only selects the text
            of a refusal.
        exchange: what it stays open for.
        rules: every rule that applies, the server's first.
        approval: what the person is asked to approve where the ledger finds no approval; None
            where no approval is needed, or none is offered.
        evidence: what proves the second factor that is asked for, without the ledger; None where
            none is asked for, or a step-up has to prove it.
    """

    call: BearerRequest
    message: mcp.Message | None
    principal: Principal
    query: Query
    rules: tuple[Rule, ...]
    confirm_since: float | None = None
    offer: StepUpTicket | None = None
    only_stale: bool = False
    exchange: Exchange = Exchange.CALL
    approval: ApprovalRequest | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Allow:
    """The call is allowed.

    Attributes:
        server, message, principal: of the call.
        quotas: every limit after the charge.
        mode: who counted.
        judged: the headers that the upstream must see with the values that were checked.
        exchange: what it stays open for.
        approval: the approval that it needed and had; None where it needed none.
        evidence: what proved the second factor; None where none was asked for.
        rules: every rule that applied, the server's first.
        listing: the method whose list the response may hold and that is filtered; `RESUMED` where
            a stream is resumed, which may bring any; empty for none.
    """

    server: Server
    message: mcp.Message | None
    principal: Principal
    quotas: tuple[Quota, ...]
    mode: Mode
    judged: tuple[tuple[str, str], ...] = ()
    exchange: Exchange = Exchange.CALL
    approval: Approval | None = None
    evidence: Evidence | None = None
    rules: tuple[Rule, ...] = ()
    listing: str = ""


@dataclass(frozen=True, slots=True)
class Deny:
    """The call is refused, with all that the response and the log line need.

    Attributes:
        reason: the row of the catalogue.
        detail: fixed text for the log.
        server, message, principal: what was known by then.
        scopes: every scope of the operation, for the challenge.
        second_factor: what is required and missing.
        quotas, retry_after: the state of limits; seconds to wait, None where waiting does not help.
        step_up: the step-up that would lift the refusal; None where none is offered.
        approval: what the person is asked to approve, in place of or together with a step-up; None
            where nothing is.
        rules: every rule that applies, the server's first; () where that was not known yet.
    """

    reason: Reason
    detail: str = ""
    server: Server | None = None
    message: mcp.Message | None = None
    principal: Principal | None = None
    scopes: frozenset[str] = frozenset()
    second_factor: SecondFactor | None = None
    quotas: tuple[Quota, ...] = ()
    retry_after: int | None = None
    step_up: StepUpTicket | None = None
    approval: ApprovalRequest | None = None
    rules: tuple[Rule, ...] = ()


Decision = Allow | Deny


# --- steps 1 to 3a: read ----------------------------------------------------------------------


def read(request: HttpRequest, policy: Policy) -> BearerRequest | Deny:
    """Read the request: its shape, its server, its token; in this order."""
    server = _server_of(request, policy)
    try:
        check_shape(request, policy.origins)
        session_id = named_session(request.headers)
        served = _served(server, request, policy)
        return BearerRequest(served, request, bearer_token(request), session_id)
    except RefusedError as refused:
        return denied(refused, server)


def _server_of(request: HttpRequest, policy: Policy) -> Server | None:
    """Return the server that the route names, or where it names none the one of this URL.

    Nothing is normalised: the host's letters alone may be of either case (RFC 9110, section
    4.2.3). Two spellings of one path are two paths, of which one at most is a server's.
    """
    named = request.context.get("server")
    if named is not None or policy.places is None:
        return policy.servers.get(named or "")
    host = request.host
    # lower() makes the Kelvin sign a k. A second host, of which the upstream could make more, is
    # sent on by planes that keep Host beside `:authority`.
    if not host.isascii() or request.headers.get("host", host) != host:
        return None
    name = policy.places.get((host.lower(), request.path.partition("?")[0]))
    return None if name is None else policy.servers.get(name)


def is_outdated(request: HttpRequest, server: Server) -> bool:
    """Tell whether the route leads to another upstream than the server's rules are for.

    A route that does not say where it leads (another data plane's, one rendered by an older
    release) is taken at its word for the server.
    """
    leads_to = request.context.get("upstream")
    return leads_to is not None and leads_to != server.upstream


def judges_route(policy: Policy, request: HttpRequest) -> bool:
    """Tell whether the policy has rules for the very upstream that the route leads to."""
    server = policy.servers.get(request.context.get("server", ""))
    return server is not None and not is_outdated(request, server)


def denied(refused: RefusedError, server: Server | None) -> Deny:
    """Return the refusal of a request whose message was not read.

    Its challenge names the scopes that a log-in for the server should request.
    """
    scopes = frozenset[str]() if server is None else server.challenge_scopes
    return Deny(refused.reason, refused.detail, server, scopes=scopes)


def _served(server: Server | None, request: HttpRequest, policy: Policy) -> Server:
    if server is None:
        raise RefusedError(Reason.UNKNOWN_SERVER, _unknown(request, policy))
    if is_outdated(request, server):
        raise RefusedError(Reason.ROUTE_OUTDATED)
    # GET streams and DELETE belong to sessions, which 2026-07-28 does not have.
    if request.method != "POST" and not server.accepts_legacy:
        raise RefusedError(Reason.METHOD_NOT_ALLOWED, Detail.SESSIONS_NOT_ACCEPTED)
    return server


def _unknown(request: HttpRequest, policy: Policy) -> Detail:
    if "server" in request.context:
        return Detail.NONE
    return Detail.NO_SERVER_NAMED if policy.places is None else Detail.NO_SERVER_AT_URL


# --- steps 3b to 5: authorize -----------------------------------------------------------------


def authorize(
    call: BearerRequest,
    principal: Principal,
    policy: Policy,
    now: float,
    cache: IdentityCache | None = None,
    *,
    catalogue: Catalogue = UNLISTED,
) -> PendingDecision | Deny:
    """Read the message and apply every rule that matches it to the verified principal.

    The audience is decided here, per request, so that a token which was verified for one server
    is worth nothing at another (RFC 9068, section 4).

    Args:
        call: the request.
        principal: of its token.
        policy: the rules.
        now: seconds since the epoch.
        cache: of this policy; None for none.
        catalogue: what the server has listed.
    """
    try:
        message = _message(call, policy)
    except RefusedError as refused:
        return replace(denied(refused, call.server), principal=principal)
    return _judged(call, message, principal, policy, now, cache=cache, catalogue=catalogue)


def confirmed(
    pending: PendingDecision,
    principal: Principal,
    policy: Policy,
    now: float,
    cache: IdentityCache | None = None,
    *,
    catalogue: Catalogue = UNLISTED,
) -> PendingDecision | Deny:
    """Apply every rule again, to the principal that an introspection confirmed.

    Args:
        pending: what `authorize` returned, with a `confirm_since`.
        principal: as the issuer confirmed it.
        policy: as before.
        now: as before: an introspection since then is recent enough.
        cache: as before.
        catalogue: as before.
    """
    call, message = pending.call, pending.message
    return _judged(call, message, principal, policy, now, cache=cache, catalogue=catalogue)


def _judged(
    call: BearerRequest,
    message: mcp.Message | None,
    principal: Principal,
    policy: Policy,
    now: float,
    *,
    cache: IdentityCache | None,
    catalogue: Catalogue,
) -> PendingDecision | Deny:
    kind = _exchange(call, message)
    evaluation = evaluate(
        call.server, principal, policy, message, kind, cache=cache, catalogue=catalogue
    )
    unsatisfied = _unsatisfied_factors(evaluation, now)
    refused = evaluation.refused or _unprovable(evaluation, unsatisfied)
    key: ApprovalKey | None = None
    exact: ExactCall | None = None
    if refused is None and evaluation.approval is not None:
        try:
            key, exact = _approval_of(call, message, evaluation, evaluation.approval)
        except RefusedError as impossible:
            refused = impossible
    if refused is not None:
        return Deny(
            refused.reason,
            refused.detail,
            call.server,
            message,
            principal,
            scopes=_challenge_scopes(refused.reason, call.server, evaluation.context.rules),
            second_factor=refused.second_factor,
            rules=evaluation.context.rules,
        )
    query = _query_of(call, evaluation, unsatisfied, now, cache)
    if key is not None:
        query = replace(query, approval_key=key)
    return PendingDecision(
        call,
        message,
        evaluation.context.principal,
        query,
        evaluation.context.rules,
        _confirm_since(evaluation, policy, now),
        _offer(evaluation, query.step_up, message, policy, now),
        _only_stale(evaluation, unsatisfied),
        kind,
        _approval_request(evaluation, exact, message, policy, now),
        _evidence(evaluation, unsatisfied, now),
    )


def _exchange(call: BearerRequest, message: mcp.Message | None) -> Exchange:
    return exchange(call.request.method, None if message is None else message.method)


def _challenge_scopes(reason: Reason, server: Server, applied: tuple[Rule, ...]) -> frozenset[str]:
    """Return the scopes of a challenge: where it begins a new log-in, all that one should have."""
    needed = scopes(applied)
    return needed | server.challenge_scopes if reason.row.status == _UNAUTHORIZED else needed


def _tool(message: mcp.Message | None) -> str | None:
    return None if message is None else message.tool


def _confirm_since(evaluation: StaticEvaluation, policy: Policy, now: float) -> float | None:
    if not evaluation.confirm:
        return None
    since, confirmed_at = now - policy.confirm_age, evaluation.context.principal.confirmed_at
    return since if confirmed_at is None or confirmed_at < since else None


def _message(call: BearerRequest, policy: Policy) -> mcp.Message | None:
    """Return the message of a POST in a version that the server accepts."""
    request, server = call.request, call.server
    if request.method != "POST":
        version = single(request, "mcp-protocol-version", Detail.VERSION_NOT_ASCII)
        if version is not None and (version == MODERN or version not in server.versions):
            raise RefusedError(Reason.UNSUPPORTED_VERSION)
        return None
    message = mcp.read(request.body, request.headers, max_body=policy.max_body, bounds=policy.json)
    # MCP 2025-06-18, "Protocol Version Header": without the header it is a legacy message
    # (`initialize` negotiates the version in its body).
    legacy = server.accepts_legacy
    if not (legacy if message.version is None else message.version in server.versions):
        raise RefusedError(Reason.UNSUPPORTED_VERSION)
    # 2026-07-28 has no sessions, so nothing that a client could notify or answer.
    if message.kind is not mcp.MessageKind.REQUEST and not legacy:
        raise RefusedError(Reason.INVALID_MESSAGE, Detail.NO_SESSION)
    return message


def _unsatisfied_factors(evaluation: StaticEvaluation, now: float) -> tuple[SecondFactor, ...]:
    """Return the required second factors that nothing known of the log-in proves."""
    if not evaluation.asked:
        return ()
    proofs = evaluation.proofs
    return tuple(
        rule
        for rule in evaluation.asked
        if not any(satisfies(rule, proof, now) for proof in proofs)
    )


def _unprovable(
    evaluation: StaticEvaluation, unsatisfied: tuple[SecondFactor, ...]
) -> RefusedError | None:
    """Return the refusal where a rule is not met and does not accept a step-up either."""
    for rule in unsatisfied:
        if Evidence.STEP_UP not in rule.evidence:
            only_stale = any(proves(rule, proof) for proof in evaluation.proofs)
            reason = Reason.LOGIN_TOO_OLD if only_stale else Reason.SECOND_FACTOR_REQUIRED
            return RefusedError(reason, Detail.STEP_UP_NOT_ACCEPTED, rule)
    return None


def _evidence(
    evaluation: StaticEvaluation, unsatisfied: tuple[SecondFactor, ...], now: float
) -> Evidence | None:
    """Return what proves the last second factor that is asked for, where nothing is missing."""
    if not evaluation.asked or unsatisfied:
        return None
    rule = evaluation.asked[-1]
    return next((each.source for each in evaluation.proofs if satisfies(rule, each, now)), None)


def _only_stale(evaluation: StaticEvaluation, unsatisfied: tuple[SecondFactor, ...]) -> bool:
    """Tell whether only the age of the log-in leaves every unsatisfied rule unsatisfied."""
    return bool(unsatisfied) and all(
        any(proves(rule, proof) for proof in evaluation.proofs) for rule in unsatisfied
    )


def _query_of(
    call: BearerRequest,
    evaluation: StaticEvaluation,
    unsatisfied: tuple[SecondFactor, ...],
    now: float,
    cache: IdentityCache | None,
) -> Query:
    """Return the query for the ledger; one that depends on no address is cached per token.

    Where days or months are counted, it is cached for as long as these last.
    """
    principal, session_id = evaluation.context.principal, call.session_id
    if cache is None or evaluation.by_address:
        query = _query(evaluation, unsatisfied, call.request.address, now, cache)
        if session_id is None:
            return query
        return _with_session(query, session_id, call.server, principal)
    if evaluation.calendars:
        periods = tuple([each.period(now).begins for each in evaluation.calendars])
        held = id(evaluation), *map(id, unsatisfied), periods
        query = cache.find(held, _query_of_period, evaluation, now, *unsatisfied)
    else:
        query = cache.get(_query_without_address, evaluation, *unsatisfied)
    if session_id is None:
        return query
    if len(session_id) > _MAX_CACHED_ID:
        return _with_session(query, session_id, call.server, principal)
    key = id(query), session_id
    return cache.find(key, _with_session, query, session_id, call.server, principal)


def _query_without_address(evaluation: StaticEvaluation, *unsatisfied: SecondFactor) -> Query:
    return _query(evaluation, unsatisfied, "", 0.0)


def _query_of_period(evaluation: StaticEvaluation, now: float, *unsatisfied: SecondFactor) -> Query:
    return _query(evaluation, unsatisfied, "", now)


def _with_session(query: Query, session_id: str, server: Server, principal: Principal) -> Query:
    return replace(query, session=session_of(session_id, server, principal))


def _query(
    evaluation: StaticEvaluation,
    unsatisfied: tuple[SecondFactor, ...],
    address: str,
    now: float,
    cache: IdentityCache | None = None,
) -> Query:
    principal = evaluation.context.principal
    key = None
    if unsatisfied and principal.person is not None:
        key = StepUpKey(principal.person, principal.grant, evaluation.context.server.name)
    return Query(
        token_id=principal.token_id,
        person=principal.person,
        client=principal.client,
        issued_at=principal.issued_at,
        step_up_key=key,
        step_up=merge(unsatisfied) if unsatisfied else None,
        takes=tuple(
            take
            for limit in evaluation.limits
            for take in takes_of(limit, principal, address, now, cache)
        ),
        grant=None if principal.login is None else principal.login.grant,
        registered_client=_registered_client(principal),
    )


def _registered_client(principal: Principal) -> Client | None:
    """Return a client of the front door as it names itself, where we call it otherwise."""
    login = principal.login
    if login is None or login.client_id == login.client:
        return None
    return Client(principal.issuer, login.client_id)


def _approval_of(
    call: BearerRequest,
    message: mcp.Message | None,
    evaluation: StaticEvaluation,
    approval: Approval,
) -> tuple[ApprovalKey, ExactCall | None]:
    """Return the record of an approval that a call needs, and the call as it is to be shown.

    Raises:
        RefusedError: MACHINE_NOT_ALLOWED without a person, APPROVAL_IMPOSSIBLE where the call
            cannot be shown.
    """
    principal, tool = evaluation.context.principal, _tool(message)
    if principal.person is None or tool is None:
        raise RefusedError(Reason.MACHINE_NOT_ALLOWED, Detail.TOOL_ASKS_FOR_PERSON)
    exact = exact_call(call.request, QUESTIONS) if approval.each_call else None
    digest = None if exact is None else exact.digest
    server, need = evaluation.context.server.name, merge(evaluation.asked)
    key = ApprovalKey(principal.person, principal.grant, server, tool, approval, need, digest)
    return key, exact


def _approval_request(
    evaluation: StaticEvaluation,
    exact: ExactCall | None,
    message: mcp.Message | None,
    policy: Policy,
    now: float,
) -> ApprovalRequest | None:
    """Return what the person is asked to approve; None where nothing is, or nobody is asked.

    The log-in on the page proves every second factor that the rules ask for, also where the log-in
    behind the token has: who approves is the person at the browser.
    """
    if evaluation.approval is None:
        return None
    ticket = _offer(evaluation, merge(evaluation.asked), message, policy, now)
    return None if ticket is None else ApprovalRequest(ticket, evaluation.approval, exact)


def _offer(
    evaluation: StaticEvaluation,
    need: StepUpNeed | None,
    message: mcp.Message | None,
    policy: Policy,
    now: float,
) -> StepUpTicket | None:
    """Return the ticket of a log-in that proves what is needed; None where none is offered.

    It is used only where the ledger finds no such step-up or approval.
    """
    door, principal = policy.front_door, evaluation.context.principal
    if need is None or principal.subject is None:
        return None
    if door is None or door.step_up is StepUpFallback.OFF:
        return None
    login = principal.login
    return StepUpTicket(
        issuer=principal.issuer,
        subject=principal.subject,
        grant=principal.grant,
        client=principal.client_id,
        account="" if login is None else login.account,
        server=evaluation.context.server.name,
        tool=_tool(message),
        need=need,
        at=int(now),
        ends_at="" if login is None else login.ends_at,
        document_host="" if login is None else login.document_host,
        prompt="" if message is None else message.prompt or "",
        # A link has to fit into an address.
        resource="" if message is None else (message.resource or "")[:_MAX_SHOWN],
    )


# --- steps 3b to 5 once more, for a person who asks why -----------------------------------------


@dataclass(frozen=True, slots=True)
class Inspection:
    """The result of every rule for one call, also of those after the first refusal.

    Attributes:
        steps: what `authorize` looks at, in its order, and why it refuses; None where it passes.
            Where the message is refused there is no step after it; `approval` is there where a rule
            asks for one.
        message: as in `PendingDecision`.
        principal: with the scopes that its client may use.
        known: what the operator declares of the client; None where nothing.
        rules: every rule that applies, the server's first.
        proofs: what is known of the log-in without a ledger.
        catalogue: what the server has listed.
    """

    steps: tuple[tuple[str, RefusedError | None], ...]
    message: mcp.Message | None
    principal: Principal
    known: DeclaredClient | None
    rules: tuple[Rule, ...]
    proofs: tuple[Proof, ...]
    catalogue: Catalogue = UNLISTED


def inspect(
    call: BearerRequest,
    principal: Principal,
    policy: Policy,
    now: float,
    catalogue: Catalogue = UNLISTED,
) -> Inspection:
    """Apply the rules of `authorize`, and go on after a refusal."""
    try:
        message = _message(call, policy)
    except RefusedError as refused:
        return Inspection((("message", refused),), None, principal, None, (call.server.rule,), ())
    kind = _exchange(call, message)
    evaluation = evaluate(call.server, principal, policy, message, kind, catalogue=catalogue)
    unprovable = _unprovable(evaluation, _unsatisfied_factors(evaluation, now))
    steps: tuple[tuple[str, RefusedError | None], ...] = (
        ("message", None),
        *every_check(evaluation.context),
        ("second_factor", unprovable),
    )
    if evaluation.approval is not None:
        impossible = _impossible(call, message, evaluation, evaluation.approval)
        steps = (*steps, ("approval", impossible))
    context = evaluation.context
    return Inspection(
        steps,
        message,
        context.principal,
        context.known,
        context.rules,
        evaluation.proofs,
        catalogue,
    )


def _impossible(
    call: BearerRequest,
    message: mcp.Message | None,
    evaluation: StaticEvaluation,
    approval: Approval,
) -> RefusedError | None:
    """Return why a call cannot be approved; None where it can."""
    try:
        _approval_of(call, message, evaluation, approval)
    except RefusedError as refused:
        return refused
    return None


# --- steps 6 and 7: conclude ------------------------------------------------------------------


def conclude(pending: PendingDecision, answer: LedgerAnswer) -> Decision:
    """Turn the ledger's answer into the decision."""
    server, message, principal = pending.call.server, pending.message, pending.principal
    if pending.confirm_since is not None:
        return Deny(Reason.INTERNAL, Detail.NOT_CONFIRMED, server, message, principal)
    match answer:
        case Revoked(what):
            refusal = Deny(Reason.TOKEN_REVOKED, what)
        case SessionOfAnother():
            refusal = Deny(Reason.SESSION_OF_ANOTHER)
        case StepUpMissing() | StepUpTooOld():
            refusal = _step_up_refusal(pending, answer)
        case ApprovalMissing():
            approval = pending.approval
            refusal = Deny(Reason.APPROVAL_REQUIRED, Detail.NO_APPROVAL, approval=approval)
        case ApprovalDeclined():
            refusal = Deny(Reason.APPROVAL_DECLINED)
        case OverLimit(quotas, retry_after):
            reason = Reason.TOO_MANY_STREAMS if _lacks_stream(quotas) else Reason.RATE_LIMITED
            refusal = Deny(reason, quotas=quotas, retry_after=retry_after)
        case Taken(quotas, mode):
            return Allow(
                server,
                message,
                principal,
                quotas,
                mode,
                judged=_judged_headers(pending),
                exchange=pending.exchange,
                approval=pending.query.approval,
                evidence=pending.evidence if pending.query.step_up is None else Evidence.STEP_UP,
                rules=pending.rules,
                listing=_listing(pending) if server.filtered else "",
            )
        case _:
            refusal = Deny(Reason.INTERNAL, Detail.UNKNOWN_LEDGER_ANSWER)
    return replace(
        refusal,
        server=server,
        message=message,
        principal=principal,
        scopes=_challenge_scopes(refusal.reason, server, pending.rules),
        rules=pending.rules,
    )


def _step_up_refusal(pending: PendingDecision, answer: StepUpMissing | StepUpTooOld) -> Deny:
    """Return the refusal for want of a step-up; a page that asks for an approval too does both."""
    too_old = isinstance(answer, StepUpTooOld)
    stale = too_old or pending.only_stale
    approval = pending.approval
    return Deny(
        Reason.LOGIN_TOO_OLD if stale else Reason.SECOND_FACTOR_REQUIRED,
        Detail.STEP_UP_TOO_OLD if too_old else Detail.NO_STEP_UP,
        second_factor=_asked(pending),
        step_up=pending.offer,
        approval=None if approval is None else replace(approval, steps_up=True),
    )


def _lacks_stream(quotas: tuple[Quota, ...]) -> bool:
    """Tell whether a person has begun as many streams as one may."""
    return any(quota.limit.counts is Counts.STREAMS and quota.exceeded for quota in quotas)


def _judged_headers(pending: PendingDecision) -> tuple[tuple[str, str], ...]:
    """Return the headers that may have come twice, with the one value that was checked.

    Envoy joins what came twice by a comma, and a single value may hold one too; the upstream gets
    the value that was checked, once. Every other header that affects the decision is compared with
    values without a comma, so that two of them are refused.
    """
    headers = pending.call.request.headers
    judged = list[tuple[str, str]]()
    if pending.call.session_id is not None and "," in pending.call.session_id:
        judged.append((SESSION_HEADER, pending.call.session_id))
    if pending.message is not None and "," in headers.get(NAME_HEADER, ""):
        judged.append((NAME_HEADER, headers[NAME_HEADER]))
    if pending.message is not None and pending.message.method in _WITH_ARGUMENTS:
        repeated = parameter_headers(headers).items()
        judged += [(name, value) for name, value in repeated if "," in value and value.isascii()]
    return tuple(judged)


_WITH_ARGUMENTS: Final = frozenset({TOOLS_CALL, PROMPTS_GET})


def _listing(pending: PendingDecision) -> str:
    """Return what of the response is filtered.

    MCP 2025-11-25, "Resumability and Redelivery": a stream that is resumed brings responses to
    earlier requests, and with GET that is the only one that does.
    """
    message, request = pending.message, pending.call.request
    if message is None:
        resumed = request.method == "GET" and "last-event-id" in request.headers
        return RESUMED if resumed else ""
    return message.method if message.method in pending.call.server.filtered else ""


def _asked(pending: PendingDecision) -> SecondFactor | None:
    need = pending.query.step_up
    return None if need is None else SecondFactor(need.method, need.max_login_age)
