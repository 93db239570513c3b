"""The token endpoint and its kin: what Authelia 4.39.20 answered when it was asked by hand.

The recordings hold the good flows; these tables hold the refusals, word for word as they were seen.
"""

from typing import Any

import pytest

from tests.demo.kit import FILES, NOTES, App, World, claims

TOKEN = "/api/oidc/token"
INVALID_GRANT = (
    "The provided authorization grant (e.g., authorization code, resource owner credentials) or "
    "refresh token is invalid, expired, revoked, does not match the redirection URI used in the "
    "authorization request, or was issued to another client."
)
MALFORMED = (
    "The request is missing a required parameter, includes an invalid parameter value, includes a "
    "parameter more than once, or is otherwise malformed."
)
DEFAULT_HINT = (
    "Make sure that the various parameters are correct, be aware of case sensitivity and trim your "
    "parameters. Make sure that the client you are using has exactly whitelisted the redirect_uri "
    "you specified."
)
NO_CLIENT = (
    "Client authentication failed (e.g., unknown client, no client authentication included, or "
    "unsupported authentication method)."
)
WRONG_METHOD = (
    "The request was determined to be using 'token_endpoint_auth_method' method '{}', however the "
    "OAuth 2.0 client registration does not allow this method."
)
PUBLIC_MACHINE = (
    "The OAuth 2.0 Client is marked as public and is thus not allowed to use authorization grant "
    "'client_credentials'."
)
NOT_THAT_GRANT = (
    "The client is not authorized to request a token using this method. The OAuth 2.0 Client is "
    "not allowed to use authorization grant 'refresh_token'."
)
BAD_SCOPE = "The requested scope is invalid, unknown, or malformed."
BOTH = "The 'resource' parameter is only allowed when the 'audience' parameter is not also present."
OFFLINE = "openid offline_access mcp:tools"


def said(answer: Any) -> tuple[int, str, str]:
    """Status, error, and the hint after the error's own sentence."""
    body = answer.json()
    assert body.keys() == {"error", "error_description"}
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, body["error"], body["error_description"]


@pytest.mark.parametrize(
    ("data", "auth", "expected"),
    [
        pytest.param(
            {},
            None,
            (400, "invalid_request", f"{MALFORMED} The POST body can not be empty."),
            id="empty",
        ),
        pytest.param(
            {"client_id": "mcp-2fa"},
            None,
            (400, "invalid_request", f"{MALFORMED} Request parameter 'grant_type' is missing"),
            id="no grant type",
        ),
        pytest.param(
            {"client_id": "mcp-2fa", "grant_type": "password"},
            None,
            (400, "invalid_request", f"{MALFORMED} {DEFAULT_HINT}"),
            id="unknown grant type",
        ),
        pytest.param(
            {"client_id": "nobody", "grant_type": "authorization_code"},
            None,
            (401, "invalid_client", NO_CLIENT),
            id="unknown client",
        ),
        pytest.param(
            {"grant_type": "refresh_token"},
            None,
            (400, "invalid_request", f"{MALFORMED} Client Credentials missing or malformed."),
            id="no client",
        ),
        pytest.param(
            {"grant_type": "client_credentials"},
            ("machine", "wrong"),
            (401, "invalid_client", NO_CLIENT),
            id="wrong secret",
        ),
        pytest.param(
            {
                "grant_type": "client_credentials",
                "client_id": "machine",
                "client_secret": "machine-secret",
            },
            None,
            (
                401,
                "invalid_client",
                f"{NO_CLIENT} {WRONG_METHOD.format('client_secret_post')}",
            ),
            id="right secret in the wrong place",
        ),
        pytest.param(
            {"client_id": "authz-stepup", "grant_type": "authorization_code"},
            None,
            (
                401,
                "invalid_client",
                f"{NO_CLIENT} {WRONG_METHOD.format('none')}",
            ),
            id="no proof where one is registered",
        ),
        pytest.param(
            {"client_id": "mcp-2fa", "grant_type": "authorization_code", "code": "authelia_ac_x.y"},
            None,
            (400, "invalid_grant", INVALID_GRANT),
            id="unknown code",
        ),
        pytest.param(
            {"client_id": "mcp-2fa", "grant_type": "refresh_token"},
            None,
            (400, "invalid_grant", INVALID_GRANT),
            id="no refresh token",
        ),
        pytest.param(
            {"client_id": "mcp-2fa", "grant_type": "client_credentials"},
            None,
            (
                400,
                "invalid_grant",
                f"{INVALID_GRANT} {PUBLIC_MACHINE}",
            ),
            id="machine without a secret",
        ),
        pytest.param(
            {"grant_type": "refresh_token", "refresh_token": "x"},
            ("machine", "machine-secret"),
            (
                400,
                "unauthorized_client",
                NOT_THAT_GRANT,
            ),
            id="grant not registered",
        ),
        pytest.param(
            {"grant_type": "client_credentials", "scope": "openid"},
            ("machine", "machine-secret"),
            (
                400,
                "invalid_scope",
                f"{BAD_SCOPE} The OAuth 2.0 Client is not allowed to request scope 'openid'.",
            ),
            id="scope not registered",
        ),
        pytest.param(
            {"grant_type": "client_credentials", "resource": FILES, "audience": FILES},
            ("machine", "machine-secret"),
            (
                400,
                "invalid_request",
                f"{MALFORMED} {BOTH}",
            ),
            id="resource and audience",
        ),
    ],
)
def test_a_token_request_is_refused_as_authelia_refuses_it(
    world: World,
    data: dict[str, str],
    auth: tuple[str, str] | None,
    expected: tuple[int, str, str],
) -> None:
    """What is wrong with a token request is told in Authelia's status, code and words."""
    assert said(world.request("POST", TOKEN, data=data, auth=auth)) == expected


