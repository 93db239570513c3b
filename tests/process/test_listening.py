"""Sockets to listen on: what nobody answers at is replaced, and nothing else."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from authz.process.listening import bind_tcp, bind_unix


@pytest.fixture
def path() -> Iterator[Path]:
    # Short: the path of a Unix socket has 108 bytes at most.
    with TemporaryDirectory(prefix="l") as folder:
        yield Path(folder) / "one.sock"


def test_a_socket_that_nobody_answers_at_is_replaced(path: Path) -> None:
    """What a program that was killed has left is no obstacle."""
    bind_unix(path).close()

    with bind_unix(path) as bound:
        bound.listen()
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_socket_that_somebody_listens_on_is_left(path: Path, waiting: int) -> None:
    """Also where its queue is full: it is his, and the error says that it is in use."""
    with bind_unix(path) as bound:
        bound.listen(0)
        callers = [socket.socket(socket.AF_UNIX) for _ in range(waiting)]
        for caller in callers:
            caller.connect(str(path))

        with pytest.raises(OSError, match="in use"):
            bind_unix(path)
        for caller in callers:
            caller.close()
        assert path.is_socket()


def test_another_file_is_left(path: Path) -> None:
    """A path that was mistyped costs nobody a file."""
    path.write_text("mine")

    with pytest.raises(OSError, match="in use"):
        bind_unix(path)
    assert path.read_text() == "mine"


def test_the_umask_holds_for_the_socket_alone(path: Path) -> None:
    """Its mode is there from the first moment; other files are made as before."""
    before = os.umask(0o022)
    try:
        with bind_unix(path, 0o117):
            assert path.stat().st_mode & 0o777 == 0o660
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_is_bound_once(host: str) -> None:
    """Of IPv6 too; one that is taken is an error."""
    with bind_tcp(host, 0) as bound:
        bound.listen()
        with pytest.raises(OSError, match="in use"):
            bind_tcp(host, bound.getsockname()[1])
