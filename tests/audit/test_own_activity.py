"""What a person's own page shows of the trail."""

import asyncio

from authz.audit.chain import AuditChain
from authz.audit.record import AuditEvent, body
from authz.audit.store import TrailStore
from authz.core.principal import Person
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.login.web.own_activity import PersonsActivity
from tests.support.valkey import ValkeyServer

ADA = Person("https://auth.example.test", "ada")
BOB = Person("https://auth.example.test", "bob")


def test_a_person_sees_their_own_operations_and_nothing_else(
    server: ValkeyServer, deployment: str
) -> None:
    """Newest first; no event but decisions, nobody else's even from their own list, no rubbish."""

    async def go() -> None:
        ledger = RedisLedger(RedisOptions(server.url, deployment=deployment, timeout=20))
        keys = RedisKeys(deployment)
        activity = PersonsActivity(ledger.command, keys)
        assert await activity.lately(ADA) == []
        chain = AuditChain(b"k")
        records = [
            chain.add(body(event, (("subject", who), ("tool", tool), ("verdict", verdict))), 5.0)
            for event, who, tool, verdict in (
                (AuditEvent.DECISION, "ada", "read", "allow"),
                (AuditEvent.DECISION, "ada", "drop", "deny"),
                (AuditEvent.LOG_IN, "ada", "", ""),
                (AuditEvent.DECISION, "bob", "other", "allow"),
            )
        ]
        await TrailStore(ledger.command, keys).append(chain.name, records, [ADA] * 4, 86_400)
        found = await activity.lately(ADA)
        await ledger.aclose()
        assert [(each.what, each.allowed, each.time) for each in found] == [
            ("drop", False, 5),
            ("read", True, 5),
        ]

    asyncio.run(go())
    list_key = server.command("KEYS", f"{{{deployment}}}:audit-of:*")[0]
    server.command("DEL", list_key)
    server.command("SET", list_key, "rubbish")

    async def again() -> None:
        ledger = RedisLedger(RedisOptions(server.url, deployment=deployment, timeout=20))
        assert list(await PersonsActivity(ledger.command, RedisKeys(deployment)).lately(ADA)) == []
        await ledger.aclose()

    asyncio.run(again())
