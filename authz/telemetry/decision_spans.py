"""The span of a check: its name and attributes, by OpenTelemetry's conventions for MCP.

Invariant: no token, argument, query, body or person is among them, nor a session's id but as a
digest; what a caller chose is cut to a bounded length (tests/telemetry/test_decision_spans.py).
"""

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from authz.core.admin_pages import PageDecision, PageDeny
from authz.core.decision import Allow, Decision
from authz.core.mcp import Message
from authz.core.methods import METHODS
from authz.core.request import HttpRequest
from authz.telemetry.audit import named_fields
from authz.telemetry.traces import Attribute, Kept, Trace, Tracer

NAME: Final = "authorize"
_MAX_VALUE: Final = 256  # characters
_DIGEST: Final = 16  # hex digits
_FAULT: Final = 500  # an HTTP status from which on it is our fault, not the caller's


def record_decision(
    tracer: Tracer, trace: Trace, decision: Decision, request: HttpRequest | None, seconds: float
) -> None:
    """End the trace of a check; its spans go on where it is kept.

    Args:
        tracer: decides whether it is.
        trace: the check's.
        decision: what it came to.
        request: what was asked; None where it could not be decoded.
        seconds: how long it took.
    """
    refused = not isinstance(decision, Allow)
    error = "" if isinstance(decision, Allow) else _error(decision.reason.value.status, decision)
    kept = tracer.why(trace, seconds, refused=refused, failed=bool(error))
    if kept is not None:
        attributes = tuple(_attributes(decision, request, kept))
        tracer.finish(trace, span_name(decision.message), seconds, attributes, error)


def record_page_decision(
    tracer: Tracer, trace: Trace, decision: PageDecision, request: HttpRequest, seconds: float
) -> None:
    """End the trace of a check of an admin page; its spans go on where it is kept.

    Args:
        tracer: decides whether it is.
        trace: the check's.
        decision: what it came to.
        request: what was asked.
        seconds: how long it took.
    """
    error, said = "", list[tuple[str, Attribute]]([("authz.verdict", "allow")])
    if isinstance(decision, PageDeny):
        row = decision.reason.row
        error = row.label if row.status >= _FAULT else ""
        said = [("authz.verdict", "deny"), ("authz.reason", row.label)]
        if decision.detail:
            said.append(("authz.detail", decision.detail[:_MAX_VALUE]))
    refused = isinstance(decision, PageDeny)
    kept = tracer.why(trace, seconds, refused=refused, failed=bool(error))
    if kept is None:
        return
    said.append(("authz.kept", kept.value))
    if decision.page is not None:
        said.append(("authz.page", decision.page.name))
    said.append(("http.request.method", request.method[:_MAX_VALUE]))
    said.append(("authz.request_id", request.request_id[:_MAX_VALUE]))
    tracer.finish(trace, f"{NAME} page", seconds, tuple(said), error)


class FilteredList(NamedTuple):
    """What is told of a list response: server and method of closed sets, and what went wrong."""

    server: str
    method: str
    fault: str


def record_list(
    tracer: Tracer, trace: Trace, facts: FilteredList, request_id: str, seconds: float
) -> None:
    """Pass on the span of a list that was filtered, where it is kept.

    Args:
        tracer: decides whether it is.
        trace: of the response.
        facts: what is told of it.
        request_id: of the request.
        seconds: that the filter worked; the response itself may be a stream that lasts.
    """
    kept = tracer.why(trace, seconds, refused=bool(facts.fault), failed=bool(facts.fault))
    if kept is None:
        return
    said: list[tuple[str, Attribute]] = [
        ("authz.kept", kept.value),
        ("authz.server", facts.server),
    ]
    if facts.method in METHODS:
        said.append(("mcp.method.name", facts.method))
    if request_id:
        said.append(("authz.request_id", request_id[:_MAX_VALUE]))
    tracer.finish(trace, "filter list", seconds, tuple(said), facts.fault)


def span_name(message: Message | None) -> str:
    """Return a name of a closed set: `authorize`, and MCP's method where it is one of MCP's."""
    if message is None or message.method not in METHODS:
        return NAME
    return f"{NAME} {message.method}"


def _error(status: int, decision: Decision) -> str:
    """Return what went wrong on our side; empty for a refusal that is the caller's affair."""
    if isinstance(decision, Allow) or status < _FAULT:
        return ""
    return decision.reason.label


def _attributes(
    decision: Decision, request: HttpRequest | None, kept: Kept
) -> Iterator[tuple[str, Attribute]]:
    server, message = decision.server, decision.message
    if isinstance(decision, Allow):
        yield "authz.verdict", "allow"
        yield "authz.limiter", decision.mode.value
    else:
        yield "authz.verdict", "deny"
        yield "authz.reason", decision.reason.label
        if decision.detail:
            yield "authz.detail", decision.detail[:_MAX_VALUE]
    yield "authz.kept", kept.value
    if server is not None:
        yield "authz.server", server.name
    if decision.principal is not None:
        yield "authz.client_id", decision.principal.client_id[:_MAX_VALUE]
    if request is not None:
        yield from _of_request(request)
    if message is not None:
        yield from _of_message(decision, message)


def _of_request(request: HttpRequest) -> Iterator[tuple[str, Attribute]]:
    yield "http.request.method", request.method[:_MAX_VALUE]
    yield "authz.request_id", request.request_id[:_MAX_VALUE]
    session = request.headers.get("mcp-session-id", "")
    if session:
        # Some servers take it for proof of who calls: a digest tells sessions apart as well.
        yield "mcp.session.id", session_digest(session)


def session_digest(session: str) -> str:
    """Return what stands for a session's id: some hex digits of its SHA-256."""
    return hashlib.sha256(session.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGEST]


def _of_message(decision: Decision, message: Message) -> Iterator[tuple[str, Attribute]]:
    if message.method:
        yield "mcp.method.name", message.method[:_MAX_VALUE]
    if message.version:
        yield "mcp.protocol.version", message.version[:_MAX_VALUE]
    if message.tool:
        yield "gen_ai.operation.name", "execute_tool"
        yield "gen_ai.tool.name", message.tool[:_MAX_VALUE]
    for name, value in named_fields(decision.server, message):
        yield _NAMES[name], value[:_MAX_VALUE]


_NAMES: Final = {"prompt": "gen_ai.prompt.name", "resource": "mcp.resource.uri"}
