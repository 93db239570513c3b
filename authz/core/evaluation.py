"""Evaluate the rules that depend on nothing but server, principal, policy and kind of message.

The result is cached per token (`IdentityCache`) and can only refuse: second factors and their age,
revocations and limits are checked for every request (`core/decision.py`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from authz.core.approval import Approval, strictest
from authz.core.calendar_windows import Calendar
from authz.core.catalogue import UNLISTED, Annotation, Catalogue, PinMode, PinState, pin_state
from authz.core.conditions import Outcome, judge
from authz.core.detail import Detail
from authz.core.exchanges import Exchange
from authz.core.identity_cache import IdentityCache
from authz.core.limits import Limit, Per
from authz.core.mcp import Message, MessageKind
from authz.core.methods import METHODS, Counts, counted
from authz.core.operations import (
    NAMES,
    LooseUriError,
    Operation,
    UnreadableOperationError,
    operations,
)
from authz.core.parameter_headers import repeat_arguments
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
from authz.core.resource_uris import is_strict_template
from authz.core.second_factor import Evidence, Method, Proof, SecondFactor, methods


class Concern(Enum):
    """Name what a message is about, as far as rules tell it apart.

    SERVER: no operation with rules. TOOL, PROMPT, RESOURCE: what it names. TOOLS: what some tool
    was asked to do, nobody here knows which. UNKNOWN: a method that may be another way to an
    operation.
    """

    SERVER = "server"
    TOOL = "tool"
    PROMPT = "prompt"
    RESOURCE = "resource"
    TOOLS = "tools"
    UNKNOWN = "unknown"


class Match(Enum):
    """Name whether rules were found for what a message is about.

    MATCHED: for all of it. NO_RULE: no pattern matches. NO_CONDITION: a pattern does, but the
    conditions of no rule hold. ARGUMENT: a condition cannot be judged. HEADER: a header that
    repeats an argument says something else. LOOSE_URI: a URI is not in its one spelling.
    UNREADABLE: it cannot be told what the message is about.
    """

    MATCHED = "matched"
    NO_RULE = "no_rule"
    NO_CONDITION = "no_condition"
    ARGUMENT = "argument"
    HEADER = "header"
    LOOSE_URI = "loose_uri"
    UNREADABLE = "unreadable"


_CONCERNS: Final = {
    OperationKind.TOOL: Concern.TOOL,
    OperationKind.PROMPT: Concern.PROMPT,
    OperationKind.RESOURCE: Concern.RESOURCE,
}
_NOTHING_SAID: Final = frozenset[Annotation]()
# Characters of a name: with longer ones, which callers choose, too much would be cached.
_MAX_CACHED_NAME: Final = 256


@dataclass(frozen=True, slots=True)
class Selection:
    """Hold which rules of a server apply to a message, the server's own first, and why.

    Attributes:
        server, rules, concern, match, definition: as in `RuleContext`.
        cost: as how many requests it counts; the greatest of the rules.
    """

    server: Server
    rules: tuple[Rule, ...]
    concern: Concern
    match: Match
    definition: PinState
    cost: int


@dataclass(frozen=True, slots=True)
class _Matching:
    """Hold the rules for a name, whatever the arguments.

    Attributes:
        rules: those by name, then those by annotation.
        offers: how many of them, from the first, offer what they match; the others only add.
        conditional: whether any looks at arguments, or costs what one of them says.
        definition: as in `RuleContext`.
        cost: the most that any of them says.
    """

    rules: tuple[Rule, ...]
    offers: int
    conditional: bool
    definition: PinState
    cost: int


@dataclass(frozen=True, slots=True)
class RuleContext:
    """Hold what the rules look at.

    Attributes:
        server, policy: where, and by which rules.
        principal: who asks, with the scopes that its client may use.
        known: what the operator declares of the client; None where nothing.
        rules: every rule that applies, the server's first.
        concern: what the message is about.
        match: whether there are rules for it.
        definition: how the tool stands to its approved definition; approved where it matters not.
    """

    server: Server
    policy: Policy
    principal: Principal
    known: DeclaredClient | None
    rules: tuple[Rule, ...]
    concern: Concern
    match: Match = Match.MATCHED
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
        calendars: of those of them whose windows are days or months.
        approval: what a person has to approve; None where nothing.
    """

    context: RuleContext
    refused: RefusedError | None
    asked: tuple[SecondFactor, ...]
    proofs: tuple[Proof, ...]
    confirm: bool
    limits: tuple[Limit, ...]
    by_address: bool
    calendars: tuple[Calendar, ...] = ()
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
    selection = select(server, message, cache, catalogue)
    if cache is None:
        return _evaluate(selection, principal, policy, charged, kind)
    # A member of an enumeration is one object, too.
    return cache.get(_evaluate, selection, principal, policy, charged, kind)


