"""A service that messages are posted to, and that does what such a service should not."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

_CHUNK: Final = b"10000\r\n" + b"x" * 65536 + b"\r\n"


@dataclass
class PostedMessage:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class TargetServer:
    """The server: `answer` is called for each request, and may be replaced.

    Attributes:
        posted: what came.
        connections: how many were opened.
    """

    answer: Callable[["TargetServer", socket.socket], None]
    posted: list[PostedMessage] = field(default_factory=list)
    connections: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def status(code: int, *headers: str) -> Callable[[TargetServer, socket.socket], None]:
    """Answer with a status and no body."""

    def answer(_: TargetServer, to: socket.socket) -> None:
        lines = [f"HTTP/1.1 {code} x", "content-length: 0", "connection: close", *headers]
        to.sendall("\r\n".join([*lines, "", ""]).encode())

    return answer


def in_turn(
    *answers: Callable[[TargetServer, socket.socket], None],
) -> Callable[[TargetServer, socket.socket], None]:
    """Answer each request in another way; the last one again and again."""

    def answer(server: TargetServer, to: socket.socket) -> None:
        answers[min(len(server.posted), len(answers)) - 1](server, to)

    return answer


def hang(server: TargetServer, _: socket.socket) -> None:
    """Never answer."""
    server.closing.wait()


def endless_body(server: TargetServer, to: socket.socket) -> None:
    """Answer 200, and then without end."""
    to.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while not server.closing.is_set():
        to.sendall(_CHUNK)


def endless_head(server: TargetServer, to: socket.socket) -> None:
    """Never end the head."""
    to.sendall(b"HTTP/1.1 200 OK\r\n")
    while not server.closing.is_set():
        to.sendall(b"x-more: " + b"x" * 1000 + b"\r\n")


def garbage(_: TargetServer, to: socket.socket) -> None:
    """Answer what is no HTTP."""
    to.sendall(b"\x00\xff" * 1000)


def cut_off(_: TargetServer, to: socket.socket) -> None:
    """Close without an answer."""
    to.shutdown(socket.SHUT_RDWR)


@contextmanager
def target_server(
    answer: Callable[[TargetServer, socket.socket], None],
    tls: ssl.SSLContext | None = None,
) -> Iterator[TargetServer]:
    """Run such a service as long as the block does."""
    server = TargetServer(answer)
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError, IndexError):
            stream = connection
            if tls is not None:
                stream = tls.wrap_socket(connection, server_side=True)
            with stream:
                server.posted.append(_read(stream))
                server.answer(server, stream)

    def accept() -> None:
        while not server.closing.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            server.connections += 1
            threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
            threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield server
    finally:
        server.closing.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()


def _read(connection: socket.socket) -> PostedMessage:
    stream = connection.makefile("rb")
    path = stream.readline().split()[1].decode()
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return PostedMessage(path, headers, stream.read(int(headers.get("content-length", "0"))))
