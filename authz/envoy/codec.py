"""Protobuf codec of Envoy's ext_authz messages.

Invariant: `decode` returns an HttpRequest or raises RefusedError, for any bytes. Only
`encode_allow` writes the status OK. What HTTP cannot carry in one header raises ValueError.

For Envoy an empty CheckResponse, or one without a status, is an Allow (seen on 1.39.3). So an edge
that has no answer sends `FALLBACK_DENY`.
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, cast

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer, ScalarMap
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct, Value

from authz.core.answers import NOBODY, NOBODY_TYPE, HttpAnswer, UpstreamChanges
from authz.core.detail import Detail
from authz.core.identity_cache import IdentityCache
from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError
from authz.envoy.data_planes import ENVOY, CheckRequestFormat
from authz.envoy.pb import external_auth_pb2 as wire
from authz.envoy.pb.core_pb2 import HeaderValue, HeaderValueOption
from authz.envoy.pb.health_pb2 import HealthCheckResponse
from authz.envoy.pb.http_status_pb2 import StatusCode

# Full service names; a method's path on the wire is `/<service>/<method>`.
AUTHORIZATION: Final = "envoy.service.auth.v3.Authorization"
HEALTH: Final = "grpc.health.v1.Health"

# Envoy accepts 100 (max_headers_count) and adds its own and the pseudo headers.
MAX_HEADERS: Final = 128
# RFC 9113, section 8.3.1 and RFC 8441: in the other fields of the message, so dropped here.
_PSEUDO: Final = (":method", ":scheme", ":authority", ":path", ":protocol")
_CLIENT_ADDRESS: Final = "x-envoy-external-address"
_PARTIAL_BODY: Final = "x-envoy-auth-partial-body"
# RFC 9110, section 5.6.2: token; without "_", which many upstreams read as "-", so that
# `x_authz_subject` would be ours to them.
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+\Z")
_LASTS: Final = "x-envoy-upstream-rq-timeout-ms"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}\Z")

# google.rpc.Code by HTTP status. A denial is never OK, even where its HTTP status is 200.
_OK: Final = 0
_PERMISSION_DENIED: Final = 7
_CODES: Final = {400: 3, 401: 16, 405: 3, 413: 3, 415: 3, 429: 8, 503: 14}
_OVERWRITE: Final = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_SEVEN_BITS: Final = 0x7F
_SHORT: Final = tuple(bytes((number,)) for number in range(_SEVEN_BITS + 1))


def decode(raw: bytes, plane: CheckRequestFormat = ENVOY) -> HttpRequest:
    """Read one serialized envoy.service.auth.v3.CheckRequest.

    Args:
        raw: the message.
        plane: what its attributes are worth.

    Raises:
        RefusedError: MALFORMED_REQUEST for what is no such message or no request of HTTP,
            BODY_TOO_LARGE where the data plane sent a part of the body.
    """
    try:
        attributes = wire.CheckRequest.FromString(raw).attributes
    except DecodeError as error:
        # Envoy copies some bytes of the client unread; not being UTF-8, they end here.
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.NOT_A_CHECK_REQUEST) from error
    http = attributes.request.http
    method, path = http.method, http.path
    _check_target(method, path)
    if http.query or http.fragment:
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.QUERY_OUTSIDE_PATH)
    headers = _headers(http)
    if headers.get(_PARTIAL_BODY, "false") != "false":
        raise RefusedError(Reason.BODY_TOO_LARGE, Detail.PARTIAL_BODY)
    body = http.raw_body
    # agentgateway, ext_authz.rs: -1 for a part, the length of the whole otherwise.
    if plane.exact_size and body and http.size != len(body):
        raise RefusedError(Reason.BODY_TOO_LARGE, Detail.PARTIAL_BODY)
    # By position: names would cost a third more, of every request.
    return HttpRequest(
        method,
        path,
        headers,
        body,
        _context(attributes.context_extensions),
        _address(headers, attributes, plane),
        _request_id(headers.get("x-request-id", ""), http.id),
        http.host,
    )


def _check_target(method: str, path: str) -> None:
    """Refuse a method or path that no request line has (RFC 9112, section 3)."""
    # Without attributes.request.http both are empty.
    if not method or not path:
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.NO_METHOD_OR_PATH)
    line = method + path
    if not line.isascii() or not line.isprintable():
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.PATH_NOT_ASCII)


def _context(extensions: ScalarMap[str, str]) -> dict[str, str]:
    # Half of what its items() would cost.
    return {name: extensions[name] for name in extensions}


def _headers(http: wire.AttributeContext.HttpRequest) -> dict[str, str]:
    """Return lower-case name to value, without the pseudo headers."""
    raw, plain = http.header_map.headers, http.headers
    if raw and plain:
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.TWO_HEADER_MAPS)
    if len(raw) > MAX_HEADERS or len(plain) > MAX_HEADERS:
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.TOO_MANY_HEADERS)
    headers = {name: value.encode().decode("latin-1") for name, value in plain.items()}
    for header in raw:
        name = header.key
        value = (header.raw_value or header.value.encode()).decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    # All names in one look, which costs less than one look each; and before lower(), which makes
    # the Kelvin sign a k: one more way to spell `cookie`.
    names = "".join(headers)
    if ":" in names:
        for pseudo in _PSEUDO:
            headers.pop(pseudo, None)
        names = "".join(headers)
    if headers and ("" in headers or _TOKEN.match(names) is None):
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.UNKNOWN_HEADER_NAME)
    return headers if names == names.lower() else _lowered(headers)


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Lower the names, which Envoy has done already, and join what falls together."""
    lowered: dict[str, str] = {}
    for sent, value in headers.items():
        name = sent.lower()
        lowered[name] = f"{lowered[name]},{value}" if name in lowered else value
    return lowered


