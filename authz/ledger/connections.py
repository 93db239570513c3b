"""Connections to Redis: over TCP, TLS or a Unix socket, logged in, with one call at a time on each.

Law: a connection has at most one call under way, and what arrives is its answer or the end of the
connection. An answer that nobody awaits, more than was asked for, a caller who is gone, half an
answer: it is never used again. A call is written at most once, and only to a connection from which
nothing else is to come.

A caller waits for a connection as long as for an answer, but setting it up goes on without the
caller, and the next one finds it: a look-up, a TLS handshake and a log-in may together take longer
than an answer may, and begun anew with every call they would never come to an end.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

from hiredis import Reader

from authz.ledger.addresses import HostAddresses
from authz.ledger.commands import command
from authz.ledger.faults import (
    InvalidReplyError,
    NotConnectedError,
    ReplyError,
)
from authz.ledger.shared_task import SharedTask

# What a URL may set besides the place.
SCHEMES: Final = frozenset({"redis", "rediss", "unix"})
PARAMETERS: Final = frozenset({"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_PORT: Final = 6379
_MORE: Final = object()  # what the reader returns as long as an answer is not whole
_SETTING_UP: Final = 2.0  # seconds that a connection may take until calls can be written to it


class RedisProtocol(asyncio.Protocol):
    """Write one call at a time, and hand its answer to who awaits it."""

    def __init__(self) -> None:
        """Begin without a connection."""
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(
            protocolError=InvalidReplyError, replyError=ReplyError, notEnoughData=_MORE
        )
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self._answer: asyncio.Future[Any] | None = None

    @property
    def idle(self) -> bool:
        """Tell whether a call may be written: the last one has its answer, and nothing came since.

        Who is cancelled leaves a call without an answer behind, so the line is idle no more.
        """
        return (
            self._answer is None
            and not self._ended
            and self._transport is not None
            and not self._transport.is_closing()
        )

    def ask(self, call: bytes) -> asyncio.Future[Any]:
        """Write a call; return what will come of it: the answer, or an exception as a value.

        Raises:
            NotConnectedError: where nothing may be written; nothing was.
        """
        if self._transport is None or not self.idle:
            raise NotConnectedError("not idle")
        answer = self._answer = self._loop.create_future()
        # Never more than one call is buffered here, so nobody waits for the buffer to drain.
        self._transport.write(call)
        return answer

    def abort(self) -> None:
        """Close the connection at once; nothing more is read from it."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand over the answer once it is whole; anything else ends the connection."""
        answer = self._answer
        if answer is None or answer.done():
            # A second answer to somebody's call, or the first to somebody's who is gone.
            self.abort()
            return
        try:
            self._reader.feed(data)
            reply = self._reader.gets()
            if reply is not _MORE and self._reader.has_data():
                raise InvalidReplyError("more than one answer")  # noqa: TRY301 - as any other fault
        except Exception as error:  # noqa: BLE001 - no RESP, an error in no encoding, no memory
            self.abort()
            answer.set_result(error)
        else:
            if reply is not _MORE:
                self._answer = None
                answer.set_result(reply)

    def eof_received(self) -> None:
        """Use the connection no more; the transport closes itself."""
        self._ended = True

    def connection_lost(self, _: Exception | None) -> None:
        """Tell who awaits an answer that none will come."""
        self._ended = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(NotConnectedError("closed"))


@dataclass(frozen=True, slots=True)
class RedisEndpoint:
    """Say where Redis is, and what a connection says first.

    Attributes:
        host: a name or an address; empty for a Unix socket.
        port: of the host.
        path: of the Unix socket; empty for TCP.
        tls: the files of a TLS connection; None for a plain one.
        greeting: the commands that log in and select the database.
    """

    host: str
    port: int
    path: str
    tls: "TlsFiles | None"
    greeting: tuple[bytes, ...] = field(repr=False)

    async def connect(self, addresses: HostAddresses) -> RedisProtocol:
        """Return a line over which calls may be written.

        Args:
            addresses: of the host.

        Raises:
            ReplyError: where Redis refuses the log-in or the database.
            Exception: where it cannot be reached.
        """
        if self.path:
            loop = asyncio.get_running_loop()
            _, line = await loop.create_unix_connection(RedisProtocol, self.path)
        else:
            line = await self._reach(await addresses.find())
        try:
            for each in self.greeting:
                await answer_of(line, each)
        except BaseException:
            line.abort()
            raise
        return line

    async def _reach(self, addresses: Sequence[str]) -> RedisProtocol:
        """Return a line to the first address that takes a connection."""
        # Read for each connection: files that were replaced count from the next one on. Not on
        # the loop: the system's authorities take longer than an answer may.
        tls = None if self.tls is None else await asyncio.to_thread(self.tls.context)
        loop = asyncio.get_running_loop()
        for each in addresses:
            try:
                transport, line = await loop.create_connection(
                    RedisProtocol,
                    each,
                    self.port,
                    ssl=tls,
                    server_hostname=None if tls is None else self.host,
                )
            except OSError:
                if each == addresses[-1]:
                    raise
                continue
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return line
        raise NotConnectedError("no address")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Name the files of a TLS connection; an empty name is no file.

    Attributes:
        authorities: who may have signed the server's certificate; the system's, where empty.
        certificate: ours.
        key: its key.
    """

    authorities: str
    certificate: str
    key: str

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            OSError: where one cannot be read, or is none.
        """
        context = ssl.create_default_context(cafile=self.authorities or None)
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key or None)
        return context


