"""Redis with sentinels: a failover needs nobody, and no node is asked that is no primary."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest
import redis

from authz.core.ledger import Mode, Taken, UnavailableError
from authz.core.limits import digest
from authz.ledger.faults import InvalidReplyError, RedisFault
from authz.ledger.keys import RedisKeys
from authz.ledger.location import SentinelAccess
from authz.ledger.primary import RedisAddress
from authz.ledger.redis import RedisOptions
from authz.ledger.sentinel import SentinelPrimary, SentinelView, parse_sentinel_master
from tests.ledger.load import ASKED, load, report
from tests.ledger.queries import connected, query, take
from tests.support.sentinels import (
    SERVICE,
    WatchedService,
    await_that,
    sentinel,
    watched_service,
)
from tests.support.valkey import ValkeyServer, valkey

PATIENT = 20.0
ANSWERS = {Mode.REDIS.value, Mode.LOCAL.value}  # what a caller may see in mode `local`


@pytest.fixture
def service(server_name: str) -> Iterator[WatchedService]:
    """Run a service for one test, which may break it."""
    with watched_service(server_name) as found:
        yield found


def used(server: ValkeyServer) -> int:
    """Return what the bucket of the load holds on a server."""
    (bucket,) = (each.bucket for each in ASKED.takes)
    value = server.command("GET", RedisKeys("authz").bucket(bucket)) or bytes(52)
    return sum(int.from_bytes(value[n : n + 4], "big") for n in range(8, 52, 4))


def options(service: WatchedService) -> RedisOptions:
    return RedisOptions(service.url, timeout=0.25)


async def fail_over(service: WatchedService) -> ValkeyServer:
    """Return the new primary once the sentinels have one."""
    return await asyncio.to_thread(service.await_failover, service.nodes[0])


@pytest.mark.attack("redis-failover")
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_primary_that_is_gone(service: WatchedService, how: str) -> None:
    """Callers are answered all the time, and by the new primary as soon as there is one."""
    old = service.nodes[0]

    async def run() -> None:
        async with load(options(service)) as found:
            await found.until_redis()
            before = len(found.seen)
            if how == "killed":
                old.kill()
            else:
                old.freeze()
            new = await fail_over(service)
            at = found.seen[-1].at
            back = await found.until_redis()
            report(f"sentinel, primary {how}", found, before, back - at)
            assert used(new) <= found.most_charged()
            if how == "frozen":
                old.thaw()
                # It takes itself for the primary still, for some seconds, and nobody asks it.
                await found.until(lambda: role(old) != "")
                held = used(old)
                await found.until_redis(200)
                later = used(old)
                if role(old) == "master":  # on a slow machine it may have become a replica
                    assert later == held
        assert set(found.said()) <= ANSWERS

    asyncio.run(run())


def role(server: ValkeyServer) -> str:
    """Return what it takes itself for; nothing where it closes connections just then."""
    try:
        return str(server.command("INFO", "replication")["role"])
    except redis.RedisError:
        return ""


@pytest.mark.attack("redis-readonly")
def test_a_primary_that_stays_up_as_a_replica(service: WatchedService) -> None:
    """An ordered failover: the old primary answers READONLY, and is left for the new one."""

    async def run() -> None:
        async with load(options(service)) as found:
            await found.until_redis()
            before = len(found.seen)
            await_that(
                lambda: service.sentinels[0].command("SENTINEL", "FAILOVER", SERVICE) == b"OK"
            )
            new = await fail_over(service)
            at = found.seen[-1].at
            back = await found.until_redis()
            await found.until(lambda: sorted(map(role, service.nodes)) == ["master", "slave"])
            await found.until_redis()
        report("sentinel, ordered failover", found, before, back - at)
        assert set(found.said()) <= ANSWERS
        assert used(new) <= found.most_charged()

    asyncio.run(run())


# --- what sentinels say -----------------------------------------------------------------------


def a_master(place: ValkeyServer, epoch: int) -> bytes:
    """Return what a sentinel says that takes a server for the primary."""
    words = {"name": SERVICE, "ip": "127.0.0.1", "port": place.port, "config-epoch": epoch}
    parts = [str(part).encode() for pair in words.items() for part in pair]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)


@dataclass
class FakeSentinel:
    """Say always the same; nothing closes the connection.

    Attributes:
        reply: what is said.
        port: where.
    """

    reply: bytes | None
    port: int = 0
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        with suppress(ConnectionError):
            while await reader.read(65536):
                if self.reply is None:
                    break
                writer.write(self.reply)
        writer.close()


@asynccontextmanager
async def said_by(*replies: bytes | None) -> AsyncIterator[tuple[list[FakeSentinel], str]]:
    """Yield sentinels that say this, and the URL of their service."""
    async with AsyncExitStack() as stack:
        fakes = [FakeSentinel(each) for each in replies]
        for fake in fakes:
            listener = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
            await stack.enter_async_context(listener)
            fake.port = listener.sockets[0].getsockname()[1]
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in fakes)
        yield fakes, f"redis+sentinel://{hosts}/{SERVICE}"
        await asyncio.gather(*(task for fake in fakes for task in fake.serving))


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[ValkeyServer, ValkeyServer]]:
    """Run two primaries that know nothing of each other."""
    with valkey(tcp=True) as first, valkey(tcp=True) as second:
        yield first, second


def holds(server: ValkeyServer, name: str) -> bool:
    return bool(server.command("EXISTS", RedisKeys("authz").bucket(digest(name))))


@pytest.mark.attack("redis-failover")
def test_a_sentinel_that_was_cut_off_leads_nobody_back(
    two: tuple[ValkeyServer, ValkeyServer],
) -> None:
    """The newest failover counts, whoever answers first; an older one only by most sentinels."""
    old, new = two

    async def run() -> None:
        views = [a_master(old, 1), a_master(new, 2), a_master(old, 1)]
        async with (
            said_by(*views) as (fakes, url),
            connected(RedisOptions(url, timeout=PATIENT)) as ledger,
        ):
            await ledger.take(query(take("first")))
            assert (holds(old, "first"), holds(new, "first")) == (False, True)
            fakes[1].reply = fakes[2].reply = b"-LOADING\r\n"  # the old view is alone
            ledger._pool.abort()
            with pytest.raises(UnavailableError) as raised:
                await ledger.take(query(take("second")))
            assert raised.value.detail == RedisFault.NO_SENTINEL.value
            fakes[2].reply = a_master(old, 1)  # most of them: the service was set up anew
            await ledger.take(query(take("third")))
            assert (holds(old, "third"), holds(new, "third")) == (True, False)
            assert not holds(old, "second")

    asyncio.run(run())


@pytest.mark.attack("redis-failover")
def test_open_connections_are_left_once_another_node_is_the_primary(
    two: tuple[ValkeyServer, ValkeyServer],
) -> None:
    """Those too that nobody used meanwhile, though the old primary still takes writes."""
    old, new = two

    async def run() -> None:
        async with (
            said_by(a_master(old, 1)) as (fakes, url),
            connected(RedisOptions(url, timeout=PATIENT)) as ledger,
        ):
            await asyncio.gather(*(ledger.take(query(take("many", quota=99))) for _ in range(9)))
            assert ledger._pool.idle > 1
            fakes[0].reply = a_master(new, 2)
            finder = ledger._pool._finder
            assert isinstance(finder, SentinelPrimary)
            await finder._discover()
            assert ledger._pool.idle == 0
            await ledger.take(query(take("later")))
            assert (holds(old, "later"), holds(new, "later")) == (False, True)

    asyncio.run(run())


@pytest.mark.attack("redis-readonly")
def test_a_replica_is_not_asked_even_what_it_could_answer(server_name: str) -> None:
    """Its revocations may be behind: a query that charges nothing is refused too."""

    async def run(replica: ValkeyServer) -> None:
        async with (
            said_by(a_master(replica, 1)) as (_, url),
            connected(RedisOptions(url, timeout=PATIENT)) as ledger,
        ):
            with pytest.raises(UnavailableError) as raised:
                await ledger.take(query())
            assert raised.value.detail == RedisFault.READ_ONLY.value
        # Only who it is was asked.
        assert "cmdstat_evalsha" not in replica.command("INFO", "commandstats")

    with valkey(server_name, tcp=True) as primary, valkey(server_name, tcp=True) as replica:
        replica.command("REPLICAOF", "127.0.0.1", primary.port)
        asyncio.run(run(replica))


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        pytest.param(None, RedisFault.NO_SENTINEL, id="hangs up"),
        pytest.param(b"", RedisFault.NO_SENTINEL, id="says nothing"),
        pytest.param(b"*0\r\n", RedisFault.NO_SENTINEL, id="nothing in it"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", RedisFault.NO_SENTINEL, id="http"),
        pytest.param(b"*2\r\n$2\r\nip\r\n$1\r\nx\r\n", RedisFault.NO_SENTINEL, id="no port"),
        pytest.param(
            b"-ERR No such master with that name\r\n", RedisFault.NO_SERVICE, id="no such service"
        ),
        pytest.param(b"-NOAUTH x\r\n", RedisFault.SENTINEL_LOGIN, id="no password"),
        pytest.param(b"-WRONGPASS x\r\n", RedisFault.SENTINEL_LOGIN, id="wrong password"),
        pytest.param(b"-NOPERM x\r\n", RedisFault.SENTINEL_RIGHTS, id="no rights"),
    ],
)
def test_sentinels_that_do_not_say_where_it_is(reply: bytes | None, fault: RedisFault) -> None:
    """Each reason has its name, and a caller has its answer in time."""

    async def run() -> None:
        async with (
            said_by(reply, reply) as (_, url),
            connected(RedisOptions(url, timeout=PATIENT)) as ledger,
        ):
            with pytest.raises(UnavailableError) as raised:
                await ledger.take(query(take()))
            assert raised.value.detail == fault.value

    asyncio.run(run())


def test_one_sentinel_of_several_is_enough(two: tuple[ValkeyServer, ValkeyServer]) -> None:
    """Those that say nothing, or are gone, are not waited for."""

    async def run() -> None:
        async with said_by(b"", None, a_master(two[0], 1)) as (_, url):
            there = url.replace("://", "://127.0.0.1:1,")
            async with connected(RedisOptions(there, timeout=PATIENT)) as ledger:
                assert isinstance(await ledger.take(query(take("one"))), Taken)

    asyncio.run(run())


def test_sentinels_have_users_of_their_own(server_name: str) -> None:
    """The node's password is not told to them, nor theirs to the node."""
    users = "user default on >t ~* &* +@all\nuser guard on >for-sentinels -@all +sentinel|master\n"

    async def run(port: int) -> None:
        url = f"redis+sentinel://127.0.0.1:{port}/{SERVICE}"
        there = RedisOptions(url, password="for-nodes", timeout=PATIENT)
        right = replace(there, sentinel=SentinelAccess("guard", "for-sentinels"))
        async with connected(right) as ledger:
            assert isinstance(await ledger.take(query(take())), Taken)
        for wrong in (there, replace(there, sentinel=SentinelAccess("guard", "x"))):
            async with connected(wrong) as ledger:
                with pytest.raises(UnavailableError) as raised:
                    await ledger.take(query(take()))
                assert raised.value.detail == RedisFault.SENTINEL_LOGIN.value
        assert "for-sentinels" not in repr(right)

    with valkey(server_name, tcp=True, start=False, requirepass="for-nodes") as node:
        node.start()
        with sentinel(server_name, node.port, users=users) as guard:
            asyncio.run(run(guard.port))


@pytest.mark.parametrize(
    "reply",
    [None, b"OK", 1, [], [b"ip"], [b"ip", b"x", b"port", b"y"], [b"ip", 1], [b"\xff", None]],
)
def test_what_is_no_primary(reply: object) -> None:
    """Anything else than a sentinel's record of a service is no reply."""
    with pytest.raises(InvalidReplyError):
        parse_sentinel_master(reply)


def test_a_primary() -> None:
    """Its address, and the epoch of the failover that made it."""
    words = [b"ip", b"10.0.0.1", b"port", b"6380", b"config-epoch", b"7", b"flags", b"master"]
    assert parse_sentinel_master(words) == SentinelView(7, RedisAddress("10.0.0.1", 6380))
