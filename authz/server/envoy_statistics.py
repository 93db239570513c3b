"""Pass Envoy's statistics on, for whoever reads our metrics.

They come from a socket that tells nothing else (envoy/render/statistics.py), so that Envoy is on no
network of the metrics, and its admin pages are on none at all.

Invariant: the answer is bounded in size and time, and an Envoy that does not answer is 503
(tests/server/test_envoy_statistics.py).
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Final

from authz.http.unix_socket import UnixConnection

PATH: Final = "/envoy/metrics"
_SOURCE: Final = "/stats/prometheus"
# The version of the format that Envoy writes; it says text/plain alone.
_KIND: Final = "text/plain; version=0.0.4; charset=utf-8"
# Seconds altogether, and one answer more; Envoy needs some 20 ms for ten servers.
_PATIENCE: Final = 5.0
# Bytes; a server has some 80 KB.
_LONGEST: Final = 64 << 20
_PIECE: Final = 1 << 16

Page = tuple[HTTPStatus, str, bytes]
Pages = Mapping[str, Callable[[], Page]]


def envoy_pages(path: str) -> Pages:
    """Return the page that passes on what a socket of Envoy tells; none for an empty path."""
    return {PATH: lambda: _page(Path(path))} if path else {}


def _page(path: Path) -> Page:
    try:
        return HTTPStatus.OK, _KIND, _read(path)
    except (OSError, HTTPException, ValueError):
        return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"Envoy does not answer\n"


def _read(path: Path) -> bytes:
    """Return Envoy's statistics.

    Raises:
        OSError: where it does not answer in time.
        HTTPException: where it answers something else than HTTP.
        ValueError: where it answers too much, or refuses.
    """
    until = time.monotonic() + _PATIENCE
    with closing(UnixConnection(path, _PATIENCE)) as connection:
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
