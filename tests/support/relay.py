"""A TCP name that moves: a relay whose new connections go to another server once it is told so."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Relay:
    """Relay each connection to the Unix socket that `target` names when it is opened.

    Connections that are open stay with the server that they reached, as with a name in DNS.
    """

    target: Path
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Return what a Redis client is told."""
        return f"redis://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        """Accept until the listener is closed."""
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(str(self.target))
            except OSError:
                near.close()
                far.close()
                continue
            thread = threading.Thread(target=_pump, args=(near, far), daemon=True)
            self.threads.append(thread)
            thread.start()


def _pump(near: socket.socket, far: socket.socket) -> None:
    with near, far, suppress(OSError):
        while True:
            for source in select.select((near, far), (), ())[0]:
                data = source.recv(65536)
                if not data:
                    return
                (far if source is near else near).sendall(data)


@contextmanager
def relayed(target: Path) -> Iterator[Relay]:
    """Run a relay for as long as the block does."""
    relay = Relay(target)
    thread = threading.Thread(target=relay.serve, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        # close() alone does not wake a thread that accepts.
        with suppress(OSError):
            relay.listener.shutdown(socket.SHUT_RDWR)
        relay.listener.close()
        for each in (thread, *relay.threads):
            each.join(5)
