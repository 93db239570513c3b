"""Connections to Redis: nobody reads another caller's reply, whatever the server sends."""

import asyncio
import ssl
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from authz.core.ledger import UnavailableError
from authz.ledger.commands import command
from authz.ledger.connections import RedisProtocol, parse_redis_url
from authz.ledger.faults import InvalidReplyError, NotConnectedError, ReplyError
from authz.ledger.pool import ConnectionPool
from authz.ledger.primary import FixedPrimary
from authz.ledger.redis import RedisOptions
from authz.setup import certificates
from tests.ledger.queries import connected, query
from tests.support.examples import examples

PING: Final = command("PING")

FOREVER: Final = 30.0  # what no test takes, however busy the machine
HOLD: Final = b""
LOOPS: Final = [asyncio.new_event_loop, uvloop.new_event_loop]


@dataclass
class RedisPeer:
    """Speak for Redis, in the test's words.

    Attributes:
        reply: what is said to each piece that comes over the connection of that number; None
            closes the connection.
        greeting: what is said on each connection before anything came.
        heard: over which connection each piece came.
        writers: the connections, the first has number 1.
        closed: the numbers of those that the client has closed.
    """

    reply: Callable[[int], bytes | None] = lambda number: b":%d\r\n" % number
    greeting: bytes = HOLD
    heard: list[int] = field(default_factory=list)
    writers: list[StreamWriter] = field(default_factory=list)
    closed: set[int] = field(default_factory=set)

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.writers.append(writer)
        number = len(self.writers)
        writer.write(self.greeting)
        with suppress(OSError):
            while await reader.read(65536):
                self.heard.append(number)
                reply = self.reply(number)
                if reply is None:
                    break
                writer.write(reply)
        self.closed.add(number)
        writer.close()

    def say(self, number: int, words: bytes) -> None:
        """Say something over a connection, asked or not."""
        self.writers[number - 1].write(words)


async def until(condition: Callable[[], bool]) -> None:
    """Return when it holds."""
    async with asyncio.timeout(FOREVER):
        while not condition():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.CertificateFiles:
    return certificates.write_certificates(tmp_path_factory.mktemp("tls"), ["127.0.0.1"])


@dataclass(frozen=True)
class Way:
    """Reach a peer in one of the three ways, on one of the two loops."""

    scheme: str
    loop: Callable[[], asyncio.AbstractEventLoop]
    files: certificates.CertificateFiles
    folder: Path

    @asynccontextmanager
    async def open(self, peer: RedisPeer) -> AsyncIterator[str]:
        """Yield the URL of a peer."""
        if self.scheme == "unix":
            path = self.folder / "s"
            async with await asyncio.start_unix_server(peer.serve, path):
                yield f"unix://{path}"
            return
        tls, more = None, ""
        if self.scheme == "rediss":
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(self.files.certificate, self.files.key)
            more = f"?ssl_ca_certs={self.files.authority}"
        async with await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=tls) as server:
            port = server.sockets[0].getsockname()[1]
            yield f"{self.scheme}://127.0.0.1:{port}{more}"

    def play(
        self,
        peer: RedisPeer,
        scene: Callable[[ConnectionPool], Awaitable[None]],
        *,
        password: str = "",
    ) -> None:
        """Play a scene with a pool of connections to the peer, which may want a password."""

        async def run() -> None:
            async with asyncio.timeout(FOREVER), self.open(peer) as url:
                finder = FixedPrimary(parse_redis_url(url, password=password))
                pool = ConnectionPool(finder)
                try:
                    await scene(pool)
                finally:
                    await pool.aclose()
                    await until(lambda: len(peer.closed) == len(peer.writers))

        with asyncio.Runner(loop_factory=self.loop) as runner:
            runner.run(run())


