"""What asks Redis besides decisions: log-ins and capabilities, also while Redis is away."""

import asyncio
import io

import pytest

from authz.config.model import RedisConfig
from authz.core.ledger import Mode, UnavailableError
from authz.ledger.faults import RedisFault
from authz.ledger.redis import RedisOptions
from authz.server.ledger_lifecycle import LedgerLifecycle
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from tests.support.valkey import valkey

_FOREVER = 60.0  # what no test takes, however busy the machine


async def _detail(counting: LedgerLifecycle) -> str:
    """Return why one command had no answer; empty where it had."""
    assert counting.command is not None
    try:
        await counting.command("GET", b"a key")
    except UnavailableError as error:
        return error.detail
    return ""


async def _until(counting: LedgerLifecycle, mode: Mode) -> None:
    while counting.mode() != mode.value:  # noqa: ASYNC110 - its own task probes; it tells nobody
        await asyncio.sleep(0.01)


@pytest.mark.attack("redis-killed")
def test_a_log_in_is_looked_up_as_soon_as_redis_is_back() -> None:
    """It does not wait for the probe that tells the limits: a person who logs in then is let in."""

    async def run() -> None:
        with valkey() as server:
            recorder = Recorder(Metrics(), EventLog("json", io.StringIO()))
            options = RedisOptions(server.url, timeout=60)
            counting = LedgerLifecycle(RedisConfig(), options, 1, recorder)
            counting.start()
            try:
                async with asyncio.timeout(_FOREVER):
                    while await counting.problem():  # noqa: ASYNC110 - as in `_until`
                        await asyncio.sleep(0.01)
                    assert await _detail(counting) == ""
                    server.kill()
                    await _until(counting, Mode.LOCAL)
                    assert await _detail(counting) == RedisFault.CLOSED.value
                    server.start()
                    assert await _detail(counting) == ""
                    await _until(counting, Mode.REDIS)
            finally:
                await counting.aclose()

    asyncio.run(run())
