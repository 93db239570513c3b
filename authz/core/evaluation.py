"""Evaluate the rules that depend on nothing but server, principal, policy and kind of message.

The result is cached per token (`IdentityCache`) and can only refuse: second factors and their age,
revocations and limits are checked for every request (`core/decision.py`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from authz.core.approval import Approval, strictest
from authz.core.catalogue import UNLISTED, Annotation, Catalogue, PinMode, PinState, pin_state
from authz.core.detail import Detail
from authz.core.exchanges import Exchange
from authz.core.identity_cache import IdentityCache
from authz.core.limits import Limit, Per
from authz.core.mcp import Message, MessageKind
from authz.core.methods import METHODS, Counts, counted
from authz.core.policy import (
    DeclaredClient,
    FrontDoor,
    OperationKind,
    Policy,
    Rule,
    Server,
    TokenKind,
)
from authz.core.principal import LoginRecord, Principal, is_configured, names_resource
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.core.second_factor import Evidence, Method, Proof, SecondFactor, methods


class Concern(Enum):
    """Name what a message is about, as far as rules tell it apart.

    SERVER: no tool. TOOL: the one that it names. UNNAMED: a tool that is not offered. TOOLS: what
    some tool was asked to do, nobody here knows which. UNKNOWN: a method that may be another way
    to a tool.
    """

    SERVER = "server"
    TOOL = "tool"
    UNNAMED = "unnamed"
    TOOLS = "tools"
    UNKNOWN = "unknown"


def concern(server: Server, message: Message | None) -> Concern:
    """Return what a message is about; None for a stream or the end of a session.

    Where tools are judged as their server, nothing but a tools/call is about tools.
    """
    if message is None or message.kind is MessageKind.RESPONSE:
        return Concern.SERVER
    if message.tool is not None:
        return Concern.TOOL
    if not server.tells_tools_apart or message.method in server.methods:
        return Concern.SERVER
    known = METHODS.get(message.method)
    if known is None or not known.by_client:
        return Concern.UNKNOWN
    return Concern.TOOLS if known.continues or message.follows_tasks else Concern.SERVER


@dataclass(frozen=True, slots=True)
class RuleContext:
    """Hold what the rules look at.

    Attributes:
        server, policy: where, and by which rules.
        principal: who asks, with the scopes that its client may use.
        known: what the operator declares of the client; None where nothing.
        rules: every rule that applies, the server's first.
        concern: what the message is about.
        definition: how the tool stands to its approved definition; approved where it matters not.
    """

    server: Server
    policy: Policy
    principal: Principal
    known: DeclaredClient | None
    rules: tuple[Rule, ...]
    concern: Concern
    definition: PinState = PinState.APPROVED


@dataclass(frozen=True, slots=True)
class StaticEvaluation:
    """Hold the result of the rules that depend on neither the time nor one request.

    Attributes:
        context: what was evaluated.
        refused: why the rules refuse, whatever else happens; None where they do not.
        asked: the second factors that the rules ask for; none of a machine: it has passed by name,
            and it inherits no declaration either, since a client_credentials token passed
            nobody's second factor.
        proofs: what is known of the log-in before the ledger is asked.
        confirm: whether a rule asks to confirm the token at the issuer.
        limits: every limit that is charged.
        by_address: whether one of them counts addresses.
        approval: what a person has to approve; None where nothing.
    """

    context: RuleContext
    refused: RefusedError | None
    asked: tuple[SecondFactor, ...]
    proofs: tuple[Proof, ...]
    confirm: bool
    limits: tuple[Limit, ...]
    by_address: bool
    approval: Approval | None = None


def evaluate(
    server: Server,
    principal: Principal,
    policy: Policy,
    message: Message | None,
    kind: Exchange = Exchange.CALL,
    *,
    cache: IdentityCache | None = None,
    catalogue: Catalogue = UNLISTED,
) -> StaticEvaluation:
    """Evaluate the rules that depend on nothing but server, principal, policy and kind of message.

    Args:
        server: where.
        principal: who.
        policy: by which rules.
        message: None for a stream or the end of a session.
        kind: what the exchange stays open for.
        cache: holds evaluations for as long as the policy is in force; None for none.
        catalogue: what the server has listed.
    """
    charged = counted(None if message is None else message.method)
    rules, about, definition = _applicable_rules(server, message, catalogue, cache)
    if cache is None:
        return _evaluate(server, principal, policy, rules, about, definition, charged, kind)
    # A member of an enumeration is one object, too.
    return cache.get(_evaluate, server, principal, policy, rules, about, definition, charged, kind)


def _evaluate(  # noqa: PLR0917 - what it is cached by
    server: Server,
    principal: Principal,
    policy: Policy,
    rules: tuple[Rule, ...],
    concern: Concern,
    definition: PinState,
    charged: Counts,
    kind: Exchange,
) -> StaticEvaluation:
    known = _known(principal, policy)
    restricted = _restrict_scopes(principal, _scope_ceiling(known, policy))
    context = RuleContext(server, policy, restricted, known, rules, concern, definition)
    every = (*policy.limits, *(limit for rule in rules for limit in rule.limits))
    limits = tuple(limit for limit in every if limit.counts in {Counts.ALL, charged})
    if kind is Exchange.STREAM and server.streams is not None:
        limits = (*limits, server.streams)
    asked = tuple(rule.second_factor for rule in rules if rule.second_factor is not None)
    return StaticEvaluation(
        context=context,
        refused=next((refused for _, refused in every_check(context) if refused is not None), None),
        asked=() if principal.subject is None else asked,
        proofs=tuple(_proofs(context)),
        confirm=any(rule.confirm for rule in rules),
        limits=limits,
        by_address=any(limit.per is Per.ADDRESS for limit in limits),
        approval=strictest(rule.approval for rule in rules if rule.approval is not None),
    )


class ApplicableRules(NamedTuple):
    """Say which rules apply to a message, the server's first, and what it is about."""

    rules: tuple[Rule, ...]
    concern: Concern
    definition: PinState = PinState.APPROVED


