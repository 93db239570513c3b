"""Render the pages of the log-in, with strict headers.

Invariant: every value from outside is escaped, bounded and freed of what would turn or hide text;
no page can be framed, cached or made to load anything; a form leads nowhere but where it says. No
script runs but our own, by its hash, on pages that show times: it turns them into local ones. Every
page says the same without it.
"""

import base64
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from authz.login.protocol.authorization import AuthorizationRequest
from authz.login.protocol.resources import ResourceServer
from authz.login.protocol.values import ClientIdentity
from authz.login.web.client_description import (
    consent_advice,
    describe_client,
    describe_place,
    shown,
)
from authz.login.web.scope_list import scope_lines

_TEMPLATES: Final = Path(__file__).parent / "templates"


def _source_hash(text: str) -> str:
    """Return the source expression of an inline element (CSP level 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


@dataclass(frozen=True, slots=True)
class PageAssets:
    """Hold what a page has inline: a style and a script of ours, each allowed by its hash.

    Attributes:
        style, script: their text.
    """

    style: str
    script: str

    def policy(self, *, has_form: bool, has_script: bool) -> str:
        """Return the Content-Security-Policy of a page with them."""
        form = "'self'" if has_form else "'none'"
        # Trusted Types: what makes a script or an element of a text is refused to the script, too.
        script = (
            f"; script-src {_source_hash(self.script)}"
            "; require-trusted-types-for 'script'; trusted-types 'none'"
        )
        return (
            f"default-src 'none'; style-src {_source_hash(self.style)}; form-action {form}; "
            "frame-ancestors 'none'; base-uri 'none'"
        ) + (script if has_script else "")


def read_assets(styles: Sequence[str], scripts: Sequence[str]) -> PageAssets:
    """Return the assets of files among the templates, put together in this order."""
    texts = [
        "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in names)
        for names in (styles, scripts)
    ]
    return PageAssets(*texts)


_ASSETS: Final = read_assets(["style.css"], ["times.js"])

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,62}\Z")
_URL: Final = re.compile(r"[!-~]{1,8192}\Z")  # printable ASCII: fit for a header
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
# What no link of ours may be, whoever allowed it: a browser would run or read it.
_NO_LINKS: Final = frozenset(
    {"about", "blob", "data", "file", "filesystem", "javascript", "view-source", "vbscript"}
)
_BASE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Robots-Tag": "noindex",
}
# Cuts a page off from whoever opened it. Not for the pages that a client's log-in goes through: one
# that runs in a browser opens them in a window and waits there for its own callback, which finds it
# by `window.opener`, and the header would take that away for good.
_ALONE: Final = {"Cross-Origin-Opener-Policy": "same-origin"}
# Never an address. Pages with a form say at least the origin: under `no-referrer` a browser would
# send `Origin: null` with the form (Fetch, "append a request Origin header"), and no check could
# tell it from another site's.
_WITH_FORM: Final = "strict-origin"
_WITHOUT: Final = "no-referrer"


@cache
def _templates() -> Environment:
    """Return the templates, of which each is compiled once in the life of the process."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.filters["time"] = format_time
    environment.filters["datetime"] = format_datetime
    return environment


