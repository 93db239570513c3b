"""Detect a Redis that lost data (emptied, or an older copy), and restore the revocations it lacks.

A reader leaves a random mark with every reading of the revocations, in the same script call. A data
set without the reader's latest mark is another one, or an older copy of the one that was read (a
backup, a replica that lagged and was promoted). The revocations that the reader knows are merged
into it then.

The first reader to merge gives the data set a new generation, numbered above all that it has seen,
and starts a hash of what was merged. A reader that finds a number above its own comes second: what
was changed since is newer than what it knows. The generation of an older copy is never numbered
above the reader's own, so the copy's hash is never taken for a current one.

Invariant: merging makes no revocation weaker
(tests/ledger/test_data_loss.py::test_whatever_happens_a_merge_weakens_nothing).
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Protocol

from authz.core.ledger import UnavailableError
from authz.ledger.records import Revocation, stricter

MARK_LIFETIME_MS: Final = 7 * 86_400_000
_GENERATION: Final = re.compile(rb"([0-9]{1,15}):([a-z_]+):[0-9a-f]{32}")


class DataLoss(Enum):
    """Name how a data set lost data, in fixed words for the log and the metric."""

    EMPTIED = "emptied"
    OLDER_COPY = "older_copy"


class StoredRevocations(NamedTuple):
    """One reading of the revocations, from a single script call.

    Attributes:
        generation: the data set's; empty where it has none.
        mark: the reader's own, as it was found.
        is_marked: whether the new mark was written.
        values: the revocations as they are stored, by their field.
    """

    generation: bytes
    mark: bytes
    is_marked: bool
    values: Mapping[bytes, bytes]


class RevocationChange(NamedTuple):
    """One revocation in a merge: its field, and its values before and after; empty for none."""

    target: bytes
    found: bytes
    wanted: bytes


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Read the revocations and leave a mark.

    Attributes:
        reader: a random name.
        accepted: the marks of a data set that holds all that the reader knows.
        mark: the next one, written where one of the accepted was found.
    """

    reader: str
    accepted: tuple[bytes, ...]
    mark: bytes


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """Restore revocations in a data set that lost data.

    Attributes:
        reader, mark: whose mark is written, and that mark.
        found: the generation as it was read.
        generation: the one to write.
        changes: of all revocations that are known or were found.
        loss: how the data set lost data.
    """

    reader: str
    mark: bytes
    found: bytes
    generation: bytes
    changes: tuple[RevocationChange, ...]
    loss: DataLoss


class RevocationSource(Protocol):
    """Read the revocations and restore lost ones (`RedisLedger`); may raise UnavailableError."""

    async def read(self, request: ReadRequest) -> StoredRevocations:
        """Return the revocations as they are stored, and leave the reader's mark."""
        ...

    async def mark(self, reader: str) -> bytes:
        """Return the mark that a reader has left; empty where there is none."""
        ...

    async def merge(self, request: MergeRequest) -> int | None:
        """Write revocations that were lost; return how many, None where the data set changed."""
        ...


class DataSetTracker:
    """Follow one worker's data set from reading to reading."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(16)
        self._accepted: tuple[bytes, ...] = (b"",)  # nothing is known yet: any data set holds it
        self._next = new_mark()
        self._generation = b""

    @property
    def name(self) -> str:
        """Return the name under which its marks are kept."""
        return self._name

    @property
    def read_request(self) -> ReadRequest:
        """Return what to read next; a request without an answer may be sent again."""
        return ReadRequest(self._name, self.accepted, self._next)

    @property
    def accepted(self) -> tuple[bytes, ...]:
        """Return the marks of a data set that holds all that this reader knows."""
        # The next mark may have been written where only the answer was lost.
        return (*self._accepted, self._next)

    def is_repeated(self, reading: StoredRevocations) -> bool:
        """Tell whether a reading must be made again, since its mark had been left before.

        The same request had been answered before, and that answer was lost.
        """
        if reading.mark != self._next:
            return False
        self._accepted, self._next = (self._next,), new_mark()
        return True

    def follow(self, reading: StoredRevocations) -> bool:
        """Tell whether a reading is of a data set that holds all that was read before."""
        if reading.mark not in self._accepted:
            return False
        if reading.is_marked:
            self._accepted, self._next = (self._next,), new_mark()
        self._generation = reading.generation or self._generation
        return True

    def merge_request(
        self, reading: StoredRevocations, changes: tuple[RevocationChange, ...]
    ) -> MergeRequest:
        """Return what to write to a data set that lacks what was read before."""
        # Earlier marks are void: they say nothing of what this reading brought.
        self._accepted, self._next = (), new_mark()
        generation = reading.generation
        number, loss = _parse_generation(generation)
        known, _ = _parse_generation(self._generation)
        if number <= known:
            loss = DataLoss.OLDER_COPY if generation else DataLoss.EMPTIED
            generation = new_generation(known + 1, loss)
        return MergeRequest(self._name, self._next, reading.generation, generation, changes, loss)

    def confirm(self, merge: MergeRequest) -> None:
        """Take note that a merge was written."""
        self._accepted, self._next = (merge.mark,), new_mark()
        self._generation = merge.generation


def merge_revocations(
    known: Mapping[bytes, Revocation],
    found: Mapping[bytes, Revocation],
    values: Mapping[bytes, bytes],
) -> tuple[Mapping[bytes, Revocation], tuple[RevocationChange, ...]]:
    """Return the stricter of what is known and what was found, and the changes that make it so.

    What stays as it is has a change too: the hash of what was merged names all that was known.

    Args:
        known: by this reader.
        found: in the data set.
        values: the same as they are stored.
    """
    wanted = dict(found)
    for target, one in known.items():
        wanted[target] = stricter(found.get(target), one)
    changes = []
    for target, one in wanted.items():
        value = values.get(target, b"")
        changed = value if one == found.get(target) else one.encode()
        changes.append(RevocationChange(target, value, changed))
    return wanted, tuple(changes)


def parse_stored_revocations(reply: object) -> StoredRevocations:
    """Return the reply of read_revocations.lua; a malformed reply is never "nothing is revoked".

    Raises:
        UnavailableError: where the script cannot have given it.
    """
    match reply:
        case [bytes(generation), bytes(mark), 0 | 1 as written, list(fields)]:
            if len(fields) % 2 == 0 and {*map(type, fields)} <= {bytes}:
                values = dict(zip(fields[::2], fields[1::2], strict=True))
                return StoredRevocations(generation, mark, written == 1, values)
    raise UnavailableError("redis", "an answer that the script does not give")


def parse_merged(reply: object) -> int | None:
    """Return how many revocations merge_revocations.lua wrote; None where the data set changed.

    Raises:
        UnavailableError: where the script cannot have given the reply.
    """
    if isinstance(reply, int) and reply >= 0:
        return reply - 1 if reply else None
    raise UnavailableError("redis", "an answer that the script does not give")


def new_mark() -> bytes:
    """Return a mark that no other reading has."""
    return secrets.token_hex(16).encode()


def new_generation(number: int, loss: DataLoss) -> bytes:
    """Return the generation of a data set, with what it began with."""
    return b"%d:%s:%s" % (number, loss.value.encode(), new_mark())


def _parse_generation(value: bytes) -> tuple[int, DataLoss]:
    """Return a generation's number, and what it began with; an older release gave no number."""
    match = _GENERATION.fullmatch(value)
    if match is None:
        return 0, DataLoss.OLDER_COPY
    is_copy = match[2].decode() == DataLoss.OLDER_COPY.value
    return int(match[1]), DataLoss.OLDER_COPY if is_copy else DataLoss.EMPTIED
