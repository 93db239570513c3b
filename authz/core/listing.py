"""What a caller sees of an MCP server's lists: the tools, prompts and resources that it may use.

It is visibility, not access control: the call stays the boundary (docs/decisions/0017).

Invariant: a thing is visible where the rules refuse its call to nobody with this principal
(tests/core/test_listing.py): the very call is read and evaluated, by `mcp.read` and `evaluate`. A
missing or stale second factor, a revocation and a limit hide nothing.
"""

import json
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from authz.core import mcp
from authz.core.evaluation import evaluate
from authz.core.identity_cache import IdentityCache
from authz.core.json_splice import Element, JsonText, cuts
from authz.core.policy import OperationKind, Policy, Server
from authz.core.principal import Principal
from authz.core.request import RefusedError
from authz.core.strict_json import MAX_DEPTH, MAX_WORK, StrictJsonError

# Nanoseconds for a byte, as `strict_json` estimates them: a dense schema takes half of it.
_WORK_PER_BYTE: Final = 100


class ListFault(Enum):
    """Name why a response was not filtered; for the log and the metric."""

    UNREADABLE = "unreadable"
    AMBIGUOUS = "ambiguous"
    NO_LIST = "no_list"
    TOO_LARGE = "too_large"
    MEDIA_TYPE = "media_type"
    ENCODING = "encoding"
    UNKNOWN_CALLER = "unknown_caller"
    OVERLOAD = "overload"
    INTERNAL = "internal"


class ListError(Exception):
    """Say that a response was not filtered, so that it must not reach the client.

    Attributes:
        fault: why.
        detail: fixed words.
    """

    def __init__(self, fault: ListFault, detail: str = "") -> None:
        """Keep why."""
        super().__init__(fault.value)
        self.fault = fault
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Listed:
    """Describe one list of MCP.

    Attributes:
        method: what asks for it.
        member: the member of the result that holds it.
        name: the member of an element that names the thing.
        call: the method that uses such a thing.
        section: the value of the `OperationKind` whose rules apply.
    """

    method: str
    member: str
    name: str
    call: str
    section: str


LISTS: Final[Mapping[str, Listed]] = MappingProxyType(
    {
        each.method: each
        for each in (
            Listed("tools/list", "tools", "name", "tools/call", "tools"),
            Listed("prompts/list", "prompts", "name", "prompts/get", "prompts"),
            Listed("resources/list", "resources", "uri", "resources/read", "resources"),
            # Rules are compared with the template's own text.
            Listed(
                "resources/templates/list",
                "resourceTemplates",
                "uriTemplate",
                "resources/read",
                "resources",
            ),
        )
    }
)
_KINDS: Final[Mapping[str, OperationKind]] = MappingProxyType(
    {kind.value: kind for kind in OperationKind}
)
_HEADERS: Final = {"content-type": "application/json"}
_LONGEST_CALL: Final = 1 << 20


def lists_of(server: Server) -> frozenset[Listed]:
    """Return the lists of a server of which some things may be hidden: of what its rules name."""
    return frozenset(
        each
        for each in LISTS.values()
        if each.section in _KINDS and server.operations(_KINDS[each.section])
    )


Shows = Callable[[Listed, str], bool]


def visibility(server: Server, principal: Principal, policy: Policy) -> Shows:
    """Return what tells whether a principal sees a thing of a list, by its name."""
    # Of its own: the principal is one object for this list alone.
    cache = IdentityCache()

    def shows(listed: Listed, name: str) -> bool:
        message = _call(listed, name)
        if message is None:
            return False
        return evaluate(server, principal, policy, message, cache=cache).refused is None

    return shows


def _call(listed: Listed, name: str) -> mcp.Message | None:
    """Return the call of a thing; None where its name is one that no call can have."""
    member = "uri" if listed.call == "resources/read" else "name"
    call = {"jsonrpc": "2.0", "id": 0, "method": listed.call, "params": {member: name}}
    try:
        return mcp.read(json.dumps(call).encode(), _HEADERS, max_body=_LONGEST_CALL)
    except RefusedError:
        return None


