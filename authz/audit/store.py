"""The trail in Redis: a stream of records, the ends of its chains, and a short list per person.

Invariant: a record is written once, however often its call is sent; the bound removes the oldest
records only, and says up to which record of each chain (tests/audit/test_store.py).

Keys, each with the deployment's hash tag: `audit` (the stream; fields `r`, the record, and `m`, its
MAC), `audit-heads` and `audit-floors` (hashes by chain), `audit-of:<digest>` (ids of a person's
latest records).
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from authz.audit.chain import ChainedRecord, TrailKeys, floor_text, is_mac, mac
from authz.audit.record import ChainLink, InvalidRecordError, read_record
from authz.core.ledger import UnavailableError
from authz.core.principal import Person
from authz.ledger.keys import RedisKeys, person_digest
from authz.ledger.login_records import Command
from authz.ledger.script import load_script, run_script

PAGE: Final = 256  # records that are read at once
_LOOK: Final = 16  # records that are looked at for their age
LISTED: Final = 100  # records of one person
_NOTHING: Final = -1
_LINK: Final = re.compile(r"([0-9]{1,15}) ([A-Za-z0-9_-]{22})")
_FLOOR: Final = re.compile(r"([0-9]{1,15}) ([A-Za-z0-9_-]{22}) ([0-9]{1,15}) ([A-Za-z0-9_-]{22})")
_ID: Final = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_MAX_CHAIN: Final = 64
_LAST: Final = 2**64 - 1  # of each number of an id


_APPEND: Final = load_script("authz.audit", "append.lua")
_TRIM: Final = load_script("authz.audit", "trim.lua")
_PERSON: Final = load_script("authz.audit", "person.lua")


@dataclass(frozen=True, slots=True)
class TrailEntry:
    """Hold one record as it is stored: its id in the stream, its text and its MAC."""

    id: str
    text: bytes
    mac: str

    @property
    def written(self) -> float:
        """Return when it was written, seconds since the epoch, by Redis' clock."""
        return int(self.id.partition("-")[0]) / 1000


@dataclass(frozen=True, slots=True)
class TrailBound:
    """Bound a trail.

    Attributes:
        most: how many records are kept.
        keep: for how many seconds.
    """

    most: int
    keep: float


class LostRecordsError(Exception):
    """Say that Redis lacks records which it had confirmed.

    Attributes:
        last: the last record of the chain that it has; -1 for none.
    """

    def __init__(self, last: int) -> None:
        """Keep the number."""
        super().__init__(last)
        self.last = last