def parse_redis_url(url: str, username: str = "", password: str = "") -> RedisEndpoint:
    """Read a Redis URL (https://www.iana.org/assignments/uri-schemes/prov/redis).

    Args:
        url: `redis://host:port/db`, `rediss://…` or `unix:///path?db=0`.
        username: the ACL user; empty for the default one.
        password: empty where none is asked.

    Raises:
        ValueError: for another scheme, credentials in the URL, an unknown parameter, or a port or
            a database that is no number.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError("a Redis URL begins with redis://, rediss:// or unix://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials do not belong in the Redis URL")
    given = {name: values[-1] for name, values in parse_qs(parts.query, True).items()}
    if not given.keys() <= PARAMETERS:
        raise ValueError("a Redis URL may only set " + ", ".join(sorted(PARAMETERS)))
    path = unquote(parts.path)
    local = parts.scheme == "unix"
    database = given.get("db", "") or ("" if local else path.strip("/")) or "0"
    if not (database.isascii() and database.isdigit()):
        raise ValueError("the database of a Redis URL is a number")
    tls = None
    if parts.scheme == "rediss":
        names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
        tls = TlsFiles(*(given.get(name, "") for name in names))
    greeting = []
    if password or username:
        user = (username,) if username else ()
        greeting.append(command("AUTH", *user, password))
    if int(database):
        greeting.append(command("SELECT", database))
    host = "" if local else parts.hostname or "localhost"
    return RedisEndpoint(host, parts.port or _PORT, path if local else "", tls, tuple(greeting))


async def answer_of(line: RedisProtocol, call: bytes) -> Any:
    """Return the answer to a call.

    Raises:
        ReplyError: what Redis said instead.
        Exception: where there is no answer; the line is given up.
    """
    try:
        reply = await line.ask(call)
    except BaseException:
        line.abort()
        raise
    if isinstance(reply, Exception):
        if not isinstance(reply, ReplyError):
            line.abort()
        raise reply
    return reply


class _Connection:
    """Hold the line of one connection, and set up another one where it has ended."""

    __slots__ = ("_addresses", "_endpoint", "_line", "_setting_up")

    def __init__(self, place: RedisEndpoint, addresses: HostAddresses) -> None:
        self._endpoint = place
        self._addresses = addresses
        self._line: RedisProtocol | None = None
        self._setting_up = SharedTask(self._connect)

    @property
    def idle(self) -> bool:
        return self._line is not None and self._line.idle

    async def send(self, call: bytes) -> Any:
        line = self._line
        if line is None or not line.idle:
            # New, or closed by the server, or given up by a caller. Nothing has been sent yet.
            # It goes on being set up where the caller is cancelled.
            line = await asyncio.shield(self._setting_up.begin())
        return await answer_of(line, call)

    async def _connect(self) -> RedisProtocol:
        self.abort()
        async with asyncio.timeout(_SETTING_UP):
            line = self._line = await self._endpoint.connect(self._addresses)
        return line

    def cease(self) -> set[asyncio.Task[RedisProtocol]]:
        """Stop setting it up; return what is to be awaited for it."""
        return self._setting_up.cease()

    def abort(self) -> None:
        if self._line is not None:
            self._line.abort()


class ConnectionPool:
    """Hold connections, and lend each to one call at a time.

    There are as many as there were calls at once: who calls bounds that.
    """

    def __init__(self, place: RedisEndpoint) -> None:
        """Take where Redis is; nothing is opened yet."""
        self._endpoint = place
        self._addresses = HostAddresses(place.host, place.port)
        self._free: list[_Connection] = []
        self._in_use: set[_Connection] = set()

    @property
    def idle(self) -> int:
        """Return how many connections are open, and in nobody's use."""
        return sum(each.idle for each in self._free)

    @property
    def size(self) -> int:
        """Return how many connections there are, open or not."""
        return len(self._free) + len(self._in_use)

    @property
    def in_use(self) -> int:
        """Return how many are lent."""
        return len(self._in_use)

    async def send(self, call: bytes) -> Any:
        """Return the answer to a command, which is sent at most once.

        Raises:
            ReplyError: what Redis said instead.
            Exception: where there is no answer.
        """
        connection = self._free.pop() if self._free else self._new()
        self._in_use.add(connection)
        try:
            return await connection.send(call)
        finally:
            self._in_use.remove(connection)
            self._free.append(connection)

    def _new(self) -> _Connection:
        return _Connection(self._endpoint, self._addresses)

    def abort(self) -> None:
        """Close the connections that are not in use, at once."""
        for each in self._free:
            each.abort()

    async def aclose(self) -> None:
        """Close all connections, those too that are being set up."""
        connections = (*self._free, *self._in_use)
        ceasing: set[asyncio.Task[Any]] = self._addresses.cease()
        ceasing |= {task for each in connections for task in each.cease()}
        if ceasing:
            await asyncio.wait(ceasing)
        for each in connections:
            each.abort()
