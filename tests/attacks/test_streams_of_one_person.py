"""Streams of one person, as the ledgers count them for decisions that are made of a real file."""

import asyncio

import pytest

from authz.config.load import read as read_settings
from authz.core.decision import (
    Allow,
    BearerRequest,
    Decision,
    Deny,
    PendingDecision,
    authorize,
    conclude,
    read,
)
from authz.core.ledger import Ledger
from authz.core.policy import Policy
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import HttpRequest
from authz.ledger.memory import MemoryLedger
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.resilient import OutageOptions, ResilientLedger
from tests.core.test_exchanges import listen
from tests.support.valkey import valkey
from tests.support.values import NOW, principal, request, rpc
from tests.tokens.token_factory import TokenClock

QUOTA = 6
SETTINGS = f"""\
issuer: {{url: https://auth.example.test}}
gateway:
  url: https://mcp.example.test
  streams_per_user: {QUOTA}
servers: {{files: {{upstream: 'http://files:8000/mcp'}}}}
"""
RULES = read_settings(SETTINGS, "authz.yaml", {}, secrets=False).policy
GET = request(method="GET")
CALL = request(rpc("tools/call", name="x"))
JOHN, JOHN_TOO = principal(), principal(client_id="cursor", token_id="11" * 32)
JANE = principal(subject="jane", token_id="22" * 32)


async def ask(
    ledger: Ledger, sent: HttpRequest = GET, who: Principal = JOHN, rules: Policy = RULES
) -> Decision:
    asked = read(sent, rules)
    assert isinstance(asked, BearerRequest)
    pending = authorize(asked, who, rules, NOW)
    assert isinstance(pending, PendingDecision)
    return conclude(pending, await ledger.take(pending.query))


async def opened(ledger: Ledger) -> int:
    """Open streams as john, by two clients and of both kinds, as many as there are; count them."""
    for number in range(10 * QUOTA):
        who = (JOHN, JOHN_TOO)[number % 2]
        decision = await ask(ledger, (GET, listen())[number // 2 % 2], who)
        if isinstance(decision, Deny):
            assert decision.reason is Reason.TOO_MANY_STREAMS
            return number
    raise AssertionError("nothing bounds them")


@pytest.mark.attack("streams-of-one-person")
def test_the_number_survives_the_worker_that_counted() -> None:
    """What one worker admitted the next one knows; all of it expires by itself."""

    async def run() -> None:
        with valkey() as redis:
            options = RedisOptions(redis.url, timeout=5.0)
            killed, other = RedisLedger(options), RedisLedger(options)
            assert await opened(killed) == QUOTA
            await killed.aclose()
            assert isinstance(await ask(other), Deny)
            assert isinstance(await ask(other, CALL), Allow)
            assert isinstance(await ask(other, GET, JANE), Allow)
            keys = redis.command("KEYS", "*")
            assert keys
            assert all(0 < redis.command("PTTL", key) <= 1.2 * 901_000 for key in keys)
            await other.aclose()

    asyncio.run(run())


@pytest.mark.attack("streams-of-one-person")
def test_there_is_room_again_once_the_streams_have_ended() -> None:
    """Not a moment before the first of them is as old as a stream gets."""

    async def run() -> None:
        clock = TokenClock(NOW)
        ledger = MemoryLedger(clock)
        assert await opened(ledger) == QUOTA
        clock.now += RULES.stream_recheck
        assert await opened(ledger) == 0
        clock.now += 0.11 * RULES.stream_recheck
        assert await opened(ledger) == QUOTA

    asyncio.run(run())


def test_what_is_refused_uses_nothing_else_up() -> None:
    """A client that asks again and again for a stream has its calls and handshakes all the same."""

    async def run() -> None:
        ledger = MemoryLedger(TokenClock(NOW))
        await opened(ledger)
        for _ in range(1000):
            assert isinstance(await ask(ledger), Deny)
        assert isinstance(await ask(ledger, CALL), Allow)
        assert isinstance(await ask(ledger, request(rpc("tools/list"))), Allow)

    asyncio.run(run())


@pytest.mark.attack("streams-of-one-person")
def test_while_redis_is_away_each_worker_gives_its_share() -> None:
    """All of them together no more than Redis would."""

    async def run() -> None:
        clock = TokenClock(NOW)
        with valkey() as redis:
            remote = RedisLedger(RedisOptions(redis.url, timeout=5.0))
            options = OutageOptions(workers=3, tolerated=0)
            ledger = ResilientLedger(remote, remote, MemoryLedger(clock), options, clock)
            await ledger.refresh()
            redis.kill()
            assert await opened(ledger) == QUOTA // 3
            assert isinstance(await ask(ledger, CALL), Allow)
            await remote.aclose()

    asyncio.run(run())
