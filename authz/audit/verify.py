"""Verify chains: changed, removed, reordered, forged and cut records are told apart.

Invariant: any single change to what is stored is found, where the ends of the chains are known
(tests/audit/test_verify.py). Memory is bounded by the number of chains, not of records.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from authz.audit.chain import TrailKeys, is_mac
from authz.audit.record import AuditEvent, AuditRecord, ChainLink, InvalidRecordError, read_record

_MAX_GAPS: Final = 1000  # of a chain; what is missing beyond is told at once
_MAX_DIGITS: Final = 15


class TrailFault(Enum):
    """Name what is wrong with a trail."""

    UNREADABLE = "unreadable"  # no record
    CHANGED = "changed"  # its MAC is another: changed, forged, or of a key that is gone
    REMOVED = "removed"  # records are missing before it, and the bound did not remove them
    REORDERED = "reordered"  # it comes twice, or later than its successor
    BROKEN = "broken"  # it does not follow the record before it
    TRUNCATED = "truncated"  # the end of the chain is missing
    NO_HEAD = "no_head"  # nothing says where the chain ends


@dataclass(frozen=True, slots=True)
class TrailFinding:
    """Tell one thing that is wrong.

    Attributes:
        fault: what.
        chain: of which chain; empty where that cannot be read.
        number: of which record, or of the first that is missing.
        count: of how many records.
        id: where it is stored; empty for what is missing.
    """

    fault: TrailFault
    chain: str
    number: int
    count: int = 1
    id: str = ""


@dataclass(frozen=True, slots=True)
class _Gap:
    first: int
    last: int
    mac: str  # of the last missing record, as its successor says
    id: str


@dataclass(slots=True)
class _Seen:
    last: ChainLink
    key: bytes
    gaps: list[_Gap] = field(default_factory=list)
    has_end: bool = False


@dataclass(frozen=True, slots=True)
class TrailReport:
    """Tell what a verification looked at.

    Attributes:
        records: how many.
        chains: how many.
        trimmed: records that the bound removed.
        lost: records that were never written, as gap records say.
        open: chains without a last record: their process runs, or was killed.
    """

    records: int
    chains: int
    trimmed: int
    lost: int
    open: int


class TrailVerifier:
    """Verify one trail, record by record in the order of the stream."""

    def __init__(self, keys: TrailKeys, heads: Mapping[str, ChainLink]) -> None:
        """Take the keys, and the ends of the chains as they were before the reading began."""
        self._keys = keys.every
        self._heads = dict(heads)
        self._seen: dict[str, _Seen] = {}
        self._anchors: dict[str, int] = {}
        self._records = self._lost = 0

    def add(self, entry_id: str, text: bytes, given: str) -> Iterator[TrailFinding]:
        """Look at one record; the rest is known at the end."""
        self._records += 1
        try:
            record = read_record(text)
        except InvalidRecordError:
            yield TrailFinding(TrailFault.UNREADABLE, "", 0, id=entry_id)
            return
        seen = self._seen.get(record.chain)
        keys = self._keys if seen is None else (seen.key,)
        key = next((each for each in keys if is_mac(each, text, given)), None)
        if key is None:
            yield TrailFinding(TrailFault.CHANGED, record.chain, record.number, id=entry_id)
            if seen is not None and record.number == seen.last.number + 1:
                # Its successor is to be compared with what is stored: one finding for one change.
                seen.last = ChainLink(record.number, given)
            return
        yield from self._follow(record, seen, key, given, entry_id)
        self._read(record)
        head = self._heads.get(record.chain)
        if head is not None and head.number == record.number and head.mac != given:
            yield TrailFinding(TrailFault.BROKEN, record.chain, record.number, id=entry_id)

    def _follow(
        self, record: AuditRecord, seen: _Seen | None, key: bytes, given: str, entry_id: str
    ) -> Iterator[TrailFinding]:
        link = ChainLink(record.number, given)
        if seen is None:
            seen = self._seen[record.chain] = _Seen(link, key)
            expected, previous = 0, ""
        else:
            expected, previous = seen.last.number + 1, seen.last.mac
            if record.number < expected:
                yield TrailFinding(TrailFault.REORDERED, record.chain, record.number, id=entry_id)
                return
            seen.last = link
        seen.has_end = record.event is AuditEvent.END or "last" in record.fields
        if record.number > expected:
            if len(seen.gaps) < _MAX_GAPS:
                seen.gaps.append(_Gap(expected, record.number - 1, record.previous, entry_id))
            else:
                missing = record.number - expected
                yield TrailFinding(TrailFault.REMOVED, record.chain, expected, missing, entry_id)
        elif record.previous != previous:
            yield TrailFinding(TrailFault.BROKEN, record.chain, record.number, id=entry_id)

    def _read(self, record: AuditRecord) -> None:
        """Keep what a record says of others."""
        if record.event is AuditEvent.GAP:
            self._lost += _number(record.fields.get("lost", "")) or 0
        for chain, link in read_links(record.fields.get("heads", "")).items():
            self._anchors[chain] = max(link.number, self._anchors.get(chain, -1))

    def finish(self, floors: Mapping[str, ChainLink]) -> Iterator[TrailFinding]:
        """Tell what is missing.

        Args:
            floors: by chain, the last record that the bound has removed: as it is said after the
                reading, with a MAC that was verified.
        """
        for chain, seen in self._seen.items():
            floor = floors.get(chain)
            for gap in seen.gaps:
                if not _trimmed(gap, floor):
                    count = gap.last - gap.first + 1
                    yield TrailFinding(TrailFault.REMOVED, chain, gap.first, count, gap.id)
            if chain not in self._heads and not seen.has_end:
                yield TrailFinding(TrailFault.NO_HEAD, chain, seen.last.number)
        for chain, number in self._ends().items():
            known = self._seen.get(chain)
            floor = floors.get(chain)
            last = max(
                -1 if known is None else known.last.number, -1 if floor is None else floor.number
            )
            if last < number:
                yield TrailFinding(TrailFault.TRUNCATED, chain, last + 1, number - last)

    def _ends(self) -> dict[str, int]:
        ends = dict(self._anchors)
        for chain, head in self._heads.items():
            ends[chain] = max(head.number, ends.get(chain, -1))
        return ends

    def report(self, floors: Mapping[str, ChainLink]) -> TrailReport:
        """Tell what was looked at."""
        trimmed = sum(
            sum(gap.last - gap.first + 1 for gap in seen.gaps if _trimmed(gap, floors.get(chain)))
            for chain, seen in self._seen.items()
        )
        without_end = sum(not seen.has_end for seen in self._seen.values())
        return TrailReport(self._records, len(self._seen), trimmed, self._lost, without_end)


def _trimmed(gap: _Gap, floor: ChainLink | None) -> bool:
    """Tell whether the bound removed what is missing."""
    if floor is None or floor.number < gap.last:
        return False
    return floor.number > gap.last or floor.mac == gap.mac


def write_links(links: Mapping[str, ChainLink]) -> str:
    """Return chains and their ends as one field."""
    return " ".join(f"{chain}:{link.number}:{link.mac}" for chain, link in links.items())


def read_links(text: str) -> dict[str, ChainLink]:
    """Return the chains and ends of a field; what is none is left out."""
    found = dict[str, ChainLink]()
    for word in text.split():
        chain, _, rest = word.partition(":")
        number, _, mac = rest.partition(":")
        n = _number(number)
        if chain and n is not None and mac:
            found[chain] = ChainLink(n, mac)
    return found


def _number(text: str) -> int | None:
    """Return a number that `str` wrote; None for anything else, as a forged record may have it."""
    is_one = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return int(text) if is_one else None


def verify_all(
    verifier: TrailVerifier,
    entries: Iterable[tuple[str, bytes, str]],
    floors: Mapping[str, ChainLink],
) -> Iterator[TrailFinding]:
    """Verify a trail that is in memory or in a file."""
    for entry_id, text, given in entries:
        yield from verifier.add(entry_id, text, given)
    yield from verifier.finish(floors)
