"""What is asked over a Unix socket: whole answers within their bound, or none."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest

from authz.http.unix_socket import get_bounded

LONGEST = 5


@contextmanager
def answering(place: Path, answer: bytes) -> Iterator[Path]:
    """Answer one request with these bytes, and close."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen(1)

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield place
        finally:
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nb: 12",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nb: \r\n2\r\n12\r\n0\r\n\r\n",
    ],
    ids=["length", "chunks"],
)
def test_a_whole_answer_is_returned(tmp_path: Path, answer: bytes) -> None:
    """One as long as the bound is whole, however its length is told."""
    with answering(tmp_path / "s", answer) as place:
        assert get_bounded(place, "/", 30, LONGEST) == b"b: 12"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nb: 12",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nb: 12\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nb: 123",
        b"HTTP/1.1 503 Unavailable\r\ncontent-length: 5\r\n\r\nb: 12",
    ],
    ids=["cut", "cut chunks", "too long", "refused"],
)
def test_what_is_no_whole_answer_is_none(tmp_path: Path, answer: bytes) -> None:
    """A number at the end of one that was cut would be another number."""
    with answering(tmp_path / "s", answer) as place, pytest.raises((ValueError, HTTPException)):
        get_bounded(place, "/", 30, LONGEST)
