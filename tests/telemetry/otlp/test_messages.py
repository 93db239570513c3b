"""Spans, lines and figures as OTLP's messages, read back."""

import json

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from authz.telemetry.otlp import messages
from authz.telemetry.otlp.metric_messages import metrics_request
from authz.telemetry.traces import Span, SpanKind
from tests.support.otlp_receiver import Receiver, texts

OF = messages.resource((("service.name", "authz"),))
BY = messages.scope("1")


def received(signal: str, body: bytes) -> Receiver:
    receiver = Receiver()
    receiver.take(signal, body, {})
    return receiver


@given(st.text(max_size=50), st.text(max_size=50) | st.integers() | st.floats() | st.booleans())
def test_whatever_stands_in_a_span_makes_a_message(text: str, value: str | float | bool) -> None:
    """Lone surrogates and integers of any length too: nothing of a caller ends the sending."""
    text += "\ud800"
    span = Span(text, "0" * 31 + "1", "0" * 15 + "1", "", SpanKind.SERVER, 1.5, 2.0,
                ((text, value), ("other", text)), "internal")  # fmt: skip
    (found,) = received("traces", messages.trace_request([(span,)], OF, BY)).spans()
    assert found.start_time_unix_nano == 1_500_000_000
    assert (found.trace_id[-1], found.parent_span_id) == (1, b"")
    assert texts(list(found.attributes))["error.type"] == "internal"


def test_a_line_of_the_log_is_a_record_with_its_fields() -> None:
    """Words in the body, fields as attributes, the trace where the line has one."""
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    lines = [
        json.dumps({"time": 1.5, "event": "decision", "verdict": "deny", "reason": "origin",
                    "ms": 0.25, "trace_id": trace_id}),
        json.dumps({"time": 2, "event": "fault", "dependency": "redis", "where": ["a:1"]}),
    ]  # fmt: skip
    first, second = received("logs", messages.log_request(lines, OF, BY)).logs()
    assert first.body.string_value == "decision deny origin"
    assert first.trace_id.hex() == trace_id
    assert first.event_name == "authz.decision"
    assert texts(list(first.attributes)) == {"verdict": "deny", "reason": "origin", "ms": "0.25"}
    assert second.severity_number == SeverityNumber.SEVERITY_NUMBER_ERROR
    assert texts(list(second.attributes))["where"] == '["a:1"]'


def test_figures_are_those_that_prometheus_reads() -> None:
    """Same names, labels and values; the buckets of a histogram each count their own."""
    registry = CollectorRegistry()
    Counter("seen_total", "Seen.", ["kind"], registry=registry).labels("a").inc(3)
    Gauge("age", "Age.", registry=registry).set(-1)
    took = Histogram("took_seconds", "Took.", buckets=(0.1, 1.0), registry=registry)
    for seconds in (0.05, 0.5, 0.6, 7.0):
        took.observe(seconds)
    body, points = metrics_request(registry, OF, BY, began=1, now=2)
    found = received("metrics", body).metrics()
    (seen,) = found["seen_total"].sum.data_points
    assert (seen.as_double, texts(list(seen.attributes))) == (3.0, {"kind": "a"})
    assert (seen.start_time_unix_nano, seen.time_unix_nano) == (1, 2)
    assert found["seen_total"].sum.is_monotonic
    assert found["age"].gauge.data_points[0].as_double == -1
    (each,) = found["took_seconds"].histogram.data_points
    assert (list(each.bucket_counts), list(each.explicit_bounds)) == ([1, 2, 1], [0.1, 1.0])
    assert (each.count, round(each.sum, 3), points) == (4, 8.15, 3)
