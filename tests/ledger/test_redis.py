"""Redis broken in every way that operators meet: always a fault in time, never a second charge."""

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import redis

from authz.core.ledger import OverLimit, Revoked, Taken, UnavailableError
from authz.ledger.addresses import HostAddresses
from authz.ledger.commands import command
from authz.ledger.connections import TlsFiles, parse_redis_url
from authz.ledger.data_loss import DataSetTracker, RevocationChange
from authz.ledger.deadline import Deadline
from authz.ledger.faults import (
    InvalidReplyError,
    NotConnectedError,
    RedisFault,
    ReplyError,
    fault_of,
)
from authz.ledger.keys import EVERYTHING, token_field
from authz.ledger.records import Revocation, ScriptNotLoadedError
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.revocations import CLOCK_MARGIN, prune
from authz.ledger.script import Script, run_script
from authz.setup import certificates
from tests.ledger.queries import DAY, connected, left, patient, query, take
from tests.support.valkey import ValkeyServer, valkey

FOREVER = 180.0  # what no test takes, however busy the machine
SOON = 60.0  # what no fault takes: a thousand time-outs


def impatient(server: ValkeyServer, deployment: str = "authz") -> RedisOptions:
    """Return options whose time-outs are met soon."""
    return RedisOptions(server.url, deployment=deployment, timeout=0.05)


async def refuses(ledger: RedisLedger) -> bool:
    """Tell whether a take ends as a fault of Redis."""
    try:
        async with asyncio.timeout(SOON):
            await ledger.take(query(take(quota=1000)))
    except UnavailableError:
        return True
    return False


async def recovers(ledger: RedisLedger) -> None:
    """Return when a take passes; nothing was restarted or told."""
    async with asyncio.timeout(FOREVER):
        while await refuses(ledger):
            pass


async def charged(ledger: RedisLedger, name: str = "bucket", quota: int = 1000) -> int:
    """Return how many units a bucket holds, by charging one more."""
    (remaining,) = left(await ledger.take(query(take(name, quota=quota))))
    return quota - remaining - 1


