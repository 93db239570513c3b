"""The pure take: the window's law, tried on every trace that hypothesis can think of."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.core.limits import (
    MAX_UNITS,
    SLOTS,
    Limit,
    Per,
    Take,
    TakeOutcome,
    WindowState,
    advance,
    charges,
    take,
)
from tests.support.compiled import interpreted

START = 1_800_000_000_000  # milliseconds: a moment at the beginning of a slot of any test window
WINDOW = 10  # seconds: slots of one second
SLOT = 1000
FULL = (WINDOW + 1) * SLOT


def limit(quota: int = 5, window: int = WINDOW, cost: int = 1) -> Limit:
    return Limit("test", Per.USER, quota, window, cost)


class Bucket:
    """Drive one bucket (or several) as a back end does: store what take returns."""

    def __init__(self) -> None:
        self.states: dict[str, WindowState] = {}

    def take(self, now: int, *takes: Take) -> TakeOutcome:
        changed, outcome = take(self.states, takes, now)
        self.states.update(changed)
        return outcome


def most_in_a_window(admitted: Sequence[tuple[int, int]], window: int) -> int:
    """Return the most units in any closed period of that length, by brute force."""
    return max(
        (
            sum(cost for moment, cost in admitted if begin <= moment <= begin + window)
            for begin, _ in admitted
        ),
        default=0,
    )


costs = st.integers(1, 4)
quotas = st.integers(4, 9)
# Gaps that like edges: within a slot, around one, around the window, and beyond everything.
gaps = st.one_of(
    st.integers(0, 1500),
    st.sampled_from([0, 1, 999, 1000, 1001, 9_999, 10_000, 10_001, 10_999, 11_000, 11_001]),
    st.integers(0, 30_000),
)
traces = st.lists(st.tuples(gaps, costs), min_size=1, max_size=60)


@given(trace=traces, quota=quotas, begin=st.integers(0, 2 * SLOT))
def test_no_window_anywhere_admits_more_than_the_quota(
    trace: list[tuple[int, int]], quota: int, begin: int
) -> None:
    """In no period of a window's length, wherever it begins, is more than the quota admitted."""
    bucket, now, admitted = Bucket(), START + begin, []
    for gap, cost in trace:
        now += gap
        if not bucket.take(now, Take("b", limit(quota, cost=cost))).retry_after:
            admitted.append((now, cost))

    assert most_in_a_window(admitted, WINDOW * SLOT) <= quota


@given(trace=traces, quota=quotas, begin=st.integers(0, 2 * SLOT))
def test_what_the_last_window_and_slot_have_room_for_is_admitted(
    trace: list[tuple[int, int]], quota: int, begin: int
) -> None:
    """The window's price is one slot at most: what fits into the last window and slot passes."""
    bucket, now, admitted = Bucket(), START + begin, list[tuple[int, int]]()
    for gap, cost in trace:
        now += gap
        recent = sum(units for moment, units in admitted if moment > now - FULL)
        passed = not bucket.take(now, Take("b", limit(quota, cost=cost))).retry_after
        if passed:
            admitted.append((now, cost))

        assert passed or recent + cost > quota


@given(trace=traces, quota=quotas, steps=st.lists(st.integers(0, 40_000), max_size=60))
@pytest.mark.attack("clock-back")
def test_a_clock_that_steps_back_admits_no_more(
    trace: list[tuple[int, int]], quota: int, steps: list[int]
) -> None:
    """However often Redis' clock steps back, real time sees no more than a quota in a window."""
    bucket, real, clock, admitted = Bucket(), START, START, []
    for index, (gap, cost) in enumerate(trace):
        real += gap
        clock += gap - (steps[index] if index < len(steps) else 0)
        if not bucket.take(clock, Take("b", limit(quota, cost=cost))).retry_after:
            admitted.append((real, cost))

    assert most_in_a_window(admitted, WINDOW * SLOT) <= quota


@given(back=st.integers(1, 10**9), refusals=st.lists(st.integers(0, 2000), max_size=5))
@pytest.mark.attack("clock-back")
def test_a_clock_that_steps_back_locks_nobody_out(back: int, refusals: list[int]) -> None:
    """A full bucket opens a window and a slot after the step at the latest, asked or not."""
    bucket, one = Bucket(), Take("b", limit(2, cost=2))
    bucket.take(START, one)
    now = START - back
    first = bucket.take(now, one)
    for gap in refusals:
        bucket.take(now + gap, one)

    assert first.retry_after * 1000 <= FULL
    assert bucket.take(now + FULL, one).retry_after == 0


