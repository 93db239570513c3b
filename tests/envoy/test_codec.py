"""Decoding: any bytes are a request as Envoy meant it, or a refusal."""

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError, bearer_token
from authz.envoy import codec
from authz.envoy.pb.core_pb2 import HeaderMap, HeaderValue
from authz.envoy.pb.external_auth_pb2 import AttributeContext, CheckRequest

unhurried = settings(deadline=None)  # a busy machine is no failure
BODY = b'{"jsonrpc":"2.0","id":17,"method":"tools/list"}'
SENT = (
    (":authority", b"mcp.example.com"),
    (":method", b"POST"),
    (":path", b"/files"),
    (":scheme", b"https"),
    ("authorization", b"Bearer a.b.c"),
    ("content-type", b"application/json"),
    ("x-request-id", b"85b303ec-1869-4f3c-acb6-c3cece674474"),
    ("x-envoy-auth-partial-body", b"false"),
)


def message(*more: tuple[str, bytes], sent: tuple[tuple[str, bytes], ...] = SENT) -> CheckRequest:
    headers = [HeaderValue(key=key, raw_value=value) for key, value in (*sent, *more)]
    request = CheckRequest()
    http = request.attributes.request.http
    http.CopyFrom(
        AttributeContext.HttpRequest(
            id="8340187281993259694",
            method="POST",
            path="/files",
            raw_body=BODY,
            header_map=HeaderMap(headers=headers),
        )
    )
    request.attributes.context_extensions["server"] = "files"
    request.attributes.source.address.socket_address.address = "198.51.100.7"
    return request


def decode(request: CheckRequest) -> HttpRequest:
    return codec.decode(request.SerializeToString())


def refused(raw: bytes) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        codec.decode(raw)
    return caught.value


def refused_with(change: Callable[[AttributeContext.HttpRequest], object]) -> RefusedError:
    request = message()
    change(request.attributes.request.http)
    return refused(request.SerializeToString())


def test_a_request_of_envoy_is_read() -> None:
    """Every value of the core comes from the field that Envoy fills."""
    assert decode(message()) == HttpRequest(
        method="POST",
        path="/files",
        headers={
            "authorization": "Bearer a.b.c",
            "content-type": "application/json",
            "x-request-id": "85b303ec-1869-4f3c-acb6-c3cece674474",
            "x-envoy-auth-partial-body": "false",
        },
        body=BODY,
        context={"server": "files"},
        address="198.51.100.7",
        request_id="85b303ec-1869-4f3c-acb6-c3cece674474",
    )


# --- any bytes ---------------------------------------------------------------------------------


def is_request_or_refusal(raw: bytes) -> None:
    try:
        request = codec.decode(raw)
    except RefusedError as refusal:
        reason = refusal.reason
    else:
        assert isinstance(request, HttpRequest)
        return
    assert reason in {Reason.MALFORMED_REQUEST, Reason.BODY_TOO_LARGE}


@unhurried
@given(st.binary(max_size=300))
@example(b"")
def test_any_bytes_are_a_request_or_refused(raw: bytes) -> None:
    """Bytes of any kind decode or raise Refused, never anything else."""
    is_request_or_refusal(raw)


@unhurried
@given(st.data())
def test_damaged_messages_are_a_request_or_refused(data: st.DataObject) -> None:
    """A message cut, overwritten and extended anywhere decodes or raises RefusedError."""
    raw = bytearray(message().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw)))
        raw[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    is_request_or_refusal(bytes(raw))


@unhurried
@given(st.binary(max_size=20), st.integers(20, 500))
def test_unknown_fields_change_nothing(value: bytes, number: int) -> None:
    """A field that protos/ does not know is passed over, whatever it holds."""
    tag = number << 3 | 2
    field = bytes([tag & 0x7F | 0x80, tag >> 7, len(value)]) + value
    raw = message().SerializeToString()
    assert codec.decode(raw + field) == codec.decode(raw) == codec.decode(field + raw)


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"\x00", id="tag-zero"),
        pytest.param(b"\x0f", id="wire-type-7"),
        pytest.param(b"\x0a\x7f", id="cut-length"),
        pytest.param(b"\x0c", id="end-group"),
        pytest.param(b"\xff" * 11, id="endless-varint"),
        pytest.param(b"\x83\x7d" * 300, id="300-deep-groups"),
    ],
)
def test_trailing_garbage_is_refused(tail: bytes) -> None:
    """A message with bytes after it that are no field is no message."""
    raw = message().SerializeToString() + tail
    assert refused(raw).reason is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("change", ["attributes", "request", "http"])