def test_the_token_endpoint_takes_forms_by_post_only(world: World) -> None:
    """GET is a 405 in plain text; a JSON body is an empty form."""
    got = world.request("GET", TOKEN)
    json = world.request("POST", TOKEN, json={"grant_type": "client_credentials"})

    assert (got.status_code, got.text) == (405, "405 Method Not Allowed")
    assert got.headers["allow"] == "OPTIONS, POST"
    assert said(json)[2].endswith("The POST body can not be empty.")


def test_a_client_may_post_its_secret_where_it_is_registered_to(world: World) -> None:
    """`client_secret_post` works for the client that is registered for it; the token is opaque."""
    answer = App(world, "poster").post(TOKEN, grant_type="client_credentials", scope="mcp:tools")

    assert answer.status_code == 200
    assert answer.json()["access_token"].startswith("authelia_at_")


# --- codes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        pytest.param(
            {"code_verifier": "a" * 43},
            "The PKCE code challenge did not match the code verifier.",
            id="verifier of another",
        ),
        pytest.param(
            {"code_verifier": None},
            "The PKCE code verifier must be at least 43 characters.",
            id="no verifier",
        ),
        pytest.param(
            {"code_verifier": "a" * 129},
            "The PKCE code verifier must be no more than 128 characters.",
            id="long verifier",
        ),
        pytest.param(
            {"code_verifier": "a" * 42 + " "},
            "The PKCE code verifier must only contain [a-Z], [0-9], '-', '.', '_', '~'.",
            id="odd verifier",
        ),
        pytest.param(
            {"redirect_uri": "http://127.0.0.1:1/callback"},
            "The 'redirect_uri' from this request does not match the one from the authorize "
            "request.",
            id="other redirect uri",
        ),
        pytest.param(
            {"redirect_uri": None},
            "The 'redirect_uri' from this request does not match the one from the authorize "
            "request.",
            id="no redirect uri",
        ),
    ],
)
def test_a_code_is_bound_to_its_request(world: World, changes: dict[str, Any], hint: str) -> None:
    """A code is good for the verifier and redirect URI of its own request only."""
    app = App(world)

    answer = app.exchange(app.log_in()["code"], **changes)

    assert said(answer) == (400, "invalid_grant", f"{INVALID_GRANT} {hint}")


def test_a_verifier_can_be_tried_once(world: World) -> None:
    """After one wrong verifier the right one is refused too."""
    app = App(world)
    code = app.log_in()["code"]
    app.exchange(code, code_verifier="a" * 43)

    answer = app.exchange(code)

    hint = "Unable to find initial PKCE data tied to this request."
    assert said(answer) == (400, "invalid_grant", f"{INVALID_GRANT} {hint}")


def test_a_code_of_another_client_is_refused(world: World) -> None:
    """A code is good for the client that it was issued to only."""
    app, other = App(world), App(world, "mcp-opaque")
    other.verifier = app.verifier

    answer = other.exchange(app.log_in()["code"])

    assert said(answer)[2].endswith("does not match the one from the authorize request.")


