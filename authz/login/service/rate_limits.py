"""Rate limits of the log-in: by address, and by person, grant or host.

Invariant: memory is bounded, and who is told to wait is told so for the sake of nobody else: the
address of a neighbour in another network waits for nothing, nor does another person.

At the token endpoint no address is paced. A code or refresh token that is not good costs a look
into Redis or at its seal, never Authelia; and a pace would hold up whoever shares an address with a
guesser, which is everybody whose client is a company's server. What is good is somebody's: it is
paced by person or grant.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from authz.config.model import FrontDoorConfig
from authz.config.value_types import Rate
from authz.core.limits import Limit, Per, Take, bucket_id, digest
from authz.ledger.memory import Buckets

# Each looks into Redis.
PAGES: Final = Limit("login-pages", Per.ADDRESS, quota=600, window=60)
# Each holds one of the few places for fetching documents, for seconds where its host wants that.
DOCUMENTS: Final = Limit("login-documents", Per.ADDRESS, quota=12, window=60)
# Each is a request pushed to Authelia, and at most one failure that it counts: log-ins, step-ups
# and looks at one's own log-ins together.
APPROVALS: Final = Limit("login-approvals", Per.ADDRESS, quota=20, window=60)
# Of one grant, so that a client that does not stop holds up no other of its person. Each is a call
# of Authelia, and a record in Redis; a client refreshes once an hour or so.
REFRESHES: Final = Limit("login-refreshes", Per.USER, quota=20, window=60)
# Of one grant: tokens that were replaced, and stand for the newest one. A program has a few copies.
STALE_REFRESHES: Final = Limit("login-stale-refreshes", Per.USER, quota=20, window=60)
# Each leaves in Redis what remembers its code for as long as its tokens may live; a person has a
# hundred grants at most.
LOG_INS: Final = Limit("login-log-ins", Per.USER, quota=120, window=3600)
# Each leaves its id in Redis for as long as it lives. Of one host whose documents name the key:
# a company's hosted assistant refreshes for thousands.
ASSERTIONS: Final = Limit("login-assertions", Per.USER, quota=1200, window=60)
_LARGEST: Final = 20_000


def configured_rates(section: FrontDoorConfig, replicas: int = 1) -> Mapping[str, Rate]:
    """Return what authz.yaml says of the limits by address, for one of so many replicas.

    Each counts by itself, and Authelia locks an address for all of them together.
    """
    rates = {
        PAGES.name: section.address_pages,
        APPROVALS.name: section.address_log_ins,
        DOCUMENTS.name: section.address_documents,
    }
    return {
        name: replace(rate, quota=max(1, rate.quota // replicas)) for name, rate in rates.items()
    }


class TooManyRequestsError(Exception):
    """Say that an address has to wait.

    Attributes:
        seconds: how long.
    """

    def __init__(self, seconds: int) -> None:
        """Keep how long."""
        super().__init__(seconds)
        self.seconds = seconds


class LoginRateLimiter:
    """Count attempts in this process's memory; at the cap the oldest is forgotten."""

    def __init__(
        self,
        clock: Callable[[], float],
        largest: int = _LARGEST,
        rates: Mapping[str, Rate] = MappingProxyType({}),
    ) -> None:
        """Begin with nobody counted.

        Args:
            clock: seconds since the epoch.
            largest: how many are remembered, for each limit.
            rates: the figures of authz.yaml, by the limit's name.
        """
        self._rates = rates
        # One for each limit: who comes from a flood of addresses pushes out no person's.
        self._buckets = defaultdict[str, Buckets](lambda: Buckets(largest))
        self._clock = clock

    def count_attempt(self, limit: Limit, address: str) -> int:
        """Count an attempt of an address; return the seconds to wait, 0 where it is allowed."""
        return self._take(bucket_id(limit, None, address), limit)

    def count_attempt_of(self, limit: Limit, whose: str) -> int:
        """Count an attempt of a person, grant or host; return seconds as `count_attempt` does."""
        return self._take(digest(whose), limit)

    def check(self, limit: Limit, address: str) -> None:
        """Count an attempt.

        Raises:
            TooManyRequestsError: where it is one too many.
        """
        seconds = self.count_attempt(limit, address)
        if seconds:
            raise TooManyRequestsError(seconds)

    def _take(self, bucket: str, limit: Limit) -> int:
        rate = self._rates.get(limit.name)
        if rate is not None:
            limit = replace(limit, quota=rate.quota, window=rate.window)
        now = int(self._clock() * 1000)
        return self._buckets[limit.name].take((Take(bucket, limit),), now).retry_after