def _address(
    headers: dict[str, str], attributes: wire.AttributeContext, plane: CheckRequestFormat
) -> str:
    """Return the client's address as Envoy trusts it.

    `source` is the peer of the connection: behind a proxy of ours that is the proxy, the same for
    everybody. Envoy writes the trusted address into x-envoy-external-address, and takes away what
    a client sent under that name (use_remote_address, and nobody is internal: render/listener.py).
    """
    sent = headers.get(_CLIENT_ADDRESS) if plane.address_header else None
    return sent or attributes.source.address.socket_address.address


def _request_id(sent: str, stream: str) -> str:
    """Return Envoy's x-request-id, or the stream's number where that is missing or odd.

    It is repeated in answers and logs, and a route may let clients choose it.
    """
    for candidate in (sent, stream):
        if _REQUEST_ID.match(candidate) is not None:
            return candidate
    return ""


def encode_deny(answer: HttpAnswer, reason: str = "") -> bytes:
    """Return a serialized CheckResponse that denies, with the answer for the client.

    Args:
        answer: what the client gets.
        reason: the label of the reason, for Envoy's access log, whose status alone does not tell
            a refusal from a success.

    Raises:
        ValueError: for a status outside 200 to 599, a header that HTTP cannot carry or that is
            named twice, and a body that is not UTF-8.
    """
    if not 200 <= answer.status <= 599:  # noqa: PLR2004 - the final statuses of RFC 9110, section 15
        raise ValueError("an answer needs a final HTTP status")
    response = wire.CheckResponse()
    response.status.code = _CODES.get(answer.status, _PERMISSION_DENIED)
    denied = response.denied_response
    # The enum is open: Envoy sends every number between these bounds.
    denied.status.code = cast(StatusCode, answer.status)
    _write(denied.headers, answer.headers)
    denied.body = answer.body.decode("utf-8")
    if reason:
        response.dynamic_metadata.fields["reason"].string_value = reason
    return response.SerializeToString()


