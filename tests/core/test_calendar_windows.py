"""Days and months of time zones, and limits that count by them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.answers import rate_limit
from authz.core.calendar_windows import SPANS, Calendar, CalendarUnit
from authz.core.decision import BearerRequest, PendingDecision, authorize
from authz.core.identity_cache import IdentityCache
from authz.core.limits import Limit, Per, WindowState, bucket_id, take, takes_of
from authz.core.policy import Policy, Rule
from tests.support.values import ISSUER, principal, request, server

HOUR = 3600
ZONES = sorted(available_timezones())
units = st.sampled_from(CalendarUnit)
moments = st.floats(1_600_000_000, 2_800_000_000)


def calendar(unit: CalendarUnit, zone: str) -> Calendar:
    return Calendar(unit, ZoneInfo(zone), zone)


BERLIN = calendar(CalendarUnit.DAY, "Europe/Berlin")


def daily(quota: int = 5, of: Calendar = BERLIN, cost: int = 1) -> Limit:
    return Limit("daily", Per.USER, quota, SPANS[of.unit], cost, calendar=of)


def moment(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@given(zone=st.sampled_from(ZONES), unit=units, now=moments)
def test_periods_follow_each_other(zone: str, unit: CalendarUnit, now: float) -> None:
    """A moment is in one period, and at its end the next one begins; each is an hour shorter than
    its span at least, so that no bucket forgets anything in it, be workers' clocks an hour apart.
    """
    one = calendar(unit, zone)
    period = one.period(now)
    ends = period.ends / 1000
    following = one.period(ends)

    assert now < ends
    assert one.period(ends - 0.001) == period
    assert following.begins > period.begins
    assert following.ends > period.ends
    assert following.ends / 1000 - ends <= SPANS[unit] - HOUR
    assert ends - now <= SPANS[unit] - HOUR


@pytest.mark.parametrize("zone", ZONES)
def test_the_days_of_a_year_tile_it(zone: str) -> None:
    """Every date once, whatever the zone does with its clocks; months begin with a day."""
    days, months = (calendar(unit, zone) for unit in CalendarUnit)
    now = moment("2026-01-01T12:00", zone)
    seen = list[str]()
    ends = set[int]()
    while len(seen) < 366:
        period = days.period(now)
        seen.append(period.begins)
        ends.add(period.ends)
        now = period.ends / 1000
    assert len(set(seen)) == 366
    assert seen == sorted(seen)
    month = months.period(moment("2026-02-10T12:00", zone))
    assert month.begins == "2026-02-01"
    assert month.ends in ends


@pytest.mark.parametrize(
    ("zone", "now", "begins", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T12:00", "2026-03-29", 23),  # clocks go ahead
        ("Europe/Berlin", "2026-10-25T12:00", "2026-10-25", 25),  # and back
        ("Antarctica/Troll", "2026-10-25T12:00", "2026-10-25", 26),
        ("Australia/Lord_Howe", "2026-10-04T12:00", "2026-10-04", 23.5),
        ("Africa/Cairo", "2026-04-24T12:00", "2026-04-24", 23),  # there is no midnight
        ("America/Havana", "2026-11-01T12:00", "2026-11-01", 25),  # there are two
        ("America/Nuuk", "2026-10-24T12:00", "2026-10-24", 25),  # the day before comes back
        ("Asia/Kathmandu", "2026-02-28T12:00", "2026-02-28", 24),
    ],
)
def test_days_on_which_clocks_change(zone: str, now: str, begins: str, hours: float) -> None:
    """A day is as long as it is there."""
    one = calendar(CalendarUnit.DAY, zone)
    period, before = one.period(moment(now, zone)), one.period(moment(now, zone) - 24 * HOUR)

    assert period.begins == begins
    assert (period.ends - before.ends) / 3_600_000 == hours


def test_a_clock_that_goes_back_over_midnight_begins_no_day_again() -> None:
    """St. John's until 2011: at 00:01 it was 23:01 of the day before once more."""
    one = calendar(CalendarUnit.DAY, "America/St_Johns")
    midnight = moment("2010-11-07T00:00", "America/St_Johns")
    found = [one.period(midnight + minutes * 60).begins for minutes in (-1, 0, 1, 30, 61, 120)]

    assert found == ["2010-11-06", *["2010-11-07"] * 5]