def _applicable_rules(
    server: Server, message: Message | None, catalogue: Catalogue, cache: IdentityCache | None
) -> ApplicableRules:
    """Return every rule that applies to a message.

    From a cache the same rules are the same tuple, whatever tool they were found for: callers
    choose its name, and evaluations must not be as many as names.
    """
    about = concern(server, message)
    tool = None if message is None else message.tool
    if tool is not None:
        if cache is None:
            return rules_of_tool(server, tool, catalogue)
        key = id(server), id(catalogue), tool
        found = cache.find(key, rules_of_tool, server, tool, catalogue)
        return found._replace(rules=cache.get(_same_tuple, *found.rules))
    if about is Concern.TOOLS:
        rules = (
            _rules_of_all_tools(server) if cache is None else cache.get(_rules_of_all_tools, server)
        )
        return ApplicableRules(rules, about)
    own = (server.rule,) if cache is None else cache.get(_same_tuple, server.rule)
    return ApplicableRules(own, about)


def rules_of_tool(server: Server, tool: str, catalogue: Catalogue) -> ApplicableRules:
    """Return the rules that apply to a tool, by its name and by what its server says of it."""
    by_name = server.matching(OperationKind.TOOL, tool)
    annotations = catalogue.annotations(tool)
    by_annotation = [rule for each, rule in server.annotations.items() if each in annotations]
    # Names decide what is offered. A server's word for a tool only adds rules to it, but for this:
    # one that reads needs no name where the operator wrote a rule for what reads.
    reads = Annotation.READ_ONLY in annotations and Annotation.READ_ONLY in server.annotations
    named = not server.tools or by_name or reads
    return ApplicableRules(
        (server.rule, *[each.rule for each in by_name], *by_annotation),
        Concern.TOOL if named else Concern.UNNAMED,
        _definition(server, tool, catalogue),
    )


def _definition(server: Server, tool: str, catalogue: Catalogue) -> PinState:
    """Return how a tool stands to its approved definition, where others are refused."""
    if server.pins is None or server.pins.mode is not PinMode.ENFORCE:
        return PinState.APPROVED
    return pin_state(server.pins, catalogue, tool)


