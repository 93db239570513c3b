"""Connections to Redis whose calls of a script are written in C.

Law: the bytes are those that redis-py's own writer makes; a test holds the two together. A call
for many queries has over a thousand arguments, and redis-py writes them in Python, one by one.
"""

from collections.abc import Mapping
from typing import Final

from hiredis import pack_command
from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.typing import EncodableT


class _Quick(AbstractConnection):
    """Write script calls quickly, everything else as redis-py does."""

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        """Return a command's bytes; of a script call in one piece."""
        if args[0] == "EVALSHA":
            return [pack_command(args)]  # type: ignore[arg-type]  # its stub says one argument
        return super().pack_command(*args)


class QuickConnection(_Quick, Connection):
    """Connect over TCP."""


class QuickSSLConnection(_Quick, SSLConnection):
    """Connect over TLS."""


class QuickUnixConnection(_Quick, UnixDomainSocketConnection):
    """Connect over a Unix socket."""


_QUICK: Final[Mapping[type, type[AbstractConnection]]] = {
    Connection: QuickConnection,
    SSLConnection: QuickSSLConnection,
    UnixDomainSocketConnection: QuickUnixConnection,
}


def quicken(pool: ConnectionPool) -> None:
    """Have a pool make such connections from now on."""
    pool.connection_class = _QUICK[pool.connection_class]
