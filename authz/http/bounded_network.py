"""Connections to hosts that may mean no good: what one costs is bounded, and others run in between.

httpcore takes what it has received apart without giving the event loop back, and a kilobyte of
interim responses (RFC 9110, section 15.2) or of chunks of one byte takes it a hundred times as long
as one of text: a host that sends them holds every other task.

Invariant: between two pieces that are read other tasks run, and what follows a request has a
bounded number of bytes and lines, whatever the host sends (tests/http/test_bounded_network.py).
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import httpcore
import httpx

_PIECE: Final = 1024  # bytes: of chunks of one byte some milliseconds
# A header field, a chunk and an interim response are lines. So is a line of JSON for people.
MOST_LINES: Final = 50_000


class TooMuchReceivedError(httpcore.RemoteProtocolError):
    """Say that a host sends more than anybody needs for an answer."""


class _Budget:
    """Count what a host may still send in answer to what was written last."""

    def __init__(self, most_bytes: int, most_lines: int) -> None:
        self._most = most_bytes, most_lines
        self._bytes, self._lines = self._most

    def renew(self) -> None:
        """Begin anew: something was written."""
        self._bytes, self._lines = self._most

    def take(self, data: bytes) -> None:
        """Count what was read.

        Raises:
            TooMuchReceivedError: where it is too much.
        """
        self._bytes -= len(data)
        self._lines -= data.count(b"\n")
        if self._bytes < 0 or self._lines < 0:
            raise TooMuchReceivedError("too many bytes or lines")


class _BoundedStream(httpcore.AsyncNetworkStream):
    """Read a stream in small pieces, up to a budget."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, budget: _Budget) -> None:
        self._stream = stream
        self._budget = budget

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the base class's signature
        # What waits in a buffer is read without a pause.
        await asyncio.sleep(0)
        data = await self._stream.read(min(max_bytes, _PIECE), timeout)
        self._budget.take(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as above
        self._budget.renew()
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> httpcore.AsyncNetworkStream:
        inner = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _BoundedStream(inner, self._budget)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class BoundedNetwork(httpcore.AsyncNetworkBackend):
    """Connect so that what a host sends costs no other task more than a moment."""

    def __init__(
        self,
        most_bytes: int,
        most_lines: int | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """Take the bounds of one answer.

        Args:
            most_bytes: that are read, header fields and chunks' sizes included.
            most_lines: likewise; None for `MOST_LINES`.
            network: how to connect; None for the system's way.
        """
        self._most_bytes = most_bytes
        self._most_lines = MOST_LINES if most_lines is None else most_lines
        self._network = network or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the base class's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a host."""
        return self._bounded(
            await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        )

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a socket of Unix."""
        return self._bounded(await self._network.connect_unix_socket(path, timeout, socket_options))

    def _bounded(self, stream: httpcore.AsyncNetworkStream) -> httpcore.AsyncNetworkStream:
        return _BoundedStream(stream, _Budget(self._most_bytes, self._most_lines))


class BoundedTransport(httpx.AsyncBaseTransport):
    """Send requests of httpx over connections of a `BoundedNetwork`; no proxy is used."""

    def __init__(
        self,
        most_bytes: int,
        trust: ssl.SSLContext | None = None,
        uds: str | None = None,
        *,
        keeps: bool = True,
    ) -> None:
        """Take the bound of one answer.

        Args:
            most_bytes: as of `BoundedNetwork`.
            trust: which authorities to trust; None where nobody is asked by https.
            uds: a socket of Unix in place of the URL's host.
            keeps: whether connections are kept for further requests.
        """
        self._pool = httpcore.AsyncConnectionPool(
            trust,
            max_keepalive_connections=None if keeps else 0,
            uds=uds,
            network_backend=BoundedNetwork(most_bytes),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            httpx.TransportError: where there is no response.
        """
        url = request.url
        sent = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _translated(request):
            response = await self._pool.handle_async_request(sent)
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_TranslatedStream(response, request),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _TranslatedStream(httpx.AsyncByteStream):
    """Read the body of a response, with the errors of httpx."""

    def __init__(self, response: httpcore.Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated(self._request):
            async for chunk in self._response.aiter_stream():
                yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


@contextmanager
def _translated(request: httpx.Request) -> Iterator[None]:
    """Turn the errors of httpcore into httpx's."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.TimeoutException("no answer in time", request=request) from error
    except httpcore.ProtocolError as error:
        raise httpx.RemoteProtocolError("no valid HTTP", request=request) from error
    except httpcore.ConnectError as error:
        raise httpx.ConnectError("not reached", request=request) from error
    except (httpcore.NetworkError, httpcore.UnsupportedProtocol) as error:
        raise httpx.NetworkError("not reached", request=request) from error
