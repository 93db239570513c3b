"""The decision, in steps between which the edge may ask others.

    read      shape, server, token                  HttpRequest         → Call | Deny
    authorize message, audience, people, scopes, …  Call and Principal  → Pending | Deny
    confirmed the same, of what the issuer says now Pending, Principal  → Pending | Deny
    conclude  revoked, stepped up, within limits    Pending and answer  → Allow | Deny

The third is taken only where a rule asks to confirm tokens at the issuer.

The message of a POST is read after its token was verified, so that strangers cannot make us read
a megabyte of JSON (docs/decisions/0005).

Law: `Allow` is constructed in one place, in `conclude`, and only from a `Pending` and a `Taken`:
every rule has passed by then. Whatever else happens is a `Deny`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from authz.core import audience, mcp
from authz.core.ledger import (
    LedgerAnswer,
    Mode,
    OverLimit,
    Query,
    Revoked,
    StepUpKey,
    StepUpMissing,
    StepUpTooOld,
    Taken,
)
from authz.core.limits import Quota, Take, bucket_id
from authz.core.memo import Memo
from authz.core.policy import (
    MODERN,
    FrontDoor,
    KnownClient,
    Policy,
    Rule,
    Server,
    StepUpTelling,
    TokenKind,
    is_configured,
)
from authz.core.principal import Client, Principal
from authz.core.reason import Reason
from authz.core.request import HttpRequest, Refused, bearer_token, check_shape, single
from authz.core.second_factor import (
    Evidence,
    Method,
    Proof,
    SecondFactor,
    merge,
    methods,
    proves,
    satisfies,
)
from authz.core.step_up import StepUpTicket


@dataclass(frozen=True, slots=True)
class Call:
    """Hold a request to a known server, with the token that it presents.

    Attributes:
        server: whose rules apply.
        request: what was sent; the body of a POST is not read yet.
        token: the bearer token, not verified yet.
    """

    server: Server
    request: HttpRequest
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pending:
    """Hold a call that passed every rule which needs no ledger, and what the ledger is asked.

    Attributes:
        call, principal: what asks, and who.
        message: the JSON-RPC message of a POST; None for GET (stream) and DELETE (end of session).
        query: what the ledger is asked.
        confirm_since: what the issuer has said of the token since then (seconds since the epoch)
            is asked for first; None where a rule asks for no such thing, or it is there already.
            Such a call is never allowed before.
        offer: the step-up that is offered where the ledger finds it missing; None where none is.
        proved: whether all that is missing is a more recent log-in: it words a refusal and
            allows nothing.
    """

    call: Call
    message: mcp.Message | None
    principal: Principal
    query: Query
    confirm_since: float | None = None
    offer: StepUpTicket | None = None
    proved: bool = False


@dataclass(frozen=True, slots=True)
class Allow:
    """Let the call through to its server.

    Attributes:
        server, message, principal: what was decided about.
        quotas: every limit after the charge.
        mode: who counted.
    """

    server: Server
    message: mcp.Message | None
    principal: Principal
    quotas: tuple[Quota, ...]
    mode: Mode


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse, with all that an answer and a log line need.

    Attributes:
        reason: the row of the table of refusals.
        detail: for the log: fixed words.
        server, message, principal: what was known by then.
        scopes: every scope of the operation, for the challenge.
        second_factor: what was asked for and is missing.
        quotas, retry_after: how limits stand; seconds to wait, None where waiting helps nothing.
        step_up: the step-up that would mend it; None where none is offered.
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


Decision = Allow | Deny


# --- steps 1 to 3a: read ----------------------------------------------------------------------


def read(request: HttpRequest, policy: Policy) -> Call | Deny:
    """Read the request: its shape, its server, its token; in this order."""
    server = policy.servers.get(request.context.get("server", ""))
    try:
        check_shape(request, policy.origins)
        return Call(_served(server, request), request, bearer_token(request))
    except Refused as refused:
        return denied(refused, server)


def denied(refused: Refused, server: Server | None) -> Deny:
    """Return the refusal of a request whose message was not read.

    Its challenge asks for the scopes of the server; those of a tool are asked for when the tool
    is called.
    """
    scopes = frozenset[str]() if server is None else server.rule.scopes
    return Deny(refused.reason, refused.detail, server, scopes=scopes)


def _served(server: Server | None, request: HttpRequest) -> Server:
    if server is None:
        raise Refused(Reason.UNKNOWN_SERVER)
    # GET streams and DELETE belong to sessions, which 2026-07-28 does not have.
    if request.method != "POST" and not server.accepts_legacy:
        raise Refused(Reason.METHOD_NOT_ALLOWED, "sessions are not accepted by this server")
    return server


# --- steps 3b to 5: authorize -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Case:
    """Hold what the rules of one call look at.

    Attributes:
        call, message, principal, policy: what asks, who asks, and by which policy.
        known: what the operator declares of the client; None where nothing.
        rules: every rule that applies, the server's first.
    """

    call: Call
    message: mcp.Message | None
    principal: Principal
    policy: Policy
    known: KnownClient | None
    rules: tuple[Rule, ...]


def authorize(call: Call, principal: Principal, policy: Policy, now: float) -> Pending | Deny:
    """Read the message and apply every rule that matches it to the verified principal.

    The audience is decided here, per request, so that a token which was verified for one server
    is worth nothing at another (RFC 9068, section 4).
    """
    try:
        message = _message(call, policy)
    except Refused as refused:
        return replace(denied(refused, call.server), principal=principal)
    return _judged(call, message, principal, policy, now)


def confirmed(pending: Pending, principal: Principal, policy: Policy, now: float) -> Pending | Deny:
    """Apply every rule again, to a principal of whom the issuer was asked meanwhile.

    Args:
        pending: what `authorize` returned, with a `confirm_since`.
        principal: as the issuer confirmed it.
        policy: as before.
        now: as before: an answer to a question that was asked since then is new enough.
    """
    return _judged(pending.call, pending.message, principal, policy, now)


def _judged(
    call: Call, message: mcp.Message | None, principal: Principal, policy: Policy, now: float
) -> Pending | Deny:
    case = _case(call, message, principal, policy)
    try:
        for check in _CHECKS:
            check(case)
        unmet = _unmet(case, now)
        query = _query(case, unmet)
    except Refused as refused:
        return Deny(
            refused.reason,
            refused.detail,
            call.server,
            message,
            principal,
            scopes=_scopes(case.rules),
            second_factor=refused.second_factor,
        )
    offer = _offer(case, query, now)
    since, proved = _confirm_since(case, now), _proved(case, unmet)
    return Pending(call, message, case.principal, query, since, offer, proved)


def _case(call: Call, message: mcp.Message | None, principal: Principal, policy: Policy) -> _Case:
    rules = _rules(call.server, message)
    known = _known(principal, policy)
    narrowed = _narrowed(principal, _most(known, policy))
    return _Case(call, message, narrowed, policy, known, rules)


def _known(principal: Principal, policy: Policy) -> KnownClient | None:
    """Return what the operator declares of the client; of the front door, of a configured one."""
    if principal.log_in is not None and not is_configured(principal.client_id):
        return None
    return policy.clients.get(principal.client_id)


def _confirm_since(case: _Case, now: float) -> float | None:
    if not any(rule.confirm for rule in case.rules):
        return None
    since, confirmed_at = now - case.policy.confirm_age, case.principal.confirmed_at
    return since if confirmed_at is None or confirmed_at < since else None


def _message(call: Call, policy: Policy) -> mcp.Message | None:
    """Return the message of a POST in a version that the server accepts."""
    request, server = call.request, call.server
    if request.method != "POST":
        version = single(request, "mcp-protocol-version")
        if version is not None and (version == MODERN or version not in server.versions):
            raise Refused(Reason.UNSUPPORTED_VERSION)
        return None
    message = mcp.read(request.body, request.headers, max_body=policy.max_body)
    # MCP 2025-06-18, "Protocol Version Header": without the header it is a legacy message
    # (`initialize` negotiates the version in its body).
    legacy = server.accepts_legacy
    if not (legacy if message.version is None else message.version in server.versions):
        raise Refused(Reason.UNSUPPORTED_VERSION)
    # 2026-07-28 has no sessions, so nothing that a client could notify or answer.
    if message.kind is not mcp.Kind.REQUEST and not legacy:
        raise Refused(Reason.INVALID_MESSAGE, "a notification or response without a session")
    return message


def _most(known: KnownClient | None, policy: Policy) -> frozenset[str] | None:
    """Return the scopes that the operator lets a client use at most; None for all it was given."""
    if known is not None:
        return known.scopes
    return None if policy.front_door is None else policy.front_door.scopes


def _make_narrowed(principal: Principal, scopes: frozenset[str] | None) -> Principal:
    """Leave out the scopes that the operator did not give to the client, for us and the server."""
    if scopes is None or principal.scopes <= scopes:
        return principal
    return replace(principal, scopes=principal.scopes & scopes)


# Once for each token: what is made of a principal elsewhere is remembered by which it is.
_narrowed: Final = Memo(_make_narrowed, 16_384)


def _rules(server: Server, message: mcp.Message | None) -> tuple[Rule, ...]:
    """Return the server's rule and every tool rule that matches, the server's first."""
    if message is None or message.tool is None:
        return (server.rule,)
    return (server.rule, *(tool.rule for tool in server.tool_rules(message.tool)))


def _scopes(rules: tuple[Rule, ...]) -> frozenset[str]:
    return frozenset().union(*(rule.scopes for rule in rules))


def _check_audience(case: _Case) -> None:
    if not audience.names(case.principal.audience, case.call.server.resource):
        raise Refused(Reason.AUDIENCE_MISMATCH)


def _check_issuer(case: _Case) -> None:
    if case.principal.issuer != case.policy.issuer:
        raise Refused(Reason.TOKEN_INVALID, "another issuer")


def _check_kind(case: _Case) -> None:
    kind = TokenKind.OPAQUE if case.principal.opaque else TokenKind.JWT
    if any(kind not in rule.tokens for rule in case.rules):
        raise Refused(Reason.TOKEN_OPAQUE if case.principal.opaque else Reason.TOKEN_SIGNED)


def _check_log_in(case: _Case) -> None:
    """Refuse a token that passed neither the front door nor a client of the issuer that may.

    The verifier has looked at this too. Here it is looked at by the policy that decides, which a
    reload may have changed since the token was remembered.
    """
    principal, door = case.principal, case.policy.front_door
    if principal.log_in is not None:
        if door is None or principal.log_in.subject != principal.subject:
            raise Refused(Reason.LOG_IN_UNKNOWN, "the record is of another person, or unasked for")
    elif door is not None and principal.client_id in door.clients:
        raise Refused(Reason.LOG_IN_UNKNOWN, "no record of a log-in")
    elif door is not None and (case.known is None or not case.known.direct):
        raise Refused(Reason.FOREIGN_CLIENT, "not named as a client that logs in directly")


def _check_client(case: _Case) -> None:
    door = case.policy.front_door
    if case.principal.log_in is not None and door is not None:
        _check_visitor(case, door)
    elif case.known is None and case.policy.clients:
        raise Refused(Reason.CLIENT_NOT_ALLOWED, "not named under clients")


def _check_visitor(case: _Case, door: FrontDoor) -> None:
    """Refuse a client of the front door that may not come, or not any more."""
    name = case.principal.client_id
    if not is_configured(name):
        if not door.admits(name):
            raise Refused(Reason.CLIENT_NOT_ALLOWED, "not taken by the front door")
    elif case.known is None or case.known.direct:
        raise Refused(Reason.CLIENT_NOT_ALLOWED, "not named as a client of the front door")


def _tool(case: _Case) -> str | None:
    return None if case.message is None else case.message.tool


def _check_tool(case: _Case) -> None:
    if _tool(case) is not None and case.call.server.tools and len(case.rules) == 1:
        raise Refused(Reason.TOOL_NOT_ALLOWED, "no tool rule matches")


def _check_people(case: _Case) -> None:
    if case.principal.subject is None:
        _check_machine(case)
        return
    for rule in case.rules:
        if rule.groups is not None and rule.groups.isdisjoint(case.principal.groups):
            raise Refused(Reason.PERSON_NOT_ALLOWED, "in none of the groups")


def _check_machine(case: _Case) -> None:
    """Let a machine pass by name, in place of the server's people; never of a tool's."""
    named = case.principal.client_id in case.call.server.machines
    if not named or case.known is None or not case.known.machine:
        raise Refused(Reason.MACHINE_NOT_ALLOWED, "not named under machines")
    for rule in case.rules[1:]:
        if rule.groups is not None or rule.second_factor is not None:
            raise Refused(Reason.MACHINE_NOT_ALLOWED, "the tool asks for a person")


def _check_scopes(case: _Case) -> None:
    if not _scopes(case.rules) <= case.principal.scopes:
        raise Refused(Reason.INSUFFICIENT_SCOPE)


# In this order; the first that refuses gives the reason.
_CHECKS: Final[tuple[Callable[[_Case], None], ...]] = (
    _check_issuer,
    _check_kind,
    _check_audience,
    _check_log_in,
    _check_client,
    _check_tool,
    _check_people,
    _check_scopes,
)


def _proofs(case: _Case) -> Iterator[Proof]:
    """Yield what is known of the log-in before the ledger is asked."""
    principal, known, log_in = case.principal, case.known, case.principal.log_in
    if log_in is not None:
        yield Proof(Evidence.LOGIN, methods(log_in.amr), log_in.auth_time)
    if principal.amr is not None:
        yield Proof(Evidence.TOKEN, methods(principal.amr), principal.auth_time)
    # What the issuer guarantees of a client holds for tokens that are signed for it: at the front
    # door a client goes by a name of ours, and the issuer knows nothing of it.
    if log_in is None and known is not None and known.assurance is not Method.NONE:
        yield from _declared(principal, known)


def _declared(principal: Principal, known: KnownClient) -> Iterator[Proof]:
    """Yield what the operator declares, where the token bears the declaration out."""
    if not lacks_marker(principal, known):
        yield Proof(Evidence.CLIENT, known.assurance, None)


def lacks_marker(principal: Principal, known: KnownClient) -> bool:
    """Tell whether a declaration counts for nothing because the token's signed marker is not it.

    The marker is asked for besides a declaration and never stands in for one; an opaque token has
    no signed claim at all.
    """
    return known.marker is not None and (principal.opaque or principal.marker != known.marker)


def _unmet(case: _Case, now: float) -> tuple[SecondFactor, ...]:
    """Return the second factors that only a step-up can still prove.

    A machine is asked for none: it has passed by name, and it inherits no declaration either,
    since a client_credentials token passed nobody's second factor.

    Raises:
        Refused: where a rule is not met and does not accept a step-up.
    """
    if case.principal.subject is None:
        return ()
    proofs = tuple(_proofs(case))
    asked = [rule.second_factor for rule in case.rules if rule.second_factor is not None]
    unmet = tuple(
        rule for rule in asked if not any(satisfies(rule, proof, now) for proof in proofs)
    )
    for rule in unmet:
        if Evidence.STEP_UP not in rule.evidence:
            proved = any(proves(rule, proof) for proof in proofs)
            reason = Reason.LOGIN_TOO_OLD if proved else Reason.SECOND_FACTOR_REQUIRED
            raise Refused(reason, "no step-up is accepted", rule)
    return unmet


def _proved(case: _Case, unmet: tuple[SecondFactor, ...]) -> bool:
    """Tell whether every unmet rule lacks an age alone."""
    proofs = tuple(_proofs(case)) if unmet else ()
    return bool(unmet) and all(any(proves(rule, proof) for proof in proofs) for rule in unmet)


def _query(case: _Case, unmet: tuple[SecondFactor, ...]) -> Query:
    call, principal = case.call, case.principal
    key = None
    if unmet and principal.person is not None:
        key = StepUpKey(principal.person, principal.grant, call.server.name)
    limits = (*case.policy.limits, *(limit for rule in case.rules for limit in rule.limits))
    return Query(
        token_id=principal.token_id,
        person=principal.person,
        client=principal.client,
        issued_at=principal.issued_at,
        step_up_key=key,
        step_up=merge(unmet) if unmet else None,
        takes=tuple(
            Take(bucket_id(limit, principal, call.request.address), limit) for limit in limits
        ),
        grant=None if principal.log_in is None else principal.log_in.grant,
        self_named=_self_named(principal),
    )


def _self_named(principal: Principal) -> Client | None:
    """Return a client of the front door as it names itself, where we call it otherwise."""
    log_in = principal.log_in
    if log_in is None or log_in.client_id == log_in.client:
        return None
    return Client(principal.issuer, log_in.client_id)


def _offer(case: _Case, query: Query, now: float) -> StepUpTicket | None:
    """Return the step-up that would prove what is still to be proved; None where none is offered.

    It is looked at only where the ledger finds no such step-up.
    """
    door, principal = case.policy.front_door, case.principal
    if query.step_up is None or principal.subject is None:
        return None
    if door is None or door.step_up is StepUpTelling.OFF:
        return None
    return StepUpTicket(
        issuer=principal.issuer,
        subject=principal.subject,
        grant=principal.grant,
        client=principal.client_id,
        account="" if principal.log_in is None else principal.log_in.account,
        server=case.call.server.name,
        tool=_tool(case),
        need=query.step_up,
        at=int(now),
    )


# --- steps 3b to 5 once more, for a person who asks why -----------------------------------------


@dataclass(frozen=True, slots=True)
class Inspection:
    """Tell what every rule says of one call, those after the first refusal too.

    Attributes:
        steps: what `authorize` looks at, in its order, and why it refuses; None where it passes.
            Where the message is refused there is no step after it.
        message: as in `Pending`.
        principal: with the scopes that its client may use.
        known: what the operator declares of the client; None where nothing.
        rules: every rule that applies, the server's first.
        proofs: what is known of the log-in without a ledger.
    """

    steps: tuple[tuple[str, Refused | None], ...]
    message: mcp.Message | None
    principal: Principal
    known: KnownClient | None
    rules: tuple[Rule, ...]
    proofs: tuple[Proof, ...]


def inspect(call: Call, principal: Principal, policy: Policy, now: float) -> Inspection:
    """Apply what `authorize` applies, and go on after a refusal."""
    try:
        case = _case(call, _message(call, policy), principal, policy)
    except Refused as refused:
        return Inspection((("message", refused),), None, principal, None, (call.server.rule,), ())
    asked: list[tuple[str, Callable[[], object]]] = [
        (check.__name__.removeprefix("_check_"), partial(check, case)) for check in _CHECKS
    ]
    asked.append(("second_factor", partial(_unmet, case, now)))
    steps = (("message", None), *((name, _refusal(check)) for name, check in asked))
    proofs = tuple(_proofs(case))
    return Inspection(steps, case.message, case.principal, case.known, case.rules, proofs)


def _refusal(check: Callable[[], object]) -> Refused | None:
    try:
        check()
    except Refused as refused:
        return refused
    return None


# --- steps 6 and 7: conclude ------------------------------------------------------------------


def conclude(pending: Pending, answer: LedgerAnswer) -> Decision:
    """Turn the ledger's answer into the decision."""
    server, message, principal = pending.call.server, pending.message, pending.principal
    if pending.confirm_since is not None:
        return Deny(Reason.INTERNAL, "not confirmed", server, message, principal)
    match answer:
        case Revoked(what):
            refusal = Deny(Reason.TOKEN_REVOKED, what)
        case StepUpMissing() if pending.proved:
            refusal = Deny(Reason.LOGIN_TOO_OLD, "no step-up", step_up=pending.offer)
        case StepUpMissing():
            refusal = Deny(Reason.SECOND_FACTOR_REQUIRED, "no step-up", step_up=pending.offer)
        case StepUpTooOld():
            refusal = Deny(Reason.LOGIN_TOO_OLD, "step-up too old", step_up=pending.offer)
        case OverLimit(quotas, retry_after):
            refusal = Deny(Reason.RATE_LIMITED, quotas=quotas, retry_after=retry_after)
        case Taken(quotas, mode):
            return Allow(server, message, principal, quotas, mode)
        case _:
            refusal = Deny(Reason.INTERNAL, "the ledger's answer is unknown")
    return replace(
        refusal,
        server=server,
        message=message,
        principal=principal,
        scopes=_scopes(_rules(server, message)),
        second_factor=_asked(pending),
    )


def _asked(pending: Pending) -> SecondFactor | None:
    need = pending.query.step_up
    return None if need is None else SecondFactor(need.method, need.max_login_age)
