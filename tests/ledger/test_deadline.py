"""The deadline: over in time, and not before the loop has had its turns."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from authz.ledger.deadline import Deadline


def play(scene: Coroutine[Any, Any, None]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30):
            await scene

    asyncio.run(run())


def test_what_takes_too_long_is_ended() -> None:
    """A block that nothing wakes ends with TimeoutError."""

    async def scene() -> None:
        with pytest.raises(TimeoutError):
            async with Deadline(0.001):
                await asyncio.Event().wait()

    play(scene())


def test_what_ends_in_time_is_left_alone() -> None:
    """A block that has ended is not cancelled afterwards, and its own errors pass."""

    async def scene() -> None:
        async with Deadline(0):
            pass
        with pytest.raises(KeyError):
            async with Deadline(0):
                raise KeyError
        for _ in range(20):
            await asyncio.sleep(0)

    play(scene())


def test_the_callers_own_cancellation_passes() -> None:
    """A caller that is cancelled is cancelled, not timed out."""

    async def scene() -> None:
        async def inner() -> None:
            async with Deadline(20):
                await asyncio.Event().wait()

        task = asyncio.create_task(inner())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(scene())


def test_the_callers_own_cancellation_counts_more() -> None:
    """Cancelled as its time is over, a caller is cancelled: no time-out is made of it."""

    async def scene() -> None:
        async def inner() -> None:
            deadline = Deadline(20)
            async with deadline:
                deadline._end()
                task.cancel()
                await asyncio.Event().wait()

        task = asyncio.create_task(inner())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    play(scene())


def test_an_answer_of_the_last_turn_counts() -> None:
    """What came in the turn in which the time is over came in time."""

    async def scene() -> None:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        deadline = Deadline(20)

        def last_turn() -> None:
            answer.set_result("in time")
            deadline._wait(0)

        async with deadline:
            asyncio.get_running_loop().call_soon(last_turn)
            assert await answer == "in time"

    play(scene())


def test_one_in_another() -> None:
    """The time of the inner one is over, and the task goes on as if nobody had cancelled it."""

    async def scene() -> None:
        async with Deadline(20):
            with pytest.raises(TimeoutError):
                async with Deadline(0.001):
                    await asyncio.Event().wait()
            await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

    play(scene())


@pytest.mark.parametrize("turns", range(9))
def test_a_busy_loop_brings_it_no_nearer(turns: int) -> None:
    """A result that needs some more turns of a loop that was held up for long is still taken."""

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def arrive(left: int) -> None:
            if left:
                loop.call_soon(arrive, left - 1)
            else:
                answer.set_result("in time")

        async with Deadline(0.02):
            loop.call_soon(arrive, turns)
            end = time.monotonic() + 0.03
            while time.monotonic() < end:
                pass
            assert await answer == "in time"

    play(scene())
