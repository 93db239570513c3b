"""The authorization endpoint and its pages: what Authelia 4.39.20 did when it was asked by hand."""

from dataclasses import replace
from html import escape
from typing import Any

import httpx
import pytest

from authz_demo.issuer.app import HEADER
from authz_demo.issuer.pages import WARNING
from authz_demo.login_drivers import LoginFailedError
from tests.demo.kit import FILES, ISSUER, App, World, claims, query

COMPLETION = f"{ISSUER}/consent/completion"
LOGIN, DECISION = f"{ISSUER}/", f"{ISSUER}/consent/openid/decision"
NO_MATCH = (
    "The 'redirect_uri' parameter does not match any of the OAuth 2.0 Client's pre-registered "
    "'redirect_uris'."
)
OFFLINE = "openid offline_access mcp:tools"


def went(answer: httpx.Response) -> str:
    """Where a redirect leads, without its query."""
    return str(answer.headers["location"].partition("?")[0])


def told(answer: httpx.Response) -> dict[str, str]:
    """The members of an answer at the redirect URI."""
    assert answer.status_code == 303
    return {name: values[0] for name, values in query(answer.headers["location"]).items()}


# --- told on a page ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "hint"),
    [
        pytest.param(
            {"client_id": "nobody"},
            "invalid_client",
            "The requested OAuth 2.0 Client does not exist.",
            id="unknown client",
        ),
        pytest.param(
            {"client_id": None},
            "invalid_client",
            "The requested OAuth 2.0 Client does not exist.",
            id="no client",
        ),
        pytest.param(
            {"redirect_uri": None},
            "invalid_request",
            "The 'redirect_uri' parameter is required when using OpenID Connect 1.0.",
            id="no redirect uri",
        ),
        pytest.param(
            {"redirect_uri": None, "scope": "mcp:tools"}, "invalid_request", NO_MATCH, id="which"
        ),
        *(
            pytest.param({"redirect_uri": uri}, "invalid_request", NO_MATCH, id=uri)
            for uri in (
                "https://evil.example/",
                "http://localhost:1/callback",
                "http://127.0.0.1:1/callback/",
                "http://127.0.0.1:1/callback?x=1",
                "http://127.0.0.1:1/callback#x",
                "http://127.0.0.1.evil.example/callback",
                "http://127.0.0.1:1@evil.example/callback",
                "https://127.0.0.1:1/callback",
            )
        ),
        pytest.param(
            {"request_uri": "urn:ietf:params:oauth:request_uri:nope"},
            "invalid_request_uri",
            "The 'request_uri' provided is invalid, expired, or otherwise incorrect.",
            id="unknown pushed request",
        ),
    ],
)
def test_nothing_is_sent_to_a_redirect_uri_that_is_not_known_to_be_right(
    world: World, changes: dict[str, Any], error: str, hint: str
) -> None:
    """Without a client and its redirect URI the error is told on the issuer's own page."""
    answer = App(world).authorize(**changes)

    assert (answer.status_code, went(answer)) == (302, COMPLETION)
    told = query(answer.headers["location"])
    assert (told["error"], told["error_hint"]) == ([error], [hint])


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_loopback_address_may_have_any_port(world: World, host: str) -> None:
    """The port of `127.0.0.1` and `[::1]` is the application's choice."""
    app = App(world, redirect_uri=f"http://{host}:61234/callback")

    assert "code" in app.log_in()


def test_a_localhost_may_not(world: World) -> None:
    """`localhost` is a name like any other: its port is the registered one."""
    app = App(world, "localhoster", redirect_uri="http://localhost/callback")

    assert went(app.authorize()) == LOGIN
    app.redirect_uri = "http://localhost:61234/callback"
    assert went(app.authorize()) == COMPLETION


