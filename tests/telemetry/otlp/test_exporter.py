"""The thread that sends: bounded, counted, in nobody's way."""

import io
import json
import threading
from collections.abc import Callable

import pytest

from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.otlp.exporter import ExportOptions, OtlpExporter
from authz.telemetry.otlp.senders import ExportError, Signal
from authz.telemetry.recorder import Recorder
from authz.telemetry.traces import Span, SpanKind
from tests.support.otlp_receiver import Receiver
from tests.support.service import until

LINE = json.dumps({"time": 1.0, "event": "started"})


def trace() -> tuple[Span, ...]:
    return (Span("authorize", "1" * 32, "2" * 16, "", SpanKind.SERVER, 1.0, 2.0),)


class Collector:
    """A sender that keeps what it gets, or does what it is told in place of that."""

    def __init__(self, instead: Callable[[], int] = lambda: 0) -> None:
        self.receiver = Receiver()
        self.instead = instead
        self.tries = 0
        self.closed = threading.Event()

    def send(self, signal: Signal, message: bytes, seconds: float) -> int:
        self.tries += 1
        rejected = self.instead()
        self.receiver.take(signal.value, message, {})
        return rejected

    def close(self) -> None:
        self.closed.set()


def exporting(collector: Collector, *, metrics: bool = False) -> tuple[OtlpExporter, Recorder]:
    recorder = Recorder(Metrics(), EventLog("json", io.StringIO()))
    options = ExportOptions((("service.name", "authz"),), metrics, 0.05, first_retry=0.01)
    return OtlpExporter(lambda: collector, options, recorder), recorder


def counted(recorder: Recorder, signal: str, why: str) -> float | None:
    return recorder.metrics.registry.get_sample_value(
        "authz_otlp_dropped_total", {"signal": signal, "why": why}
    )


def sent(recorder: Recorder, signal: str) -> float | None:
    return recorder.metrics.registry.get_sample_value("authz_otlp_sent_total", {"signal": signal})


def test_what_waits_at_the_end_is_sent() -> None:
    """And counted, figures among it; every loss stands at 0 from the start."""
    collector = Collector()
    exporter, recorder = exporting(collector, metrics=True)
    for _ in range(200):
        exporter.spans(trace())
        exporter.line(LINE)
    exporter.start()
    exporter.close(30)
    assert len(collector.receiver.spans()) == 200
    assert len(collector.receiver.logs()) == 200
    assert "authz_decisions_total" in collector.receiver.metrics()
    assert sent(recorder, "traces") == sent(recorder, "logs") == 200
    assert collector.closed.is_set()
    for signal in Signal:
        for why in ("rate", "queue", "unreachable", "refused", "end"):
            assert counted(recorder, signal.value, why) == 0


def test_what_is_too_much_is_dropped_and_counted() -> None:
    """Nobody waits, and memory is bounded, while the thread hangs in a collector."""
    held = threading.Event()

    def hang() -> int:
        held.wait(60)
        return 0

    exporter, recorder = exporting(Collector(hang))
    exporter.start()
    for _ in range(10_000):
        exporter.spans(trace())
        exporter.line(LINE)
    assert (counted(recorder, "traces", "queue") or 0) >= 10_000 - 2_048 - 64
    assert (counted(recorder, "logs", "queue") or 0) >= 10_000 - 4_096 - 256
    exporter.close(0.05)  # returns although the thread still hangs
    held.set()
    until(lambda: counted(recorder, "traces", "end") != 0, "the count of what was left")


def test_a_collector_that_is_away_is_tried_again_and_told_once() -> None:
    """What it did not take after some tries is counted; it comes back without help."""
    away = True

    def answer() -> int:
        if away:
            raise ExportError("ConnectError", may_retry=True)
        return 0

    collector = Collector(answer)
    exporter, recorder = exporting(collector)
    exporter.start()
    exporter.spans(trace())
    until(lambda: counted(recorder, "traces", "unreachable") == 1, "the loss")
    assert collector.tries == 5
    away = False
    exporter.spans(trace())
    until(lambda: sent(recorder, "traces") == 1, "what came after")
    exporter.close(30)


@pytest.mark.parametrize("wrong", [RuntimeError, ExportError])
def test_what_is_refused_or_broken_is_not_sent_again(wrong: type[Exception]) -> None:
    """The next message goes on all the same: no answer and no defect ends the thread."""
    collector = Collector()
    outcomes = iter([True, False])

    def answer() -> int:
        if not next(outcomes):
            return 0
        if wrong is ExportError:
            raise ExportError("status 400", may_retry=False)
        raise wrong

    collector.instead = answer
    exporter, recorder = exporting(collector)
    exporter.start()
    exporter.spans(trace())
    until(lambda: collector.tries == 1, "the first")
    exporter.line(LINE)
    until(lambda: sent(recorder, "logs") == 1, "the second")
    exporter.close(30)
    assert collector.tries == 2
    if wrong is ExportError:
        assert counted(recorder, "traces", "refused") == 1


def test_what_a_collector_rejects_is_counted_within_reason() -> None:
    """A partial success counts as loss; a lie about its size counts no more than was sent."""
    exporter, recorder = exporting(Collector(lambda: 2**40))
    exporter.start()
    exporter.spans(trace())
    until(lambda: counted(recorder, "traces", "refused") == 1, "the loss")
    exporter.close(30)
    assert sent(recorder, "traces") == 0