def encode_allow(upstream: UpstreamChanges, cache: IdentityCache | None = None) -> bytes:
    """Return a serialized CheckResponse that lets the request go on, changed.

    Args:
        upstream: the changes.
        cache: holds what is the same for every request of a token; None for none.

    Raises:
        ValueError: for a header that HTTP cannot carry, that is named twice or both set and
            removed, for Host, and for a time that is none.
    """
    sets, removes = upstream.set_headers, upstream.remove_headers
    allowed = _changes(sets, removes) if cache is None else cache.get(_changes, sets, removes)
    if upstream.judged:
        allowed += _overwriting(_SENT, upstream.judged)
    allowed += _lasting(upstream.lasts) + _overwriting(_TOLD, upstream.response_headers)
    answer = _ALLOWED + _varint(len(allowed)) + allowed
    return answer + _metadata(upstream.metadata) if upstream.metadata else answer


def _metadata(values: tuple[tuple[str, str], ...]) -> bytes:
    """Return a CheckResponse's dynamic metadata: a Struct of texts.

    Put together here, like the headers: it is told of every request.
    """
    written = b""
    for name, value in values:
        text = value.encode()
        held = _STRING + _varint(len(text)) + text
        entry = _metadata_key(name) + _varint(len(held)) + held
        written += _ENTRY + _varint(len(entry)) + entry
    return _METADATA + _varint(len(written)) + written


@lru_cache(maxsize=16)
def _metadata_key(name: str) -> bytes:
    """Return an entry of a Struct up to the length of its value; the names are ours, and few."""
    text = name.encode("ascii")
    return _ENTRY_KEY + _varint(len(text)) + text + _ENTRY_VALUE


def _changes(set_headers: tuple[tuple[str, str], ...], removed_names: tuple[str, ...]) -> bytes:
    """Return the part of an OkHttpResponse that is the same for every request of a token.

    What follows it adds to it: the fields of a message may be written apart from one another
    (protobuf.dev, "Encoding", "Last One Wins").
    """
    allowed = wire.OkHttpResponse()
    names = _write(allowed.headers, set_headers)
    removed = [_name(name) for name in removed_names]
    # Envoy removes after it sets, and lets Host be set (both seen on 1.39.3).
    if "host" in names or not names.isdisjoint(removed):
        raise ValueError("a header that must not be set")
    allowed.headers_to_remove.extend(removed)
    return allowed.SerializeToString()


def _before_changes() -> bytes:
    """Return what stands before the length of an OkHttpResponse: the status OK, and the tag."""
    response = wire.CheckResponse()
    response.status.code = _OK
    response.ok_response.SetInParent()
    # The length is the last byte, and 0.
    return response.SerializeToString()[:-1]


_ALLOWED: Final = _before_changes()


def _tag(message: type[Message], field: str) -> bytes:
    """Return what stands before the length of a field that is a text, bytes or a message."""
    return bytes((message.DESCRIPTOR.fields_by_name[field].number << 3 | _DELIMITED,))


_DELIMITED: Final = 2
_SENT: Final = _tag(wire.OkHttpResponse, "headers")
_TOLD: Final = _tag(wire.OkHttpResponse, "response_headers_to_add")
_HEADER: Final = _tag(HeaderValueOption, "header")
_KEY: Final = _tag(HeaderValue, "key")
_VALUE: Final = _tag(HeaderValue, "value")
_METADATA: Final = _tag(wire.CheckResponse, "dynamic_metadata")
_ENTRY: Final = _tag(Struct, "fields")
_ENTRY_KEY: Final = _tag(Struct.FieldsEntry, "key")
_ENTRY_VALUE: Final = _tag(Struct.FieldsEntry, "value")
_STRING: Final = _tag(Value, "string_value")
_ACTION: Final = HeaderValueOption(append_action=_OVERWRITE).SerializeToString()


