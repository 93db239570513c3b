"""The stand-in against the recorded Authelia, member by member.

Every recorded document, answer and token is asked of the stand-in again, at the recorded time: the
result has the same members, the same types and, but for what is random, the same values. A stand-in
that is more lenient than the real one would hide bugs.
"""

from typing import Any

import httpx
import jwt
import pytest

from authz_demo.issuer.metadata import authorization_server, openid_configuration
from authz_demo.login_drivers import LoginFailedError
from tests.demo.kit import ISSUER, App, DemoWorld, claims, query, recorded

FLOWS: dict[str, Any] = recorded("flows")
INTROSPECTION: dict[str, Any] = recorded("introspection")
REQUESTS: dict[str, Any] = recorded("requests")

# Made anew for every token: of these only the type is compared.
RANDOM = {"at_hash", "jti", "kid", "access_token", "id_token", "refresh_token"}
BROWSER_FLOWS = {name: flow for name, flow in FLOWS.items() if "request" in flow}
STOPPED = {name: flow for name, flow in BROWSER_FLOWS.items() if "stopped_at" in flow["callback"]}
ON_A_PAGE = {
    name: flow for name, flow in BROWSER_FLOWS.items() if flow["callback"].get("status") == 200
}
CALLED_BACK = BROWSER_FLOWS.keys() - STOPPED.keys() - ON_A_PAGE.keys()


def assert_same(expected: dict[str, Any], actual: dict[str, Any]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if name in RANDOM:
            assert type(actual[name]) is type(value), name
        else:
            assert actual[name] == value, name


def header(token: str) -> dict[str, Any]:
    return dict(jwt.get_unverified_header(token))


def app_of(world: DemoWorld, request: dict[str, Any]) -> tuple[App, dict[str, Any]]:
    """The client of a recorded request, and its parameters."""
    changes = dict(request)
    app = App(world, changes.pop("client", "mcp-2fa"))
    if changes.pop("pkce", True) is False:
        changes |= {"code_challenge": None, "code_challenge_method": None}
    if "redirect" in changes:
        app.redirect_uri = changes.pop("redirect")
    return app, changes


def moments(flow: dict[str, Any]) -> tuple[float, float]:
    """When the person typed something last, and when the code was exchanged."""
    access, id_token = flow.get("access") or {}, flow.get("id") or {}
    issued = access.get("claims", {}).get("iat") or id_token.get("claims", {}).get("iat")
    if issued is None:
        return 1795380727.0, 1795380729.5
    return id_token.get("claims", {}).get("auth_time", issued - 2), issued + 0.5


# In these the password was typed again, so the session was older than their `auth_time`.
TYPED_AGAIN = {"stepup max_age 1", "stepup prompt login"}


def log_in_first(app: App, name: str, flow: dict[str, Any]) -> None:
    """Bring the browser into the session that was recorded: one factor or two, john's or bob's."""
    typed, _ = moments(flow)
    app.world.clock.at = typed - 10 if name in TYPED_AGAIN else typed
    person = app.world.person("bob" if name == "bob" else "john")
    first = App(app.world, "mcp-1fa" if "1fa session" in name else "mcp-2fa")
    first.browser = app.browser
    first.log_in(person)
    app.world.clock.at = typed + 0.25


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CALLED_BACK))
def test_a_recorded_flow_is_answered_alike(world: DemoWorld, name: str) -> None:
    """Callback, answer, access token and ID token of every recorded flow come out the same."""
    flow = FLOWS[name]
    app, changes = app_of(world, flow["request"])
    log_in_first(app, name, flow)
    nonce = (flow["response"] or {}).get("_nonce", "n" * 12)

    callback = app.log_in(**{"nonce": nonce, **changes})

    random = {key: callback.pop(key) for key in ("code", "state") if key in callback}
    assert callback == flow["callback"]
    if flow["response"] is None:
        assert "code" not in random
        return
    world.clock.at = moments(flow)[1]
    answer = app.exchange(random["code"]).json()
    assert_same(flow["response"], answer | {"_nonce": nonce})
    assert_tokens(flow, answer)


def assert_tokens(flow: dict[str, Any], answer: dict[str, Any]) -> None:
    if "opaque" in flow["access"]:
        assert_opaque("authelia_at_", flow["response"]["access_token"], answer["access_token"])
    else:
        assert_same(flow["access"]["claims"], claims(answer["access_token"]))
        assert_same(flow["access"]["header"], header(answer["access_token"]))
    if "refresh_token" in flow["response"]:
        assert_opaque("authelia_rt_", flow["response"]["refresh_token"], answer["refresh_token"])
    if flow["id"] is not None:
        assert_same(flow["id"]["claims"], claims(answer["id_token"]))
        assert_same(flow["id"]["header"], header(answer["id_token"]))


def assert_opaque(prefix: str, expected: str, actual: str) -> None:
    assert actual.startswith(prefix)
    assert [len(part) for part in actual.split(".")] == [len(p) for p in expected.split(".")]


