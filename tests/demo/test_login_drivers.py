"""How Authelia's own API is spoken for a person, and which hosts such a browser reaches.

The API's answers are those that a real Authelia 4.39.20 gave to this very driver.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import httpx2
import pyotp
import pytest

from authz.setup.certificates import write_certificates
from authz_demo.client import Httpx2LoopbackTransport
from authz_demo.login_drivers import AutheliaDriver, LoginFailedError
from authz_demo.loopback import LoopbackNetwork
from authz_demo.person import BrowserUser
from tests.demo.kit import ISSUER, SECRET, DemoClock

CALLBACK = "http://127.0.0.1:43210/callback"
REQUEST = {"client_id": "mcp-2fa", "redirect_uri": CALLBACK}
AUTHORIZE = f"{ISSUER}/api/oidc/authorization?{urlencode(REQUEST)}"
JOHN = BrowserUser("john", "password", SECRET, clock=DemoClock())
CODE = pyotp.TOTP(SECRET).at(int(DemoClock().at))
FLOW = {"flow": "openid_connect", "flowID": "f1"}


class FakePortal:
    """The parts of the API that a log-in touches, with a client of policy `two_factor`."""

    def __init__(self, *, level: int = 0, consent: bool = False, stale: bool = False) -> None:
        self.level, self.consent, self.stale = level, consent, stale
        self.typed: list[tuple[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "POST":
            self.typed.append((path, json.loads(request.content)))
        if path == "/api/oidc/authorization":
            return self.authorization(request)
        if path in ("/", "/consent/openid/decision", "/consent/completion"):
            return httpx.Response(200, text="<!doctype html>")
        return httpx.Response(200, json=self.api(path))

    def authorization(self, request: httpx.Request) -> httpx.Response:
        def to(path: str) -> httpx.Response:
            location = f"{ISSUER}{path}?flow=openid_connect&flow_id=f1"
            return httpx.Response(302, headers={"location": location})

        if request.url.params["client_id"] == "nobody":
            told = urlencode({"error": "invalid_client", "error_description": "Unknown."})
            location = f"{ISSUER}/consent/completion?{told}"
            return httpx.Response(302, headers={"location": location})
        if self.level < 2:
            return to("/")
        if self.consent or self.stale:
            return to("/consent/openid/decision")
        return httpx.Response(303, headers={"location": f"{CALLBACK}?code=c"})

    def api(self, path: str) -> dict[str, Any]:
        answers: dict[str, Callable[[], dict[str, Any] | None]] = {
            "/api/state": lambda: {"authentication_level": self.level},
            "/api/firstfactor": self.first_factor,
            "/api/firstfactor/reauthenticate": self.again,
            "/api/secondfactor/totp": self.second_factor,
            "/api/oidc/consent": self.decide,
        }
        data = answers[path]()
        return {"status": "OK"} | ({"data": data} if data is not None else {})

    def first_factor(self) -> None:
        self.level = 1

    def second_factor(self) -> dict[str, Any]:
        if self.typed[-1][1]["token"] != CODE:
            return {}
        self.level = 2
        return {"redirect": AUTHORIZE}

    def again(self) -> dict[str, Any]:
        self.stale = False
        return {"redirect": AUTHORIZE}

    def decide(self) -> dict[str, Any]:
        if not self.typed or self.typed[-1][0] != "/api/oidc/consent":
            return {"client_id": "mcp-2fa", "require_login": self.stale, "claims": None}
        self.consent = False
        return {"redirect_uri": AUTHORIZE}


def log_in(authelia: FakePortal, person: BrowserUser = JOHN, url: str = AUTHORIZE) -> str:
    async def run() -> str:
        async with httpx.AsyncClient(transport=httpx.MockTransport(authelia)) as browser:
            return await person.log_in(browser, url, AutheliaDriver())

    return asyncio.run(run())


def test_both_factors_are_given_to_authelia_in_order() -> None:
    """Password, then the code of this moment, each with the flow that it belongs to."""
    authelia = FakePortal()

    assert log_in(authelia) == f"{CALLBACK}?code=c"
    typed = {"username": "john", "password": "password", "keepMeLoggedIn": False}
    assert authelia.typed == [
        ("/api/firstfactor", typed | FLOW),
        ("/api/secondfactor/totp", {"token": CODE} | FLOW),
    ]


def test_consent_and_a_fresh_password_are_given_where_they_are_asked_for() -> None:
    """The decision page asks for the password first, then for the decision."""
    authelia = FakePortal(level=2, consent=True, stale=True)

    assert log_in(authelia) == f"{CALLBACK}?code=c"
    assert [path for path, _ in authelia.typed] == [
        "/api/firstfactor/reauthenticate",
        "/api/oidc/consent",
    ]
    assert authelia.typed[1][1]["consent"] is True


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(
            (401, {"status": "KO", "message": "Check your credentials."}), "Check", id="401"
        ),
        pytest.param((200, {"status": "KO", "message": "Later."}), "Later", id="KO"),
    ],
)
def test_a_refusal_of_authelia_is_told_in_its_words(
    answer: tuple[int, dict[str, str]], words: str
) -> None:
    """Whatever the status, an answer that is not OK ends the log-in."""

    class RefusingPortal(FakePortal):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/api/firstfactor":
                return httpx.Response(answer[0], json=answer[1])
            return super().__call__(request)

    with pytest.raises(LoginFailedError, match=words):
        log_in(RefusingPortal())


def test_secrets_are_not_in_a_persons_repr() -> None:
    """A failing test prints who logged in, never with what."""
    assert "password=" not in repr(JOHN)
    assert SECRET not in repr(JOHN)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_names_that_were_not_given_lead_nowhere(tmp_path: Path, library: Any) -> None:
    """A client of the demonstration cannot leave the machine, nor trust another authority."""
    network = LoopbackNetwork(
        {"mcp.example.test": 1}, write_certificates(tmp_path, ["mcp.example.test"]).authority
    )

    async def stray() -> None:
        transport = Httpx2LoopbackTransport(network)
        browser = network.browser() if library is httpx else httpx2.AsyncClient(transport=transport)
        async with browser:
            await browser.get("https://example.org/")

    with pytest.raises(library.ConnectError, match="not of this network"):
        asyncio.run(stray())
