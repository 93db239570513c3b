"""What the front door needs of Authelia, as the real 4.39.20 did it by hand."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from authz_demo.login_drivers import LoginFailedError
from authz_demo.person import BrowserUser
from tests.demo.kit import FILES, ISSUER, SECRET, App, Clock, World, claims, query

LOGOUT = f"{ISSUER}/logout"


def registered(world: World, client_id: str, **changes: Any) -> App:
    """Register one of the clients in another way."""
    config = world.issuer.config
    clients = tuple(
        replace(each, **changes) if each.client_id == client_id else each for each in config.clients
    )
    world.issuer.config = replace(config, clients=clients)
    return App(world, client_id)


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("openid", set()),
        ("openid profile", {"preferred_username"}),
        ("openid profile groups", {"preferred_username", "groups"}),
    ],
)
def test_claims_are_in_the_id_token_where_policy_and_scope_say_so(
    world: World, scope: str, found: set[str]
) -> None:
    """`claims_policies.<p>.id_token` puts them there, each only where its scope was granted."""
    told = ("preferred_username", "groups")
    app = registered(world, "mcp-2fa", id_token_claims=told)
    tokens = app.tokens(scope=scope)

    assert set(claims(tokens["id_token"])) & {"preferred_username", "groups", "email"} == found


def test_without_the_policy_scopes_alone_put_nothing_there(world: World) -> None:
    """As recorded: `profile` and `groups` leave the ID token as it is."""
    tokens = App(world).tokens(scope="openid profile groups email")

    assert not {"preferred_username", "groups", "email"} & set(claims(tokens["id_token"]))


def test_a_refreshed_id_token_repeats_how_the_person_logged_in(world: World) -> None:
    """All but its own times and hash: person, methods, `auth_time`, the nonce, the claims."""
    app = registered(world, "mcp-2fa", id_token_claims=("preferred_username",))
    tokens = app.tokens(scope="openid offline_access profile")
    world.clock.at += 600
    new = app.refresh(tokens["refresh_token"]).json()

    before, after = claims(tokens["id_token"]), claims(new["id_token"])
    own = {"exp", "iat", "jti", "at_hash"}
    assert {name: before[name] for name in before.keys() - own} == {
        name: after[name] for name in after.keys() - own
    }
    assert after["preferred_username"] == "john"
    assert after["iat"] == before["iat"] + 600


def test_where_requests_are_to_be_pushed_others_end_on_a_page(world: World) -> None:
    """Nothing is sent to the redirect URI of a request that should have been pushed."""
    app = registered(world, "mcp-2fa", require_pushed=True)
    told = query(app.authorize().headers["location"])

    assert told["error"] == ["invalid_request"]
    assert told["error_hint"][0].startswith("Pushed Authorization Requests are required but this")
    sent = app.post("/api/oidc/pushed-authorization-request", **app.parameters(resource=FILES))
    pushed = {"client_id": "mcp-2fa", "request_uri": sent.json()["request_uri"]}
    url = f"{ISSUER}/api/oidc/authorization?{urlencode(pushed)}"
    back = world.runner.run(world.person().log_in(app.browser, url))
    assert "code" in query(back)


@pytest.mark.parametrize(
    ("back", "leads"),
    [
        ("https://mcp.example.test/x?y=1", "https://mcp.example.test/x?y=1"),
        ("https://example.test/", "https://example.test/"),
        ("http://mcp.example.test/x", f"{ISSUER}/"),
        ("https://evil.test/", f"{ISSUER}/"),
        ("https://evilexample.test/", f"{ISSUER}/"),
        ("https://mcp.example.test@evil.test/", f"{ISSUER}/"),
        ("https://[", f"{ISSUER}/"),
        ("javascript:alert(1)", f"{ISSUER}/"),
        ("", f"{ISSUER}/"),
    ],
)
def test_logging_out_ends_the_session_and_leads_back_where_that_is_safe(
    world: World, back: str, leads: str
) -> None:
    """`/logout?rd=…`: https within the domain of the sessions, or the portal."""
    app = App(world)
    app.log_in()
    answer = world.request("GET", f"{LOGOUT}?{urlencode({'rd': back})}", browser=app.browser)

    assert answer.headers["location"] == leads
    assert world.issuer.memory.sessions == {}
    assert query(app.authorize().headers["location"])["flow"] == ["openid_connect"]


# --- a person at our own pages ----------------------------------------------------------------

CONSENT = """<!doctype html><title>Allow access?</title><h1>Let it?</h1>
<form id="consent" method="post" action="/authz/consent">
<input type="hidden" name="form_token" value="t&amp;1">
<button name="decision" value="deny">Deny</button>
<button name="decision" value="approve">Allow</button></form>"""
START = CONSENT.replace('id="consent"', 'id="step-up"').replace('name="decision" ', "")
GATEWAY = "https://mcp.example.test"
AUTHORIZE = (
    f"{GATEWAY}/authz/authorize?{urlencode({'redirect_uri': 'http://127.0.0.1:1/callback'})}"
)


def ask(
    page: str, person: BrowserUser, answer: Callable[[httpx.Request], httpx.Response]
) -> tuple[str, list[httpx.Request]]:
    sent: list[httpx.Request] = []

    def gateway(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, html=page)
        sent.append(request)
        return answer(request)

    async def run() -> str:
        async with httpx.AsyncClient(transport=httpx.MockTransport(gateway)) as browser:
            return await person.log_in(browser, AUTHORIZE)

    return asyncio.run(run()), sent


def person(*, consents: bool = True) -> BrowserUser:
    return BrowserUser("john", "password", SECRET, consents=consents, clock=Clock())


def home(_: httpx.Request) -> httpx.Response:
    return httpx.Response(303, headers={"location": "http://127.0.0.1:1/callback?code=c"})


@pytest.mark.parametrize(("consents", "decision"), [(True, "approve"), (False, "deny")])
def test_a_person_presses_our_button(consents: bool, decision: str) -> None:
    """What the form hides is sent with the decision, from our own origin, and no password."""
    url, (sent,) = ask(CONSENT, person(consents=consents), home)

    assert url == "http://127.0.0.1:1/callback?code=c"
    assert sent.url == f"{GATEWAY}/authz/consent"
    assert query(f"?{sent.content.decode()}") == {"form_token": ["t&1"], "decision": [decision]}
    assert sent.headers["origin"] == GATEWAY


def test_a_page_with_one_button_is_a_click() -> None:
    """The beginning of a step-up has nothing to decide."""
    _, (sent,) = ask(START, person(), home)

    assert query(f"?{sent.content.decode()}") == {"form_token": ["t&1"]}


def test_where_our_page_says_no_its_words_are_told() -> None:
    """An error page ends the log-in in its own words."""

    def no(_: httpx.Request) -> httpx.Response:
        return httpx.Response(403, html="<h1>That did not work</h1>")

    with pytest.raises(LoginFailedError, match="That did not work"):
        ask(CONSENT, person(), no)


DONE = """<h1>Done</h1><form method="post" action="/authz/step-up/end">
<input type="hidden" name="form_token" value="x"><button class="end">End it now</button></form>"""


def test_a_visit_ends_where_nothing_more_is_asked_for() -> None:
    """A step-up: the click, the portal, and the page that says what happened, not pressed."""

    def pages(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.url.host == "auth.example.test":
            portal = '<form method="post" action="/"><input name="password"></form>'
            if request.method == "GET":
                return httpx.Response(200, html=portal)
            return httpx.Response(303, headers={"location": f"{GATEWAY}/authz/step-up/callback"})
        if path == "/authz/step-up" and request.method == "GET":
            return httpx.Response(200, html=START)
        if path == "/authz/step-up/callback":
            return httpx.Response(303, headers={"location": "/authz/step-up/done"})
        if path == "/authz/step-up/done":
            return httpx.Response(200, html=DONE)
        assert path == "/authz/consent"
        return httpx.Response(303, headers={"location": f"{ISSUER}/"})

    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.MockTransport(pages)) as browser:
            return await person().visit(browser, f"{GATEWAY}/authz/step-up?ticket=t")

    page = asyncio.run(run())

    assert page.url.path == "/authz/step-up/done"
    assert "Done" in page.text
