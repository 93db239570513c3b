"""The owner of the sending process: nobody waits, and every notice is counted once."""

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from authz.notify.messages import NotifyForm, NotifyTarget
from authz.notify.notifier import Notifier
from authz.process.supervisor import Backoff
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import NO_FACTS, SecurityEvent, SecurityNotice
from tests.support.hostile_target import hang, status, target_server

_REPLAY = SecurityEvent.CREDENTIAL_REPLAYED


class _Told:
    """A notifier with what it counts and logs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        self.recorder = Recorder(Metrics(), EventLog("json", self.stream))
        self.notifier = Notifier(
            sys.executable, os.environ, self.recorder, clock=lambda: self.now,
            backoff=Backoff(first=0.05),
        )  # fmt: skip

    def count(self, outcome: str) -> float:
        metric = self.recorder.metrics.registry.get_sample_value
        return metric("authz_notifications_total", {"outcome": outcome}) or 0.0

    def offer(self, event: SecurityEvent = _REPLAY) -> None:
        self.notifier.offer(SecurityNotice(event, NO_FACTS, 1))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not condition():  # noqa: ASYNC110 - a thread or a process ends it
                await asyncio.sleep(0.02)


def _target(name: str, url: str, *events: SecurityEvent) -> NotifyTarget:
    labels = tuple(each.label for each in events or (_REPLAY,))
    return NotifyTarget(name, NotifyForm.JSON, url, events=labels)


def _run(work: Callable[[_Told], Awaitable[None]]) -> None:
    async def whole() -> None:
        told = _Told()
        try:
            await work(told)
        finally:
            await told.notifier.aclose()

    asyncio.run(whole())


def test_each_target_is_told_what_it_wants() -> None:
    """Two targets, two events; another configuration; one of them hanging holds up nobody."""

    async def work(told: _Told) -> None:
        with target_server(status(200)) as one, target_server(hang) as other:
            told.offer()  # nobody is to be told yet
            told.notifier.configure([_target("one", one.url), _target("other", other.url)])
            told.offer()
            told.offer(SecurityEvent.TOOL_CHANGED)
            await told.until(lambda: told.count("sent") == 1 and bool(other.posted))
            told.notifier.configure([_target("one", one.url, SecurityEvent.TOOL_CHANGED)])
            told.offer()
            told.offer(SecurityEvent.TOOL_CHANGED)
            await told.until(lambda: told.count("sent") == 2)
            said = [json.loads(each.body)["event.action"] for each in one.posted]
            assert said == ["credential_replayed", "tool_changed"]

    _run(work)


@pytest.mark.attack("notify-silenced")
def test_a_target_that_is_left_out_is_told_so() -> None:
    """Of two targets one is left out, then the other: each hears of its own end, once."""

    async def work(told: _Told) -> None:
        event = SecurityEvent.CONFIGURATION_CHANGED
        with target_server(status(200)) as one, target_server(status(200)) as other:
            both = [_target("one", one.url, event), _target("other", other.url, event)]
            told.notifier.configure(both)
            told.offer(event)
            await told.until(lambda: told.count("sent") == 2)
            told.notifier.configure(both[1:])
            await told.until(lambda: told.count("sent") == 3)
            told.notifier.configure([_target("renamed", other.url, event, _REPLAY)])
            told.notifier.configure([])
            await told.until(lambda: told.count("sent") == 4)
            for each in (one, other):
                _, message = each.posted
                assert json.loads(message.body)["event.reason"].startswith("notify: ")

    _run(work)


def test_what_waits_at_the_end_is_counted_as_dropped() -> None:
    """A target that hangs holds the end up for its bound; then every message is accounted for."""

    async def work(told: _Told) -> None:
        with target_server(hang) as server:
            told.notifier.configure([_target("one", server.url)])
            for _ in range(3):
                told.offer()
            await told.until(lambda: bool(server.posted))
            await told.notifier.aclose()
            assert told.count("dropped") == 3
            lost = [json.loads(each) for each in told.stream.getvalue().splitlines()]
            assert {each["event"] for each in lost} == {"notification_lost"}
            assert sum(int(each["notices"]) for each in lost) == 3

    _run(work)


def test_what_a_killed_process_had_is_counted_and_another_one_sends() -> None:
    """SIGKILL to the sending process: what it had is dropped, what comes then is sent."""

    async def work(told: _Told) -> None:
        with target_server(hang) as server:
            told.notifier.configure([_target("one", server.url)])
            told.offer()
            await told.until(lambda: bool(server.posted))
            pid = told.notifier.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await told.until(lambda: told.count("dropped") == 1)
            server.answer = status(200)
            told.offer()
            await told.until(lambda: told.count("sent") == 1)

    _run(work)


def test_a_burst_that_all_workers_tell_is_sent_in_bounded_numbers() -> None:
    """Of one event not more goes out in its window than one process tells; the rest is counted."""

    async def work(told: _Told) -> None:
        with target_server(status(200)) as server:
            told.notifier.configure([_target("one", server.url)])
            for _ in range(20):
                told.offer()
            lines = _REPLAY.value.lines + 1
            await told.until(lambda: told.count("sent") == lines)
            assert told.count("suppressed") == 20 - lines
            told.now = _REPLAY.value.window
            told.offer()
            await told.until(lambda: told.count("sent") == lines + 1)

    _run(work)


@pytest.mark.attack("notify-secrets")
def test_secrets_are_neither_in_arguments_nor_in_the_environment_of_the_process() -> None:
    """/proc shows neither the URL, nor the token, nor a variable of the service's."""

    async def work(told: _Told) -> None:
        with target_server(hang) as server:
            os.environ["AUTHZ_REDIS_PASSWORD"] = "hunter2"
            target = NotifyTarget(
                "one", NotifyForm.JSON, f"{server.url}/hunter2", "hunter2", events=(_REPLAY.label,)
            )
            told.notifier.configure([target])
            told.offer()
            await told.until(lambda: bool(server.posted))
            folder = Path(f"/proc/{told.notifier.pid}")
            shown = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            assert b"hunter2" not in shown
            assert str(server.port).encode() not in shown

    try:
        _run(work)
    finally:
        del os.environ["AUTHZ_REDIS_PASSWORD"]
