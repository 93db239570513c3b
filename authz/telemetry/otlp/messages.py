"""Spans and log lines as OTLP's messages (opentelemetry-proto).

Invariant: whatever text stands in a span or a line makes a message: what is no UTF-8 is replaced
(tests/telemetry/otlp/test_messages.py).
"""

import json
from collections.abc import Iterable
from typing import Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from authz.telemetry.traces import Attributes, Span, SpanKind

_NANOSECONDS: Final = 1_000_000_000
_KINDS: Final = {
    SpanKind.INTERNAL: trace_pb2.Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: trace_pb2.Span.SPAN_KIND_SERVER,
    SpanKind.CLIENT: trace_pb2.Span.SPAN_KIND_CLIENT,
}
# opentelemetry-proto, SpanFlags: W3C's flags are the lowest eight bits, of which `sampled` is the
# first; the others say whether the parent is another process's.
_SAMPLED: Final = 0x1
_KNOWS_PARENT: Final = 0x100
_PARENT_ELSEWHERE: Final = 0x200

_LARGEST_INTEGER: Final = 2**63 - 1
_SEVERITY: Final = {
    "crash": SeverityNumber.SEVERITY_NUMBER_ERROR,
    "fault": SeverityNumber.SEVERITY_NUMBER_ERROR,
    "config_warning": SeverityNumber.SEVERITY_NUMBER_WARN,
    "library": SeverityNumber.SEVERITY_NUMBER_WARN,
    "list_not_shown": SeverityNumber.SEVERITY_NUMBER_WARN,
}
# What a log record says in fields of its own, or in its words.
_OWN_FIELDS: Final = frozenset({"time", "event", "trace_id"})
_TRACE_ID: Final = 32  # hex digits


def key_values(attributes: Iterable[tuple[str, object]]) -> list[KeyValue]:
    """Return attributes; a value of another type than OTLP has becomes its JSON."""
    return [KeyValue(key=_utf8(name), value=_any_value(value)) for name, value in attributes]


def _any_value(value: object) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and abs(value) <= _LARGEST_INTEGER:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=_utf8(value if isinstance(value, str) else json.dumps(value)))


def _utf8(text: str) -> str:
    """Return a text that protobuf takes: without lone surrogates."""
    return text.encode("utf-8", "replace").decode()


def resource(attributes: Attributes) -> Resource:
    """Return who sends."""
    return Resource(attributes=key_values(attributes))


def scope(version: str) -> InstrumentationScope:
    """Return what measures."""
    return InstrumentationScope(name="authz", version=version)


def trace_request(
    traces: Iterable[tuple[Span, ...]], of: Resource, by: InstrumentationScope
) -> bytes:
    """Return the serialized request for the spans of some traces."""
    spans = [_span(each) for trace in traces for each in trace]
    scoped = trace_pb2.ScopeSpans(scope=by, spans=spans)
    found = trace_pb2.ResourceSpans(resource=of, scope_spans=[scoped])
    return ExportTraceServiceRequest(resource_spans=[found]).SerializeToString()


def _span(span: Span) -> trace_pb2.Span:
    found = trace_pb2.Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        flags=_SAMPLED | _KNOWS_PARENT | (_PARENT_ELSEWHERE if span.is_parent_elsewhere else 0),
        name=_utf8(span.name),
        kind=_KINDS[span.kind],
        start_time_unix_nano=nanoseconds(span.began),
        end_time_unix_nano=nanoseconds(span.ended),
        attributes=key_values(span.attributes),
    )
    if span.error:
        found.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        found.attributes.extend(key_values([("error.type", span.error)]))
    return found


def nanoseconds(seconds: float) -> int:
    """Return a moment since the epoch as OTLP has it."""
    return max(0, int(seconds * _NANOSECONDS))


def log_request(lines: Iterable[str], of: Resource, by: InstrumentationScope) -> bytes:
    """Return the serialized request for some lines of the log, each a JSON object."""
    scoped = ScopeLogs(scope=by, log_records=[_log_record(line) for line in lines])
    found = ResourceLogs(resource=of, scope_logs=[scoped])
    return ExportLogsServiceRequest(resource_logs=[found]).SerializeToString()


def _log_record(line: str) -> LogRecord:
    said: dict[str, object] = json.loads(line)
    event, when = str(said.get("event", "")), said.get("time")
    moment = nanoseconds(when) if isinstance(when, float | int) else 0
    words = [said.get(name) for name in ("event", "verdict", "reason", "step", "outcome")]
    severity = _SEVERITY.get(event, SeverityNumber.SEVERITY_NUMBER_INFO)
    found = LogRecord(
        time_unix_nano=moment,
        observed_time_unix_nano=moment,
        severity_number=severity,
        severity_text=SeverityNumber.Name(severity).rpartition("_")[2],
        event_name=f"authz.{event}",
        attributes=key_values(pair for pair in said.items() if pair[0] not in _OWN_FIELDS),
    )
    found.body.string_value = " ".join(str(word) for word in words if word)
    trace_id = said.get("trace_id")
    if isinstance(trace_id, str) and len(trace_id) == _TRACE_ID:
        found.trace_id = bytes.fromhex(trace_id)
    return found