def test_missing_attributes_are_refused(change: str) -> None:
    """Without attributes.request.http there is nothing to decide about."""
    request = message()
    attributes = request.attributes
    {
        "attributes": lambda: request.ClearField("attributes"),
        "request": lambda: attributes.ClearField("request"),
        "http": lambda: attributes.request.ClearField("http"),
    }[change]()
    assert refused(request.SerializeToString()).reason is Reason.MALFORMED_REQUEST


@pytest.mark.attack("non-utf8-header-bytes")
@pytest.mark.parametrize("field", [b"/files", b"content-type", b"POST", b"198.51.100.7", b"server"])
def test_text_that_is_not_utf8_is_refused(field: bytes) -> None:
    """A byte outside UTF-8 in any text of the message makes it no message."""
    raw = message().SerializeToString().replace(field, b"\xff" * len(field))
    assert refused(raw).reason is Reason.MALFORMED_REQUEST


# --- method, path, body ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", ""),
        ("method", "PO\nST"),
        ("path", ""),
        ("path", "/files\r\nx: y"),
        ("path", "/files\0"),
        ("path", "/f\u0131les"),
        ("path", "/files\x7f"),
        ("query", "access_token=abc"),
        ("fragment", "access_token=abc"),
    ],
)
def test_odd_targets_are_refused(field: str, value: str) -> None:
    """A method or path that no request line holds, and a query outside the path, are refused."""
    refusal = refused_with(lambda http: setattr(http, field, value))
    assert refusal.reason is Reason.MALFORMED_REQUEST
    assert "abc" not in refusal.detail


@pytest.mark.attack("partial-body")
@pytest.mark.parametrize("value", [b"true", b"false,true", b"TRUE", b"", b"\xff"])
def test_a_part_of_a_body_is_refused(value: bytes) -> None:
    """Only Envoy's word that the body is whole counts, and a client's beside it spoils it."""
    sent = tuple(pair for pair in SENT if pair[0] != "x-envoy-auth-partial-body")
    request = message(("x-envoy-auth-partial-body", value), sent=sent)
    assert refused(request.SerializeToString()).reason is Reason.BODY_TOO_LARGE


@pytest.mark.attack("partial-body")
def test_a_forged_whole_body_does_not_hide_a_part() -> None:
    """Where client and Envoy both speak of the body, the answer is a refusal."""
    request = message(("x-envoy-auth-partial-body", b"true"))
    assert refused(request.SerializeToString()).reason is Reason.BODY_TOO_LARGE


def test_a_body_sent_as_text_is_no_body() -> None:
    """A filter without pack_as_bytes looks like a route without a body, never like another one."""
    request = message()
    request.attributes.request.http.ClearField("raw_body")
    raw = request.SerializeToString()
    text = b"\x5a\x02{}"  # HttpRequest.body = 11
    http = text
    for tag in (0x12, 0x22, 0x0A):  # http = 2, request = 4, attributes = 1
        http = bytes([tag, len(http)]) + http
    assert codec.decode(raw + http) == codec.decode(raw)
    assert codec.decode(raw + http).body == b""


# --- headers -----------------------------------------------------------------------------------


@unhurried
@given(st.binary(max_size=40))
def test_header_bytes_survive_as_latin1(value: bytes) -> None:
    """No byte of a header value is lost, changed or decoded as anything."""
    assert decode(message(("x-any", value))).headers["x-any"].encode("latin-1") == value


def test_pseudo_headers_are_dropped_and_names_lowered() -> None:
    """Pseudo headers are no headers, and a name is known in lower case only."""
    headers = decode(message(("X-Upper", b"a"), ("x-upper", b"b"))).headers
    assert headers["x-upper"] == "a,b"
    assert not [name for name in headers if name.startswith(":") or name != name.lower()]