def _rules_of_all_tools(server: Server) -> tuple[Rule, ...]:
    # Without limits and approvals: what asks after a tool's work does not begin it again.
    tools = server.operations(OperationKind.TOOL) + server.operations(OperationKind.ANNOTATION)
    return (server.rule, *(replace(each.rule, limits=(), approval=None) for each in tools))


def _same_tuple(*rules: Rule) -> tuple[Rule, ...]:
    return rules


def _known(principal: Principal, policy: Policy) -> DeclaredClient | None:
    """Return what the operator declares of the client; of the front door, of a configured one."""
    if principal.is_unconfigured:
        return None
    return policy.clients.get(principal.client_id)


def _scope_ceiling(known: DeclaredClient | None, policy: Policy) -> frozenset[str] | None:
    """Return the scopes that the operator lets a client use at most; None for all it was given."""
    if known is not None:
        return known.scopes
    return None if policy.front_door is None else policy.front_door.scopes


def _restrict_scopes(principal: Principal, scopes: frozenset[str] | None) -> Principal:
    """Leave out the scopes that the operator did not give to the client, for us and the server."""
    if scopes is None or principal.scopes <= scopes:
        return principal
    return replace(principal, scopes=principal.scopes & scopes)


def scopes(rules: tuple[Rule, ...]) -> frozenset[str]:
    """Return every scope that the rules ask for."""
    return frozenset().union(*(rule.scopes for rule in rules))


def _check_audience(context: RuleContext) -> None:
    if not names_resource(context.principal.audience, context.server.resource):
        raise RefusedError(Reason.AUDIENCE_MISMATCH)


def _check_issuer(context: RuleContext) -> None:
    if context.principal.issuer != context.policy.issuer:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.OTHER_ISSUER)


def _check_kind(context: RuleContext) -> None:
    kind = TokenKind.OPAQUE if context.principal.opaque else TokenKind.JWT
    if any(kind not in rule.tokens for rule in context.rules):
        raise RefusedError(Reason.TOKEN_OPAQUE if context.principal.opaque else Reason.TOKEN_SIGNED)


def _check_log_in(context: RuleContext) -> None:
    """Refuse a token that passed neither the front door nor a client of the issuer that may.

    The verifier has looked at this too. Here it is looked at by the policy that decides, which a
    reload may have changed since the token was remembered.
    """
    principal, door = context.principal, context.policy.front_door
    if principal.login is not None:
        if door is None or principal.login.subject != principal.subject:
            raise RefusedError(Reason.LOG_IN_UNKNOWN, Detail.RECORD_OF_ANOTHER_OR_UNASKED)
    elif door is not None and principal.client_id in door.clients:
        raise RefusedError(Reason.LOG_IN_UNKNOWN, Detail.NO_LOG_IN_RECORD)
    elif door is not None and (context.known is None or not context.known.direct):
        raise RefusedError(Reason.FOREIGN_CLIENT, Detail.NOT_DIRECT)


def _check_client(context: RuleContext) -> None:
    door = context.policy.front_door
    login = context.principal.login
    if login is not None and door is not None:
        _check_front_door_client(context, door, login)
    elif context.known is None and context.policy.clients:
        raise RefusedError(Reason.CLIENT_NOT_ALLOWED, Detail.NOT_NAMED)


def _check_front_door_client(context: RuleContext, door: FrontDoor, login: LoginRecord) -> None:
    """Refuse a client of the front door that may not come, or not any more."""
    name = context.principal.client_id
    if not is_configured(name):
        if not door.admits(name, login.document_host):
            raise RefusedError(Reason.CLIENT_NOT_ALLOWED, Detail.NOT_TAKEN)
    elif context.known is None or context.known.direct:
        raise RefusedError(Reason.CLIENT_NOT_ALLOWED, Detail.NOT_OF_FRONT_DOOR)


def _check_method(context: RuleContext) -> None:
    if context.concern is Concern.UNKNOWN:
        raise RefusedError(Reason.METHOD_NOT_OFFERED, Detail.NOT_AMONG_METHODS)