# --- told at the redirect URI -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "ending"),
    [
        pytest.param(
            {"response_type": "token"},
            "unsupported_response_type",
            "The client is not allowed to request response_type 'token'.",
            id="another response type",
        ),
        pytest.param(
            {"response_type": None},
            "unsupported_response_type",
            "The request is missing the 'response_type' parameter.",
            id="no response type",
        ),
        pytest.param(
            {"response_mode": "fragment"},
            "unsupported_response_mode",
            "The 'response_mode' requested was 'fragment', but the Authorization Server or "
            "registered OAuth 2.0 client doesn't allow or support this mode.",
            id="response mode",
        ),
        pytest.param(
            {"state": "short"},
            "invalid_state",
            "Request parameter 'state' must be at least be 8 characters long to ensure sufficient "
            "entropy.",
            id="short state",
        ),
        pytest.param(
            {"resource": f"{FILES}#x"},
            "invalid_target",
            "that it is permitted for this client.",
            id="fragment",
        ),
        pytest.param(
            {"resource": FILES, "audience": FILES},
            "invalid_request",
            "The 'resource' parameter is only allowed when the 'audience' parameter is not also "
            "present.",
            id="resource and audience",
        ),
        pytest.param(
            {"prompt": "none"},
            "login_required",
            "The Authorization Server requires End-User authentication.",
            id="prompt none, nobody there",
        ),
    ],
)
def test_what_is_wrong_is_told_before_anybody_logs_in(
    world: World, changes: dict[str, Any], error: str, ending: str
) -> None:
    """Errors that need no person are told at once, with `iss` and the state."""
    answer = told(App(world).authorize(**changes))

    assert (answer["error"], answer["iss"]) == (error, ISSUER)
    assert answer["error_description"].endswith(ending)
    assert answer["state"] == changes.get("state", "s" * 12)


@pytest.mark.parametrize(
    ("changes", "ending"),
    [
        pytest.param(
            {"code_challenge_method": "plain"},
            "does not allow method 'plain' and requires method 'S256'.",
            id="plain",
        ),
        pytest.param(
            {"code_challenge_method": None},
            "does not allow method 'plain' and requires method 'S256'.",
            id="no method",
        ),
        pytest.param(
            {"code_challenge_method": "S512"},
            "doesn't know how to handle this method, try 'S256' instead.",
            id="unknown method",
        ),
        pytest.param(
            {"prompt": "foo"},
            "The requested prompt value 'foo' either contains unknown, unsupported, or prohibited "
            "prompt values.",
            id="unknown prompt",
        ),
    ],
)
def test_some_errors_are_told_only_after_the_log_in(
    world: World, changes: dict[str, Any], ending: str
) -> None:
    """PKCE and `prompt` are looked at when the code is issued, not before."""
    app = App(world)
    assert went(app.authorize(**changes)) == LOGIN

    answer = app.log_in(**changes)

    assert answer["error"] == "invalid_request"
    assert answer["error_description"].endswith(ending)


# --- sessions ---------------------------------------------------------------------------------


def test_the_second_log_in_finds_the_session(world: World) -> None:
    """Whoever has logged in is sent back with a code at once, until the session ends."""
    app = App(world)
    app.log_in()

    assert "code" in told(app.authorize())
    world.clock.at += 3600
    assert went(app.authorize()) == LOGIN


def test_the_session_cookie_is_for_the_browser_alone(world: World) -> None:
    """The cookie is secure, hidden from scripts, not sent along by other sites, new each time."""
    app = App(world)
    app.log_in()
    first = dict(app.browser.cookies)
    world.clock.at += 3601

    page = world.request("GET", app.authorize().headers["location"], browser=app.browser)
    flow_id = page.url.params["flow_id"]
    typed = {"flow_id": flow_id, "username": "john", "password": "password"}
    answer = world.request("POST", "/", data=typed, browser=app.browser)

    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "Secure", "SameSite=lax"))
    assert dict(app.browser.cookies) != first


def test_the_policy_of_the_client_asks_for_the_code(world: World) -> None:
    """A password opens a one-factor client; a two-factor client asks for the code; `otp` stays."""
    app, strict = App(world, "mcp-1fa"), App(world)
    strict.browser = app.browser
    careless = world.person(totp_secret=None)

    assert claims(app.tokens(careless)["id_token"])["amr"] == ["pwd", "kba"]
    with pytest.raises(LoginFailedError, match="one-time code"):
        strict.log_in(careless)
    assert went(strict.authorize(prompt="none")) == LOGIN
    strict.log_in()
    assert claims(app.tokens(careless)["id_token"])["amr"] == ["pwd", "kba", "otp", "mfa"]


def test_no_access_token_ever_says_how_its_person_logged_in(world: World) -> None:
    """A two-factor log-in and a one-factor log-in give access tokens with the same members."""
    one = claims(App(world, "mcp-1fa").tokens(world.person(totp_secret=None))["access_token"])
    two = claims(App(world).tokens()["access_token"])

    assert one.keys() == two.keys()
    assert not {"amr", "auth_time", "acr"} & one.keys()