def test_a_code_used_twice_ends_the_tokens_of_its_first_use(world: World) -> None:
    """A replayed code revokes what it was exchanged for: access and refresh token."""
    app = App(world)
    code = app.log_in(scope=OFFLINE)["code"]
    tokens = app.exchange(code).json()
    assert app.active(tokens["access_token"])

    answer = app.exchange(code)

    hint = "The authorization code has already been used."
    assert said(answer) == (400, "invalid_grant", f"{INVALID_GRANT} {hint}")
    assert not app.active(tokens["access_token"])
    assert said(app.refresh(tokens["refresh_token"]))[2] == INVALID_GRANT


def test_a_code_is_good_for_a_minute(world: World) -> None:
    """After its lifetime a code is an unknown one."""
    app = App(world)
    code = app.log_in()["code"]
    world.clock.at += 60

    assert said(app.exchange(code)) == (400, "invalid_grant", INVALID_GRANT)


# --- resources --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "at_token", "audience"),
    [
        pytest.param({"resource": FILES}, {}, [FILES], id="one"),
        pytest.param({"resource": FILES}, {"resource": FILES}, [FILES], id="the same again"),
        pytest.param({"resource": [FILES, NOTES]}, {"resource": NOTES}, [NOTES], id="narrowed"),
        pytest.param({"resource": f"{FILES} {NOTES}"}, {}, [FILES, NOTES], id="two in one"),
        pytest.param({"resource": FILES}, {"resource": f"{FILES}/x"}, [f"{FILES}/x"], id="below"),
        pytest.param({}, {"audience": FILES}, [FILES], id="audience at the token endpoint"),
        pytest.param({"resource": ""}, {}, [], id="named, but empty"),
        pytest.param({"audience": f"{FILES}/x"}, {}, [f"{FILES}/x"], id="audience below"),
        pytest.param(
            {"resource": f"{FILES}/%2e%2e/notes"}, {}, [f"{FILES}/%2e%2e/notes"], id="escaped dots"
        ),
        pytest.param(
            {"resource": FILES.replace("https", "HTTPS")},
            {},
            [FILES.replace("https", "HTTPS")],
            id="scheme in capitals",
        ),
        pytest.param(
            {"resource": FILES.replace("//", "//u:p@")},
            {},
            [FILES.replace("//", "//u:p@")],
            id="user info",
        ),
        pytest.param({"resource": FILES}, {"resource": NOTES}, None, id="another at the token"),
        pytest.param(
            {"resource": f"{FILES}/x"}, {"resource": FILES}, None, id="wider at the token"
        ),
        pytest.param({"resource": FILES}, {"resource": f"{FILES}#x"}, None, id="fragment"),
        pytest.param({"resource": FILES}, {"resource": "files"}, None, id="relative"),
        pytest.param({"resource": FILES}, {"resource": "https://[x/"}, None, id="no URL at all"),
    ],
)
def test_a_resource_is_granted_by_path_prefix_verbatim(
    world: World, asked: dict[str, Any], at_token: dict[str, Any], audience: list[str] | None
) -> None:
    """The audience is what was asked for, letter by letter, wherever the path begins alike."""
    app = App(world)

    answer = app.exchange(app.log_in(**asked)["code"], **at_token)

    if audience is None:
        assert said(answer)[:2] == (400, "invalid_target")
    else:
        assert claims(answer.json()["access_token"])["aud"] == audience


@pytest.mark.parametrize(
    ("resource", "granted"),
    [
        ("https://mcp.example.test/files/../notes", True),
        ("https://mcp.example.test/files/../../x", True),
        ("https://mcp.example.test/files//x", True),
        ("https://mcp.example.test/files%2fx", True),
        ("https://mcp.example.test/%66iles", True),
        ("https://mcp.example.test/./files", False),
        ("https://mcp.example.test/filesystem", False),
        ("https://mcp.example.test/notes", False),
    ],
)
def test_a_client_that_may_have_files_gets_all_that_begins_alike(
    world: World, resource: str, granted: bool
) -> None:
    """Dot segments are never resolved: who may have `/files` also gets `/files/../notes`."""
    asked = {"grant_type": "client_credentials", "resource": resource}

    answer = App(world, "machine").post(TOKEN, **asked)

    if granted:
        assert claims(answer.json()["access_token"])["aud"] == [resource]
    else:
        assert said(answer)[:2] == (400, "invalid_target")


