"""The addresses of a host: looked up once at a time, and kept while that does not end."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

import pytest

from authz.ledger.addresses import HostAddresses, look_up

OLD, NEW = ("192.0.2.1",), ("192.0.2.2", "2001:db8::2")


class Resolver:
    """Answer look-ups as told; hang where there is nothing to tell."""

    def __init__(self) -> None:
        self.told: Sequence[str] | OSError | None = OLD
        self.asked = 0
        self.changed = asyncio.Event()

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        assert (host, port) == ("redis", 6379)
        self.asked += 1
        while self.told is None:
            await self.changed.wait()
        if isinstance(self.told, OSError):
            raise self.told
        return self.told

    def tell(self, told: Sequence[str] | OSError | None) -> None:
        self.told = told
        if told is None:
            self.changed.clear()
        else:
            self.changed.set()


def play(scene: Callable[[Resolver, HostAddresses], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30):
            resolver = Resolver()
            addresses = HostAddresses("redis", 6379, resolver)
            await scene(resolver, addresses)
            cancelled = addresses.cancel()
            if cancelled:
                await asyncio.wait(cancelled)

    asyncio.run(run())


def test_a_name_that_moved_is_followed() -> None:
    """Each look-up counts: nothing is kept where a newer answer can be had."""

    async def scene(resolver: Resolver, addresses: HostAddresses) -> None:
        assert await addresses.find() == OLD
        resolver.tell(NEW)
        assert await addresses.find() == NEW

    play(scene)


@pytest.mark.attack("redis-killed")
def test_while_a_look_up_hangs_the_last_address_holds() -> None:
    """Nobody waits for it, it is begun once, and what it ends with counts from then on."""

    async def scene(resolver: Resolver, addresses: HostAddresses) -> None:
        assert await addresses.find() == OLD
        resolver.tell(None)
        assert [await addresses.find() for _ in range(3)] == [OLD] * 3
        assert resolver.asked == 2
        resolver.tell(NEW)
        assert await addresses.find() == NEW
        assert resolver.asked == 2

    play(scene)


def test_without_an_address_a_look_up_is_waited_for() -> None:
    """The first one: who is cancelled meanwhile leaves it to the next."""

    async def scene(resolver: Resolver, addresses: HostAddresses) -> None:
        resolver.tell(None)
        impatient = asyncio.create_task(addresses.find())
        while resolver.asked == 0:  # noqa: ASYNC110 - the event is in the code under test
            await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait({impatient})
        resolver.tell(NEW)
        assert await addresses.find() == NEW
        assert resolver.asked == 1

    play(scene)


def test_a_resolver_that_cannot_tell_takes_no_address_away() -> None:
    """A resolver without an answer says nothing of the name."""

    async def scene(resolver: Resolver, addresses: HostAddresses) -> None:
        assert await addresses.find() == OLD
        resolver.tell(socket.gaierror(socket.EAI_AGAIN, "later"))
        assert await addresses.find() == OLD

    play(scene)


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_NODATA])
def test_a_name_that_does_not_exist_has_no_address(code: int) -> None:
    """What is at the last address by now is not ours to log in to."""

    async def scene(resolver: Resolver, addresses: HostAddresses) -> None:
        assert await addresses.find() == OLD
        resolver.tell(socket.gaierror(code, "gone"))
        for _ in range(2):
            with pytest.raises(socket.gaierror):
                await addresses.find()
        resolver.tell(NEW)
        assert await addresses.find() == NEW

    play(scene)


def test_the_system_is_asked() -> None:
    """An address is its own, and each is told once."""
    assert asyncio.run(look_up("127.0.0.1", 6379)) == ("127.0.0.1",)
