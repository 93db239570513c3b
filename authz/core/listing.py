"""What a caller sees of an MCP server's lists: the tools, prompts and resources that it may use.

It is visibility, not access control: the call stays the boundary (docs/decisions/0017).

Invariant: a thing is visible where the rules refuse its call to nobody with this principal
(tests/core/test_listing.py), with some arguments: the very call is judged, as `core/decision.py`
does. A missing or stale second factor, a revocation and a limit hide nothing.
"""

import json
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from authz.core import mcp
from authz.core.catalogue import UNLISTED, Catalogue
from authz.core.evaluation import could_be_allowed
from authz.core.identity_cache import IdentityCache
from authz.core.json_splice import Edit, Element, JsonText, cuts
from authz.core.methods import TOOLS_CALL
from authz.core.policy import OperationKind, Policy, Server
from authz.core.principal import Principal
from authz.core.request import RefusedError
from authz.core.strict_json import MAX_DEPTH, MAX_WORK, StrictJsonError

# What a client is told in place of a list: a JSON-RPC error, by the service or by Envoy.
NOT_SHOWN: Final = "list_not_shown"
NOT_SHOWN_CODE: Final = -31077
NOT_SHOWN_SENTENCE: Final = (
    "What this MCP server lists could not be read or filtered, so nothing of it is shown. "
    "The gateway's log has the cause."
)
# Elements of all lists of a message: evaluating so many takes about 0.1 s.
MAX_ELEMENTS: Final = 10_000
# Nanoseconds for a byte, as `strict_json` estimates them: a dense schema takes half of it.
_WORK_PER_BYTE: Final = 100
# MCP 2026-07-28, `CacheableResult`: whether a client may show a result to other people, too.
_CACHE_SCOPE: Final = "cacheScope"
_CACHE_LIFETIME: Final = "ttlMs"
_PRIVATE: Final = "private"


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
        kind: whose rules apply.
    """

    method: str
    member: str
    name: str
    call: str
    kind: OperationKind


LISTS: Final[Mapping[str, Listed]] = MappingProxyType(
    {
        each.method: each
        for each in (
            Listed("tools/list", "tools", "name", TOOLS_CALL, OperationKind.TOOL),
            Listed("prompts/list", "prompts", "name", "prompts/get", OperationKind.PROMPT),
            Listed("resources/list", "resources", "uri", "resources/read", OperationKind.RESOURCE),
            # Rules are compared with the template's own text.
            Listed(
                "resources/templates/list",
                "resourceTemplates",
                "uriTemplate",
                "resources/read",
                OperationKind.RESOURCE,
            ),
        )
    }
)


def lists_of(server: Server) -> frozenset[Listed]:
    """Return the lists of a server of which some things may be hidden: of what its rules name."""
    return frozenset([each for each in LISTS.values() if _tells_apart(server, each)])


def _tells_apart(server: Server, listed: Listed) -> bool:
    if listed.kind is OperationKind.TOOL:
        # Where nothing is hidden either, what the server lists has to be seen.
        return server.tells_tools_apart or server.uses_catalogue
    return server.names(listed.kind)


Shows = Callable[[Listed, str], bool]


def visibility(
    server: Server, principal: Principal, policy: Policy, catalogue: Catalogue = UNLISTED
) -> Shows:
    """Return what tells whether a principal sees a thing of a list, by its name.

    Args:
        server: whose list it is.
        principal: who asks.
        policy: by which rules.
        catalogue: what the server has listed, this list included.
    """
    # Of its own: the principal is one object for this list alone.
    cache = IdentityCache()

    def shows(listed: Listed, name: str) -> bool:
        try:
            mcp.call_of(listed.call, name)
        except RefusedError:  # no call can have the name
            return False
        return could_be_allowed(
            server, principal, policy, listed.kind, name, cache=cache, catalogue=catalogue
        )

    return shows


def not_shown(rpc_id: str, request_id: str) -> bytes:
    """Return the JSON-RPC error that a client gets in place of a list.

    Args:
        rpc_id: the request's id, as JSON.
        request_id: under which the log has it.
    """
    data = {"reason": NOT_SHOWN, "request_id": request_id}
    error = {"code": NOT_SHOWN_CODE, "message": NOT_SHOWN_SENTENCE, "data": data}
    return f'{{"jsonrpc": "2.0", "id": {rpc_id}, "error": {json.dumps(error)}}}'.encode()


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
        body: the message; the very object that was read where nothing is to be changed.
        hidden: how many things are left out.
    """

    body: bytes
    hidden: int


