"""What carries OTLP's messages, against receivers that behave and others."""

import asyncio
import threading
from functools import partial

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from authz.telemetry.otlp.senders import ExportError, HttpSender, Signal, grpc_sender
from tests.support.listening import listening
from tests.support.otlp_receiver import grpc_receiver, http_receiver
from tests.support.watched_network import flood

SECRET = (("api-key", "s3cret"),)


def test_http_carries_the_message_and_the_headers() -> None:
    """By the path of the signal, compressed; what was rejected is told."""
    with http_receiver() as receiver:
        sender = HttpSender(receiver.address, SECRET)
        assert sender.send(Signal.LOGS, b"", 60) == 0
        partial = ExportTracePartialSuccess(rejected_spans=2)
        receiver.answer = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
        assert sender.send(Signal.TRACES, b"", 60) == 2
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
            sender.send(Signal.TRACES, b"", 60)
        assert not told.value.may_retry
        assert elsewhere.bodies == []
        receiver.status, receiver.answer = 200, b"x" * 200_000
        with pytest.raises(ExportError, match="too long"):
            sender.send(Signal.TRACES, b"", 60)
        receiver.answer = b"\xff\xff"
        with pytest.raises(ExportError, match="not OTLP"):
            sender.send(Signal.TRACES, b"", 60)
        receiver.status, receiver.answer = 503, b""
        with pytest.raises(ExportError) as away:
            sender.send(Signal.TRACES, b"", 60)
        assert away.value.may_retry
        receiver.hold.clear()
        with pytest.raises(ExportError) as late:
            sender.send(Signal.TRACES, b"", 0.2)
        assert late.value.may_retry
        sender.close()


@pytest.mark.attack("hostile-host")
@pytest.mark.parametrize(("kind", "why"), [("interim", "RemoteProtocol"), ("drip", "in time")])
def test_an_answer_without_an_end_holds_nobody(kind: str, why: str) -> None:
    """Interim responses for ever, or a header field a byte at a time: the time is for all of it."""
    ended = threading.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while not ended.is_set():
            writer.write(b"x")
            await asyncio.sleep(0.05)

    async def scene() -> None:
        async with listening(drip if kind == "drip" else partial(flood, kind)) as port:
            await asyncio.to_thread(ask, port)

    def ask(port: int) -> None:
        sender = HttpSender(f"http://127.0.0.1:{port}", SECRET)
        with pytest.raises(ExportError, match=why):
            sender.send(Signal.TRACES, b"", 0.5 if kind == "drip" else 60)
        sender.close()
        ended.set()

    asyncio.run(scene())


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
        gone.send(Signal.TRACES, b"", 60)
    assert away.value.may_retry
    gone.close()
