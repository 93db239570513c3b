"""Connections to Redis that redis-py sets up, and whose calls go over them without redis-py.

Law: a connection has at most one call under way, and what arrives is its answer or the end of the
connection. An answer that nobody awaits, more than was asked for, a caller who is gone, half an
answer: it is never used again. A call is written at most once, and only to a connection from which
nothing else is to come.

redis-py does what differs from place to place: TCP, TLS, Unix sockets, log-in, database. What
every trip costs (its stream, its pool's locks and records) is left out.

A caller waits for a connection as long as for an answer, but setting it up goes on without the
caller, and the next one finds it: a look-up, a TLS handshake and a log-in may together take longer
than an answer may, and begun anew with every call they would never come to an end.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Self, cast

from hiredis import Reader
from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import InvalidResponse, ResponseError

_MORE: Final = object()  # what the reader returns as long as an answer is not whole
_SETTING_UP: Final = 5.0  # seconds that a connection may take until calls can be written to it


class Line(asyncio.Protocol):
    """Write one call at a time, and hand its answer to who awaits it."""

    def __init__(self, writer: asyncio.StreamWriter, reader: Reader) -> None:
        """Take over a connection from which nothing more is to come.

        Args:
            writer: redis-py's, which goes on to hear when the connection ends: it waits for that.
            reader: what reads answers, empty.
        """
        self._loop = asyncio.get_running_loop()
        self._transport = cast("asyncio.Transport", writer.transport)
        self._stream = cast("asyncio.Protocol", self._transport.get_protocol())
        self._reader = reader
        self._ended = False
        self._answer: asyncio.Future[Any] | None = None
        self._transport.set_protocol(self)

    @property
    def idle(self) -> bool:
        """Tell whether a call may be written: the last one has its answer, and nothing came since.

        Who is cancelled leaves a call without an answer behind, so the line is idle no more.
        """
        return self._answer is None and not self._ended and not self._transport.is_closing()

    def ask(self, call: bytes) -> asyncio.Future[Any]:
        """Write a call; return what will come of it: the answer, or an exception as a value.

        Raises:
            NoConnectionError: where nothing may be written; nothing was.
        """
        if not self.idle:
            raise NoConnectionError("not idle")
        answer = self._answer = self._loop.create_future()
        # Never more than one call is buffered here, so nobody waits for the buffer to drain.
        self._transport.write(call)
        return answer

    def give_up(self) -> None:
        """Close the connection at once; nothing more is read from it."""
        self._ended = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand over the answer once it is whole; anything else ends the connection."""
        answer = self._answer
        if answer is None or answer.done():
            # A second answer to somebody's call, or the first to somebody's who is gone.
            self.give_up()
            return
        try:
            self._reader.feed(data)
            reply = self._reader.gets()
            if reply is not _MORE and self._reader.has_data():
                raise InvalidResponse("more than one answer")  # noqa: TRY301 - as any other fault
        except Exception as error:  # noqa: BLE001 - no RESP, an error in no encoding, no memory
            self.give_up()
            answer.set_result(error)
        else:
            if reply is not _MORE:
                self._answer = None
                answer.set_result(reply)

    def eof_received(self) -> None:
        """Use the connection no more; the transport closes itself."""
        self._ended = True

    def connection_lost(self, error: Exception | None) -> None:
        """Tell who awaits an answer that none will come."""
        self._ended = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(NoConnectionError("closed"))
        self._stream.connection_lost(error)

    def pause_writing(self) -> None:
        """Have redis-py's writer wait."""
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        """Have redis-py's writer go on."""
        self._stream.resume_writing()


