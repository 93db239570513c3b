"""A client that sends what it is told to, byte by byte.

Nothing is corrected on the way out; a connection that is closed without an answer is a result too.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

_TIMEOUT = 30


@dataclass(frozen=True, slots=True)
class WildAnswer:
    """Hold what a client was answered; a connection closed without a word has status 0."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    def header(self, name: str) -> str | None:
        return ", ".join(self.values(name)) if self.values(name) else None

    def json(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.body)
        return found


@dataclass(frozen=True, slots=True)
class WildClient:
    """Send requests byte by byte as they are given, over HTTP/1.1, on a connection each.

    Attributes:
        port: of Envoy's listener on 127.0.0.1.
        host: the Host to send.
        tls: None for plaintext.
        server_name: the SNI, where it is not the host.
    """

    port: int
    host: str
    tls: ssl.SSLContext | None = None
    server_name: str | None = None

    def __call__(
        self,
        method: str,
        target: str,
        *headers: tuple[str, str],
        body: bytes | None = None,
        host: str | None = None,
    ) -> WildAnswer:
        """Send one request and read its answer."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host if host is None else host}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join((*lines, "", "")).encode("latin-1")
        with self.connect() as sock:
            return read(sock, head + (body or b""), method)

    @contextmanager
    def connect(self) -> Iterator[socket.socket]:
        """Open a connection."""
        with socket.create_connection(("127.0.0.1", self.port), _TIMEOUT) as plain:
            if self.tls is None:
                yield plain
                return
            name = self.server_name or self.host
            with self.tls.wrap_socket(plain, server_hostname=name) as wrapped:
                yield wrapped


def read(sock: socket.socket, request: bytes, method: str = "GET") -> WildAnswer:
    """Send bytes and read one answer."""
    try:
        sock.sendall(request)
        response = http.client.HTTPResponse(sock, method=method)
    except OSError:
        return WildAnswer(0)
    try:
        response.begin()
        return WildAnswer(response.status, tuple(response.getheaders()), response.read())
    except (http.client.HTTPException, OSError):
        return WildAnswer(0)
    finally:
        response.close()


def is_json_rpc_error(answer: WildAnswer) -> bool:
    """Tell whether an answer is an error that MCP clients show."""
    if answer.header("content-type") != "application/json-rpc":
        return False
    body = answer.json()
    error = body.get("error")
    return (
        body.get("jsonrpc") == "2.0"
        and body["id"] == ""
        and isinstance(error, dict)
        and isinstance(error["code"], int)
        and bool(error["message"])
    )


def preflight(origin: str) -> Sequence[tuple[str, str]]:
    """Return the headers by which a browser asks first."""
    return (("origin", origin), ("access-control-request-method", "POST"))


def http2(client: WildClient, *headers: tuple[str, str], body: bytes | None = None) -> WildAnswer:
    """Send one request over HTTP/2 with exactly these fields, pseudo fields included."""
    config = H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="latin-1"
    )
    connection = H2Connection(config)
    connection.initiate_connection()
    connection.send_headers(1, headers, end_stream=body is None)
    if body is not None:
        connection.send_data(1, body, end_stream=True)
    with client.connect() as sock:
        sock.sendall(connection.data_to_send())
        return _http2_answer(sock, connection)


def _http2_answer(sock: socket.socket, connection: H2Connection) -> WildAnswer:
    headers: tuple[tuple[str, str], ...] = ()
    body = b""
    while received := sock.recv(65536):
        for event in connection.receive_data(received):
            if isinstance(event, ResponseReceived):
                headers = tuple((str(name), str(value)) for name, value in event.headers)
            elif isinstance(event, DataReceived):
                body += event.data
            elif isinstance(event, StreamReset | ConnectionTerminated):
                return WildAnswer(0)
            elif isinstance(event, StreamEnded):
                return WildAnswer(int(dict(headers)[":status"]), headers, body)
        sock.sendall(connection.data_to_send())
    return WildAnswer(0)
