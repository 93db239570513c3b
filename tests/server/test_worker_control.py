"""The starter's side of the socket: who hangs, who is slow, and whose end has its own time."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from authz.process.supervisor import Failure
from authz.server.worker_control import (
    FAILED,
    PING,
    PONG,
    STARTED,
    STOP,
    Watchdog,
    Worker,
    WorkerControl,
    WorkerSettings,
)

PATIENCE = 60.0
# Nobody waits for it: the clock is the test's.
WATCHDOG = Watchdog(interval=1000.0, max_missed=3)
LOOK = WATCHDOG.interval


class WorkerClock(asyncio.SelectorEventLoop):
    """A loop whose clock goes on as it is told."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class WorkerPeer:
    """The service's end of the socket, and the time that passes for its starter."""

    def __init__(self, control: WorkerControl, clock: WorkerClock) -> None:
        self.control = control
        self._clock = clock
        self._socket = control.theirs.dup()
        self._socket.setblocking(False)

    async def asked(self) -> None:
        assert await self._clock.sock_recv(self._socket, 64) == PING

    async def has_unread(self) -> None:
        """Return when there is a question, and leave it there."""
        there = asyncio.Event()
        self._clock.add_reader(self._socket, there.set)
        await there.wait()
        self._clock.remove_reader(self._socket)

    def say(self, word: bytes) -> None:
        self._socket.send(word)

    def pass_time(self, seconds: float) -> None:
        self._clock.ahead += seconds

    async def miss(self, looks: int, seconds: float = LOOK) -> None:
        """Leave questions without an answer."""
        for _ in range(looks):
            await self.asked()
            self.pass_time(seconds)

    def leave(self) -> None:
        self._socket.close()


def play(scene: Callable[[WorkerPeer, "asyncio.Task[bool]"], Awaitable[None]]) -> None:
    """Play a scene with a service that has started and is watched."""

    async def staged() -> None:
        with WorkerControl() as control:
            peer = WorkerPeer(control, cast("WorkerClock", asyncio.get_running_loop()))
            peer.say(STARTED)
            # A process that does not end by itself.
            await control.started(asyncio.get_running_loop().create_future())
            watching = asyncio.create_task(control.hung(WATCHDOG))
            await scene(peer, watching)
            peer.leave()

    async def within_patience() -> None:
        # In a thread: the loop's own time-outs go by the clock that jumps.
        over, loop = threading.Event(), asyncio.get_running_loop()
        staging = asyncio.create_task(staged())
        both: set[asyncio.Future[Any]] = {
            staging,
            loop.run_in_executor(None, over.wait, PATIENCE),
        }
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        over.set()
        assert staging.done(), "waited in vain"
        await staging

    with asyncio.Runner(loop_factory=WorkerClock) as runner:
        runner.run(within_patience())


@pytest.mark.attack("worker-killed")
def test_who_answers_nothing_hangs() -> None:
    """So many questions in turn without an answer, and no fewer."""

    async def scene(peer: WorkerPeer, watching: "asyncio.Task[bool]") -> None:
        await peer.miss(WATCHDOG.max_missed - 1)
        await peer.asked()
        assert not watching.done()

        peer.pass_time(LOOK)

        assert await watching

    play(scene)


def test_who_is_slow_does_not_hang() -> None:
    """One answer in time is enough, however many were missed before and after."""

    async def scene(peer: WorkerPeer, watching: "asyncio.Task[bool]") -> None:
        for _ in range(5):
            await peer.miss(WATCHDOG.max_missed - 1)
            await peer.asked()
            peer.say(PONG)
            peer.pass_time(LOOK)
        await peer.asked()

        assert not watching.done()
        peer.control.send(STOP)
        assert not await watching

    play(scene)


@pytest.mark.parametrize("answered", [True, False])
def test_a_starter_that_stood_still_judges_nobody(answered: bool) -> None:
    """Its clock jumped: an answer that is there counts, and without one nothing was missed."""

    async def scene(peer: WorkerPeer, watching: "asyncio.Task[bool]") -> None:
        for _ in range(WATCHDOG.max_missed + 1):
            await peer.asked()
            if answered:
                peer.say(PONG)
            peer.pass_time(100 * LOOK)
        await peer.asked()

        assert not watching.done()
        peer.control.send(STOP)
        assert not await watching

    play(scene)


def test_who_was_told_to_stop_does_not_hang() -> None:
    """The end has a time of its own, whatever was missed before."""

    async def scene(peer: WorkerPeer, watching: "asyncio.Task[bool]") -> None:
        await peer.miss(WATCHDOG.max_missed - 1)
        await peer.asked()

        peer.control.send(STOP)

        assert not await watching

    play(scene)


@pytest.mark.parametrize("word", [FAILED + b"why", b""], ids=["failed", "closed"])
def test_who_said_its_last_does_not_hang(word: bytes) -> None:
    """It ends; whether it failed is told though it left a question unread."""

    async def scene(peer: WorkerPeer, watching: "asyncio.Task[bool]") -> None:
        await peer.miss(1)
        await peer.has_unread()
        if word:
            peer.say(word)
        peer.leave()

        assert not await watching
        peer.control.close()
        assert peer.control.has_failed == bool(word)

    play(scene)


# It has something in flight when it is told to stop, and answers it.
BUSY = """\
import json, os, pathlib, socket, sys, time
control = socket.socket(fileno=json.loads(os.environ["AUTHZ_WORKER"])["control"])
control.send(b"S")
while control.recv(64) != b"T":
    pass
time.sleep(0.2)
pathlib.Path(sys.argv[1]).touch()
"""


class Busy(Worker):
    """A worker that leaves a file when it has answered all."""

    def __init__(self, answered: Path) -> None:
        super().__init__(WorkerSettings("authz.yaml", "unix:/nowhere", "", 0.0), os.environ)
        self._answered = answered

    def _command(self, _: WorkerSettings) -> tuple[Sequence[str], Mapping[str, str]]:
        return (sys.executable, "-I", "-c", BUSY, str(self._answered)), {}

    def _on_failure(self, failure: Failure) -> None:
        raise AssertionError(failure)


def test_who_is_told_to_stop_before_it_is_watched_has_its_time(tmp_path: Path) -> None:
    """The others may still be starting then; what it has in flight is answered all the same."""
    answered = tmp_path / "answered"

    async def told_at_once() -> None:
        worker = Busy(answered)
        try:
            await worker.start()
            worker.request_stop()
            await worker.run()
        finally:
            worker.kill()

    asyncio.run(told_at_once())

    assert answered.exists()
