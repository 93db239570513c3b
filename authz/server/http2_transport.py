"""The transport on ngh2: HTTP/2 without TLS (RFC 9113, section 3.3), on asyncio."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

from authz.process.listening import bind_tcp, bind_unix
from authz.server.grpc_calls import Calls
from authz.server.http2 import Http2Connection

# Connections at once; Envoy has a few for each of its threads.
_CONNECTIONS: Final = 1_024
_BACKLOG: Final = 1_024
# Seconds in which connections are told to go elsewhere and new ones still taken; then it stops
# listening. As on pyvoy.
_DRAIN: Final = 1.0
# Seconds for the last bytes to be read.
_WRITE: Final = 0.5
# Seconds until a silent TCP peer is asked whether it is there, between two such questions, and how
# many stay unanswered.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


class Http2Transport:
    """Serve a check over HTTP/2."""

    name = "ngh2"

    def __init__(self, calls: Calls) -> None:
        """Take what to serve; nothing listens yet."""
        self._calls = calls
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._path = ""
        self._protocols: set[_ConnectionProtocol] = set()
        self._is_leaving = False
        self._changed = asyncio.Event()

    def listen(self, address: str) -> int:
        """Bind `unix:/path` or `host:port` and return the port; 0 for a socket file.

        Raises:
            OSError: where the address cannot be bound.
        """
        try:
            if address.startswith("unix:"):
                self._path = address.removeprefix("unix:")
                self._socket = bind_unix(Path(self._path))
                return 0
            host, _, port = address.rpartition(":")
            self._socket = bind_tcp(host.strip("[]"), int(port))
        except OSError as error:
            raise OSError(f"cannot listen on {address}: {error.strerror}") from error
        for level, option, value in _KEEPALIVE:
            self._socket.setsockopt(level, option, value)  # connections inherit it
        return cast("int", self._socket.getsockname()[1])

    async def start(self) -> None:
        """Begin to answer."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        if self._path:
            self._server = await loop.create_unix_server(
                self._make_protocol, sock=self._socket, backlog=_BACKLOG
            )
        else:
            self._server = await loop.create_server(
                self._make_protocol, sock=self._socket, backlog=_BACKLOG
            )

    async def stop(self, grace: float) -> None:
        """Tell callers to go elsewhere, stop listening, and answer what is in flight.

        At most `grace` seconds long, after the second in which callers learn of it.
        """
        self._is_leaving = True
        for one in self._connections():
            one.go_away()
        await asyncio.sleep(_DRAIN)
        if self._server is not None:
            self._server.close()
        _remove(self._path)
        await self._until(
            grace, is_done=lambda: not any(one.running for one in self._connections())
        )
        for one in self._connections():
            one.close()
        await self._until(_WRITE, is_done=lambda: not self._protocols)
        for protocol in tuple(self._protocols):
            protocol.abort()

    def _make_protocol(self) -> "_ConnectionProtocol":
        return _ConnectionProtocol(self)

    def begin(self, protocol: "_ConnectionProtocol", transport: asyncio.Transport) -> bool:
        """Take a connection; tell whether there is room for it."""
        if len(self._protocols) >= _CONNECTIONS:
            return False
        protocol.http2 = Http2Connection(self._calls, transport, self._changed.set)
        self._protocols.add(protocol)
        if self._is_leaving:
            protocol.http2.go_away()
        return True

    def end(self, protocol: "_ConnectionProtocol") -> None:
        """Forget a connection."""
        self._protocols.discard(protocol)
        self._changed.set()

    def _connections(self) -> list[Http2Connection]:
        return [one.http2 for one in self._protocols if one.http2 is not None]

    async def _until(self, seconds: float, *, is_done: Callable[[], bool]) -> None:
        """Return when something is so, at most so many seconds later."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not is_done():
                    self._changed.clear()
                    await self._changed.wait()


class _ConnectionProtocol(asyncio.Protocol):
    """Join an asyncio transport and an `Http2Connection`."""

    def __init__(self, owner: Http2Transport) -> None:
        self.http2: Http2Connection | None = None
        self._owner = owner
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._owner.begin(self, self._transport):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.http2 is not None:
            self.http2.receive(data)

    def eof_received(self) -> None:
        # Who sends no more is gone (Envoy closes both ways): the transport closes.
        return

    def connection_lost(self, _: Exception | None) -> None:
        if self.http2 is not None:
            self.http2.lost()
        self._owner.end(self)

    def pause_writing(self) -> None:
        if self.http2 is not None:
            self.http2.pause()

    def resume_writing(self) -> None:
        if self.http2 is not None:
            self.http2.resume()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _remove(path: str) -> None:
    """Remove our socket file, where there is one."""
    if path:
        with suppress(OSError):
            Path(path).unlink()
