"""Who is logged in in a browser, and what a page for people asks of that.

A log-in at Authelia is judged here for everything that a browser opens with one: the admin pages
behind the gateway (`core/admin_pages.py`) and pages of authz itself.

Invariant: one more demand never lets anybody through whom fewer demands refuse
(tests/core/test_browser_session.py).
"""

from dataclasses import dataclass

from authz.core.detail import Detail
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.core.second_factor import Evidence, Method, Proof, SecondFactor, proves, satisfies


@dataclass(frozen=True, slots=True)
class BrowserLogin:
    """Hold a log-in that a browser has a session of.

    Attributes:
        subject: the `sub` of the verified ID token.
        account: the person's user name.
        groups: the `groups` of the access token beside it.
        method: what its `amr` proves.
        auth_time: its `auth_time`, seconds since the epoch.
        began: when the session began, seconds since the epoch: revocations go by it.
        until: when it ends by itself, seconds since the epoch.
        name, email: of the person; empty where Authelia does not say.
    """

    subject: str
    account: str
    groups: frozenset[str]
    method: Method
    auth_time: int
    began: int
    until: int
    name: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True)
class BrowserRule:
    """Ask for groups (one of) and a second factor.

    Attributes:
        groups: the person must be in one of them; None where anybody may who can log in.
        second_factor: None where none is asked.
    """

    groups: frozenset[str] | None = None
    second_factor: SecondFactor | None = None


def check_login(rule: BrowserRule, login: BrowserLogin, now: float) -> None:
    """Refuse a log-in that does not fulfil a rule.

    Args:
        rule: what is asked.
        login: of a session.
        now: seconds since the epoch.

    Raises:
        RefusedError: SESSION_MISSING where it has ended; PERSON_NOT_ALLOWED; and what a log-in
            of now could prove: SECOND_FACTOR_REQUIRED or LOGIN_TOO_OLD.
    """
    if not now < login.until:
        raise RefusedError(Reason.SESSION_MISSING, Detail.SESSION_ENDED)
    if rule.groups is not None and rule.groups.isdisjoint(login.groups):
        raise RefusedError(Reason.PERSON_NOT_ALLOWED, Detail.IN_NO_GROUP)
    factor = rule.second_factor
    if factor is None:
        return
    proof = Proof(Evidence.LOGIN, login.method, login.auth_time)
    if satisfies(factor, proof, now):
        return
    if proves(factor, proof):
        raise RefusedError(Reason.LOGIN_TOO_OLD, second_factor=factor)
    raise RefusedError(Reason.SECOND_FACTOR_REQUIRED, second_factor=factor)
