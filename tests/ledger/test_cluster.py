"""A real cluster: the slot moves, its owner dies, and each caller is answered and charged once."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from authz.core.ledger import Mode, Taken, UnavailableError
from authz.core.limits import digest
from authz.ledger.cluster import ClusterPrimary, ClusterView, key_slot, parse_slots
from authz.ledger.connections import parse_redis_url
from authz.ledger.faults import InvalidReplyError, RedisFault, ReplyError
from authz.ledger.keys import RedisKeys
from authz.ledger.primary import Redirect, RedisAddress
from authz.ledger.records import Revocation
from authz.ledger.redis import RedisOptions
from tests.ledger.load import ASKED, Load, load, report
from tests.ledger.queries import connected, left, query, take
from tests.support.cluster import Cluster, cluster, info, node_id
from tests.support.sentinels import await_that
from tests.support.valkey import ValkeyServer, valkey

SLOT = key_slot("authz")
PATIENT = 20.0
ANSWERS = {Mode.REDIS.value, Mode.LOCAL.value}
# Nothing ran where these were said.
HARMLESS = {RedisFault.TRY_AGAIN.value}


@pytest.fixture
def nodes(server_name: str) -> Iterator[Cluster]:
    """Run a cluster for one test, which may break it."""
    with cluster(server_name, SLOT) as found:
        yield found


def options(found: Cluster) -> RedisOptions:
    return RedisOptions(found.url, timeout=0.25)


def bucket(name: str) -> bytes:
    return RedisKeys("authz").bucket(digest(name))


def used(server: ValkeyServer) -> int:
    """Return what the bucket of the load holds on its owner."""
    (one,) = (each.bucket for each in ASKED.takes)
    value = server.command("GET", RedisKeys("authz").bucket(one)) or bytes(52)
    return sum(int.from_bytes(value[n : n + 4], "big") for n in range(8, 52, 4))


def charged_once(found: Load, owner: ValkeyServer) -> bool:
    """Tell whether every caller that Redis answered was charged, and no other that it refused."""
    lost = sum(each not in HARMLESS for each in found.faults)
    callers = 8  # whose calls the end of the load may have met under way, or one lost call
    return found.charged() <= used(owner) <= found.charged() + callers * (lost + 1)


@pytest.mark.attack("redis-failover")
def test_a_slot_that_moves_while_requests_run(nodes: Cluster) -> None:
    """As `reshard` moves it, key by key: TRYAGAIN, ASK, MOVED; nobody is refused or pays twice."""

    async def run() -> None:
        async with load(options(nodes)) as found:
            await found.until_redis()
            before = len(found.seen)
            await asyncio.to_thread(nodes.begin_move)
            for key in await asyncio.to_thread(nodes.keys):
                await asyncio.to_thread(nodes.move, [key])
                await found.more(20)
            await asyncio.to_thread(nodes.end_move)
            at = found.seen[-1].at
            back = await found.until_redis()
        report("cluster, slot moved key by key", found, before, back - at)
        assert set(found.said()) <= ANSWERS
        assert charged_once(found, nodes.other)

    asyncio.run(run())


@pytest.mark.attack("redis-failover")
def test_a_slot_that_moves_as_a_whole() -> None:
    """Valkey 9 moves slots in one step: nobody notices."""

    async def run(nodes: Cluster) -> None:
        async with load(options(nodes)) as found:
            await found.until_redis()
            before = len(found.seen)
            await asyncio.to_thread(
                nodes.owner.command,
                *("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", SLOT, SLOT),
                *("NODE", node_id(nodes.other)),
            )
            mine = node_id(nodes.other)
            await found.until(lambda: owner_id(nodes.other) == mine)
            at = found.seen[-1].at
            back = await found.until_redis()
        report("cluster, slot moved as a whole", found, before, back - at)
        assert set(found.said()) <= ANSWERS
        assert charged_once(found, nodes.other)

    with cluster("valkey", SLOT) as found:
        asyncio.run(run(found))


def owner_id(node: ValkeyServer) -> str:
    """Return the node that owns the slot as one node sees it."""
    for each in node.command("CLUSTER", "SLOTS"):
        if each[0] <= SLOT <= each[1]:
            found: bytes = each[2][2]
            return found.decode()
    return ""


@pytest.mark.attack("redis-failover")
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_an_owner_that_is_gone(nodes: Cluster, how: str) -> None:
    """Its replica is promoted within the cluster's own time, and followed without help."""

    async def run() -> None:
        async with load(options(nodes)) as found:
            await found.until_redis()
            before = len(found.seen)
            nodes.hurry()
            if how == "killed":
                nodes.owner.kill()
            else:
                nodes.owner.freeze()
            mine = node_id(nodes.replica)
            await found.until(lambda: owner_id(nodes.other) == mine)
            at = found.seen[-1].at
            back = await found.until_redis()
            report(f"cluster, owner {how}", found, before, back - at)
            assert used(nodes.replica) <= found.most_charged()
            if how == "frozen":
                nodes.owner.thaw()
                await found.until_redis(200)
                await found.until(lambda: role(nodes.owner) == "slave")
        assert set(found.said()) <= ANSWERS

    asyncio.run(run())


