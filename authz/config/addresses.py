"""Addresses to listen on: those of a command line, and those of each worker.

On a command line a host may be a name: whoever types it knows the machine.
"""

from pathlib import PurePosixPath
from typing import Final, TypeVar

from authz.config.endpoints import Tcp, Unix

_MAX_PORT: Final = 65_535
At = TypeVar("At", Tcp, Unix, Tcp | Unix)


class AddressError(ValueError):
    """Say that an address on the command line is none, and what would be right."""


def read_address(option: str, address: str) -> Tcp | Unix:
    """Return what `unix:/path` or `host:port` names.

    Raises:
        AddressError: where it names nothing, under the option's name.
    """
    if address.startswith("unix:/"):
        return Unix(address.removeprefix("unix:"))
    return read_tcp(option, address)


def read_tcp(option: str, address: str) -> Tcp:
    """Return what `host:port` names, the host of IPv6 in brackets.

    Raises:
        AddressError: as `read_address`.
    """
    host, _, port = address.rpartition(":")
    digits = port.isascii() and port.isdecimal()
    if not host or not digits or int(port) > _MAX_PORT:
        raise AddressError(f"{option}: {address} has no port; write for example 127.0.0.1:9464")
    return Tcp(host.strip("[]"), int(port))


def worker_addresses(check: At, workers: int) -> tuple[At, ...]:
    """Return the address at which each worker answers Check, in their order.

    One worker has exactly the address of `service.check`; of several each has one of its own, so
    that Envoy can choose between them request by request, and see the health of each.

    Args:
        check: `service.check`, or what stands in its place.
        workers: how many there are.

    Returns:
        Of `127.0.0.1:9001` the ports 9001, 9002 and so on; of `unix:/x/check.sock` the sockets
        `/x/check-0.sock`, `/x/check-1.sock` and so on.
    """
    if workers == 1:
        return (check,)
    if isinstance(check, Tcp):
        return tuple(Tcp(check.host, check.port + number) for number in range(workers))
    path = PurePosixPath(check.path)
    names = (f"{path.stem}-{number}{path.suffix}" for number in range(workers))
    return tuple(Unix(str(path.with_name(name))) for name in names)
