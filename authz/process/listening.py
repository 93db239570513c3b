"""Sockets to listen on, bound: a Unix socket takes the place of one that nobody answers at."""

import os
import socket
from pathlib import Path


def bind_tcp(host: str, port: int) -> socket.socket:
    """Bind an IP address and port; 0 is any port.

    Raises:
        OSError: where it cannot be had.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def bind_unix(path: Path, umask: int | None = None) -> socket.socket:
    """Bind a socket file.

    Args:
        path: the file.
        umask: in place of the process's; between bind and a chmod it would be open to everybody.

    Raises:
        OSError: where somebody listens there, another file is there, or it cannot be made.
    """
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX)
    before = None if umask is None else os.umask(umask)
    try:
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    finally:
        if before is not None:
            os.umask(before)
    return bound


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody answers at, and nothing else."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            pass  # somebody listens, and has a full queue
        except OSError:
            path.unlink(missing_ok=True)
