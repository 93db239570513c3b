"""A thread that sends what others hand over, in batches.

Invariant: who hands something over never waits and gets no exception; what waits is bounded, and
what is lost is counted, with the cause; the end takes no longer than it is given
(tests/telemetry/otlp/test_exporter.py).
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope

from authz import __version__
from authz.telemetry.metrics import OtlpLoss
from authz.telemetry.otlp import messages
from authz.telemetry.otlp.metric_messages import metrics_request
from authz.telemetry.otlp.senders import ExportError, Sender, Signal
from authz.telemetry.recorder import Recorder
from authz.telemetry.traces import Attributes, Span

Item = TypeVar("Item")
# A trace takes some ten kilobytes at most, a line four.
_MOST_TRACES: Final = 2_048
_MOST_LINES: Final = 4_096
# Of one message. To build one holds the GIL for some milliseconds at most.
_BATCH_TRACES: Final = 64
_BATCH_LINES: Final = 256
_PAUSE: Final = 1.0  # seconds between two messages, where little comes
_TIMEOUT: Final = 5.0  # seconds for one message
_ATTEMPTS: Final = 5
_FIRST_RETRY: Final = 0.5  # seconds, doubled each time


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is sent.

    Attributes:
        resource: who sends.
        metrics: whether the metrics are.
        interval: seconds between two times that they are.
        timeout: seconds for one message.
        first_retry: seconds before a message is sent again, doubled each time.
    """

    resource: Attributes
    metrics: bool = False
    interval: float = 60.0
    timeout: float = _TIMEOUT
    first_retry: float = _FIRST_RETRY


class OtlpExporter:
    """Own the queues and the thread."""

    def __init__(
        self,
        make_sender: Callable[[], Sender],
        options: ExportOptions,
        recorder: Recorder,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take where to send; nothing is sent before `start`.

        Args:
            make_sender: makes what carries the messages; called in the thread.
            options: what is sent.
            recorder: whose metrics are sent, and where losses are counted.
            clock: seconds that never go back.
        """
        self._make_sender = make_sender
        self._options = options
        self._recorder = recorder
        self._clock = clock
        self._traces = deque[tuple[Span, ...]]()
        self._lines = deque[str]()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._end = float("inf")  # when all has to be over
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._resource = messages.resource(options.resource)
        self._scope: InstrumentationScope = messages.scope(__version__)
        self._began = time.time_ns()
        self._fault = ""

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Send what waits, and end; after so many seconds what is left is lost."""
        self._end = self._clock() + seconds
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def spans(self, trace: tuple[Span, ...]) -> None:
        """Take the spans of one trace."""
        if len(self._traces) >= _MOST_TRACES:
            self._lost(Signal.TRACES, OtlpLoss.QUEUE, 1)
            return
        self._traces.append(trace)
        if len(self._traces) == _BATCH_TRACES:
            self._wake.set()

    def line(self, line: str) -> None:
        """Take a line of the log, as JSON."""
        if len(self._lines) >= _MOST_LINES:
            self._lost(Signal.LOGS, OtlpLoss.QUEUE, 1)
            return
        self._lines.append(line)
        if len(self._lines) == _BATCH_LINES:
            self._wake.set()

    def too_many(self) -> None:
        """Count a trace that was not taken, since there are too many."""
        self._lost(Signal.TRACES, OtlpLoss.RATE, 1)

    def _lost(self, signal: Signal, why: OtlpLoss, count: int) -> None:
        if count:
            self._recorder.metrics.otlp_dropped.labels(signal.value, why.value).inc(count)

    def _run(self) -> None:
        try:
            sender = self._make_sender()
        except Exception as error:  # noqa: BLE001 - it must end nothing but the sending
            self._recorder.crash(error)
            return
        next_metrics = self._clock() + self._options.interval
        while not self._stopping.is_set():
            self._wake.wait(_PAUSE)
            self._wake.clear()
            self._guarded(self._send_waiting, sender)
            if self._options.metrics and self._clock() >= next_metrics:
                next_metrics = self._clock() + self._options.interval
                self._guarded(self._send_metrics, sender)
        self._guarded(self._send_waiting, sender)
        if self._options.metrics:
            self._guarded(self._send_metrics, sender)
        self._lost(Signal.TRACES, OtlpLoss.END, len(self._traces))
        self._lost(Signal.LOGS, OtlpLoss.END, len(self._lines))
        with suppress(Exception):
            sender.close()

    def _guarded(self, send: Callable[[Sender], None], sender: Sender) -> None:
        try:
            send(sender)
        except Exception as error:  # noqa: BLE001 - a defect in one message must not end the rest
            self._recorder.crash(error)

    def _send_waiting(self, sender: Sender) -> None:
        """Send what waited when this began; what comes meanwhile is for the next time."""
        for _ in range(-(-len(self._traces) // _BATCH_TRACES)):
            traces = _take(self._traces, _BATCH_TRACES)
            request = messages.trace_request(traces, self._resource, self._scope)
            self._send(sender, Signal.TRACES, request, len(traces))
        for _ in range(-(-len(self._lines) // _BATCH_LINES)):
            lines = _take(self._lines, _BATCH_LINES)
            request = messages.log_request(lines, self._resource, self._scope)
            self._send(sender, Signal.LOGS, request, len(lines))

    def _send_metrics(self, sender: Sender) -> None:
        registry = self._recorder.metrics.registry
        now = time.time_ns()
        request, points = metrics_request(
            registry, self._resource, self._scope, began=self._began, now=now
        )
        self._send(sender, Signal.METRICS, request, points)

    def _send(self, sender: Sender, signal: Signal, message: bytes, count: int) -> None:
        """Send one message, several times where that may help."""
        pause = self._options.first_retry
        for attempt in range(1, _ATTEMPTS + 1):
            left = self._end - self._clock()
            if left <= 0:
                self._lost(signal, OtlpLoss.END, count)
                return
            try:
                rejected = sender.send(signal, message, min(self._options.timeout, left))
            except ExportError as error:
                self._tell(error.detail)
                # The next metrics say all that these say.
                last = attempt == _ATTEMPTS or signal is Signal.METRICS or self._stopping.is_set()
                if last or not error.may_retry:
                    why = OtlpLoss.UNREACHABLE if error.may_retry else OtlpLoss.REFUSED
                    self._lost(signal, why, count)
                    return
                self._stopping.wait(max(pause, error.pause))
                pause *= 2
                continue
            self._tell("")
            self._lost(signal, OtlpLoss.REFUSED, min(rejected, count))
            self._recorder.metrics.otlp_sent.labels(signal.value).inc(max(0, count - rejected))
            return

    def _tell(self, fault: str) -> None:
        """Log what is wrong with the collector, where that changes."""
        if fault != self._fault:
            self._fault = fault
            self._recorder.event("otlp", fault=fault)


def _take(waiting: deque[Item], most: int) -> Sequence[Item]:
    return [waiting.popleft() for _ in range(min(most, len(waiting)))]
