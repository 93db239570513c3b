"""Log people in for admin pages: at the gateway, for a session on the page's own host.

    page's host   no session: the check answers with a ticket and a cookie of that host
    gateway       GET ?ticket=… → a click → Authelia → callback: a code, for a minute, once
    page's host   GET session?code=… in the browser of that cookie → a session, and back to the page

Invariant: a session is opened only on the host and in the browser that the log-in was begun for, by
a log-in that fulfils the page's rule; a browser is sent to the page's own origin and nowhere else
(tests/login/web/test_admin_pages.py).
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from pydantic import ConfigDict
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.core.admin_pages import BROWSER_COOKIE, LOG_OUT, OPEN_SESSION, SESSION_COOKIE, AdminPage
from authz.core.browser_session import BrowserSession
from authz.core.ledger import UnavailableError
from authz.core.limits import digest
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.core.second_factor import Method, StepUpNeed
from authz.login.protocol.members import STRICT, MembersCodec
from authz.login.service import ports
from authz.login.store.page_codes import PageHandover
from authz.login.web import error_pages
from authz.login.web.client_description import shown
from authz.login.web.cookies import (
    BrowserCookies,
    empty_purpose,
    purpose,
    read_cookies,
    read_form,
)
from authz.login.web.error_pages import ErrorPage, ErrorResponder, PageError
from authz.login.web.rendering import Pages, redirect
from authz.login.web.requests import address_of
from authz.login.web.step_up import asked_age
from authz.login.web.upstream_login import (
    BrowserLogins,
    IdentifiedPerson,
    IdentityLogin,
    login_kind,
    session_of_login,
)
from authz.server.browser_sessions import BrowserSessions
from authz.tokens.page_tickets import PageTicket, open_page_ticket
from authz.tokens.sealing import NotSealedError, Sealer

PATH: Final = "/authz/page"
_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Lax"

NO_TICKET: Final = ErrorPage(
    403,
    "This link has ended",
    "A link to log in for a page is good for ten minutes. Open the page itself again.",
    "no page ticket",
)
NOT_IN_GROUP: Final = ErrorPage(
    403,
    "You are not in a group that may open this page",
    "Nothing was opened. The people who run this gateway can put you into one, or you can log out "
    "at the log-in service and open the page again with another account.",
    "not in a group of the page",
)
NO_FACTOR: Final = ErrorPage(
    403,
    "You logged in without the second factor that this page asks for",
    "Nothing was opened. Set the second factor up at the log-in service if you have none; where it "
    "is a one-time code, log out there first and choose that. Then open the page again.",
    "no second factor for the page",
)
TOO_OLD: Final = ErrorPage(
    403,
    "Your log-in is too old for this page",
    "Nothing was opened. Log out at the log-in service, then open the page again.",
    "log-in too old for the page",
)
NO_ACCOUNT: Final = ErrorPage(
    502,
    "The log-in service does not say who you are",
    "Nothing was opened. The people who run this gateway can let it: `authz authelia-config` "
    "prints what is missing there.",
    "no preferred_username",
)
REVOKED: Final = ErrorPage(
    403,
    "Your log-ins were revoked",
    "Nothing was opened. Where only earlier log-ins were revoked, log out at the log-in service, "
    "then open the page again; the people who run this gateway can lift any other.",
    "page: revoked",
)
_LACKS: Final[Mapping[Reason, ErrorPage]] = {
    Reason.SESSION_REVOKED: REVOKED,
    Reason.PERSON_NOT_ALLOWED: NOT_IN_GROUP,
    Reason.SECOND_FACTOR_REQUIRED: NO_FACTOR,
    Reason.LOGIN_TOO_OLD: TOO_OLD,
}


class Handovers(Protocol):
    """Where codes are kept (`authz.login.store.page_codes.PageCodes`)."""

    async def issue(self, code: str, handover: PageHandover) -> None:
        """Keep what a code stands for, or raise UnavailableError."""

    async def take(self, code: str) -> PageHandover | None:
        """Return what a code stands for, once, or raise UnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class _PageForm:
    """The ticket of the link, as the form of its page is about it."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    ticket: str


@dataclass(frozen=True, slots=True)
class _PageContext:
    """The ticket's members, as the browser keeps them during the log-in."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    page: str
    path: str
    browser: str


_CONTEXT: Final = MembersCodec(_PageContext)
_TWO_FACTOR: Final = login_kind("page", f"{PATH}/callback", _CONTEXT.write, _CONTEXT.read)
_ONE_FACTOR: Final = login_kind(
    "page-one-factor", f"{PATH}/one-factor/callback", _CONTEXT.write, _CONTEXT.read
)
_START_FORM: Final = purpose("page", _PageForm)
_LOG_OUT_FORM: Final = empty_purpose("page-log-out")


