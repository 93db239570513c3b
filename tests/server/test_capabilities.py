"""What clients declared: remembered without making anybody wait, and bounded."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from authz.core.ledger import UnavailableError
from authz.ledger.keys import RedisKeys
from authz.server.capabilities import LIFETIME, Capabilities
from tests.support.values import login_record, principal, visitor

ONE = visitor(login_record(grant="one"))


class Redis:
    """The three commands that are sent, in the hands of a test."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.sent: list[tuple[Any, ...]] = []
        self.away = False
        self.hanging = False

    async def __call__(self, *words: Any) -> Any:
        self.sent.append(words)
        if self.hanging:
            await asyncio.Event().wait()
        if self.away:
            raise UnavailableError("redis", "away")
        if words[0] == "SET":
            self.kept[words[1]] = words[2]
        if words[0] == "DEL":
            self.kept.pop(words[1], None)
        return self.kept.get(words[1])


class SetClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def play(scene: Callable[[Redis, Callable[..., Capabilities]], Awaitable[None]]) -> None:
    redis = Redis()

    async def run() -> None:
        made: list[Capabilities] = []

        def worker(clock: SetClock | None = None, largest: int = 100) -> Capabilities:
            made.append(Capabilities(redis, RedisKeys("test"), clock or SetClock(), largest))
            return made[-1]

        try:
            await scene(redis, worker)
        finally:
            for each in made:
                await each.aclose()

    asyncio.run(run())


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_one_worker_heard_every_worker_knows() -> None:
    """It is written to Redis with an end, and read where a worker has not heard it."""

    async def scene(redis: Redis, worker: Callable[..., Capabilities]) -> None:
        here, there = worker(), worker()
        here.hear(ONE, elicits=True)
        assert redis.sent == []
        await settled()

        assert redis.sent[0][3:] == ("EX", LIFETIME)
        assert await there.elicits(ONE)
        assert await there.elicits(ONE)
        assert await here.elicits(ONE)
        assert [words[0] for words in redis.sent] == ["SET", "GET"]

    play(scene)


def test_it_is_of_one_person_and_grant() -> None:
    """Another grant, person or issuer has declared nothing."""

    async def scene(_: Redis, worker: Callable[..., Capabilities]) -> None:
        here = worker()
        here.hear(ONE, elicits=True)
        others = [
            visitor(login_record(grant="two")),
            visitor(login_record(grant="one"), subject="bob"),
            visitor(login_record(grant="one"), issuer="https://other.test"),
            principal(),
        ]
        assert not any([await here.elicits(each) for each in others])

    play(scene)


def test_a_new_session_may_declare_less() -> None:
    """The last `initialize` counts, and a copy grows old."""

    async def scene(_: Redis, worker: Callable[..., Capabilities]) -> None:
        clock = SetClock()
        here, there = worker(clock), worker()
        here.hear(ONE, elicits=True)
        await settled()
        there.hear(ONE, elicits=False)
        await settled()

        assert not await there.elicits(ONE)
        assert await here.elicits(ONE)
        clock.now = 301.0
        assert not await here.elicits(ONE)

    play(scene)


def test_without_redis_nothing_was_declared_and_nobody_waits() -> None:
    """Words are always right: a Redis that fails or hangs costs 50 ms at most."""

    async def scene(redis: Redis, worker: Callable[..., Capabilities]) -> None:
        here = worker()
        redis.away = True
        here.hear(visitor(login_record(grant="two")), elicits=True)
        assert not await here.elicits(ONE)
        redis.away, redis.hanging = False, True
        async with asyncio.timeout(30):
            assert not await here.elicits(ONE)
        redis.hanging = False
        assert not await here.elicits(ONE)

    play(scene)


def test_memory_and_writes_are_bounded() -> None:
    """A thousand sessions at once leave a hundred copies, and sixty-four writes under way."""

    async def scene(redis: Redis, worker: Callable[..., Capabilities]) -> None:
        here = worker(largest=100)
        redis.hanging = True
        for number in range(1000):
            here.hear(visitor(login_record(grant=str(number))), elicits=True)
        await settled()

        assert len(here) == 100
        assert len(redis.sent) == 64

    play(scene)
