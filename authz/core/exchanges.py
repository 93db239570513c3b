"""How long an exchange may stay open, so that one person cannot hold all that a server can serve.

Envoy does not report when an exchange ends, so nothing is counted down: the bound is made of how
many exchanges a person has begun within the window of a limit, and how long each may last.

Invariant: whatever a person begins, at most `Meter.most_open` of it is open at a time
(docs/decisions/0015).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import ceil
from typing import Final

from authz.core.limits import Limit, Quota
from authz.core.methods import LISTEN, Counts, counted

# What Envoy passes to one MCP server at a time; the excess is answered 503 at once.
SERVER_REQUESTS: Final = 4096


class Exchange(Enum):
    """Name what an exchange stays open for.

    STREAM waits for a server's notifications. CALL does something on a person's behalf. ANSWER is
    everything else: what begins, keeps, lists and ends.
    """

    STREAM = "stream"
    CALL = "call"
    ANSWER = "answer"


def exchange(http_method: str, method: str | None) -> Exchange:
    """Return what an exchange stays open for.

    Args:
        http_method: POST, GET or DELETE.
        method: the method of its message; "" of a response, None where there is no message.
    """
    if method == LISTEN or (method is None and http_method == "GET"):
        return Exchange.STREAM
    return Exchange.CALL if counted(method) is Counts.OPERATIONS else Exchange.ANSWER


@dataclass(frozen=True, slots=True)
class Meter:
    """Derive from a limit how long each exchange of a person may last.

    Attributes:
        limit: counts every such exchange of the person.
        sustained: how many may be open at a time at a steady rate.
        least: seconds that each may last, however many there are.
        variants: limits in place of that one for some callers: of all of them each is counted by
            one.
    """

    limit: Limit
    sustained: int
    least: float
    variants: tuple[Limit, ...] = ()

    def lasts(self, quotas: Sequence[Quota], longest: float) -> float:
        """Return the seconds that an exchange may last.

        Args:
            quotas: of its limits, after the charge.
            longest: seconds that any such exchange may last.
        """
        for quota in quotas:
            for limit in (self.limit, *self.variants):
                if limit is quota.limit or _is_same(limit, quota.limit):
                    # By the cost of the cheapest: of no other have as many been begun.
                    units = limit.quota - quota.remaining
                    return self._lasts(limit, -(-units // limit.cost), longest)
        return min(self.least, longest)  # not counted

    def most_open(self, longest: float) -> int:
        """Return how many exchanges of one person are open at a time at most.

        Of those that were begun in one window, the last saw all the others counted. So of those
        that are between k-1 and k windows old there are no more than the greatest count with
        which one lasts longer than k-1 windows. With one client a person may be counted by one
        limit, with another by another.
        """
        return sum(self._most(limit, longest) for limit in (self.limit, *self.variants))

    def _most(self, limit: Limit, longest: float) -> int:
        most = 0
        for age in range(0, ceil(longest), limit.window):
            living = self._living(limit, age, longest)
            if not living:
                break
            most += living
        return most

    def _living(self, limit: Limit, age: int, longest: float) -> int:
        """Return the greatest count with which an exchange lasts longer than that."""
        counts = range(1, limit.quota // limit.cost + 1)
        return bisect_left(
            counts, True, key=lambda begun: self._lasts(limit, begun, longest) <= age
        )

    def _lasts(self, limit: Limit, begun: int, longest: float) -> float:
        """Return the seconds for the last of some exchanges that were begun within the window."""
        steady = self.sustained * limit.window / max(1, begun)
        return min(longest, max(self.least, steady))


def _is_same(limit: Limit, charged: Limit) -> bool:
    """Tell whether a limit was charged, at whatever cost."""
    return limit.name == charged.name and limit == replace(charged, cost=limit.cost)
