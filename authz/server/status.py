"""The listener for Prometheus and probes: /metrics, /healthz, /readyz, /identity-keys.

Invariant: it answers these paths to GET and nothing else, and shares nothing with the Check
listener. One of several workers answers on a socket that only the process above it can open.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from socketserver import TCPServer
from types import MappingProxyType
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST, ThreadingWSGIServer

from authz import __version__
from authz.server.health import Health
from authz.server.worker_control import ListenAddress

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Page = tuple[HTTPStatus, str, bytes]
IDENTITY_KEYS: Final = "/identity-keys"
# Seconds that a probe may take to say what it wants.
_PATIENCE = 5
_WAKE: Final = 1.0  # seconds; where a queue is full, the thread is awake


class _SilentHandler(WSGIRequestHandler):
    """Answer without a line on standard error for every scrape."""

    timeout = _PATIENCE

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


class _Ipv6Server(ThreadingWSGIServer):
    """Listen on an IPv6 address."""

    address_family = socket.AF_INET6


class _SilentUnixHandler(_SilentHandler):
    """Answer on a Unix socket, where callers have no address."""

    def setup(self) -> None:
        """Give the caller the address that the base class looks for."""
        self.client_address = ("", 0)
        super().setup()


class _UnixServer(ThreadingWSGIServer):
    """Listen on a Unix socket."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """Bind, in place of whoever was there before and is gone."""
        with suppress(FileNotFoundError):
            Path(str(self.server_address)).unlink()
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()


class StatusPages:
    """Serve pages from a thread, so that a busy loop cannot hide behind them."""

    def __init__(self, pages: Mapping[str, Callable[[], Page]], place: ListenAddress) -> None:
        """Bind the listener.

        Raises:
            OSError: where the address cannot be bound.
        """
        self._pages = pages
        if isinstance(place, str):
            # As make_server does, which knows hosts and ports only.
            self._server: WSGIServer = _UnixServer(place, _SilentUnixHandler)  # type: ignore[arg-type]
            self._server.set_app(self._answer)
        else:
            kind: type[WSGIServer] = _Ipv6Server if ":" in place[0] else ThreadingWSGIServer
            self._server = make_server(*place, self._answer, kind, _SilentHandler)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def port(self) -> int:
        """Return the port that is listened on; 0 for a socket file."""
        return self._server.server_port

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._stopping.set()
        if self._thread.is_alive():
            self._wake()
            self._thread.join()
        self._server.server_close()

    def _serve(self) -> None:
        """Answer until a stop: serve_forever would wake twice a second to look for one."""
        while not self._stopping.is_set():
            self._server.handle_request()

    def _wake(self) -> None:
        """Have the thread look whether it is to stop, by a connection without a request."""
        with suppress(OSError), socket.socket(self._server.address_family) as connection:
            connection.settimeout(_WAKE)
            connection.connect(self._server.socket.getsockname())

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        page = self._pages.get(environ.get("PATH_INFO", ""))
        if page is None:
            status, kind, body = HTTPStatus.NOT_FOUND, "text/plain", b"not found\n"
        elif environ.get("REQUEST_METHOD") != "GET":
            status, kind, body = HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"GET only\n"
        else:
            status, kind, body = page()
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        start(f"{status.value} {status.phrase}", headers)
        return [body]


class Status(StatusPages):
    """Serve the pages of one service."""

    def __init__(
        self,
        registry: CollectorRegistry,
        health: Health,
        place: ListenAddress,
        identity_keys: Callable[[], bytes | None] = lambda: None,
        more: Mapping[str, Callable[[], Page]] = MappingProxyType({}),
    ) -> None:
        """Bind the listener.

        Args:
            registry: what is counted.
            health: how the parts are.
            place: where to listen.
            identity_keys: returns the key set for MCP servers; None where nothing is signed.
            more: further pages, by path.

        Raises:
            OSError: where the address cannot be bound.
        """
        self._registry = registry
        self._health = health
        self._identity_keys = identity_keys
        pages = {
            "/metrics": self._metrics,
            "/healthz": healthz,
            "/readyz": self._readyz,
            IDENTITY_KEYS: lambda: key_page(self._identity_keys()),
            **more,
        }
        super().__init__(pages, place)

    def _metrics(self) -> Page:
        return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def _readyz(self) -> Page:
        said: dict[str, object] = {"config": self._health.config, "version": __version__}
        said |= {"parts": dict(self._health.parts), "instance": self._health.instance}
        if self._health.notes:
            said["notes"] = dict(self._health.notes)
        return readyz(self._health.ready, said)


def key_page(keys: bytes | None) -> Page:
    """Return the page with the key set of the signed identity: public halves, for MCP servers."""
    if keys is None:
        return HTTPStatus.NOT_FOUND, "text/plain", b"nothing is signed\n"
    return HTTPStatus.OK, "application/jwk-set+json", keys


def healthz() -> Page:
    """Return the page that says that the process answers."""
    return HTTPStatus.OK, "text/plain", b"ok\n"


def readyz(ready: bool, said: Mapping[str, object]) -> Page:
    """Return the page that says whether it is ready, and what else there is to say."""
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    body = json.dumps({"ready": ready, **said}) + "\n"
    return status, "application/json", body.encode()