class AdminPageEndpoints:
    """Begin and end the sessions of admin pages."""

    def __init__(
        self,
        *,
        admin_pages: Mapping[str, AdminPage],
        issuer: str,
        logins: BrowserLogins,
        cookies: BrowserCookies,
        pages: Pages,
        errors: ErrorResponder,
        sealer: Sealer,
        codes: Handovers,
        sessions: BrowserSessions,
        lifetime: int,
        log_out_url: Callable[[str], str],
        clock: Callable[[], float],
        log: ports.StepLog = lambda *_, **__: None,
    ) -> None:
        """Take the parts.

        Args:
            admin_pages: by name.
            issuer: the issuer's URL.
            logins: sends browsers to Authelia.
            cookies: what browsers keep at the gateway.
            pages: what renders.
            errors: shows error pages.
            sealer: opens tickets, and seals forms.
            codes: between the two hosts.
            sessions: judges, begins and ends sessions.
            lifetime: of a session, seconds.
            log_out_url: returns where a session at Authelia ends, to come back to a URL.
            clock: seconds since the epoch.
            log: of steps and their outcomes.
        """
        self._admin_pages = admin_pages
        self._logins = logins
        self._two_factor = IdentityLogin(logins, _TWO_FACTOR, two_factor=True, groups=True)
        self._one_factor = IdentityLogin(logins, _ONE_FACTOR, two_factor=False, groups=True)
        self._cookies = cookies
        self._pages = pages
        self._errors = errors
        self._sealer = sealer
        self._codes = codes
        self._sessions = sessions
        self._lifetime = lifetime
        self._log_out_url = log_out_url
        self._clock = clock
        self._log = log
        # By host, as Envoy says it: of several pages on one, any will do.
        origins = dict.fromkeys(page.origin for page in admin_pages.values())
        self._hosts = {
            origin.partition("//")[2]: _PageHost(
                origin, BrowserCookies(sealer, origin), Pages(origin, issuer)
            )
            for origin in origins
        }

    def routes(self) -> Sequence[Route]:
        """Return the routes."""
        return [
            Route(PATH, self.start, methods=["GET"]),
            Route(PATH, self.begin, methods=["POST"]),
            Route(_TWO_FACTOR.callback, self.two_factor_callback, methods=["GET"]),
            Route(_ONE_FACTOR.callback, self.one_factor_callback, methods=["GET"]),
            Route(OPEN_SESSION, self.open_session, methods=["GET"]),
            Route(LOG_OUT, self.ask_log_out, methods=["GET"]),
            Route(LOG_OUT, self.log_out, methods=["POST"]),
        ]

    # --- at the gateway -------------------------------------------------------------------------

    async def start(self, request: Request) -> Response:
        """Show what a log-in is for, and wait for a click."""
        text = request.query_params.get("ticket", "")
        _, page = self._ticket(text)
        token, cookie = self._cookies.form_token(request, _START_FORM, _PageForm(text))
        factor = page.rule.second_factor
        content = {
            "name": page.name,
            "host": page.origin.partition("//")[2],
            "factor": factor is not None,
            "totp": factor is not None and Method.OTP in factor.method,
            "form_token": token,
        }
        return self._pages.page("page_log_in.html", content, set_cookie=cookie, has_form=True)

    async def begin(self, request: Request) -> Response:
        """Send the person to Authelia, after a click."""
        form = self._cookies.check_post(request, await read_form(request), _START_FORM)
        ticket, page = self._ticket(form.ticket)
        factor = page.rule.second_factor
        context = _PageContext(ticket.page, ticket.path, ticket.browser)
        if factor is None:
            return await self._one_factor.begin(request, context)
        age = asked_age(StepUpNeed(factor.method, factor.max_login_age))
        return await self._two_factor.begin(request, context, age)

    async def two_factor_callback(self, request: Request) -> Response:
        """Take Authelia's response."""
        return await self._callback(request, self._two_factor)

    async def one_factor_callback(self, request: Request) -> Response:
        """Take Authelia's response to a log-in by password."""
        return await self._callback(request, self._one_factor)

    async def _callback(self, request: Request, login: IdentityLogin[_PageContext]) -> Response:
        """Judge a log-in; send the browser to the page's host with a code."""
        try:
            found = await login.finish(request)
        except PageError as error:
            return self._errors.redirect_to_error(request, error.page)
        context, subject = found.context, found.identity.subject
        try:
            page = self._page(context.page)
            who = await self._session(request, found, page, two_factor=login is self._two_factor)
            code = secrets.token_urlsafe(32)
            path = page.return_path(context.path)
            await self._codes.issue(code, PageHandover(page.origin, path, context.browser, who))
        except (PageError, UnavailableError) as error:
            shown_page = error.page if isinstance(error, PageError) else error_pages.AWAY
            self._log("page", "refused", detail=shown_page.note, subject=subject)
            response = self._errors.redirect_to_error(request, shown_page, log_out=True)
            response.background = found.revocation
            return response
        response = redirect(f"{page.origin}{OPEN_SESSION}?code={code}")
        self._cookies.end_login(request, response, found.state)
        self._log("page", "ok", detail=page.name, subject=subject)
        return response

    async def _session(
        self,
        request: Request,
        found: IdentifiedPerson[_PageContext],
        page: AdminPage,
        *,
        two_factor: bool,
    ) -> BrowserSession:
        """Return the session of a log-in that fulfils a page's rule.

        Raises:
            PageError: where it does not.
            UnavailableError: where Redis does not answer.
        """
        if not found.identity.account:
            raise PageError(NO_ACCOUNT)
        now = int(self._clock())
        until = page.rule.ends(now, self._lifetime, found.expires_at)
        session = session_of_login(found, now, until, two_factor=two_factor)
        try:
            return await self._sessions.judge(
                session, page.origin, found.state, page.rule, address_of(request)
            )
        except RefusedError as refused:
            raise PageError(_LACKS.get(refused.reason, error_pages.BROKEN)) from refused

    def _ticket(self, text: str) -> tuple[PageTicket, AdminPage]:
        try:
            ticket = open_page_ticket(self._sealer, text)
        except NotSealedError as error:
            raise PageError(NO_TICKET) from error
        return ticket, self._page(ticket.page)

    def _page(self, name: str) -> AdminPage:
        page = self._admin_pages.get(name)
        if page is None:
            raise PageError(NO_TICKET)
        return page

    # --- on the page's own host -----------------------------------------------------------------

    async def open_session(self, request: Request) -> Response:
        """Open a session for the browser that a code was made for."""
        host, browser = self._host(request), read_cookies(request).get(BROWSER_COOKIE, "")
        handover = await self._codes.take(request.query_params.get("code", ""))
        if (
            handover is None
            or handover.origin != host.origin
            or not secrets.compare_digest(handover.browser, digest(browser))
        ):
            raise PageError(error_pages.NOT_THIS_BROWSER)
        session, former = handover.session, read_cookies(request).get(SESSION_COOKIE)
        token = await self._sessions.begin(session, host.origin, former)
        response = redirect(host.origin + handover.path)
        _set(response, SESSION_COOKIE, token, max(1, session.until - int(self._clock())))
        _set(response, BROWSER_COOKIE, "", 0)
        return response

    async def ask_log_out(self, request: Request) -> Response:
        """Show a page with the button that ends the session."""
        host = self._host(request)
        token, cookie = host.cookies.form_token(request, _LOG_OUT_FORM, None)
        content = {"host": host.name, "form_token": token}
        return host.pages.page("page_log_out.html", content, set_cookie=cookie, has_form=True)

    async def log_out(self, request: Request) -> Response:
        """End the session, at once; and its token at Authelia, which need not answer."""
        host = self._host(request)
        host.cookies.check_post(request, await read_form(request), _LOG_OUT_FORM)
        token = read_cookies(request).get(SESSION_COOKIE, "")
        session: BrowserSession | None = None
        with suppress(RefusedError):
            session = await self._sessions.find(host.origin, token)
        await self._sessions.end(host.origin, token)
        content = {"host": host.name, "log_out": self._log_out_url(f"{host.origin}/")}
        response = host.pages.page("page_logged_out.html", content)
        _set(response, SESSION_COOKIE, "", 0)
        if session is not None:
            response.background = BackgroundTask(
                self._logins.revoke,
                session.token,
                address_of(request),
                two_factor=session.two_factor,
            )
        self._log("page", "ended", detail=host.name)
        return response

    def _host(self, request: Request) -> "_PageHost":
        """Return the host of pages that Envoy says a request is for.

        Raises:
            PageError: where it is the gateway's, or anything else.
        """
        said = request.headers.getlist("x-forwarded-host")
        host = self._hosts.get(said[0]) if len(said) == 1 else None
        if host is None:
            raise PageError(error_pages.NOT_FOUND)
        return host


@dataclass(frozen=True, slots=True)
class _PageHost:
    """A host of pages, with forms and cookies of its own."""

    origin: str
    cookies: BrowserCookies
    pages: Pages

    @property
    def name(self) -> str:
        """Return it as people know it."""
        return shown(self.origin.partition("//")[2])


def _set(response: Response, name: str, value: str, lifetime: int) -> None:
    response.headers.append("set-cookie", f"{name}={value}; Max-Age={lifetime}; {_ATTRIBUTES}")
