"""Records of the audit trail: one line of JSON each, made of a decision or an event.

Invariant: a record is printable ASCII, holds no token, no body and no argument but those that
a rule names, and is bounded in length whatever a caller sends (tests/audit/test_record.py).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

from authz.core.approval import Approval
from authz.core.decision import Allow, Decision, Deny
from authz.core.identity_cache import IdentityCache
from authz.core.json_pointer import NotFound
from authz.core.limits import Quota
from authz.core.mcp import NAME_HEADER, Message
from authz.core.methods import METHODS, Role, role
from authz.core.operations import claimed_names
from authz.core.policy import Rule, RuleTarget, Server, TokenKind
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import HttpRequest
from authz.core.strict_json import StrictJsonError, loads

MAX_TEXT: Final = 8192  # bytes of a record
_MAX_VALUE: Final = 256  # characters
_SHORT_VALUE: Final = 40  # characters of each value, where a record would be longer than MAX_TEXT
_MAX_LOG_VALUE: Final = 10**15

# Names and values; empty values are left out.
Fields = tuple[tuple[str, str], ...]


class AuditEvent(Enum):
    """Name the kinds of records.

    DECISION: one operation. REFUSALS: several refusals, counted. LOG_IN: a step at the front door.
    OPERATOR: what somebody did on the command line. ANCHOR: the ends of other chains, for checks.
    GAP: records that were lost. END: the last record of a process that stopped as it was told.
    """

    DECISION = "decision"
    REFUSALS = "refusals"
    LOG_IN = "log_in"
    OPERATOR = "operator"
    ANCHOR = "anchor"
    GAP = "gap"
    END = "end"


class ChainLink(NamedTuple):
    """Name one record of a chain by its number, from 0 on, and its MAC."""

    number: int
    mac: str


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Hold one record as it was read.

    Attributes:
        time: seconds since the epoch, of the event.
        chain: the name of its chain.
        number: its place in the chain, from 0 on.
        previous: the MAC of the record before it; empty for the first.
        event: its kind.
        fields: what it says, by the names of the decision log.
    """

    time: float
    chain: str
    number: int
    previous: str
    event: AuditEvent
    fields: Mapping[str, str]


class InvalidRecordError(Exception):
    """Say that a text is no record of the audit trail."""


def body(event: AuditEvent, fields: Fields, longest: int = _MAX_VALUE) -> str:
    """Return a record's members but those of its chain; `chained` puts them in front.

    Args:
        event: its kind.
        fields: what it says.
        longest: characters of one value, which is cut there.
    """
    text = _body(event, fields, longest)
    return text if len(text) <= MAX_TEXT - 256 else _body(event, fields, _SHORT_VALUE)


def _body(event: AuditEvent, fields: Fields, longest: int) -> str:
    members = [
        f",{_escaped(name)}:{_escaped(_cut(value, longest))}" for name, value in fields if value
    ]
    return f'"event":"{event.value}"{"".join(members)}'


def _cut(value: str, longest: int) -> str:
    return value if len(value) <= longest else f"{value[: longest - 1]}…"


# As JSON's encoder does for a string: printable ASCII only.
_escaped: Final = json.encoder.encode_basestring_ascii


def chained(body: str, time: float, chain: str, number: int, previous: str) -> str:
    """Return the text of a record; `chain` and `previous` are of our own making."""
    return f'{{"time":{time:.3f},"chain":"{chain}","n":{number},"prev":"{previous}",{body}}}'


def read_record(text: bytes) -> AuditRecord:
    """Read the text of a record.

    Raises:
        InvalidRecordError: where it is none.
    """
    if len(text) > MAX_TEXT:
        raise InvalidRecordError("longer than any record")
    try:
        members = loads(text)
    except StrictJsonError as error:
        raise InvalidRecordError("no JSON") from error
    if not isinstance(members, dict):
        raise InvalidRecordError("no object")
    time, chain = members.pop("time", None), members.pop("chain", None)
    number, previous = members.pop("n", None), members.pop("prev", None)
    kind = _EVENTS.get(str(members.pop("event", "")))
    if (
        not isinstance(time, int | float)
        or isinstance(time, bool)
        or not 0 <= time < _MAX_LOG_VALUE
        or not isinstance(chain, str)
        or type(number) is not int
        or number < 0
        or not isinstance(previous, str)
        or kind is None
        or not all(isinstance(value, str) for value in members.values())
    ):
        raise InvalidRecordError("a member is missing, or of another type")
    return AuditRecord(float(time), chain, number, previous, kind, members)


_EVENTS: Final = {each.value: each for each in AuditEvent}


# --- decisions ----------------------------------------------------------------------------------


def is_recorded(decision: Decision, request: HttpRequest | None) -> bool:
    """Tell whether a decision is about an operation, or about a message that was not read.

    Lists, handshakes, notifications and streams are in the log alone.
    """
    message = decision.message
    if message is None:
        return isinstance(decision, Deny) and request is not None and request.method == "POST"
    return bool(message.method) and role(message.method) is Role.OPERATION


def decision_fields(
    decision: Decision, request: HttpRequest | None, cache: IdentityCache | None = None
) -> Fields:
    """Return what the trail keeps of a decision."""
    message, server, principal = decision.message, decision.server, decision.principal
    return (
        *_verdict(decision),
        ("request_id", "" if request is None else request.request_id),
        ("server", "" if server is None else server.name),
        ("mcp_method", "" if message is None else message.method),
        *_operation(message, request),
        *person_fields(principal),
        ("rule", "" if server is None else _rules(decision, server, cache)),
        *_arguments(decision),
    )


