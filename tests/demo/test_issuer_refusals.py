"""What the stand-in refuses, as Authelia 4.39.20 does: the refusals that other tests rely on.

What it answers where all is well is compared with recordings in `test_issuer_fixtures` and
`test_issuer_releases`.
"""

from dataclasses import replace
from html import escape
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from authz_demo.issuer.app import HEADER
from authz_demo.issuer.pages import WARNING
from authz_demo.login_drivers import LoginFailedError
from tests.demo.kit import FILES, ISSUER, App, DemoWorld, claims, query

TOKEN = "/api/oidc/token"
COMPLETION, LOGOUT = f"{ISSUER}/consent/completion", f"{ISSUER}/logout"
LOGIN = f"{ISSUER}/"
OFFLINE = "openid offline_access mcp:tools"
MACHINE = ("machine", "machine-secret")


def said(answer: httpx.Response) -> tuple[int, str]:
    """Status and error of an answer."""
    body = answer.json()
    assert body.keys() == {"error", "error_description"}
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, body["error"]


def registered(world: DemoWorld, client_id: str, **changes: Any) -> App:
    """Register one of the clients in another way."""
    config = world.issuer.config
    clients = tuple(
        replace(each, **changes) if each.client_id == client_id else each for each in config.clients
    )
    world.issuer.config = replace(config, clients=clients)
    return App(world, client_id)


def went(answer: httpx.Response) -> str:
    """Where a redirect leads, without its query."""
    return str(answer.headers["location"].partition("?")[0])


def told(answer: httpx.Response) -> dict[str, str]:
    """The members of an answer at the redirect URI."""
    assert answer.status_code == 303
    return {name: values[0] for name, values in query(answer.headers["location"]).items()}


# --- the token endpoint -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "auth", "expected"),
    [
        pytest.param({}, None, (400, "invalid_request"), id="empty"),
        pytest.param(
            {"client_id": "nobody", "grant_type": "authorization_code"},
            None,
            (401, "invalid_client"),
            id="unknown client",
        ),
        pytest.param(
            {"grant_type": "client_credentials"},
            ("machine", "wrong"),
            (401, "invalid_client"),
            id="wrong secret",
        ),
        pytest.param(
            {
                "grant_type": "client_credentials",
                "client_id": "machine",
                "client_secret": "machine-secret",
            },
            None,
            (401, "invalid_client"),
            id="right secret in the wrong place",
        ),
        pytest.param(
            {"client_id": "authz-stepup", "grant_type": "authorization_code"},
            None,
            (401, "invalid_client"),
            id="no proof where one is registered",
        ),
        pytest.param(
            {"client_id": "mcp-2fa", "grant_type": "authorization_code", "code": "authelia_ac_x.y"},
            None,
            (400, "invalid_grant"),
            id="unknown code",
        ),
        pytest.param(
            {"client_id": "mcp-2fa", "grant_type": "client_credentials"},
            None,
            (400, "invalid_grant"),
            id="machine without a secret",
        ),
        pytest.param(
            {"grant_type": "client_credentials", "scope": "openid"},
            MACHINE,
            (400, "invalid_scope"),
            id="scope not registered",
        ),
    ],
)
def test_a_token_request_is_refused_as_authelia_refuses_it(
    world: DemoWorld, data: dict[str, str], auth: tuple[str, str] | None, expected: tuple[int, str]
) -> None:
    """What is wrong with a token request is told in Authelia's status and code."""
    assert said(world.request("POST", TOKEN, data=data, auth=auth)) == expected


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"code_verifier": "a" * 43}, id="verifier of another"),
        pytest.param({"code_verifier": None}, id="no verifier"),
        pytest.param({"redirect_uri": "http://127.0.0.1:1/callback"}, id="other redirect uri"),
        pytest.param({"redirect_uri": None}, id="no redirect uri"),
    ],
)
def test_a_code_is_bound_to_its_request(world: DemoWorld, changes: dict[str, Any]) -> None:
    """A code is good for the verifier and redirect URI of its own request, for a minute."""
    app = App(world)

    assert said(app.exchange(app.log_in()["code"], **changes)) == (400, "invalid_grant")
    code = app.log_in()["code"]
    world.clock.at += 60
    assert said(app.exchange(code)) == (400, "invalid_grant")


def test_a_code_of_another_client_is_refused(world: DemoWorld) -> None:
    """A code is good for the client that it was issued to only."""
    app, other = App(world), App(world, "mcp-opaque")
    other.verifier = app.verifier

    answer = other.exchange(app.log_in()["code"])

    assert said(answer) == (400, "invalid_grant")


