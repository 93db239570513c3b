"""What a step-up records, asked for as the check asks: Redis itself, or its twin.

A record proves its method for its key, until its age is over or it is ended.
"""

import asyncio
from dataclasses import replace

import pytest

from authz.core.ledger import StepUpKey, StepUpMissing, StepUpTooOld, Taken
from authz.core.principal import Person
from authz.core.second_factor import Method, StepUpNeed
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.login.web.step_up import LIFETIME
from tests.ledger.queries import query
from tests.support.valkey import valkey

KEY = StepUpKey(Person("https://auth.example.test", "john"), "grant-1", "notes")
OTHERS = (
    replace(KEY, grant="grant-2"),
    replace(KEY, server="files"),
    replace(KEY, person=Person("https://auth.example.test", "bob")),
    replace(KEY, person=Person("https://other.example.test", "john")),
)


@pytest.mark.attack("step-up-of-another")
def test_record() -> None:
    """Recorded, asked for, too old for a strict rule, of nobody else, ended: each as it must be."""

    async def live(url: str) -> None:
        ledger = RedisLedger(RedisOptions(url, timeout=20))
        try:
            seconds, _ = await ledger.command("TIME")
            await ledger.record_step_up(KEY, Method.TOTP, int(seconds) - 100, LIFETIME)

            async def ask(key: StepUpKey, age: int | None) -> object:
                asked = query(need=StepUpNeed(Method.TOTP, age), key=key)
                return await ledger.take(asked)

            assert isinstance(await ask(KEY, None), Taken)
            assert isinstance(await ask(KEY, 300), Taken)
            assert isinstance(await ask(KEY, 60), StepUpTooOld)
            for other in OTHERS:
                assert isinstance(await ask(other, None), StepUpMissing)
            for other in OTHERS:
                await ledger.end_step_up(other)
            assert isinstance(await ask(KEY, None), Taken)
            await ledger.end_step_up(KEY)
            await ledger.end_step_up(KEY)
            assert isinstance(await ask(KEY, None), StepUpMissing)
        finally:
            await ledger.aclose()

    with valkey() as server:
        asyncio.run(live(server.url))