class Proxy:
    """Stand between the ledger and its server, and go wrong on request.

    Attributes:
        target: where new connections lead to.
        lost: what becomes of the answers to an EVALSHA, which is carried out in any case:
            nobody hears of it, or the connection is closed.
        calls: how many EVALSHA were sent.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.lost: Literal["", "silence", "hang-up"] = ""
        self.calls = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, up = await asyncio.open_unix_connection(self.target)
        answers = asyncio.create_task(self._answers(upstream, writer))
        try:
            while data := await reader.read(65536):
                self.calls += data.count(b"EVALSHA")
                up.write(data)
        finally:
            # What was sent is carried out, though nobody waits for it any more.
            up.write_eof()
            await answers
            up.close()
            await up.wait_closed()

    async def _answers(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await upstream.read(65536):
            if self.lost == "hang-up":
                writer.close()
            elif not self.lost and not writer.is_closing():
                writer.write(data)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def handled(handler: Handler) -> AsyncIterator[Handler]:
    """Yield the handler for a server; at the end, all that it began has ended."""
    tasks = set[asyncio.Task[None]]()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    yield tracked
    await asyncio.gather(*tasks)


@asynccontextmanager
async def proxied(server: ValkeyServer) -> AsyncIterator[tuple[Proxy, str]]:
    """Yield a proxy before the server, and its URL."""
    proxy = Proxy(server.socket)
    path = server.directory / "proxy"
    path.unlink(missing_ok=True)
    async with handled(proxy.serve) as handler, await asyncio.start_unix_server(handler, path):
        yield proxy, f"unix://{path}"


# --- charged at most once ---------------------------------------------------------------------


@pytest.mark.attack("time-out-no-second-charge")
@pytest.mark.parametrize("lost", ["silence", "hang-up"])
def test_a_call_whose_answer_is_lost_is_charged_once(
    server: ValkeyServer, deployment: str, lost: Literal["silence", "hang-up"]
) -> None:
    """Redis carried it out, the answer did not come: a fault, and one charge."""

    async def run() -> None:
        async with proxied(server) as (proxy, url):
            options = RedisOptions(url, deployment=deployment, timeout=0.3)
            async with connected(options) as ledger:
                await ledger.take(query())  # the script is loaded, the connection warm
                proxy.lost = lost
                sent = proxy.calls
                for _ in range(3):
                    assert await refuses(ledger)
                sent = proxy.calls - sent
        assert 1 <= sent <= 3
        async with connected(patient(server, deployment)) as ledger:
            assert await charged(ledger) == sent

    asyncio.run(run())


@pytest.mark.attack("cancelled-caller")
@pytest.mark.parametrize("turns", [*range(12), 20, 40, 80])
def test_a_cancelled_caller_changes_nobody_elses_verdict(
    server: ValkeyServer, deployment: str, turns: int
) -> None:
    """Wherever callers are cancelled, the others get their own answers, and none pays twice."""

    async def run() -> None:
        options = replace(patient(server, deployment), connections=3)
        async with connected(options) as ledger:
            # Every caller has a cost of its own, so that nobody's answer fits another's question.
            asked = {cost: query(take(str(cost), quota=100, cost=cost)) for cost in range(1, 41)}
            tasks = {cost: asyncio.create_task(ledger.take(one)) for cost, one in asked.items()}
            for _ in range(turns):
                await asyncio.sleep(0)
            gone = [cost for cost, task in tasks.items() if cost % 2 and task.cancel()]
            await asyncio.wait(tasks.values())

            for cost, task in tasks.items():
                if not task.cancelled():
                    assert left(task.result()) == [100 - cost]
            for cost in gone:
                assert await charged(ledger, str(cost), 100) in (0, cost)

    asyncio.run(run())


@pytest.mark.attack("cancelled-caller")
def test_an_answer_that_has_arrived_is_no_time_out(server: ValkeyServer, deployment: str) -> None:
    """Where this process was too busy to look, what Redis answered in time still counts."""

    async def run() -> None:
        async with connected(RedisOptions(server.url, deployment=deployment)) as ledger:
            ledger._deadline = Deadline(FOREVER, patient=True)
            await ledger.take(query())  # a warm connection, the script loaded
            ledger._deadline = Deadline(0.3, patient=True)
            caller = asyncio.create_task(ledger.take(query(take())))
            while not await asked(server):  # noqa: ASYNC110 - the event is in another process
                await asyncio.sleep(0)
            hold_the_loop(0.4)

            assert left(await caller) == [2]

    async def asked(server: ValkeyServer) -> bool:
        return bool(server.command("KEYS", f"*{deployment}*limit*"))

    asyncio.run(run())


def hold_the_loop(seconds: float) -> None:
    """Let nothing else run in this process for longer than a time-out."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.attack("limit-by-many-groups")
def test_as_many_limits_as_many_groups_bring_are_counted(
    server: ValkeyServer, deployment: str
) -> None:
    """Of a person in 256 groups, under as many rates per group as check-config lets meet."""
    takes = [take(f"group {n}", quota=2) for n in range(256 * 4)]

    async def scenario() -> None:
        async with connected(patient(server, deployment)) as ledger:
            kinds = [type(await ledger.take(query(*takes))) for _ in range(3)]
            assert kinds == [Taken, Taken, OverLimit]

    asyncio.run(scenario())