@pytest.mark.parametrize(
    ("person", "words"),
    [
        pytest.param({"username": "nobody"}, "Check your credentials", id="unknown"),
        pytest.param({"password": "wrong"}, "Check your credentials", id="wrong password"),
        pytest.param({"totp_secret": "A" * 32}, "please retry later", id="wrong code"),
    ],
)
def test_what_is_typed_wrong_is_refused(world: World, person: dict[str, Any], words: str) -> None:
    """Who does not know the password or the code gets no further."""
    with pytest.raises(LoginFailedError, match=words):
        App(world).log_in(replace(world.person(), **person))


def test_a_code_of_long_ago_is_refused(world: World) -> None:
    """An authenticator whose clock is five minutes off opens nothing."""
    late = world.clock.at - 300

    with pytest.raises(LoginFailedError, match="please retry later"):
        App(world).log_in(world.person(clock=lambda: late))


# --- prompt, max_age, consent -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        pytest.param({}, False, id="nothing asked"),
        pytest.param({"prompt": "login"}, True, id="prompt=login"),
        pytest.param({"max_age": "5"}, True, id="too old"),
        pytest.param({"max_age": "60"}, False, id="fresh enough"),
    ],
)
def test_a_fresh_password_moves_auth_time_and_keeps_otp(
    world: World, changes: dict[str, Any], again: bool
) -> None:
    """`prompt=login` and `max_age` ask for the password, not for the code, and move `auth_time`."""
    app = App(world)
    app.log_in()
    began = int(world.clock.at)
    world.clock.at += 10

    token = claims(app.tokens(world.person(totp_secret=None), **changes)["id_token"])

    assert token["auth_time"] == began + (10 if again else 0)
    assert token["amr"] == ["pwd", "kba", "otp", "mfa"]


@pytest.mark.parametrize("age", ["0", "soon"])
def test_a_max_age_of_nothing_is_never_met(world: World, age: str) -> None:
    """`max_age=0`, and one that is no number, ask for the password for ever."""
    with pytest.raises(LoginFailedError, match="in circles"):
        App(world).log_in(max_age=age)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"scope": OFFLINE}, id="offline_access"),
        pytest.param({"prompt": "consent"}, id="prompt=consent"),
        pytest.param({"scope": OFFLINE, "prompt": "none"}, id="even with prompt=none"),
    ],
)
def test_some_requests_are_asked_consent_for(world: World, changes: dict[str, Any]) -> None:
    """`offline_access` and `prompt=consent` show the consent page, every time."""
    app = App(world)
    app.log_in()

    assert went(app.authorize(**changes)) == DECISION
    assert "code" in app.log_in(**changes)
    assert went(app.authorize(**changes)) == DECISION


def test_who_denies_consent_is_told_so(world: World) -> None:
    """A denial ends at the client as `access_denied`, and no code is issued."""
    answer = App(world).log_in(world.person(consents=False), scope=OFFLINE)

    assert answer["error"] == "access_denied"


def test_a_consent_is_good_for_its_request_and_its_person(world: World) -> None:
    """A decision can be used once, for the very request, by who decided."""
    app = App(world)
    app.log_in()
    page = app.authorize(scope=OFFLINE).headers["location"]
    flow_id = query(page)["flow_id"][0]
    decided = {"flow_id": flow_id, "decision": "accept"}
    resumed = world.request("POST", "/consent/openid/decision", data=decided, browser=app.browser)
    back = resumed.headers["location"]
    wider = back.replace("mcp%3Atools", "mcp%3Atools+mcp%3Aadmin")
    bob = App(world)
    bob.log_in(world.person("bob"))

    assert told(world.request("GET", wider, browser=app.browser))["error"] == "server_error"
    assert told(world.request("GET", back, browser=bob.browser))["error"] == "server_error"
    assert "code" in told(world.request("GET", back, browser=app.browser))
    assert told(world.request("GET", back, browser=app.browser))["error"] == "server_error"


def test_the_pages_need_a_request_that_waits(world: World) -> None:
    """Without a waiting request the pages say so and take nothing; without a session, log in."""
    app = App(world)
    waiting = query(app.authorize().headers["location"])["flow_id"][0]

    assert world.request("GET", "/").status_code == 200
    assert world.request("POST", "/", data={"flow_id": "x", "password": "p"}).status_code == 400
    assert world.request("GET", "/consent/openid/decision?flow_id=x").status_code == 400
    nobody = world.request("GET", f"/consent/openid/decision?flow_id={waiting}")
    assert went(nobody) == LOGIN
    early = world.request("POST", "/", data={"flow_id": waiting, "code": "123456"})
    assert went(early) == LOGIN


