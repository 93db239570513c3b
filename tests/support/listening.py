"""Servers of asyncio for tests that cut off, at their end, whoever is still connected.

Since Python 3.12 the end of `async with server` waits for every open connection, and one half of
which was closed stays open as long as its handler says nothing.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(
    handler: Handler, path: Path | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve on 127.0.0.1 or on a Unix socket as long as the block does; give the port, or 0."""
    writers = set[asyncio.StreamWriter]()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        await handler(reader, writer)

    if path is None:
        server = await asyncio.start_server(tracked, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
    else:
        server, port = await asyncio.start_unix_server(tracked, path, ssl=tls), 0
    try:
        yield port
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()
