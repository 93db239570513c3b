"""When a browser's session counts: for admin pages (`core/admin_pages.py`) and for the console.

    check_live      has it begun, and not ended?      BrowserSession
    session_query   what revokes it                    BrowserSession → Query for the ledger
    admit           revoked? groups? second factor?    BrowserRule, BrowserSession, LedgerAnswer

Invariant: one more demand never lets anybody through whom fewer demands refuse; no session counts
that has ended, that the ledger does not call free of revocations, or whose groups were confirmed
longer ago than the rule allows (tests/core/test_browser_session.py).
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from authz.core.detail import Detail
from authz.core.ledger import LedgerAnswer, Query, Revoked, Taken, UnavailableError
from authz.core.limits import digest
from authz.core.principal import Client, Person
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.core.second_factor import (
    LEEWAY,
    Evidence,
    Method,
    Proof,
    SecondFactor,
    proves,
    satisfies,
)

# What revocations of a client name: all sessions of browsers together.
CLIENT_ID: Final = "authz-pages"
_ASKED_WITHIN: Final = 10.0  # seconds from a question to the issuer to the end of its request


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """Hold a log-in that a browser has a session of.

    Attributes:
        subject: the `sub` of the verified ID token.
        account: the person's user name.
        groups: which the issuer says the person is in.
        method: what the `amr` of the log-in proves.
        auth_time: its `auth_time`, seconds since the epoch.
        began, until: its first second, and the one in which it ends by itself.
        groups_at: when the issuer said so of the groups, seconds since the epoch.
        token: the access token by which the issuer is asked about the person.
        token_until: when that token ends, seconds since the epoch.
        two_factor: whether the token is of our client that asks for a second factor.
        name, email: of the person; empty where Authelia does not say.
    """

    subject: str
    account: str
    groups: frozenset[str]
    method: Method
    auth_time: int
    began: int
    until: int
    groups_at: int
    token: str = field(repr=False)
    token_until: int
    two_factor: bool
    name: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True)
class BrowserRule:
    """Ask for groups (one of) and a second factor.

    Attributes:
        groups: the person must be in one of them; None where anybody may who can log in.
        second_factor: None where none is asked.
        groups_max_age: seconds after which the issuer has to have confirmed the groups again; 0
            for every request.
    """

    groups: frozenset[str] | None = None
    second_factor: SecondFactor | None = None
    groups_max_age: float = 0.0

    def ends(self, began: int, lifetime: int, token_until: int) -> int:
        """Return when a session that begins now ends: nobody can confirm it without its token."""
        return min(began + lifetime, token_until + int(self.groups_max_age))


class GroupAge(Enum):
    """Say whether the groups of a session can be gone by."""

    FRESH = "fresh"
    AGING = "aging"  # they count, and are to be confirmed before they do not
    STALE = "stale"


def group_age(rule: BrowserRule, session: BrowserSession, now: float) -> GroupAge:
    """Tell whether the groups of a session were confirmed lately enough for a rule.

    What was confirmed in the future, by a clock that was put back since, is stale.
    """
    age = now - session.groups_at
    if rule.groups_max_age <= 0 or not -LEEWAY <= age < rule.groups_max_age:
        return GroupAge.STALE
    return GroupAge.FRESH if age < rule.groups_max_age / 2 else GroupAge.AGING


def check_live(session: BrowserSession, now: float) -> None:
    """Refuse a session that has ended, or has not begun by this clock.

    Raises:
        RefusedError: SESSION_MISSING.
    """
    if not session.began - LEEWAY <= now < session.until:
        raise RefusedError(Reason.SESSION_MISSING, Detail.SESSION_ENDED)


def session_query(session: BrowserSession, issuer: str, name: str) -> Query:
    """Return what the ledger is asked about a session.

    A revocation of what was issued up to a moment takes the log-ins of that time along, so that a
    new session of an old log-in is none.

    Args:
        session: the session.
        issuer: the configured one.
        name: what names the session, without being its secret.
    """
    return Query(
        token_id=digest("browser-session", name),
        person=Person(issuer, session.subject),
        client=Client(issuer, CLIENT_ID),
        issued_at=min(session.began, session.auth_time),
        step_up_key=None,
        step_up=None,
        takes=(),
    )


def check_revoked(answer: LedgerAnswer) -> None:
    """Refuse a session that the ledger does not call free of revocations.

    Raises:
        RefusedError: SESSION_REVOKED; INTERNAL for an answer to another question.
    """
    if isinstance(answer, Revoked):
        raise RefusedError(Reason.SESSION_REVOKED)
    if not isinstance(answer, Taken):
        raise RefusedError(Reason.INTERNAL, Detail.UNKNOWN_LEDGER_ANSWER)


def admit(rule: BrowserRule, session: BrowserSession, answer: LedgerAnswer, now: float) -> None:
    """Refuse a session that a rule does not let in at this moment.

    Args:
        rule: what is asked.
        session: with groups that are not stale, or were confirmed for this request.
        answer: of the ledger to its `session_query`.
        now: seconds since the epoch.

    Raises:
        RefusedError: SESSION_MISSING where it has ended; SESSION_REVOKED; PERSON_NOT_ALLOWED; what
            a log-in of now could prove: SECOND_FACTOR_REQUIRED or LOGIN_TOO_OLD; INTERNAL for an
            answer to another question.
        UnavailableError: where the groups were not confirmed lately enough.
    """
    check_live(session, now)
    check_revoked(answer)
    if not -LEEWAY <= now - session.groups_at <= rule.groups_max_age + _ASKED_WITHIN:
        raise UnavailableError("issuer", "groups: not confirmed lately enough")
    if rule.groups is not None and rule.groups.isdisjoint(session.groups):
        raise RefusedError(Reason.PERSON_NOT_ALLOWED, Detail.IN_NO_GROUP)
    factor = rule.second_factor
    if factor is None:
        return
    proof = Proof(Evidence.LOGIN, session.method, session.auth_time)
    if satisfies(factor, proof, now):
        return
    if proves(factor, proof):
        raise RefusedError(Reason.LOGIN_TOO_OLD, second_factor=factor)
    raise RefusedError(Reason.SECOND_FACTOR_REQUIRED, second_factor=factor)