def test_a_code_used_twice_ends_the_tokens_of_its_first_use(world: DemoWorld) -> None:
    """A replayed code revokes what it was exchanged for: access and refresh token."""
    app = App(world)
    code = app.log_in(scope=OFFLINE)["code"]
    tokens = app.exchange(code).json()
    assert app.active(tokens["access_token"])

    answer = app.exchange(code)

    assert said(answer) == (400, "invalid_grant")
    assert not app.active(tokens["access_token"])
    assert said(app.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


def test_a_refresh_token_used_twice_ends_the_family(world: DemoWorld) -> None:
    """Reuse is answered with refusal, and the newest tokens end with it."""
    app = App(world)
    first = app.tokens(scope=OFFLINE)["refresh_token"]
    second = app.refresh(first).json()

    assert said(app.refresh(first)) == (400, "invalid_grant")
    assert said(app.refresh(second["refresh_token"])) == (400, "invalid_grant")
    assert not app.active(second["access_token"])


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
def test_revoking_either_token_ends_both(world: DemoWorld, which: str) -> None:
    """Revocation ends the whole family, whichever token is named."""
    app = App(world)
    tokens = app.tokens(scope=OFFLINE)

    answer = app.post("/api/oidc/revocation", token=tokens[which])

    assert (answer.status_code, answer.text) == (200, "")
    assert not app.active(tokens["access_token"])
    assert not app.active(tokens["refresh_token"])


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
def test_revoking_what_a_refresh_replaced_ends_nothing(world: DemoWorld, which: str) -> None:
    """Authelia answers 200 and looks for the newest tokens only, of either kind."""
    app = App(world)
    old = app.tokens(scope=OFFLINE)
    new = app.refresh(old["refresh_token"]).json()

    assert app.post("/api/oidc/revocation", token=old[which]).status_code == 200
    assert app.active(new["access_token"])
    assert app.active(new["refresh_token"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, (400, "unauthorized_client"), id="good"),
        pytest.param(
            {"aud": "https://auth.example.test/api/oidc/token"},
            (400, "unauthorized_client"),
            id="for the token endpoint",
        ),
        pytest.param({"iat": None}, (400, "unauthorized_client"), id="no iat"),
        pytest.param({"aud": "https://evil.example"}, (401, "invalid_client"), id="for another"),
        pytest.param({"exp": 1}, (401, "invalid_client"), id="expired"),
        pytest.param({"exp": None}, (401, "invalid_client"), id="no exp"),
        pytest.param({"jti": None}, (401, "invalid_client"), id="no jti"),
        pytest.param({"iss": "mcp-2fa"}, (401, "invalid_client"), id="of another issuer"),
    ],
)
def test_an_assertion_is_for_the_issuer_or_its_token_endpoint(
    world: DemoWorld, changes: dict[str, Any], expected: tuple[int, str]
) -> None:
    """A good assertion gets as far as the grant (which this client has not); a bad one does not."""
    app = App(world, "authz-stepup")
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

    answer = world.request(
        "POST",
        TOKEN,
        data={
            "grant_type": "refresh_token",
            "client_assertion_type": kind,
            "client_assertion": app.assertion(**changes),
        },
    )

    assert said(answer) == expected


def test_an_assertion_is_good_once(world: DemoWorld) -> None:
    """A second use of one `jti` is told apart; what cannot be decoded, missing, odd, too."""
    app = App(world, "authz-stepup")
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    sent = {"grant_type": "refresh_token", "client_assertion_type": kind}
    signed = app.assertion()

    def ask(**changes: str) -> tuple[int, str]:
        return said(world.request("POST", TOKEN, data=sent | changes))

    assert ask(client_assertion=signed) == (400, "unauthorized_client")
    assert ask(client_assertion=signed) == (400, "jti_known")
    assert ask(client_assertion="x.y.z") == (401, "invalid_client")
    assert ask() == (400, "invalid_request")
    assert ask(client_assertion=signed, client_assertion_type="x") == (400, "invalid_request")


def test_thirty_failures_silence_an_address(world: DemoWorld) -> None:
    """After thirty failures everything from that address is a 429; what succeeds is not counted."""
    bad = {"client_id": "mcp-2fa", "grant_type": "refresh_token", "refresh_token": "x"}
    good = {"grant_type": "client_credentials"}
    crowd = {"X-Forwarded-For": "198.51.100.7, 192.0.2.1"}
    for _ in range(30):
        assert world.request("POST", TOKEN, data=good, auth=MACHINE, headers=crowd).is_success
        assert world.request("POST", TOKEN, data=bad, headers=crowd).status_code == 400

    answer = world.request("POST", TOKEN, data=good, auth=MACHINE, address="198.51.100.7")

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    elsewhere = world.request("POST", TOKEN, data=good, auth=MACHINE, address="198.51.100.8")
    assert elsewhere.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"X-Forwarded-Proto": "http"}, id="plain http"),
        pytest.param({"X-Forwarded-Host": "evil.example"}, id="another host"),
        pytest.param({"X-Forwarded-Host": "auth.example.test:8443"}, id="another port"),
    ],
)
def test_it_answers_under_its_own_address_only(world: DemoWorld, headers: dict[str, str]) -> None:
    """Forwarded headers that name anything but the issuer are refused, each endpoint in its way."""
    for path in ("token", "introspection", "revocation", "pushed-authorization-request"):
        answer = world.request("POST", f"/api/oidc/{path}", data={"token": "x"}, headers=headers)
        assert said(answer) == (400, "invalid_request")
    assert world.request("GET", "/jwks.json", headers=headers).status_code == 400
    assert world.request("GET", "/api/oidc/authorization", headers=headers).status_code == 500