def role(server: ValkeyServer) -> str:
    try:
        return str(server.command("INFO", "replication")["role"])
    except redis.RedisError:
        return ""


# --- each of the redirections, and nothing else -----------------------------------------------


def test_a_slot_on_its_way(nodes: Cluster) -> None:
    """Keys apart: TRYAGAIN, and nothing is charged; all keys there: ASK; then MOVED."""

    async def run() -> None:
        async with connected(RedisOptions(nodes.url, timeout=PATIENT)) as ledger:
            one = query(take("first", quota=99), take("second", quota=99))
            assert left(await ledger.take(one)) == [98, 98]
            await ledger.revoke(b"token:x", Revocation())
            await asyncio.to_thread(nodes.begin_move)
            await asyncio.to_thread(nodes.move, [bucket("first")])
            with pytest.raises(UnavailableError) as raised:
                await ledger.take(one)
            assert raised.value.detail == RedisFault.TRY_AGAIN.value
            await asyncio.to_thread(nodes.move, nodes.keys())
            await ledger.command("SCRIPT FLUSH")
            assert left(await ledger.take(one)) == [97, 97]  # by ASK, the script loaded there
            assert ledger._pool._finder.current == RedisAddress("127.0.0.1", nodes.owner.port)
            await asyncio.to_thread(nodes.end_move)
            assert left(await ledger.take(one)) == [96, 96]  # by MOVED
            assert ledger._pool._finder.current == RedisAddress("127.0.0.1", nodes.other.port)
            # The slot has arrived: no connection is kept for its way.
            assert ledger._pool._nodes == {}

    asyncio.run(run())


@pytest.mark.attack("redis-readonly")
def test_a_replica_is_never_read(nodes: Cluster) -> None:
    """Where a replica is all that is named, it says who the owner is, and answers nothing else."""

    async def run() -> None:
        url = f"redis+cluster://127.0.0.1:{nodes.replica.port}"
        async with connected(RedisOptions(url, timeout=PATIENT)) as ledger:
            assert isinstance(await ledger.take(query()), Taken)
            finder = ledger._pool._finder
            # As if it were taken for the owner.
            finder.current = RedisAddress("127.0.0.1", nodes.replica.port)
            assert isinstance(await ledger.take(query()), Taken)
            assert finder.current == RedisAddress("127.0.0.1", nodes.owner.port)
        ran = nodes.replica.command("INFO", "commandstats").get("cmdstat_evalsha", {"calls": 0})
        assert int(ran["calls"]) == 0

    asyncio.run(run())


def test_a_slot_that_nobody_owns(nodes: Cluster) -> None:
    """CLUSTERDOWN has its name, and callers are answered again as soon as somebody owns it."""

    async def run() -> None:
        async with connected(RedisOptions(nodes.url, timeout=PATIENT)) as ledger:
            await ledger.take(query(take()))
            nodes.owner.command("CLUSTER", "DELSLOTS", SLOT)
            with pytest.raises(UnavailableError) as raised:
                await ledger.take(query(take()))
            assert raised.value.detail == RedisFault.CLUSTER_DOWN.value
            nodes.owner.command("CLUSTER", "ADDSLOTS", SLOT)
            await_that(lambda: info(nodes.owner)["cluster_state"] == "ok")
            assert isinstance(await ledger.take(query(take())), Taken)

    asyncio.run(run())


