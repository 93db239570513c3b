"""Traces: what is under way, with its stages, and which of it is kept (W3C Trace Context, level 1).

A trace is recorded as a few numbers, and becomes spans only where it is kept, once it has ended:
then it is known whether it was refused or slow.

Invariant: a stranger's `traceparent` gives ids, never the decision to keep a trace; and no more is
kept in a second than `at_most`, refusals and others apart (tests/telemetry/test_traces.py).
"""

import random
import re
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from time import perf_counter
from typing import Final, final

Attribute = str | int | float | bool
Attributes = tuple[tuple[str, Attribute], ...]

# Section 3.2.2: two hex digits each of version and flags; ff is no version, and 0 is no id.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z"
)
_LONGEST: Final = 512  # characters; of a later version more may follow
_SAMPLED: Final = 1
_MOST_CALLS: Final = 16  # of one trace


class SpanKind(Enum):
    """The kinds of spans (OpenTelemetry)."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class Kept(Enum):
    """Why a trace is kept."""

    SAMPLE = "sample"
    PARENT = "parent"
    REFUSAL = "refusal"
    SLOW = "slow"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SpanContext:
    """A span elsewhere, as a `traceparent` names it.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        sampled: whether who sent it keeps the trace.
    """

    trace_id: str
    span_id: str
    sampled: bool


def read_traceparent(text: str) -> SpanContext | None:
    """Return what a `traceparent` says; None where it is none (section 3.2.2.3)."""
    if len(text) > _LONGEST:
        return None
    found = _TRACEPARENT.match(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "00" and rest is not None:
        return None
    return SpanContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


@dataclass(frozen=True, slots=True)
class Span:
    """One span, finished.

    Attributes:
        name: of a closed set.
        trace_id, span_id: hex digits.
        parent_id: of the span above; empty for none.
        kind: of OpenTelemetry's.
        began, ended: seconds since the epoch.
        attributes: names and values.
        error: what went wrong, of a closed set; empty where nothing did.
        is_parent_elsewhere: whether the span above was told by another process.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: SpanKind
    began: float
    ended: float
    attributes: Attributes = ()
    error: str = ""
    is_parent_elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class OutgoingCall:
    """A call to another service, finished.

    Attributes:
        name: of the span.
        began, ended: seconds of `time.perf_counter`.
        attributes: names and values.
        error: what went wrong, of a closed set; empty where nothing did.
    """

    name: str
    began: float
    ended: float
    attributes: Attributes
    error: str


@dataclass(frozen=True, slots=True)
class KeepOptions:
    """Which traces are kept.

    Attributes:
        sample: the share, 0 to 1, of those that nobody above decided about.
        refusals: whether every refusal is.
        slower_than: seconds from which on a slow one is; None for no such rule.
        at_most: how many in a second, refusals and others apart.
        propagates: whether the upstream is told of the trace where Envoy does not.
        envoy_traces: whether our Envoy writes its own context over its clients'.
    """

    sample: float = 0.01
    refusals: bool = True
    slower_than: float | None = 0.1
    at_most: float = 100.0
    propagates: bool = False
    envoy_traces: bool = False


def _trace_id() -> str:
    # A third of the time of a format string.
    return random.getrandbits(128).to_bytes(16, "big").hex()


def _since_epoch() -> float:
    """Return what makes a moment of `time.perf_counter` seconds since the epoch."""
    return time.time() - perf_counter()


def _span_id() -> str:
    return random.getrandbits(64).to_bytes(8, "big").hex()