class Pages:
    """Make the pages of one gateway."""

    def __init__(
        self, origin: str, issuer: str, scope_words: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Take what pages say.

        Args:
            origin: the gateway's, as people's browsers reach it.
            issuer: the issuer's URL, likewise.
            scope_words: what the operator says of scopes.
        """
        self._scope_words = scope_words
        self._gateway = urlsplit(origin).netloc
        self._issuer = urlsplit(issuer).netloc

    def consent(
        self,
        wanted: AuthorizationRequest,
        client: ClientIdentity,
        server: ResourceServer,
        form_token: str,
        set_cookie: str | None = None,
    ) -> Response:
        """Return the page that asks whether a client may have what it asks for.

        Args:
            wanted: what is asked.
            client: who asks, and where the log-in ends.
            server: which it asks for.
            form_token: of `BrowserCookies.form_token`.
            set_cookie: what else that returned.
        """
        return self.page(
            "consent.html",
            {
                "wanted": wanted,
                "who": describe_client(client),
                "advice": consent_advice(client),
                "ends_at": describe_place(client.ends_at),
                "scopes": scope_lines(wanted, server, self._scope_words),
                "form_token": form_token,
            },
            set_cookie=set_cookie,
            has_form=True,
            alone=False,
        )

    def error(
        self,
        status: int,
        happened: str,
        do: str,
        request_id: str = "",
        link: tuple[str, str] | None = None,
    ) -> Response:
        """Return a page that says what went wrong.

        Args:
            status: of HTTP.
            happened: a sentence of ours: no value that a caller chose.
            do: what the person can do, in a sentence of ours.
            request_id: under which the log has it.
            link: where to go on: a URL of ours or the issuer's, and what stands on it.
        """
        content = {"happened": happened, "do": do, "request_id": request_id, "link": link}
        return self.page("error.html", content, status=status)

    def go_back(self, url: str, claim: str, *, alone: bool = True) -> Response:
        """Return the page that leads back to a client, at the end of what it began.

        To a client of a private scheme, because a redirect would leave an empty window behind:
        nothing is loaded from such a URL. And to any client in answer to a form, as `go_on` says.

        Args:
            url: the client's redirect URI with the answer.
            claim: what the client calls itself; may be empty.
            alone: as of `page`.

        Raises:
            ValueError: where it is no URL that a page may lead to.
        """
        query = parse_qs(urlsplit(url).query, keep_blank_values=True)
        web = urlsplit(url).scheme.lower() in {"http", "https"}
        content = {"url": url, "claim": claim, "failed": "error" in query, "web": web}
        return self._onward(url, self.page("go_back.html", content, alone=alone))

    def go_on(self, url: str) -> Response:
        """Return the page that leads from a form of ours to the log-in at Authelia.

        Chromium holds all redirects that follow a form to the `form-action` of its page, those of
        other sites too (a client's callback that opens `claude://`): so the answer to a form is a
        page, and what follows from it is a navigation of its own.

        Raises:
            ValueError: where it is no URL that a page may lead to.
        """
        return self._onward(url, self.page("go_on.html", {"url": url}, alone=False))

    @staticmethod
    def _onward(url: str, response: Response) -> Response:
        scheme = urlsplit(url).scheme.lower()
        if not _URL.match(url) or not _SCHEME.match(scheme) or scheme in _NO_LINKS:
            raise ValueError("no URL to lead to")
        response.headers["Refresh"] = f"0; url={url}"
        return response

    def page(
        self,
        template: str,
        content: Mapping[str, object],
        *,
        status: int = 200,
        set_cookie: str | None = None,
        has_form: bool = False,
        has_times: bool = False,
        alone: bool = True,
        assets: PageAssets = _ASSETS,
    ) -> Response:
        """Return a page.

        Args:
            template: its file.
            content: what it shows.
            status: of HTTP.
            set_cookie: what it sets.
            has_form: whether it has one, which leads to our own pages alone.
            has_times: whether it shows times, which our script turns into local ones.
            alone: whether it is cut off from whoever opened it.
            assets: its style and script.
        """
        text = (
            _templates()
            .get_template(template)
            .render(
                content,
                gateway=self._gateway,
                issuer=self._issuer,
                has_times=has_times,
                style=assets.style,
                script=assets.script,
            )
        )
        headers = _BASE_HEADERS | (_ALONE if alone else {})
        response = HTMLResponse(text, status, headers=headers)
        response.headers["Content-Security-Policy"] = assets.policy(
            has_form=has_form, has_script=has_times
        )
        response.headers["Referrer-Policy"] = _WITH_FORM if has_form else _WITHOUT
        if set_cookie is not None:
            response.headers.append("set-cookie", set_cookie)
        return response


def redirect(url: str) -> Response:
    """Send the browser elsewhere with a GET (RFC 9700, section 4.12: 303, never 307).

    Raises:
        ValueError: where it is no URL for a header.
    """
    if not _URL.match(url):
        raise ValueError("no URL to redirect to")
    response = RedirectResponse(url, 303, headers=_BASE_HEADERS)
    response.headers["Location"] = url  # as it is: the client compares what it gets back
    response.headers["Referrer-Policy"] = _WITHOUT
    return response


def request_id(request: Request) -> str:
    """Return the request's id as Envoy made it; empty where there is none."""
    found = request.headers.get("x-request-id", "")
    return found if _REQUEST_ID.match(found) else ""


def format_time(seconds: int) -> str:
    """Return a moment for people: in UTC, until our script knows their time zone."""
    return time.strftime("%d %b %Y, %H:%M UTC", time.gmtime(seconds))


def format_datetime(seconds: int) -> str:
    """Return a moment as the `datetime` of a `time` element."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def format_duration(seconds: int | None) -> str:
    """Return a length of time for people; empty for None."""
    if seconds is None:
        return ""
    for size, name in ((3600, "hour"), (60, "minute")):
        if seconds >= 2 * size or (seconds >= size and seconds % size == 0):
            count = seconds // size
            return f"{count} {name}" + ("" if count == 1 else "s")
    return f"{seconds} second" + ("" if seconds == 1 else "s")