def could_be_allowed(
    server: Server,
    principal: Principal,
    policy: Policy,
    kind: OperationKind,
    name: str,
    *,
    cache: IdentityCache | None = None,
    catalogue: Catalogue = UNLISTED,
) -> bool:
    """Tell whether the rules let some call of an operation pass, whatever its arguments.

    For lists, which show what could be used: rules with conditions count as alternatives, and what
    the time, a step-up or a limit decides refuses nothing here.

    Args:
        server: as of `evaluate`, like principal, policy and cache.
        principal: who asks for the list.
        policy: by which rules.
        kind: of the operation.
        name: its name; of a resource its URI, or a template of URIs.
        cache: of this policy; None for none.
        catalogue: what the server has listed.
    """
    if kind is OperationKind.RESOURCE and server.names(kind) and not is_strict_template(name):
        return False
    matching, about = _matching(server, kind, name, catalogue, cache), _CONCERNS[kind]
    offers = matching.rules[: matching.offers]
    always = tuple(rule for rule in matching.rules if not rule.when)
    # One more rule never lets more through, so that one alone is the best that can come.
    enough = not server.names(kind) or any(not rule.when for rule in offers)
    sets = [always] if enough else [(rule, *always) for rule in offers]
    alternatives = [
        _chosen(server, each, about, Match.MATCHED, cache, matching.definition) for each in sets
    ]
    charged, exchange = Counts.OPERATIONS, Exchange.CALL
    if cache is None:
        results = (_evaluate(each, principal, policy, charged, exchange) for each in alternatives)
    else:
        results = (
            cache.get(_evaluate, each, principal, policy, charged, exchange)
            for each in alternatives
        )
    return any(each.refused is None for each in results)


def _evaluate(
    selection: Selection, principal: Principal, policy: Policy, charged: Counts, kind: Exchange
) -> StaticEvaluation:
    server, rules = selection.server, selection.rules
    known = _known(principal, policy)
    restricted = _restrict_scopes(principal, _scope_ceiling(known, policy))
    context = RuleContext(
        server,
        policy,
        restricted,
        known,
        rules,
        selection.concern,
        selection.match,
        selection.definition,
    )
    every = (
        *((limit, selection.cost) for limit in (*policy.limits, *server.rule.limits)),
        *((limit, 1) for rule in rules[1:] for limit in rule.limits),
    )
    # Of the limits that are charged alone: another may have no room for the cost.
    limits = tuple(
        _costing(limit, times)
        for limit, times in every
        if limit.counts in {Counts.ALL, charged}
        and (limit.audience is None or limit.audience.includes(principal))
    )
    if kind is Exchange.STREAM and server.streams is not None:
        limits = (*limits, server.streams)
    approvals = (rule.approval for rule in rules if rule.approval is not None)
    asked = tuple(rule.second_factor for rule in rules if rule.second_factor is not None)
    return StaticEvaluation(
        context=context,
        refused=next((refused for _, refused in every_check(context) if refused is not None), None),
        asked=() if principal.subject is None else asked,
        proofs=tuple(_proofs(context)),
        confirm=any(rule.confirm for rule in rules),
        limits=limits,
        by_address=any(limit.per is Per.ADDRESS for limit in limits),
        calendars=tuple(limit.calendar for limit in limits if limit.calendar is not None),
        approval=None if selection.concern is Concern.TOOLS else strictest(approvals),
    )


