"""A port that a test hands to a program is that program's."""

import errno
import socket

import pytest

from tests.support.ports import held_port


def test_a_held_port_is_for_whoever_is_told() -> None:
    """Nobody answers there and nobody else gets it, until somebody listens who reuses addresses."""
    port = held_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=30)
    with socket.socket() as other, pytest.raises(OSError, match="in use") as caught:
        other.bind(("127.0.0.1", port))
    assert caught.value.errno == errno.EADDRINUSE

    with socket.create_server(("127.0.0.1", port)) as told:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
        told.accept()[0].close()
    assert held_port() != port