@given(
    trace=traces,
    quota=quotas,
    other=st.integers(1, 3),
    begin=st.integers(0, 2 * SLOT),
)
def test_retry_after_is_true(
    trace: list[tuple[int, int]], quota: int, other: int, begin: int
) -> None:
    """At retry_after the same takes pass, and a second earlier they do not."""
    bucket, now = Bucket(), START + begin
    for gap, cost in trace:
        now += gap
        takes = (Take("a", limit(quota, cost=cost)), Take("b", limit(other, window=3 * WINDOW)))
        before = dict(bucket.states)
        outcome = bucket.take(now, *takes)
        if not outcome.retry_after:
            continue

        assert outcome.retry_after >= 1
        _, later = take(before, takes, now + outcome.retry_after * 1000)
        assert later.retry_after == 0
        _, early = take(before, takes, now + (outcome.retry_after - 1) * 1000)
        assert early.retry_after > 0


@given(trace=traces, quota=quotas)
def test_reset_is_true(trace: list[tuple[int, int]], quota: int) -> None:
    """At reset there is more left than before, a second earlier there is not; 0 means untouched."""
    bucket, now = Bucket(), START
    for gap, cost in trace:
        now += gap
        (quota_now,) = bucket.take(now, Take("b", limit(quota, cost=cost))).quotas
        if quota_now.reset == 0:
            assert quota_now.remaining == quota
            continue
        at_reset = left(bucket.states["b"], quota, now + quota_now.reset * 1000)
        just_before = left(bucket.states["b"], quota, now + (quota_now.reset - 1) * 1000)

        assert at_reset > quota_now.remaining
        assert just_before == quota_now.remaining


def left(state: WindowState, quota: int, now: int) -> int:
    return quota - sum(advance(state, limit(quota), now).counts)


def test_the_edges_of_the_window_to_the_millisecond() -> None:
    """A unit comes back when its slot's last moment is a window ago: not a millisecond before."""
    bucket, one = Bucket(), Take("b", limit(1))
    bucket.take(START + 999, one)

    assert bucket.take(START + FULL - 1, one).retry_after == 1
    assert bucket.take(START + FULL, one).retry_after == 0


@pytest.mark.attack("two-limits-one-exhausted")
def test_refused_takes_charge_nothing() -> None:
    """Where one limit is exhausted, the others are not charged."""
    bucket = Bucket()
    small, large = Take("small", limit(1)), Take("large", limit(9))
    bucket.take(START, small)
    before = dict(bucket.states)

    outcome = bucket.take(START, large, small)

    assert outcome.retry_after == 11
    assert [quota.exceeded for quota in outcome.quotas] == [False, True]
    assert [quota.remaining for quota in outcome.quotas] == [9, 0]
    assert [quota.reset for quota in outcome.quotas] == [0, 11]
    assert bucket.states == before


def test_the_longest_wait_of_several_limits_counts() -> None:
    """Retry-After is the time at which all of the limits have room."""
    bucket = Bucket()
    short, long = Take("short", limit(1)), Take("long", limit(1, window=60))
    bucket.take(START, short, long)

    assert bucket.take(START, short, long).retry_after == 66


def test_two_takes_on_one_bucket_are_charged_their_sum() -> None:
    """A bucket named twice in a query is charged twice, or not at all."""
    bucket = Bucket()
    takes = (Take("b", limit(5, cost=2)), Take("b", limit(5, cost=1)))

    assert [quota.remaining for quota in bucket.take(START, *takes).quotas] == [2, 2]
    refused = bucket.take(START, *takes)
    assert refused.retry_after == 11
    assert [quota.remaining for quota in refused.quotas] == [2, 2]


def test_takes_that_no_empty_bucket_holds_never_pass() -> None:
    """Several takes on one bucket that exceed its quota together are always refused."""
    bucket = Bucket()
    takes = (Take("b", limit(5, cost=3)), Take("b", limit(5, cost=3)))

    outcome = bucket.take(START, *takes)

    assert outcome.retry_after == 11
    assert [quota.remaining for quota in outcome.quotas] == [5, 5]
    assert bucket.states == {}