def _costing(limit: Limit, cost: int) -> Limit:
    """Return a limit to which a call is as many requests."""
    return limit if cost == 1 else replace(limit, cost=limit.cost * cost)


# --- which rules apply ---------------------------------------------------------------------------


def select(
    server: Server,
    message: Message | None,
    cache: IdentityCache | None,
    catalogue: Catalogue = UNLISTED,
) -> Selection:
    """Select the rules that apply to a message; None for a stream or the end of a session.

    Where operations of a kind are not named, every one of them is as good as the server. From a
    cache the same rules are the same selection, whatever names and arguments they were found for:
    callers choose these, and evaluations must not be as many.
    """
    if message is None or message.kind is MessageKind.RESPONSE:
        return _chosen(server, (), Concern.SERVER, Match.MATCHED, cache)
    if message.tool is not None:
        return _used(server, OperationKind.TOOL, message.tool, message, cache, catalogue)
    if not server.names_operations:
        return _chosen(server, (), Concern.SERVER, Match.MATCHED, cache)
    return _of_method(server, message, cache)


def _of_method(server: Server, message: Message, cache: IdentityCache | None) -> Selection:
    """Select the rules for a message other than a tools/call, where any operations are named."""
    declared = message.method in server.methods
    known = METHODS.get(message.method)
    if not declared and (known is None or not known.by_client):
        return _chosen(server, (), Concern.UNKNOWN, Match.MATCHED, cache)
    named = _of_named(server, message, cache)
    follows = known is not None and (known.continues or message.follows_tasks)
    apart = server.tells_tools_apart
    if declared or not follows or not apart or named.match is not Match.MATCHED:
        return named
    # Without limits, and nobody approves it again: what asks after a tool's work begins none. But
    # machines are refused as they are there (`_check_machine`).
    tools = _rules_of_all_tools(server) if cache is None else cache.get(_rules_of_all_tools, server)
    rules = (*tools, *named.rules[1:])
    return _chosen(server, rules, Concern.TOOLS, Match.MATCHED, cache)


def _rules_of_all_tools(server: Server) -> tuple[Rule, ...]:
    """Return the rules of all tools, without their limits."""
    every = server.rules(OperationKind.TOOL) + server.rules(OperationKind.ANNOTATION)
    return tuple([_unlimited(each.rule, None) for each in every])


def _of_named(server: Server, message: Message, cache: IdentityCache | None) -> Selection:
    """Select the rules of the prompts and resources that a message names."""
    kinds = [kind for kind in NAMES.get(message.method, ()) if server.names(kind)]
    if not kinds:
        return _chosen(server, (), Concern.SERVER, Match.MATCHED, cache)
    try:
        named = [each for each in operations(message) if each.kind in kinds]
    except LooseUriError:
        if OperationKind.RESOURCE in kinds:
            return _chosen(server, (), Concern.RESOURCE, Match.LOOSE_URI, cache)
        named = []  # a completion of a resource, where prompts alone are named
    except UnreadableOperationError:
        return _chosen(server, (), _CONCERNS[kinds[0]], Match.UNREADABLE, cache)
    if len(named) == 1 and named[0].acts:
        return _used(server, named[0].kind, named[0].name, message, cache, UNLISTED)
    return _asked_after(server, named, cache)


