"""What a message is about: the tool, prompt or resources that it names.

Invariant: a message that could name a prompt or resource in a way that is not read here is
unreadable, never about nothing (tests/core/test_operations.py).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from authz.core.mcp import CHANGES, LISTENING, Message
from authz.core.methods import COMPLETE, LISTEN, METHODS, PROMPTS_GET, TOOLS_CALL
from authz.core.policy import OperationKind
from authz.core.resource_uris import expand, is_strict_template, is_strict_uri
from authz.core.strict_json import folded, unmistakable

MAX_SUBSCRIPTIONS: Final = 128
MAX_SUBSCRIBED: Final = 16_384  # characters of all URIs of one subscriptions/listen
_MAX_NAME: Final = METHODS[PROMPTS_GET].longest
_MAX_URI: Final = METHODS["resources/read"].longest


class UnreadableOperationError(Exception):
    """Say that what a message is about cannot be told, or could be read differently."""


class LooseUriError(UnreadableOperationError):
    """Say that a URI is not in its one spelling."""


@dataclass(frozen=True, slots=True)
class Operation:
    """Name one thing that a message is about.

    Attributes:
        kind, name: what it is; of a resource its URI, or the template that it is asked by.
        acts: whether the message makes use of it, so that its arguments and limits count. Whatever
            asks after it or waits for it meets all its rules without their limits.
    """

    kind: OperationKind
    name: str
    acts: bool = True


# The member of params is read already (`mcp.read`): it is a name, or the message is refused.
_NAMED: Final[Mapping[str, tuple[OperationKind, str, bool]]] = {
    TOOLS_CALL: (OperationKind.TOOL, "name", True),
    PROMPTS_GET: (OperationKind.PROMPT, "name", True),
    "resources/read": (OperationKind.RESOURCE, "uri", True),
    "resources/subscribe": (OperationKind.RESOURCE, "uri", False),
    "resources/unsubscribe": (OperationKind.RESOURCE, "uri", False),
}
# What each method may name besides tools.
NAMES: Final[Mapping[str, tuple[OperationKind, ...]]] = {
    **{method: (kind,) for method, (kind, _, _) in _NAMED.items() if method != TOOLS_CALL},
    COMPLETE: (OperationKind.PROMPT, OperationKind.RESOURCE),
    LISTEN: (OperationKind.RESOURCE,),
}
# MCP, "Completion": what `params.ref` names, by its type.
_REFERENCES: Final[Mapping[object, tuple[OperationKind, str]]] = {
    "ref/prompt": (OperationKind.PROMPT, "name"),
    "ref/resource": (OperationKind.RESOURCE, "uri"),
}
_REFERRING: Final = frozenset({"type", "name", "uri"})
# The members of a subscriptions/listen that name single things.
_LISTS: Final = ("resourceSubscriptions", "taskIds")
# What may be listened for: MCP's own, and SEP-2663's.
_LISTENED: Final = CHANGES | {"taskIds"}


def operations(message: Message) -> tuple[Operation, ...]:
    """Return what a message is about; () where it is about the server alone.

    A name is as it was sent. A URI is in its one spelling; one that is completed may be a template.

    Raises:
        LooseUriError: for a URI in another spelling.
        UnreadableOperationError: where it cannot be told what a message is about.
    """
    named = _NAMED.get(message.method)
    if named is not None:
        kind, member, acts = named
        return (_operation(kind, message.params.get(member), acts=acts),)
    if message.method == COMPLETE:
        return _referred(message.params)
    return _subscriptions(message.params) if message.method == LISTEN else ()


def claimed_names(message: Message) -> tuple[str, ...]:
    """Return what a message says that it is about, as it was sent, for records of it.

    Nothing is checked here: it may be what `operations` refuses. Of a method that MCP does not have
    nobody knows which member names a thing, so there is nothing.
    """
    if message.method == COMPLETE:
        ref = message.params.get("ref")
        return () if not isinstance(ref, dict) else _texts([ref.get("name"), ref.get("uri")])
    if message.method == LISTEN:
        notifications = message.params.get("notifications")
        if not isinstance(notifications, dict):
            return ()
        lists = [notifications.get(member) for member in _LISTS]
        return _texts([each for found in lists if isinstance(found, list) for each in found])
    known = METHODS.get(message.method)
    if known is None or known.named is None:
        return ()
    return _texts([message.params.get(known.named)])


def _texts(found: list[object]) -> tuple[str, ...]:
    return tuple([each for each in found[:MAX_SUBSCRIPTIONS] if isinstance(each, str)])


def _referred(params: Mapping[str, object]) -> tuple[Operation, ...]:
    """Return what a completion is for: of a template also what its arguments make of it.

    `note://{room}/{id}` with the room `board` asks after the notes of that room.
    """
    ref = params.get("ref")
    if not isinstance(ref, dict) or not _is_plain(ref, _REFERRING):
        raise UnreadableOperationError
    kind = ref.get("type")
    named = _REFERENCES.get(kind) if isinstance(kind, str) else None
    # Nobody knows whether a server goes by the type or by what is named.
    if named is None or len(_REFERRING.intersection(ref)) != len(("type", named[1])):
        raise UnreadableOperationError
    found = _operation(named[0], ref.get(named[1]), acts=False, template=True)
    if "{" not in found.name or found.kind is not OperationKind.RESOURCE:
        return (found,)
    try:
        filled = expand(found.name, _given(params), _MAX_URI)
    except ValueError:  # lone surrogates, too
        raise LooseUriError from None
    if filled == found.name:
        return (found,)
    return (found, _operation(found.kind, filled, acts=False, template=True))


def _given(params: Mapping[str, object]) -> dict[str, str]:
    """Return the arguments that a completion says: those chosen before, and the one begun."""
    argument, context = params.get("argument"), params.get("context", {})
    if not isinstance(argument, dict) or not isinstance(context, dict):
        raise UnreadableOperationError
    before = context.get("arguments", {})
    if not isinstance(before, dict) or not (
        _is_plain(argument, {"name", "value"}) and _is_plain(context, {"arguments"})
    ):
        raise UnreadableOperationError
    name, value = argument.get("name"), argument.get("value")
    if not (isinstance(name, str) and isinstance(value, str)):
        raise UnreadableOperationError
    # A server may go by either.
    if before.get(name, value) != value:
        raise UnreadableOperationError
    found = {**before, name: value}
    if not unmistakable(found.keys()) or not all(isinstance(each, str) for each in found.values()):
        raise UnreadableOperationError
    return {each: text for each, text in found.items() if text}


def _is_plain(members: Mapping[str, object], known: Collection[str]) -> bool:
    """Tell whether no parser takes another member for one of those that are known."""
    return unmistakable(members.keys()) and not any(
        key not in known and folded(key) in known for key in members
    )


def _subscriptions(params: Mapping[str, object]) -> tuple[Operation, ...]:
    # What an extension adds may name resources, too.
    notifications = params.get("notifications", {})
    if not LISTENING.issuperset(params) or not isinstance(notifications, dict):
        raise UnreadableOperationError
    uris = notifications.get("resourceSubscriptions", [])
    if not _LISTENED.issuperset(notifications) or not isinstance(uris, list):
        raise UnreadableOperationError
    if len(uris) > MAX_SUBSCRIPTIONS:
        raise UnreadableOperationError
    found = tuple(_operation(OperationKind.RESOURCE, uri, acts=False) for uri in uris)
    if sum(len(each.name) for each in found) > MAX_SUBSCRIBED:
        raise UnreadableOperationError
    return found


def _operation(
    kind: OperationKind, name: object, *, acts: bool, template: bool = False
) -> Operation:
    if not isinstance(name, str) or not name or not name.isprintable():
        raise UnreadableOperationError
    if kind is not OperationKind.RESOURCE:
        if len(name) > _MAX_NAME or name != name.strip(" "):
            raise UnreadableOperationError
    elif len(name) > _MAX_URI or not (is_strict_template if template else is_strict_uri)(name):
        raise LooseUriError
    return Operation(kind, name, acts)
