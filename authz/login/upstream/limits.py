"""Limits of what is sent to Authelia: calls at once, and lock-outs of addresses.

Invariant: an address that Authelia has locked is not asked for until Authelia's own time is over,
so that nothing is sent which cannot succeed. Memory is bounded, whoever comes.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from authz.core.ledger import UnavailableError

_MOST_ADDRESSES: Final = 10_000
_LONGEST: Final = 3600.0  # seconds; what Authelia says at most
_DEFAULT: Final = 60.0


class Lockouts:
    """Remember which addresses Authelia has locked, per endpoint: it counts failures so.

    Not cachetools: every entry has an end of its own, and `check` must tell it from absence.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nobody locked; `clock` gives seconds that never go back."""
        self._clock = clock
        self._until: OrderedDict[tuple[str, str], float] = OrderedDict()

    def lock(self, endpoint: str, address: str, seconds: float | None) -> None:
        """Lock an address for as long as Authelia said; the oldest make room."""
        wait = _DEFAULT if seconds is None else min(max(seconds, 1.0), _LONGEST)
        self._until.pop((endpoint, address), None)
        self._until[endpoint, address] = self._clock() + wait
        if len(self._until) > _MOST_ADDRESSES:
            self._until.popitem(last=False)

    def check(self, endpoint: str, address: str) -> None:
        """Refuse a call that would be in vain.

        Raises:
            UnavailableError: while the address is locked.
        """
        until = self._until.get((endpoint, address))
        if until is None:
            return
        if self._clock() < until:
            raise UnavailableError("issuer", "too many failures of this address")
        del self._until[endpoint, address]


class ConcurrencyLimit:
    """Let so many calls through at once; a few wait, and the rest is turned away."""

    def __init__(self, at_once: int, waiting: int) -> None:
        """Take how many may be under way, and how many may wait for them."""
        self._slots = asyncio.Semaphore(at_once)
        self._left = at_once + waiting

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot; how long to wait for one is the caller's to bound.

        Raises:
            UnavailableError: where too many wait already.
        """
        if self._left <= 0:
            raise UnavailableError("issuer", "too many log-ins at once")
        self._left -= 1
        try:
            async with self._slots:
                yield
        finally:
            self._left += 1
