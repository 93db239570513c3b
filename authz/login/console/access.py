"""Who may use the console: log in, be judged at every request, log out.

Invariant: no page of the console but the one that leads to the log-in is shown, and nothing is
done, without a session that its rule admits at that very request (tests/login/console/
test_access.py).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.core.admin_pages import SESSION_COOKIE
from authz.core.browser_session import BrowserRule, BrowserSession
from authz.core.ledger import UnavailableError
from authz.core.limits import digest
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.core.second_factor import LEEWAY, Method
from authz.login.service import ports
from authz.login.web import error_pages
from authz.login.web.cookies import BrowserCookies, empty_purpose, read_cookies, read_form
from authz.login.web.error_pages import ErrorPage, ErrorResponder, PageError
from authz.login.web.rendering import Pages, redirect
from authz.login.web.requests import address_of
from authz.login.web.upstream_login import (
    BrowserLogins,
    IdentifiedPerson,
    IdentityLogin,
    login_kind,
    session_of_login,
)
from authz.server.browser_sessions import BrowserSessions

PATH: Final = "/authz/admin"

NOT_IN_GROUP: Final = ErrorPage(
    403,
    "This console is not for your account",
    "You are logged in, but in none of the groups that may use it. The people who run this gateway "
    "can change that.",
    "console: not in a group",
)
NO_SECOND_FACTOR: Final = ErrorPage(
    403,
    "You logged in without the second factor that this console asks for",
    "Log out at the log-in service, then open the console again and use your second factor: the "
    "one-time code, where only that is taken.",
    "console: no second factor",
)
REVOKED: Final = ErrorPage(
    403,
    "Your log-ins were revoked",
    "Nothing was done. Somebody else who runs this gateway can lift that; a new log-in helps only "
    "where it is said that new ones pass.",
    "console: revoked",
)
TOO_OLD: Final = ErrorPage(
    403,
    "Your log-in is too old for this",
    "Log out at the log-in service, then open the console again.",
    "console: log-in too old",
)
SESSION_OVER: Final = ErrorPage(
    403,
    "You are not logged in at the console any more",
    "Nothing was done. Open the console again and log in.",
    "console: no session",
)
_REFUSED: Final = {
    Reason.PERSON_NOT_ALLOWED: NOT_IN_GROUP,
    Reason.SECOND_FACTOR_REQUIRED: NO_SECOND_FACTOR,
    Reason.SESSION_REVOKED: REVOKED,
    Reason.SESSION_MISSING: SESSION_OVER,
    Reason.LOGIN_TOO_OLD: TOO_OLD,
}
# Lax, as of other pages: the browser comes back from the issuer, which is another site.
_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Lax"

_LOGIN: Final = login_kind("console", f"{PATH}/callback", lambda _: {"kept": {}}, lambda _: None)
_LOG_IN_FORM: Final = empty_purpose("console-log-in")
LOG_OUT_FORM: Final = empty_purpose("console-log-out")


@dataclass(frozen=True, slots=True)
class AdmittedPerson:
    """Who was let in, at one request.

    Attributes:
        session: of the browser.
        name: of that session, for forms that count in it alone; no secret.
    """

    session: BrowserSession
    name: str


Handler = Callable[[Request, AdmittedPerson], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """Hold what authz.yaml says of the console.

    Attributes:
        rule: who may use it.
        lifetime: seconds of one session, and the greatest age of the log-in that begins it.
    """

    rule: BrowserRule
    lifetime: int


class ConsoleAccess:
    """Let operators in."""

    def __init__(
        self,
        settings: ConsoleSettings,
        *,
        origin: str,
        sessions: BrowserSessions,
        logins: BrowserLogins,
        cookies: BrowserCookies,
        pages: Pages,
        errors: ErrorResponder,
        clock: Callable[[], float],
        log: ports.StepLog,
    ) -> None:
        """Take what authz.yaml says, the gateway's origin, and the parts.

        Raises:
            ValueError: for a rule that asks for no group or no second factor.
        """
        factor = settings.rule.second_factor
        if not settings.rule.groups or factor is None or factor.method == Method.NONE:
            raise ValueError("the console asks for a group and a second factor")
        self._settings = settings
        self._origin = origin
        self._url = origin + PATH
        self._sessions = sessions
        self._logins = logins
        self._login = IdentityLogin(logins, _LOGIN, two_factor=True, groups=True)
        self._cookies = cookies
        self._pages = pages
        self._errors = errors
        self._clock = clock
        self._log = log

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(f"{PATH}/log-in", self.log_in, methods=["POST"]),
            Route(_LOGIN.callback, self.callback, methods=["GET"]),
            Route(f"{PATH}/log-out", self.log_out, methods=["POST"]),
        ]

    def guard(
        self, handler: Handler, *, is_home: bool = False
    ) -> Callable[..., Awaitable[Response]]:
        """Return what answers a request for a page: the handler, for whom the rule lets in.

        Args:
            handler: shows a page or does something.
            is_home: whether who has no session is shown the way to the log-in there.
        """

        async def guarded(request: Request) -> Response:
            try:
                person = await self._judged(request)
            except RefusedError as refused:
                if refused.reason is Reason.SESSION_MISSING and request.method in {"GET", "HEAD"}:
                    return self._way_in(request) if is_home else redirect(self._url)
                raise PageError(_REFUSED.get(refused.reason, error_pages.BROKEN)) from refused
            return await handler(request, person)

        return guarded

    async def _judged(self, request: Request) -> AdmittedPerson:
        token = _token(request)
        found = await self._sessions.find(self._origin, token)
        session = await self._sessions.judge(
            found, self._origin, token, self._settings.rule, address_of(request)
        )
        return AdmittedPerson(session, digest("session", token))

    async def log_in(self, request: Request) -> Response:
        """Send the person to the issuer, after a click."""
        self._cookies.check_post(request, await read_form(request), _LOG_IN_FORM)
        return await self._login.begin(request, None, self._settings.lifetime)

    async def callback(self, request: Request) -> Response:
        """Take the issuer's response, and begin a session for whom the rule lets in."""
        try:
            found = await self._login.finish(request)
        except PageError as error:
            return self._errors.redirect_to_error(request, error.page)
        response = redirect(self._url)
        refused = await self._begin(request, response, found)
        if refused is not None:
            self._log("console", "refused", subject=found.identity.subject, detail=refused.note)
            response = self._errors.redirect_to_error(request, refused, log_out=True)
            response.background = found.revocation
            return response
        self._log("console", "logged_in", subject=found.identity.subject)
        self._cookies.end_login(request, response, found.state)
        return response

    async def _begin(
        self, request: Request, response: Response, found: IdentifiedPerson[None]
    ) -> ErrorPage | None:
        """Begin a session; return why there is none."""
        age = self._clock() - found.identity.auth_time
        if not -LEEWAY <= age <= self._settings.lifetime + LEEWAY:
            return TOO_OLD
        rule, now = self._settings.rule, int(self._clock())
        until = rule.ends(now, self._settings.lifetime, found.expires_at)
        session = session_of_login(found, now, until, two_factor=True)
        try:
            judged = await self._sessions.judge(
                session, self._origin, found.state, rule, address_of(request)
            )
            token = await self._sessions.begin(judged, self._origin, _token(request))
        except RefusedError as refused:
            return _REFUSED.get(refused.reason, error_pages.BROKEN)
        except UnavailableError:
            return error_pages.AWAY
        _set_cookie(response, token, until - now)
        return None

    async def log_out(self, request: Request) -> Response:
        """End the session of this browser, whoever is admitted and whether the issuer answers.

        Its token is revoked there afterwards: one try will do, it ends soon anyway.
        """
        self._cookies.check_post(request, await read_form(request), LOG_OUT_FORM)
        response, token = redirect(self._url), _token(request)
        _set_cookie(response, "", 0)
        try:
            session = await self._sessions.find(self._origin, token)
        except RefusedError:
            return response
        await self._sessions.end(self._origin, token)
        self._log("console", "logged_out", subject=session.subject)
        response.background = BackgroundTask(
            self._logins.revoke,
            session.token,
            address_of(request),
            two_factor=session.two_factor,
        )
        return response

    def _way_in(self, request: Request) -> Response:
        token, cookie = self._cookies.form_token(request, _LOG_IN_FORM, None)
        content = {"form_token": token}
        return self._pages.page("console/log_in.html", content, set_cookie=cookie, has_form=True)


def _token(request: Request) -> str:
    return read_cookies(request).get(SESSION_COOKIE, "")


def _set_cookie(response: Response, token: str, lifetime: int) -> None:
    cookie = f"{SESSION_COOKIE}={token}; Max-Age={lifetime}; {_ATTRIBUTES}"
    response.headers.append("set-cookie", cookie)
