"""The one worker of `authz up` is started, told and watched by `authz up` itself."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict
from typing import Any

import pytest

from authz.local.worker import UpWorker, WorkerStarter
from authz.process.group import STOPPED
from authz.process.service import ServiceSpec
from authz.server.worker_control import Watchdog, WorkerSettings
from tests.process.stage import PRELUDE, ServiceStage, until

# Nobody waits for it where something is to be heard of a worker that answers nothing.
IMPATIENT = Watchdog(interval=0.01, max_missed=2)
PATIENT = Watchdog(interval=1000.0)
# What a worker says and is told, by the socket that it inherits.
_CHANNEL = """
import json, socket
channel = socket.socket(fileno=json.loads(os.environ["AUTHZ_WORKER"])["control"])
"""
OBEYS = (
    _CHANNEL
    + """
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
    signal.signal(number, lambda number, frame: note("a signal", "told"))
channel.send(b"S"); up()
while (word := channel.recv(64)) != b"T":
    note(word.decode(), "told")
note("T", "told")
"""
)
HANGS = _CHANNEL + 'channel.send(b"S"); up(); rest()'
HANGS_UNREADY = _CHANNEL + 'channel.send(b"S"); rest()'
FAILS = _CHANNEL + 'channel.send(b"FConfigError"); sys.exit(0)'
ENDS = "sys.exit(3)"


def spec(stage: ServiceStage, script: str, watchdog: Watchdog = PATIENT) -> ServiceSpec:
    """Return a service whose `authz serve` is a script that rests, named serve."""
    argv = (sys.executable, "-I", "-S", "-c", PRELUDE + script, str(stage.folder), "a")
    settings = WorkerSettings("/etc/authz.yaml", "unix:/check", ("127.0.0.1", 1), 1.0)
    worker = UpWorker(settings, argv, {"A": "b"}, "json")
    serve = (*stage.spec("a").argv[:-1], "serve")
    return stage.spec(
        "a", argv=serve, reloads=True, control=WorkerStarter(worker, os.environ, watchdog)
    )


def test_told_by_messages(stage: ServiceStage) -> None:
    """A reload and the end are messages: its Envoy would cut what is in flight at a signal."""

    async def play() -> int:
        async with stage.playing(spec(stage, OBEYS)) as run:
            await until(lambda: stage.said("ready"))
            stage.send(signal.SIGUSR2)
            stage.send(signal.SIGHUP)
            await until(lambda: "H" in stage.read("told"))
            stage.send(signal.SIGTERM)
            return await run

    assert asyncio.run(play()) == STOPPED

    assert [word for word in stage.read("told") if word != "?"] == ["H", "T"]
    assert stage.pids("serve") == []


def test_one_that_hangs_is_killed(stage: ServiceStage) -> None:
    """It is started again, and its log has the event that alerts and people look for."""

    async def play() -> None:
        async with stage.playing(spec(stage, HANGS, IMPATIENT)):
            await until(lambda: len(stage.pids("a")) > 1)

    asyncio.run(play())

    told = json.loads(stage.read("a.log")[0])
    assert told["event"] == "worker_hung"
    assert told["unanswered"] == IMPATIENT.max_missed
    assert stage.said("hung, and was killed")


def test_one_that_hangs_before_it_is_ready_is_killed(stage: ServiceStage) -> None:
    """As one that waits for its issuer: it answers Check, and is not ready."""

    async def play() -> None:
        async with stage.playing(spec(stage, HANGS_UNREADY, IMPATIENT)):
            await until(lambda: stage.said("hung, and was killed"))

    asyncio.run(play())


@pytest.mark.parametrize(
    ("script", "why"),
    [(FAILS, "ConfigError"), (ENDS, "no answer, exit status 3")],
    ids=["says why", "ends"],
)
def test_authz_serve_follows_a_failed_start(stage: ServiceStage, script: str, why: str) -> None:
    """It says what is wrong with authz.yaml, and has a transport that runs everywhere."""

    async def play() -> None:
        async with stage.playing(spec(stage, script)):
            await until(lambda: stage.pids("serve"))

    asyncio.run(play())
    assert stage.said(why)


def test_a_worker_that_was_well_is_started_again_as_it_was(stage: ServiceStage) -> None:
    """`authz serve` is for a start that fails, not for a worker that is killed."""

    async def play() -> None:
        async with stage.playing(spec(stage, OBEYS)):
            await until(lambda: stage.said("ready"))
            os.kill(stage.pids("a")[0], signal.SIGKILL)
            await until(lambda: len(stage.pids("a")) > 1)

    asyncio.run(play())

    assert stage.pids("serve") == []


def test_settings_travel_as_text() -> None:
    """What JSON makes of a worker is that worker again."""
    settings = WorkerSettings("/etc/authz.yaml", "unix:/check", ("127.0.0.1", 1), 1.0)
    worker = UpWorker(settings, ("envoy", "-c"), {"A": "b"}, "text")
    said: dict[str, Any] = json.loads(json.dumps(asdict(worker)))

    assert UpWorker.of_members(said) == worker