def _used(  # noqa: PLR0917 - what it is found by
    server: Server,
    kind: OperationKind,
    name: str,
    message: Message,
    cache: IdentityCache | None,
    catalogue: Catalogue,
) -> Selection:
    """Select the rules for the use of one operation."""
    about, matching = _CONCERNS[kind], _matching(server, kind, name, catalogue, cache)
    definition = matching.definition
    if not matching.offers and server.names(kind):
        return _chosen(server, matching.rules, about, Match.NO_RULE, cache, definition)
    if not matching.conditional:
        rules, cost = matching.rules, matching.cost
        return _chosen(server, rules, about, Match.MATCHED, cache, definition, cost)
    if not repeat_arguments(message.headers, message.arguments):
        # The server, or a proxy before it, may act on the header.
        return _chosen(server, (), about, Match.HEADER, cache, definition)
    holding, offered = list[Rule](), not server.names(kind)
    for number, rule in enumerate(matching.rules):
        outcome = judge(rule.when, message.arguments) if rule.when else Outcome.HOLDS
        if outcome is Outcome.UNREADABLE:
            # Whether it would have let the call pass or asked for more: the server may read it.
            return _chosen(server, (), about, Match.ARGUMENT, cache, definition)
        if outcome is Outcome.HOLDS:
            holding.append(rule)
            offered = offered or number < matching.offers
    match = Match.MATCHED if offered else Match.NO_CONDITION
    cost = max((_cost(rule, message.arguments) for rule in holding), default=1)
    return _chosen(server, tuple(holding), about, match, cache, definition, cost)


def _cost(rule: Rule, arguments: Mapping[str, object] | None) -> int:
    """Return as how many requests a call with these arguments counts by a rule."""
    return rule.cost if rule.cost_by is None else rule.cost_by.of(arguments)


def _asked_after(server: Server, named: list[Operation], cache: IdentityCache | None) -> Selection:
    """Select the rules for what asks after operations: all of their rules, without their limits."""
    if not named:
        return _chosen(server, (), Concern.SERVER, Match.MATCHED, cache)
    kind, wanted = named[0].kind, set[int]()
    for each in named:
        found = _matching(server, each.kind, each.name, UNLISTED, cache).rules
        if not found or each.kind is not kind:
            return _chosen(server, (), _CONCERNS[each.kind], Match.NO_RULE, cache)
        wanted |= {id(rule) for rule in found}
    # In the order of the file: callers choose the order of names, and how often one is named.
    rules = [each.rule for each in server.rules(kind) if id(each.rule) in wanted]
    unlimited = tuple(_unlimited(rule, cache) for rule in rules)
    return _chosen(server, unlimited, _CONCERNS[kind], Match.MATCHED, cache)


def _chosen(  # noqa: PLR0917 - what it is found by
    server: Server,
    rules: tuple[Rule, ...],
    about: Concern,
    match: Match,
    cache: IdentityCache | None,
    definition: PinState = PinState.APPROVED,
    cost: int | None = None,
) -> Selection:
    """Return a selection; without a cost by arguments it costs the most that a rule says."""
    if cost is None:
        cost = _most(rules)
    if cache is None:
        return _selection(cost, server, about, match, definition, *rules)
    # By the cost itself, which is no object of its own; `ArgumentCost` bounds how many there are.
    key = (cost, id(server), id(about), id(match), id(definition), *[id(rule) for rule in rules])
    return cache.find(key, _selection, cost, server, about, match, definition, *rules)


def _selection(
    cost: int, server: Server, about: Concern, match: Match, definition: PinState, *rules: Rule
) -> Selection:
    return Selection(server, (server.rule, *rules), about, match, definition, cost)


def _matching(
    server: Server,
    kind: OperationKind,
    name: str,
    catalogue: Catalogue,
    cache: IdentityCache | None,
) -> _Matching:
    annotations, definition = _NOTHING_SAID, PinState.APPROVED
    if kind is OperationKind.TOOL:
        annotations = catalogue.annotations(name)
        definition = _definition(server, name, catalogue)
    if cache is None or len(name) > _MAX_CACHED_NAME:
        return _find_rules(server, kind, name, annotations, definition)
    # Of a catalogue nothing is held: a server that changes its words makes many.
    key = id(server), id(kind), name, annotations, id(definition)
    return cache.find(key, _find_rules, server, kind, name, annotations, definition)


def _find_rules(
    server: Server,
    kind: OperationKind,
    name: str,
    annotations: frozenset[Annotation],
    definition: PinState,
) -> _Matching:
    by_name, by_annotation = server.rules_for(kind, name), list[Rule]()
    if kind is OperationKind.TOOL:
        said = {each: rule for each, rule in server.annotations.items() if each in annotations}
        # Names decide what is offered. A server's word for a tool only adds rules to it, but for
        # this: one that reads needs no name where the operator wrote a rule for what reads.
        if not by_name and Annotation.READ_ONLY in said:
            by_name.append(said.pop(Annotation.READ_ONLY))
        by_annotation = list(said.values())
    rules = (*by_name, *by_annotation)
    return _Matching(rules, len(by_name), _conditional(rules), definition, _most(rules))


