"""HTTP over a Unix socket, for those who ask without an event loop."""

import socket
from http.client import HTTPConnection
from pathlib import Path


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