@pytest.mark.attack("two-authorization-headers")
@pytest.mark.parametrize("twin", ["authorization", "Authorization"])
def test_two_authorization_headers_are_no_token(twin: str) -> None:
    """A header that comes twice is joined, so that neither value can be taken for the only one."""
    request = decode(message((twin, b"Bearer d.e.f")))
    assert request.headers["authorization"] == "Bearer a.b.c,Bearer d.e.f"
    with pytest.raises(RefusedError) as caught:
        bearer_token(request)
    assert caught.value.reason is Reason.TOKEN_MALFORMED


@pytest.mark.attack("identity-headers-spoofed")
@pytest.mark.parametrize(
    "name",
    [
        "",
        "x_authz_subject",
        "x-authz_subject",
        "coo\u212aie",
        "x\u00e9",
        "x-a\nx-b",
        "x-a\r",
        "x a",
        "x-a:",
        ":unknown",
        ":Path",
        "x-a\0",
    ],
)
def test_odd_header_names_are_refused(name: str) -> None:
    """A name that is no token, or that an upstream could read as another one, is refused."""
    refusal = refused(message((name, b"mallory")).SerializeToString())
    assert refusal.reason is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("raw", [True, False])
def test_headers_are_counted(raw: bool) -> None:
    """MAX_HEADERS are read, one more is refused, in both ways of sending them."""

    def many(count: int) -> bytes:
        request = message(sent=())
        http = request.attributes.request.http
        for index in range(count):
            if raw:
                http.header_map.headers.add(key=f"x-{index}", raw_value=b"v")
            else:
                http.headers[f"x-{index}"] = "v"
        return request.SerializeToString()

    assert len(codec.decode(many(codec.MAX_HEADERS)).headers) == codec.MAX_HEADERS
    assert refused(many(codec.MAX_HEADERS + 1)).reason is Reason.MALFORMED_REQUEST


def test_plain_headers_read_as_raw_ones_do() -> None:
    """Without encode_raw_headers the same bytes give the same values."""
    plain, raw = message(sent=()), message(("x-name", "caf\u00e9".encode()), sent=())
    plain.attributes.request.http.headers["x-name"] = "caf\u00e9"
    plain.attributes.request.http.headers[":path"] = "/files"
    text = message(sent=())
    text.attributes.request.http.header_map.headers.add(key="x-name", value="caf\u00e9")
    assert decode(plain) == decode(raw) == decode(text)


def test_headers_sent_both_ways_are_refused() -> None:
    """Two lists of headers could say two things."""
    refusal = refused_with(lambda http: http.headers.update({"authorization": "Bearer d.e.f"}))
    assert refusal.reason is Reason.MALFORMED_REQUEST


def test_a_request_without_headers_is_read() -> None:
    """No header at all is a request like any other."""
    assert decode(message(sent=())).headers == {}


# --- address and request id --------------------------------------------------------------------


def test_a_peer_without_an_address_has_none() -> None:
    """A client on a Unix socket, or none at all, has an empty address."""
    request = message()
    request.attributes.source.address.pipe.path = "@/run/envoy"
    assert decode(request).address == ""
    request.attributes.ClearField("source")
    assert decode(request).address == ""


@pytest.mark.parametrize(
    ("sent", "stream", "expected"),
    [
        (b"85b303ec", "12", "85b303ec"),
        (b"a\nb", "12", "12"),
        (b"", "12", "12"),
        (b"x" * 65, "12", "12"),
        (b"x" * 64, "12", "x" * 64),
        (b"\xff", '1"2', ""),
        (b"a\n", "", ""),
    ],
)
def test_odd_request_ids_are_not_repeated(sent: bytes, stream: str, expected: str) -> None:
    """A request id that answers and logs repeat is short and plain, or Envoy's stream number."""
    request = message(("x-request-id", sent), sent=())
    request.attributes.request.http.id = stream
    assert decode(request).request_id == expected


def test_nothing_of_a_caller_is_in_a_refusal() -> None:
    """A refusal's words are fixed, whatever the message held."""
    for request in (message(("x_secret", b"secret")), message(("authorization", b"secret"))):
        request.attributes.request.http.fragment = "secret"
        refusal = refused(request.SerializeToString())
        assert "secret" not in f"{refusal} {refusal.detail}"