@pytest.mark.parametrize("name", sorted(STOPPED))
def test_a_recorded_flow_stops_at_the_log_in(world: DemoWorld, name: str) -> None:
    """A session with too few factors is sent to the log-in page, `prompt=none` or not."""
    flow = FLOWS[name]
    app, changes = app_of(world, flow["request"])
    log_in_first(app, name, flow)

    answer = app.authorize(**changes)

    assert answer.status_code == flow["callback"]["status"]
    stopped, expected = answer.headers["location"], flow["callback"]["stopped_at"]
    assert stopped.partition("?")[0] == expected.partition("?")[0]
    assert query(stopped).keys() == query(expected).keys()
    assert query(stopped)["flow"] == query(expected)["flow"]


@pytest.mark.parametrize("name", sorted(ON_A_PAGE))
def test_a_recorded_flow_ends_on_a_page(world: DemoWorld, name: str) -> None:
    """An unknown client and a redirect URI that is not registered are told on a page, with 200."""
    flow = FLOWS[name]
    app, changes = app_of(world, flow["request"])
    app.client_id = flow["request"].get("client", app.client_id)
    log_in_first(app, name, flow)

    first = app.authorize(**changes)

    assert query(first.headers["location"]).keys() == {
        "error",
        "error_description",
        "error_hint",
        "error_status_code",
    }
    page = world.request("GET", first.headers["location"], browser=app.browser)
    assert page.status_code == flow["callback"]["status"]
    with pytest.raises(LoginFailedError):
        app.log_in(**changes)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        pytest.param("client credentials", {"scope": "mcp:tools"}, id="audience by itself"),
        pytest.param(
            "client credentials aud",
            {"scope": "mcp:tools", "audience": "https://mcp.example.test/files"},
            id="audience asked for",
        ),
    ],
)
def test_a_machine_gets_the_recorded_token(
    world: DemoWorld, name: str, asked: dict[str, str]
) -> None:
    """A client without a person gets a token without a subject."""
    flow = FLOWS[name]
    world.clock.at = flow["access"]["claims"]["iat"] + 0.5

    answer = App(world, "machine").post("/api/oidc/token", grant_type="client_credentials", **asked)

    assert_response(flow["response"], answer)
    assert_same(flow["access"]["claims"], claims(answer.json()["access_token"]))
    assert_same(flow["access"]["header"], header(answer.json()["access_token"]))


def test_every_recorded_flow_is_replayed() -> None:
    """There is no recorded flow that the stand-in does not stand in for."""
    replayed = CALLED_BACK | STOPPED.keys() | ON_A_PAGE.keys()

    assert FLOWS.keys() - replayed == {"client credentials", "client credentials aud"}


def assert_response(expected: dict[str, Any], actual: httpx.Response) -> None:
    """Status, the recorded headers, and the body's members."""
    assert actual.status_code == expected["status"]
    for name, value in expected["headers"].items():
        assert actual.headers.get(name) == value, name
    if expected["body"] == "":
        assert actual.text == ""
    else:
        assert_same(expected["body"], actual.json())


# --- introspection, refresh, revocation, userinfo ---------------------------------------------


class Replay:
    """Asks for what was recorded, each at its recorded time, and compares."""

    def __init__(self, world: DemoWorld) -> None:
        self.world = world
        self.resource_server = App(world, "introspector")
        self.compared: set[str] = set()

    def tokens(self, client: str, at: int, auth_time: int, **changes: Any) -> dict[str, Any]:
        app = App(self.world, client)
        self.world.clock.at = float(auth_time)
        callback = app.log_in(**changes)
        self.world.clock.at = at + 0.5
        return dict(app.exchange(callback["code"]).json())

    def introspected(self, name: str, token: str, **changes: Any) -> None:
        self.answered(name, self.resource_server.introspect(token, **changes))

    def answered(self, name: str, answer: httpx.Response) -> None:
        assert_response(INTROSPECTION[name], answer)
        self.compared.add(name)