def _most(rules: tuple[Rule, ...]) -> int:
    return max([1, *[rule.cost for rule in rules]])


def _conditional(rules: tuple[Rule, ...]) -> bool:
    return any(rule.when or rule.cost_by is not None for rule in rules)


def is_offered(server: Server, tool: str, catalogue: Catalogue) -> bool:
    """Tell whether a tool is offered at all, by its name or as one that only reads."""
    found = _matching(server, OperationKind.TOOL, tool, catalogue, None)
    return not server.tools or found.offers > 0


def _definition(server: Server, tool: str, catalogue: Catalogue) -> PinState:
    """Return how a tool stands to its approved definition, where others are refused."""
    if server.pins is None or server.pins.mode is not PinMode.ENFORCE:
        return PinState.APPROVED
    return pin_state(server.pins, catalogue, tool)


def _unlimited(rule: Rule, cache: IdentityCache | None) -> Rule:
    if not rule.limits and rule.cost == 1:
        return rule
    return _without_limits(rule) if cache is None else cache.get(_without_limits, rule)


def _without_limits(rule: Rule) -> Rule:
    return replace(rule, limits=(), cost=1, cost_by=None, whole=rule)


# --- what they say -------------------------------------------------------------------------------


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


def _check_operation(context: RuleContext) -> None:
    """Refuse what no rule lets pass, of a kind that is named."""
    kind, match = _KINDS.get(context.concern), context.match
    if kind is None:
        return
    reason, no_rule = _NOT_ALLOWED[kind]
    if match is Match.HEADER:
        raise RefusedError(Reason.HEADER_MISMATCH, Detail.MCP_PARAM)
    if match in _ARGUMENTS:
        raise RefusedError(Reason.ARGUMENTS_NOT_ALLOWED, _ARGUMENTS[match])
    if match is not Match.MATCHED:
        raise RefusedError(reason, _UNREADABLE.get(match, no_rule))
    if context.server.names(kind) and len(context.rules) == 1:
        raise RefusedError(reason, no_rule)


_KINDS: Final = {about: kind for kind, about in _CONCERNS.items()}
_NOT_ALLOWED: Final = {
    OperationKind.TOOL: (Reason.TOOL_NOT_ALLOWED, Detail.NO_TOOL_RULE),
    OperationKind.PROMPT: (Reason.PROMPT_NOT_ALLOWED, Detail.NO_PROMPT_RULE),
    OperationKind.RESOURCE: (Reason.RESOURCE_NOT_ALLOWED, Detail.NO_RESOURCE_RULE),
}
_ARGUMENTS: Final = {
    Match.NO_CONDITION: Detail.NO_CONDITION_HOLDS,
    Match.ARGUMENT: Detail.ARGUMENT_NOT_JUDGED,
}
_UNREADABLE: Final = {
    Match.LOOSE_URI: Detail.LOOSE_URI,
    Match.UNREADABLE: Detail.OPERATION_UNREADABLE,
}


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
    """Let a machine pass by name, in place of the server's people; never of an operation's."""
    named = context.principal.client_id in context.server.machines
    if not named or context.known is None or not context.known.machine:
        raise RefusedError(Reason.MACHINE_NOT_ALLOWED, Detail.NO_MACHINE)
    for rule in context.rules[1:]:
        asked = (rule.groups, rule.second_factor, rule.approval)
        if any(each is not None for each in asked):
            asks = Detail.TOOL_ASKS_FOR_PERSON
            if context.concern in {Concern.PROMPT, Concern.RESOURCE}:
                asks = Detail.OPERATION_ASKS_FOR_PERSON
            raise RefusedError(Reason.MACHINE_NOT_ALLOWED, asks)


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
    _check_operation,
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