def test_a_user_without_the_right_to_ask(nodes: Cluster) -> None:
    """MOVED tells who owns the slot, too."""
    for each in nodes.nodes:
        rights = ("~{authz}:*", "+@all", "-cluster")
        each.command("ACL", "SETUSER", "authz", "on", ">secret", *rights)

    async def run() -> None:
        asked = RedisOptions(nodes.url, "authz", "secret", timeout=PATIENT)
        async with connected(asked) as ledger:
            assert isinstance(await ledger.take(query(take())), Taken)
        async with connected(replace(asked, password="x")) as ledger:
            with pytest.raises(UnavailableError) as raised:
                await ledger.take(query(take()))
            assert raised.value.detail == RedisFault.NOT_LOGGED_IN.value

    asyncio.run(run())


def test_no_node_and_no_cluster() -> None:
    """Both have a name of their own."""

    async def fault(port: int) -> str:
        url = f"redis+cluster://127.0.0.1:{port}"
        async with connected(RedisOptions(url, timeout=PATIENT)) as ledger:
            with pytest.raises(UnavailableError) as raised:
                await ledger.take(query(take()))
            return raised.value.detail

    with valkey(tcp=True) as server:
        assert asyncio.run(fault(server.port)) == RedisFault.NO_CLUSTER.value
    assert asyncio.run(fault(1)) == RedisFault.NO_NODE.value


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (f"MOVED {SLOT} 10.0.0.2:6380", Redirect()),
        (f"MOVED {SLOT} [::1]:6380", Redirect()),
        (f"MOVED {SLOT} :6380", Redirect()),
        (f"ASK {SLOT} 10.0.0.2:6380", Redirect(asking=RedisAddress("10.0.0.2", 6380))),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Redirect(pause=0.005)),
        # What may have run, or is of other keys.
        ("MOVED 1 10.0.0.2:6380", None),
        (f"MOVED {SLOT} 10.0.0.2", None),
        (f"ERR MOVED {SLOT} 10.0.0.2:6380", None),
        ("ERR Script attempted to access a non local key in a cluster node", None),
        ("CLUSTERDOWN The cluster is down", None),
        ("CROSSSLOT Keys in request don't hash to the same slot", None),
        ("LOADING x", None),
    ],
)
def test_what_may_be_sent_again(reply: str, found: Redirect | None) -> None:
    """Nothing but what a node refused before it ran."""
    finder = ClusterPrimary([parse_redis_url("redis://10.0.0.1")], SLOT)
    assert finder.redirect(ReplyError(reply)) == found


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ([], ClusterView(None, ())),
        ([[0, SLOT - 1, [b"a", 1]]], ClusterView(None, (RedisAddress("a", 1),))),
        (
            [[0, SLOT, [b"a", 1, b"id"], [b"b", 2, b"id", []]]],
            ClusterView(RedisAddress("a", 1), (RedisAddress("a", 1), RedisAddress("b", 2))),
        ),
        ([[SLOT, SLOT, [None, 1]]], ClusterView(RedisAddress("h", 1), (RedisAddress("h", 1),))),
        ([[SLOT, SLOT, [b"", 1]]], ClusterView(RedisAddress("h", 1), (RedisAddress("h", 1),))),
        ([[SLOT, SLOT, [b"?", 1]]], ClusterView(None, ())),
        (b"OK", None),
        ([1], None),
        ([[1, 2]], None),
        ([[1, 2, [b"a"]]], None),
        ([[1, 2, [b"a", b"b"]]], None),
        ([[b"1", 2, [b"a", 1]]], None),
    ],
)
def test_what_a_node_says(reply: object, found: ClusterView | None) -> None:
    """Owner and nodes, or no reply at all."""
    if found is None:
        with pytest.raises(InvalidReplyError):
            parse_slots(reply, SLOT, "h")
    else:
        assert parse_slots(reply, SLOT, "h") == found


def test_the_slot_of_a_deployment() -> None:
    """As redis-py computes it, of the hash tag."""
    for name in ("authz", "a", "test-1"):
        assert key_slot(name) == redis.crc.key_slot(RedisKeys(name).revocations)
