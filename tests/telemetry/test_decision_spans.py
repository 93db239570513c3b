"""The span of a check: what stands in it, and what never does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.decision import Decision, Deny
from authz.core.mcp import read
from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError
from authz.telemetry.decision_spans import record_decision, session_digest
from authz.telemetry.traces import KeepOptions, Span, Tracer
from tests.support.values import call, principal, request, rpc, server


def spans(decision: Decision, sent: HttpRequest | None = None) -> tuple[Span, ...]:
    kept: list[tuple[Span, ...]] = []
    tracer = Tracer(KeepOptions(sample=1.0), kept.append, lambda: None)
    trace = tracer.begin("", 0.0)
    record_decision(tracer, trace, decision, sent, 0.5)
    return kept[0]


def test_a_refused_call_is_named_and_described() -> None:
    """MCP's conventions beside our own; a refusal is no error of ours."""
    sent = request(call("read_file"), mcp_session_id="a-session")
    message = read(sent.body, sent.headers, max_body=1 << 16)
    deny = Deny(Reason.TOOL_NOT_ALLOWED, "", server(), message, principal())
    (span,) = spans(deny, sent)
    said = dict(span.attributes)
    assert span.name == "authorize tools/call"
    assert (span.error, said["authz.verdict"], said["authz.server"]) == ("", "deny", "files")
    assert (said["mcp.method.name"], said["gen_ai.tool.name"]) == ("tools/call", "read_file")
    assert said["mcp.session.id"] == session_digest("a-session")
    assert said["authz.client_id"] == "claude"
    assert principal().subject not in said.values()


def test_a_failure_of_ours_is_an_error() -> None:
    """By its reason, whether or not the request could be read."""
    (span,) = spans(Deny(Reason.LEDGER_UNAVAILABLE, "away", server()))
    assert (span.name, span.error) == ("authorize", "ledger_unavailable")


@given(st.text(min_size=1, max_size=400))
def test_no_callers_word_becomes_a_name(method: str) -> None:
    """Of a method that MCP does not have the span is called as of none; attributes are short."""
    sent = request(rpc(f"x-{method}"))
    try:
        message = read(sent.body, sent.headers, max_body=1 << 16)
    except RefusedError:  # what is no message has no method
        return
    (span,) = spans(Deny(Reason.TOOL_NOT_ALLOWED, "", server(), message, principal()), sent)
    assert span.name == "authorize"
    assert all(len(value) <= 256 for _, value in span.attributes if isinstance(value, str))


@pytest.mark.parametrize("refusal", [Reason.TOKEN_INVALID, Reason.INTERNAL])
def test_neither_token_nor_argument_stands_in_it(refusal: Reason) -> None:
    """Whatever came of it, with everything known that can be."""
    sent = request(
        rpc("tools/call", name="read_file", arguments={"path": "s3cret"}),
        authorization="Bearer s3cret.s3cret.s3cret",
    )
    message = read(sent.body, sent.headers, max_body=1 << 16)
    found = spans(Deny(refusal, "", server(), message, principal()), sent)
    assert "s3cret" not in repr(found)
