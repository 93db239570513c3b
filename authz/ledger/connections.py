"""Connections to Redis over TCP, TLS or a Unix socket, with one call at a time on each.

Invariant: what arrives on a connection is the reply to its one call, or the end of the connection
(tests/ledger/test_connections.py). After a reply that nobody awaits, more than one reply, a
cancelled caller or half a reply, it is never used again. A call is written at most once, and only
to a connection from which nothing else is to come.
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
from authz.ledger.faults import InvalidReplyError, NotConnectedError, ReplyError, TlsFilesError

SCHEMES: Final = frozenset({"redis", "rediss", "unix"})
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
PARAMETERS: Final = frozenset({"db", *_TLS_FILES})  # that the query of a URL may have
_PORT: Final = 6379
_INCOMPLETE: Final = object()  # what hiredis returns as long as a reply is not whole


class RedisProtocol(asyncio.Protocol):
    """One connection: write one call at a time, and hand its reply to the caller."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(
            protocolError=InvalidReplyError, replyError=ReplyError, notEnoughData=_INCOMPLETE
        )
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self._cause: Exception | None = None  # of the end
        self._reply: asyncio.Future[Any] | None = None

    @property
    def idle(self) -> bool:
        """Tell whether a call may be written: the last one has its reply, and nothing came since.

        A cancelled caller leaves a call without a reply behind, so it is idle no more.
        """
        return (
            self._reply is None
            and not self._ended
            and self._transport is not None
            and not self._transport.is_closing()
        )

    def write(self, call: bytes) -> asyncio.Future[Any]:
        """Write a call; the future's result is the reply, or an exception as a value.

        Raises:
            NotConnectedError: where nothing may be written; nothing was.
        """
        if self._transport is None or not self.idle:
            raise NotConnectedError("not idle") from self._cause
        reply = self._reply = self._loop.create_future()
        # Never more than one call is buffered here, so nobody waits for the buffer to drain.
        self._transport.write(call)
        return reply

    async def request(self, call: bytes) -> Any:
        """Return the reply to a call.

        Raises:
            ReplyError: Redis' error reply.
            Exception: where there is no reply; the connection is closed.
        """
        try:
            reply = await self.write(call)
        except BaseException:
            self.abort()
            raise
        if isinstance(reply, Exception):
            if not isinstance(reply, ReplyError):
                self.abort()
            raise reply
        return reply

    def abort(self) -> None:
        """Close the connection at once; nothing more is read from it."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand over the reply once it is whole; anything else ends the connection."""
        future = self._reply
        if future is None or future.done():
            # A second reply, or the first one after its caller was cancelled.
            self.abort()
            return
        try:
            self._reader.feed(data)
            reply = self._reader.gets()
            if reply is not _INCOMPLETE and self._reader.has_data():
                raise InvalidReplyError("more than one answer")  # noqa: TRY301 - as any other fault
        except Exception as error:  # noqa: BLE001 - no RESP, an error in no encoding, no memory
            self.abort()
            future.set_result(error)
        else:
            if reply is not _INCOMPLETE:
                self._reply = None
                future.set_result(reply)

    def eof_received(self) -> None:
        """Use the connection no more; the transport closes itself."""
        self._ended = True

    def connection_lost(self, cause: Exception | None) -> None:
        """Tell the caller that no reply will come, and why: TLS refuses a client by an alert."""
        self._ended, self._cause = True, cause
        if self._reply is not None and not self._reply.done():
            error = NotConnectedError("closed")
            error.__cause__ = cause
            self._reply.set_result(error)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of a TLS connection; an empty name is no file.

    Attributes:
        authorities: of the server's certificate; the system's, where empty.
        certificate: ours.
        key: its key.
        server_name: that the server's certificate is for; the host's, where empty.
    """

    authorities: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            TlsFilesError: where one cannot be read, or is none.
        """
        try:
            context = ssl.create_default_context(cafile=self.authorities or None)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key or None)
        except OSError as error:
            raise TlsFilesError(type(error).__name__) from error
        return context


@dataclass(frozen=True, slots=True)
class RedisEndpoint:
    """Where Redis is, and the commands that set up a connection.

    Attributes:
        host: a name or an address; empty for a Unix socket.
        port: of the host.
        path: of the Unix socket; empty for TCP.
        tls: the files of a TLS connection; None for a plain one.
        greeting: AUTH and SELECT, as far as needed.
    """

    host: str
    port: int
    path: str
    tls: TlsFiles | None
    greeting: tuple[bytes, ...] = field(repr=False)

    async def connect(self, addresses: HostAddresses) -> RedisProtocol:
        """Return a connection that is set up.

        Args:
            addresses: of the host.

        Raises:
            ReplyError: where Redis refuses AUTH or SELECT.
            Exception: where it cannot be reached.
        """
        if self.path:
            loop = asyncio.get_running_loop()
            _, protocol = await loop.create_unix_connection(RedisProtocol, self.path)
        else:
            protocol = await self._connect_tcp(await addresses.find())
        try:
            for each in self.greeting:
                await protocol.request(each)
        except NotConnectedError as error:
            if self.tls is not None and not isinstance(error.__cause__, ssl.SSLError):
                # In TLS 1.3 a server refuses our certificate after the handshake, and what was
                # written meanwhile has its alert thrown away (RFC 8446, section 4.4.2.4).
                raise NotConnectedError("closed after the handshake") from ssl.SSLError()
            raise
        except BaseException:
            protocol.abort()
            raise
        return protocol

    async def _connect_tcp(self, addresses: Sequence[str]) -> RedisProtocol:
        """Return a connection to the first address that takes one."""
        # Read for each connection, so that replaced files count from the next one on. Not on the
        # loop: reading the system's authorities takes longer than a reply may.
        tls = None if self.tls is None else await asyncio.to_thread(self.tls.context)
        name = None if self.tls is None else self.tls.server_name or self.host
        loop = asyncio.get_running_loop()
        for each in addresses:
            try:
                transport, protocol = await loop.create_connection(
                    RedisProtocol, each, self.port, ssl=tls, server_hostname=name
                )
            except OSError:
                if each == addresses[-1]:
                    raise
                continue
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return protocol
        raise NotConnectedError("no address")


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
        tls = TlsFiles(*(given.get(name, "") for name in _TLS_FILES))
    host = "" if local else parts.hostname or "localhost"
    greeting = login_commands(username, password, int(database))
    return RedisEndpoint(host, parts.port or _PORT, path if local else "", tls, greeting)


def login_commands(username: str, password: str, database: int = 0) -> tuple[bytes, ...]:
    """Return AUTH and SELECT, as far as needed."""
    greeting = []
    if password or username:
        user = (username,) if username else ()
        greeting.append(command("AUTH", *user, password))
    if database:
        greeting.append(command("SELECT", database))
    return tuple(greeting)
