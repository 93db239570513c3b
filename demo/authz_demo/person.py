"""A person at a browser: follows an authorization URL to the client's callback."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import httpx
import pyotp

from authz_demo.login_drivers import (
    FormDriver,
    FrontDoorDriver,
    LoginDriver,
    LoginFailedError,
    automatic_redirect,
    is_front_door_page,
)

FORMS = FormDriver()
_OURS = FrontDoorDriver()
# Log-in, code, consent and a password typed again, each with its redirects, are fewer. What goes on
# longer goes in circles (Authelia never accepts a log-in for max_age=0).
_MOST_STEPS = 16


@dataclass(frozen=True, slots=True)
class BrowserUser:
    """Hold what a person knows.

    Attributes:
        username, password: what is typed at the first factor.
        totp_secret: the authenticator's, Base32; None where the person has no second factor.
        consents: whether the person agrees to what clients ask for.
        clock: what the authenticator's clock says.
    """

    username: str
    password: str = field(repr=False)
    totp_secret: str | None = field(default=None, repr=False)
    consents: bool = True
    clock: Callable[[], float] = field(default=time.time, compare=False, repr=False)

    def code(self) -> str:
        """Return the one-time code (RFC 6238) of this moment.

        Raises:
            LoginFailedError: where there is no second factor to take it from.
        """
        if self.totp_secret is None:
            raise LoginFailedError("a one-time code is asked for, and this person has none")
        return pyotp.TOTP(self.totp_secret).at(datetime.fromtimestamp(self.clock(), UTC))

    async def log_in(
        self, browser: httpx.AsyncClient, authorize_url: str, portal: LoginDriver = FORMS
    ) -> str:
        """Follow an authorization URL to the end; return the callback URL, which is not opened.

        Args:
            browser: keeps the cookies, so that the second log-in finds the session of the first.
            authorize_url: where the client sends the browser.
            portal: how this issuer's pages are answered.

        Raises:
            LoginFailedError: where a page let the person no further, in its words.
        """
        url = authorize_url
        for _ in range(_MOST_STEPS):
            url = await self._on(browser, await browser.get(url, follow_redirects=False), portal)
            if _is_callback(url, authorize_url):
                return url
        raise LoginFailedError("the log-in goes in circles")

    async def visit(
        self, browser: httpx.AsyncClient, url: str, portal: LoginDriver = FORMS
    ) -> httpx.Response:
        """Open a page of the gateway and do what it asks for; return the page where that ends.

        A step-up begins so, and the list of one's own log-ins.

        Args:
            browser: as in `log_in`.
            url: the page.
            portal: as in `log_in`.

        Raises:
            LoginFailedError: where the person got no further.
        """
        home = urlsplit(url)
        for _ in range(_MOST_STEPS):
            page = await browser.get(url, follow_redirects=False)
            at_home = (page.url.scheme, page.url.netloc.decode("ascii")) == home[:2]
            if at_home and automatic_redirect(page) is None and not is_front_door_page(page):
                return page
            url = await self._on(browser, page, portal)
        raise LoginFailedError("the log-in goes in circles")

    async def _on(
        self, browser: httpx.AsyncClient, page: httpx.Response, portal: LoginDriver
    ) -> str:
        """Do what a page asks for; return where the browser goes next."""
        onward = automatic_redirect(page)
        if onward is not None:
            return onward
        answering = _OURS if is_front_door_page(page) else portal
        return await answering.answer(browser, self, page)


def _is_callback(url: str, authorize_url: str) -> bool:
    """Tell whether a URL is the client's redirect URI.

    A pushed request does not show it; then it is the first one away from the issuer's origin.
    """
    went, began = urlsplit(url), urlsplit(authorize_url)
    for redirect_uri in parse_qs(began.query).get("redirect_uri", []):
        target = urlsplit(redirect_uri)
        return (went.scheme, went.netloc, went.path) == (target.scheme, target.netloc, target.path)
    return (went.scheme, went.netloc) != (began.scheme, began.netloc)
