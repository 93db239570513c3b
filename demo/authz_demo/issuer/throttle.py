"""How the stand-in slows an address down whose requests fail, as Authelia does by default.

What succeeds costs nothing; what fails takes from four buckets at once, and an address with any of
them empty is refused whatever it sends, honest log-ins included.
"""

import math
from dataclasses import dataclass

# (seconds until one failure is forgiven, failures in a row). One comes back per period, not all of
# them: that is how the recorded version counts, though its documentation reads otherwise.
BUCKETS = ((60, 30), (120, 40), (600, 50), (3600, 100))


@dataclass(slots=True)
class _Bucket:
    period: int
    size: int
    left: float
    at: float

    def refill(self, now: float) -> None:
        self.left = min(self.size, self.left + max(0.0, now - self.at) / self.period)
        self.at = now

    def delay(self, now: float) -> float:
        self.refill(now)
        return max(0.0, 1 - self.left) * self.period


class Throttle:
    """Count the failures of one endpoint by address."""

    def __init__(self) -> None:
        """Begin with full buckets for everybody."""
        self._buckets: dict[str, list[_Bucket]] = {}

    def retry_after(self, address: str, now: float) -> int:
        """Return the seconds until the address is heard again; 0 where it is heard now."""
        buckets = self._buckets.get(address, [])
        return math.ceil(max((bucket.delay(now) for bucket in buckets), default=0.0))

    def failed(self, address: str, now: float) -> None:
        """Count a failure."""
        buckets = self._buckets.setdefault(
            address, [_Bucket(period, size, size, now) for period, size in BUCKETS]
        )
        for bucket in buckets:
            bucket.refill(now)
            bucket.left -= 1
