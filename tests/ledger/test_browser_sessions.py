"""Sessions of browsers in a real Valkey or Redis."""

import asyncio

from authz.ledger.browser_sessions import SessionRecords
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger, RedisOptions
from tests.support.valkey import ValkeyServer

ORIGIN, OTHER = "https://grafana.example.com", "https://wiki.example.com"


def test_a_session_lives_until_it_is_ended(server: ValkeyServer, deployment: str) -> None:
    """It is found by its token and origin alone, expires, and is gone once it was ended."""

    async def play() -> None:
        redis = RedisLedger(RedisOptions(server.url, deployment=deployment, timeout=20))
        try:
            sessions = SessionRecords(redis.command, RedisKeys(deployment))
            await sessions.put(ORIGIN, "token", "sealed", 60)
            assert await sessions.get(ORIGIN, "token") == "sealed"
            assert await sessions.get(OTHER, "token") is None
            assert await sessions.get(ORIGIN, "toke") is None
            _, (key,) = await redis.command(
                "SCAN", 0, "MATCH", f"{{{deployment}}}:*", "COUNT", 10_000
            )
            assert b"token" not in key
            assert 0 < await redis.command("PTTL", key) <= 60_000
            await sessions.renew(ORIGIN, "token", "sealed anew")
            assert await sessions.get(ORIGIN, "token") == "sealed anew"
            assert 0 < await redis.command("PTTL", key) <= 60_000
            await sessions.renew(ORIGIN, "token", "sealed")
            await sessions.end(OTHER, "token")
            assert await sessions.get(ORIGIN, "token") == "sealed"
            await sessions.end(ORIGIN, "token")
            assert await sessions.get(ORIGIN, "token") is None
            # An answer about its groups that comes after it was ended.
            await sessions.renew(ORIGIN, "token", "sealed")
            assert await sessions.get(ORIGIN, "token") is None
        finally:
            await redis.aclose()

    asyncio.run(play())
