"""Codes between a log-in and a page's own host, in a real Valkey."""

import asyncio

import pytest

from authz.ledger.bounded_scan import scan_page
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.login.store.page_codes import LIFETIME, PageCodes, PageHandover
from authz.tokens.sealing import Sealer
from tests.support.admin_page import john
from tests.support.valkey import ValkeyServer


@pytest.mark.attack("page-session-of-another")
def test_a_code_is_taken_once(store: ValkeyServer) -> None:
    """However many come at the same moment, and not after its minute; no name stands there."""

    async def play() -> None:
        redis, now = (
            RedisLedger(RedisOptions(store.url, deployment="page-codes", timeout=20)),
            [0.0],
        )
        try:
            sealer = Sealer(["k" * 32], lambda: now[0])
            codes = PageCodes(redis.command, RedisKeys("page-codes"), sealer)
            handover = PageHandover("https://grafana.example.com", "/", "b", john())
            await codes.issue("code", handover)
            found = await asyncio.gather(*(codes.take("code") for _ in range(16)))
            assert [each for each in found if each is not None] == [handover]
            assert await codes.take("another") is None
            await codes.issue("late", handover)
            now[0] += LIFETIME
            assert await codes.take("late") is None
        finally:
            await redis.aclose()

    asyncio.run(play())


@pytest.mark.attack("page-session-of-another")
def test_a_code_that_nobody_was_given_leaves_nothing(store: ValkeyServer) -> None:
    """Strangers may make up codes without an end: Redis holds none of them."""

    async def play() -> None:
        redis = RedisLedger(RedisOptions(store.url, deployment="made-up-codes", timeout=20))
        try:
            sealer = Sealer(["k" * 32], lambda: 0.0)
            codes = PageCodes(redis.command, RedisKeys("made-up-codes"), sealer)
            assert [await codes.take(f"made-up-{n}") for n in range(4)] == [None] * 4
            assert (await scan_page(redis.command, b"{made-up-codes}:*", 0, 1)).keys == ()
        finally:
            await redis.aclose()

    asyncio.run(play())