@pytest.fixture(params=["redis", "rediss", "unix"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def way(
    request: pytest.FixtureRequest, scheme: str, files: certificates.CertificateFiles
) -> Iterator[Way]:
    """Return every way on every loop."""
    with tempfile.TemporaryDirectory(prefix="ln-") as folder:
        yield Way(scheme, request.param, files, Path(folder))


# --- whose answer it is -----------------------------------------------------------------------


def test_one_connection_serves_call_after_call(way: Way) -> None:
    """What was answered leaves its connection as good as before."""
    peer = RedisPeer()

    async def scene(pool: ConnectionPool) -> None:
        assert [await pool.send(PING) for _ in range(5)] == [1] * 5
        assert pool.idle == 1

    way.play(peer, scene)
    assert peer.heard == [1] * 5


def test_an_answer_that_nobody_asked_for_costs_the_connection(way: Way) -> None:
    """It is not kept for the next caller, who finds a new connection and does not fail."""
    peer = RedisPeer()

    async def scene(pool: ConnectionPool) -> None:
        assert await pool.send(PING) == 1
        peer.say(1, b":99\r\n")
        await until(lambda: pool.idle == 0)
        await until(lambda: peer.closed == {1})
        assert await pool.send(PING) == 2

    way.play(peer, scene)
    assert peer.heard == [1, 2]


@pytest.mark.parametrize("surplus", [b":99\r\n", b"$5\r\nta", b"\r\n", b"\x00"])
def test_more_than_the_answer_is_none(way: Way, surplus: bytes) -> None:
    """With bytes left over it cannot be told which answer is whose: the call fails."""
    peer = RedisPeer(lambda number: b":%d\r\n" % number + (surplus if number == 1 else b""))

    async def scene(pool: ConnectionPool) -> None:
        with pytest.raises(InvalidReplyError):
            await pool.send(PING)
        assert await pool.send(PING) == 2

    way.play(peer, scene)
    assert peer.heard == [1, 2]


@pytest.mark.attack("cancelled-caller")
def test_who_is_gone_before_the_answer_leaves_none_behind(way: Way) -> None:
    """Cancelled after the call was written: its answer meets nobody, and the next has its own."""
    peer = RedisPeer(lambda number: HOLD if number == 1 else b":%d\r\n" % number)

    async def scene(pool: ConnectionPool) -> None:
        gone = asyncio.create_task(pool.send(PING))
        await until(lambda: peer.heard == [1])
        gone.cancel()
        peer.say(1, b":1\r\n")  # on its way when the next one asks
        assert await pool.send(PING) == 2
        assert gone.cancelled()
        await until(lambda: peer.closed == {1})
        assert pool.in_use == 0

    way.play(peer, scene)
    assert peer.heard == [1, 2]


@pytest.mark.attack("half-open-tcp")
def test_a_connection_without_its_answer_is_closed_at_once(way: Way) -> None:
    """It does not stay open until somebody needs another one."""
    peer = RedisPeer(lambda _: HOLD)

    async def scene(pool: ConnectionPool) -> None:
        gone = asyncio.create_task(pool.send(PING))
        await until(lambda: peer.heard == [1])
        gone.cancel()
        await until(lambda: peer.closed == {1})

    way.play(peer, scene)


@pytest.mark.attack("cancelled-caller")
def test_a_cancellation_in_the_turn_of_the_answer(way: Way) -> None:
    """Whichever is first, the connection is given up or clean; the next caller has its own."""
    peer = RedisPeer(lambda _: HOLD)

    def more(heard: int) -> bool:
        return len(peer.heard) > heard

    async def scene(pool: ConnectionPool) -> None:
        for turns in range(6):
            heard = len(peer.heard)
            task = asyncio.create_task(pool.send(PING))
            await until(partial(more, heard))
            number = peer.heard[-1]
            peer.say(number, b":7\r\n")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                assert await task == 7
            assert pool.in_use == 0
            peer.reply = lambda number: b":%d\r\n" % number
            assert await pool.send(PING) == peer.heard[-1]
            peer.reply = lambda _: HOLD

    way.play(peer, scene)


# --- connections that take longer than their callers ------------------------------------------


def test_a_connection_is_set_up_although_its_caller_is_gone(way: Way) -> None:
    """The next caller finds it: where the log-in takes longer than a call may, Redis is reached."""
    peer = RedisPeer(lambda _: HOLD)

    async def scene(pool: ConnectionPool) -> None:
        impatient = asyncio.create_task(pool.send(PING))
        await until(lambda: peer.heard == [1])
        impatient.cancel()
        await asyncio.wait({impatient})
        peer.reply = lambda _: b"+OK\r\n"
        peer.say(1, b"+OK\r\n")
        assert await pool.send(PING) == b"OK"

    way.play(peer, scene, password="x")
    assert set(peer.heard) == {1}


@pytest.mark.attack("half-open-tcp")
def test_impatient_callers_share_the_connection_that_is_being_set_up(way: Way) -> None:
    """A server that never answers AUTH is asked once, not by each of them anew."""
    peer = RedisPeer(lambda _: HOLD)

    async def scene(pool: ConnectionPool) -> None:
        for _ in range(5):
            impatient = asyncio.create_task(pool.send(PING))
            await until(lambda: peer.heard == [1])
            impatient.cancel()
            await asyncio.wait({impatient})
        assert pool.idle == 0
        assert pool.in_use == 0

    way.play(peer, scene, password="x")
    assert peer.heard == [1]


# --- answers that do not end well -------------------------------------------------------------


@pytest.mark.parametrize("half", [b"", b":", b":1", b":1\r", b"*2\r\n:1\r\n", b"$5\r\ntak"])
def test_half_an_answer_and_then_the_end(way: Way, half: bytes) -> None:
    """A connection closed in an answer is a fault of that call; it is not written again."""

    def reply(number: int) -> bytes | None:
        if number > 1:
            return b":%d\r\n" % number
        peer.say(1, half)
        return None

    peer = RedisPeer(reply)

    async def scene(pool: ConnectionPool) -> None:
        with pytest.raises(NotConnectedError):
            await pool.send(PING)
        assert peer.heard == [1]
        assert await pool.send(PING) == 2

    way.play(peer, scene)
    assert peer.heard == [1, 2]


def test_a_connection_closed_while_nobody_used_it(way: Way) -> None:
    """It is replaced before anything is written, so the caller notices nothing."""
    peer = RedisPeer()

    async def scene(pool: ConnectionPool) -> None:
        assert await pool.send(PING) == 1
        peer.writers[0].close()
        await until(lambda: pool.idle == 0)
        assert await pool.send(PING) == 2

    way.play(peer, scene)
    assert peer.heard == [1, 2]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", InvalidReplyError),
        (b"*1\r\n" * 2000, InvalidReplyError),
        (b"*99999999999\r\n", InvalidReplyError),
        (b"$-7\r\n", InvalidReplyError),
    ],
    ids=["http", "nested", "endless", "less-than-nothing"],
)
def test_what_is_no_answer_costs_the_connection(
    way: Way, reply: bytes, error: type[Exception]
) -> None:
    """Another protocol: the next call connects anew."""
    peer = RedisPeer(lambda number: reply if number == 1 else b":%d\r\n" % number)

    async def scene(pool: ConnectionPool) -> None:
        with pytest.raises(error):
            await pool.send(PING)
        assert await pool.send(PING) == 2

    way.play(peer, scene)


