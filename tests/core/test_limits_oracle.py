"""The library `limits` as an outside oracle: what its exact window says of ours, both ways.

Two limiters that refuse different requests go different ways, so "one admits what the other
admits" is false of any two. True is: what ours admitted, its moving window of the same length
admits when it is shown nothing else; and what its moving window of a window and a slot admitted,
ours admits. Its sliding window counter bounds nothing: it admits up to twice the quota.
"""

import threading
from collections.abc import Sequence
from types import SimpleNamespace

import limits
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

from authz.core.limits import Limit, Per, Take, WindowState, take

WINDOW = 10
START = 1_800_000_000
QUOTA = 5

Trace = Sequence[tuple[float, int]]
# Quarters of a second: exact in binary, so that the oracle's floating-point time is exact too.
traces = st.lists(
    st.tuples(st.integers(0, 60).map(lambda quarters: quarters / 4), st.integers(1, 3)),
    min_size=1,
    max_size=40,
)


class NoTimer:
    """Stand in for the thread that the library starts to clean up, after the real clock."""

    def __init__(self, *_: object) -> None: ...
    def start(self) -> None: ...
    def is_alive(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Give the library a clock of ours."""
    now = SimpleNamespace(seconds=float(START))
    now.time = lambda: now.seconds
    monkeypatch.setattr("limits.storage.memory.time", now)
    monkeypatch.setattr(threading, "Timer", NoTimer)
    return now


def ours(trace: Trace) -> list[tuple[float, int]]:
    """Return what the pure take admits, with absolute times."""
    states, now, admitted = dict[str, WindowState](), float(START), []
    for gap, cost in trace:
        now += gap
        one = Take("b", Limit("test", Per.USER, QUOTA, WINDOW, cost))
        changed, outcome = take(states, (one,), int(now * 1000))
        states.update(changed)
        if not outcome.retry_after:
            admitted.append((now, cost))
    return admitted


def moving(clock: SimpleNamespace, trace: Trace, window: int) -> list[tuple[float, int]]:
    """Return what the library's moving window admits, with absolute times."""
    limiter = MovingWindowRateLimiter(MemoryStorage())
    item, clock.seconds, admitted = limits.RateLimitItemPerSecond(QUOTA, window), START, []
    for gap, cost in trace:
        clock.seconds += gap
        if limiter.hit(item, "b", cost=cost):
            admitted.append((clock.seconds, cost))
    return admitted


def as_gaps(admitted: Trace) -> list[tuple[float, int]]:
    moments = [float(START), *(moment for moment, _ in admitted)]
    return [
        (moment - before, cost) for before, (moment, cost) in zip(moments, admitted, strict=False)
    ]


shared_clock = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(trace=traces)
@shared_clock
def test_an_exact_window_admits_all_that_ours_admitted(
    clock: SimpleNamespace, trace: list[tuple[float, int]]
) -> None:
    """Ours never admits what an exact moving window would refuse of the same history."""
    admitted = ours(trace)

    assert moving(clock, as_gaps(admitted), WINDOW) == admitted


@given(trace=traces)
@shared_clock
def test_ours_admits_all_that_an_exact_window_and_a_slot_admitted(
    clock: SimpleNamespace, trace: list[tuple[float, int]]
) -> None:
    """Ours refuses nothing that an exact moving window one slot longer would have admitted."""
    admitted = moving(clock, trace, WINDOW + 1)

    assert ours(as_gaps(admitted)) == admitted


def test_the_two_counter_approximation_admits_double(clock: SimpleNamespace) -> None:
    """Why not the usual sliding window counter: ten units in a window whose quota is five."""
    item = limits.RateLimitItemPerSecond(QUOTA, WINDOW)
    limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
    # All at the end of one fixed window, and as many as it lets in before the next one ends.
    trace = [(9.75, 1), *[(0.0, 1)] * 4, (0.25, 1), *[(0.25, 1)] * 38]
    clock.seconds, theirs = START, []
    for gap, cost in trace:
        clock.seconds += gap
        if limiter.hit(item, "b", cost=cost):
            theirs.append(clock.seconds)

    assert theirs[-1] - theirs[0] < WINDOW
    assert len(theirs) == 2 * QUOTA
    assert len([moment for moment, _ in ours(trace) if moment <= theirs[0] + WINDOW]) == QUOTA
