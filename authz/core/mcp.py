"""One MCP message (JSON-RPC 2.0), read strictly from a body and its mirror headers.

Invariant: what is read here is what the server behind reads. A body that parsers could read
differently, or that says something else than its headers, is refused and never repaired; what is
accepted has exactly one method, and a tools/call exactly one tool.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from authz.core.detail import Detail
from authz.core.methods import LISTEN, METHODS, NOTIFICATIONS, PROMPTS_GET, TOOLS_CALL
from authz.core.policy import LEGACY, MODERN, VERSIONS, JsonBounds
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.core.strict_json import (
    StrictJsonError,
    TooDeepError,
    TooMuchWorkError,
    folded,
    loads,
    unmistakable,
)


class MessageKind(Enum):
    """Name the shapes of a JSON-RPC message."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESPONSE = "response"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Hold what the response to a request depends on.

    Attributes:
        id: the id to repeat.
        method: its method.
        modern: whether the response is one of MCP 2026-07-28.
        version: the protocol version that it asks for, as it was sent; empty where it names none.
    """

    id: str | int
    method: str
    modern: bool = False
    version: str = field(default="", compare=False)

    @property
    def calls_tool(self) -> bool:
        """Tell whether a result with isError is a response to it."""
        return self.method == TOOLS_CALL


_BY_URI: Final = frozenset(each.name for each in METHODS.values() if each.named == "uri")
_NO_PARAMS: Final[dict[str, object]] = {}  # nobody writes to it


def _no_params() -> Mapping[str, object]:
    return _NO_PARAMS


_NO_HEADERS: Final[dict[str, str]] = {}  # nor to it


def _no_headers() -> Mapping[str, str]:
    return _NO_HEADERS


@dataclass(frozen=True, slots=True)
class Message:
    """Hold what a decision needs of one JSON-RPC message.

    Attributes:
        kind: request (has an id), notification, or response to the server's own request.
        method: the method; "" for a response.
        id: the id to repeat in an answer; None for a notification, and for a response, whose id
            is the server's own.
        tool: `params.name` of a tools/call; None for every other method.
        version: the MCP protocol version that it speaks: the header's, which equals the body's;
            None for a legacy message without the header.
        elicits_url: whether the client declared URL elicitation in this message.
        is_continuation: whether it answers an input-required result, or goes on from one's state
            (MCP 2026-07-28, "Multi Round-Trip Requests").
        follows_tasks: whether it may ask for what tools return to others of its requests: a
            subscriptions/listen that names more than the changes which MCP itself tells of.
        params: all of `params`, as they were read; empty where there are none.
        headers: those of the request, by lower-case name. Like `params` neither compared nor shown:
            they hold what callers send.
    """

    kind: MessageKind
    method: str
    id: str | int | None
    tool: str | None
    version: str | None
    elicits_url: bool = False
    is_continuation: bool = False
    follows_tasks: bool = False
    params: Mapping[str, object] = field(default_factory=_no_params, repr=False, compare=False)
    headers: Mapping[str, str] = field(default_factory=_no_headers, repr=False, compare=False)

    @property
    def arguments(self) -> Mapping[str, object] | None:
        """Return the arguments of a tools/call or prompts/get; empty where it has none.

        None where they are no object, null among that: servers read it differently. What a server
        could take for them under another name is refused (`read`).
        """
        arguments = self.params.get("arguments", _NO_PARAMS)
        return arguments if isinstance(arguments, dict) else None

    @property
    def prompt(self) -> str | None:
        """Return the name of a prompts/get; None of every other method."""
        return self._text("name") if self.method == PROMPTS_GET else None

    @property
    def resource(self) -> str | None:
        """Return the URI of a resources/read, subscribe or unsubscribe; None of others."""
        return self._text("uri") if self.method in _BY_URI else None

    def _text(self, member: str) -> str | None:
        found = self.params.get(member)
        return found if isinstance(found, str) else None

    @property
    def envelope(self) -> Envelope | None:
        """Return what an answer repeats; None where there is nothing to answer."""
        if self.id is None:
            return None
        return Envelope(self.id, self.method, modern=self.version == MODERN)


_Members = dict[str, Any]
_BOUNDS: Final = JsonBounds()

_SHAPES: Final[Mapping[frozenset[str], MessageKind]] = {
    frozenset({"jsonrpc", "id", "method"}): MessageKind.REQUEST,
    frozenset({"jsonrpc", "id", "method", "params"}): MessageKind.REQUEST,
    frozenset({"jsonrpc", "method"}): MessageKind.NOTIFICATION,
    frozenset({"jsonrpc", "method", "params"}): MessageKind.NOTIFICATION,
    frozenset({"jsonrpc", "id", "result"}): MessageKind.RESPONSE,
    frozenset({"jsonrpc", "id", "error"}): MessageKind.RESPONSE,
    # MCP 2025-11-25: an error to what could not be read has no id.
    frozenset({"jsonrpc", "error"}): MessageKind.RESPONSE,
}

# The member of params that names a thing, and its longest length in characters.
_NAMED: Final = {
    each.name: (each.named, each.longest)
    for each in METHODS.values()
    if each.named and each.longest
}
# MCP 2026-07-28: the requests whose result may ask for input, to be sent again with it.
INTERACTIVE: Final = frozenset(_NAMED)
_GOING_ON: Final = frozenset({"inputResponses", "requestState"})
# MCP 2026-07-28, "Subscriptions": a listening request, and what it may listen for. The tasks
# extension (SEP-2663) adds `taskIds`, for which whole tasks are sent, their results included.
LISTENING: Final = frozenset({"_meta", "notifications"})
CHANGES: Final = frozenset(
    {"toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions"}
)
# What Mcp-Name repeats.
_MIRRORED: Final = {each.name: each.named for each in METHODS.values() if each.named is not None}
_REQUESTS: Final = frozenset(each.name for each in METHODS.values() if not each.is_notification)
_KNOWN: Final = frozenset(METHODS)
_FOLDED: Final = frozenset(method.lower() for method in _KNOWN)
_PARAMS: Final = ("params", Detail.PARAMS_NOT_AN_OBJECT, Detail.PARAMS_AMBIGUOUS)
_META: Final = ("_meta", Detail.META_NOT_AN_OBJECT, Detail.META_AMBIGUOUS)
_MALFORMED: Final = {"name": Detail.PARAMS_NAME, "uri": Detail.PARAMS_URI}
_BLANK: Final = {"name": Detail.PARAMS_NAME_BLANK, "uri": Detail.PARAMS_URI_BLANK}
# Segments of ASCII that trimming, unescaping and the joining of paths leave as they are.
_METHOD: Final = re.compile(r"[A-Za-z0-9_$][A-Za-z0-9_$.:-]*(?:/[A-Za-z0-9_$][A-Za-z0-9_$.:-]*)*")
_MAX_METHOD: Final = 128
_MAX_ID: Final = 256
_MAX_VERSION: Final = 64
_MAX_INTEGER: Final = 2**53 - 1  # RFC 7493, section 2.2: the integers that every parser reads alike

_PROTOCOL_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
_URL_ELICITATION_SINCE: Final = LEGACY[-1]
# The members that are read here by their names: of the params of MCP's methods, and of `_meta`.
_DECIDING: Final = frozenset({
    "_meta", "arguments", "capabilities", "name", "notifications", "protocolVersion", "ref",
    "taskId", "uri",
}) | _GOING_ON  # fmt: skip
_DECIDING_META: Final = frozenset({_PROTOCOL_VERSION, _CAPABILITIES})
_FOLDED_DECIDING: Final = frozenset(map(folded, _DECIDING))
_FOLDED_META: Final = frozenset(map(folded, _DECIDING_META))

# A parameter that is not there, and both spellings of UTF-8, the only encoding of JSON.
_JSON: Final = re.compile(
    r'application/json[ \t]*(?:;[ \t]*(?:charset=(?:utf-?8|"utf-?8")[ \t]*)?)?', re.IGNORECASE
)
NAME_HEADER: Final = "mcp-name"
_SENTINEL: Final = re.compile(r"=\?base64\?(.*)\?=")


def read(
    body: bytes, headers: dict[str, str], *, max_body: int, bounds: JsonBounds = _BOUNDS
) -> Message:
    """Read the one message of a POST to an MCP server (JSON-RPC 2.0; MCP, Streamable HTTP).

    Args:
        body: the whole body.
        headers: lower-case name to value; of a header that came twice, joined by a comma.
        max_body: the longest body in bytes.
        bounds: what its JSON may cost to read.

    Raises:
        RefusedError: BODY_MISSING, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, MALFORMED_REQUEST,
            MALFORMED_JSON, JSON_TOO_DEEP, JSON_TOO_COSTLY, BATCH, INVALID_MESSAGE,
            HEADER_MISMATCH, VERSION_MISSING or UNSUPPORTED_VERSION.
    """
    _check_framing(body, headers, max_body)
    members = _object(body, bounds)
    kind = _kind(members)
    method = "" if kind is MessageKind.RESPONSE else _method(members["method"], kind)
    # JSON-RPC 2.0 has no null there; whoever reads it, reads it as none.
    params = {} if members.get("params", members) is None else _inner(members, *_PARAMS)
    meta = _inner(params, *_META)
    if method in _NAMED:
        _check_name(params, *_NAMED[method])
    if params:
        _check_alike(params, meta, method)
    version = _version(headers, kind, meta)
    _check_mirrors(headers, kind, method, params, required=version == MODERN)
    # By position: names would cost a third more, of every message.
    return Message(
        kind,
        method,
        members["id"] if kind is MessageKind.REQUEST else None,
        params["name"] if method == TOOLS_CALL else None,
        version,
        _elicits_url(method, params, meta, version),
        not _GOING_ON.isdisjoint(params),
        method == LISTEN and _follows_tasks(params),
        params,
        headers,
    )


def call_of(method: str, name: str) -> Message:
    """Return the message of a legacy request that names a thing and says nothing else.

    Args:
        method: tools/call, prompts/get or resources/read.
        name: as its params would have it.

    Raises:
        RefusedError: INVALID_MESSAGE where no such request can have the name.
    """
    member, longest = _NAMED[method]
    params = {member: name}
    _check_name(params, member, longest)
    tool = name if method == TOOLS_CALL else None
    return Message(MessageKind.REQUEST, method, 0, tool, None, params=params)


def envelope(
    body: bytes, headers: dict[str, str], *, max_body: int, bounds: JsonBounds = _BOUNDS
) -> Envelope | None:
    """Return what a refusal repeats of a strict document shaped as a request; else None.

    For the path of refusals only: it reads the body once more. It never raises, and it returns
    nothing of a response-shaped message, whose id a client could take for that of its own request.
    """
    if len(body) > max_body:
        return None
    try:
        members = _object(body, bounds)
        if _kind(members) is not MessageKind.REQUEST:
            return None
        method = members["method"]
        return Envelope(
            members["id"],
            method if isinstance(method, str) else "",
            modern=headers.get("mcp-protocol-version") == MODERN,
            version=_requested(members, headers),
        )
    except RefusedError:
        return None


def _requested(members: _Members, headers: dict[str, str]) -> str:
    """Return the version of the header, or the one that `initialize` proposes; cut to be told."""
    version: object = headers.get("mcp-protocol-version", "")
    params = members.get("params")
    if not version and members["method"] == "initialize" and isinstance(params, dict):
        version = params.get("protocolVersion")
    return version[:_MAX_VERSION] if isinstance(version, str) else ""


# --- the HTTP message ---------------------------------------------------------------------------


def _check_framing(body: bytes, headers: dict[str, str], max_body: int) -> None:
    # Envoy sets it where it buffers bodies (with_request_body), and to "true" for a part of one.
    if headers.get("x-envoy-auth-partial-body", "false") != "false":
        raise RefusedError(Reason.BODY_MISSING, Detail.PARTIAL_BODY)
    if not body:
        sent = headers.get("content-length") != "0"
        raise RefusedError(Reason.BODY_MISSING, Detail.BODY_NOT_SENT if sent else Detail.NONE)
    if len(body) > max_body:
        raise RefusedError(Reason.BODY_TOO_LARGE)
    if _JSON.fullmatch(headers.get("content-type", "")) is None:
        raise RefusedError(Reason.UNSUPPORTED_MEDIA_TYPE, Detail.CONTENT_TYPE)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(Reason.UNSUPPORTED_MEDIA_TYPE, Detail.CONTENT_ENCODING)
    length = headers.get("content-length")
    if length is not None and length != str(len(body)):
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.CONTENT_LENGTH)
    coding = headers.get("transfer-encoding")
    # RFC 9112, section 6.1: both together is how requests are smuggled, and any coding but
    # `chunked` would leave the body encoded.
    if coding is not None and (length is not None or coding.lower() != "chunked"):
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.TRANSFER_ENCODING)


# --- the JSON-RPC message -----------------------------------------------------------------------


def _object(body: bytes, bounds: JsonBounds) -> _Members:
    try:
        document = loads(body, max_depth=bounds.depth, max_work=bounds.work)
    except TooDeepError:
        raise RefusedError(Reason.JSON_TOO_DEEP) from None
    except TooMuchWorkError:
        raise RefusedError(Reason.JSON_TOO_COSTLY) from None
    except StrictJsonError as error:
        raise RefusedError(Reason.MALFORMED_JSON, error.detail) from None
    if isinstance(document, list):
        raise RefusedError(Reason.BATCH)
    if not isinstance(document, dict):
        raise RefusedError(Reason.INVALID_MESSAGE, Detail.NOT_AN_OBJECT)
    return document


def _kind(members: _Members) -> MessageKind:
    # The members are exactly these, so that no twin, no `Method` and no `result` beside a method
    # is left for another parser to find.
    kind = _SHAPES.get(frozenset(members))
    if kind is None or members["jsonrpc"] != "2.0":
        raise RefusedError(Reason.INVALID_MESSAGE, Detail.NOT_JSON_RPC)
    if kind is not MessageKind.NOTIFICATION and not _has_id(members):
        raise RefusedError(Reason.INVALID_MESSAGE, Detail.ID)
    if kind is MessageKind.RESPONSE and not isinstance(
        members.get("result", members.get("error")), dict
    ):
        raise RefusedError(Reason.INVALID_MESSAGE, Detail.RESULT_OR_ERROR)
    return kind


def _has_id(members: _Members) -> bool:
    """Tell whether the id is one, or may be missing or null: of an error (JSON-RPC 2.0, 5)."""
    value = members.get("id")
    return _is_id(value) or (value is None and "error" in members)


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= _MAX_ID and value.isprintable()
    return type(value) is int and -_MAX_INTEGER <= value <= _MAX_INTEGER  # bool is an int, too


def _method(method: object, kind: MessageKind) -> str:
    if not isinstance(method, str) or (method not in _KNOWN and not _is_own(method)):
        raise RefusedError(Reason.INVALID_MESSAGE, Detail.METHOD)
    # A tools/call without id would be carried out by a careless server, and answered to nobody.
    misfit = (
        method.startswith(NOTIFICATIONS) if kind is MessageKind.REQUEST else method in _REQUESTS
    )
    if misfit:
        raise RefusedError(Reason.INVALID_MESSAGE, Detail.METHOD_WITHOUT_ID)
    return method


def _is_own(method: str) -> bool:
    """Tell whether it can be an extension's method: well-formed, and alike to none of MCP's."""
    return (
        len(method) <= _MAX_METHOD
        and _METHOD.fullmatch(method) is not None
        and method.lower() not in _FOLDED
    )


def _inner(members: _Members, key: str, mistyped: Detail, ambiguous: Detail) -> _Members:
    """Return `params` or `_meta`, empty where absent: the levels whose members decide.

    Below them (`arguments`, results, capabilities) a member may have a twin in another case: `x`
    and `X` are two arguments of a tool, and nothing down there decides. Exact duplicates are
    refused at every level.
    """
    inner = members.get(key, {})
    if not isinstance(inner, dict):
        raise RefusedError(Reason.INVALID_MESSAGE, mistyped)
    if inner and not unmistakable(inner):
        raise RefusedError(Reason.MALFORMED_JSON, ambiguous)
    return inner


def _check_alike(params: _Members, meta: _Members, method: str) -> None:
    """Refuse a member that a parser could take for one that decides, and that is not it.

    Without the one itself beside it it is no twin: `Arguments` alone would be no arguments to us,
    and those of the call to the server. An extension names the members of its own methods as it
    likes (`meta`), but for the one that decides there, too.
    """
    if method in _KNOWN:
        alike = not _DECIDING.issuperset(params) and any(
            key not in _DECIDING and folded(key) in _FOLDED_DECIDING for key in params
        )
    else:
        alike = any(key != "_meta" and key.lower() == "_meta" for key in params)
    if alike:
        raise RefusedError(Reason.MALFORMED_JSON, Detail.PARAMS_AMBIGUOUS)
    if any(key not in _DECIDING_META and folded(key) in _FOLDED_META for key in meta):
        raise RefusedError(Reason.MALFORMED_JSON, Detail.META_AMBIGUOUS)


def _check_name(params: _Members, member: str, longest: int) -> None:
    name = params.get(member)
    # isprintable() is False for controls, lone surrogates, invisible and unassigned characters
    # and for every blank but the space.
    if not isinstance(name, str) or not 0 < len(name) <= longest or not name.isprintable():
        raise RefusedError(Reason.INVALID_MESSAGE, _MALFORMED[member])
    if name[0] == " " or name[-1] == " ":
        raise RefusedError(Reason.INVALID_MESSAGE, _BLANK[member])


# --- the headers --------------------------------------------------------------------------------


def _version(headers: dict[str, str], kind: MessageKind, meta: _Members) -> str | None:
    version = headers.get("mcp-protocol-version")
    if version is not None and version not in VERSIONS:
        several = "," in version
        raise RefusedError(Reason.HEADER_MISMATCH if several else Reason.UNSUPPORTED_VERSION)
    # The key exists since 2026-07-28 only, so it is evidence of that era whatever it says.
    if _PROTOCOL_VERSION in meta:
        if version is None or meta[_PROTOCOL_VERSION] != version:
            raise RefusedError(Reason.HEADER_MISMATCH, Detail.META_VERSION)
    elif version == MODERN and kind is MessageKind.REQUEST:
        raise RefusedError(Reason.VERSION_MISSING)
    # MCP 2026-07-28, Streamable HTTP, "Sending Messages": clients send no responses, since servers
    # send no requests. It defines no notifications from clients either, but leaves servers free to
    # accept them, and official clients send some (roots/list_changed, progress): they pass here,
    # with their headers compared where sent, and the server's versions decide.
    if version == MODERN and kind is MessageKind.RESPONSE:
        raise RefusedError(Reason.INVALID_MESSAGE, Detail.MODERN_RESPONSE)
    return version


def _check_mirrors(
    headers: dict[str, str], kind: MessageKind, method: str, params: _Members, *, required: bool
) -> None:
    """Compare Mcp-Method and Mcp-Name with the body, in every era where they were sent.

    MCP 2026-07-28 requires them of requests; headers of notifications it leaves undefined. Of a
    header that came twice the joined value equals nothing but a name with a comma in it.
    """
    required = required and kind is MessageKind.REQUEST
    sent = headers.get("mcp-method")
    if sent != method and (required or sent is not None):
        raise RefusedError(Reason.HEADER_MISMATCH, Detail.MCP_METHOD)
    sent = headers.get(NAME_HEADER)
    if sent is None:
        if required and method in _NAMED:
            raise RefusedError(Reason.HEADER_MISMATCH, Detail.MCP_NAME_MISSING)
        return
    name = decode_mirror(sent)
    if not name or kind is not MessageKind.REQUEST or name not in _names(method, params):
        raise RefusedError(Reason.HEADER_MISMATCH, Detail.MCP_NAME)


def _names(method: str, params: _Members) -> list[object]:
    """Return what Mcp-Name may repeat: nothing for methods of MCP that name nothing.

    The official client lets an extension mirror any one member of the params of its own methods
    (`name_param`): there the header must equal one of them.
    """
    if method in _MIRRORED:
        return [params.get(_MIRRORED[method])]
    return [] if method in _KNOWN else list(params.values())


def decode_mirror(value: str) -> str | None:
    """Decode a mirror header (MCP 2026-07-28, "Value Encoding"); None where it is malformed."""
    if not value.isascii() or not value.isprintable() or value.strip() != value:
        return None
    sentinel = _SENTINEL.fullmatch(value)
    if sentinel is None:
        return value
    payload = sentinel.group(1)
    try:
        raw = b64decode(payload)
        # One spelling only: b64decode skips what is not base64 and ignores spare bits.
        return raw.decode() if b64encode(raw).decode() == payload else None
    except (Base64Error, UnicodeDecodeError):
        return None


# --- what it listens for ------------------------------------------------------------------------


def _follows_tasks(params: _Members) -> bool:
    """Tell whether a subscriptions/listen may bring the results of tasks.

    Whatever is not known to bring none counts: what an extension adds, and what another parser
    could take for it.
    """
    notifications = params.get("notifications", {})
    if not isinstance(notifications, dict):
        return True
    return not (LISTENING.issuperset(params) and CHANGES.issuperset(notifications))


# --- what the client can do ---------------------------------------------------------------------


def _elicits_url(method: str, params: _Members, meta: _Members, version: str | None) -> bool:
    """Tell whether `elicitation.url` is among the capabilities: of the message, or of a session.

    2026-07-28 declares them in each `_meta`, 2025-11-25 once, in `initialize`. An empty
    `elicitation` means forms only.
    """
    capabilities: object = None
    if version == MODERN:
        capabilities = meta.get(_CAPABILITIES)
    elif method == "initialize" and params.get("protocolVersion") == _URL_ELICITATION_SINCE:
        capabilities = params.get("capabilities")
    if not isinstance(capabilities, dict):
        return False
    elicitation = capabilities.get("elicitation")
    return isinstance(elicitation, dict) and isinstance(elicitation.get("url"), dict)