def test_a_refused_command_keeps_its_connection(way: Way) -> None:
    """An error reply is an answer; whether to trust its server is for the ledger to say."""
    peer = RedisPeer(lambda _: b"-ERR no\r\n")

    async def scene(pool: ConnectionPool) -> None:
        for _ in range(2):
            with pytest.raises(ReplyError, match="no"):
                await pool.send(PING)

    way.play(peer, scene)
    assert peer.heard == [1, 1]


def test_more_than_was_asked_for_while_it_was_set_up(way: Way) -> None:
    """What follows the answer to AUTH would be taken for the first call's: nothing is written."""
    peer = RedisPeer(lambda _: b"+OK\r\n:99\r\n")

    async def scene(pool: ConnectionPool) -> None:
        with pytest.raises((InvalidReplyError, NotConnectedError)):
            await pool.send(PING)
        assert pool.idle == 0

    way.play(peer, scene, password="x")
    assert peer.heard == [1]  # AUTH alone


def test_all_are_closed_at_the_end(way: Way) -> None:
    """Those in use too: who awaits an answer then is told that there is none."""
    peer = RedisPeer()

    async def scene(pool: ConnectionPool) -> None:
        assert sorted(await asyncio.gather(*(pool.send(PING) for _ in range(3)))) == [1, 2, 3]
        peer.reply = lambda _: HOLD
        task = asyncio.create_task(pool.send(PING))
        await until(lambda: len(peer.heard) == 4)
        await pool.aclose()
        with pytest.raises(NotConnectedError):
            await task
        await until(lambda: peer.closed == {1, 2, 3})

    way.play(peer, scene)


