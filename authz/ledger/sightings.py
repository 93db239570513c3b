"""Tool definitions that MCP servers have listed (sightings), in memory and in Redis.

Invariant: a definition is read as it was written or not at all, and what one server lists is never
another's (tests/ledger/test_sightings.py). Records are JSON, readable with redis-cli.

Every definition has a field of its own, named by its digest, so that workers which see several at
once write over nobody's. Nothing here needs a Redis command that the revocations do not need.
"""

import asyncio
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from authz.core.catalogue import DefinitionError, Sighting, read_definition
from authz.core.strict_json import StrictJsonError, loads
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command

# Seconds after which a definition that nobody has seen again is forgotten.
KEPT: Final = 86_400
_VERSION: Final = b"version:"
_ASKED: Final = b"asked:"
_MAX_WORK: Final = 500_000_000
_NEWEST: Final = 2**53
_MOST_FIELDS: Final = 1000  # of one command, so that Redis serves others between two
_RECORD: Final = re.compile(rb'\{"seen":(0|[1-9][0-9]{0,15}),"definition":')


@dataclass(frozen=True, slots=True)
class SightingIndex:
    """Tell what has changed since, by server.

    Attributes:
        versions: another word for every change.
        asked: when a worker last set out to ask a server itself, in seconds since the epoch.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, int] = field(default_factory=dict)


NONE: Final[Mapping[str, Sighting]] = MappingProxyType({})


class SightingStore(Protocol):
    """Keep sightings; every method may raise UnavailableError."""

    async def index(self) -> SightingIndex:
        """Return what has changed."""
        ...

    async def read(self, server: str, known: Mapping[str, Sighting] = NONE) -> Sequence[Sighting]:
        """Return what a server has listed.

        Args:
            server: its name.
            known: what is known already, by digest; it need not be read again.
        """
        ...

    async def write(self, server: str, sightings: Iterable[Sighting]) -> None:
        """Add what a server has listed, or that it was seen again."""
        ...

    async def forget(self, server: str, digests: Iterable[str]) -> None:
        """Remove definitions."""
        ...

    async def mark_asked(self, server: str, now: int) -> None:
        """Say that a server is being asked."""
        ...


class MemorySightings:
    """Keep sightings in this process."""

    def __init__(self) -> None:
        self._sightings: dict[str, dict[str, Sighting]] = {}
        self._versions: dict[str, str] = {}
        self._asked: dict[str, int] = {}

    async def index(self) -> SightingIndex:
        """Return what has changed."""
        return SightingIndex(dict(self._versions), dict(self._asked))

    async def read(
        self,
        server: str,
        known: Mapping[str, Sighting] = NONE,  # noqa: ARG002 - nothing is read anew here
    ) -> Sequence[Sighting]:
        """Return what a server has listed."""
        return tuple(self._sightings.get(server, {}).values())

    async def write(self, server: str, sightings: Iterable[Sighting]) -> None:
        """Add what a server has listed, or that it was seen again."""
        for each in sightings:
            self._sightings.setdefault(server, {})[each.definition.digest] = each
        self._versions[server] = secrets.token_hex(8)

    async def forget(self, server: str, digests: Iterable[str]) -> None:
        """Remove definitions."""
        for digest in digests:
            self._sightings.get(server, {}).pop(digest, None)

    async def mark_asked(self, server: str, now: int) -> None:
        """Say that a server is being asked."""
        self._asked[server] = now


class RedisSightings:
    """Keep sightings in Redis."""

    def __init__(self, command: Command, keys: RedisKeys) -> None:
        self._command = command
        self._keys = keys

    async def index(self) -> SightingIndex:
        """Return what has changed."""
        found = await self._command("HGETALL", self._keys.catalogue_index)
        versions, asked = dict[str, str](), dict[str, int]()
        for name, value in found.items():
            server = name.partition(b":")[2].decode("ascii", "replace")
            if name.startswith(_VERSION):
                versions[server] = value.decode("ascii", "replace")
            elif name.startswith(_ASKED) and value.isdigit() and len(value) < len(str(_NEWEST)):
                asked[server] = int(value)
        return SightingIndex(versions, asked)

    async def read(self, server: str, known: Mapping[str, Sighting] = NONE) -> Sequence[Sighting]:
        """Return what a server has listed; records that are none are left out."""
        found = await self._command("HGETALL", self._keys.catalogue(server))
        # In a thread: thousands may be new, and nobody's check waits for them.
        return await asyncio.to_thread(_decode_all, found, known)

    async def write(self, server: str, sightings: Iterable[Sighting]) -> None:
        """Add what a server has listed, or that it was seen again."""
        arguments = list[bytes | str]()
        for each in sightings:
            arguments += (each.definition.digest, encode(each))
        if arguments:
            await self._command("HSET", self._keys.catalogue(server), *arguments)
            version = _VERSION + server.encode("ascii")
            await self._command("HSET", self._keys.catalogue_index, version, secrets.token_hex(8))

    async def forget(self, server: str, digests: Iterable[str]) -> None:
        """Remove definitions."""
        fields = tuple(digests)
        for start in range(0, len(fields), _MOST_FIELDS):
            some = fields[start : start + _MOST_FIELDS]
            await self._command("HDEL", self._keys.catalogue(server), *some)

    async def mark_asked(self, server: str, now: int) -> None:
        """Say that a server is being asked."""
        field = _ASKED + server.encode("ascii")
        await self._command("HSET", self._keys.catalogue_index, field, now)


def encode(sighting: Sighting) -> bytes:
    """Return a sighting as bytes."""
    # The canonical text as it is: nothing is parsed to be written.
    return b'{"seen":%d,"definition":%s}' % (
        sighting.seen,
        sighting.definition.text.encode("ascii"),
    )


def _decode_all(
    found: Mapping[bytes, bytes], known: Mapping[str, Sighting]
) -> tuple[Sighting, ...]:
    read = (
        decode(digest, value, known.get(digest.decode("ascii", "replace")))
        for digest, value in found.items()
    )
    return tuple([each for each in read if each is not None])


def decode(digest: bytes, data: bytes, known: Sighting | None = None) -> Sighting | None:
    """Read a sighting; None for anything that `encode` does not write under this digest.

    Args:
        digest: the field's name.
        data: its value.
        known: a sighting of that digest; a record that repeats its definition is not parsed.
    """
    start = None if known is None else _RECORD.match(data)
    if known is not None and start is not None and int(start[1]) < _NEWEST:
        again = Sighting(known.definition, int(start[1]))
        if encode(again) == data:
            return again
    try:
        members = loads(data, max_work=_MAX_WORK)
        if not isinstance(members, dict) or members.keys() != {"seen", "definition"}:
            return None
        definition, seen = read_definition(members["definition"]), members["seen"]
    except (StrictJsonError, DefinitionError):
        return None
    if type(seen) is not int or not 0 <= seen < _NEWEST or definition.digest.encode() != digest:
        return None
    return Sighting(definition, seen)
