"""The trail of one process on a real server, also on one that is killed."""

import asyncio
import io
import json
from collections.abc import Mapping

from authz.audit.chain import TrailKeys
from authz.audit.record import AuditEvent, AuditRecord, read_record
from authz.audit.store import TrailBound, TrailStore
from authz.audit.trail import AuditTrail, TrailSettings
from authz.audit.verify import TrailVerifier
from authz.core.decision import Allow, Deny
from authz.core.ledger import Mode
from authz.core.mcp import Message, MessageKind
from authz.core.reason import Reason
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from tests.support.valkey import ValkeyServer
from tests.support.values import principal, request, server

KEYS = TrailKeys((b"k" * 32,))


def allowed(tool: str) -> Allow:
    message = Message(MessageKind.REQUEST, "tools/call", 1, tool, None)
    return Allow(server(), message, principal(), (), Mode.REDIS)


class Process:
    """One process that records, with its log and metrics."""

    def __init__(self, at: ValkeyServer, deployment: str, most: int = 1000) -> None:
        self.log = io.StringIO()
        self.recorder = Recorder(Metrics(), EventLog("json", self.log))
        self.options = RedisOptions(at.url, deployment=deployment)
        settings = TrailSettings(self.options, TrailBound(most, 86_400), KEYS)
        self.trail = AuditTrail(settings, self.recorder)

    def count(self, outcome: str) -> float | None:
        registry = self.recorder.metrics.registry
        return registry.get_sample_value("authz_audit_records_total", {"outcome": outcome})

    def events(self, name: str) -> list[Mapping[str, object]]:
        lines = map(json.loads, self.log.getvalue().splitlines())
        return [line for line in lines if line["event"] == name]

    async def stored(self) -> list[AuditRecord]:
        """Return what is in Redis, verified."""
        ledger = RedisLedger(
            RedisOptions(self.options.url, deployment=self.options.deployment, timeout=20)
        )
        store = TrailStore(ledger.command, RedisKeys(self.options.deployment))
        verifier, records = TrailVerifier(KEYS, await store.heads()), []
        async for each in store.forwards():
            assert not list(verifier.add(each.id, each.text, each.mac))
            records.append(read_record(each.text))
        assert not list(verifier.finish(await store.floors(KEYS)))
        await ledger.aclose()
        return records


def tools(records: list[AuditRecord]) -> list[str]:
    return [each.fields["tool"] for each in records if "tool" in each.fields]


def test_a_decision_is_a_record_a_moment_later(server: ValkeyServer, deployment: str) -> None:
    """Operations and refusals of known people one by one, strangers counted, lists not at all."""

    async def go() -> None:
        process = Process(server, deployment)
        process.trail.start()
        sent = request()
        process.trail.decision(allowed("read"), sent)
        known = Deny(Reason.TOOL_NOT_ALLOWED, "", None, allowed("drop").message, principal())
        process.trail.decision(known, sent)
        listed = Message(MessageKind.REQUEST, "tools/list", 1, None, None)
        process.trail.decision(Deny(Reason.RATE_LIMITED, message=listed), sent)
        for _ in range(1000):
            process.trail.decision(Deny(Reason.TOKEN_MISSING), sent)
        await process.trail.aclose()

        records = await process.stored()
        assert [each.event for each in records] == [
            AuditEvent.ANCHOR,
            AuditEvent.DECISION,
            AuditEvent.DECISION,
            AuditEvent.REFUSALS,
            AuditEvent.END,
        ]
        assert tools(records) == ["read", "drop"]
        assert records[3].fields["count"] == "1000"
        assert process.count("written") == 5
        assert process.count("lost") == 0
        (head,) = process.events("audit_head")
        assert (head["chain"], head["n"]) == (records[0].chain, 4)

    asyncio.run(go())


def test_a_killed_server_loses_nothing_that_the_queue_holds(
    fragile: ValkeyServer, deployment: str
) -> None:
    """Killed in the middle and started again: each record is there once, the chain whole."""
    fragile.kill()
    fragile.config |= {"appendonly": "yes", "appendfsync": "always"}
    fragile.start()

    async def go() -> None:
        process = Process(fragile, deployment, most=10_000)
        process.trail.start()
        for number in range(200):
            process.trail.decision(allowed(f"a{number}"), request())
        while not process.count("written"):  # noqa: ASYNC110 - real Redis, no event
            await asyncio.sleep(0)
        await asyncio.to_thread(fragile.kill)
        for number in range(300):
            process.trail.decision(allowed(f"b{number}"), request())
        while not process.events("audit_fault"):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        assert "is not written" in process.trail.note()
        await asyncio.to_thread(fragile.start)
        while process.trail.note():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        await process.trail.aclose()

        expected = [f"a{n}" for n in range(200)] + [f"b{n}" for n in range(300)]
        assert tools(await process.stored()) == expected
        assert process.count("lost") == 0
        assert len(process.events("audit_back")) == 1

    asyncio.run(go())


def test_processes_share_one_trail_and_its_bound(server: ValkeyServer, deployment: str) -> None:
    """Two processes write at once beyond the bound: it holds, and what is left verifies."""

    async def go() -> None:
        processes = [Process(server, deployment, most=1000) for _ in range(2)]
        for number in range(1500):
            for each in processes:
                each.trail.decision(allowed(f"t{number}"), request())
        for each in processes:
            each.trail.start()
        while any((each.count("written") or 0) < 1501 for each in processes):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.gather(*(each.trail.aclose() for each in processes))

        records = await processes[0].stored()
        assert 1000 <= len(records) <= 1000 + 2 * 64
        assert tools(records)[-1] == "t1499"

    asyncio.run(go())
