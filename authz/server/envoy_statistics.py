"""Pass Envoy's statistics on, for whoever reads our metrics.

They come from a socket that tells nothing else (envoy/render/statistics.py), so that Envoy is on no
network of the metrics, and its admin pages are on none at all.

Invariant: the answer is bounded in size and time, and an Envoy that does not answer is 503
(tests/server/test_envoy_statistics.py).
"""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from socket import AF_UNIX, SOCK_STREAM, socket
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_LATEST

PATH: Final = "/envoy/metrics"
_SOURCE: Final = "/stats/prometheus"
# Seconds altogether; Envoy needs some 20 ms for ten servers.
_PATIENCE: Final = 5.0
# Bytes; a server has some 80 KB.
_LONGEST: Final = 64 << 20
_PIECE: Final = 1 << 16

Page = tuple[HTTPStatus, str, bytes]
Pages = Mapping[str, Callable[[], Page]]


class _SocketConnection(HTTPConnection):
    """Ask over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("envoy", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket(AF_UNIX, SOCK_STREAM)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


def envoy_pages(path: str) -> Pages:
    """Return the page that passes on what a socket of Envoy tells; none for an empty path."""
    return {PATH: lambda: _page(path)} if path else {}


def _page(path: str) -> Page:
    try:
        return HTTPStatus.OK, CONTENT_TYPE_LATEST, _read(path)
    except (OSError, HTTPException, ValueError):
        return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"Envoy does not answer\n"


def _read(path: str) -> bytes:
    """Return Envoy's statistics.

    Raises:
        OSError: where it does not answer in time.
        HTTPException: where it answers something else than HTTP.
        ValueError: where it answers too much, or refuses.
    """
    until = time.monotonic() + _PATIENCE
    connection = _SocketConnection(path)
    try:
        connection.request("GET", _SOURCE)
        answer = connection.getresponse()
        if answer.status != HTTPStatus.OK:
            raise ValueError("Envoy refuses")
        body = bytearray()
        while piece := answer.read1(_PIECE):
            body += piece
            if len(body) > _LONGEST or time.monotonic() > until:
                raise ValueError("Envoy's statistics do not end")
        return bytes(body)
    finally:
        connection.close()
