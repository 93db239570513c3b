"""The listener of its own for Prometheus and probes: /metrics, /healthz, /readyz.

Law: it answers these three paths to GET and nothing else, and shares nothing with the Check
listener.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST, ThreadingWSGIServer

from authz.server.health import Health

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Page = tuple[HTTPStatus, str, bytes]
# Seconds that a probe may take to say what it wants.
_PATIENCE = 5


class _Quiet(WSGIRequestHandler):
    """Answer without a line on standard error for every scrape."""

    timeout = _PATIENCE

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


class _Server6(ThreadingWSGIServer):
    """Listen on an IPv6 address."""

    address_family = socket.AF_INET6


class Status:
    """Serve the three pages from a thread, so that a busy loop cannot hide behind them."""

    def __init__(self, registry: CollectorRegistry, health: Health, host: str, port: int) -> None:
        """Bind the listener.

        Raises:
            OSError: where the address cannot be bound.
        """
        self._registry = registry
        self._health = health
        self._pages: dict[str, Callable[[], Page]] = {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
        }
        kind: type[WSGIServer] = _Server6 if ":" in host else ThreadingWSGIServer
        self._server = make_server(host, port, self._answer, kind, _Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """Return the port that is listened on."""
        return self._server.server_port

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        # shutdown() waits for the loop of serve_forever, which may never have been entered.
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

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

    def _metrics(self) -> Page:
        return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def _healthz(self) -> Page:
        return HTTPStatus.OK, "text/plain", b"ok\n"

    def _readyz(self) -> Page:
        parts = self._health.parts
        status = HTTPStatus.OK if self._health.ready else HTTPStatus.SERVICE_UNAVAILABLE
        body = json.dumps({"ready": self._health.ready, "parts": dict(parts)}) + "\n"
        return status, "application/json", body.encode()
