"""Read requests of a browser to an admin page (docs/decisions/0027): page, session, site.

Whether the session counts is judged as everywhere (`core/browser_session.py`). A refusal is a
`RefusedError`, which `page_deny` puts together with what is known.

Invariant: nothing but the session's own cookie opens a page, and no page of another site acts with
it (tests/core/test_admin_pages.py).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from authz.core.browser_session import BrowserRule, BrowserSession
from authz.core.detail import Detail
from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError
from authz.core.second_factor import SecondFactor

PAGE: Final = "page"  # of a route's context_extensions, in place of `server`
# Envoy takes both out of the cookies of a request (envoy/render/session_cookie.py), and strips what
# a client sent under these names.
SESSION_HEADER: Final = "x-authz-session"
BROWSER_HEADER: Final = "x-authz-browser"
# The names of the cookies. No upstream is sent them, and none can set them.
SESSION_COOKIE: Final = "__Host-authz-session"
BROWSER_COOKIE: Final = "__Host-authz-browser"
# Paths of ours on the host of a page.
OPEN_SESSION: Final = "/authz/page/session"
LOG_OUT: Final = "/authz/page/log-out"

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_SAFE: Final = frozenset({"GET", "HEAD"})
_LONGEST_RETURN: Final = 1024
_PRINTABLE: Final = re.compile(r"[!-~]+\Z")
# A log-in lifts these.
_LIFTED: Final = frozenset(
    {
        Reason.SESSION_MISSING,
        Reason.SESSION_REVOKED,
        Reason.SECOND_FACTOR_REQUIRED,
        Reason.LOGIN_TOO_OLD,
    }
)


@dataclass(frozen=True, slots=True)
class AdminPage:
    """Hold one web interface and its rule.

    Attributes:
        name: as in authz.yaml and in Envoy's context_extensions.
        origin: as browsers send it: its own host, the gateway's scheme and port.
        path: what its paths begin with; empty for all of its host.
        rule: what a person's log-in must fulfil.
        upstream: a digest of where its requests go, as Envoy's route repeats it.
    """

    name: str
    origin: str
    path: str = ""
    rule: BrowserRule = field(default_factory=BrowserRule)
    upstream: str = ""

    def holds(self, target: str) -> bool:
        """Tell whether a request target (path and query) is below it."""
        path = target.partition("?")[0]
        return path.startswith("/") and (path == self.path or path.startswith(f"{self.path}/"))

    def return_path(self, target: str) -> str:
        """Return where a browser goes on after a log-in: what it asked for, else the page itself.

        It is a path of the page's own origin, whatever is sent: nobody is sent elsewhere by it.
        """
        fits = len(target) <= _LONGEST_RETURN and _PRINTABLE.match(target) is not None
        return target if fits and self.holds(target) else f"{self.path}/"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request for a page, with the token of a session that it presents, not looked up yet."""

    page: AdminPage
    request: HttpRequest
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PageAllow:
    """The request goes on, in the name of a person."""

    page: AdminPage
    session: BrowserSession


@dataclass(frozen=True, slots=True)
class PageDeny:
    """The request is refused.

    Attributes:
        reason, detail: the row of the catalogue, and which case.
        page: None where that is not known.
        session: the one that was presented, where there is one.
        second_factor: what is required and missing.
    """

    reason: Reason
    detail: str = ""
    page: AdminPage | None = None
    session: BrowserSession | None = None
    second_factor: SecondFactor | None = None

    @property
    def is_lifted_by_login(self) -> bool:
        """Tell whether a log-in of now would help."""
        return self.page is not None and self.reason in _LIFTED


PageDecision = PageAllow | PageDeny


def page_deny(
    refused: RefusedError, page: AdminPage | None, session: BrowserSession | None = None
) -> PageDeny:
    """Return the refusal of a request, with what is known of it."""
    return PageDeny(refused.reason, refused.detail, page, session, refused.second_factor)


def page_of(request: HttpRequest, pages: Mapping[str, AdminPage]) -> AdminPage:
    """Return the page that the route names.

    Raises:
        RefusedError: UNKNOWN_PAGE, also where the route names a server besides; ROUTE_OUTDATED
            where it leads to another upstream than the rules are for.
    """
    page = pages.get(request.context.get(PAGE, ""))
    if page is None or "server" in request.context:
        raise RefusedError(Reason.UNKNOWN_PAGE)
    if request.context.get("upstream") != page.upstream:
        raise RefusedError(Reason.ROUTE_OUTDATED)
    return page


def read_page(request: HttpRequest, page: AdminPage) -> PageRequest:
    """Read a request for a page: its session's token, and which site sent it.

    Raises:
        RefusedError: SESSION_MISSING, CROSS_SITE or MALFORMED_REQUEST.
    """
    if not page.holds(request.path):
        raise RefusedError(Reason.UNKNOWN_PAGE)
    token = request.headers.get(SESSION_HEADER, "")
    if _TOKEN.match(token) is None:
        raise RefusedError(Reason.SESSION_MISSING, Detail.NO_SESSION_COOKIE)
    check_site(request, page.origin)
    return PageRequest(page, request, token)


def check_site(request: HttpRequest, origin: str) -> None:
    """Refuse what another site's page sends with the cookie of this one.

    The cookie is SameSite=Lax, which says nothing of a page of a sibling host. So what a browser
    says of itself is judged (Fetch Metadata; Fetch, "append a request Origin header"; RFC 6455,
    section 10.2): a link from elsewhere may open a page; nothing else from elsewhere may do
    anything, and nothing that changes something comes without a word of where it is from.

    Raises:
        RefusedError: CROSS_SITE; MALFORMED_REQUEST for an upgrade to anything but a WebSocket.
    """
    headers = request.headers
    upgrade = headers.get("upgrade")
    if upgrade is not None and upgrade.lower() != "websocket":
        raise RefusedError(Reason.MALFORMED_REQUEST, Detail.UPGRADE)
    is_read = request.method in _SAFE and upgrade is None
    sent, site = headers.get("origin"), headers.get("sec-fetch-site")
    if sent is not None and sent != origin:
        raise RefusedError(Reason.CROSS_SITE, Detail.OTHER_ORIGIN)
    if site not in {None, "same-origin", "none"} and not (is_read and navigates(request)):
        raise RefusedError(Reason.CROSS_SITE, Detail.OTHER_SITE)
    if not is_read and sent is None and (upgrade is not None or site != "same-origin"):
        raise RefusedError(Reason.CROSS_SITE, Detail.NO_ORIGIN)


def navigates(request: HttpRequest) -> bool:
    """Tell whether a person opens an address: a document in a tab, no frame and no script's call.

    A browser that sends no Fetch Metadata is known by what it accepts.
    """
    headers = request.headers
    return (
        request.method == "GET"
        and "upgrade" not in headers
        and "text/html" in headers.get("accept", "").lower()
        and headers.get("sec-fetch-mode", "navigate") == "navigate"
        and headers.get("sec-fetch-dest", "document") == "document"
    )