# --- a response ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Definition:
    """Hold what an MCP server says of one thing.

    Attributes:
        listed: the list that it stands in.
        name: its name; None where it has none, so that nobody can call it.
        raw: its JSON, byte for byte.
    """

    listed: Listed
    name: str | None
    raw: bytes


@dataclass(frozen=True, slots=True)
class FilteredMessage:
    """Hold a message without what its reader does not see.

    Attributes:
        body: the message; the same bytes where nothing was hidden.
        definitions: all that the server listed, in its order.
        hidden: how many of them are left out.
    """

    body: bytes
    definitions: tuple[Definition, ...] = ()
    hidden: int = 0


def filter_message(body: bytes, lists: Collection[Listed], shows: Shows) -> FilteredMessage:
    """Leave out of a JSON-RPC message what its reader does not see; every other byte stays.

    A message without `result` (an error, a notification, a server's request) passes unchanged, and
    so does a result without any of the lists.

    Args:
        body: one JSON-RPC message.
        lists: which lists to look for in its result.
        shows: tells what is seen.

    Raises:
        ListError: UNREADABLE where it is no strict JSON object, AMBIGUOUS where some reader could
            find a list that was not looked at, NO_LIST where a list is no array.
    """
    try:
        return _Reader(body, lists).filtered(shows)
    except StrictJsonError as error:
        raise ListError(ListFault.UNREADABLE, error.detail.value) from None


class _Reader:
    """Find the arrays of a message."""

    def __init__(self, body: bytes, lists: Collection[Listed]) -> None:
        self._body = body
        self._json = JsonText(body, max_depth=MAX_DEPTH, max_work=work_of(len(body)))
        self._lists = {each.member: each for each in lists}
        self._found: list[tuple[Listed, tuple[Element, ...]]] = []
        start = self._json.start()
        if not self._json.opens(start, "{"):
            raise ListError(ListFault.UNREADABLE, "no JSON object")
        names, end = self._json.object(start, self._enter_result)
        self._json.check_end(end)
        _check_names(names, {"result"})

    def filtered(self, shows: Shows) -> FilteredMessage:
        ranges, definitions, hidden = list[tuple[int, int]](), list[Definition](), 0
        for listed, elements in self._found:
            kept = list[Element]()
            for element in elements:
                name = _name(element.value, listed.name)
                definitions.append(Definition(listed, name, self._json.raw(element)))
                if name is not None and shows(listed, name):
                    kept.append(element)
            hidden += len(elements) - len(kept)
            ranges += cuts(elements, tuple(kept))
        body = self._json.without(ranges) if ranges else self._body
        return FilteredMessage(body, tuple(definitions), hidden)

    def _enter_result(self, name: str, at: int) -> int | None:
        if name != "result" or not self._json.opens(at, "{"):
            return None
        names, end = self._json.object(at, self._enter_list)
        _check_names(names, self._lists)
        return end

    def _enter_list(self, name: str, at: int) -> int | None:
        listed = self._lists.get(name)
        if listed is None:
            return None
        if not self._json.opens(at, "["):
            raise ListError(ListFault.NO_LIST, "a list is no array")
        elements, end = self._json.array(at)
        self._found.append((listed, elements))
        return end


def work_of(length: int) -> int:
    """Return how long reading a list of so many bytes may take, in nanoseconds."""
    return max(MAX_WORK, length * _WORK_PER_BYTE)


def _check_names(names: Collection[str], known: Collection[str]) -> None:
    """Refuse a member that a lenient parser takes for one of those that are looked at.

    Go's matches without regard to case and folds Unicode; others cut at NUL.
    """
    for name in names:
        read_as = unicodedata.normalize("NFKC", name.partition("\0")[0]).casefold()
        if name not in known and any(read_as == each.casefold() for each in known):
            raise ListError(ListFault.AMBIGUOUS, "a member like another one")


def _name(value: object, member: str) -> str | None:
    name = value.get(member) if isinstance(value, dict) else None
    return name if isinstance(name, str) else None
