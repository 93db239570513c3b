"""Look through the keys of a deployment a bounded part at a time.

A SCAN looks at every key of the database, of which a busy deployment has a million: one page of a
person's list must not take all of them.
"""

from dataclasses import dataclass
from typing import Final

from authz.ledger.login_records import Command

_COUNT: Final = 1000  # keys that one SCAN looks at
_ROUNDS: Final = 100
_MOST_CURSOR: Final = 2**64


@dataclass(frozen=True, slots=True)
class ScanPage:
    """Hold the keys of one part.

    Attributes:
        keys: those that match, each once.
        cursor: where the next part begins; 0 where there is none.
    """

    keys: tuple[bytes, ...]
    cursor: int


async def scan_page(command: Command, pattern: bytes, cursor: int, most: int) -> ScanPage:
    """Return the keys of one part that match: of a hundred thousand keys at most.

    Args:
        command: sends one command to Redis.
        pattern: of the keys.
        cursor: of the part before; 0 for the first.
        most: matching keys after which the part ends; a few more may come.

    Raises:
        UnavailableError: where Redis did not answer.
    """
    found = dict[bytes, None]()
    for _ in range(_ROUNDS):
        after, keys = await command("SCAN", cursor, "MATCH", pattern, "COUNT", _COUNT)
        cursor = int(after)
        found |= dict.fromkeys(keys)
        if not cursor or len(found) >= most:
            break
    return ScanPage(tuple(found), cursor)


def read_cursor(text: str) -> int:
    """Return a cursor as a page's address has it; 0 for what is none."""
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(_MOST_CURSOR))
    return int(text) if is_number and int(text) < _MOST_CURSOR else 0
