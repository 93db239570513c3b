"""Descriptions of what each step of a decision looked at, for `authz explain`.

Values are those of a verified token or of authz.yaml, quoted; the token is in none.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from authz.config.problems import field_name
from authz.core.approval import strictest
from authz.core.catalogue import PinState, pin_state
from authz.core.conditions import (
    ArgumentTest,
    Given,
    Matches,
    OneOf,
    Outcome,
    Under,
    Within,
)
from authz.core.decision import BearerRequest, Deny, Inspection
from authz.core.evaluation import Concern, lacks_assurance_claim, select
from authz.core.operations import UnreadableOperationError, operations
from authz.core.policy import OperationKind, Rule, RuleTarget, TokenKind
from authz.core.request import HttpRequest
from authz.core.second_factor import Evidence, Method, SecondFactor, proves, satisfies

_METHODS: Final = {
    Method.NONE: "nothing",
    Method.ANY: "a second factor",
    Method.OTP: "a one-time password",
    Method.TOTP: "TOTP",
}


def bearer_words(call: BearerRequest | Deny, request: HttpRequest) -> Mapping[str, str]:
    """Return what is told of the steps of `read`."""
    server = call.server
    return {
        "shape": f"{request.method}, no foreign origin, no token in the address",
        "server": "" if server is None else f"{server.name}, {server.resource}",
        "bearer": "one bearer token",
    }


def step_words(
    name: str, seen: Inspection, call: BearerRequest, now: float
) -> tuple[str, tuple[str, ...]]:
    """Return what a step of `authorize` looked at, and a line for each piece of it."""
    if name == "second_factor":
        return _second_factor(seen, now)
    if name == "approval":
        return _approval(seen), ()
    if name == "operation":
        return _operation(seen, call)
    return _WORDS[name](seen, call), ()


def listed(values: Iterable[str]) -> str:
    """Return values in quotes, in order, or `none`."""
    return ", ".join(json.dumps(value) for value in sorted(set(values))) or "none"


def _message(seen: Inspection, _: BearerRequest) -> str:
    if seen.message is None:
        return ""
    version = seen.message.version or "before the version header"
    return f"{seen.message.method}, MCP {version}"


def _issuer(seen: Inspection, _: BearerRequest) -> str:
    return f"iss {json.dumps(seen.principal.issuer)}"


def _kind(seen: Inspection, _: BearerRequest) -> str:
    taken = frozenset(TokenKind).intersection(*(rule.tokens for rule in seen.rules))
    kind = "opaque" if seen.principal.opaque else "signed (jwt)"
    return f"{kind}; accepted: {listed(each.value for each in taken)}"


def _audience(seen: Inspection, call: BearerRequest) -> str:
    wanted = json.dumps(call.server.resource)
    return f"aud {listed(seen.principal.audience)}; the server is {wanted}"


def _log_in(seen: Inspection, _: BearerRequest) -> str:
    login = seen.principal.login
    if login is None:
        return "not of the front door"
    return (
        f"at the front door: client_id {json.dumps(login.client_id)}, "
        f"grant {json.dumps(login.grant)}, amr {listed(login.amr)}"
    )


def _client(seen: Inspection, _: BearerRequest) -> str:
    client = json.dumps(seen.principal.client_id)
    return f"{client}, {'not named' if seen.known is None else 'named'} under clients"


def _method(seen: Inspection, call: BearerRequest) -> str:
    message = seen.message
    if message is None or not message.method:
        return "no method is called"
    about = _CONCERNS[select(call.server, message, None).concern]
    return f"{json.dumps(message.method)}; {about}"


_CONCERNS: Final = {
    Concern.SERVER: "judged by the server's rule",
    Concern.TOOL: "judged by the server's rule and the tool's",
    Concern.PROMPT: "judged by the server's rule and the prompt's",
    Concern.RESOURCE: "judged by the server's rule and the resources'",
    Concern.TOOLS: "it goes on with a tool's work: judged by the rules of all tools together",
    Concern.UNKNOWN: "operations are named, and neither MCP nor the server's methods have it",
}


def _operation(seen: Inspection, call: BearerRequest) -> tuple[str, tuple[str, ...]]:
    """Return what is named, and which rules apply; of the others which condition fails."""
    if seen.message is None:
        return "no operation is named", ()
    try:
        named = operations(seen.message)
    except UnreadableOperationError:
        return "what it is about is not read", ()
    if not named:
        return "no operation is named", ()
    words, notes = list[str](), list[str]()
    for each in named:
        matching = call.server.matching(each.kind, each.name)
        patterns = [rule.pattern for rule in matching if rule.pattern is not None]
        what = f"{_ONE[each.kind]} {json.dumps(each.name)}"
        if each.kind is OperationKind.TOOL and call.server.annotations:
            said = seen.catalogue.annotations(each.name)
            what += (
                f"; the server says: {listed(annotation.value for annotation in said)}"
                if each.name in seen.catalogue.tools
                else "; not listed yet: taken as the strictest"
            )
            patterns += [found.value for found in call.server.annotations if found in said]
        elif not call.server.names(each.kind):
            words.append(f"{what}; the server names no {each.kind.value}")
            continue
        words.append(f"{what}; rules that match: {listed(patterns)}")
        for target in matching if each.acts else ():
            notes += _conditions(target, seen.message.arguments)
    return "; ".join(words), tuple(notes)


_ONE: Final = {
    OperationKind.TOOL: "tool",
    OperationKind.PROMPT: "prompt",
    OperationKind.RESOURCE: "resource",
}


def _conditions(target: RuleTarget[Rule], arguments: Mapping[str, object] | None) -> Iterable[str]:
    """Yield each condition of a rule, in words of authz.yaml, and what it says of a call."""
    where = field_name((*target.path, "when"))
    for condition in target.rule.when:
        words = f"argument {json.dumps(condition.pointer.text)} {_test(condition.test)}"
        yield f"{where}: {words}: {_OUTCOMES[condition.judge(arguments)]}"


_OUTCOMES: Final = {
    Outcome.HOLDS: "holds",
    Outcome.FAILS: "fails",
    Outcome.UNREADABLE: "cannot be judged: it is of another kind, or could be read differently",
}


def _test(test: ArgumentTest) -> str:
    match test:
        case OneOf(values):
            return f"is one of {', '.join(json.dumps(value) for value in values)}"
        case Matches(pattern):
            return f"matches {json.dumps(pattern)}"
        case Under(folder):
            return f"is under {json.dumps(folder or '/')}"
        case Within():
            bounds = {">=": test.least, "<=": test.most, ">": test.above, "<": test.below}
            return " and ".join(
                f"is {sign} {each}" for sign, each in bounds.items() if each is not None
            )
        case Given(present=True):
            return "is there"
        case _:
            return "is not there"


def _definition(seen: Inspection, call: BearerRequest) -> str:
    tool, pins = None if seen.message is None else seen.message.tool, call.server.pins
    if pins is None or tool is None:
        return "no definition is compared"
    return f"{_PIN_STATES[pin_state(pins, seen.catalogue, tool)]} ({pins.mode.value})"


_PIN_STATES: Final = {
    PinState.APPROVED: "what the server says of it is what was approved",
    PinState.NOT_APPROVED: "nobody has approved it",
    PinState.CHANGED: "the server says something else of it than was approved",
    PinState.NOT_LISTED: "the server has not listed it yet",
}


def _people(seen: Inspection, call: BearerRequest) -> str:
    who = seen.principal
    if who.subject is None:
        return f"no person; machines of the server: {listed(call.server.machines)}"
    asked = [f"one of {listed(rule.groups)}" for rule in seen.rules if rule.groups is not None]
    person = f"person {json.dumps(who.subject)}, groups {listed(who.groups)}"
    return f"{person}; asked for: {' and '.join(asked) or 'nobody in particular'}"


def _scopes(seen: Inspection, _: BearerRequest) -> str:
    needed = frozenset[str]().union(*(rule.scopes for rule in seen.rules))
    words = f"needs {listed(needed)}; has {listed(seen.principal.scopes)}"
    if missing := needed - seen.principal.scopes:
        words += f"; lacks {listed(missing)}"
    if seen.known is not None and seen.known.scopes is not None:
        words += f"; its client may use {listed(seen.known.scopes)}"
    return words


_WORDS: Final[Mapping[str, Callable[[Inspection, BearerRequest], str]]] = MappingProxyType({
    "message": _message,
    "issuer": _issuer,
    "kind": _kind,
    "audience": _audience,
    "log_in": _log_in,
    "client": _client,
    "method": _method,
    "definition": _definition,
    "people": _people,
    "scopes": _scopes,
})  # fmt: skip


def _approval(seen: Inspection) -> str:
    asked = strictest(rule.approval for rule in seen.rules if rule.approval is not None)
    if asked is None or asked.lifetime is None:
        return "a person approves each call by itself"
    return f"a person approves the tool, for {asked.lifetime} s"


def _second_factor(seen: Inspection, now: float) -> tuple[str, tuple[str, ...]]:
    asked = [rule.second_factor for rule in seen.rules if rule.second_factor is not None]
    if not asked:
        return "none is asked for", ()
    if seen.principal.subject is None:
        return "none is asked of a machine", ()
    lines = [line for rule in asked for line in _evidence(rule, seen, now)]
    return "; ".join(_asked(rule) for rule in asked), tuple(lines)


def _asked(rule: SecondFactor) -> str:
    age = "" if rule.max_login_age is None else f", log-in at most {rule.max_login_age} s ago"
    return f"{_METHODS[rule.method]}{age}, by {listed(each.value for each in rule.evidence)}"


def _evidence(rule: SecondFactor, seen: Inspection, now: float) -> Iterable[str]:
    """Yield a line for every place that a proof may come from: what it says, and whether it does.

    A step-up is asked of the ledger.
    """
    for proof in seen.proofs:
        age = "no age" if proof.auth_time is None else f"{int(now - proof.auth_time)} s ago"
        if satisfies(rule, proof, now):
            does = "enough"
        elif proves(rule, proof):
            does = "not enough: too old, or without an age"
        else:
            does = "not enough"
        yield f"{proof.source.value} proves {_METHODS[proof.method]} ({age}): {does}"
    told = {proof.source for proof in seen.proofs}
    for place in sorted(rule.evidence - told, key=lambda each: each.value):
        unmarked = _unmarked(seen) if place is Evidence.CLIENT else ""
        yield f"{place.value}: {unmarked or _ABSENT[place.value]}"


def _unmarked(seen: Inspection) -> str:
    """Return why a declaration does not count for this token; nothing where that is not why."""
    who, known = seen.principal, seen.known
    if who.login is not None or known is None or not lacks_assurance_claim(who, known):
        return ""
    wanted = f"the assurance needs the signed claim {json.dumps(known.assurance_claim)} besides"
    if who.opaque:
        return f"{wanted} (issuer.assurance_claim), and an opaque token has none"
    said = (
        "is missing" if who.assurance_claim is None else f"says {json.dumps(who.assurance_claim)}"
    )
    return f"{wanted}, and the token's (issuer.assurance_claim) {said}"


_ABSENT: Final = {
    "login": "nothing is recorded for a client that logs in directly",
    "step_up": "asked of the ledger, where nothing else is enough",
    "token": "the token has no amr",
    "client": "authz.yaml declares no assurance of the client, or it came by the front door",
}
