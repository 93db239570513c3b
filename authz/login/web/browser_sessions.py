"""Browser sessions for whom a rule lets in: by groups and second factor, judged at every request.

Invariant: nobody is admitted by a session that has ended or is revoked, that lacks the second
factor of the rule, or whose person is in none of the rule's groups by what the issuer says at this
request; where the issuer or Redis does not answer, nobody is (tests/login/console/
test_access.py). A token of an MCP client is no session.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from authz.core.browser_session import BrowserLogin, BrowserRule, check_login
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.core.second_factor import Method, methods
from authz.login.protocol.members import digest
from authz.login.store.browser_sessions import BrowserSession
from authz.login.upstream.userinfo import TokenEndedError
from authz.login.web.client_description import shown
from authz.login.web.cookies import read_cookies
from authz.login.web.requests import address_of
from authz.login.web.upstream_login import IdentifiedPerson

T = TypeVar("T")
COOKIE: Final = "__Host-authz-session"
# Lax, as of other pages: the browser comes back from the issuer, which is another site.
_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Lax"
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")


class SessionRefusal(Enum):
    """Say why a request is let in by no session."""

    NO_SESSION = "no_session"  # there is none, or it has ended
    REVOKED = "revoked"
    NO_SECOND_FACTOR = "no_second_factor"
    TOO_OLD = "too_old"
    NOT_IN_GROUP = "not_in_group"


_REFUSED: Final = {
    Reason.SESSION_MISSING: SessionRefusal.NO_SESSION,
    Reason.PERSON_NOT_ALLOWED: SessionRefusal.NOT_IN_GROUP,
    Reason.SECOND_FACTOR_REQUIRED: SessionRefusal.NO_SECOND_FACTOR,
    Reason.LOGIN_TOO_OLD: SessionRefusal.TOO_OLD,
}


@dataclass(frozen=True, slots=True)
class AdmittedPerson:
    """Who was let in, at one request.

    Attributes:
        session: of the browser.
        name: of that session, for forms that count in it alone; no secret.
        groups: which the issuer says the person is in.
    """

    session: BrowserSession
    name: str
    groups: frozenset[str]


class SessionStore(Protocol):
    """Where sessions are (`store.browser_sessions`); every method may raise UnavailableError."""

    async def put(self, secret: str, session: BrowserSession) -> None:
        """Keep a session until its end."""

    async def find(self, secret: str) -> BrowserSession | None:
        """Return the session of a secret."""
        ...

    async def is_revoked(self, session: BrowserSession) -> bool:
        """Tell whether its person, or everything, is revoked."""
        ...

    async def end(self, secret: str) -> None:
        """End a session."""


class GroupSource(Protocol):
    """Who knows groups (`upstream.userinfo.UserInfo`)."""

    async def groups(self, token: str, subject: str, address: str) -> frozenset[str]:
        """Return the groups of a person now, or raise TokenEndedError or UnavailableError."""
        ...


class BrowserSessions:
    """Begin, judge and end the sessions of browsers."""

    def __init__(
        self, store: SessionStore, source: GroupSource, clock: Callable[[], float]
    ) -> None:
        """Take where sessions are, who knows groups, and seconds since the epoch."""
        self._store = store
        self._source = source
        self._clock = clock

    async def judge(self, request: Request, rule: BrowserRule) -> AdmittedPerson | SessionRefusal:
        """Return who is let in by a rule, or why nobody is.

        Raises:
            UnavailableError: where Redis or the issuer does not answer.
            PageError: where Envoy did not write the person's address.
        """
        secret = _secret(request)
        session = None if secret is None else await self._store.find(secret)
        if secret is None or session is None or self._clock() >= session.until:
            return SessionRefusal.NO_SESSION
        return await self._judge(request, session, secret, rule)

    async def begin(
        self,
        request: Request,
        response: Response,
        person: IdentifiedPerson[T],
        rule: BrowserRule,
        lifetime: int,
    ) -> AdmittedPerson | SessionRefusal:
        """Give a browser a session, where the rule lets its person in.

        Args:
            request: of the browser that has just finished a log-in with the scope `groups`.
            response: to it; gets the cookie.
            person: who logged in. Its token is not to be revoked where a session begins.
            rule: who is let in.
            lifetime: seconds, at most those of the token.

        Raises:
            UnavailableError: where Redis or the issuer does not answer.
        """
        identity, now = person.identity, int(self._clock())
        session = BrowserSession(
            subject=identity.subject,
            account=shown(identity.account),
            method=int(methods(identity.amr)),
            auth_time=identity.auth_time,
            began=now,
            until=min(now + lifetime, person.expires_at),
            token=person.access_token,
        )
        secret = secrets.token_urlsafe(32)  # never one that the browser had before
        judged = await self._judge(request, session, secret, rule)
        if isinstance(judged, AdmittedPerson):
            former = _secret(request)
            if former is not None:
                await self._store.end(former)
            await self._store.put(secret, session)
            response.headers.append(
                "set-cookie", f"{COOKIE}={secret}; Max-Age={session.until - now}; {_ATTRIBUTES}"
            )
        return judged

    async def end(self, request: Request, response: Response) -> None:
        """End the session of a browser, for good."""
        secret = _secret(request)
        if secret is not None:
            await self._store.end(secret)
        response.headers.append("set-cookie", f"{COOKIE}=; Max-Age=0; {_ATTRIBUTES}")

    async def _judge(
        self, request: Request, session: BrowserSession, secret: str, rule: BrowserRule
    ) -> AdmittedPerson | SessionRefusal:
        if await self._store.is_revoked(session):
            return SessionRefusal.REVOKED
        try:
            groups = await self._source.groups(session.token, session.subject, address_of(request))
        except TokenEndedError:
            # Asked again and again, the issuer would lock the person's address.
            await self._store.end(secret)
            return SessionRefusal.NO_SESSION
        login = BrowserLogin(
            session.subject,
            session.account,
            groups,
            Method(session.method),
            session.auth_time,
            session.began,
            session.until,
        )
        try:
            check_login(rule, login, self._clock())
        except RefusedError as refused:
            return _REFUSED[refused.reason]
        return AdmittedPerson(session, session_name(secret), groups)


def session_name(secret: str) -> str:
    """Return what names a session without being it."""
    return digest(f"session {secret}")[:32]


def _secret(request: Request) -> str | None:
    found = read_cookies(request).get(COOKIE, "")
    return found if _SECRET.match(found) else None
