"""The headers that were judged are the headers that are sent on."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.answers import upstream
from authz.core.decision import Allow, BearerRequest, Deny, authorize, conclude, read
from authz.core.ledger import Mode, Taken
from authz.core.reason import Reason
from authz.envoy.codec import encode_allow
from tests.support.values import NOW, policy, principal, request, rpc
from tests.support.wire import answer

_META = "io.modelcontextprotocol/"
TAKEN = Taken((), Mode.REDIS)


def decided(body: bytes | None, **headers: Any) -> Allow | Deny:
    rules = policy()
    found = read(request(body, "POST" if body else "GET", **headers), rules)
    if isinstance(found, Deny):
        return found
    assert isinstance(found, BearerRequest)
    pending = authorize(found, principal(), rules, NOW)
    return pending if isinstance(pending, Deny) else conclude(pending, TAKEN)


def judged(decision: Allow | Deny) -> dict[str, str]:
    assert isinstance(decision, Allow), decision
    found = dict(decision.judged)
    sent = answer(encode_allow(upstream(decision, policy(), NOW)))
    # Each once, in place of what was sent: the codec has no other action.
    assert {name: sent.headers[name] for name in found} == found
    return found


def named(method: str, **params: Any) -> tuple[bytes, dict[str, str]]:
    meta: dict[str, Any] = {f"{_META}protocolVersion": "2026-07-28"}
    meta |= {f"{_META}clientCapabilities": {}, f"{_META}clientInfo": {}}
    body = rpc(method, **params, _meta=meta)
    return body, {"mcp_protocol_version": "2026-07-28", "mcp_method": method}


@pytest.mark.attack("doubled-header")
def test_a_name_with_a_comma_is_sent_on_as_it_was_judged() -> None:
    """Two headers that make one name together reach the server as that one name."""
    body, headers = named("tools/call", name="a,b", arguments={})

    assert judged(decided(body, **headers, mcp_name="a,b")) == {"mcp-name": "a,b"}
    body, headers = named("resources/read", uri="file:///a,b")
    assert judged(decided(body, **headers, mcp_name="file:///a,b")) == {"mcp-name": "file:///a,b"}
    body, headers = named("tools/call", name="a", arguments={})
    assert judged(decided(body, **headers, mcp_name="a")) == {}


@pytest.mark.attack("doubled-header")
def test_a_session_with_a_comma_is_sent_on_as_it_was_judged() -> None:
    """Whoever sends an own session and another's asks for a third, and the server sees that."""
    for body in (rpc(), None):
        assert judged(decided(body, mcp_session_id="mine,theirs")) == {
            "mcp-session-id": "mine,theirs"
        }
        assert judged(decided(body, mcp_session_id="mine")) == {}


@pytest.mark.attack("doubled-header")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mcp_method", "tools/list,tools/list"),
        ("mcp_protocol_version", "2025-11-25,2025-11-25"),
        ("content_type", "application/json,application/json"),
        ("content_encoding", "identity,identity"),
        ("origin", "https://a.test,https://a.test"),
        ("mcp_name", "a,a"),
    ],
)
def test_two_of_any_other_header_that_decides_are_refused(name: str, value: str) -> None:
    """What they are compared with has no comma."""
    assert isinstance(decided(rpc(), **{name: value}), Deny)


def test_a_header_that_nothing_is_compared_with_changes_nothing() -> None:
    """A stream names no thing; whatever stands there is not sent on by us, and breaks nothing."""
    assert judged(decided(None, mcp_name="\xe9, b")) == {}


@given(value=st.text(st.characters(max_codepoint=255), max_size=8), uri=st.booleans())
def test_whatever_is_sent_on_is_what_http_can_carry(value: str, uri: bool) -> None:
    """No name or session that passes makes an answer that cannot be written."""
    method, member = ("resources/read", "uri") if uri else ("x/run", "anything")
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": method, "params": {member: value}}
    ).encode()
    found = decided(body, mcp_name=value, mcp_session_id=value)
    if isinstance(found, Deny):
        assert found.reason in {
            Reason.HEADER_MISMATCH, Reason.INVALID_MESSAGE, Reason.MALFORMED_REQUEST,
        }  # fmt: skip
        return
    assert judged(found).keys() <= {"mcp-name", "mcp-session-id"}
