"""Addresses to listen on as a command line has them, in place of those in authz.yaml.

Law: nothing is guessed, neither a host nor a port. A host may be a name here: whoever types it
knows the machine.
"""

from typing import Final

from authz.config.value_types import Tcp, Unix

_MAX_PORT: Final = 65_535


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
