"""Connections to hosts that mean no good: others run meanwhile, and there is an end to it."""

import asyncio
from functools import partial
from pathlib import Path

import httpcore
import httpx
import pytest

from authz.http import bounded_network
from authz.http.bounded_network import BoundedTransport
from tests.support.listening import listening
from tests.support.watched_network import FLOODS, Turns, WatchedNetwork, flood

_MOST = 4 << 20  # bytes


def _watch(monkeypatch: pytest.MonkeyPatch) -> Turns:
    turns = Turns()
    monkeypatch.setattr(httpcore, "AnyIOBackend", partial(WatchedNetwork, turns))
    return turns


@pytest.mark.attack("hostile-host")
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_ends_and_others_run_meanwhile(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interim responses without an end, and chunks of one byte."""
    monkeypatch.setattr(bounded_network, "MOST_LINES", 5_000)
    turns = _watch(monkeypatch)

    async def scene() -> None:
        other = asyncio.create_task(turns.take())
        async with (
            listening(partial(flood, kind)) as port,
            httpx.AsyncClient(transport=BoundedTransport(_MOST), trust_env=False) as client,
        ):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(f"http://127.0.0.1:{port}/")
        other.cancel()

    asyncio.run(scene())
    assert turns.most <= 1024


@pytest.mark.attack("hostile-host")
def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunk extensions (RFC 9112, section 7.1.1) are no body and no line."""
    turns = _watch(monkeypatch)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + (b"1;" + b"x" * 2000 + b"\r\n \r\n") * 100)
        await writer.drain()

    async def scene() -> None:
        async with (
            listening(answer) as port,
            httpx.AsyncClient(transport=BoundedTransport(20_000), trust_env=False) as client,
        ):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(f"http://127.0.0.1:{port}/")

    asyncio.run(scene())
    assert sum(size for size, _ in turns.reads) <= 20_000 + 1024


def test_an_answer_comes_whole_over_either_kind_of_socket(tmp_path: Path) -> None:
    """And a host that is away, late or hangs up is told in httpx's words."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if asked.startswith(b"GET /hang"):
            return
        body = b"x" * 100_000 if asked.startswith(b"GET /whole?a=1 ") else b""
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async def scene(transport: BoundedTransport, url: str) -> None:
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=60) as client:
            whole = await client.get(f"{url}/whole?a=1")
            assert (whole.status_code, whole.content) == (200, b"x" * 100_000)
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(f"{url}/cut")
            with pytest.raises(httpx.TimeoutException):
                await client.get(f"{url}/hang", timeout=0.01)

    async def both() -> None:
        async with listening(answer) as port:
            await scene(BoundedTransport(_MOST), f"http://127.0.0.1:{port}")
        path = tmp_path / "s"
        async with listening(answer, path):
            await scene(BoundedTransport(_MOST, uds=str(path)), "http://server")
        async with httpx.AsyncClient(transport=BoundedTransport(_MOST), trust_env=False) as client:
            with pytest.raises(httpx.NetworkError):
                await client.get(f"http://127.0.0.1:{port}/")

    asyncio.run(both())
