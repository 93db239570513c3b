"""Recognize a Redis that lost data: emptied, or gone back to an older copy of its data set.

A reader leaves a mark of its own with every reading of the revocations, in the same step. A data
set without the reader's latest mark is not the one that was read, or an older copy of it (a backup,
a replica that lagged and was promoted); what the reader knows to be revoked is merged into it then.

Whoever merges first gives the data set a new generation, with a number above all that it has seen,
and begins a list of what was merged. A reader that finds a number above its own comes after
another: what was changed since is newer than what it knows. The generation of an older copy has no
higher number than the reader's own, so that the copy's list is never taken for a current one.

Invariant: merging makes no revocation weaker
(tests/ledger/test_data_loss.py::test_whatever_happens_a_merge_weakens_nothing).
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from authz.core.ledger import UnavailableError
from authz.ledger.commands import evalsha, pack
from authz.ledger.keys import RedisKeys
from authz.ledger.records import Revocation, stricter
from authz.ledger.script import Script

# Longer than a reader is cut off; then it only takes the data set for an older copy.
_KEPT: Final = b"604800000"  # milliseconds: a week
# A replica, or a Redis without memory, is read all the same: the marks that it has stay good.
_READ: Final = Script(
    """\
local stood = redis.call('MGET', KEYS[2], KEYS[3])
local mark, left = stood[2] or '', 0
for i = 4, #ARGV do
  if mark == ARGV[i] then
    if not stood[1] then redis.pcall('SET', KEYS[2], ARGV[3], 'NX') end
    if not redis.pcall('SET', KEYS[3], ARGV[1], 'PX', ARGV[2]).err then left = 1 end
    break
  end
end
return {stood[1] or '', mark, left, redis.call('HGETALL', KEYS[1])}
"""
)
# Nothing is written where the data set is not as it was read: the next reading tells. What another
# reader has merged, and somebody changed since, is left as it is. (An older version notes no
# value.) No rights are needed that taking charges does not need: so no GET, HGET and DEL.
_MERGE: Final = Script(
    """\
if (redis.call('MGET', KEYS[2])[1] or '') ~= ARGV[1] then return 0 end
for i = 5, #ARGV, 3 do
  if (redis.call('HMGET', KEYS[1], ARGV[i])[1] or '') ~= ARGV[i + 1] then return 0 end
end
if ARGV[2] ~= ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[2])
  redis.call('PEXPIRE', KEYS[4], '0')
end
local merged = 1
for i = 5, #ARGV, 3 do
  local note = redis.call('HMGET', KEYS[4], ARGV[i])[1]
  if not note or note == '' or note == ARGV[i + 1] then
    redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 2])
    if ARGV[i + 1] ~= ARGV[i + 2] then
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
      merged = merged + 1
    end
  end
end
redis.call('PEXPIRE', KEYS[4], ARGV[4])
redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
return merged
"""
)
_GENERATION: Final = re.compile(rb"([0-9]{1,15}):([a-z_]+):[0-9a-f]{32}")


class DataLoss(Enum):
    """Name how a data set lost data, in fixed words for the log and the metric."""

    EMPTIED = "emptied"
    OLDER_COPY = "older_copy"


class StoredRevocations(NamedTuple):
    """Hold one reading of the revocations, all of one moment.

    Attributes:
        generation: the data set's; empty where it has none.
        mark: the reader's own that it held before.
        is_marked: whether it holds the new one now.
        values: the revocations as they are stored, by their target.
    """

    generation: bytes
    mark: bytes
    is_marked: bool
    values: Mapping[bytes, bytes]


class RevocationChange(NamedTuple):
    """Hold what merging makes of one target: the value that was found, and the one from now on.

    An empty value stands for none.
    """

    target: bytes
    found: bytes
    wanted: bytes


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Ask for the revocations, and leave a mark.

    Attributes:
        reader: a name of its own.
        accepted: the marks of a data set that holds all that the reader knows.
        mark: the next one, which is left where one of the accepted was found.
    """

    reader: str
    accepted: tuple[bytes, ...]
    mark: bytes


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """Ask for changes of a data set that lost data.

    Attributes:
        reader: whose mark is left.
        mark: that mark.
        found: the generation as it was read.
        generation: the one from now on.
        changes: of all revocations that are known or were found.
        loss: what became of the data set.
    """

    reader: str
    mark: bytes
    found: bytes
    generation: bytes
    changes: tuple[RevocationChange, ...]
    loss: DataLoss