def test_explicit_mode_grants_no_audience_unasked(world: World) -> None:
    """In explicit mode nothing is granted unasked, nor later at the token endpoint."""
    app = App(world, "mcp-1fa")

    answer = app.exchange(app.log_in()["code"], resource=FILES)

    assert said(answer)[:2] == (400, "invalid_target")


# --- refresh ----------------------------------------------------------------------------------


def test_no_refresh_token_without_offline_access(world: World) -> None:
    """A grant without `offline_access` cannot be refreshed."""
    assert "refresh_token" not in App(world).tokens()


def test_a_refresh_may_ask_for_less_and_the_next_one_for_all_again(world: World) -> None:
    """Fewer scopes are for the new access token alone; a narrowed audience is for good."""
    app = App(world)
    token = app.tokens(scope=OFFLINE, resource=[FILES, NOTES])["refresh_token"]

    narrow = app.refresh(token, scope="mcp:tools", resource=NOTES).json()
    wide = app.refresh(narrow["refresh_token"]).json()

    assert (narrow["scope"], "id_token" in narrow) == ("mcp:tools", False)
    assert claims(narrow["access_token"])["scp"] == ["mcp:tools"]
    assert wide["scope"] == OFFLINE
    assert claims(wide["access_token"])["aud"] == [NOTES]
    refused = app.refresh(wide["refresh_token"], resource=FILES)
    assert said(refused)[:2] == (400, "invalid_target")


def test_a_refresh_may_not_ask_for_more(world: World) -> None:
    """A scope that was not granted is refused, and the refresh token stays good."""
    app = App(world)
    token = app.tokens(scope=OFFLINE)["refresh_token"]

    unasked = "The requested scope 'mcp:admin' was not originally granted by the resource owner."
    assert said(app.refresh(token, scope="mcp:tools mcp:admin")) == (
        400,
        "invalid_scope",
        f"{BAD_SCOPE} {unasked}",
    )
    assert app.refresh(token).status_code == 200


def test_another_clients_refresh_token_is_refused_and_stays_good(world: World) -> None:
    """A refresh token is good for its own client only; trying it elsewhere ends nothing."""
    app, other = App(world), App(world, "mcp-opaque")
    token = app.tokens(scope=OFFLINE)["refresh_token"]

    assert said(other.refresh(token))[2].endswith(
        "does not match the ID during the initial token issuance."
    )
    assert app.refresh(token).status_code == 200


def test_a_refresh_token_used_twice_ends_the_family(world: World) -> None:
    """Reuse is answered with refusal, and the newest tokens end with it."""
    app = App(world)
    first = app.tokens(scope=OFFLINE)["refresh_token"]
    second = app.refresh(first).json()

    assert said(app.refresh(first)) == (400, "invalid_grant", INVALID_GRANT)
    assert said(app.refresh(second["refresh_token"])) == (400, "invalid_grant", INVALID_GRANT)
    assert not app.active(second["access_token"])


def test_tokens_end_with_their_lifetime(world: World) -> None:
    """An access token is active for an hour, a refresh token for ninety minutes."""
    app = App(world)
    tokens = app.tokens(scope=OFFLINE)

    world.clock.at += 3600
    assert not app.active(tokens["access_token"])
    assert app.active(tokens["refresh_token"])
    world.clock.at += 1800
    assert not app.active(tokens["refresh_token"])
    assert said(app.refresh(tokens["refresh_token"])) == (400, "invalid_grant", INVALID_GRANT)


# --- revocation -------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
def test_revoking_either_token_ends_both(world: World, which: str) -> None:
    """Revocation ends the whole family, whichever token is named."""
    app = App(world)
    tokens = app.tokens(scope=OFFLINE)

    answer = app.post("/api/oidc/revocation", token=tokens[which])

    assert (answer.status_code, answer.text) == (200, "")
    assert not app.active(tokens["access_token"])
    assert not app.active(tokens["refresh_token"])


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
def test_revoking_what_a_refresh_replaced_ends_nothing(world: World, which: str) -> None:
    """Authelia answers 200 and looks for the newest tokens only, of either kind."""
    app = App(world)
    old = app.tokens(scope=OFFLINE)
    new = app.refresh(old["refresh_token"]).json()

    assert app.post("/api/oidc/revocation", token=old[which]).status_code == 200
    assert app.active(new["access_token"])
    assert app.active(new["refresh_token"])


