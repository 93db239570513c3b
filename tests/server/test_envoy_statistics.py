"""Envoy's statistics are passed on, bounded, and an Envoy that is away is told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket

import httpx
import pytest
from prometheus_client import CollectorRegistry

from authz.server import envoy_statistics
from authz.server.envoy_statistics import PATH, envoy_pages
from authz.server.health import Health
from authz.server.metrics_aggregator import MetricsAggregator
from authz.server.status import Status, StatusPages

GOOD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nup 1\n\r\n0\r\n\r\n"


@contextmanager
def envoy(place: Path, *pieces: bytes, again: bool = False) -> Iterator[list[bytes]]:
    """Answer one request with these bytes; with `again` the last of them for ever."""
    asked = list[bytes]()

    def answer() -> None:
        with listener.accept()[0] as caller:
            asked.append(caller.recv(4096))
            try:
                for piece in pieces:
                    caller.sendall(piece)
                while again:
                    caller.sendall(pieces[-1])
            except OSError:
                return

    with socket(AF_UNIX, SOCK_STREAM) as listener:
        listener.bind(str(place))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        yield asked
        thread.join()


def page(place: Path) -> tuple[HTTPStatus, str, bytes]:
    return envoy_pages(str(place))[PATH]()


def test_what_envoy_tells_is_passed_on(tmp_path: Path) -> None:
    """Its statistics for Prometheus are asked for, and nothing else."""
    with envoy(tmp_path / "stats", GOOD) as asked:
        status, kind, body = page(tmp_path / "stats")

    assert (status, body) == (HTTPStatus.OK, b"up 1\n")
    assert kind.startswith("text/plain; version=")
    assert asked[0].startswith(b"GET /stats/prometheus HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
        b"\xff\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        GOOD[:-14],
    ],
)
def test_an_answer_that_is_none_is_not_passed_on(tmp_path: Path, answer: bytes) -> None:
    """Nothing, a refusal, no HTTP, a chunk of no length, an end too early."""
    with envoy(tmp_path / "stats", answer):
        assert page(tmp_path / "stats")[0] is HTTPStatus.SERVICE_UNAVAILABLE


def test_an_envoy_that_is_away_is_told(tmp_path: Path) -> None:
    """No socket, and a socket at which nobody listens any more."""
    assert page(tmp_path / "none")[0] is HTTPStatus.SERVICE_UNAVAILABLE
    with socket(AF_UNIX, SOCK_STREAM) as left:
        left.bind(str(tmp_path / "left"))
    assert page(tmp_path / "left")[0] is HTTPStatus.SERVICE_UNAVAILABLE


def test_an_answer_without_end_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In size; in time it is by the same look."""
    monkeypatch.setattr(envoy_statistics, "_LONGEST", 1 << 20)
    chunk = b"400\r\n" + b"#" * 1024 + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

    with envoy(tmp_path / "stats", head, chunk, again=True):
        assert page(tmp_path / "stats")[0] is HTTPStatus.SERVICE_UNAVAILABLE


@pytest.mark.parametrize("several", [False, True])
def test_it_is_a_page_beside_the_metrics(tmp_path: Path, *, several: bool) -> None:
    """Of one worker and of several; of neither where no socket is named."""
    more = envoy_pages(str(tmp_path / "stats"))
    with envoy(tmp_path / "stats", GOOD), _listening(several=several, more=more) as url:
        assert httpx.get(f"{url}{PATH}", trust_env=False, timeout=30).text == "up 1\n"
    with _listening(several=several, more=envoy_pages("")) as url:
        assert (
            httpx.get(f"{url}{PATH}", trust_env=False, timeout=30).status_code
            == HTTPStatus.NOT_FOUND
        )


@contextmanager
def _listening(*, several: bool, more: envoy_statistics.Pages) -> Iterator[str]:
    registry, place = CollectorRegistry(), ("127.0.0.1", 0)
    found: StatusPages = (
        MetricsAggregator((), registry, place, more=more)
        if several
        else Status(registry, Health(), place, more=more)
    )
    found.start()
    try:
        yield f"http://127.0.0.1:{found.port}"
    finally:
        found.stop()
