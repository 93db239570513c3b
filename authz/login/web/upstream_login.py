"""Visits to Authelia that only tell who somebody is: for a step-up, and for one's own log-ins.

Law: a visit begins with a click on our own page, ends once, in the browser that began it, with
Authelia's answer to this very request; its tokens go no further than their ID token.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.core.ledger import UnavailableError
from authz.login.protocol.values import LoginIdentity, UpstreamAuthorizationRequest, UpstreamError
from authz.login.service import ports
from authz.login.web.cookies import BrowserCookies, LoginEnd, NotThisBrowserError
from authz.login.web.rendering import Pages, redirect, request_id

_SCOPES: Final = frozenset({"openid", "profile"})
_STATE: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
PROBLEM: Final = "/authz/problem"
_ASIDE: Final = "problem"
_PARAMETERS: Final = ("code", "error", "iss", "state")


class Upstream(ports.Upstream, Protocol):
    """Authelia, as visits need it (`authz.login.upstream.client.Authelia`)."""

    def log_out_url(self, back: str) -> str:
        """Return where a session at Authelia ends."""
        ...


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """Say why something did not work, in sentences of ours.

    Attributes:
        status: of HTTP.
        happened, do: as `Pages.error`.
        note: for the log.
    """

    status: int
    happened: str
    do: str
    note: str = ""


class PageError(Exception):
    """Carry a problem to whoever shows it."""

    def __init__(self, problem: ErrorPage) -> None:
        """Keep it."""
        super().__init__(problem.note or problem.happened)
        self.problem = problem


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
_CROWDED: Final = ErrorPage(
    403,
    "This log-in made room for newer ones",
    "Nothing was done: too many log-ins were begun at once in this browser, and this was the "
    "oldest. Begin it again where you came from.",
    "transaction made room for newer ones",
)
_FOREIGN: Final = ErrorPage(
    403,
    "This is not the answer of the right log-in service",
    "Nothing was done. Begin again where you came from.",
    "iss of somebody else, or a malformed answer",
)
_DENIED: Final = ErrorPage(
    403,
    "You did not log in",
    "Nothing was done. Begin again when you want to; if you may not use this, the people who run "
    "this gateway can tell you.",
    "access_denied",
)
_REFUSED: Final = ErrorPage(
    502,
    "The log-in service did not accept this gateway's request",
    "Nothing was done. Try again once; if it stays, tell the people who run this gateway.",
    "Authelia refused",
)
GONE: Final = ErrorPage(
    404,
    "There is nothing here any more",
    "You can close this page.",
    "no problem to tell",
)
AWAY: Final = ErrorPage(
    503,
    "Something that this gateway needs does not answer",
    "Nothing was done. Try again in a minute; if it stays, tell the people who run this gateway.",
    "unavailable",
)


# The same, where only this browser remembers it: its code is spent, and told of in place.
SPENT: Final = replace(USED, note="answer loaded again")
_WHY_OVER: Final[Mapping[LoginEnd, ErrorPage]] = {LoginEnd.USED: SPENT, LoginEnd.CROWDED: _CROWDED}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the pages of step-ups and of one's own log-ins are made of.

    Attributes:
        origin: the gateway's, as browsers send it.
        issuer: as tokens name it.
        browser, pages, upstream: what their names say.
        used: records the state of a transaction; tells whether it had been used before. Raises
            `UnavailableError` where that cannot be known.
        address: returns a request's own address, for Authelia.
        pace: counts what an address sends to Authelia; raises `TooManyRequestsError`.
        clock: seconds since the epoch.
        note: is told what went wrong: the request's id, fixed words.
        tell: is told what was done, for the log: `step_up` and its outcome.
    """

    origin: str
    issuer: str
    browser: BrowserCookies
    pages: Pages
    upstream: Upstream
    used: Callable[[str], Awaitable[bool]]
    address: Callable[[Request], str]
    pace: Callable[[str], None]
    clock: Callable[[], float]
    note: Callable[[str, str], None] = lambda _id, _words: None
    tell: ports.Tell = lambda *_, **__: None

    def problem(
        self, request: Request, problem: ErrorPage, link: tuple[str, str] | None = None
    ) -> Response:
        """Return the page of a problem; `link` as `Pages.error`."""
        self.note(request_id(request), problem.note or problem.happened)
        response = self.pages.error(
            problem.status, problem.happened, problem.do, request_id(request), link
        )
        if problem.status == AWAY.status:
            response.headers["Retry-After"] = "30"
        return response


@dataclass(frozen=True, slots=True)
class Visit:
    """Name one kind of visit.

    Attributes:
        purpose: a fixed word.
        callback: the path that Authelia sends the browser back to.
        two_factor: as which of our clients.
    """

    purpose: str
    callback: str
    two_factor: bool


@dataclass(frozen=True, slots=True)
class Arrived:
    """Hold what a visit brought.

    Attributes:
        kept: what `depart` was given.
        identity: who logged in, and how.
        end: ends the tokens at Authelia: the background of the answer.
    """

    kept: Mapping[str, Any]
    identity: LoginIdentity
    end: BackgroundTask