@final
class Trace:
    """Record one check or request while it is under way; of one task.

    Moments are seconds of `time.perf_counter`. Nearly every trace is thrown away, so beginning one
    and entering a stage is a store of a number: no list, no tuple, no second clock.

    Attributes:
        parent: the span above; None where nobody named one.
        is_parent_trusted: whether Envoy said so, not its client.
        known_id: its trace's id, where anybody has named it or asked for it; else empty.
        started: when it began.
        read_at, token_at, rules_at, confirm_at, ledger_at, answer_at, step_up_at: when that stage
            began, in the order in which they follow one another; 0 for one that did not.
        is_ended: whether it is over, so that nothing is added any more.
        chance: whether it was chosen; None while that was not asked.
    """

    __slots__ = (
        "_calls",
        "_span_id",
        "answer_at",
        "chance",
        "confirm_at",
        "is_ended",
        "is_parent_trusted",
        "known_id",
        "ledger_at",
        "parent",
        "read_at",
        "rules_at",
        "started",
        "step_up_at",
        "token_at",
    )

    def __init__(self, parent: SpanContext | None, started: float) -> None:
        """Begin."""
        self.parent = parent
        self.is_parent_trusted = parent is not None
        self.known_id = "" if parent is None else parent.trace_id
        self._span_id = ""
        self.started = started
        self.read_at = 0.0
        self.token_at = 0.0
        self.rules_at = 0.0
        self.confirm_at = 0.0
        self.ledger_at = 0.0
        self.answer_at = 0.0
        self.step_up_at = 0.0
        self._calls: list[OutgoingCall] | None = None  # most make none
        self.is_ended = False
        self.chance: bool | None = None

    @property
    def stages(self) -> list[tuple[str, float]]:
        """Return name and beginning of each stage; one ends where the next begins."""
        entered = (
            ("read", self.read_at),
            ("token", self.token_at),
            ("rules", self.rules_at),
            ("confirm", self.confirm_at),
            ("ledger", self.ledger_at),
            ("answer", self.answer_at),
            ("step_up", self.step_up_at),
        )
        return [(name, began) for name, began in entered if began]

    @property
    def calls(self) -> Sequence[OutgoingCall]:
        """Return what was asked of other services meanwhile."""
        return () if self._calls is None else self._calls

    @property
    def trace_id(self) -> str:
        """Return the id of the trace: made where somebody asks for it."""
        if not self.known_id:
            self.known_id = _trace_id()
        return self.known_id

    @property
    def span_id(self) -> str:
        """Return the id of the span that this becomes: made where somebody asks for it."""
        if not self._span_id:
            self._span_id = _span_id()
        return self._span_id

    def adopt(self, traceparent: str) -> None:
        """Take the ids of the client's own context, where Envoy named none."""
        if self.parent is None and traceparent:
            self.parent = read_traceparent(traceparent)
            if self.parent is not None:
                self.known_id = self.parent.trace_id

    def add(self, call: OutgoingCall) -> bool:
        """Add a call that has ended; tell whether it was taken, or comes too late."""
        if self.is_ended:
            return False
        if self._calls is None:
            self._calls = []
        if len(self._calls) >= _MOST_CALLS:
            return False
        self._calls.append(call)
        return True


# What is under way in this task, for what asks other services on its behalf.
CURRENT: Final[ContextVar[Trace | None]] = ContextVar("trace", default=None)


class Allowance:
    """Allow so many in a second, and at most a second's worth at once."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._most = max(1.0, rate)
        self._clock = clock
        self._left = self._most
        self._at = clock()

    def take(self) -> bool:
        """Tell whether one more is allowed, and count it."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


