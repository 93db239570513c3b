"""Callers that ask the ledger without end while Redis changes beneath them, and what they saw."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from authz.core.ledger import Mode, Query, Taken, UnavailableError
from authz.core.limits import MAX_UNITS
from authz.ledger.batch import BatchedLedger
from authz.ledger.memory import MemoryLedger
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.resilient import OutageOptions, ResilientLedger
from tests.ledger.queries import query, take

FOREVER: Final = 180.0  # what no failover takes, however busy the machine
_CALLERS: Final = 8
_PACE: Final = 0.004  # seconds between two questions of one caller
ASKED: Final = query(take("load", quota=MAX_UNITS))


class Seen(NamedTuple):
    """What one caller saw once: when, how long it took, and who answered (or the fault)."""

    at: float
    seconds: float
    answer: str


@dataclass
class Load:
    """Many callers at once.

    Attributes:
        ledger: as a worker has it.
        remote: the Redis behind it.
        seen: every answer, in order.
        faults: of Redis, in order.
    """

    ledger: ResilientLedger
    remote: RedisLedger
    faults: list[str]
    seen: list[Seen] = field(default_factory=list)

    async def caller(self, asked: Query = ASKED) -> None:
        """Ask without end."""
        while True:
            began = time.monotonic()
            try:
                answer = await self.ledger.take(asked)
            except UnavailableError as error:
                said = error.detail
            else:
                assert isinstance(answer, Taken), answer
                said = answer.mode.value
            now = time.monotonic()
            self.seen.append(Seen(now, now - began, said))
            await asyncio.sleep(_PACE)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once it holds."""
        async with asyncio.timeout(FOREVER):
            while not condition():  # noqa: ASYNC110 - what it waits for tells nobody
                await asyncio.sleep(_PACE)

    async def more(self, answers: int) -> None:
        """Return when callers were answered so often again."""
        wanted = len(self.seen) + answers
        await self.until(lambda: len(self.seen) >= wanted)

    async def until_redis(self, more: int = 50) -> float:
        """Return when Redis has answered some more, and the moment of the first of these."""
        begun = len(self.seen)

        def answered() -> list[Seen]:
            return [each for each in self.seen[begun:] if each.answer == Mode.REDIS.value]

        await self.until(lambda: len(answered()) >= more)
        return answered()[0].at

    def charged(self) -> int:
        """Return how many callers heard from Redis that they were charged."""
        return self.said()[Mode.REDIS.value]

    def most_charged(self) -> int:
        """Return how many units Redis may hold: those, and one for each caller of a lost call."""
        return self.charged() + _CALLERS * (len(self.faults) + 1)

    def said(self) -> Counter[str]:
        """Return how often each answer was seen."""
        return Counter(each.answer for each in self.seen)

    @property
    def slowest(self) -> float:
        """Return the seconds of the slowest answer."""
        return max(each.seconds for each in self.seen)


@asynccontextmanager
async def load(options: RedisOptions, outage: OutageOptions | None = None) -> AsyncIterator[Load]:
    """Run callers for as long as the block does; at the end no call is under way."""
    remote, faults = RedisLedger(options), list[str]()
    batched = BatchedLedger(remote)
    ledger = ResilientLedger(
        batched,
        remote,
        MemoryLedger(time.time),
        outage or OutageOptions(),
        time.monotonic,
        on_error=lambda error: faults.append(error.detail),
    )
    await ledger.start()
    async with asyncio.timeout(FOREVER):
        # A busy machine's Redis may be late, and nothing is answered without it until then.
        while not ledger.has_read:
            await ledger.refresh()
    found = Load(ledger, remote, faults)
    callers = [asyncio.create_task(found.caller()) for _ in range(_CALLERS)]
    try:
        yield found
    finally:
        for each in callers:
            each.cancel()
        await asyncio.wait(callers)
        await ledger.aclose()
        await batched.aclose()
        await remote.aclose()
    for each in callers:
        if not each.cancelled():
            each.result()  # what a caller was told that no caller may be


def report(what: str, found: Load, before: int, back: float) -> None:
    """Print what callers saw, for docs/ledger.md (`pytest -s`)."""
    after = found.seen[before:]
    local = [each.at for each in after if each.answer != Mode.REDIS.value]
    gap = max(local) - min(local) if local else 0.0
    print(  # noqa: T201
        f"\n{what}: {found.said()}; {len(found.faults)} faults {sorted({*found.faults})}; without "
        f"Redis {gap:.2f} s; slowest answer {found.slowest * 1000:.0f} ms; back after {back:.2f} s"
    )