class DataSetTracker:
    """Follow a data set from one reading to the next, for one worker."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(16)
        self._accepted: tuple[bytes, ...] = (b"",)  # nothing is known yet: any data set holds it
        self._next = _new_mark()
        self._generation = b""

    @property
    def name(self) -> str:
        """Return the name under which its marks are kept."""
        return self._name

    @property
    def question(self) -> ReadRequest:
        """Return what to ask next; a question without an answer may be asked again."""
        return ReadRequest(self._name, self.accepted, self._next)

    @property
    def accepted(self) -> tuple[bytes, ...]:
        """Return the marks of a data set that holds all that this reader knows."""
        # The next one was left where only the answer was lost.
        return (*self._accepted, self._next)

    def is_repeated(self, reading: StoredRevocations) -> bool:
        """Tell whether a reading left no mark of its own, so that another has to be made.

        The question before it had left the same one, and its answer was lost.
        """
        if reading.mark != self._next:
            return False
        self._accepted, self._next = (self._next,), _new_mark()
        return True

    def follow(self, reading: StoredRevocations) -> bool:
        """Tell whether a reading is of a data set that holds all that was read before."""
        if reading.mark not in self._accepted:
            return False
        if reading.is_marked:
            self._accepted, self._next = (self._next,), _new_mark()
        self._generation = reading.generation or self._generation
        return True

    def merge(
        self, reading: StoredRevocations, changes: tuple[RevocationChange, ...]
    ) -> MergeRequest:
        """Return what to write to a data set that lacks what was read before."""
        # No mark of before counts again: it says nothing of what this reading brought.
        self._accepted, self._next = (), _new_mark()
        found = reading.generation
        number, loss = _read_generation(found)
        known, _ = _read_generation(self._generation)
        if number <= known:
            loss = DataLoss.OLDER_COPY if found else DataLoss.EMPTIED
            found = b"%d:%s:%s" % (known + 1, loss.value.encode(), _new_mark())
        return MergeRequest(self._name, self._next, reading.generation, found, changes, loss)

    def confirm(self, merge: MergeRequest) -> None:
        """Take notice that a merge was written."""
        self._accepted, self._next = (merge.mark,), _new_mark()
        self._generation = merge.generation


def merge_revocations(
    known: Mapping[bytes, Revocation],
    found: Mapping[bytes, Revocation],
    values: Mapping[bytes, bytes],
) -> tuple[Mapping[bytes, Revocation], tuple[RevocationChange, ...]]:
    """Return the stricter of what is known and what was found, and the changes that make it so.

    What stays as it is has a change too: the list of what was merged names all that was known.

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
        changes.append(
            RevocationChange(target, value, value if one == found.get(target) else one.encode())
        )
    return wanted, tuple(changes)


class ReadCall:
    """Hold a question in the words of its script.

    Attributes:
        script: what answers it.
        command: its call.
    """

    script: Final = _READ

    def __init__(self, keys: RedisKeys, question: ReadRequest) -> None:
        names = [keys.revocations, keys.generation, keys.mark(question.reader)]
        # A data set that is new has a number that no reader takes for a later one.
        begun = b"0:%s:%s" % (DataLoss.EMPTIED.value.encode(), _new_mark())
        asked = [question.mark, _KEPT, begun, *question.accepted]
        self.command: Final = evalsha(self.script.sha, [pack(names)], [pack(asked)])


class MergeCall:
    """Hold a merge in the words of its script.

    Attributes:
        script: what does it, all at one moment.
        command: its call.
    """

    script: Final = _MERGE

    def __init__(self, keys: RedisKeys, merge: MergeRequest) -> None:
        names = [keys.revocations, keys.generation, keys.mark(merge.reader), keys.restored]
        asked = [merge.found, merge.generation, merge.mark, _KEPT]
        asked += (part for change in merge.changes for part in change)
        self.command: Final = evalsha(self.script.sha, [pack(names)], [pack(asked)])


def read_reading(reply: object) -> StoredRevocations:
    """Read the script's answer: nothing is revoked only where Redis says so.

    Raises:
        UnavailableError: where it is not one that the script could give.
    """
    match reply:
        case [bytes(generation), bytes(mark), 0 | 1 as left, list(fields)]:
            if len(fields) % 2 == 0 and {*map(type, fields)} <= {bytes}:
                values = dict(zip(fields[::2], fields[1::2], strict=True))
                return StoredRevocations(generation, mark, left == 1, values)
    raise UnavailableError("redis", "an answer that the script does not give")


def read_merged(reply: object) -> int | None:
    """Return how many revocations a merge wrote; None where another came before.

    Raises:
        UnavailableError: where the answer is not one that the script could give.
    """
    if isinstance(reply, int) and reply >= 0:
        return reply - 1 if reply else None
    raise UnavailableError("redis", "an answer that the script does not give")


def _new_mark() -> bytes:
    return secrets.token_hex(16).encode()


def _read_generation(value: bytes) -> tuple[int, DataLoss]:
    """Return the number of a generation, and what it began with; an older version has no number."""
    match = _GENERATION.fullmatch(value)
    if match is None:
        return 0, DataLoss.OLDER_COPY
    words = match[2].decode()
    return int(
        match[1]
    ), DataLoss.OLDER_COPY if words == DataLoss.OLDER_COPY.value else DataLoss.EMPTIED
