"""What a process tells of itself for the console, on a real Valkey."""

import asyncio
import io
import uuid
from collections.abc import Awaitable, Callable, Iterator

import pytest

from authz.ledger.activity import ActivityStore, DecisionKind, Resolution
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.server.activity_reporter import ActivityReporter, ReportedState
from authz.server.health import Health
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from tests.support.valkey import ValkeyServer, valkey

NOW = 1_795_380_700.0


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with valkey() as running:
        yield running


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await scene()

    asyncio.run(run())


def test_each_decision_is_told_once(server: ValkeyServer) -> None:
    """A report adds what was counted since the one before; what was counted while nobody read
    reports is told to nobody, and a connection is there only while somebody does.
    """
    options = RedisOptions(server.url, deployment=f"test-{uuid.uuid4().hex}", timeout=20)
    states = {"console": ReportedState(options, "redis", 7)}
    metrics, health = Metrics(), Health()
    recorder = Recorder(metrics, EventLog("json", io.StringIO()), 2)
    reporter = ActivityReporter(
        "authz serve", lambda: states["console"], recorder, health, lambda: NOW
    )

    async def scene() -> None:
        ledger = RedisLedger(options)
        store = ActivityStore(ledger.command, RedisKeys(options.deployment))
        try:
            count = metrics.decisions.labels("files", "allowed")
            for units in (3, 0, 4):
                count.inc(units)
                await reporter.report()
            states["console"] = ReportedState(None)
            count.inc(100)
            await reporter.report()
            states["console"] = ReportedState(options, "redis", 7)
            count.inc(1)
            await reporter.report()
            steps = await store.decisions(Resolution.HOUR, NOW)
            assert dict(steps[-1].counts) == {DecisionKind("files", "allowed"): 8}
            (said,) = await store.programs(NOW)
            assert (said.program, said.worker, said.mode) == ("authz serve", 2, "redis")
            assert (said.instance, said.certificate_until) == (health.instance, 7)
        finally:
            await reporter.aclose()
            await ledger.aclose()

    play(scene)


def test_a_redis_that_is_away_costs_a_report_and_is_logged_once() -> None:
    """Nothing is raised, nothing is sent again, and the log says so where it changes."""
    log = io.StringIO()
    metrics = Metrics()
    options = RedisOptions("redis://127.0.0.1:1", deployment="test", timeout=1)
    recorder = Recorder(metrics, EventLog("json", log))
    reporter = ActivityReporter(
        "authz serve", lambda: ReportedState(options), recorder, Health(), lambda: NOW
    )

    async def scene() -> None:
        metrics.decisions.labels("files", "allowed").inc()
        await reporter.report()
        await reporter.report()
        await reporter.aclose()
        recorder.log.flush()

    play(scene)
    assert log.getvalue().count("console_not_told") == 1
