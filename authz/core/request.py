"""One HTTP request as Envoy describes it, and the strict reading of its headers.

Invariant: a header that affects the decision occurs once, in printable ASCII, or the request is
refused.
"""

import re
import string
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_plus

from authz.core.detail import Detail
from authz.core.reason import Reason
from authz.core.second_factor import SecondFactor

METHODS: Final = frozenset({"POST", "GET", "DELETE"})
_MAX_TOKEN: Final = 8192
# RFC 6750, section 2.1: b64token. Stricter than it: no padding, since no JWT has any.
_B64TOKEN: Final = (string.ascii_letters + string.digits + "-._~+/").encode("ascii")
_SCHEME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?= |\Z)")
_QUERY_TOKEN: Final = re.compile(r"(?:^|[&;])\s*access_token\s*=", re.IGNORECASE)
_MAX_QUERY: Final = 4096  # MCP needs none; looking at one costs time
_VISIBLE: Final = re.compile(r"[\x20-\x7e]*\Z")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The attributes of one request (envoy.service.auth.v3.AttributeContext).

    Attributes:
        method: the HTTP method, as sent.
        path: path and query as Envoy normalised them; the query is never logged.
        headers: lower-case name to value, bytes read as Latin-1 so that nothing is lost; values
            of a header that came twice are joined by a comma, as Envoy joins them.
        body: the whole body; Envoy is configured never to send a part of one.
        context: the route's context_extensions; `server` names the MCP server.
        address: the client's address as Envoy trusts it, without port; empty where unknown.
        request_id: Envoy's x-request-id.
        host: Host or `:authority`, as sent; it names a server only where `Policy.places` has it.

    Its mappings are dicts, which compiled code reads in half the time; nobody writes to them.
    """

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    context: dict[str, str]
    address: str
    request_id: str
    host: str = ""


class RefusedError(Exception):
    """Carry a refusal out of a reader; the decision turns it into a `Deny`.

    Attributes:
        reason: the row of the table.
        detail: what is wrong, for the log and the operator.
        second_factor: what was required and not proved.
    """

    def __init__(
        self,
        reason: Reason,
        detail: Detail = Detail.NONE,
        second_factor: SecondFactor | None = None,
    ) -> None:
        """Keep the reason and the words for the operator."""
        super().__init__(reason.label, detail)
        self.reason = reason
        self.detail = detail
        self.second_factor = second_factor


def check_shape(request: HttpRequest, origins: frozenset[str]) -> None:
    """Refuse what no MCP client sends: other methods, foreign origins, tokens in the address.

    Raises:
        RefusedError: METHOD_NOT_ALLOWED, FOREIGN_ORIGIN, TOKEN_IN_QUERY or MALFORMED_REQUEST.
    """
    if request.method not in METHODS:
        raise RefusedError(Reason.METHOD_NOT_ALLOWED)
    origin = request.headers.get("origin")
    # MCP, Streamable HTTP, "Security Warning": present and unknown means 403. Several origins
    # arrive joined by a comma and are not in the set either.
    if origin is not None and origin not in origins:
        raise RefusedError(Reason.FOREIGN_ORIGIN)
    _, _, query = request.path.partition("?")
    if len(query) > _MAX_QUERY:
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.LONG_QUERY)
    # RFC 6750, section 2.3 is forbidden by MCP.
    if query and _names_a_token(query):
        raise RefusedError(Reason.TOKEN_IN_QUERY)
    # RFC 9110, section 7.8. After it nobody reads what is sent; Envoy Gateway lets every route be
    # upgraded to a WebSocket, and MCP has no use for one.
    if "upgrade" in request.headers:
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.UPGRADE)
    if request.method != "POST" and _has_body(request):
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.BODY_WITHOUT_POST)


def _has_body(request: HttpRequest) -> bool:
    """Tell whether there is a body that would reach the upstream unread.

    A server that honours a method override header could take it for a tool call.
    """
    headers = request.headers
    length = headers.get("content-length", "0")
    return bool(request.body) or length != "0" or "transfer-encoding" in headers


def _names_a_token(query: str) -> bool:
    # Decoded as a whole: an escaped separator then counts as one, which refuses more, not less.
    return _QUERY_TOKEN.search(unquote_plus(query)) is not None


def bearer_token(request: HttpRequest) -> str:
    """Return the one bearer token of the request (RFC 6750, section 2.1).

    Raises:
        RefusedError: TOKEN_MISSING without credentials or with those of another scheme,
            TOKEN_MALFORMED for several, empty, over-long or oddly written ones.
    """
    value = request.headers.get("authorization")
    if value is None or value == "":
        raise RefusedError(Reason.TOKEN_MISSING)
    if len(value) > _MAX_TOKEN + len("Bearer "):
        raise RefusedError(Reason.TOKEN_MALFORMED, Detail.LONG_TOKEN)
    kind, _, token = value.partition(" ")
    if kind.lower() == "bearer" and _is_b64token(token):
        return token
    scheme = _SCHEME.match(value)
    if scheme is not None and scheme.group().lower() != "bearer" and "," not in value:
        raise RefusedError(Reason.TOKEN_MISSING, Detail.OTHER_SCHEME)
    raise RefusedError(Reason.TOKEN_MALFORMED, Detail.NOT_ONE_BEARER_TOKEN)


def _is_b64token(text: str) -> bool:
    # Half of what a regular expression takes for the thousand characters of a token.
    return text != "" and text.isascii() and not text.encode("ascii").translate(None, _B64TOKEN)


def single(request: HttpRequest, name: str, malformed: Detail) -> str | None:
    """Return the value of a header that affects the decision, or None where it was not sent.

    Raises:
        RefusedError: MALFORMED_REQUEST where the value has bytes outside printable ASCII.
    """
    value = request.headers.get(name)
    if value is None:
        return None
    if _VISIBLE.match(value) is None:
        raise RefusedError(Reason.MALFORMED_REQUEST, malformed)
    return value
