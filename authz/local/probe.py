"""Probes over a service's socket: one request, one bounded answer, closed again."""

import asyncio
import io
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Final, NamedTuple

_LARGEST: Final = 1 << 16

Endpoint = Path | tuple[str, int]


class Answer(NamedTuple):
    """Hold an HTTP status and body."""

    status: int
    body: bytes


class _Answered:
    """Be the socket of an answer that was already read."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _mode: str) -> io.BytesIO:
        """Return what a file of the socket would read."""
        return io.BytesIO(self._raw)


async def http(place: Endpoint, path: str, method: str = "GET") -> Answer:
    """Ask over HTTP/1.1.

    Args:
        place: a Unix socket, or host and port.
        path: path and query.
        method: `GET` or `POST`.

    Raises:
        OSError: where nobody answers, or not in HTTP.
    """
    request = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
        "Connection: close\r\n\r\n"
    )
    raw = await _ask(place, request.encode("ascii"))
    try:
        with HTTPResponse(_Answered(raw), method=method) as response:  # type: ignore[arg-type]  # all that it asks of a socket
            response.begin()
            return Answer(response.status, response.read())
    except HTTPException as error:
        raise ConnectionError("the answer is not HTTP") from error


async def redis(place: Endpoint, user: str, password: str) -> bool:
    """Tell whether a Redis lets the user in and answers PING.

    Raises:
        OSError: where nobody answers.
    """
    answer = await _ask(place, f"AUTH {user} {password}\r\nPING\r\nQUIT\r\n".encode("ascii"))
    return answer.startswith(b"+OK\r\n+PONG\r\n")


async def connects(path: Path) -> None:
    """Connect to a Unix socket and hang up.

    Raises:
        OSError: where nobody listens.
    """
    _, writer = await asyncio.open_unix_connection(path)
    await hang_up(writer)


async def _ask(place: Endpoint, request: bytes) -> bytes:
    if isinstance(place, Path):
        reader, writer = await asyncio.open_unix_connection(place)
    else:
        reader, writer = await asyncio.open_connection(*place)
    try:
        writer.write(request)
        await writer.drain()
        answer = b""
        while len(answer) < _LARGEST and (chunk := await reader.read(_LARGEST)):
            answer += chunk
        return answer
    finally:
        await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection at once, whatever was not sent yet."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