@pytest.mark.attack("worker-clocks")
def test_no_clock_but_redis_own_counts(
    server: ValkeyServer, deployment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers whose clocks are years apart share one count."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            remaining = []
            for year in (1970, 2000, 2100):
                moment = (year - 1970) * 365.25 * DAY
                monkeypatch.setattr(time, "time", lambda moment=moment: moment)
                remaining += left(await ledger.take(query(take(quota=3))))
            assert remaining == [2, 1, 0]

    asyncio.run(run())


@pytest.mark.attack("noscript")
def test_a_forgotten_script_is_loaded_again_and_charged_once(
    server: ValkeyServer, deployment: str
) -> None:
    """After SCRIPT FLUSH all callers go on, each charged exactly once."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            for _ in range(3):
                await ledger.command("SCRIPT FLUSH")
                one = query(take(quota=1000))
                answers = await asyncio.gather(*(ledger.take(one) for _ in range(50)))
                assert all(isinstance(answer, Taken) for answer in answers)
            assert await charged(ledger) == 150

    asyncio.run(run())


def test_a_fault_has_its_cause(server: ValkeyServer, deployment: str) -> None:
    """What Redis replied is the cause of the fault, compiled too: doctor and commands read it."""

    async def run() -> None:
        key = b"{%s}:text" % deployment.encode()
        async with connected(patient(server, deployment)) as ledger:
            await ledger.command("SET", key, b"-")
            with pytest.raises(UnavailableError) as caught:
                await ledger.command("HGET", key, b"-")
            cause = caught.value.__cause__
            assert isinstance(cause, ReplyError)
            assert fault_of(cause) is RedisFault.WRONG_TYPE

    asyncio.run(run())


@pytest.mark.attack("noscript")
def test_an_unknown_script_is_told_by_its_type(server: ValkeyServer, deployment: str) -> None:
    """Whoever sends a script again asks what kind of fault it was, not how it is worded."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            with pytest.raises(ScriptNotLoadedError):
                await ledger.command("EVALSHA", "0" * 40, 0)
            with pytest.raises(UnavailableError) as raised:
                await ledger.command("EVALSHA", "0" * 40, 1)
            assert not isinstance(raised.value, ScriptNotLoadedError)
            script = Script("return ARGV[1]")
            for _ in range(2):
                await ledger.command("SCRIPT FLUSH")
                assert await run_script(ledger.command, script, (), "once") == b"once"

    asyncio.run(run())


# --- away, and back by itself -----------------------------------------------------------------


@pytest.mark.attack("redis-refused")
def test_a_server_that_is_not_there_yet(server_name: str) -> None:
    """Redis may start after the service."""

    async def run(server: ValkeyServer) -> None:
        async with connected(impatient(server)) as ledger:
            assert await refuses(ledger)
            server.start()
            await recovers(ledger)

    for tcp in (False, True):
        with valkey(server_name, start=False, tcp=tcp) as server:
            asyncio.run(run(server))


@pytest.mark.attack("redis-killed")
@pytest.mark.attack("noscript")
def test_a_killed_server(fragile: ValkeyServer) -> None:
    """A server that died and came back without scripts and counts is used again."""

    async def run() -> None:
        async with connected(impatient(fragile)) as ledger:
            await recovers(ledger)
            fragile.kill()
            assert await refuses(ledger)
            fragile.start()
            await recovers(ledger)

    asyncio.run(run())


@pytest.mark.attack("noscript")
@pytest.mark.parametrize("tcp", [False, True])
def test_a_server_that_restarted_between_two_calls(server_name: str, tcp: bool) -> None:
    """The connections that it closed are replaced, the script is loaded, and nobody notices."""

    async def run(server: ValkeyServer) -> None:
        async with connected(patient(server, "authz")) as ledger:
            one = query(take(quota=1000))
            await asyncio.gather(*(ledger.take(one) for _ in range(20)))
            server.restart()
            async with asyncio.timeout(FOREVER):
                while ledger._pool.idle:  # noqa: ASYNC110 - the event is in another process
                    await asyncio.sleep(0)
            answers = await asyncio.gather(*(ledger.take(one) for _ in range(20)))
            assert all(isinstance(answer, Taken) for answer in answers)
            assert await charged(ledger) == 20

    with valkey(server_name, tcp=tcp) as server:
        asyncio.run(run(server))


@pytest.mark.attack("redis-frozen")
def test_a_frozen_server(fragile: ValkeyServer) -> None:
    """A server that answers nothing (SIGSTOP) is a fault for all callers, not only the first."""

    async def run() -> None:
        async with connected(impatient(fragile)) as ledger:
            await recovers(ledger)
            before = ledger._lost_calls  # a busy machine's Redis may have been late until here
            fragile.freeze()
            assert all(await asyncio.gather(*(refuses(ledger) for _ in range(200))))
            # Those who waited for a connection did not each wait for a time-out of their own.
            assert ledger._lost_calls - before <= 16
            assert await refuses(ledger)
            fragile.thaw()
            await recovers(ledger)

    asyncio.run(run())


@pytest.mark.attack("redis-oom")
def test_a_full_server_charges_no_half(fragile: ValkeyServer) -> None:
    """Out of memory, no limit of several is charged, and what denies is still told."""

    async def run() -> None:
        async with connected(patient(fragile, "authz")) as ledger:
            old, small, new = take("old"), take("small", quota=1), take("new")
            await ledger.take(query(old, small))
            fragile.command("CONFIG", "SET", "maxmemory", "1")

            for takes in ((old, new), (new, old), (old,)):
                with pytest.raises(UnavailableError):
                    await ledger.take(query(*takes))
            assert isinstance(await ledger.take(query(old, small)), OverLimit)

            fragile.command("CONFIG", "SET", "maxmemory", "0")
            assert left(await ledger.take(query(old, new))) == [1, 2]

    asyncio.run(run())


@pytest.mark.attack("redis-readonly")
def test_a_failover_is_followed(server_name: str) -> None:
    """A connection whose server became a replica is given up: the next one finds the primary."""

    async def run(first: ValkeyServer, second: ValkeyServer) -> None:
        async with proxied(first) as (proxy, url):
            options = replace(patient(first, "authz"), url=url)
            async with connected(options) as ledger:
                assert not await refuses(ledger)
                first.command("REPLICAOF", "127.0.0.1", "1")
                proxy.target = second.socket

                assert await refuses(ledger)
                assert not await refuses(ledger)

    with valkey(server_name) as first, valkey(server_name) as second:
        asyncio.run(run(first, second))


@pytest.mark.attack("redis-failover")
def test_a_failover_by_name_is_followed_by_every_command(server_name: str) -> None:
    """The old primary stays up as a replica, and the name leads to the new one: whatever is
    written next says READONLY once, and goes to the new primary from then on. So do plain
    commands, which the log-in's stores send, and the script for many.
    """

    async def run(first: ValkeyServer, second: ValkeyServer) -> None:
        for write in _WRITES:
            first.command("REPLICAOF", "NO", "ONE")
            async with proxied(first) as (proxy, url):
                options = replace(patient(first, "authz"), url=url)
                async with connected(options) as ledger:
                    await write(ledger)
                    first.command("REPLICAOF", "127.0.0.1", "1")
                    proxy.target = second.socket

                    with pytest.raises(UnavailableError) as raised:
                        await write(ledger)
                    assert raised.value.detail == RedisFault.READ_ONLY.value
                    await write(ledger)

    with valkey(server_name) as first, valkey(server_name) as second:
        asyncio.run(run(first, second))


async def _write_by_command(ledger: RedisLedger) -> None:
    await ledger.command("SET", "{authz}:x", "1", "EX", 10)


async def _write_by_script(ledger: RedisLedger) -> None:
    await ledger.take(query(take(quota=1000)))


async def _write_by_script_for_many(ledger: RedisLedger) -> None:
    calls = [ledger.call(query(take(quota=1000))) for _ in range(3)]
    for each in await ledger.answer(calls):
        if isinstance(each, UnavailableError):
            raise each


async def _write_a_revocation(ledger: RedisLedger) -> None:
    await ledger.revoke(token_field("x"), Revocation())


_WRITES = (_write_by_command, _write_by_script, _write_by_script_for_many, _write_a_revocation)


@pytest.mark.attack("redis-loading")
def test_a_server_that_still_loads(server_name: str) -> None:
    """A server that reads its file answers nothing yet, and then everything."""

    async def run(server: ValkeyServer) -> None:
        async with connected(patient(server, "authz")) as ledger:
            assert await refuses(ledger)
            with suppress(redis.ResponseError):  # Redis 6 refuses this while it loads
                server.command("CONFIG", "SET", "key-load-delay", "0")
            await recovers(ledger)

    with valkey(server_name, rdbcompression="no") as server:
        # It looks up from loading every two megabytes, and between two keys takes a rest.
        for n in range(10):
            server.command("SET", f"k{n}", bytes(2**21 + 1))
        server.command("SAVE")
        server.kill()
        server.config["key-load-delay"] = "100000"
        server.start(wait=False)
        while not loads(server):
            pass
        asyncio.run(run(server))


def loads(server: ValkeyServer) -> bool:
    try:
        server.command("PING")
    except redis.exceptions.BusyLoadingError:
        return True
    except redis.RedisError:
        return False
    raise AssertionError("it had loaded before anybody could look")


@pytest.mark.attack("redis-auth-changed")
def test_a_changed_password(server_name: str) -> None:
    """With a password that is no longer right nobody is answered; with the right one all are."""

    async def run(server: ValkeyServer) -> None:
        options = replace(patient(server, "authz"), password="old")
        assert "old" not in repr(options)
        async with connected(options) as ledger:
            assert not await refuses(ledger)
            server.command("CONFIG", "SET", "requirepass", "new", password="old")
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no", password="new")
            assert await refuses(ledger)
            server.command("CONFIG", "SET", "requirepass", "old", password="new")
            await recovers(ledger)

    with valkey(server_name, start=False, requirepass="old") as server:
        server.start(wait=False)
        while not answers(server, "old"):
            pass
        asyncio.run(run(server))


def answers(server: ValkeyServer, password: str) -> bool:
    with suppress(redis.RedisError):
        return bool(server.command("PING", password=password))
    return False


@pytest.mark.attack("cancelled-caller")
@pytest.mark.parametrize("turns", range(16))
def test_wherever_a_caller_is_cancelled_nothing_leaks(fragile: ValkeyServer, turns: int) -> None:
    """On a new connection, in its log-in, in the script's loading, in a call: all comes back."""
    fragile.command("CONFIG", "SET", "requirepass", "secret")

    async def run() -> None:
        options = replace(patient(fragile, "authz"), password="secret", connections=2)
        async with connected(replace(options, url=f"{options.url}?db=3")) as ledger:
            for _ in range(3):
                tasks = [asyncio.create_task(ledger.take(query())) for _ in range(3)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                assert ledger._pool.in_use == 0
                assert ledger._pool.size <= 2
                assert ledger._slots._value == 2
            assert isinstance(await ledger.take(query()), Taken)
            assert ledger._lost_calls == 0

    asyncio.run(run())


def test_a_password_that_is_not_written_is_named(fragile: ValkeyServer) -> None:
    """Redis answers a long call of who has not logged in with a protocol error, not with NOAUTH."""
    fragile.command("CONFIG", "SET", "requirepass", "secret")

    async def run() -> None:
        async with connected(patient(fragile, "authz")) as ledger:
            with pytest.raises(UnavailableError) as caught:
                await ledger.take(query())
            assert caught.value.detail == RedisFault.NOT_LOGGED_IN.value

    asyncio.run(run())


def test_a_database_of_its_own(fragile: ValkeyServer) -> None:
    """The number in the URL is selected on every connection, those that replace others too."""

    async def run() -> None:
        options = patient(fragile, "authz")
        async with connected(replace(options, url=f"{options.url}?db=3")) as ledger:
            for _ in range(2):
                await asyncio.gather(*(ledger.take(query(take(quota=99))) for _ in range(5)))
                ledger._pool.abort()
            assert await charged(ledger, quota=99) == 10
        async with connected(options) as other:
            assert await charged(other, quota=99) == 0

    asyncio.run(run())


def test_a_call_over_tls(server: ValkeyServer, deployment: str, tmp_path: Path) -> None:
    """With the authority that the URL names a server is believed, and with no other."""
    files = certificates.write_certificates(tmp_path, ["127.0.0.1"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate, files.key)

    async def run() -> None:
        proxy = Proxy(server.socket)
        async with (
            handled(proxy.serve) as handler,
            await asyncio.start_server(handler, "127.0.0.1", 0, ssl=tls) as listener,
        ):
            port = listener.sockets[0].getsockname()[1]
            options = replace(patient(server, deployment), url=f"rediss://127.0.0.1:{port}")
            trusting = replace(options, url=f"{options.url}?ssl_ca_certs={files.authority}")
            async with connected(trusting) as ledger:
                one = query(take(quota=1000))
                await asyncio.gather(*(ledger.take(one) for _ in range(20)))
                assert await charged(ledger) == 20
            async with connected(options) as ledger:
                assert await refuses(ledger)

    asyncio.run(run())


def test_an_acl_user(fragile: ValkeyServer) -> None:
    """A user that may do no more than the ledger needs is enough."""
    fragile.command(
        "ACL", "SETUSER", "authz", "on", ">secret", "~{authz}:*",
        "+evalsha", "+script|load", "+time", "+hmget", "+mget", "+exists", "+set", "+setrange",
        "+pttl", "+pexpire", "+hgetall", "+hset", "+hdel", "+ping", "+info",
    )  # fmt: skip

    async def run() -> None:
        options = replace(patient(fragile, "authz"), username="authz", password="secret")
        async with connected(options) as ledger:
            assert left(await ledger.take(query(take()))) == [2]
            assert left(await ledger.take(query(take()))) == [1]
            await ledger.revoke(EVERYTHING, Revocation())
            assert isinstance(await ledger.take(query(take())), Revoked)
            tracker = DataSetTracker()
            assert tracker.follow(await ledger.read(tracker.read_request))
            fragile.command("DEL", "{authz}:mark:" + tracker.name)
            merge = tracker.merge_request(
                await ledger.read(tracker.read_request),
                (RevocationChange(b"person:1", b"", Revocation().encode()),),
            )
            assert await ledger.merge(merge) == 1
            assert await ledger.mark(tracker.name) == merge.mark
            for target, found in (await ledger.revocations()).items():
                assert await ledger.lift(target, found)
            await ledger.ping()
            await ledger.facts()
        with pytest.raises(UnavailableError):
            async with connected(replace(options, deployment="other")) as other:
                await other.take(query(take()))

    asyncio.run(run())


# --- answers that are none --------------------------------------------------------------------

HOLD, HANG_UP = b"", None


@pytest.mark.attack("half-open-tcp")
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(HOLD, id="silence"),
        pytest.param(HANG_UP, id="hangs-up"),
        pytest.param(b"+OK\r\n", id="ok"),
        pytest.param(b"$-1\r\n", id="null"),
        pytest.param(b"*-1\r\n", id="null-array"),
        pytest.param(b"*0\r\n", id="empty"),
        pytest.param(b":1\r\n", id="one"),
        pytest.param(b"*2\r\n:1\r\n$5\r\ntaken\r\n", id="taken-of-nothing"),
        pytest.param(b"*3\r\n:1\r\n$5\r\ntaken\r\n", id="half-an-answer"),
        pytest.param(b"$999999999999\r\n", id="endless"),
        pytest.param(b"-ERR no\r\n", id="error"),
        pytest.param(b"-NOSCRIPT no\r\n", id="noscript-for-ever"),
        pytest.param(b"-BUSY script\r\n", id="busy"),
        pytest.param(b"-\xff\xfe\r\n", id="error-in-no-encoding"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="http"),
        pytest.param(b"\x16\x03\x01\x02\x00", id="tls"),
        pytest.param(b"*1\r\n" * 2000, id="nested"),
    ],
)
def test_what_is_no_redis_is_a_fault(reply: bytes | None) -> None:
    """Silence, closed connections, other protocols and odd answers end as a fault, in time."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(65536):
                if reply is None:
                    break
                writer.write(reply)

    async def run() -> None:
        async with (
            handled(answer) as handler,
            await asyncio.start_server(handler, "127.0.0.1", 0) as listener,
        ):
            port = listener.sockets[0].getsockname()[1]
            options = RedisOptions(f"redis://127.0.0.1:{port}", timeout=0.05)
            async with connected(options) as ledger:
                assert await refuses(ledger)
                assert await refuses(ledger)

    asyncio.run(run())


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("'NoneType' object has no attribute 'write'"),
        RuntimeError("loop"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"),
        RecursionError(),
        InvalidReplyError("odd"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_slip_of_the_driver_is_a_fault(error: Exception) -> None:
    """Whatever the driver raises, callers see one fault, and no text of it."""

    async def fail(*_: object) -> None:
        raise error

    async def run() -> None:
        async with connected(RedisOptions("unix:///nowhere")) as ledger:
            ledger._send = fail
            with pytest.raises(UnavailableError) as raised:
                await ledger.take(query(take()))
            assert raised.value.detail == type(error).__name__

    asyncio.run(run())


@pytest.mark.attack("redis-failover")
@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ReplyError("READONLY x"), RedisFault.READ_ONLY),
        (ReplyError("LOADING x"), RedisFault.LOADING),
        (ReplyError("MASTERDOWN x"), RedisFault.MASTER_DOWN),
        (ReplyError("OOM x"), RedisFault.OUT_OF_MEMORY),
        (ReplyError("MISCONF x"), RedisFault.CANNOT_SAVE),
        (ReplyError("NOREPLICAS x"), RedisFault.TOO_FEW_REPLICAS),
        (ReplyError("READONLY x script: 1"), RedisFault.READ_ONLY),
        (ReplyError("CLUSTERDOWN x"), RedisFault.CLUSTER_DOWN),
        (ReplyError("MOVED 1 x:1"), RedisFault.MOVED),
        (ReplyError("WRONGTYPE x"), RedisFault.WRONG_TYPE),
        (ReplyError("NOSCRIPT x"), RedisFault.NO_SCRIPT),
        (ReplyError("NOPERM x"), RedisFault.NOT_PERMITTED),
        (ReplyError("BUSY x"), RedisFault.BUSY),
        (ReplyError("ERR x"), RedisFault.OTHER),
        (ReplyError("what READONLY x"), RedisFault.OTHER),
        (ReplyError("NOAUTH x"), RedisFault.NOT_LOGGED_IN),
        (ReplyError("WRONGPASS x"), RedisFault.NOT_LOGGED_IN),
        (NotConnectedError("x"), RedisFault.CLOSED),
        (ConnectionRefusedError(), RedisFault.CLOSED),
        (OSError(5, "I/O"), RedisFault.CLOSED),
        (TimeoutError(), RedisFault.LATE),
        (RuntimeError(), RedisFault.OTHER),
    ],
    ids=repr,
)
def test_what_is_wrong_is_told_apart(error: Exception, fault: RedisFault) -> None:
    """By the type or the code of Redis' protocol, in one of a few fixed words."""
    assert fault_of(error) is fault


def test_a_cancellation_is_none_of_it() -> None:
    """A caller that goes away is not a fault of Redis."""

    async def run() -> None:
        async with connected(RedisOptions("unix:///nowhere")) as ledger:

            async def hang(*_: object) -> None:
                await asyncio.Event().wait()

            ledger._send = hang
            ledger._deadline = Deadline(FOREVER, patient=True)
            task = asyncio.create_task(ledger.take(query()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())


# --- bounds and options -----------------------------------------------------------------------


def test_there_are_no_more_connections_than_said(server: ValkeyServer, deployment: str) -> None:
    """Callers beyond the number of connections wait for one; none is refused for it."""

    async def run() -> None:
        options = replace(patient(server, deployment), connections=4)
        async with connected(options) as ledger:
            one = query(take(quota=1000))
            answers = await asyncio.gather(*(ledger.take(one) for _ in range(200)))
            assert all(isinstance(answer, Taken) for answer in answers)
            assert ledger._pool.size == 4
            assert ledger._pool.in_use == 0

    asyncio.run(run())


def test_the_default_time_out() -> None:
    """Redis has 50 ms for a query, a new connection included."""
    assert RedisOptions("redis://redis:6379/0").timeout == 0.05


_NO_FILE = TlsFiles("", "", "")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://redis", ("redis", 6379, "", None, ())),
        ("redis://redis:6380/3", ("redis", 6380, "", None, (command("SELECT", 3),))),
        ("redis://[::1]:6379?db=2", ("::1", 6379, "", None, (command("SELECT", 2),))),
        ("rediss://redis/0", ("redis", 6379, "", _NO_FILE, ())),
        (
            "rediss://redis:6380/0?ssl_ca_certs=/run/ca.pem&ssl_certfile=/c&ssl_keyfile=/k",
            ("redis", 6380, "", TlsFiles("/run/ca.pem", "/c", "/k"), ()),
        ),
        (
            "unix:///run/redis.sock?db=1",
            ("", 6379, "/run/redis.sock", None, (command("SELECT", 1),)),
        ),
        ("unix:///run/a%20b", ("", 6379, "/run/a b", None, ())),
    ],
)
def test_a_url_says_where_redis_is(url: str, place: tuple[object, ...]) -> None:
    """TCP, TLS and Unix sockets can be named, and a database."""
    found = parse_redis_url(url)

    assert (found.host, found.port, found.path, found.tls, found.greeting) == place