def _verdict(decision: Decision) -> Fields:
    if isinstance(decision, Allow):
        evidence = decision.evidence
        return (
            ("verdict", "allow"),
            ("reason", "allowed"),
            ("limiter", decision.mode.value),
            ("second_factor", "" if evidence is None else evidence.value),
            ("approval", "" if decision.approval is None else _approved(decision.approval)),
        )
    return ("verdict", "deny"), ("reason", decision.reason.label), ("detail", decision.detail)


def _operation(message: Message | None, request: HttpRequest | None) -> Fields:
    """Return what the operation is about: a tool, or a prompt, resources or tasks.

    It is read from the message, since clients before 2026-07-28 send no Mcp-Name. Of methods that
    MCP does not have only the header tells, which repeats a member of params (`authz.core.mcp`).
    """
    if message is None:
        return ()
    if message.tool is not None:
        return (("tool", message.tool),)
    if message.method in METHODS:
        return (("target", ", ".join(claimed_names(message))),)
    return (("target", "" if request is None else request.headers.get(NAME_HEADER, "")),)


def person_fields(principal: Principal | None) -> Fields:
    """Return who asked: the person, the client and the grant; the issuer is the configured one."""
    if principal is None:
        return ()
    login = principal.login
    return (
        ("subject", principal.subject or ""),
        ("account", "" if login is None else login.account),
        ("client_id", principal.client_id),
        ("grant", "" if login is None else login.grant),
    )


def _approved(approval: Approval) -> str:
    return "each_call" if approval.each_call else f"{approval.lifetime}s"


Targets = tuple[RuleTarget[Rule], ...]


def _rules(decision: Decision, server: Server, cache: IdentityCache | None) -> str:
    """Return where authz.yaml has the rules that applied; of a refusal those that refused."""
    rules = decision.rules
    if cache is None:
        targets, paths = _applied(server, rules)
    else:
        targets, paths = cache.get(_applied, server, rules)
    if isinstance(decision, Deny):
        refuses = _REFUSES.get(decision.reason)
        if refuses is not None:
            refusing = tuple(each for each in targets if refuses(each, decision))
            return _paths(refusing) if refusing else paths
    return paths


def _applied(server: Server, rules: tuple[Rule, ...]) -> tuple[Targets, str]:
    """Return the rules that applied with their places, and those of operations, else the server's.

    For a rule that applied without its limits it is the path of `Rule.whole`.
    """
    wholes = [rule if rule.whole is None else rule.whole for rule in rules]
    applied = tuple(
        each
        for each in server.targets()
        if each.kind is None or any(each.rule is rule for rule in wholes)
    )
    return applied, _paths(applied[1:] or applied)


def _arguments(decision: Decision) -> Fields:
    """Return the arguments that rules name for the trail; nothing where none does."""
    message = decision.message
    pointers = [pointer for rule in decision.rules for pointer in rule.audit]
    # A completion meets the rules of its prompt, and has no arguments of it.
    if not pointers or message is None or (message.tool is None and message.prompt is None):
        return ()
    shown = ((f"argument {each.text}", each.find(message.arguments)) for each in pointers)
    return tuple((name, _argument(value)) for name, value in shown)


def _argument(value: object) -> str:
    """Return an argument as the trail keeps it; what is not there is empty."""
    match value:
        case NotFound():
            return "" if value is NotFound.ABSENT else f"({value.value})"
        case str():
            return value
        case dict():
            return "(object)"
        case list():
            return "(array)"
        case _:
            return _ENCODE(value)[:_MAX_VALUE]


_ENCODE: Final = json.JSONEncoder().encode


def _paths(targets: Targets) -> str:
    return ", ".join([".".join(map(str, each.path)) for each in targets])


def _lacks_scope(target: RuleTarget[Rule], deny: Deny) -> bool:
    return deny.principal is not None and not target.rule.scopes <= deny.principal.scopes


def _is_in_no_group(target: RuleTarget[Rule], deny: Deny) -> bool:
    groups = target.rule.groups
    return groups is not None and (
        deny.principal is None or groups.isdisjoint(deny.principal.groups)
    )


def _takes_no_opaque(target: RuleTarget[Rule], _: Deny) -> bool:
    return TokenKind.OPAQUE not in target.rule.tokens


def _takes_no_signed(target: RuleTarget[Rule], _: Deny) -> bool:
    return TokenKind.JWT not in target.rule.tokens


def _asks_for_second_factor(target: RuleTarget[Rule], _: Deny) -> bool:
    return target.rule.second_factor is not None


def _asks_for_approval(target: RuleTarget[Rule], _: Deny) -> bool:
    return target.rule.approval is not None


def _is_exhausted(target: RuleTarget[Rule], deny: Deny) -> bool:
    return any(
        _of(target, quota) and quota.exceeded and not quota.limit.shadow for quota in deny.quotas
    )


def _of(target: RuleTarget[Rule], quota: Quota) -> bool:
    return quota.limit.place == target.place


_REFUSES: Final[Mapping[Reason, Callable[[RuleTarget[Rule], Deny], bool]]] = MappingProxyType(
    {
        Reason.INSUFFICIENT_SCOPE: _lacks_scope,
        Reason.PERSON_NOT_ALLOWED: _is_in_no_group,
        Reason.TOKEN_OPAQUE: _takes_no_opaque,
        Reason.TOKEN_SIGNED: _takes_no_signed,
        Reason.SECOND_FACTOR_REQUIRED: _asks_for_second_factor,
        Reason.LOGIN_TOO_OLD: _asks_for_second_factor,
        Reason.RATE_LIMITED: _is_exhausted,
        Reason.APPROVAL_REQUIRED: _asks_for_approval,
        Reason.APPROVAL_DECLINED: _asks_for_approval,
        Reason.APPROVAL_IMPOSSIBLE: _asks_for_approval,
    }
)
