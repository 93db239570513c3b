"""The Redis script's question and answer as bytes: written exactly, read strictly.

Law: an answer that is not exactly what the script can say of this query is a fault, never a
verdict. Only the script's own "taken", with every bucket of the query in it, becomes a `Taken`.
"""

import struct
from importlib.resources import files
from typing import Final, NamedTuple

from authz.core.ledger import (
    LedgerAnswer,
    Mode,
    OverLimit,
    Query,
    Revoked,
    StepUpMissing,
    StepUpTooOld,
    Taken,
    Unavailable,
)
from authz.core.limits import SLOTS, Charge, State, charges, outcome, wait
from authz.core.second_factor import LEEWAY
from authz.ledger.keys import Keys
from authz.ledger.records import Corrupt, revocation_fields

SOURCE: Final = files("authz.ledger").joinpath("take.lua").read_text("ascii")
_STATE: Final = struct.Struct(f">Q{SLOTS + 1}I")
_CHARGE: Final = struct.Struct(">IIQ")
_NONE: Final = -1
_STEP_UPS: Final[dict[bytes, LedgerAnswer]] = {b"missing": StepUpMissing(), b"old": StepUpTooOld()}


class Timed(NamedTuple):
    """Hold an answer, and Redis' clock at it in milliseconds since the epoch."""

    now: int
    answer: LedgerAnswer


class Call:
    """Hold one query in the script's words.

    Attributes:
        keys: KEYS of the script.
        args: ARGV of the script.
    """

    def __init__(self, keys: Keys, query: Query) -> None:
        """Write the question."""
        self._query = query
        self._charges = charges(query.takes)
        self._fields = revocation_fields(query)
        self.keys = [keys.revocations]
        method = age = _NONE
        if query.step_up is not None and query.step_up_key is not None:
            self.keys.append(keys.step_up(query.step_up_key))
            method = int(query.step_up.method)
            if query.step_up.max_login_age is not None:
                age = query.step_up.max_login_age * 1000
        self.keys += (keys.bucket(each.bucket) for each in self._charges)
        self.args: list[bytes | int] = [query.issued_at, method, age, LEEWAY * 1000]
        self.args += (len(self._fields), *(field for field, _ in self._fields))
        for each in self._charges:
            slot = each.limit.slot
            charge = _CHARGE.pack(each.limit.quota, each.cost, slot)
            self.args += (charge, (SLOTS + 2) * slot)

    def read(self, reply: object) -> Timed:
        """Read the script's answer.

        Raises:
            Unavailable: where it is not one that the script could give to this question.
        """
        match reply:
            case [int(now), b"revoked", int(index)] if 1 <= index <= len(self._fields):
                return Timed(now, Revoked(self._fields[index - 1][1]))
            case [int(now), b"missing" | b"old" as what] if self._query.step_up is not None:
                return Timed(now, _STEP_UPS[what])
            case [int(now), b"corrupt"]:
                raise Corrupt("redis", "a bucket holds what is no count")
            case [int(now), b"over" | b"taken" as what, *buckets]:
                return Timed(now, self._quotas(now, buckets, taken=what == b"taken"))
        raise _odd()

    def _quotas(self, now: int, buckets: list[object], *, taken: bool) -> LedgerAnswer:
        if len(buckets) != len(self._charges):
            raise _odd()
        states = {
            each.bucket: _state(value, each, now)
            for each, value in zip(self._charges, buckets, strict=True)
        }
        if taken:
            if not all(_charged(states[each.bucket], each) for each in self._charges):
                raise _odd()
            return Taken(outcome(states, self._query.takes, 0, now).quotas, Mode.REDIS)
        delay = max((wait(states[each.bucket], each, now) for each in self._charges), default=0)
        if delay == 0:
            raise _odd()
        refused = outcome(states, self._query.takes, delay, now)
        return OverLimit(refused.quotas, refused.retry_after)


def _state(value: object, charge: Charge, now: int) -> State:
    if not isinstance(value, bytes) or len(value) != _STATE.size:
        raise _odd()
    slot, *counts = _STATE.unpack(value)
    if slot != now // charge.limit.slot:
        raise _odd()
    return State(slot, tuple(counts))


def _charged(state: State, charge: Charge) -> bool:
    return state.counts[0] >= charge.cost and sum(state.counts) <= charge.limit.quota


def _odd() -> Unavailable:
    return Unavailable("redis", "an answer that the script does not give")