def test_revocation_is_for_the_tokens_own_client(world: World) -> None:
    """Another client cannot revoke; unknown tokens are answered like known ones."""
    app, other = App(world), App(world, "mcp-opaque")
    tokens = app.tokens()

    refused = other.post("/api/oidc/revocation", token=tokens["access_token"])

    assert said(refused)[:2] == (400, "unauthorized_client")
    assert app.active(tokens["access_token"])
    assert app.post("/api/oidc/revocation", token="authelia_at_x.y").status_code == 200
    assert app.post("/api/oidc/revocation").status_code == 200
    assert said(world.request("POST", "/api/oidc/revocation"))[:2] == (400, "invalid_request")
    unproved = world.request(
        "POST", "/api/oidc/revocation", data={"token": "x"}, auth=("machine", "wrong")
    )
    assert said(unproved) == (401, "invalid_client", NO_CLIENT)


# --- introspection and userinfo ---------------------------------------------------------------


def test_any_client_may_introspect_even_a_public_one(world: World) -> None:
    """Naming a public client is proof enough; a code, and an empty body, are told apart."""
    app = App(world)
    code = app.log_in()["code"]

    assert not app.active(code)
    assert App(world, "machine").active(app.exchange(code).json()["access_token"])
    empty = world.request("POST", "/api/oidc/introspection", auth=("machine", "machine-secret"))
    assert said(empty)[2].endswith("The POST body can not be empty.")


@pytest.mark.parametrize(
    ("scope", "kind", "status", "challenge"),
    [
        pytest.param(
            "mcp:tools",
            "access_token",
            403,
            'Bearer error="insufficient_scope", error_description="The request requires higher '
            "privileges than provided by the Access Token. The granted scope was missing the "
            "'openid' scope.\", error_hint=\"The granted scope was missing the 'openid' scope.\", "
            'scope="openid"',
            id="no openid",
        ),
        pytest.param(
            OFFLINE,
            "refresh_token",
            400,
            'Bearer error_description="Only OpenID Connect 1.0 Access Tokens are allowed in the '
            'authorization header. Check that you provided a valid token in the right format.", '
            'error_hint="Check that you provided a valid token in the right format.", '
            'error="invalid_token"',
            id="refresh token",
        ),
        pytest.param(
            "openid",
            "id_token",
            401,
            'Bearer error="request_unauthorized",error_description="The request could not be '
            'authorized. Check that you provided valid credentials in the right format."',
            id="id token",
        ),
    ],
)
def test_userinfo_is_for_access_tokens_with_openid(
    world: World, scope: str, kind: str, status: int, challenge: str
) -> None:
    """Everything but an access token with `openid` is refused, in three ways of wording it."""
    token = App(world).tokens(scope=scope)[kind]

    answer = world.request(
        "GET", "/api/oidc/userinfo", headers={"Authorization": f"Bearer {token}"}
    )

    assert (answer.status_code, answer.headers["www-authenticate"]) == (status, challenge)


def test_userinfo_tells_what_the_scopes_let_out(world: World) -> None:
    """With `profile`, `email` and `groups` granted, userinfo has the claims that were seen."""
    token = App(world).tokens(scope="openid profile email groups")["access_token"]

    answer = world.request(
        "GET", "/api/oidc/userinfo", headers={"Authorization": f"Bearer {token}"}
    )

    assert answer.json() == {
        "email": "john@example.test",
        "email_verified": True,
        "groups": ["admins", "dev"],
        "name": "John Doe",
        "preferred_username": "john",
        "rat": int(world.clock.at),
        "sub": world.issuer.config.users[0].subject,
        "updated_at": int(world.clock.at),
    }


def test_groups_are_in_no_access_token_without_the_policy(world: World) -> None:
    """The scope alone puts no groups into a JWT; the client's claims policy has to."""
    token = App(world).tokens(scope="openid groups mcp:tools")["access_token"]

    assert "groups" not in claims(token)


# --- assertions -------------------------------------------------------------------------------


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
    world: World, changes: dict[str, Any], expected: tuple[int, str]
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

    assert said(answer)[:2] == expected