@pytest.mark.parametrize(
    ("username", "password", "greeting"),
    [
        ("", "", ()),
        ("", "secret", (command("AUTH", "secret"),)),
        ("authz", "secret", (command("AUTH", "authz", "secret"),)),
        ("health", "", (command("AUTH", "health", ""),)),
    ],
)
def test_a_connection_logs_in_first(
    username: str, password: str, greeting: tuple[bytes, ...]
) -> None:
    """With a user's name or without; nothing is said where neither is given."""
    assert parse_redis_url("redis://redis", username, password).greeting == greeting


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "http://redis",
        "redis://user:secret@redis",
        "redis://:secret@redis",
        "redis://user@redis",
        "redis://redis?socket_timeout=10",
        "redis://redis?retry_on_timeout=true",
        "redis://redis?decode_responses=true",
        "redis://redis?password=secret",
        "redis://redis?protocol=3",
        "rediss://redis?ssl_cert_reqs=none",
        "unix:///run/redis.sock?health_check_interval=1",
        "redis://redis?db=0&timeout=9",
        "redis://redis?x",
        "redis://redis/one",
        "redis://redis?db=-1",
        "unix:///run/redis.sock?db=one",
    ],
)
def test_a_url_says_nothing_else(url: str) -> None:
    """A URL cannot carry secrets, loosen time-outs, or switch retries or verification."""
    with pytest.raises(ValueError, match="Redis URL") as raised:
        RedisOptions(url)
    assert "secret" not in str(raised.value)


