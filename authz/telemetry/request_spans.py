"""The span of a request to the pages (OpenTelemetry's conventions for HTTP servers).

Invariant: neither path, query, header nor body of a request is in its span: codes and states stand
there (tests/telemetry/test_request_spans.py).
"""

import time
from collections.abc import Sequence
from typing import Final

from authz.telemetry.traces import CURRENT, Attribute, Trace, Tracer

# Of a request; another is a caller's word.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})
_OTHER: Final = "_OTHER"
_REFUSED: Final = 400
_FAULT: Final = 500
_NONE: Final = "no_answer"


def begin_trace(tracer: Tracer, traceparents: Sequence[str]) -> Trace:
    """Begin the trace of a request, and make it the one that is under way in this task.

    Args:
        tracer: what keeps traces.
        traceparents: the headers of that name: the client's own, or Envoy's over it.
    """
    traceparent = traceparents[0] if len(traceparents) == 1 else ""
    trace = tracer.begin(traceparent if tracer.envoy_traces else "", time.perf_counter())
    trace.adopt(traceparent)
    CURRENT.set(trace)
    return trace


def end_trace(tracer: Tracer, trace: Trace, method: str, route: str, status: int) -> None:
    """End the trace of a request; its spans go on where it is kept.

    Args:
        tracer: decides whether it is.
        trace: the request's.
        method: of the request.
        route: the path as it is declared; empty where there is none.
        status: of the answer; 0 where there was none.
    """
    seconds = time.perf_counter() - trace.started
    error = str(status) if status >= _FAULT else "" if status else _NONE
    kept = tracer.why(trace, seconds, refused=status >= _REFUSED, failed=bool(error))
    if kept is None:
        return
    method = method if method in _METHODS else _OTHER
    attributes: list[tuple[str, Attribute]] = [
        ("http.request.method", method),
        ("authz.kept", kept.value),
    ]
    if route:
        attributes.append(("http.route", route))
    if status:
        attributes.append(("http.response.status_code", status))
    name = f"{method} {route}".rstrip()
    tracer.finish(trace, name, seconds, tuple(attributes), error)
