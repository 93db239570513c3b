"""Sessions of the console as Redis keeps them, in a real Valkey."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import pytest

from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.login.protocol.members import digest
from authz.login.store.browser_sessions import BrowserSession, BrowserSessionStore
from authz.tokens.page_sessions import seal_login
from authz.tokens.sealing import Sealer
from tests.support.admin_page import john
from tests.support.valkey import ValkeyServer

_DEPLOYMENT: Final = "browser-sessions"
_KEYS: Final = RedisKeys(_DEPLOYMENT)
_ADA: Final = BrowserSession("s-ada", "ada", 3, 900, 1000, 1600, "a-token")
_SECRET, _OTHER = "s" * 43, "o" * 43


def played(
    server: ValkeyServer,
    scene: Callable[[BrowserSessionStore, RedisLedger, Sealer, list[float]], Awaitable[None]],
) -> None:
    async def play() -> None:
        redis, now = RedisLedger(RedisOptions(server.url, deployment=_DEPLOYMENT)), [1000.0]
        sealer = Sealer(["k" * 32], lambda: now[0])
        store = BrowserSessionStore(redis.command, _KEYS, sealer, "https://auth.example.com")
        try:
            await scene(store, redis, sealer, now)
        finally:
            await redis.aclose()

    asyncio.run(play())


def key(secret: str) -> bytes:
    return _KEYS.record("browser-session", digest(secret))


def test_a_session_is_its_secrets_until_its_end(store: ValkeyServer) -> None:
    """By that secret alone; not after its last second, nor once it was ended."""

    async def scene(
        sessions: BrowserSessionStore, redis: RedisLedger, _: Sealer, now: list[float]
    ) -> None:
        await sessions.put(_SECRET, _ADA)
        assert await sessions.find(_SECRET) == _ADA
        assert await sessions.find(_OTHER) is None
        assert _ADA.token.encode() not in await redis.command("GET", key(_SECRET))
        now[0] = 1600.0
        assert await sessions.find(_SECRET) is None
        now[0] = 1000.0
        await sessions.end(_SECRET)
        assert await sessions.find(_SECRET) is None

    played(store, scene)


@pytest.mark.attack("page-session-of-another")
def test_whoever_writes_to_redis_alone_makes_no_session(store: ValkeyServer) -> None:
    """Neither a copy of somebody's for a secret of one's own, nor a session of a page."""

    async def scene(
        sessions: BrowserSessionStore, redis: RedisLedger, sealer: Sealer, _: list[float]
    ) -> None:
        await sessions.put(_SECRET, replace(_ADA, subject="s-root"))
        copied = await redis.command("GET", key(_SECRET))
        of_page = seal_login(sealer, john(), "https://grafana.example.com", _OTHER, 60)
        for planted in (copied, of_page, b"x"):
            await redis.command("SET", key(_OTHER), planted)
            assert await sessions.find(_OTHER) is None
        await sessions.end(_OTHER)

    played(store, scene)
