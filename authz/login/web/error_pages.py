"""Pages that say why something did not work: what happened, and what the person can do.

Invariant: a page's sentences are ours; of what a caller sent none holds more than an OAuth error
and the name that rules give its client.
"""

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, Final
from urllib.parse import urlencode

from pydantic import ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.login.clients.lookup import DocumentError
from authz.login.protocol.members import STRICT
from authz.login.protocol.parameters import read_parameters
from authz.login.protocol.values import OAuthError
from authz.login.web.cookies import BrowserCookies, LoginEnd, NotThisBrowserError, purpose
from authz.login.web.rendering import Pages, redirect, request_id

PATH: Final = "/authz/problem"
_UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """Say why something did not work.

    Attributes:
        status: of HTTP.
        happened, do: as `Pages.error`.
        note: for the log; `happened` where it is empty.
    """

    status: int
    happened: str
    do: str
    note: str = ""


class PageError(Exception):
    """Carry an error page to whoever shows it."""

    def __init__(self, page: ErrorPage) -> None:
        """Keep it."""
        super().__init__(page.note or page.happened)
        self.page = page


_CLIENT: Final = (
    "Nothing was allowed. Remove the connection from your assistant and add it again; if it stays, "
    "tell the people who run this gateway."
)
_BY_OPERATOR: Final = (
    "Nothing was allowed, and to connect again changes nothing. The people who run this gateway "
    "can allow it: tell them what stands above."
)

# --- of requests ------------------------------------------------------------------------------

BAD_REQUEST: Final = ErrorPage(
    400, "This log-in request cannot be read", _CLIENT, "malformed authorization request"
)
UNKNOWN_CLIENT: Final = ErrorPage(
    400, "The application that sent you here is not known", _CLIENT, "unknown client"
)
WRONG_REDIRECT: Final = ErrorPage(
    400,
    "The application wants the log-in to end at an address that is not its own",
    "Nothing was allowed. If you did not begin this yourself, somebody may be trying to trick you: "
    "close this page.",
    "redirect_uri is not registered",
)
BLOCKED: Final = ErrorPage(
    403,
    "The application that sent you here was blocked",
    "Nothing was allowed. The people who run this gateway can tell you why.",
    "client is blocked",
)
TOO_LARGE: Final = ErrorPage(
    400, "The application asks for too much at once", _CLIENT, "transaction too large"
)
TOO_MANY: Final = ErrorPage(
    429,
    "There were too many log-ins from your network in a short time",
    "Wait a minute, then begin again where you came from.",
    "too many requests of this address",
)
NO_ADDRESS: Final = ErrorPage(
    400,
    "This page is only reached through the gateway",
    "Open it under the gateway's own address.",
    "no address of the person",
)
NOT_FOUND: Final = ErrorPage(
    404, "There is no such page", "Begin where you came from.", "no such page"
)
NOT_THIS_WAY: Final = ErrorPage(
    405, "This page is not used this way", "Begin where you came from.", "method not allowed"
)
BROKEN: Final = ErrorPage(
    500,
    "Something went wrong here",
    "Nothing was allowed. Try again; if it stays, tell the people who run this gateway.",
    "crash",
)
AWAY: Final = ErrorPage(
    503,
    "Something that this gateway needs does not answer",
    "Nothing was done. Try again in a minute; if it stays, tell the people who run this gateway.",
    "unavailable",
)

# --- of log-ins at Authelia --------------------------------------------------------------------

NOT_THIS_BROWSER: Final = ErrorPage(
    403,
    "This does not belong to anything that you began in this browser",
    "Nothing was done. Begin again where you came from, and stay in one browser; a page waits ten "
    "minutes at most.",
    "not this browser",
)
USED: Final = ErrorPage(
    403,
    "This answer was used already",
    "Nothing was done this time. If you came here with the back button, just close the page.",
    "state used before",
)
# The same, where this browser remembers it.
SPENT: Final = replace(USED, note="answer loaded again")
CROWDED: Final = ErrorPage(
    403,
    "This log-in made room for newer ones",
    "Nothing was done: too many log-ins were begun at once in this browser, and this was the "
    "oldest. Begin it again where you came from.",
    "transaction made room for newer ones",
)
MALFORMED_ANSWER: Final = ErrorPage(
    400,
    "This is not a whole answer of the log-in service",
    "Nothing was done. Begin again where you came from.",
    "malformed callback",
)
FOREIGN: Final = ErrorPage(
    403,
    "This is not the answer of the right log-in service",
    "Nothing was done. Begin again where you came from.",
    "iss of somebody else",
)
DENIED: Final = ErrorPage(
    403,
    "You did not log in",
    "Nothing was done. Begin again when you want to; if you may not use this, the people who run "
    "this gateway can tell you.",
    "access_denied",
)
REFUSED: Final = ErrorPage(
    502,
    "The log-in service did not accept this gateway's request",
    "Nothing was done. Try again once; if it stays, tell the people who run this gateway.",
    "Authelia refused",
)
GONE: Final = ErrorPage(
    404, "There is nothing here any more", "You can close this page.", "no problem to tell"
)
# What leaves a log-in pending, since the true answer may still come, or is of no log-in that is.
_IN_PLACE: Final = (NOT_THIS_BROWSER, SPENT, FOREIGN, MALFORMED_ANSWER)


