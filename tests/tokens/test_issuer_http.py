"""Why an issuer cannot be reached is told in words that its operator can act on."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from authz.setup.certificates import write_certificates
from authz.tokens.issuer_http import IssuerEndpoint, IssuerError, get, issuer_client
from tests.support.listening import listening


@asynccontextmanager
async def nobody(_: Path) -> AsyncIterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and no listen
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@asynccontextmanager
async def unknown_name(_: Path) -> AsyncIterator[str]:
    yield "http://no-such-name.invalid"  # RFC 6761, section 6.4


@asynccontextmanager
async def served(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async with listening(answer, tls=context) as port:
        yield port


@asynccontextmanager
async def untrusted(folder: Path) -> AsyncIterator[str]:
    made = write_certificates(folder, ["localhost"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)
    async with served(context) as port:
        yield f"https://localhost:{port}"


@asynccontextmanager
async def plain(_: Path) -> AsyncIterator[str]:
    async with served(None) as port:
        yield f"https://localhost:{port}"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (nobody, "ConnectError: nobody listens there"),
        (unknown_name, "ConnectError: the name is not known"),
        (untrusted, "ConnectError: its certificate is not trusted"),
        (plain, "ConnectError: no TLS there"),
    ],
)
def test_what_is_in_the_way_is_named(
    tmp_path: Path, place: Callable[[Path], AbstractAsyncContextManager[str]], words: str
) -> None:
    """Refused, unknown, not trusted and not TLS are four things to mend."""

    async def play() -> str:
        async with place(tmp_path) as url, issuer_client(timeout=10) as client:
            with pytest.raises(IssuerError) as caught:
                await get(client, IssuerEndpoint(httpx.URL(url), {}))
            return caught.value.detail

    assert asyncio.run(play()) == words


@asynccontextmanager
async def json_at(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    async with listening(answer, tls=context) as port:
        yield port


def test_the_systems_authorities_are_read_for_https_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are a megabyte, which an issuer at a plain internal address does not need."""
    made = write_certificates(tmp_path, ["localhost"])
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)
    read, create = list[object](), ssl.create_default_context

    def counted() -> ssl.SSLContext:
        read.append(None)
        return create()

    async def play() -> None:
        async with (
            json_at(None) as plain_port,
            json_at(context) as port,
            issuer_client(timeout=10) as client,
        ):
            at = IssuerEndpoint(httpx.URL(f"http://127.0.0.1:{plain_port}"), {})
            assert await get(client, at) == {}
            assert not read
            for _ in range(2):
                at = IssuerEndpoint(httpx.URL(f"https://localhost:{port}"), {})
                assert await get(client, at) == {}
            assert len(read) == 1

    monkeypatch.setattr(ssl, "create_default_context", counted)
    asyncio.run(play())