class TrailStore:
    """One deployment's trail; every method may raise UnavailableError."""

    def __init__(self, command: Command, keys: RedisKeys) -> None:
        self._command = command
        self._keys = keys
        self._stream = keys.record_set("audit")
        self._heads = keys.record_set("audit-heads")
        self._floors = keys.record_set("audit-floors")

    def _list(self, person: Person) -> bytes:
        return self._keys.record("audit-of", person_digest(person))

    async def knows(self, person: Person) -> bool:
        """Tell whether the trail has records in a person's name."""
        return bool(await self._command("EXISTS", self._list(person)))

    async def append(
        self,
        chain: str,
        records: Sequence[ChainedRecord],
        people: Sequence[Person | None],
        keep: float,
    ) -> int:
        """Append records of a chain, in their order; return the length of the trail.

        Args:
            chain: its name.
            records: at least one.
            people: for each record whose list it goes to.
            keep: seconds that a person's list lives after its last record.

        Raises:
            LostRecordsError: where Redis lacks the record before the first one; nothing is written.
            UnavailableError: where there was no answer; the same call may be sent again.
        """
        first, last = records[0].link, records[-1].link
        lists = {each: self._list(each) for each in dict.fromkeys(people) if each is not None}
        keys = (self._stream, self._heads, self._floors, *lists.values())
        places = {person: place for place, person in enumerate(lists, 4)}
        values = list[bytes | str | int]()
        for record, person in zip(records, people, strict=True):
            place = 0 if person is None else places[person]
            values += (record.text, record.link.mac, place)
        head = f"{last.number} {last.mac}"
        reply = await run_script(
            self._command,
            _APPEND,
            keys,
            chain,
            first.number,
            head,
            LISTED - 1,
            max(1, int(keep)),
            *values,
        )
        length, number = _two_numbers(reply)
        if length == _NOTHING:
            raise LostRecordsError(number)
        return length

    async def trim(self, length: int, bound: TrailBound, keys: TrailKeys, now: float) -> int:
        """Remove the oldest records beyond the bound, a page of them at most; return how many.

        Args:
            length: of the trail, as `append` returned it.
            bound: of the trail.
            keys: for the MACs of the floors.
            now: seconds since the epoch.
        """
        excess = max(0, length - bound.most)
        page = await self.oldest(min(excess + _LOOK, PAGE))
        aged = sum(each.written < now - bound.keep for each in page)
        removed = page[: max(excess, aged)]
        if not removed:
            return 0
        floors = dict[str, ChainLink]()
        for entry in removed:
            try:
                record = read_record(entry.text)
            except InvalidRecordError:
                continue  # not of our making
            if len(record.chain) <= _MAX_CHAIN:
                floors[record.chain] = ChainLink(record.number, entry.mac)
        least = bound.most if excess > aged else 0
        values: list[str | int] = [removed[0].id, _next_id(removed[-1].id), len(removed), least]
        for chain, link in floors.items():
            tag = mac(keys.newest, floor_text(chain, link, int(now)))
            values += (chain, f"{link.number} {link.mac} {int(now)} {tag}", str(link.number))
        names = (self._stream, self._heads, self._floors)
        reply = await run_script(self._command, _TRIM, names, *values)
        return reply if isinstance(reply, int) else 0

    async def heads(self) -> dict[str, ChainLink]:
        """Return the last record of each chain that is not trimmed as a whole."""
        found = await self._command("HGETALL", self._heads)
        heads = dict[str, ChainLink]()
        for chain, value in found.items():
            match = _LINK.fullmatch(value.decode("ascii", "replace"))
            if match is not None:
                heads[chain.decode("ascii", "replace")] = ChainLink(int(match[1]), match[2])
        return heads

    async def floors(self, keys: TrailKeys) -> dict[str, ChainLink]:
        """Return the last record of each chain that the bound has removed; forged ones are none."""
        return {
            chain: link
            for chain, link, time, tag in await self._all_floors()
            if any(is_mac(key, floor_text(chain, link, time), tag) for key in keys.every)
        }

    async def forget_floors(self, before: float) -> None:
        """Remove the floors of chains that nothing was removed of since a moment."""
        old = [chain for chain, _, time, _ in await self._all_floors() if time < before]
        if old:
            await self._command("HDEL", self._floors, *old)

    async def _all_floors(self) -> list[tuple[str, ChainLink, int, str]]:
        found = await self._command("HGETALL", self._floors)
        floors = list[tuple[str, ChainLink, int, str]]()
        for chain, value in found.items():
            match = _FLOOR.fullmatch(value.decode("ascii", "replace"))
            if match is not None:
                link = ChainLink(int(match[1]), match[2])
                floors.append((chain.decode("ascii", "replace"), link, int(match[3]), match[4]))
        return floors

    async def length(self) -> int:
        """Return how many records there are."""
        found = await self._command("XLEN", self._stream)
        return found if isinstance(found, int) else 0

    async def oldest(self, count: int = PAGE) -> list[TrailEntry]:
        """Return the oldest records."""
        return _entries(await self._command("XRANGE", self._stream, "-", "+", "COUNT", count))

    async def forwards(self, since: float = 0.0, after: str = "") -> AsyncIterator[TrailEntry]:
        """Yield the records from a moment (of writing) or an id on, oldest first, page by page."""
        start = f"({after}" if after else str(max(0, int(since * 1000)))
        async for entry in self._pages("XRANGE", start, "+"):
            yield entry

    async def backwards(self, before: str = "") -> AsyncIterator[TrailEntry]:
        """Yield all records, newest first, page by page; those before an id where one is given."""
        start = f"({before}" if is_entry_id(before) else "+"
        async for entry in self._pages("XREVRANGE", start, "-"):
            yield entry

    async def find(self, entry_id: str) -> TrailEntry | None:
        """Return one record by its id; None where there is none, or none any more."""
        if not is_entry_id(entry_id):
            return None
        found = _entries(
            await self._command("XRANGE", self._stream, entry_id, entry_id, "COUNT", 1)
        )
        return found[0] if found else None

    async def _pages(self, command: str, start: str, end: str) -> AsyncIterator[TrailEntry]:
        while True:
            reply = await self._command(command, self._stream, start, end, "COUNT", PAGE)
            page = _entries(reply)
            for entry in page:
                yield entry
            if len(page) < PAGE:
                return
            start = f"({page[-1].id}"

    async def of_person(self, person: Person, count: int) -> list[TrailEntry]:
        """Return a person's latest records, newest first, at most `LISTED`."""
        names = (self._list(person), self._stream)
        return _entries(await run_script(self._command, _PERSON, names, count))


def is_entry_id(text: str) -> bool:
    """Tell whether a text can be the id of a record in the stream."""
    match = _ID.fullmatch(text)
    return match is not None and 0 < int(match[1]) <= _LAST and int(match[2]) <= _LAST


def _two_numbers(reply: object) -> tuple[int, int]:
    if isinstance(reply, list) and len(reply) == 2:  # noqa: PLR2004 - the script's reply
        first, second = reply
        if isinstance(first, int) and isinstance(second, int):
            return first, second
    raise UnavailableError("redis", "a reply that the script of the audit trail cannot give")


def _entries(reply: object) -> list[TrailEntry]:
    """Read entries; what is none is left out."""
    found = list[TrailEntry]()
    for item in reply if isinstance(reply, list) else ():
        if not isinstance(item, list) or len(item) != 2:  # noqa: PLR2004 - id and fields
            continue
        name, fields = item
        members = _members(fields)
        entry_id = name.decode("ascii", "replace") if isinstance(name, bytes) else ""
        if _ID.fullmatch(entry_id):
            text, tag = members.get(b"r", b""), members.get(b"m", b"")
            found.append(TrailEntry(entry_id, text, tag.decode("ascii", "replace")))
    return found


def _members(fields: object) -> Mapping[bytes, bytes]:
    if isinstance(fields, list) and len(fields) % 2 == 0:
        return dict(zip(fields[::2], fields[1::2], strict=True))
    return {}


def _next_id(entry_id: str) -> str:
    """Return the smallest id after another."""
    milliseconds, _, sequence = entry_id.partition("-")
    return f"{milliseconds}-{int(sequence) + 1}"
