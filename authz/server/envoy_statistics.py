"""Pass Envoy's statistics on, for whoever reads our metrics.

They come from a socket that tells nothing else (envoy/render/statistics.py), so that Envoy is on no
network of the metrics, and its admin pages are on none at all.

Invariant: the answer is bounded in size and time, and an Envoy that does not answer is 503
(tests/server/test_envoy_statistics.py).
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Final

from authz.http.unix_socket import get_bounded

PATH: Final = "/envoy/metrics"
_SOURCE: Final = "/stats/prometheus"
# The version of the format that Envoy writes; it says text/plain alone.
_KIND: Final = "text/plain; version=0.0.4; charset=utf-8"
# Seconds altogether, and one answer more; Envoy needs some 20 ms for ten servers.
_PATIENCE: Final = 5.0
# Bytes; a server has some 80 KB.
_LONGEST: Final = 64 << 20

Page = tuple[HTTPStatus, str, bytes]
Pages = Mapping[str, Callable[[], Page]]


def envoy_pages(path: str) -> Pages:
    """Return the page that passes on what a socket of Envoy tells; none for an empty path."""
    return {PATH: lambda: _page(Path(path))} if path else {}


def _page(path: Path) -> Page:
    try:
        return HTTPStatus.OK, _KIND, get_bounded(path, _SOURCE, _PATIENCE, _LONGEST)
    except (OSError, HTTPException, ValueError):
        return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"Envoy does not answer\n"
