"""Revocations, step-ups and approvals as Redis stores them, and what they say of a query.

Invariant: a malformed revocation revokes, a malformed step-up or approval proves nothing. take.lua
decides the same in Redis (tests/ledger/test_contract.py, test_approvals.py run on both).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from authz.core.approval import Approval
from authz.core.ledger import (
    ApprovalDeclined,
    ApprovalMissing,
    Query,
    Revoked,
    Session,
    StepUpMissing,
    StepUpTooOld,
    UnavailableError,
)
from authz.core.second_factor import LEEWAY, Method, StepUpNeed
from authz.ledger.keys import EVERYTHING, client_field, grant_field, person_field, token_field

_SECONDS: Final = re.compile(rb"[0-9]{1,15}")
_STEP_UP: Final = re.compile(rb"([0-9]{1,15}) ([0-7])")
_APPROVAL: Final = re.compile(rb"([ad]) ([0-9]{1,15})")


class ScriptNotLoadedError(UnavailableError):
    """Redis does not know a script (NOSCRIPT): nothing ran, so it may be loaded and sent again."""


class CorruptRecordError(UnavailableError):
    """One record in Redis is not of our making; others can still be counted on."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Revoke the tokens that a field names.

    Attributes:
        issued_until: those issued at or before this second are revoked; None for all of them.
        until: the second after which the record is not needed, because its token has expired;
            None to keep it.
        metadata: who, when, why: for people.
    """

    issued_until: int | None = None
    until: int | None = None
    metadata: str = ""

    def covers(self, issued_at: int) -> bool:
        """Tell whether a token issued at that second is revoked."""
        return self.issued_until is None or issued_at <= self.issued_until

    def encode(self) -> bytes:
        """Return the value of the field.

        Raises:
            ValueError: where a moment is not between 0 and 10^15 seconds.
        """
        moments = (self.issued_until, self.until)
        if any(moment is not None and not 0 <= moment < 10**15 for moment in moments):
            raise ValueError("a moment is in seconds since the epoch")
        first = "*" if self.issued_until is None else str(self.issued_until)
        until = "" if self.until is None else str(self.until)
        return f"{first}|{until}|{self.metadata}".encode("utf-8", "backslashreplace")


def read_revocation(value: bytes) -> Revocation:
    """Read the value of a field; a malformed one revokes everything that the field names.

    take.lua reads only what stands before the first `|`, and so does `covers`.
    """
    first, _, rest = value.partition(b"|")
    until, _, metadata = rest.partition(b"|")
    return Revocation(
        issued_until=_seconds(first),
        until=_seconds(until),
        metadata=metadata.decode("utf-8", "replace"),
    )


def stricter(one: Revocation | None, other: Revocation) -> Revocation:
    """Return what revokes all that either does, for as long as either; `one` where it does so."""
    if one is None:
        return other
    issued_until = _later(one.issued_until, other.issued_until)
    metadata = one.metadata if issued_until == one.issued_until else other.metadata
    return Revocation(issued_until, _later(one.until, other.until), metadata)


def _later(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _seconds(text: bytes) -> int | None:
    return int(text) if _SECONDS.fullmatch(text) else None


def revocation_fields(query: Query) -> tuple[tuple[bytes, str], ...]:
    """Return the fields that may revoke a query's token, each with its kind."""
    person = () if query.person is None else ((person_field(query.person), "person"),)
    grant = query.grant
    granted = () if grant is None else ((grant_field(query.client.issuer, grant), "grant"),)
    itself = query.registered_client
    named = () if itself is None else ((client_field(itself), "client"),)
    return (
        (token_field(query.token_id), "token"),
        *person,
        (client_field(query.client), "client"),
        *granted,
        *named,
        (EVERYTHING, "everything"),
    )


def revoked(revocations: Mapping[bytes, Revocation], query: Query) -> Revoked | None:
    """Return the revocation of a query's token; None where there is none."""
    if not revocations:
        return None
    for field, kind in revocation_fields(query):
        found = revocations.get(field)
        if found is not None and found.covers(query.issued_at):
            return Revoked(kind)
    return None


def step_ups_void_until(revocations: Mapping[bytes, Revocation], query: Query) -> int:
    """Return the second up to which a query's step-ups and approvals are void; -1 for none.

    A revocation of what was issued up to a moment voids those of that time too: a new token must
    not find the one that was made with the old.
    """
    found = (revocations.get(field) for field, _ in revocation_fields(query))
    moments = (each.issued_until for each in found if each is not None)
    return max((moment for moment in moments if moment is not None), default=-1)


def session_owner(session: Session) -> bytes:
    """Return the value of a session's binding: 16 bytes that name the person, 16 the owner."""
    return bytes.fromhex(session.person + session.owner)


def encode_step_up(method: Method, auth_time: int) -> bytes:
    """Return the value of a step-up record.

    Raises:
        ValueError: where auth_time is not between 0 and 10^15 seconds.
    """
    if not 0 <= auth_time < 10**15:
        raise ValueError("auth_time is in seconds since the epoch")
    return b"%d %d" % (auth_time, method)


def step_up_missing(
    record: bytes | None, need: StepUpNeed, now: int, void_until: int = -1
) -> StepUpMissing | StepUpTooOld | None:
    """Return what a step-up record lacks; None where it proves what is needed.

    Args:
        record: the stored value; None where there is none.
        need: what to prove.
        now: milliseconds since the epoch.
        void_until: the second up to which log-ins do not count (`step_ups_void_until`).
    """
    match = None if record is None else _STEP_UP.fullmatch(record)
    if match is None or int(match[2]) & need.method != need.method:
        return StepUpMissing()
    if int(match[1]) <= void_until:
        return StepUpMissing()
    if need.max_login_age is None:
        return None
    age = now - int(match[1]) * 1000
    if age < -LEEWAY * 1000:  # an auth_time in the future proves nothing
        return StepUpMissing()
    return StepUpTooOld() if age > need.max_login_age * 1000 else None


def read_step_up(record: bytes | None) -> tuple[int, Method] | None:
    """Return the second of the log-in of a step-up record and what it proved; None for none."""
    match = None if record is None else _STEP_UP.fullmatch(record)
    return None if match is None else (int(match[1]), Method(int(match[2])))


def is_approval(record: bytes | None) -> bool:
    """Tell whether a record says that a person approved, whatever its age."""
    match = None if record is None else _APPROVAL.fullmatch(record)
    return match is not None and match[1] == b"a"


def encode_approval(at: int, *, approved: bool) -> bytes:
    """Return the value of the record of an approval, or of its refusal by the person.

    Raises:
        ValueError: where `at` is not between 0 and 10^15 seconds.
    """
    if not 0 <= at < 10**15:
        raise ValueError("an approval is given at a second since the epoch")
    return b"%s %d" % (b"a" if approved else b"d", at)


def not_approved(
    record: bytes | None, approval: Approval, now: int, void_until: int = -1
) -> ApprovalMissing | ApprovalDeclined | None:
    """Return what the record of an approval lacks; None where it approves.

    Args:
        record: the stored value; None where there is none.
        approval: what is asked for.
        now: milliseconds since the epoch.
        void_until: the second up to which approvals do not count (`step_ups_void_until`).
    """
    match = None if record is None else _APPROVAL.fullmatch(record)
    if match is None or int(match[2]) <= void_until:
        return ApprovalMissing()
    age = now - int(match[2]) * 1000
    if age < -LEEWAY * 1000:
        return ApprovalMissing()
    if approval.lifetime is not None and age > approval.lifetime * 1000:
        return ApprovalMissing()
    return ApprovalDeclined() if match[1] == b"d" else None
