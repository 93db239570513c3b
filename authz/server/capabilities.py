"""Whether clients of MCP 2025-11-25 declared URL elicitation in `initialize`.

Invariant: a decision waits neither for a write nor long for a read, and what was not read counts as
not declared. Memory is bounded, in the worker and in Redis.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from authz.core.ledger import UnavailableError
from authz.core.limits import digest
from authz.core.principal import Principal
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command

LIFETIME: Final = 86_400  # seconds in Redis; a longer session gets a sentence in place of a link
_KIND: Final = "capability"
_YES: Final = b"1"
_PATIENCE: Final = 0.05  # seconds
_COPY: Final = 300.0  # seconds in this worker: another worker may have newer knowledge
_LARGEST: Final = 10_000
_MOST_WRITES: Final = 64  # under way at once; more are not written


class Capabilities:
    """Remember, by person and grant, whether a client declared URL elicitation."""

    def __init__(
        self,
        command: Command,
        keys: RedisKeys,
        clock: Callable[[], float] = time.monotonic,
        largest: int = _LARGEST,
    ) -> None:
        """Take what sends one command to Redis, the names there, and a clock of seconds."""
        self._command = command
        self._keys = keys
        self._clock = clock
        self._largest = largest
        self._copies: OrderedDict[bytes, tuple[bool, float]] = OrderedDict()
        self._writes: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._copies)

    def hear(self, principal: Principal, *, elicits: bool) -> None:
        """Remember what an admitted `initialize` declared; return at once."""
        key = self._key(principal)
        self._copy(key, elicits=elicits)
        if len(self._writes) >= _MOST_WRITES:
            return
        words = ("SET", key, _YES, "EX", LIFETIME) if elicits else ("DEL", key)
        write = asyncio.create_task(self._write(*words))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def elicits(self, principal: Principal) -> bool:
        """Tell whether the client shows links, for all that can be told in time."""
        key = self._key(principal)
        copy = self._copies.get(key)
        if copy is not None and self._clock() < copy[1]:
            return copy[0]
        try:
            async with asyncio.timeout(_PATIENCE):
                found = await self._command("GET", key)
        except (TimeoutError, UnavailableError):
            return False
        self._copy(key, elicits=found == _YES)
        return bool(found == _YES)

    async def aclose(self) -> None:
        """End the writes that are under way."""
        writes = set(self._writes)
        for write in writes:
            write.cancel()
        if writes:
            await asyncio.wait(writes)

    def _key(self, principal: Principal) -> bytes:
        # A machine does not step up; it shares an entry that nobody reads.
        who = digest(principal.issuer, principal.subject or "", principal.grant)
        return self._keys.record(_KIND, who)

    def _copy(self, key: bytes, *, elicits: bool) -> None:
        # A TTLCache of cachetools, which nothing else here would use.
        self._copies[key] = (elicits, self._clock() + _COPY)
        self._copies.move_to_end(key)
        while len(self._copies) > self._largest:
            self._copies.popitem(last=False)

    async def _write(self, *words: bytes | str | int) -> None:
        try:
            await self._command(*words)
        except UnavailableError:
            return  # the client gets a sentence in place of a link then
