"""Which refusals are records of their own, and which are counted together.

Strangers cost the trail one record a minute for each server and reason, and one person with one
client thirty records a minute: nobody pushes other people's records out with refusals.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from authz.audit.record import Fields

PERIOD: Final = 60.0  # seconds that are counted together
_EACH: Final = 30  # refusals of one person with one client in a period that are told one by one
_PEOPLE: Final = 4096  # and clients, that are told apart in a period
_GROUPS: Final = 1024  # that are counted apart in a period


class RefusedGroup(NamedTuple):
    """Name refusals that are counted together; no subject and client for strangers."""

    server: str
    reason: str
    subject: str = ""
    client: str = ""


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """Tell how many refusals of a group there were, between two moments."""

    group: RefusedGroup
    count: int
    since: float
    until: float

    @property
    def fields(self) -> Fields:
        """Return it as the fields of a record."""
        return (
            ("verdict", "deny"),
            ("reason", self.group.reason),
            ("server", self.group.server),
            ("subject", self.group.subject),
            ("client_id", self.group.client),
            ("count", str(self.count)),
            ("since", f"{self.since:.3f}"),
            ("until", f"{self.until:.3f}"),
        )


class RefusalCounter:
    """Count refusals of one process; bounded in memory, whoever comes."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], int] = {}
        self._counts: dict[RefusedGroup, tuple[int, float, float]] = {}
        self._period_ends = 0.0

    def gets_own_record(self, group: RefusedGroup, now: float) -> bool:
        """Tell whether a refusal is to be a record of its own; else it is counted."""
        if now >= self._period_ends:
            self._told.clear()
            self._period_ends = now + PERIOD
        if group.subject or group.client:
            who = group.subject, group.client
            told = self._told.get(who, 0)
            if told < _EACH and (told or len(self._told) < _PEOPLE):
                self._told[who] = told + 1
                return True
        if group not in self._counts and len(self._counts) >= _GROUPS:
            group = RefusedGroup(group.server, group.reason)  # closed sets
        count, since, _ = self._counts.get(group, (0, now, now))
        self._counts[group] = count + 1, since, now
        return False

    def flush(self) -> Iterator[RefusalCount]:
        """Return what was counted since the last time."""
        counts, self._counts = self._counts, {}
        for group, (count, since, until) in counts.items():
            yield RefusalCount(group, count, since, until)