def test_two_limits_in_one_bucket_are_a_mistake() -> None:
    """One bucket has one quota and one window."""
    with pytest.raises(ValueError, match="two limits"):
        charges((Take("b", limit(5)), Take("b", limit(6))))


def test_no_takes_pass() -> None:
    """Without limits there is nothing to exceed."""
    assert take({}, (), START) == ({}, TakeOutcome((), 0))


def test_a_state_that_holds_more_than_its_quota_is_full() -> None:
    """A state that somebody else wrote cannot make a negative remainder or overflow a count."""
    stuffed = WindowState(START // SLOT, (MAX_UNITS,) * (SLOTS + 1))
    _, outcome = take({"b": stuffed}, (Take("b", limit(5)),), START)

    assert outcome.quotas[0].remaining == 0
    assert outcome.retry_after == 11
    assert advance(stuffed, limit(5), START - SLOT).counts == (5, *(0,) * SLOTS)


@given(trace=traces, quota=quotas, shadow=quotas, begin=st.integers(0, 2 * SLOT))
@pytest.mark.attack("shadow-limit-refuses")
def test_a_limit_in_shadow_changes_nothing_for_others(
    trace: list[tuple[int, int]], quota: int, shadow: int, begin: int
) -> None:
    """With it the same pass, the same is charged and the same Retry-After is told as without; and
    of what passes it tells what it would refuse by itself, of which it counts nothing.
    """
    bucket, plain, alone, now = Bucket(), Bucket(), Bucket(), START + begin
    for gap, cost in trace:
        now += gap
        enforced = Take("b", limit(quota, cost=cost))
        # Of four units at most, so that every quota has room for one.
        trial = Take("s", limit(shadow, 3 * WINDOW))
        both = bucket.take(now, replace(trial, limit=replace(trial.limit, shadow=True)), enforced)
        without = plain.take(now, enforced)

        assert both.quotas[1:] == without.quotas
        assert both.retry_after == without.retry_after
        assert bucket.states["b"] == plain.states["b"]
        if not both.retry_after:
            refused = alone.take(now, trial).retry_after > 0
            assert both.quotas[0].exceeded == refused
            assert sum(bucket.states["s"].counts) == sum(alone.states["s"].counts)


def test_one_bucket_is_in_shadow_or_not() -> None:
    """A limit that is enforced and one in shadow are never one charge."""
    one = Take("b", limit())
    with pytest.raises(ValueError, match="two limits"):
        charges((one, replace(one, limit=replace(one.limit, shadow=True))))


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param({"cost": 0}, id="cost-0"),
        pytest.param({"cost": -1}, id="cost-negative"),
        pytest.param({"cost": float("nan")}, id="cost-nan"),
        pytest.param({"cost": 1.5}, id="cost-float"),
        # Compiled, a true is the integer 1 before anybody can look.
        pytest.param({"cost": True}, id="cost-true", marks=interpreted),
        pytest.param({"cost": "1"}, id="cost-text"),
        pytest.param({"cost": 6}, id="cost-over-quota"),
        pytest.param({"quota": 0}, id="quota-0"),
        pytest.param({"quota": MAX_UNITS + 1}, id="quota-over-32-bits"),
        pytest.param({"window": 0}, id="window-0"),
        pytest.param({"window": MAX_UNITS + 1}, id="window-over-32-bits"),
    ],
)
@pytest.mark.attack("odd-cost")
def test_a_limit_that_cannot_be_counted_cannot_be_made(numbers: dict[str, Any]) -> None:
    """Zero, negative, fractional and NaN numbers are refused where a limit is built."""
    with pytest.raises((ValueError, TypeError), match=r"cost, quota|int object expected"):
        replace(limit(), **numbers)


@given(quota=st.integers(1, MAX_UNITS), window=st.integers(1, MAX_UNITS))
@example(quota=MAX_UNITS, window=MAX_UNITS)
def test_any_limit_that_can_be_made_can_be_used_up(quota: int, window: int) -> None:
    """The largest quota over the longest window counts as exactly as a small one."""
    bucket, all_of_it = Bucket(), Take("b", limit(quota, window, cost=quota))

    assert bucket.take(START, all_of_it).quotas[0].remaining == 0
    refused = bucket.take(START, all_of_it)
    assert bucket.take(START + refused.retry_after * 1000, all_of_it).retry_after == 0