def test_introspection_and_its_kin_answer_as_recorded(world: DemoWorld) -> None:
    """Introspection, refresh, reuse, revocation and userinfo answer as recorded, each of them."""
    replay, at = Replay(world), 1795380729
    opaque_scopes = "openid offline_access mcp:tools mcp:admin"
    signed = replay.tokens("mcp-2fa", at, 1795380727)["access_token"]
    marker = replay.tokens("mcp-marker", at, 1795380729, scope="openid mcp:tools mcp:assurance")
    opaque = replay.tokens(
        "mcp-opaque", at, 1795380727, scope=opaque_scopes, nonce="SyyW6JWAloH41qRf"
    )

    replay.introspected("jwt", signed)
    replay.introspected("bearer jwt accept", signed, token_type_hint="access_token")
    replay.introspected("marker", marker["access_token"])
    replay.introspected("opaque", opaque["access_token"])
    replay.introspected("opaque refresh token", opaque["refresh_token"])
    replay.introspected("id token", opaque["id_token"])
    replay.introspected("garbage", "garbage")
    replay.introspected("empty", "")
    unproved = world.request("POST", "/api/oidc/introspection", data={"token": signed})
    replay.answered("unauthenticated", unproved)
    wrong = ("introspector", "wrong")
    refused = world.request("POST", "/api/oidc/introspection", data={"token": signed}, auth=wrong)
    replay.answered("wrong secret", refused)

    bearer = {"Authorization": f"Bearer {marker['access_token']}"}
    replay.answered("userinfo", world.request("GET", "/api/oidc/userinfo", headers=bearer))
    App(world, "mcp-marker").post("/api/oidc/revocation", token=marker["access_token"])
    revoked = world.request("GET", "/api/oidc/userinfo", headers=bearer)
    replay.answered("userinfo revoked", revoked)
    replay.answered("revoke jwt", App(world).post("/api/oidc/revocation", token=signed))
    replay.introspected("jwt after revoke", signed)

    machine = App(world, "machine")
    world.clock.at = 1795380738.5
    asked = {"grant_type": "client_credentials", "scope": "mcp:tools"}
    own = machine.post("/api/oidc/token", **asked).json()["access_token"]
    replay.introspected("client credentials", own)

    world.clock.at = 1795380740.5
    client = App(world, "mcp-opaque")
    renewed = client.refresh(opaque["refresh_token"])
    replay.answered("refresh", renewed)
    assert_same(INTROSPECTION["id in refresh"]["claims"], claims(renewed.json()["id_token"]))
    assert_same(INTROSPECTION["id in refresh"]["header"], header(renewed.json()["id_token"]))
    replay.compared.add("id in refresh")
    replay.introspected("old access after refresh", opaque["access_token"])
    replay.introspected("new access after refresh", renewed.json()["access_token"])
    replay.answered("reuse old refresh", client.refresh(opaque["refresh_token"]))
    replay.introspected("new access after reuse", renewed.json()["access_token"])

    late = replay.tokens(
        "mcp-opaque", 1795380742, 1795380740, scope="openid offline_access mcp:tools"
    )
    hint = "refresh token hint access_token"
    replay.introspected(hint, late["refresh_token"], token_type_hint="access_token")
    assert replay.compared == INTROSPECTION.keys()


# --- documents --------------------------------------------------------------------------------


@pytest.mark.parametrize("issuer", [ISSUER, "https://login.example.org:8443"])
def test_the_metadata_documents_equal_the_recorded_ones(issuer: str) -> None:
    """Both discovery documents are the recorded ones, but for the issuer."""

    def elsewhere(document: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value.replace(ISSUER, issuer) if isinstance(value, str) else value
            for name, value in document.items()
        }

    assert openid_configuration(issuer) == elsewhere(recorded("openid-configuration"))
    assert authorization_server(issuer) == elsewhere(recorded("oauth-authorization-server"))


def test_the_key_set_has_the_recorded_shape(world: DemoWorld) -> None:
    """The key set has the recorded keys' members, types and constants, in their order."""
    public = {"kid", "n", "x", "y"}

    keys = world.request("GET", "/jwks.json").json()["keys"]

    assert len(keys) == 2
    for expected, actual in zip(recorded("jwks")["keys"], keys, strict=True):
        assert list(actual) == list(expected)
        for name, value in expected.items():
            assert (len(actual[name]) == len(value)) if name in public - {"kid"} else True
            assert actual[name] == value or name in public


@pytest.mark.parametrize("name", [name for name in REQUESTS if name.startswith("GET ")])
def test_a_document_is_served_with_the_recorded_headers(world: DemoWorld, name: str) -> None:
    """A document may not be kept, and has no CORS header unless an origin asks."""
    expected = REQUESTS[name]

    answer = world.request("GET", name.removeprefix("GET "))

    assert answer.status_code == expected["status"]
    assert answer.headers["cache-control"] == expected["cache-control"]
    assert answer.headers["content-type"] == expected["content-type"]
    assert answer.headers.get("access-control-allow-origin") == expected["acao"]


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        pytest.param("discovery plain http", "GET", "/.well-known/openid-configuration", id="doc"),
        pytest.param("jwks plain http", "GET", "/jwks.json", id="jwks"),
        pytest.param("register", "POST", "/api/oidc/register", id="register"),
    ],
)
def test_a_recorded_refusal_is_answered_alike(
    world: DemoWorld, name: str, method: str, path: str
) -> None:
    """Plain http is a 400, and there is no registration, in the recorded words."""
    plain = {"X-Forwarded-Proto": "http"} if "plain" in name else {}

    answer = world.request(method, path, headers=plain)

    assert answer.status_code == REQUESTS[name]["status"]
    assert answer.text == REQUESTS[name]["body"]
    assert answer.headers["content-type"] == REQUESTS[name]["headers"]["content-type"]