def _lasting(milliseconds: int) -> bytes:
    """Return the header by which Envoy's router ends the whole exchange after a time.

    It takes the place of the route's timeout, which is off (Envoy, "HTTP route timeouts"), and the
    router keeps it from the upstream; a client's own is stripped (render/filters.py). 0 would be no
    bound for Envoy, and is never written.
    """
    if milliseconds <= 0:
        if milliseconds < 0:
            raise ValueError("an exchange that has no time")
        return b""
    text = b"%d" % milliseconds
    header = _TIMEOUT + _varint(len(text)) + text
    option = _HEADER + _varint(len(header)) + header + _ACTION
    return _SENT + _varint(len(option)) + option


def _overwriting(field: bytes, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return headers of an OkHttpResponse that differ from request to request.

    Put together here, since the library's objects for them cost more than all that is in them.
    """
    _check(headers)
    written = b""
    for name, value in headers:
        text = value.encode("ascii")
        header = _key(name) + _varint(len(text)) + text
        option = _HEADER + _varint(len(header)) + header + _ACTION
        written += field + _varint(len(option)) + option
    return written


@lru_cache(maxsize=256)
def _key(sent: str) -> bytes:
    """Return a HeaderValue up to the length of its value; the names are ours, and few."""
    name = _name(sent).encode("ascii")
    return _KEY + _varint(len(name)) + name + _VALUE


def _varint(number: int) -> bytes:
    """Return a length as protobuf writes it: seven bits a byte, the lowest first."""
    if number <= _SEVEN_BITS:
        return _SHORT[number]
    written = bytearray()
    while number > _SEVEN_BITS:
        written.append(number & _SEVEN_BITS | _SEVEN_BITS + 1)
        number >>= 7
    written.append(number)
    return bytes(written)


def encode_health(*, serving: bool) -> bytes:
    """Return a serialized grpc.health.v1.HealthCheckResponse."""
    status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
    return HealthCheckResponse(status=status).SerializeToString()


def _write(
    options: RepeatedCompositeFieldContainer[HeaderValueOption],
    headers: tuple[tuple[str, str], ...],
) -> set[str]:
    """Add each header, to take the place of any other of its name, and return the names."""
    names = _check(headers)
    for name, value in headers:
        # Member by member costs half of what keyword arguments do.
        option = options.add()
        option.append_action = _OVERWRITE
        header = option.header
        header.key, header.value = _name(name), value
    return names


def _check(headers: tuple[tuple[str, str], ...]) -> set[str]:
    """Return the names of headers that HTTP can carry; raise ValueError for others."""
    names = set[str]()
    for sent, value in headers:
        # RFC 9110, section 5.5. A blank at an end would be cut off on the way, so that two
        # values here were one value there.
        if not (value.isascii() and value.isprintable()) or value.strip() != value:
            raise ValueError("a header value that HTTP cannot carry")
        name = _name(sent)
        # Each takes the place of what is there: of two, only the last would arrive.
        if name in names:
            raise ValueError("a header that is set twice")
        names.add(name)
    return names


@lru_cache(maxsize=256)
def _name(sent: str) -> str:
    """Return a header name of ours in lower case; they are few, so each is checked once."""
    name = sent.lower() if sent.isascii() else ""
    if _TOKEN.match(name) is None:
        raise ValueError("a header name that HTTP does not know")
    return name


def _fallback() -> HttpAnswer:
    row = Reason.INTERNAL.row
    error = {"code": row.code, "message": row.sentence, "data": {"reason": row.label}}
    body = json.dumps({"jsonrpc": "2.0", "id": NOBODY, "error": error})
    headers = (
        ("content-type", NOBODY_TYPE),
        ("cache-control", "no-store"),
        ("retry-after", "5"),
    )
    return HttpAnswer(row.status, headers, body.encode("ascii"))


_TIMEOUT: Final = _key(_LASTS)
FALLBACK_DENY: Final = encode_deny(_fallback(), Reason.INTERNAL.label)
"""What an edge sends where anything raises: made before the first request, so that it is there."""