def test_months_end() -> None:
    """In February, in a leap year, and at the turn of the year."""
    one = calendar(CalendarUnit.MONTH, "Europe/Berlin")
    for now, begins, ends in (
        ("2026-02-28T23:59", "2026-02-01", "2026-03-01T00:00"),
        ("2028-02-29T23:59", "2028-02-01", "2028-03-01T00:00"),
        ("2026-12-31T23:59", "2026-12-01", "2027-01-01T00:00"),
        ("2026-03-01T00:00", "2026-03-01", "2026-04-01T00:00"),
    ):
        assert one.period(moment(now)) == (begins, int(moment(ends) * 1000))


gaps = st.one_of(st.integers(0, 6 * HOUR), st.sampled_from([0, 1, HOUR, 23 * HOUR, 25 * HOUR]))


@given(
    trace=st.lists(st.tuples(gaps, st.integers(1, 3)), min_size=1, max_size=60),
    zone=st.sampled_from(ZONES),
    unit=units,
    begin=moments,
    apart=st.integers(-HOUR, HOUR),
)
@pytest.mark.attack("calendar-quota")
def test_a_period_admits_exactly_its_quota(
    trace: Sequence[tuple[int, int]], zone: str, unit: CalendarUnit, begin: float, apart: int
) -> None:
    """What fits into the quota of its day or month passes and nothing else does, and Retry-After is
    the end of that: with Redis' clock up to an hour from ours, too.
    """
    states, now = dict[str, WindowState](), int(begin)
    one = calendar(unit, zone)
    spent = dict[str, int]()
    for gap, cost in trace:
        now += gap
        period = one.period(now)
        redis = (now + apart) * 1000
        takes = takes_of(daily(5, one, cost), principal(), "", now)
        changed, outcome = take(states, takes, redis)
        states.update(changed)
        fits = spent.get(period.begins, 0) + cost <= 5

        assert (outcome.retry_after == 0) == fits
        (quota,) = outcome.quotas
        if fits:
            spent[period.begins] = spent.get(period.begins, 0) + cost
        else:
            assert outcome.retry_after == max(1, -(-(period.ends - redis) // 1000))
        assert quota.remaining == 5 - spent.get(period.begins, 0)
        if quota.remaining < 5:
            assert quota.reset == max(1, -(-(period.ends - redis) // 1000))


def test_a_day_shares_no_bucket() -> None:
    """Neither with another day, zone or unit, nor with the same limit that slides."""
    noon = moment("2026-05-01T12:00")
    limits = [
        daily(),
        daily(of=calendar(CalendarUnit.DAY, "Europe/Paris")),
        replace(daily(), calendar=calendar(CalendarUnit.MONTH, "Europe/Berlin")),
    ]
    found = [takes_of(each, principal(), "", noon)[0].bucket for each in limits]
    found.append(takes_of(limits[0], principal(), "", noon + 24 * HOUR)[0].bucket)
    found.append(bucket_id(replace(daily(), calendar=None), principal(), ""))

    assert len(set(found)) == 5
    assert takes_of(daily(), principal(), "", noon + HOUR)[0].bucket == found[0]


@pytest.mark.attack("calendar-quota")
def test_a_cached_decision_asks_for_the_day_that_it_is() -> None:
    """What is cached per token ends with the day, whatever it is cached for."""
    one = server(Rule(limits=(daily(),)))
    policy = Policy(ISSUER, servers=MappingProxyType({"files": one}))
    who, cache = principal(expires_at=2**40), IdentityCache()

    def bucket(now: float, cached: IdentityCache | None) -> str:
        pending = authorize(
            BearerRequest(one, request(method="GET"), "t"), who, policy, now, cached
        )
        assert isinstance(pending, PendingDecision)
        return pending.query.takes[0].bucket

    times = [moment(f"2026-05-0{day}T{hour}") for day in (1, 2, 1) for hour in ("00:00", "23:59")]
    assert [bucket(now, cache) for now in times] == [bucket(now, None) for now in times]
    assert len({bucket(now, cache) for now in times}) == 2


def test_a_day_is_told_without_a_length() -> None:
    """`w` is optional (draft-ietf-httpapi-ratelimit-headers-10), and a day has no one length."""
    _, outcome = take({}, takes_of(daily(), principal(), "", moment("2026-03-29T00:00")), 0)
    told = dict(rate_limit(outcome.quotas))

    assert told["ratelimit-policy"] == '"daily";q=5'
