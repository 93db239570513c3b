"""Deadlines end in time, and patient ones not before the loop has had its turns."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
import uvloop

from authz.ledger.deadline import Deadline, DeadlineScope


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Play it on both loops, which time their turns in different ways."""

    async def run() -> None:
        async with asyncio.timeout(30):
            await scene()

    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(run())


def test_what_takes_too_long_is_ended() -> None:
    """A block that nothing wakes ends with TimeoutError."""

    async def scene() -> None:
        with pytest.raises(TimeoutError), Deadline(0.001).block():
            await asyncio.Event().wait()

    play(scene)


def test_what_ends_in_time_is_left_alone() -> None:
    """A block that has ended is not cancelled afterwards, and its own errors pass."""

    async def scene() -> None:
        with Deadline(0).block():
            pass
        with pytest.raises(KeyError), Deadline(0).block():
            raise KeyError
        for _ in range(20):
            await asyncio.sleep(0)

    play(scene)


def test_the_callers_own_cancellation_passes() -> None:
    """A caller that is cancelled is cancelled, not timed out."""

    async def scene() -> None:
        async def inner() -> None:
            with Deadline(20).block():
                await asyncio.Event().wait()

        task = asyncio.create_task(inner())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(scene)


def test_the_callers_own_cancellation_counts_more() -> None:
    """Cancelled as its time is over, a caller is cancelled: no time-out is made of it."""

    async def scene() -> None:
        async def inner() -> None:
            with Deadline(20).block() as block:
                block._cancel()
                task.cancel()
                await asyncio.Event().wait()

        task = asyncio.create_task(inner())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    play(scene)


def test_an_answer_of_the_last_turn_counts() -> None:
    """What came in the turn in which the time is over came in time."""

    async def scene() -> None:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def last_turn(block: DeadlineScope) -> None:
            answer.set_result("in time")
            block.expire()

        with Deadline(20).block() as block:
            asyncio.get_running_loop().call_soon(last_turn, block)
            assert await answer == "in time"

    play(scene)


def test_many_at_once() -> None:
    """Of many blocks under one deadline those end that take too long, and no others."""

    async def scene() -> None:
        deadline = Deadline(0.002)
        quick = asyncio.Event()

        async def inner(event: asyncio.Event) -> bool:
            try:
                with deadline.block():
                    await event.wait()
            except TimeoutError:
                return False
            return True

        tasks = [asyncio.create_task(inner(quick if n % 3 else asyncio.Event())) for n in range(99)]
        await asyncio.sleep(0)
        quick.set()
        assert await asyncio.gather(*tasks) == [bool(n % 3) for n in range(99)]
        assert not deadline._scopes

    play(scene)


def test_it_is_never_early() -> None:
    """However the blocks begin between its ticks, none is ended before its seconds are over."""

    async def scene() -> None:
        deadline = Deadline(0.02)

        async def inner() -> float:
            begun = time.monotonic()
            with pytest.raises(TimeoutError), deadline.block():
                await asyncio.Event().wait()
            return time.monotonic() - begun

        tasks = list[asyncio.Task[float]]()
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            tasks.append(asyncio.create_task(inner()))
            await asyncio.sleep(0)
        # The clock that a loop sleeps by may be as coarse as a millisecond.
        assert min(await asyncio.gather(*tasks)) > 0.019

    play(scene)


def test_a_loop_that_has_ended_is_forgotten() -> None:
    """What a loop left behind ends nothing in the next one, and does not keep its timer from it."""
    deadline = Deadline(0.002)
    left = list[object]()

    async def leave() -> None:
        async def inner() -> None:
            block = deadline.block()
            left.append(block.__enter__())
            await asyncio.Event().wait()

        left.append(asyncio.create_task(inner()))
        await asyncio.sleep(0)

    async def scene() -> None:
        with pytest.raises(TimeoutError), deadline.block():
            await asyncio.Event().wait()

    play(leave)
    play(scene)


def test_a_long_turn_counts_in_full() -> None:
    """Where a deadline is not patient, the first turns after a long one end the block."""

    async def scene() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        async def inner() -> None:
            with Deadline(0.1).block():
                end = time.monotonic() + 0.2
                while time.monotonic() < end:
                    pass
                await asyncio.Event().wait()

        counting = asyncio.create_task(count())
        with pytest.raises(TimeoutError):
            await inner()
        counting.cancel()
        # A patient one had nineteen ticks to go, of thousands of turns.
        assert turns < 20

    play(scene)


@pytest.mark.parametrize("patient", [True, False])
def test_a_long_turn_is_over_for_who_begins_in_it(patient: bool) -> None:
    """Whoever begins at the end of a long turn has all the time, and others of it have none."""

    async def scene() -> None:
        deadline = Deadline(0.05, patient=patient)

        async def inner() -> float:
            begun = time.monotonic()
            with suppress(TimeoutError), deadline.block():
                await asyncio.Event().wait()
            return time.monotonic() - begun

        early = asyncio.create_task(inner())
        await asyncio.sleep(0)
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            pass
        # The one in a turn of its own, the other still in the long one.
        late = asyncio.create_task(inner())
        assert await inner() > 0.049
        assert await late > 0.049
        assert early.done()

    play(scene)


def test_turns_shorter_than_a_tenth_stretch_no_patience() -> None:
    """A patient deadline counts them for what they take, or nearly: a few for each tick."""

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        turns = list[asyncio.Handle]()

        def turn() -> None:
            end = time.monotonic() + 0.01
            while time.monotonic() < end:
                pass
            turns.append(loop.call_soon(turn))

        turn()
        with pytest.raises(TimeoutError), Deadline(0.5, patient=True).block():
            await asyncio.Event().wait()
        turns[-1].cancel()
        # 11 ticks, each of 50 ms and up to two turns more.
        assert len(turns) < 100

    play(scene)


def test_one_in_another() -> None:
    """The time of the inner one is over, and the task goes on as if nobody had cancelled it."""

    async def scene() -> None:
        with Deadline(20).block():
            with pytest.raises(TimeoutError), Deadline(0.001).block():
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

    play(scene)


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

        with Deadline(0.02, patient=True).block():
            loop.call_soon(arrive, turns)
            end = time.monotonic() + 0.03
            while time.monotonic() < end:
                pass
            assert await answer == "in time"

    play(scene)