# --- any bytes, in any pieces -----------------------------------------------------------------

ANSWER: Final = b"*3\r\n:7\r\n$5\r\ntaken\r\n*2\r\n:1\r\n$2\r\n\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """A connection without a network.

    Attributes:
        written: what went out.
        over: whether it was closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.over = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.over

    def abort(self) -> None:
        self.over = True


def a_protocol() -> tuple[RedisProtocol, FakeTransport]:
    """Return a protocol on a connection without a network."""
    protocol, transport = RedisProtocol(), FakeTransport()
    protocol.connection_made(transport)
    return protocol, transport


def heard(protocol: RedisProtocol, data: bytes, cuts: set[int]) -> None:
    """Have the protocol receive some bytes in pieces."""
    ends = [*sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for begin, end in pairwise([0, *ends]):
        if begin < end:
            protocol.data_received(data[begin:end])


def test_a_connection_that_ends_is_used_no_more() -> None:
    """From the moment that either side closes it, not only when it is gone."""

    async def scene() -> None:
        for end in ("eof_received", "abort", "transport"):
            protocol, transport = a_protocol()
            assert protocol.idle
            if end == "transport":
                transport.over = True  # it is closing by itself
            else:
                getattr(protocol, end)()
            assert not protocol.idle

    asyncio.run(scene())


CUTS = st.sets(st.integers(1, len(ANSWER) + 8))


@given(CUTS, st.integers(0, len(ANSWER) - 1))
def test_an_answer_comes_in_whatever_pieces(cuts: set[int], missing: int) -> None:
    """Whole, it is the caller's, and the connection is idle; with anything missing, it is not."""

    async def scene() -> None:
        protocol, transport = a_protocol()
        answer = protocol.write(b"call")
        heard(protocol, ANSWER[:missing], cuts)
        assert not answer.done()
        assert not protocol.idle
        with pytest.raises(NotConnectedError):
            protocol.write(b"another")
        heard(protocol, ANSWER[missing:], cuts)
        assert answer.result() == [7, b"taken", [1, b"\r\n"]]
        assert protocol.idle
        assert (transport.written, transport.over) == (b"call", False)

    asyncio.run(scene())


@given(st.binary(min_size=1, max_size=40), CUTS, st.booleans(), st.booleans())
@examples(300)
def test_no_bytes_reach_the_next_caller(
    noise: bytes, cuts: set[int], answered: bool, gone: bool
) -> None:
    """Whatever comes besides the one answer: nothing is written to that connection any more."""

    async def scene() -> None:
        protocol, transport = a_protocol()
        answer = protocol.write(b"call")
        if gone:
            answer.cancel()
        heard(protocol, (ANSWER if answered else b"") + noise, cuts)
        if protocol.idle:
            # The noise itself was one answer in RESP, no more: what it means is not known here.
            assert (answered, gone, answer.done()) == (False, False, True)
            return
        assert transport.over or (not answered and not answer.done())
        with pytest.raises(NotConnectedError):
            protocol.write(b"another")
        assert transport.written == b"call"

    asyncio.run(scene())


# --- the ledger over them ---------------------------------------------------------------------


@pytest.mark.attack("redis-readonly")
def test_an_error_closes_the_connections_that_nobody_uses() -> None:
    """The name may lead elsewhere by now; an idle connection would still lead to the old place."""
    peer = RedisPeer()

    async def run(path: Path) -> None:
        options = RedisOptions(f"unix://{path}", timeout=FOREVER)
        async with (
            await asyncio.start_unix_server(peer.serve, path),
            connected(options) as ledger,
        ):
            await asyncio.gather(*(ledger.command("X") for _ in range(3)))
            peer.reply = lambda _: b"-READONLY no\r\n"
            with pytest.raises(UnavailableError, match="READONLY"):
                await ledger.take(query())
            assert ledger._pool.idle == 0
            await until(lambda: peer.closed == {1, 2, 3})

    with tempfile.TemporaryDirectory(prefix="ln-") as folder:
        asyncio.run(run(Path(folder) / "s"))
