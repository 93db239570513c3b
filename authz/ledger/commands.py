"""Commands for Redis as bytes (RESP), put together from parts that were written before.

Law: what is written here is, byte for byte, what redis-py would write.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from hiredis import pack_command
from redis.typing import EncodableT

_END: Final = b"\r\n"


class Packed(NamedTuple):
    """Hold arguments as they stand within a command.

    Attributes:
        number: how many.
        text: their bytes.
    """

    number: int
    text: bytes


def pack(arguments: Sequence[EncodableT]) -> Packed:
    """Write arguments."""
    # Its stub says one argument; before them it writes how many there are.
    _, _, text = pack_command(tuple(arguments)).partition(_END)  # type: ignore[arg-type]
    return Packed(len(arguments), text)


def command(name: str, *arguments: EncodableT) -> bytes:
    """Return a command; a name of two words is two arguments."""
    return _whole([pack([*name.split(), *arguments])])


def evalsha(sha: str, keys: Sequence[Packed], arguments: Sequence[Packed]) -> bytes:
    """Return the call of a script that Redis has, by the name under which it has it."""
    count = sum([each.number for each in keys])
    return _whole([pack(["EVALSHA", sha, count]), *keys, *arguments])


def _whole(parts: Sequence[Packed]) -> bytes:
    count = sum([each.number for each in parts])
    return b"".join([b"*%d\r\n" % count, *[each.text for each in parts]])
