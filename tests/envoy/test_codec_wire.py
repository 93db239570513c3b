"""On the wire: what Envoy's own types write we read, and what we write they read."""

import datetime as dt
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.core.answers import HttpAnswer, UpstreamChanges
from authz.core.request import HttpRequest
from authz.envoy import codec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # envoy-data-plane is older than its pydantic
    from envoy_data_plane.envoy.config.core import v3 as envoy_core
    from envoy_data_plane.envoy.service.auth import v3 as envoy_auth

unhurried = settings(deadline=None)  # a busy machine is no failure
OVERWRITE = envoy_core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
NAMES = st.from_regex(r"[a-z][a-z0-9!#$%&'*+.^`|~-]{0,12}", fullmatch=True).filter(
    lambda name: name not in {"host", "x-envoy-auth-partial-body", "x-request-id"}
)
VISIBLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12).map(str.strip)
TARGETS = st.from_regex(r"/[!-~]{0,20}", fullmatch=True)
ADDRESSES = st.ip_addresses().map(str)
PAIRS = st.lists(st.tuples(NAMES, VISIBLE), max_size=6, unique_by=lambda pair: pair[0]).map(tuple)


@st.composite
def requests(draw: st.DrawFn) -> tuple[HttpRequest, bytes]:
    """Make the values of a request, and the bytes that Envoy's types make of them."""
    headers = draw(st.dictionaries(NAMES, st.binary(max_size=12), max_size=8))
    request_id = draw(st.from_regex(r"[a-z0-9-]{1,36}", fullmatch=True))
    expected = HttpRequest(
        method=draw(st.sampled_from(["POST", "GET", "DELETE", "PATCH", "post"])),
        path=draw(TARGETS),
        headers={name: value.decode("latin-1") for name, value in headers.items()}
        | {"x-request-id": request_id},
        body=draw(st.binary(max_size=40)),
        context=draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)),
        address=draw(ADDRESSES),
        request_id=request_id,
        host=draw(st.text(max_size=8)),
    )
    pairs = [(":path", expected.path.encode()), *headers.items()]
    pairs.append(("x-request-id", request_id.encode()))
    http = envoy_auth.AttributeContextHttpRequest(
        id=str(draw(st.integers(0, 2**64))),
        method=expected.method,
        path=expected.path,
        host=expected.host,
        scheme="https",
        protocol="HTTP/2",
        size=draw(st.integers(-1, 2**63 - 1)),
        raw_body=expected.body,
        header_map=envoy_core.HeaderMap(
            headers=[envoy_core.HeaderValue(key=key, raw_value=value) for key, value in pairs]
        ),
    )
    return expected, bytes(envelope(expected, http, draw(st.integers(0, 65535))))


def envelope(
    expected: HttpRequest, http: envoy_auth.AttributeContextHttpRequest, port: int
) -> envoy_auth.CheckRequest:
    socket = envoy_core.SocketAddress(address=expected.address, port_value=port)
    peer = envoy_auth.AttributeContextPeer(
        address=envoy_core.Address(socket_address=socket),
        service="not read",
        principal="spiffe://not/read",
        labels={"not": "read"},
    )
    now = dt.datetime(2026, 7, 28, tzinfo=dt.UTC)
    return envoy_auth.CheckRequest(
        attributes=envoy_auth.AttributeContext(
            source=peer,
            destination=peer,
            request=envoy_auth.AttributeContextRequest(time=now, http=http),
            context_extensions=dict(expected.context),
            metadata_context=envoy_core.Metadata(),
            tls_session=envoy_auth.AttributeContextTlsSession(sni="mcp.example.com"),
        )
    )


@unhurried
@given(requests())
def test_we_read_what_envoys_types_write(case: tuple[HttpRequest, bytes]) -> None:
    """A CheckRequest made by Envoy's types decodes to the values that went into it."""
    expected, raw = case
    assert codec.decode(raw) == expected


@unhurried
@given(st.integers(200, 599), PAIRS, st.text(max_size=20))
def test_envoys_types_read_our_denial(
    status: int, headers: tuple[tuple[str, str], ...], body: str
) -> None:
    """A denial has the status, headers and body that went into it, and is not OK."""
    raw = codec.encode_deny(HttpAnswer(status, headers, body.encode()))
    response = envoy_auth.CheckResponse.parse(raw)
    assert response.status is not None
    assert response.status.code != 0
    assert response.ok_response is None
    denied = response.denied_response
    assert denied is not None
    assert denied.status is not None
    assert (int(denied.status.code), read(denied.headers), denied.body) == (status, headers, body)


@unhurried
@given(PAIRS, st.lists(NAMES, max_size=5), PAIRS)
def test_envoys_types_read_our_allow(
    sets: tuple[tuple[str, str], ...], removes: list[str], responses: tuple[tuple[str, str], ...]
) -> None:
    """An allow is OK and has the headers that went into it, each in its own list."""
    removed = tuple(name for name in removes if name not in dict(sets))
    response = envoy_auth.CheckResponse.parse(
        codec.encode_allow(UpstreamChanges(sets, removed, responses))
    )
    assert response.status is not None
    assert response.status.code == 0
    assert response.denied_response is None
    allowed = response.ok_response
    assert allowed is not None
    assert read(allowed.headers) == sets
    assert tuple(allowed.headers_to_remove) == removed
    assert read(allowed.response_headers_to_add) == responses


def read(options: list[envoy_core.HeaderValueOption]) -> tuple[tuple[str, str], ...]:
    """Return the pairs, each of which must take the place of others."""
    assert all(option.append_action is OVERWRITE for option in options)
    headers = [option.header for option in options]
    return tuple((header.key, header.value) for header in headers if header is not None)


@pytest.mark.parametrize("way", ["raw", "plain"])
def test_both_ways_of_sending_headers_are_read(way: str) -> None:
    """With and without encode_raw_headers the request is the same."""
    http = envoy_auth.AttributeContextHttpRequest(id="7", method="GET", path="/files")
    if way == "plain":
        http.headers = {":path": "/files", "accept": "text/event-stream"}
    else:
        pairs = ((":path", b"/files"), ("accept", b"text/event-stream"))
        http.header_map = envoy_core.HeaderMap(
            headers=[envoy_core.HeaderValue(key=key, raw_value=value) for key, value in pairs]
        )
    expected = HttpRequest(
        "GET", "/files", {"accept": "text/event-stream"}, b"", {"server": "files"}, "::1", "7"
    )
    assert codec.decode(bytes(envelope(expected, http, 1))) == expected
