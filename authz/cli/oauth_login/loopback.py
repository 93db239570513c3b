"""The page that a log-in ends on: one path on 127.0.0.1, for one answer (RFC 8252, section 7.3).

Invariant: it listens on 127.0.0.1 alone and takes one answer, the first with the right state;
other requests, which any web page may send, are refused and not repeated
(tests/cli/test_oauth_login.py).
"""

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qsl, urlsplit

_HOST: Final = "127.0.0.1"
_LARGEST: Final = 16 * 1024
_PATIENCE: Final = 5.0  # seconds for one request
_MOST: Final = 20  # parameters
_HEADERS: Final = (
    "Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n"
    "Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
    "Connection: close\r\n"
)
_DONE: Final = (200, "OK", "The terminal has the answer. You can close this page.")
_REFUSED: Final = (400, "Bad Request", "This is not the answer that the terminal waits for.")
_NOT_FOUND: Final = (404, "Not Found", "There is nothing here.")
_USED: Final = (410, "Gone", "The terminal has had its answer. You can close this page.")

_BROKEN: Final = (
    OSError,  # time-outs too
    ValueError,  # an address that is none
    asyncio.IncompleteReadError,
    asyncio.LimitOverrunError,
)

Answer = Mapping[str, str]
_Page = tuple[int, str, str]


class Loopback:
    """Wait for the answer to one authorization request."""

    def __init__(self, path: str, belongs: Callable[[Answer], bool]) -> None:
        """Take the path, and what tells whether an answer is the one to wait for."""
        self._path = path
        self._belongs = belongs
        self._server: asyncio.Server | None = None
        self._port = 0
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    @property
    def redirect_uri(self) -> str:
        """Return the URI that leads here."""
        return f"http://{_HOST}:{self._port}{self._path}"

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: where that is not possible.
        """
        self._server = await asyncio.start_server(self._serve, _HOST, 0, limit=_LARGEST)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening."""
        assert self._server is not None
        # And no wait_closed(): since Python 3.12 it waits for every open connection, and browsers
        # open some before they need them.
        self._server.close()

    async def answer(self) -> Answer:
        """Return the parameters of the answer, when it comes."""
        return await asyncio.shield(self._answer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = None
        try:
            async with asyncio.timeout(_PATIENCE):
                page, answer = self._page(await reader.readuntil(b"\r\n\r\n"))
                writer.write(_response(page))
                await writer.drain()
        except _BROKEN:
            pass  # whoever sends half a request is told nothing; an answer that came whole counts
        finally:
            writer.close()
        # Not before the page is written: the terminal may end at once.
        if answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _page(self, head: bytes) -> tuple[_Page, Answer | None]:
        lines = head.decode("latin-1").split("\r\n")
        method, _, rest = lines[0].partition(" ")
        url = urlsplit(rest.partition(" ")[0])
        # Another name that leads to this machine is a page that wants to read what is here.
        hosts = [line for line in lines[1:] if line.lower().startswith("host:")]
        here = [f"{_HOST}:{self._port}"] == [host[5:].strip() for host in hosts]
        if method != "GET" or url.path != self._path or not here:
            return _NOT_FOUND, None
        if self._answer.done():
            return _USED, None
        try:
            pairs = parse_qsl(url.query, keep_blank_values=True, max_num_fields=_MOST)
        except ValueError:
            return _REFUSED, None
        answer = dict(pairs)
        # RFC 6749, section 3.1: no parameter twice.
        if len(answer) != len(pairs) or not self._belongs(answer):
            return _REFUSED, None
        return _DONE, answer


def _response(page: _Page) -> bytes:
    status, phrase, words = page
    body = f"<!doctype html><title>authz</title><p>{words}</p>\n".encode()
    head = f"HTTP/1.1 {status} {phrase}\r\n{_HEADERS}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body
