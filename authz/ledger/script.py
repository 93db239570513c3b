"""The ledger's Lua scripts: calls written as bytes, replies read strictly.

Invariant: a reply that the script cannot give to this query raises, and is never a verdict; only
"taken" with every bucket of the query becomes `Taken` (tests/ledger/test_script.py). In a batch
each query has the reply at its own place, and one impossible reply fails all of them: the places
cannot be trusted then.
"""

import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha1
from importlib.resources import files
from operator import attrgetter
from typing import Any, Final

from authz.core.identity_cache import IdentityCache
from authz.core.ledger import (
    ApprovalDeclined,
    ApprovalMissing,
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
from authz.core.limits import (
    SLOTS,
    Charge,
    Limit,
    Quota,
    WindowState,
    charges,
    exceeded,
    in_use,
    longest,
    outcome,
    quota_of,
    wait,
)
from authz.core.second_factor import LEEWAY
from authz.ledger.commands import evalsha, pack
from authz.ledger.faults import fault_of_code
from authz.ledger.keys import RedisKeys
from authz.ledger.records import (
    CorruptRecordError,
    ScriptNotLoadedError,
    revocation_fields,
    session_owner,
)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, and the SHA-1 by which EVALSHA names it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        """Compute the SHA-1, which is no secret."""
        sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha)


def load_script(package: str, *path: str) -> Script:
    """Return a script that stands in a file of a package."""
    return Script(files(package).joinpath(*path).read_text("ascii"))


async def run_script(
    command: Callable[..., Awaitable[Any]],
    script: Script,
    keys: tuple[bytes, ...],
    *args: bytes | str | int,
) -> Any:
    """Run a script and return its answer; it is sent again only where nothing ran.

    Args:
        command: sends one command (`RedisLedger.command`).
        script: which.
        keys: its KEYS.
        args: its ARGV.

    Raises:
        UnavailableError: where Redis gave no answer; it may have run.
    """
    call = ("EVALSHA", script.sha, len(keys), *keys, *args)
    try:
        return await command(*call)
    except ScriptNotLoadedError:
        pass
    await command("SCRIPT LOAD", script.source)
    return await command(*call)


# Both run the same `take`, so a query in a batch is answered as a single one is.
_TAKE: Final = load_script("authz.ledger", "take.lua").source
TAKE: Final = Script(f"{_TAKE}\nreturn take(1, #keys, 1, #argv)\n")
TAKE_ALL: Final = Script(f"{_TAKE}\n{load_script('authz.ledger', 'batch.lua').source}")
READ_REVOCATIONS: Final = load_script("authz.ledger", "read_revocations.lua")
MERGE_REVOCATIONS: Final = load_script("authz.ledger", "merge_revocations.lua")
DISCARD_REVOCATIONS: Final = load_script("authz.ledger", "discard_revocations.lua")
REPLACE_REVOCATION: Final = load_script("authz.ledger", "replace_revocation.lua")
CHARGE_LATE: Final = load_script("authz.ledger", "charge_late.lua")
_STATE: Final = struct.Struct(f">Q{SLOTS + 1}I")
_COUNTS_OFFSET: Final = 8  # of the counts in it
_CHARGE: Final = struct.Struct(">IIQ")
_HEAD: Final = 2  # items of a reply before its buckets: the clock, and the kind of reply
_TAKEN: Final = b"taken"
_WITH_BUCKETS: Final = frozenset({_TAKEN, b"over"})
_NOT_ASKED: Final = -1
_STEP_UP_REPLIES: Final[dict[bytes, LedgerAnswer]] = {
    b"missing": StepUpMissing(),
    b"old": StepUpTooOld(),
}
_APPROVAL_REPLIES: Final[dict[bytes, LedgerAnswer]] = {
    b"unapproved": ApprovalMissing(),
    b"declined": ApprovalDeclined(),
}