async def depart(
    parts: Parts,
    request: Request,
    visit: Visit,
    kept: Mapping[str, Any],
    max_age: int | None = None,
) -> Response:
    """Send the browser to Authelia, after a click that was checked.

    Raises:
        PageError: where Authelia does not take the request.
        TooManyRequestsError: where this address has sent it too many.
    """
    address = parts.address(request)
    parts.pace(address)
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    asked = UpstreamAuthorizationRequest(
        two_factor=visit.two_factor,
        redirect_uri=parts.origin + visit.callback,
        scopes=_SCOPES,
        resource=None,
        state=state,
        nonce=nonce,
        verifier=verifier,
        max_age=max_age,
    )
    try:
        response = parts.pages.go_on(await parts.upstream.push(asked, address))
    except UpstreamError as error:
        raise PageError(_REFUSED) from error
    except UnavailableError as error:
        raise PageError(AWAY) from error
    transaction = {"nonce": nonce, "verifier": verifier, "kept": dict(kept)}
    parts.browser.begin(response, state, transaction, visit.purpose, request)
    return response


async def arrive(parts: Parts, request: Request, visit: Visit) -> Arrived:
    """Return what a visit brought, once.

    Raises:
        PageError: where this is no answer of Authelia to a visit of this browser.
    """
    answer = _answer(request)
    state = answer.get("state", "")
    try:
        transaction = parts.browser.take(request, state, visit.purpose)
    except NotThisBrowserError as error:
        raise PageError(missing(parts, request, state)) from error
    try:
        # RFC 9207, section 2.4: before anything else of the answer is believed, errors included.
        parts.upstream.check_iss(answer.get("iss"))
    except UpstreamError as error:
        raise PageError(_FOREIGN) from error
    try:
        if await parts.used(state):
            raise PageError(USED)
        if answer.get("error") == "access_denied":
            raise PageError(_DENIED)
        if "error" in answer:
            raise PageError(_REFUSED)
        address = parts.address(request)
        found = await parts.upstream.exchange(
            two_factor=visit.two_factor,
            code=answer.get("code", ""),
            verifier=transaction["verifier"],
            redirect_uri=parts.origin + visit.callback,
            nonce=transaction["nonce"],
            address=address,
        )
    except UpstreamError as error:
        raise PageError(_REFUSED) from error
    except UnavailableError as error:
        raise PageError(AWAY) from error
    end = BackgroundTask(_end, parts.upstream, visit.two_factor, found.tokens.access_token, address)
    return Arrived(transaction["kept"], found.identity, end)


def aside(parts: Parts, request: Request, problem: ErrorPage, *, log_out: bool = False) -> Response:
    """Send the browser from a callback to a clean address that tells a problem.

    A page at the callback's own address would leave a code and a state in the browser's history.
    What never was this browser's own is told in place: it is nobody's secret here. So is what it
    loads again, whose code is spent.
    """
    if problem in (NOT_THIS_BROWSER, SPENT):
        return parts.problem(request, problem)
    parts.note(request_id(request), problem.note or problem.happened)
    name = secrets.token_urlsafe(32)
    url = f"{parts.origin}{PROBLEM}?{urlencode({'of': name})}"
    response = redirect(url)
    kept = {
        "status": problem.status,
        "happened": problem.happened,
        "do": problem.do,
        "request_id": request_id(request),
        "link": [parts.upstream.log_out_url(url), "Log out there"] if log_out else None,
    }
    parts.browser.begin(response, name, kept, _ASIDE, request)
    return forget(parts, request, response)


def missing(parts: Parts, request: Request, state: str) -> ErrorPage:
    """Return why a transaction is not in this browser."""
    over = parts.browser.over(request, state)
    return NOT_THIS_BROWSER if over is None else _WHY_OVER[over]


def problem_route(parts: Parts) -> Route:
    """Return the route that `aside` leads to."""

    async def show(request: Request) -> Response:
        try:
            kept = parts.browser.take(request, request.query_params.get("of", ""), _ASIDE)
        except NotThisBrowserError:
            return parts.problem(request, GONE)
        return parts.pages.error(
            kept["status"], kept["happened"], kept["do"], kept["request_id"], kept["link"]
        )

    return Route(PROBLEM, show, methods=["GET"])


def forget(parts: Parts, request: Request, response: Response) -> Response:
    """Take the cookie of the visit that an answer belongs to; remember that it was used."""
    state = _answer(request).get("state", "")
    if _STATE.match(state):
        parts.browser.end(request, response, state)
    return response


def _answer(request: Request) -> Mapping[str, str]:
    """Return the parameters of an answer; none where one comes twice (RFC 6749, section 3.1)."""
    pairs = [pair for pair in request.query_params.multi_items() if pair[0] in _PARAMETERS]
    answer = dict(pairs)
    return answer if len(answer) == len(pairs) else {}


async def _end(upstream: Upstream, two_factor: bool, token: str, address: str) -> None:
    """End a token that nobody needs; it is short-lived and good for no server: one try will do."""
    with suppress(UpstreamError, UnavailableError):
        await upstream.revoke(two_factor=two_factor, token=token, address=address)
