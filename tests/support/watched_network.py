"""Connections that say how much of what they brought was read in one turn of the event loop."""

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field

import httpcore

# What a hostile host sends without an end: each is a few bytes, and work to take apart.
FLOODS = {
    "interim": b"HTTP/1.1 103 E\r\n\r\n",
    "chunks": b"1\r\n \r\n",
    "blank": b"HTTP/1.1 100 C\n\n",
}
_BEGINS = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


async def flood(kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a request with a flood, until whoever asked is gone."""
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_BEGINS if kind == "chunks" else b"")
        while True:
            writer.write(FLOODS[kind] * 4096)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass


@dataclass
class Turns:
    """Count the turns that another task gets.

    Attributes:
        count: of them.
        reads: for each read of a connection, how many bytes came and in which turn.
    """

    count: int = 0
    reads: list[tuple[int, int]] = field(default_factory=list)

    async def take(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.count += 1

    @property
    def most(self) -> int:
        """Return how many bytes were read at most within one turn."""
        found = dict[int, int]()
        for size, turn in self.reads:
            found[turn] = found.get(turn, 0) + size
        return max(found.values())


class WatchedNetwork(httpcore.AnyIOBackend):
    """Connect as ever, and count."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the base class's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await super().connect_tcp(host, port, timeout, local_address, socket_options)
        return _WatchedStream(found, self._turns)


class _WatchedStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream, turns: Turns) -> None:
        self._stream = stream
        self._turns = turns

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        found = await self._stream.read(max_bytes, timeout)
        self._turns.reads.append((len(found), self._turns.count))
        return found

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as above
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the base class's signature
    ) -> httpcore.AsyncNetworkStream:
        found = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _WatchedStream(found, self._turns)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)