@final
class Tracer:
    """Begin traces, and pass on those that are kept."""

    def __init__(
        self,
        options: KeepOptions,
        export: Callable[[tuple[Span, ...]], None],
        on_dropped: Callable[[], None],
        *,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what is kept.

        Args:
            options: which traces are.
            export: gets the spans of one; returns at once, raises nothing.
            on_dropped: called for each that would have been kept, but for `at_most`.
            chance: a number from 0 to 1.
            clock: seconds that never go back.
        """
        self.propagates = options.propagates
        self.envoy_traces = options.envoy_traces
        self._options = options
        self._slower_than = float("inf") if options.slower_than is None else options.slower_than
        self._export = export
        self._on_dropped = on_dropped
        self._chance = chance
        self._refusals = Allowance(options.at_most, clock)
        self._others = Allowance(options.at_most, clock)

    def begin(self, traceparent: str, started: float) -> Trace:
        """Begin a trace.

        Args:
            traceparent: what Envoy said of its own span, or empty.
            started: the present moment of `time.perf_counter`.
        """
        parent = read_traceparent(traceparent) if traceparent else None
        return Trace(parent, started)

    def is_sampled(self, trace: Trace) -> bool:
        """Tell whether a trace is kept whatever becomes of it.

        Envoy's own decision holds; without one, chance decides, not the ids, which a stranger may
        have chosen.
        """
        if trace.chance is None:
            if trace.is_parent_trusted and trace.parent is not None:
                trace.chance = trace.parent.sampled
            else:
                trace.chance = self._chance() < self._options.sample
        return trace.chance

    def may_keep(self, trace: Trace, seconds: float) -> bool:
        """Tell whether a trace that came to nothing special is kept; ends one that is not."""
        if self.is_sampled(trace) or seconds >= self._slower_than:
            return True
        trace.is_ended = True
        return False

    def traceparent(self, trace: Trace) -> str:
        """Return the header that names a trace's span to the upstream."""
        return f"00-{trace.trace_id}-{trace.span_id}-{'01' if self.is_sampled(trace) else '00'}"

    def why(self, trace: Trace, seconds: float, *, refused: bool, failed: bool) -> Kept | None:
        """End a trace; return why it is kept, or None where it is not."""
        trace.is_ended = True
        kept: Kept | None = None
        if self.is_sampled(trace):
            kept = Kept.PARENT if trace.is_parent_trusted else Kept.SAMPLE
        elif failed:
            kept = Kept.FAILED
        elif refused and self._options.refusals:
            kept = Kept.REFUSAL
        elif seconds >= self._slower_than:
            kept = Kept.SLOW
        if kept is None:
            return None
        allowance = self._refusals if refused else self._others
        if not allowance.take():
            self._on_dropped()
            return None
        return kept

    def finish(
        self, trace: Trace, name: str, seconds: float, attributes: Attributes, error: str
    ) -> None:
        """Pass on the spans of a trace that is kept.

        Args:
            trace: what has ended.
            name: of its own span.
            seconds: how long it took.
            attributes: of its own span.
            error: what went wrong, of a closed set; empty where nothing did.
        """
        offset = _since_epoch()
        began, ended = trace.started + offset, trace.started + seconds
        parent_id = "" if trace.parent is None else trace.parent.span_id
        spans = [
            Span(
                name,
                trace.trace_id,
                trace.span_id,
                parent_id,
                SpanKind.SERVER,
                began,
                ended + offset,
                attributes,
                error,
                is_parent_elsewhere=trace.parent is not None,
            )
        ]
        stages = trace.stages
        for number, (stage, at) in enumerate(stages, 1):
            until = stages[number][1] if number < len(stages) else ended
            spans.append(self._below(trace, stage, at + offset, max(at, until) + offset))
        spans += [self._call(trace, call, offset) for call in trace.calls]
        self._export(tuple(spans))

    def call_alone(self, call: OutgoingCall) -> None:
        """Take a call that belongs to nothing that is under way: a trace of its own."""
        trace = Trace(None, call.began)
        seconds = call.ended - call.began
        if self.why(trace, seconds, refused=False, failed=bool(call.error)) is None:
            return
        offset = _since_epoch()
        self._export(
            (
                Span(
                    call.name,
                    trace.trace_id,
                    trace.span_id,
                    "",
                    SpanKind.CLIENT,
                    call.began + offset,
                    call.ended + offset,
                    call.attributes,
                    call.error,
                ),
            )
        )

    def _below(self, trace: Trace, name: str, began: float, ended: float) -> Span:
        return Span(
            name,
            trace.trace_id,
            _span_id(),
            trace.span_id,
            SpanKind.INTERNAL,
            began,
            ended,
        )

    def _call(self, trace: Trace, call: OutgoingCall, offset: float) -> Span:
        return Span(
            call.name,
            trace.trace_id,
            _span_id(),
            trace.span_id,
            SpanKind.CLIENT,
            call.began + offset,
            call.ended + offset,
            call.attributes,
            call.error,
        )
