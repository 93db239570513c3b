"""How a browser gets through a log-in: the stand-in's forms, Authelia's JSON API, our own pages.

A driver answers one page with what the person knows, and says where the browser goes next.
"""

from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any, Final, Protocol
from urllib.parse import urljoin

import httpx

_DECISION: Final = "/consent/openid/decision"
# The ids of forms on pages of the front door.
_OURS: Final = frozenset({"consent", "step-up", "approval", "log-in", "page"})


class LoginFailedError(Exception):
    """The person got no further, in the words of the page."""


class Credentials(Protocol):
    """What a log-in page may ask a person for."""

    @property
    def username(self) -> str:
        """Return the name that is typed."""
        ...

    @property
    def password(self) -> str:
        """Return the password that is typed."""
        ...

    @property
    def consents(self) -> bool:
        """Tell whether the person agrees to what a client asks for."""
        ...

    def code(self) -> str:
        """Return the one-time code of this moment.

        Raises:
            LoginFailedError: where the person has no second factor.
        """
        ...


class LoginDriver(Protocol):
    """Answer one page."""

    async def answer(
        self, browser: httpx.AsyncClient, person: Credentials, page: httpx.Response
    ) -> str:
        """Return the URL that the browser goes to next.

        Raises:
            LoginFailedError: where the person gets no further.
        """
        ...


class _Page(HTMLParser):
    """Read the one form of a page, and its words."""

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.choices: dict[str, list[str]] = {}
        self.words: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a form's action, its fields, and the buttons that have a value."""
        values = {name: value or "" for name, value in attrs}
        if tag in ("style", "script"):
            self._hidden += 1
        elif tag == "form":
            self.action = values.get("action", "")
            self.name = values.get("id", "")
        elif tag == "input" and "name" in values:
            self.fields[values["name"]] = values.get("value", "")
        elif tag == "button" and "name" in values:
            self.choices.setdefault(values["name"], []).append(values.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        """Leave a part that is not shown."""
        if tag in ("style", "script"):
            self._hidden -= 1

    def handle_data(self, data: str) -> None:
        """Take what a person reads."""
        if data.strip() and not self._hidden:
            self.words.append(data.strip())


class FormDriver:
    """Fill in the stand-in's forms."""

    async def answer(
        self, browser: httpx.AsyncClient, person: Credentials, page: httpx.Response
    ) -> str:
        """Type what the form asks for and send it."""
        form = _read(page)
        if page.status_code != httpx.codes.OK or form.action is None:
            raise LoginFailedError(" ".join(form.words))
        filled = dict(form.fields)
        if "username" in filled:
            filled["username"] = person.username
        if "password" in filled:
            filled["password"] = person.password
        if "code" in filled:
            filled["code"] = person.code()
        if "decision" in form.choices:
            filled["decision"] = "accept" if person.consents else "reject"
        response = await browser.post(
            urljoin(str(page.url), form.action), data=filled, follow_redirects=False
        )
        if not response.has_redirect_location:
            raise LoginFailedError(" ".join(_read(response).words))
        return urljoin(str(response.url), response.headers["location"])


def _read(page: httpx.Response) -> _Page:
    form = _Page()
    form.feed(page.text)
    return form


def automatic_redirect(page: httpx.Response) -> str | None:
    """Return where a browser goes from a page by itself: by a redirect, or a refresh; else None."""
    if page.has_redirect_location:
        return urljoin(str(page.url), page.headers["location"])
    _, found, url = page.headers.get("refresh", "").partition("; url=")
    return url if found else None


def is_front_door_page(page: httpx.Response) -> bool:
    """Tell whether a page is one of the front door's, which waits for a click of the person."""
    return (
        page.headers.get("content-type", "").startswith("text/html") and _read(page).name in _OURS
    )


class FrontDoorDriver:
    """Answer our pages that wait for a click: consent, a step-up, the log-in for a page."""

    async def answer(
        self, browser: httpx.AsyncClient, person: Credentials, page: httpx.Response
    ) -> str:
        """Press the button, with all that the form hides."""
        response = await press(browser, page, "approve" if person.consents else "deny")
        url = automatic_redirect(response)
        if url is None:
            raise LoginFailedError(" ".join(_read(response).words))
        return url


async def press(browser: httpx.AsyncClient, page: httpx.Response, decision: str) -> httpx.Response:
    """Press the button of a page's form, with all that the form hides; return the answer.

    Args:
        browser: keeps the cookies.
        page: one of the front door's.
        decision: the value of the button, where the form has buttons with values.

    Raises:
        LoginFailedError: where the page has no form.
    """
    form = _read(page)
    if form.action is None:
        raise LoginFailedError(" ".join(form.words))
    filled = form.fields | ({"decision": decision} if "decision" in form.choices else {})
    # As a browser has it, which says where a form was sent from.
    origin = f"{page.url.scheme}://{page.url.netloc.decode('ascii')}"
    return await browser.post(
        urljoin(str(page.url), form.action),
        data=filled,
        headers={"Origin": origin, "Sec-Fetch-Site": "same-origin"},
        follow_redirects=False,
    )


class AutheliaDriver:
    """Speak the JSON API that the pages of a real Authelia (4.39) speak."""

    async def answer(
        self, browser: httpx.AsyncClient, person: Credentials, page: httpx.Response
    ) -> str:
        """Give the factor, or the consent, that the page behind this URL would ask for."""
        query = page.url.params
        if query.get("flow") != "openid_connect":
            raise LoginFailedError(query.get("error_description", f"status {page.status_code}"))
        flow_id = query["flow_id"]
        if page.url.path.endswith(_DECISION):
            return await self._consent(browser, person, page.url, flow_id)
        flow = {"flow": "openid_connect", "flowID": flow_id}
        state = await _call(browser, "GET", page.url, "/api/state")
        answer: dict[str, Any] = {}
        if not state["authentication_level"]:
            typed = {"username": person.username, "password": person.password}
            body = {**typed, "keepMeLoggedIn": False, **flow}
            answer = await _call(browser, "POST", page.url, "/api/firstfactor", body)
        if "redirect" not in answer:
            body = {"token": person.code(), **flow}
            answer = await _call(browser, "POST", page.url, "/api/secondfactor/totp", body)
        return str(answer["redirect"])

    async def _consent(
        self, browser: httpx.AsyncClient, person: Credentials, url: httpx.URL, flow_id: str
    ) -> str:
        asked = await _call(browser, "GET", url, f"/api/oidc/consent?flow_id={flow_id}")
        if asked["require_login"]:
            typed = {"password": person.password, "flow": "openid_connect", "flowID": flow_id}
            path = "/api/firstfactor/reauthenticate"
            return str((await _call(browser, "POST", url, path, typed))["redirect"])
        body: dict[str, Any] = {
            "flow_id": flow_id,
            "client_id": asked["client_id"],
            "consent": person.consents,
            "pre_configure": False,
            "claims": asked["claims"] or [],
        }
        return str((await _call(browser, "POST", url, "/api/oidc/consent", body))["redirect_uri"])


async def _call(
    browser: httpx.AsyncClient,
    method: str,
    base: httpx.URL,
    path: str,
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Call the API; return the `data` member, empty where there is none.

    It is below the path that the pages are below (`server.address`), mostly none.
    """
    below = base.path.removesuffix(_DECISION).rstrip("/")
    response = await browser.request(method, urljoin(str(base), below + path), json=body)
    answer = response.json()
    if response.status_code != httpx.codes.OK or answer.get("status") != "OK":
        raise LoginFailedError(str(answer.get("message", response.status_code)))
    return dict(answer.get("data") or {})
