"""Sessions of admin pages as a test makes them, and an upstream: it records, streams, echoes."""

import asyncio
import base64
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingMixIn, UnixStreamServer
from typing import Any

from authz.core.browser_session import BrowserSession
from authz.core.ledger import UnavailableError
from authz.core.second_factor import Method

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


@dataclass
class RecordStore:
    """Redis, as far as sessions need it: `Command`s on a dict."""

    kept: dict[bytes, bytes] = field(default_factory=dict)
    away: bool = False

    async def __call__(self, name: str, key: bytes, *arguments: Any) -> Any:
        if self.away:
            raise UnavailableError("redis", "away")
        if name == "GET":
            return self.kept.get(key)
        if "XX" in arguments and key not in self.kept:
            return None
        if name == "DEL":
            return self.kept.pop(key, None)
        assert name == "SET"
        if "NX" in arguments and key in self.kept:
            return None
        value = arguments[0]
        self.kept[key] = value if isinstance(value, bytes) else str(value).encode()
        return b"OK"


def john(**changes: Any) -> BrowserSession:
    """The log-in of an administrator with TOTP, of a minute ago."""
    now = int(time.time())
    login = BrowserSession(
        "s-john", "john", frozenset({"admins", "staff"}), Method.TOTP, now - 60, now - 60,
        now + 3600, now, "a-token", now + 3600, True, "John Doe", "john@example.com",
    )  # fmt: skip
    return replace(login, **changes)


@dataclass
class Directory:
    """The issuer, as far as groups are asked of it.

    Attributes:
        said: what it says; an exception is raised.
        asked: the tokens by which it was asked.
        waits: an answer waits for it, where there is one.
    """

    said: frozenset[str] | Exception = frozenset({"admins", "staff"})
    asked: list[str] = field(default_factory=list)
    waits: asyncio.Event | None = None

    async def groups(self, token: str, subject: str, address: str) -> frozenset[str]:
        assert subject
        assert address
        self.asked.append(token)
        if self.waits is not None:
            await self.waits.wait()
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@dataclass(frozen=True, slots=True)
class PageArrived:
    """Hold the head of a request that reached a page's upstream."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


@dataclass
class PageUpstream:
    """A web interface: `/stream` sends events, an upgrade is echoed, all else is a page.

    Attributes:
        arrived: what reached it.
        sets: cookies that its answers set.
        go_on: streams go on once it is set.
    """

    arrived: list[PageArrived] = field(default_factory=list)
    sets: tuple[str, ...] = ()
    go_on: threading.Event = field(default_factory=threading.Event)
    page: str = "<!doctype html><title>A page</title><h1>A page</h1>"


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@contextmanager
def page_upstream(place: Path) -> Iterator[PageUpstream]:
    """Serve HTTP/1.1 at a Unix socket."""
    state = PageUpstream()

    class PageHandler(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self._answer(self.request)

        def _answer(self, sock: socket.socket) -> None:
            head, rest = b"", b""
            while b"\r\n\r\n" not in head:
                received = sock.recv(65536)
                if not received:
                    return
                head += received
            head, _, rest = head.partition(b"\r\n\r\n")
            line, *lines = head.decode("latin-1").split("\r\n")
            headers = tuple((each.split(": ", 1)[0], each.split(": ", 1)[-1]) for each in lines)
            arrived = PageArrived(line, headers)
            length = int((arrived.values("content-length") or ["0"])[0])
            while len(rest) < length:
                rest += sock.recv(65536)
            state.arrived.append(replace(arrived, body=rest))
            if arrived.values("upgrade"):
                _echo(sock, arrived)
            elif line.split(" ")[1].startswith("/stream"):
                _events(sock, state)
            else:
                body = state.page.encode()
                sock.sendall(_head(200, "text/html", state.sets, len(body)) + body)

    server = _Server(str(place), PageHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield state
    finally:
        state.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _head(status: int, media: str, sets: tuple[str, ...], length: int | None) -> bytes:
    lines = [f"HTTP/1.1 {status} OK", f"content-type: {media}", "connection: close"]
    lines += [f"set-cookie: {each}" for each in sets]
    lines += [] if length is None else [f"content-length: {length}"]
    return "\r\n".join((*lines, "", "")).encode()


def _events(sock: socket.socket, state: PageUpstream) -> None:
    sock.sendall(_head(200, "text/event-stream", (), None) + b"data: first\n\n")
    state.go_on.wait(30)
    sock.sendall(b"data: second\n\n")


def _echo(sock: socket.socket, arrived: PageArrived) -> None:
    key = (arrived.values("sec-websocket-key") or [""])[0].encode()
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
    lines = (
        "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}", "", "",
    )  # fmt: skip
    sock.sendall("\r\n".join(lines).encode())
    while received := sock.recv(65536):
        sock.sendall(_unmasked(received))


def _unmasked(frame: bytes) -> bytes:
    """Return a short frame of a client as a server sends it (RFC 6455, section 5.2)."""
    length = frame[1] & 0x7F
    if not frame[1] & 0x80 or length > 125:
        return frame
    mask, data = frame[2:6], frame[6 : 6 + length]
    plain = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    return bytes((frame[0], length)) + plain