class _Quick(AbstractConnection):
    """Talk as redis-py does until the connection is set up, and over a `Line` from then on."""

    _line: Line | None = None
    _setting_up: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Tell whether a call may be written to it now."""
        return self._line is not None and self._line.idle

    async def set_up(self) -> None:
        """Set it up, so that a call may be written; it goes on where the caller is cancelled.

        Raises:
            Exception: where it could not be set up.
        """
        task = self._setting_up
        if task is None or task.done():
            task = self._setting_up = asyncio.create_task(self._begin_in_time())
            # Perhaps nobody is left to hear of its failure.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(task)

    def cease(self) -> set[asyncio.Task[None]]:
        """Stop setting it up; return what is to be awaited for it."""
        task = self._setting_up
        if task is None or task.done():
            return set()
        task.cancel()
        return {task}

    async def _begin_in_time(self) -> None:
        try:
            async with asyncio.timeout(_SETTING_UP):
                await self._begin()
        except BaseException:
            with suppress(Exception):
                await self.disconnect(nowait=True)  # half set up, it is of no use
            raise

    async def _begin(self) -> None:
        """Connect anew, log in and select the database; then there are calls and answers only."""
        self.give_up()
        await self.disconnect(nowait=True)
        await self.connect()  # type: ignore[no-untyped-call]
        if self._writer is None:
            raise NoConnectionError("closed while it was set up")
        told = self._parser.parse_error
        reader = Reader(protocolError=InvalidResponse, replyError=told, notEnoughData=_MORE)
        surplus = await self.can_read()
        self._line = Line(self._writer, reader)
        if surplus:
            self.give_up()

    async def send(self, call: bytes) -> Any:
        """Return the answer to a command.

        Raises:
            ResponseError: what Redis said instead.
            Exception: where there is no answer; the connection is given up.
        """
        if self._line is None:
            raise NoConnectionError("not set up")
        try:
            reply = await self._line.ask(call)
        except BaseException:
            self.give_up()
            raise
        if isinstance(reply, Exception):
            if not isinstance(reply, ResponseError):
                # No answer; or one that means no command (it is loading, it wants a password).
                self.give_up()
            raise reply
        return reply

    def give_up(self) -> None:
        """Close the connection at once, where there is one."""
        if self._line is not None:
            self._line.give_up()


class QuickConnection(_Quick, Connection):
    """Connect over TCP."""


class QuickSSLConnection(_Quick, SSLConnection):
    """Connect over TLS."""


class QuickUnixConnection(_Quick, UnixDomainSocketConnection):
    """Connect over a Unix socket."""


_QUICK: Final[Mapping[type, type[_Quick]]] = {
    Connection: QuickConnection,
    SSLConnection: QuickSSLConnection,
    UnixDomainSocketConnection: QuickUnixConnection,
}


class QuickPool(ConnectionPool):
    """Hold connections, and lend each to one call at a time."""

    @classmethod
    def at(cls, url: str, **settings: Any) -> Self:
        """Return a pool of connections to a URL; none is opened yet."""
        pool = cls.from_url(url, **settings)
        pool.connection_class = _QUICK[pool.connection_class]
        return pool

    async def send(self, call: bytes) -> Any:
        """Return the answer to a command, which is sent at most once.

        Raises:
            ResponseError: what Redis said instead.
            Exception: where there is no answer.
        """
        connection = cast("_Quick", self.get_available_connection())  # type: ignore[no-untyped-call]
        try:
            if not connection.idle:
                # New, or closed by the server, or given up by a caller. Nothing has been sent yet.
                await connection.set_up()
            return await connection.send(call)
        finally:
            # redis-py's `release` would wait for a lock, and could be cancelled there.
            self._in_use_connections.remove(connection)
            self._available_connections.append(connection)

    def give_up(self) -> None:
        """Close the connections that are not in use, at once."""
        for each in self._available_connections:
            cast("_Quick", each).give_up()

    async def aclose(self) -> None:
        """Close all connections, those too that are being set up."""
        connections = (*self._available_connections, *self._in_use_connections)
        ceasing = {task for each in connections for task in cast("_Quick", each).cease()}
        if ceasing:
            await asyncio.wait(ceasing)
        await super().aclose()
