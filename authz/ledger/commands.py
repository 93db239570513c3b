"""Redis commands as bytes (RESP), composed of arguments that were encoded before.

Invariant: byte for byte what redis-py writes (tests/ledger/test_commands.py).
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from hiredis import pack_command

# What an argument may be; numbers are written as Python writes them.
Encodable = bytes | str | int | float

_END: Final = b"\r\n"


class Packed(NamedTuple):
    """Encoded arguments: how many, and their bytes."""

    number: int
    text: bytes


def pack(arguments: Sequence[Encodable]) -> Packed:
    """Encode arguments."""
    # The stub of pack_command knows only one argument. Its output begins with their number.
    _, _, text = pack_command(tuple(arguments)).partition(_END)  # type: ignore[arg-type]
    return Packed(len(arguments), text)


def command(name: str, *arguments: Encodable) -> bytes:
    """Encode a command; a name of two words is two arguments."""
    return _whole([pack([*name.split(), *arguments])])


def evalsha(sha: str, keys: Sequence[Packed], arguments: Sequence[Packed]) -> bytes:
    """Encode the call of a script by its SHA-1."""
    count = sum([each.number for each in keys])
    return _whole([pack(["EVALSHA", sha, count]), *keys, *arguments])


def _whole(parts: Sequence[Packed]) -> bytes:
    count = sum([each.number for each in parts])
    return b"".join([b"*%d\r\n" % count, *[each.text for each in parts]])
