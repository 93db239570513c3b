"""The Redis scripts' questions and answers as bytes: written exactly, read strictly.

Law: an answer that is not exactly what the script can say of this query is a fault, never a
verdict. Only the script's own "taken", with every bucket of the query in it, becomes a `Taken`.
Of many queries in one call each has the answer at its own place; one that cannot be the script's
spoils all of them, since it tells that the places cannot be trusted.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from hashlib import sha1
from importlib.resources import files
from operator import attrgetter
from typing import Final

from authz.core.ledger import (
    LedgerAnswer,
    Mode,
    OverLimit,
    Query,
    Revoked,
    SessionOfAnother,
    StepUpMissing,
    StepUpTooOld,
    Taken,
    UnavailableError,
)
from authz.core.limits import SLOTS, Charge, Quota, State, charges, in_use, outcome, wait
from authz.core.memo import Memo
from authz.core.second_factor import LEEWAY
from authz.ledger.commands import evalsha, pack
from authz.ledger.faults import fault_of_code
from authz.ledger.keys import RedisKeys
from authz.ledger.records import CorruptRecordError, Revocation, revocation_fields, session_owner


@dataclass(frozen=True, slots=True)
class Script:
    """Hold a script and the name under which Redis keeps it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        """Name it by its SHA-1 (EVALSHA); nothing secret hangs on it."""
        sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha)


def _text(name: str) -> str:
    return files("authz.ledger").joinpath(name).read_text("ascii")


# One function for both: what one query means, it means among others too.
TAKE: Final = Script(f"{_text('take.lua')}\nreturn take(1, #keys, 1, #argv)\n")
TAKE_ALL: Final = Script(f"{_text('take.lua')}\n{_text('batch.lua')}")
# What was written since it was read stays: a revocation of the same target, made meanwhile.
_DISCARD: Final = Script(
    """\
for i = 1, #ARGV, 2 do
  if redis.call('HMGET', KEYS[1], ARGV[i])[1] == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return 1
"""
)
_STATE: Final = struct.Struct(f">Q{SLOTS + 1}I")
_COUNTS: Final = 8  # where they begin in it
_CHARGE: Final = struct.Struct(">IIQ")
_HEAD: Final = 2  # of an answer: the clock, and what it is; buckets follow
_TAKEN: Final = b"taken"
_COUNTED: Final = frozenset({_TAKEN, b"over"})
_NONE: Final = -1
_STEP_UPS: Final[dict[bytes, LedgerAnswer]] = {b"missing": StepUpMissing(), b"old": StepUpTooOld()}


class TakeCall:
    """Hold one query in the script's words.

    Attributes:
        script: what answers it.
        keys: KEYS of the script.
        args: ARGV of the script.
        counts: how many keys and arguments there are, for the script for many.
        command: the call of the script for one.
    """

    script = TAKE

    def __init__(self, keys: RedisKeys, query: Query) -> None:
        """Write the question."""
        self._query = query
        self._charges = charges(query.takes)
        # Of each take its limit, and its bucket's place in the answer and what it is charged.
        charged = {each.bucket: (_HEAD + n, each) for n, each in enumerate(self._charges)}
        self._takes = [(each.limit, *charged[each.bucket]) for each in query.takes]
        self._fields = revocation_fields(query)
        names = [keys.revocations]
        method = age = _NONE
        if query.step_up is not None and query.step_up_key is not None:
            names.append(keys.step_up(query.step_up_key))
            method = int(query.step_up.method)
            if query.step_up.max_login_age is not None:
                age = query.step_up.max_login_age * 1000
        session = query.session
        if session is not None:
            names.append(keys.session(session))
        names += (keys.bucket(each.bucket) for each in self._charges)
        if session is not None:
            names.append(keys.sessions(session))
        asked: list[bytes | int] = [query.issued_at, method, age, LEEWAY * 1000]
        asked += (len(self._fields), *(field for field, _ in self._fields))
        if self._charges:
            asked.append(b"".join(map(_charge, self._charges)))
        if session is not None:
            asked += (session_owner(session), session.lifetime * 1000)
        self.keys, self.args = pack(names), pack(asked)
        self.counts = pack([len(names), len(asked)])
        self.command = evalsha(self.script.sha, [self.keys], [self.args])

    def read(self, reply: object) -> LedgerAnswer:
        """Read the script's answer.

        Raises:
            UnavailableError: where it is not one that the script could give to this question.
        """
        if not isinstance(reply, list) or len(reply) < _HEAD:
            raise _odd()
        now, what = reply[0], reply[1]
        if not isinstance(now, int) or not isinstance(what, bytes):
            raise _odd()
        if what in _COUNTED:
            if len(reply) != _HEAD + len(self._charges):
                raise _odd()
            return self._taken(now, reply) if what == _TAKEN else self._over(now, reply)
        match reply[1:]:
            case [b"revoked", int(index)] if 1 <= index <= len(self._fields):
                return Revoked(self._fields[index - 1][1])
            case [b"foreign"] if self._query.session is not None:
                return SessionOfAnother()
            case [b"missing" | b"old"] if self._query.step_up is not None:
                return _STEP_UPS[what]
            case [b"corrupt"]:
                raise CorruptRecordError("redis", "a bucket holds what is no count")
        raise _odd()

    def _taken(self, now: int, reply: list[object]) -> Taken:
        quotas = list[Quota]()
        for limit, place, charge in self._takes:
            value = _bucket(reply[place])
            stored: tuple[int, ...] = _STATE.unpack(value)
            slot, used = stored[0], sum(stored) - stored[0] + charge.cost
            if slot != now // limit.slot or used > limit.quota:
                raise _odd()
            # The last byte that is not zero is of the oldest slot in use, if any was before.
            oldest = (len(value.rstrip(b"\0")) - _COUNTS - 1) // 4
            quotas.append(in_use(limit, used, slot, max(0, oldest), now))
        return Taken(tuple(quotas), Mode.REDIS)

    def _over(self, now: int, reply: list[object]) -> OverLimit:
        states = {
            each.bucket: _state(value, each, now)
            for each, value in zip(self._charges, reply[_HEAD:], strict=True)
        }
        delay = max((wait(states[each.bucket], each, now) for each in self._charges), default=0)
        if delay == 0:
            raise _odd()
        refused = outcome(states, self._query.takes, delay, now)
        return OverLimit(refused.quotas, refused.retry_after)


