"""Places to listen on or to connect to: an IP address with a port, or a Unix socket.

Standard library only: a process that keeps others running holds nothing else in memory.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

# sockaddr_un.sun_path holds 108 bytes, the last of them NUL (unix(7)).
LONGEST_SOCKET: Final = 107
# Where to ask what listens on every address.
UNSPECIFIED: Final = MappingProxyType(
    {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
)


@dataclass(frozen=True, slots=True)
class Tcp:
    """Name an IP address and a port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return the notation, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """Name a Unix socket, to listen on or to connect to."""

    path: str

    def __str__(self) -> str:
        """Return the notation."""
        return f"unix:{self.path}"
