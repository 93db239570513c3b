"""Questions over sockets are answered, or fail as one kind of error."""

import asyncio
from pathlib import Path

import pytest

from authz.local import probe


def _answering(place: Path, answer: bytes, ask: str = "http") -> object:
    """Ask a server that answers with these bytes and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def play() -> object:
        async with await asyncio.start_unix_server(serve, place / "s"):
            if ask == "redis":
                return await probe.redis(place / "s", "authz", "secret")
            return await probe.http(place / "s", "/")

    return asyncio.run(play())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", (200, b"ok")),
        (b"HTTP/1.0 503 No\r\n\r\nto the end", (503, b"to the end")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
            (200, b"one"),
        ),
    ],
    ids=["length", "closed", "chunked"],
)
def test_http(place: Path, answer: bytes, expected: tuple[int, bytes]) -> None:
    """An answer is read however it is framed."""
    assert _answering(place, answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 2xx\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 200_000,
    ],
    ids=["nothing", "ssh", "status", "short", "chunk", "endless"],
)
def test_not_http(place: Path, answer: bytes) -> None:
    """Whatever else comes back is an OSError, like nobody there."""
    with pytest.raises(OSError, match="not HTTP"):
        _answering(place, answer)


def test_nobody(place: Path) -> None:
    """Nobody there is an OSError."""
    for work in (probe.http(place / "s", "/"), probe.connects(place / "s")):
        with pytest.raises(FileNotFoundError):
            asyncio.run(work)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"+OK\r\n+PONG\r\n+OK\r\n", True),
        (b"+OK\r\n-LOADING Valkey is loading the dataset in memory\r\n", False),
        (b"-WRONGPASS invalid username-password pair\r\n-NOAUTH\r\n", False),
        (b"", False),
    ],
    ids=["ready", "loading", "stranger", "nothing"],
)
def test_redis(place: Path, answer: bytes, expected: bool) -> None:
    """A Redis is ready once it lets us in and answers."""
    assert _answering(place, answer, "redis") is expected
