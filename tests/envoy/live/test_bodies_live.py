"""What authz is given of a request, through the real Envoy.

Authz judges the very bytes that the server gets, or nobody gets them.
"""

import pytest

from tests.support.gateway import GATEWAY, GOOD, MAX_BODY, Gateway
from tests.support.wild_client import is_json_rpc_error, read


def test_the_whole_body_of_a_post_is_judged(gateway: Gateway) -> None:
    """A body of the largest size arrives at authz byte by byte, and then at the server."""
    body = bytes(range(256)) * (MAX_BODY // 256)
    answer = gateway.send("POST", "/files", GOOD, body=body)

    assert answer.status == 200
    assert gateway.authz.last.body == body == gateway.servers["files"].arrived[0].body


def test_the_whole_body_of_a_post_is_judged_over_http2(gateway: Gateway) -> None:
    """Flow control does not cut what is buffered."""
    body = b"x" * MAX_BODY
    with gateway.well_behaved() as client:
        assert client.post("/files", content=body, headers=[GOOD]).http_version == "HTTP/2"

    assert gateway.authz.last.body == body == gateway.servers["files"].arrived[0].body


def test_a_longer_body_is_refused_in_words(gateway: Gateway) -> None:
    """One byte more is 413 in JSON-RPC, and authz never sees a part of it."""
    answer = gateway.send("POST", "/files", GOOD, body=b"x" * (MAX_BODY + 1))

    assert answer.status == 413
    assert is_json_rpc_error(answer)
    assert gateway.authz.checks == []


@pytest.mark.attack("body-games")
def test_a_body_without_length_is_judged_whole(gateway: Gateway) -> None:
    """Chunks are put together before authz is asked."""
    request = (
        f"POST /files HTTP/1.1\r\nHost: {GATEWAY}\r\n{GOOD[0]}: {GOOD[1]}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n"
    )
    with gateway.send.connect() as sock:
        assert read(sock, request.encode()).status == 200

    assert gateway.authz.last.body == b"abcdef"


@pytest.mark.attack("body-games")
@pytest.mark.parametrize(
    "lengths",
    ["Transfer-Encoding: chunked\r\nContent-Length: 3", "Content-Length: 3\r\nContent-Length: 4",
     "Transfer-Encoding: chunked, identity", "Content-Length: +3", "Content-Length: 3, 4"],
)  # fmt: skip
def test_two_opinions_about_the_length_are_refused(gateway: Gateway, lengths: str) -> None:
    """What could be two requests to somebody behind us is none (request smuggling)."""
    request = f"POST /files HTTP/1.1\r\nHost: {GATEWAY}\r\n{lengths}\r\n\r\n0\r\n\r\n"
    with gateway.send.connect() as sock:
        assert read(sock, request.encode()).status in {0, 400, 501}

    assert gateway.authz.checks == []


@pytest.mark.attack("two-authorizations")
def test_two_authorization_headers_arrive_as_one_value(gateway: Gateway) -> None:
    """Authz sees both, joined by a comma, and can refuse them."""
    answer = gateway.send("POST", "/files", GOOD, ("Authorization", "Bearer other"), body=b"{}")

    assert answer.status == 401
    assert gateway.authz.last.headers["authorization"] == "Bearer good,Bearer other"