# All of a query but its takes, whose limits are told apart by which they are: comparing them
# member by member would cost what is to be saved. A new member of Query is among them by itself.
_ASKED: Final = attrgetter(*(each.name for each in fields(Query) if each.name != "takes"))


def _asked(query: Query) -> tuple[object, ...]:
    takes = [part for each in query.takes for part in (each.bucket, id(each.limit))]
    return (*_ASKED(query), *takes)


def known_calls(keys: RedisKeys, capacity: int = 8192) -> Memo[Query, TakeCall]:
    """Return what writes queries, the same query once: tokens come again and again.

    Args:
        keys: the deployment's.
        capacity: how many calls to hold; the oldest go first.
    """
    # A query is held with its call, so its limits keep their numbers.
    return Memo(partial(TakeCall, keys), capacity, key=_asked)


class BatchCall:
    """Hold many queries in the words of the script for many.

    Attributes:
        script: what answers them.
        command: its call.
    """

    script = TAKE_ALL

    def __init__(self, calls: Sequence[TakeCall]) -> None:
        """Write the questions, one after the other."""
        self._calls = calls
        args = [part for each in calls for part in (each.counts, each.args)]
        self.command = evalsha(self.script.sha, [each.keys for each in calls], args)

    def read(self, reply: object) -> list[LedgerAnswer | UnavailableError]:
        """Read the answers, each at its question's place.

        Raises:
            UnavailableError: where any of them is not one that the script could give to its
                question.
        """
        if not isinstance(reply, list) or len(reply) != len(self._calls):
            raise _odd()
        return [_read_one(*each) for each in zip(self._calls, reply, strict=True)]


class DiscardCall:
    """Hold revocations to remove where they stand as they were read.

    Attributes:
        script: what removes them.
        command: its call.
    """

    script = _DISCARD

    def __init__(self, keys: RedisKeys, found: Mapping[bytes, Revocation]) -> None:
        """Write down which."""
        pairs = [part for target, one in found.items() for part in (target, one.encode())]
        self.command = evalsha(self.script.sha, [pack([keys.revocations])], [pack(pairs)])


def _read_one(call: TakeCall, reply: object) -> LedgerAnswer | UnavailableError:
    match reply:
        case [0, b"error", bytes(code)]:
            return UnavailableError("redis", fault_of_code(code.decode("ascii", "replace")).value)
    try:
        return call.read(reply)
    except CorruptRecordError as error:
        return error


def _charge(charge: Charge) -> bytes:
    return _CHARGE.pack(charge.limit.quota, charge.cost, charge.limit.slot)


def _bucket(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != _STATE.size:
        raise _odd()
    return value


def _state(value: object, charge: Charge, now: int) -> State:
    slot, *counts = _STATE.unpack(_bucket(value))
    if slot != now // charge.limit.slot:
        raise _odd()
    return State(slot, tuple(counts))


def _odd() -> UnavailableError:
    return UnavailableError("redis", "an answer that the script does not give")