def test_an_assertion_is_good_once(world: World) -> None:
    """A second use of one `jti` is told apart; what cannot be decoded, missing, odd, too."""
    app = App(world, "authz-stepup")
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    sent = {"grant_type": "refresh_token", "client_assertion_type": kind}
    signed = app.assertion()

    def ask(**changes: str) -> tuple[int, str]:
        return said(world.request("POST", TOKEN, data=sent | changes))[:2]

    assert ask(client_assertion=signed) == (400, "unauthorized_client")
    assert ask(client_assertion=signed) == (400, "jti_known")
    assert ask(client_assertion="x.y.z") == (401, "invalid_client")
    assert ask() == (400, "invalid_request")
    assert ask(client_assertion=signed, client_assertion_type="x") == (400, "invalid_request")


def test_introspection_takes_no_assertion_for_its_own_url(world: World) -> None:
    """The introspection endpoint's URL is no audience, not even there."""
    app = App(world, "authz-stepup")
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    own = app.assertion(aud="https://auth.example.test/api/oidc/introspection")

    answer = world.request(
        "POST",
        "/api/oidc/introspection",
        data={"token": "x", "client_assertion_type": kind, "client_assertion": own},
    )

    assert said(answer)[:2] == (401, "request_unauthorized")
    assert app.introspect("x").json() == {"active": False}


# --- failures ---------------------------------------------------------------------------------


def test_thirty_failures_silence_an_address(world: World) -> None:
    """After thirty failures everything from that address is a 429, good requests included."""
    bad = {"client_id": "mcp-2fa", "grant_type": "refresh_token", "refresh_token": "x"}
    good = {"grant_type": "client_credentials"}
    machine = ("machine", "machine-secret")
    crowd = {"X-Forwarded-For": "198.51.100.7, 192.0.2.1"}
    for _ in range(30):
        assert world.request("POST", TOKEN, data=bad, headers=crowd).status_code == 400

    answer = world.request("POST", TOKEN, data=good, auth=machine, address="198.51.100.7")

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert said(answer)[1:] == (
        "temporarily_unavailable",
        "Too many requests. The endpoint is temporarily unavailable. Try again later.",
    )
    elsewhere = world.request("POST", TOKEN, data=good, auth=machine, address="198.51.100.8")
    assert elsewhere.status_code == 200
    introspected = App(world, "machine", address="198.51.100.7").introspect("x")
    assert introspected.status_code == 200


def test_what_succeeds_is_not_counted(world: World) -> None:
    """Good requests may come as often as they like."""
    app = App(world, "machine")

    answers = {app.introspect("x").status_code for _ in range(50)}

    assert answers == {200}


def test_one_failure_is_forgiven_a_minute_and_later_fewer(world: World) -> None:
    """Failures come back one by one: a minute each for thirty, two minutes each beyond forty."""
    bad = {"client_id": "mcp-2fa", "grant_type": "refresh_token", "refresh_token": "x"}

    def fail() -> int:
        return world.request("POST", TOKEN, data=bad).status_code

    for _ in range(30):
        fail()
    assert fail() == 429
    world.clock.at += 60
    assert (fail(), fail()) == (400, 429)
    passed = 0
    for _ in range(40):
        world.clock.at += 60
        passed += fail() == 400
    assert 20 <= passed < 40


# --- where it answers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"X-Forwarded-Proto": "http"}, id="plain http"),
        pytest.param({"X-Forwarded-Proto": "HTTPS"}, id="in capitals"),
        pytest.param({"X-Forwarded-Host": "evil.example"}, id="another host"),
        pytest.param({"X-Forwarded-Host": "auth.example.test:8443"}, id="another port"),
    ],
)
def test_it_answers_under_its_own_address_only(world: World, headers: dict[str, str]) -> None:
    """Forwarded headers that name anything but the issuer are refused, each endpoint in its way."""
    paths = ("token", "introspection", "revocation", "pushed-authorization-request")
    for path in paths:
        answer = world.request("POST", f"/api/oidc/{path}", data={"token": "x"}, headers=headers)
        assert said(answer) == (400, "invalid_request", f"{MALFORMED} {DEFAULT_HINT}")
    for path in ("/jwks.json", "/.well-known/oauth-authorization-server"):
        document = world.request("GET", path, headers=headers)
        assert (document.status_code, document.text) == (400, "400 Bad Request")
    authorization = world.request("GET", "/api/oidc/authorization", headers=headers)
    assert (authorization.status_code, authorization.text) == (500, "500 Internal Server Error")


def test_documents_are_for_every_origin(world: World) -> None:
    """A document asked for by a page has the CORS header."""
    answer = world.request("GET", "/jwks.json", headers={"Origin": "https://inspector.example"})

    assert answer.headers["access-control-allow-origin"] == "*"