class ListMessage:
    """Hold a JSON-RPC message from a server, and the lists in its result.

    Attributes:
        definitions: all that the server lists, in its order; () of a message without `result` (an
            error, a notification, a server's request) and of a result without any of the lists.
    """

    def __init__(self, body: bytes, lists: Collection[Listed]) -> None:
        """Read one message.

        Args:
            body: its bytes.
            lists: which lists to look for in its result.

        Raises:
            ListError: UNREADABLE where it is no strict JSON object, AMBIGUOUS where some reader
                could find a list that was not looked at, NO_LIST where a list is no array,
                TOO_LARGE where it has more elements than are read.
        """
        self._body = body
        self._lists = {each.member: each for each in lists}
        self._found: list[tuple[Listed, tuple[Element, ...]]] = []
        self._shared: Edit | None = None
        try:
            self._json = JsonText(body, max_depth=MAX_DEPTH, max_work=_work(len(body)))
            self._read()
        except StrictJsonError as error:
            raise ListError(ListFault.UNREADABLE, error.detail.value) from None
        self.definitions: tuple[Definition, ...] = tuple(
            [
                Definition(listed, _name(element.value, listed.name), self._json.raw(element))
                for listed, elements in self._found
                for element in elements
            ]
        )

    def filtered(self, shows: Shows) -> FilteredMessage:
        """Leave out what is not shown, and what has no name; every other byte stays.

        A list that is one person's is not for a cache of several: `cacheScope` becomes `private`.
        """
        edits, hidden = list[Edit](), 0
        for listed, elements in self._found:
            kept = tuple(
                [
                    element
                    for element in elements
                    if (name := _name(element.value, listed.name)) is not None
                    and shows(listed, name)
                ]
            )
            hidden += len(elements) - len(kept)
            edits += cuts(elements, kept)
        if self._found and self._shared is not None:
            edits = sorted([*edits, self._shared])
        return FilteredMessage(self._json.edited(edits) if edits else self._body, hidden)

    def _read(self) -> None:
        start = self._json.start()
        if not self._json.opens(start, "{"):
            raise ListError(ListFault.UNREADABLE, "no JSON object")
        names, end = self._json.object(start, self._enter_result)
        self._json.check_end(end)
        _check_names(names, {"result"})

    def _enter_result(self, name: str, at: int) -> int | None:
        if name != "result" or not self._json.opens(at, "{"):
            return None
        names, end = self._json.object(at, self._enter_list)
        _check_names(names, {*self._lists, _CACHE_SCOPE})
        # A client may take one that may be kept, and does not say for whom, for a public one.
        if _CACHE_LIFETIME in names and _CACHE_SCOPE not in names:
            self._shared = (at + 1, at + 1, f'"{_CACHE_SCOPE}":"{_PRIVATE}",')
        return end

    def _enter_list(self, name: str, at: int) -> int | None:
        if name == _CACHE_SCOPE:
            value, end = self._json.value(at)
            if value != _PRIVATE:
                self._shared = (at, end, f'"{_PRIVATE}"')
            return end
        listed = self._lists.get(name)
        if listed is None:
            return None
        if not self._json.opens(at, "["):
            raise ListError(ListFault.NO_LIST, "a list is no array")
        elements, end = self._json.array(at)
        if len(elements) > MAX_ELEMENTS:
            raise ListError(ListFault.TOO_LARGE, "too many elements")
        self._found.append((listed, elements))
        return end


def _work(length: int) -> int:
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
