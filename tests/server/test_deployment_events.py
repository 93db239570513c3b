"""What every worker sees is told by one of them, and by all where Redis does not answer."""

import asyncio
import io
from collections.abc import Callable
from typing import Final

from authz.config.model import RedisConfig
from authz.core.ledger import UnavailableError
from authz.core.principal import Person
from authz.ledger.keys import RedisKeys
from authz.ledger.records import Revocation
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.revocations import RevocationNote, grant_target, person_target, revoke
from authz.server.deployment_events import DeploymentEvents
from authz.server.ledger_lifecycle import LedgerLifecycle
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import EventFacts, SecurityEvent
from tests.support.valkey import ValkeyServer, valkey

_FACTS: Final = EventFacts(server="files", tool="read")


def _counted(recorder: Recorder, event: SecurityEvent) -> float:
    found = recorder.metrics.registry.get_sample_value(
        "authz_security_events_total", {"event": event.label}
    )
    assert found is not None
    return found


def _recorders(count: int) -> list[Recorder]:
    return [Recorder(Metrics(), EventLog("json", io.StringIO())) for _ in range(count)]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


class _SeenEvents(DeploymentEvents):
    """Count what a worker sees, told or not."""

    seen = 0

    def tell(self, event: SecurityEvent, fact: tuple[str, ...], facts: EventFacts) -> None:
        self.seen += 1
        super().tell(event, fact, facts)


def test_a_fact_is_told_once_by_several_workers() -> None:
    """Four workers of one deployment see two facts; of another deployment one is told too."""

    async def run(server: ValkeyServer) -> None:
        recorders = _recorders(5)
        ledgers = [RedisLedger(RedisOptions(server.url, timeout=60)) for _ in recorders]
        names = ["one"] * 4 + ["other"]
        workers = [
            DeploymentEvents(recorder, (ledger.command, RedisKeys(name)))
            for recorder, ledger, name in zip(recorders, ledgers, names, strict=True)
        ]
        for each in workers:
            for fact in ("a", "b", "a"):
                each.tell(SecurityEvent.TOOL_CHANGED, ("files", fact), _FACTS)
        await _until(lambda: not any(each.waiting for each in workers))
        told = [_counted(each, SecurityEvent.TOOL_CHANGED) for each in recorders]
        assert sum(told[:4]) == 2
        assert told[4] == 2
        for worker, ledger in zip(workers, ledgers, strict=True):
            await worker.aclose()
            await ledger.aclose()

    with valkey() as server:
        asyncio.run(run(server))


def test_what_redis_does_not_answer_is_told_all_the_same() -> None:
    """Without Redis, with one that fails, at the end, with too many at once: nothing is lost."""

    async def fails(*_: object) -> None:
        raise UnavailableError("redis", "away")

    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        keys = RedisKeys("test")
        alone, failing, hanging = _recorders(3)
        DeploymentEvents(alone).tell(SecurityEvent.TOOL_CHANGED, ("a",), _FACTS)
        assert _counted(alone, SecurityEvent.TOOL_CHANGED) == 1

        events = DeploymentEvents(failing, (fails, keys))
        events.tell(SecurityEvent.TOOL_CHANGED, ("a",), _FACTS)
        await _until(lambda: not events.waiting)
        assert _counted(failing, SecurityEvent.TOOL_CHANGED) == 1

        events = DeploymentEvents(hanging, (hangs, keys))
        for number in range(300):
            events.tell(SecurityEvent.TOOL_CHANGED, (str(number),), _FACTS)
        await events.aclose()
        assert _counted(hanging, SecurityEvent.TOOL_CHANGED) == 300

    asyncio.run(run())


def test_an_operators_revocation_is_told_and_a_log_in_that_ends_is_not() -> None:
    """Two workers read what was revoked: one tells, with the person; the past is no news."""

    async def run(server: ValkeyServer) -> None:
        recorders = _recorders(2)
        options = RedisOptions(server.url, timeout=60)
        store = RedisLedger(options)
        ada, bob = Person("https://auth.example.com", "ada"), Person("", "bob")
        await revoke(store, person_target(bob), None, None, RevocationNote(1, "root", ""))
        config = RedisConfig.model_validate({})
        workers = [LedgerLifecycle(config, options, 2, each) for each in recorders]
        claims = store.command, RedisKeys(options.deployment)
        events = [_SeenEvents(each, claims) for each in recorders]
        for worker, seen in zip(workers, events, strict=True):
            worker.events = seen
            worker.start()
        await _until(lambda: all(each.has_read for each in workers))
        await store.revoke(grant_target("", "g").field, Revocation())
        await revoke(store, person_target(ada), None, None, RevocationNote(2, "root", ""))

        def told() -> float:
            return sum(_counted(each, SecurityEvent.REVOCATION) for each in recorders)

        await _until(lambda: all(each.seen for each in events))
        await _until(lambda: not any(each.waiting for each in events))
        for each in workers:
            await each.aclose()
        assert [each.seen for each in events] == [1, 1]
        assert told() == 1
        await store.aclose()

    with valkey() as server:
        asyncio.run(run(server))