# --- the authorization endpoint ---------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"redirect_uri": None},
        *(
            {"redirect_uri": uri}
            for uri in (
                "https://evil.example/",
                "http://localhost:1/callback",
                "http://127.0.0.1:1/callback/",
                "http://127.0.0.1.evil.example/callback",
                "http://127.0.0.1:1@evil.example/callback",
                "https://127.0.0.1:1/callback",
            )
        ),
        {"request_uri": "urn:ietf:params:oauth:request_uri:nope"},
    ],
)
def test_nothing_is_sent_to_a_redirect_uri_that_is_not_known_to_be_right(
    world: DemoWorld, changes: dict[str, Any]
) -> None:
    """Without a client and its redirect URI the error is told on the issuer's own page."""
    answer = App(world).authorize(**changes)

    assert (answer.status_code, went(answer)) == (302, COMPLETION)
    assert "error" in query(answer.headers["location"])


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_loopback_address_may_have_any_port(world: DemoWorld, host: str) -> None:
    """The port of `127.0.0.1` and `[::1]` is the application's choice."""
    app = App(world, redirect_uri=f"http://{host}:61234/callback")

    assert "code" in app.log_in()


def test_a_pushed_request_is_good_once_for_its_client_and_for_five_minutes(
    world: DemoWorld,
) -> None:
    """A pushed request leads through the log-in to a code once (RFC 9126, section 2.2)."""
    app, other = App(world, "authz-stepup"), App(world)

    def push() -> str:
        parameters = app.parameters(scope="openid", prompt="consent")
        answer = app.post("/api/oidc/pushed-authorization-request", **parameters)
        assert (answer.status_code, answer.json()["expires_in"]) == (201, 300)
        reference = {"client_id": "authz-stepup", "request_uri": answer.json()["request_uri"]}
        return f"{ISSUER}/api/oidc/authorization?{urlencode(reference)}"

    url = push()
    callback = world.runner.run(world.person().log_in(app.browser, url))
    assert "code" in query(callback)
    assert went(world.request("GET", url, browser=app.browser)) == COMPLETION
    stolen = push().replace(app.client_id, other.client_id)
    assert "error" in told(world.request("GET", stolen))
    late = push()
    world.clock.at += 300
    assert went(world.request("GET", late)) == COMPLETION


def test_where_requests_are_to_be_pushed_others_end_on_a_page(world: DemoWorld) -> None:
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


# --- log-in, consent, log-out -----------------------------------------------------------------


def test_the_policy_of_the_client_asks_for_the_code(world: DemoWorld) -> None:
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


@pytest.mark.parametrize(
    ("person", "words"),
    [
        pytest.param({"username": "nobody"}, "Check your credentials", id="unknown"),
        pytest.param({"password": "wrong"}, "Check your credentials", id="wrong password"),
        pytest.param({"totp_secret": "A" * 32}, "please retry later", id="wrong code"),
    ],
)
def test_what_is_typed_wrong_is_refused(
    world: DemoWorld, person: dict[str, Any], words: str
) -> None:
    """Who does not know the password or the code gets no further."""
    with pytest.raises(LoginFailedError, match=words):
        App(world).log_in(replace(world.person(), **person))


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
    world: DemoWorld, changes: dict[str, Any], again: bool
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
def test_a_max_age_of_nothing_is_never_met(world: DemoWorld, age: str) -> None:
    """`max_age=0`, and one that is no number, ask for the password for ever."""
    with pytest.raises(LoginFailedError, match="in circles"):
        App(world).log_in(max_age=age)


def test_a_consent_is_good_for_its_request_and_its_person(world: DemoWorld) -> None:
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


def test_every_answer_and_page_says_that_it_is_not_for_production(world: DemoWorld) -> None:
    """The header is on everything, errors of the framework included; the pages say it in words."""
    app = App(world)
    page = world.request("GET", app.authorize().headers["location"])

    assert escape(WARNING) in page.text
    for path in ("/jwks.json", "/nope", "/", "/api/oidc/token", "/api/oidc/authorization"):
        assert world.request("GET", path).headers[HEADER] == "authz demo issuer"


def test_a_refreshed_id_token_repeats_how_the_person_logged_in(world: DemoWorld) -> None:
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
    world: DemoWorld, back: str, leads: str
) -> None:
    """`/logout?rd=…`: https within the domain of the sessions, or the portal."""
    app = App(world)
    app.log_in()
    answer = world.request("GET", f"{LOGOUT}?{urlencode({'rd': back})}", browser=app.browser)

    assert answer.headers["location"] == leads
    assert world.issuer.memory.sessions == {}
    assert query(app.authorize().headers["location"])["flow"] == ["openid_connect"]