class TakeCall:
    """One query as a call of take.lua.

    Attributes:
        script: take.lua.
        keys: KEYS of the script.
        args: ARGV of the script.
        counts: how many keys and arguments there are, for batch.lua.
        command: the EVALSHA of this query alone.
    """

    script = TAKE

    def __init__(self, keys: RedisKeys, query: Query) -> None:
        """Encode the query."""
        self._query = query
        self._charges = charges(query.takes)
        # For each take its limit, its bucket's place in the reply and the charge on that bucket.
        charged = {each.bucket: (_HEAD + n, each) for n, each in enumerate(self._charges)}
        self._takes = [(each.limit, *charged[each.bucket]) for each in query.takes]
        self._fields = revocation_fields(query)
        names = [keys.revocations]
        method = age = _NOT_ASKED
        if query.step_up is not None and query.step_up_key is not None:
            names.append(keys.step_up(query.step_up_key))
            method = int(query.step_up.method)
            if query.step_up.max_login_age is not None:
                age = query.step_up.max_login_age * 1000
        approved = _NOT_ASKED
        if query.approval_key is not None:
            names.append(keys.approval(query.approval_key))
            approved = (query.approval_key.approval.lifetime or 0) * 1000
        session = query.session
        if session is not None:
            names.append(keys.session(session))
        names += (keys.bucket(each.bucket) for each in self._charges)
        if session is not None:
            names.append(keys.session_ring(session))
        args: list[bytes | int] = [query.issued_at, method, age, LEEWAY * 1000, approved]
        args += (len(self._fields), *(field for field, _ in self._fields))
        if self._charges:
            args.append(b"".join(map(_charge, self._charges)) + _shadows(self._charges))
        if session is not None:
            args += (session_owner(session), session.lifetime * 1000)
        self.keys, self.args = pack(names), pack(args)
        self.counts = pack([len(names), len(args)])
        self.command = evalsha(self.script.sha, [self.keys], [self.args])

    def read(self, reply: object) -> LedgerAnswer:
        """Return the script's reply as the answer to the query.

        Raises:
            UnavailableError: where the script cannot give it to this query.
        """
        if not isinstance(reply, list) or len(reply) < _HEAD:
            raise _impossible()
        now, kind = reply[0], reply[1]
        if not isinstance(now, int) or not isinstance(kind, bytes):
            raise _impossible()
        if kind in _WITH_BUCKETS:
            if len(reply) != _HEAD + len(self._charges):
                raise _impossible()
            return self._taken(now, reply) if kind == _TAKEN else self._over(now, reply)
        match reply[1:]:
            case [b"revoked", int(index)] if 1 <= index <= len(self._fields):
                return Revoked(self._fields[index - 1][1])
            case [b"foreign"] if self._query.session is not None:
                return SessionOfAnother()
            case [b"missing" | b"old"] if self._query.step_up is not None:
                return _STEP_UP_REPLIES[kind]
            case [b"unapproved" | b"declined"] if self._query.approval is not None:
                return _APPROVAL_REPLIES[kind]
            case [b"corrupt"]:
                raise CorruptRecordError("redis", "a bucket holds what is no count")
        raise _impossible()

    def _taken(self, now: int, reply: list[object]) -> Taken:
        quotas = list[Quota]()
        for limit, place, charge in self._takes:
            value = _bucket(reply[place])
            stored: tuple[int, ...] = _STATE.unpack(value)
            slot, used = stored[0], sum(stored) - stored[0] + charge.cost
            if slot != now // limit.slot:
                raise _impossible()
            if used > limit.quota:
                if not limit.shadow:
                    raise _impossible()
                quotas.append(_exceeded(stored, charge, limit, now))
                continue
            # The last byte that is not zero is of the oldest slot in use, if any was before.
            oldest = (len(value.rstrip(b"\0")) - _COUNTS_OFFSET - 1) // 4
            quotas.append(in_use(limit, used, slot, max(0, oldest), now, charge.ends))
        return Taken(tuple(quotas), Mode.REDIS)

    def _over(self, now: int, reply: list[object]) -> OverLimit:
        states = {
            each.bucket: _state(value, each, now)
            for each, value in zip(self._charges, reply[_HEAD:], strict=True)
        }
        delays = {each.bucket: wait(states[each.bucket], each, now) for each in self._charges}
        delay = longest(self._charges, delays)
        if delay == 0:
            raise _impossible()
        refused = outcome(states, self._query.takes, delays, delay, now)
        return OverLimit(refused.quotas, refused.retry_after)


# All fields of a query but its takes, whose limits are compared by identity: comparing their fields
# would cost what the cache saves. A new field of Query is included by itself.
_FIELDS: Final = attrgetter(*(each.name for each in fields(Query) if each.name != "takes"))


def _query_key(query: Query) -> tuple[object, ...]:
    takes = [part for each in query.takes for part in (each.bucket, id(each.limit))]
    return (*_FIELDS(query), *takes)


class KnownCalls:
    """Write queries as calls, the same query once: tokens come again and again."""

    def __init__(self, keys: RedisKeys, capacity: int = 8192) -> None:
        """Take the deployment's keys, and how many calls to hold; the oldest go first."""
        self._keys = keys
        self._cache = IdentityCache(capacity)

    def __call__(self, query: Query) -> TakeCall:
        """Return the call of a query."""
        # A query is held with its call, so the ids of its limits stay theirs.
        return self._cache.find(_query_key(query), TakeCall, self._keys, query)

    def __len__(self) -> int:
        """Return how many calls are held."""
        return len(self._cache)


class BatchCall:
    """Many queries as one call of batch.lua.

    Attributes:
        script: take.lua with batch.lua.
        command: the EVALSHA.
    """

    script = TAKE_ALL

    def __init__(self, calls: Sequence[TakeCall]) -> None:
        """Encode the queries, in order."""
        self._calls = calls
        args = [part for each in calls for part in (each.counts, each.args)]
        self.command = evalsha(self.script.sha, [each.keys for each in calls], args)

    def read(self, reply: object) -> list[LedgerAnswer | UnavailableError]:
        """Return the answers, in the order of the queries.

        Raises:
            UnavailableError: where the script cannot give any one of them to its query.
        """
        if not isinstance(reply, list) or len(reply) != len(self._calls):
            raise _impossible()
        return [_read_one(*each) for each in zip(self._calls, reply, strict=True)]


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


def _exceeded(stored: tuple[int, ...], charge: Charge, limit: Limit, now: int) -> Quota:
    """Return the quota of a limit in shadow that had no room, as it stands."""
    return exceeded(quota_of(WindowState(stored[0], stored[1:]), limit, now, charge.ends))


def _shadows(wanted: Sequence[Charge]) -> bytes:
    """Return a byte for each charge, 1 of a limit in shadow; nothing where none is."""
    marks = bytes([each.limit.shadow for each in wanted])
    return marks if any(marks) else b""


def _bucket(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != _STATE.size:
        raise _impossible()
    return value


def _state(value: object, charge: Charge, now: int) -> WindowState:
    slot, *counts = _STATE.unpack(_bucket(value))
    if slot != now // charge.limit.slot:
        raise _impossible()
    return WindowState(slot, tuple(counts))


def _impossible() -> UnavailableError:
    return UnavailableError("redis", "an answer that the script does not give")