def test_a_wrong_password_typed_again_moves_nothing(world: World) -> None:
    """The page of `prompt=login` refuses a wrong password and leaves the session as it was."""
    app = App(world)
    app.log_in()
    world.clock.at += 10
    page = app.authorize(prompt="login").headers["location"]
    typed = {"flow_id": query(page)["flow_id"][0], "password": "wrong"}

    answer = world.request("POST", "/consent/openid/decision", data=typed, browser=app.browser)

    assert answer.status_code == 401
    assert claims(app.tokens()["id_token"])["auth_time"] == int(world.clock.at) - 10


# --- pushed requests --------------------------------------------------------------------------

PUSH = "/api/oidc/pushed-authorization-request"


def push(app: App, **changes: Any) -> httpx.Response:
    parameters = app.parameters(**changes)
    del parameters["client_id"]
    return app.post(PUSH, **parameters)


def pushed_url(app: App, request_uri: str) -> str:
    return f"{ISSUER}/api/oidc/authorization?client_id={app.client_id}&request_uri={request_uri}"


def test_a_pushed_request_is_good_once_through_the_log_in(world: World) -> None:
    """A pushed request leads through log-in and consent to a code, and then it is gone."""
    app = App(world, "authz-stepup")
    answer = push(app, scope="openid", prompt="consent")
    assert answer.status_code == 201
    assert answer.json()["expires_in"] == 300
    url = pushed_url(app, answer.json()["request_uri"])

    callback = world.runner.run(world.person().log_in(app.browser, url))

    tokens = app.exchange(query(callback)["code"][0])
    assert claims(tokens.json()["id_token"])["aud"] == ["authz-stepup"]
    assert went(world.request("GET", url, browser=app.browser)) == COMPLETION


def test_a_pushed_request_is_for_its_client_and_for_five_minutes(world: World) -> None:
    """Another client's id is told at the redirect URI, a missing and a late one on a page."""
    app, other = App(world, "authz-stepup"), App(world)

    first = push(app, scope="openid").json()["request_uri"]
    taken = told(world.request("GET", pushed_url(other, first)))
    assert taken["error_description"].endswith(
        "The 'client_id' must match the one sent in the pushed authorization request."
    )
    second = push(app, scope="openid").json()["request_uri"]
    nobody = world.request("GET", f"{ISSUER}/api/oidc/authorization?request_uri={second}")
    assert went(nobody) == COMPLETION
    third = push(app, scope="openid").json()["request_uri"]
    world.clock.at += 300
    assert went(world.request("GET", pushed_url(app, third))) == COMPLETION


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, (201, None), id="good"),
        pytest.param({"code_challenge": None}, (201, None), id="no challenge: told later"),
        pytest.param({"state": "short"}, (400, "invalid_state"), id="short state"),
        pytest.param({"scope": "mcp:nope"}, (400, "invalid_scope"), id="scope"),
        pytest.param({"resource": "https://evil.example"}, (400, "invalid_target"), id="resource"),
        pytest.param({"redirect_uri": "https://evil.example"}, (400, "invalid_request"), id="uri"),
    ],
)
def test_a_pushed_request_is_checked_when_it_is_pushed(
    world: World, changes: dict[str, Any], expected: tuple[int, str | None]
) -> None:
    """What the authorization endpoint would refuse is refused at once."""
    answer = push(App(world), **changes)

    assert (answer.status_code, answer.json().get("error")) == expected


def test_a_pushed_request_needs_a_client(world: World) -> None:
    """Nobody, and an unknown client, are refused in two wordings; GET is a 405."""
    nobody = world.request("POST", PUSH).json()
    unknown = world.request("POST", PUSH, data={"client_id": "nope"}).json()

    assert nobody["error_description"].endswith("could not be authenticated.")
    assert unknown["error_description"].endswith("unsupported authentication method).")
    assert world.request("GET", PUSH).status_code == 405


# --- not for production -----------------------------------------------------------------------


def test_every_answer_and_page_says_that_it_is_not_for_production(world: World) -> None:
    """The header is on everything, errors of the framework included; the pages say it in words."""
    app = App(world)
    page = world.request("GET", app.authorize().headers["location"])

    assert escape(WARNING) in page.text
    for path in ("/jwks.json", "/nope", "/", "/api/oidc/token", "/api/oidc/authorization"):
        assert world.request("GET", path).headers[HEADER] == "authz demo issuer"


def test_values_on_pages_are_escaped(world: World) -> None:
    """What a caller puts into an error is text on the page, never markup."""
    page = world.request("GET", "/consent/completion?error=<script>&error_description=<b>")

    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text
