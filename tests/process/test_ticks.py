"""Periodic tasks of a process wake together."""

import asyncio
import math

from hypothesis import given
from hypothesis import strategies as st

from authz.process.ticks import next_tick, until_tick


@given(st.floats(0.01, 60.0), st.floats(0.0, 1e7))
def test_next(period: float, now: float) -> None:
    """A tick is a whole multiple of the period, neither at once nor later than a period more."""
    wait = until_tick(period, now)

    assert period * 0.09 < wait <= period * 1.11
    multiple = (now + wait) / period
    assert math.isclose(multiple, round(multiple), abs_tol=1e-3 * max(1.0, 1e-6 * multiple))


def test_no_wait() -> None:
    """A period of nothing is no wait."""
    assert until_tick(0.0, 5.0) == 0.0


def test_together() -> None:
    """Whenever they began, they wake at one time of the loop's clock."""

    class TickLoop(asyncio.SelectorEventLoop):
        now = 0.5

        def time(self) -> float:
            return self.now

    loop = TickLoop()
    woken: list[float] = []

    async def work() -> None:
        await next_tick(1000.0)
        woken.append(loop.time())

    async def play() -> None:
        tasks = []
        for _ in range(3):
            tasks.append(asyncio.create_task(work()))
            await asyncio.sleep(0)
            loop.now += 100.0
        assert not woken
        loop.now = 1000.0
        await asyncio.gather(*tasks)

    try:
        loop.run_until_complete(play())
    finally:
        loop.close()

    assert woken == [1000.0] * 3
