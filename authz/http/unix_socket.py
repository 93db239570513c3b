"""HTTP over a Unix socket, for those who ask without an event loop."""

import socket
import time
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

_PIECE: Final = 1 << 16


class UnixConnection(HTTPConnection):
    """Ask over a Unix socket."""

    def __init__(self, path: Path, patience: float) -> None:
        """Take the socket, and the seconds that one answer of it may take."""
        super().__init__("localhost", timeout=patience)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get_bounded(path: Path, target: str, patience: float, longest: int) -> bytes:
    """Return the body of a 200.

    Args:
        path: the socket.
        target: what is asked for.
        patience: seconds altogether, and one answer of the socket more.
        longest: bytes.

    Raises:
        OSError: where nobody answers in time.
        HTTPException: where something else than HTTP answers.
        ValueError: where the answer is too long or slow, is cut, or is another one than 200.
    """
    until = time.monotonic() + patience
    with closing(UnixConnection(path, patience)) as connection:
        connection.request("GET", target)
        answer = connection.getresponse()
        if answer.status != HTTPStatus.OK:
            raise ValueError("it refuses")
        body = bytearray()
        while piece := answer.read1(_PIECE):
            body += piece
            if len(body) > longest or time.monotonic() > until:
                raise ValueError("its answer does not end")
        # Unlike `read`, `read1` says nothing of a connection that ends before the length.
        if answer.length:
            raise ValueError("its answer is cut")
        return bytes(body)