def test_tls_is_verified() -> None:
    """`rediss://` checks the certificate and its name."""
    tls = parse_redis_url("rediss://redis").tls
    assert tls is not None
    context = tls.context()
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"


def test_certificates_are_not_read_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's authorities take 100 ms and more to read, for every new connection."""
    readers = list[int]()

    def read(_: TlsFiles) -> ssl.SSLContext:
        readers.append(threading.get_ident())
        raise FileNotFoundError

    monkeypatch.setattr(TlsFiles, "context", read)
    with pytest.raises(FileNotFoundError):
        asyncio.run(parse_redis_url("rediss://127.0.0.1").connect(HostAddresses("127.0.0.1", 6379)))

    assert len(readers) == 1
    assert threading.get_ident() not in readers


def test_a_password_is_in_no_repr() -> None:
    """Where Redis is may be logged; how we log in there may not."""
    for said in (
        RedisOptions("redis://redis", password="secret"),
        parse_redis_url("redis://redis", "authz", "secret"),
    ):
        assert "secret" not in repr(said)


@pytest.mark.parametrize("name", ["", "a b", "a}", "{a", "a\n", "é", "x" * 65, "a:b"])
def test_a_deployment_cannot_break_its_hash_tag(name: str) -> None:
    """A deployment's name is what a hash tag can hold."""
    with pytest.raises(ValueError, match="deployment"):
        RedisLedger(RedisOptions("redis://redis", deployment=name))