def not_pending(end: LoginEnd | None) -> ErrorPage:
    """Return why a log-in is not pending in this browser."""
    return {None: NOT_THIS_BROWSER, LoginEnd.USED: SPENT, LoginEnd.CROWDED: CROWDED}[end]


def not_granted(error: str, description: str) -> ErrorPage:
    """Return the page of an error that is not sent to a client that nobody knows."""
    return ErrorPage(
        400,
        f"The application asks for what it cannot have: {description} ({error})",
        _BY_OPERATOR if error == "invalid_scope" else _CLIENT,
        error,
    )


def no_document(found: DocumentError) -> ErrorPage:
    """Return the page of a client whose metadata document is of no use, with the reason."""
    if found.fault.passing:
        return ErrorPage(
            503,
            "What the application says of itself cannot be fetched at the moment",
            f"It is described by a document on the Internet, and {found.description}. Nothing was "
            "allowed. Try again in a minute. If it is so with every application, the gateway has "
            "no way out to the Internet: tell the people who run it.",
            f"document: {found.fault.value}",
        )
    return ErrorPage(
        400,
        "What the application says of itself cannot be used",
        f"It is described by a document on the Internet, and this is wrong with that: "
        f"{found.description}. Nothing was allowed. Tell the people who make the application, or "
        "who run this gateway.",
        f"document: {found.fault.value}",
    )


@dataclass(frozen=True, slots=True)
class _KeptError:
    """An error page as a cookie holds it until the browser comes for it."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    status: int
    happened: str
    do: str
    request_id: str
    link: Sequence[str] | None


_KEPT: Final = purpose("problem", _KeptError, is_page=True)


class ErrorResponder:
    """Answer browsers with error pages."""

    def __init__(
        self,
        origin: str,
        cookies: BrowserCookies,
        pages: Pages,
        log_out_url: Callable[[str], str],
        note: Callable[[str, str], None],
    ) -> None:
        """Take the parts.

        Args:
            origin: the gateway's, as browsers send it.
            cookies: what browsers keep.
            pages: what renders.
            log_out_url: returns where a session at Authelia ends, to come back to a URL.
            note: is called with the request's id and a fixed text of what went wrong.
        """
        self._origin = origin
        self._cookies = cookies
        self._pages = pages
        self._log_out_url = log_out_url
        self._note = note

    def show(self, request: Request, page: ErrorPage) -> Response:
        """Return an error page."""
        self._note(request_id(request), page.note or page.happened)
        response = self._pages.error(page.status, page.happened, page.do, request_id(request))
        if page.status == _UNAVAILABLE:
            response.headers["Retry-After"] = "30"
        return response

    def redirect_to_error(
        self, request: Request, page: ErrorPage, *, log_out: bool = False
    ) -> Response:
        """Send the browser from a callback to a clean address that shows an error page.

        A page at the callback's own address would leave a code and a state in the browser's
        history. What never was this browser's own is shown in place: it is nobody's secret here. So
        is what it loads again, whose code is spent, and what may still be answered truly.
        """
        if page in _IN_PLACE:
            return self.show(request, page)
        self._note(request_id(request), page.note or page.happened)
        key = secrets.token_urlsafe(32)
        url = f"{self._origin}{PATH}?{urlencode({'of': key})}"
        link = (self._log_out_url(url), "Log out there") if log_out else None
        kept = _KeptError(page.status, page.happened, page.do, request_id(request), link)
        response = redirect(url)
        self._cookies.keep(request, response, key, _KEPT, kept)
        with suppress(OAuthError):
            parameters = read_parameters(request.scope["query_string"].decode("latin-1"))
            self._cookies.end_login(request, response, parameters.once("state") or "")
        return response

    def route(self) -> Route:
        """Return the route that `redirect_to_error` leads to."""
        return Route(PATH, self._show_kept, methods=["GET"])

    async def _show_kept(self, request: Request) -> Response:
        try:
            kept = self._cookies.read(request, request.query_params.get("of", ""), _KEPT)
        except NotThisBrowserError:
            return self.show(request, GONE)
        link = None if kept.link is None else (kept.link[0], kept.link[1])
        return self._pages.error(kept.status, kept.happened, kept.do, kept.request_id, link)
