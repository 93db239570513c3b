"""Ports of 127.0.0.1 for programs that have to be told theirs."""

import socket


def held_port() -> int:
    """Return a port that nobody gets who is not told of it; a connection to it is refused.

    It is bound, but not listened at, as long as this process lives: the system gives it to nobody
    who asks for any port, and whoever is told of it may listen there (SO_REUSEADDR, which all of
    ours set). One that was let go could be somebody else's before the program begins.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port: int = held.getsockname()[1]
    held.detach()
    return port