def _check_tool(context: RuleContext) -> None:
    if context.concern is Concern.UNNAMED:
        raise RefusedError(Reason.TOOL_NOT_ALLOWED, Detail.NO_TOOL_RULE)


def _check_definition(context: RuleContext) -> None:
    if context.definition is not PinState.APPROVED:
        raise RefusedError(Reason.TOOL_CHANGED, _DEFINITIONS[context.definition])


_DEFINITIONS: Final = {
    PinState.NOT_APPROVED: Detail.NOT_APPROVED,
    PinState.CHANGED: Detail.CHANGED_SINCE_APPROVAL,
    PinState.NOT_LISTED: Detail.NOT_LISTED_YET,
}


def _check_people(context: RuleContext) -> None:
    if context.principal.subject is None:
        _check_machine(context)
        return
    for rule in context.rules:
        if rule.groups is not None and rule.groups.isdisjoint(context.principal.groups):
            raise RefusedError(Reason.PERSON_NOT_ALLOWED, Detail.IN_NO_GROUP)


def _check_machine(context: RuleContext) -> None:
    """Let a machine pass by name, in place of the server's people; never of a tool's."""
    named = context.principal.client_id in context.server.machines
    if not named or context.known is None or not context.known.machine:
        raise RefusedError(Reason.MACHINE_NOT_ALLOWED, Detail.NO_MACHINE)
    for rule in context.rules[1:]:
        asks = (rule.groups, rule.second_factor, rule.approval)
        if any(each is not None for each in asks):
            raise RefusedError(Reason.MACHINE_NOT_ALLOWED, Detail.TOOL_ASKS_FOR_PERSON)


def _check_scopes(context: RuleContext) -> None:
    if not scopes(context.rules) <= context.principal.scopes:
        raise RefusedError(Reason.INSUFFICIENT_SCOPE)


# In this order; the first that refuses gives the reason.
_CHECKS: Final[tuple[Callable[[RuleContext], None], ...]] = (
    _check_issuer,
    _check_kind,
    _check_audience,
    _check_log_in,
    _check_client,
    _check_method,
    _check_tool,
    _check_definition,
    _check_people,
    _check_scopes,
)


def _proofs(context: RuleContext) -> Iterator[Proof]:
    """Yield what is known of the log-in before the ledger is asked."""
    principal, known, login = context.principal, context.known, context.principal.login
    if login is not None:
        yield Proof(Evidence.LOGIN, methods(login.amr), login.auth_time)
    if principal.amr is not None:
        yield Proof(Evidence.TOKEN, methods(principal.amr), principal.auth_time)
    # What the issuer guarantees of a client holds for tokens that are signed for it: at the front
    # door a client goes by a name of ours, and the issuer knows nothing of it.
    if login is None and known is not None and known.assurance is not Method.NONE:
        yield from _declared(principal, known)


def _declared(principal: Principal, known: DeclaredClient) -> Iterator[Proof]:
    """Yield what the operator declares, where the token bears the declaration out."""
    if not lacks_assurance_claim(principal, known):
        yield Proof(Evidence.CLIENT, known.assurance, None)


def lacks_assurance_claim(principal: Principal, known: DeclaredClient) -> bool:
    """Tell whether a declaration counts for nothing because the token's assurance claim is another.

    The claim is required besides a declaration and never stands in for one; an opaque token has
    no signed claim at all.
    """
    return known.assurance_claim is not None and (
        principal.opaque or principal.assurance_claim != known.assurance_claim
    )


def every_check(context: RuleContext) -> tuple[tuple[str, RefusedError | None], ...]:
    """Return the name of every rule in its order, and why it refuses; None where it passes."""
    names = (check.__name__.removeprefix("_check_") for check in _CHECKS)
    return tuple(zip(names, (_refusal(check, context) for check in _CHECKS), strict=True))


def _refusal(check: Callable[[RuleContext], None], context: RuleContext) -> RefusedError | None:
    try:
        check(context)
    except RefusedError as refused:
        # It is kept: with its frames, all that they hold would be.
        return refused.with_traceback(None)
    return None
