"""Clients that the operator blocked, by client_id or by the name that rules count by.

While Redis does not answer, a look-up raises: nobody is taken for unblocked.
"""

import json
from dataclasses import dataclass
from typing import Final

from authz.core.strict_json import StrictJsonError, loads
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command
from authz.login.protocol.members import digest

MAX_BLOCKS: Final = 1000


class BlocklistFullError(ValueError):
    """Say that there is no room for another block."""


@dataclass(frozen=True, slots=True)
class BlocklistEntry:
    """Hold one block, for people.

    Attributes:
        what: the client_id or name.
        at: seconds since the epoch.
        by, reason: free text of the operator.
    """

    what: str
    at: int
    by: str
    reason: str


class Blocklist:
    """Keep the blocks of one deployment."""

    def __init__(self, command: Command, keys: RedisKeys) -> None:
        """Take Redis and names."""
        self._command = command
        self._key = keys.record("blocks", "all")

    async def blocked(self, client_id: str, names: frozenset[str]) -> bool:
        """Tell whether a client is blocked, by its id or any of its names (`identity.blocked_by`).

        Raises:
            UnavailableError: where Redis did not answer.
        """
        found = await self._command(
            "HMGET", self._key, digest(client_id), *sorted(map(digest, names))
        )
        return any(each is not None for each in found)

    async def block(self, block: BlocklistEntry) -> None:
        """Block a client_id or a name.

        Raises:
            BlocklistFullError: where there are a thousand.
            UnavailableError: where Redis did not confirm it.
        """
        if int(await self._command("HLEN", self._key)) >= MAX_BLOCKS:
            raise BlocklistFullError(f"there are {MAX_BLOCKS} blocks; unblock some")
        record = {"what": block.what, "at": block.at, "by": block.by, "reason": block.reason}
        await self._command("HSET", self._key, digest(block.what), json.dumps(record))

    async def unblock(self, what: str) -> bool:
        """Take a block back; tell whether there was one.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        return int(await self._command("HDEL", self._key, digest(what))) == 1

    async def all(self) -> tuple[BlocklistEntry, ...]:
        """Return the blocks, the oldest first.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        found = await self._command("HGETALL", self._key)
        return tuple(sorted(map(_read, found.values()), key=lambda block: block.at))


def _read(raw: bytes) -> BlocklistEntry:
    """Read a block; what cannot be read blocks all the same, and is shown without them."""
    try:
        record = loads(raw)
    except StrictJsonError:
        record = None
    said = record if isinstance(record, dict) else {}
    at = said.get("at")
    texts = {name: str(said.get(name, "")) for name in ("what", "by", "reason")}
    return BlocklistEntry(at=at if isinstance(at, int) else 0, **texts)