# --- facts and upkeep -------------------------------------------------------------------------


@pytest.mark.attack("redis-may-evict")
def test_facts_tell_whether_redis_may_forget(fragile: ValkeyServer) -> None:
    """Any policy but noeviction may forget limits; a replica takes no charges."""

    async def run() -> None:
        async with connected(patient(fragile, "authz")) as ledger:
            facts = await ledger.facts()
            assert (facts.policy, facts.may_evict, facts.writable) == ("noeviction", False, True)
            for policy in ("allkeys-lru", "volatile-ttl"):
                fragile.command("CONFIG", "SET", "maxmemory-policy", policy)
                facts = await ledger.facts()
                assert (facts.policy, facts.may_evict) == (policy, True)
            fragile.command("REPLICAOF", "127.0.0.1", "1")
            assert not (await ledger.facts()).writable

    asyncio.run(run())


def test_no_facts_are_a_fault(server: ValkeyServer, deployment: str) -> None:
    """Where INFO lacks what readiness wants, nothing is guessed."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            for answer in ({"role": "master"}, {b"a": 1}, None, b"OK"):

                async def odd(*_: object, answer: object = answer) -> object:
                    return answer

                ledger._send = odd
                with pytest.raises(UnavailableError):
                    await ledger.facts()
                with pytest.raises(UnavailableError):
                    await ledger.revocations()

    asyncio.run(run())


def test_pruning_forgets_expired_tokens_only(server: ValkeyServer, deployment: str) -> None:
    """The revocation of a token may go when the token has expired; others stay."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            kept = {
                token_field("alive"): Revocation(until=DAY + 1),
                token_field("for-ever"): Revocation(),
                EVERYTHING: Revocation(issued_until=1),
            }
            gone = {token_field("expired"): Revocation(until=DAY - 1)}
            for target, revocation in {**kept, **gone}.items():
                await ledger.revoke(target, revocation)

            await prune(ledger, DAY + CLOCK_MARGIN)
            assert await ledger.revocations() == kept
            await prune(ledger, DAY + CLOCK_MARGIN)
            assert await ledger.revocations() == kept

    asyncio.run(run())


@pytest.mark.parametrize("moment", [-1, 10**15])
def test_a_moment_that_cannot_be_read_back_is_not_written(moment: int) -> None:
    """What is written as a revocation is read as the same one, or not written."""
    for revocation in (Revocation(issued_until=moment), Revocation(until=moment)):
        with pytest.raises(ValueError, match="moment"):
            revocation.encode()
