"""Ticks that periodic tasks share: a process that nobody asks anything wakes once for all of them.

Invariant: tasks of one period wake in the same turn of their event loop, and two ticks of a task
are at most a period and a tenth apart (tests/process/test_ticks.py).
"""

import asyncio
from typing import Final

# A task that is woken a moment early must not be woken twice for one tick.
_SLACK: Final = 0.1


def until_tick(period: float, now: float) -> float:
    """Return the seconds to the next whole multiple of a period.

    Args:
        period: seconds; 0 for no wait.
        now: the time of the event loop, which is the same for all processes of a machine.
    """
    if not period:
        return 0.0
    left = period - now % period
    return left if left > period * _SLACK else left + period


async def next_tick(period: float) -> None:
    """Return at the next whole multiple of a period, in seconds of the event loop's clock."""
    await asyncio.sleep(until_tick(period, asyncio.get_running_loop().time()))
