"""What carries OTLP's messages, against receivers that behave and others."""

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from authz.telemetry.otlp.senders import ExportError, HttpSender, Signal, grpc_sender
from tests.support.otlp_receiver import grpc_receiver, http_receiver

SECRET = (("api-key", "s3cret"),)


def test_http_carries_the_message_and_the_headers() -> None:
    """By the path of the signal, compressed; what was rejected is told."""
    with http_receiver() as receiver:
        sender = HttpSender(receiver.address, SECRET)
        assert sender.send(Signal.LOGS, b"", 5) == 0
        partial = ExportTracePartialSuccess(rejected_spans=2)
        receiver.answer = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
        assert sender.send(Signal.TRACES, b"", 5) == 2
        assert [signal for signal, _ in receiver.bodies] == ["logs", "traces"]
        assert {each["api-key"] for each in receiver.headers} == {"s3cret"}
        sender.close()


@pytest.mark.attack("OTLP collector: redirect, long answer, no answer, lies")
def test_a_hostile_collector_gets_nothing_further() -> None:
    """A redirect is not followed, so that the key goes nowhere else; no answer is read to the end
    that is too long, none is waited for too long, none is believed that is not OTLP's.
    """
    with http_receiver() as receiver, http_receiver() as elsewhere:
        sender = HttpSender(receiver.address, SECRET)
        receiver.status, receiver.location = 307, f"{elsewhere.address}/v1/traces"
        with pytest.raises(ExportError, match="status 307") as told:
            sender.send(Signal.TRACES, b"", 5)
        assert not told.value.may_retry
        assert elsewhere.bodies == []
        receiver.status, receiver.answer = 200, b"x" * 200_000
        with pytest.raises(ExportError, match="too long"):
            sender.send(Signal.TRACES, b"", 5)
        receiver.answer = b"\xff\xff"
        with pytest.raises(ExportError, match="not OTLP"):
            sender.send(Signal.TRACES, b"", 5)
        receiver.status, receiver.answer = 503, b""
        with pytest.raises(ExportError) as away:
            sender.send(Signal.TRACES, b"", 5)
        assert away.value.may_retry
        receiver.hold.clear()
        with pytest.raises(ExportError) as late:
            sender.send(Signal.TRACES, b"", 0.2)
        assert late.value.may_retry


def test_grpc_carries_the_message_and_the_headers() -> None:
    """As by HTTP; nobody there is told as what may come back."""
    with grpc_receiver() as receiver:
        sender = grpc_sender(receiver.address, SECRET)
        for signal in Signal:
            assert sender.send(signal, b"", 30) == 0
        assert [signal for signal, _ in receiver.bodies] == [each.value for each in Signal]
        assert {each["api-key"] for each in receiver.headers} == {"s3cret"}
        sender.close()
    gone = grpc_sender(receiver.address, ())
    with pytest.raises(ExportError) as away:
        gone.send(Signal.TRACES, b"", 5)
    assert away.value.may_retry
    gone.close()
