"""Days and months of a time zone, as windows of limits.

Invariant: the periods of a calendar follow each other without a gap, whatever its zone does with
its clocks, and none is within an hour of its span (tests/core/test_calendar_windows.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple


class CalendarUnit(Enum):
    """Name how long the periods of a calendar are."""

    DAY = "day"
    MONTH = "month"


# Seconds that a bucket counts, longer than any period: some days have 26 hours, and clocks of
# workers differ. A bucket is one period's, so that what is remembered longer is nobody's.
SPANS: Final[Mapping[CalendarUnit, int]] = MappingProxyType(
    {CalendarUnit.DAY: 30 * 3600, CalendarUnit.MONTH: 32 * 86_400}
)


class Period(NamedTuple):
    """One day or month: the date on which it begins, and its end in ms since the epoch."""

    begins: str
    ends: int


@dataclass(frozen=True, slots=True)
class Calendar:
    """Divide time into the days or months of a zone.

    Attributes:
        unit: which.
        zone: its rules.
        name: of the zone (IANA).
    """

    unit: CalendarUnit
    zone: tzinfo
    name: str

    def __str__(self) -> str:
        """Return it as names of limits have it."""
        return f"{self.unit.value}@{self.name}"

    def period(self, now: float) -> Period:
        """Return the period of a moment, in seconds since the epoch."""
        first = self._first(datetime.fromtimestamp(now, self.zone).date())
        # Where clocks go back over midnight, a date comes back after the next one has begun.
        while self._begin(first) > now:
            first = self._first(first - timedelta(days=1))
        after = self._next(first)
        while self._begin(after) <= now:
            first, after = after, self._next(after)
        return Period(first.isoformat(), int(self._begin(after) * 1000))

    def _first(self, day: date) -> date:
        return day if self.unit is CalendarUnit.DAY else day.replace(day=1)

    def _next(self, first: date) -> date:
        if self.unit is CalendarUnit.DAY:
            return first + timedelta(days=1)
        return (first + timedelta(days=31)).replace(day=1)

    def _begin(self, day: date) -> float:
        """Return the moment of the first midnight of a date; where there is none, of the jump."""
        # PEP 495: of an ambiguous time the first, of a missing one by the offset before.
        return datetime.combine(day, time(), self.zone).timestamp()
