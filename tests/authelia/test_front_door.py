"""Our two clients at Authelia, as the front door needs them; the real one has taken both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authz.authelia import Implied
from authz.authelia.clients import PLACEHOLDER
from authz.cli import main
from authz.login.protocol.resources import identity_scopes
from tests.authelia.conftest import SMALLEST

DOOR = "front_door: {key_file: /run/secrets/front-door.pem}\n"
SERVERS = (
    "servers:\n"
    "  files:\n"
    "    upstream: http://files:8000/mcp\n"
    "    scopes: [mcp:files]\n"
    "    tools: {wipe: {scopes: [mcp:wipe]}, look: {}}\n"
    "  notes: {upstream: 'http://notes:8000/mcp'}\n"
)
ENDPOINTS = ("token", "revocation", "introspection", "pushed_authorization_request")
Of = Callable[[str], Implied]


def oidc(result: Implied) -> Any:
    providers: Any = result.values["identity_providers"]
    return providers["oidc"]


def clients(result: Implied) -> dict[str, Any]:
    return {client["client_id"]: client for client in oidc(result)["clients"]}


def test_two_clients_differ_in_what_authelia_asks_of_people(of: Of) -> None:
    """One is under each policy; a step-up ends at the second only, one's own log-ins at the first.

    A code that was given after a password alone never reaches the callback of a step-up.
    """
    found = clients(of(DOOR + SERVERS))

    assert list(found) == ["authz-one-factor", "authz-two-factor"]
    assert [client["authorization_policy"] for client in found.values()] == [
        "one_factor",
        "two_factor",
    ]
    base = "https://mcp.example.com/authz"
    assert found["authz-one-factor"]["redirect_uris"] == [
        f"{base}/callback",
        f"{base}/log-ins/callback",
    ]
    assert found["authz-two-factor"]["redirect_uris"] == [
        f"{base}/callback",
        f"{base}/step-up/callback",
    ]


@pytest.mark.parametrize("name", ["authz-one-factor", "authz-two-factor"])
def test_both_are_confidential_and_begin_by_pushing(name: str, of: Of) -> None:
    """Assertions at all four endpoints, no secret, PAR, PKCE with S256; consent is ours."""
    client = clients(of(DOOR + SERVERS))[name]

    assert "client_secret" not in client
    assert "public" not in client
    for endpoint in ENDPOINTS:
        assert client[f"{endpoint}_endpoint_auth_method"] == "private_key_jwt"
        assert client[f"{endpoint}_endpoint_auth_signing_alg"] == "ES256"
    assert client["require_pushed_authorization_requests"] is True
    assert client["require_pkce"] is True
    assert client["pkce_challenge_method"] == "S256"
    assert client["consent_mode"] == "implicit"
    assert client["jwks"][0]["key"] == PLACEHOLDER  # the file is not here
    assert client["grant_types"] == ["authorization_code", "refresh_token"]
    assert client["access_token_signed_response_alg"] == "RS256"


@pytest.mark.parametrize("name", ["authz-one-factor", "authz-two-factor"])
def test_both_may_ask_for_whatever_any_server_needs(name: str, of: Of) -> None:
    """All scopes and audiences; what a client may have of them is for the front door to say."""
    client = clients(of(DOOR + SERVERS))[name]

    assert client["scopes"] == ["openid", "offline_access", "profile", "mcp:files", "mcp:wipe"]
    assert client["audience"] == [
        "https://mcp.example.com/files",
        "https://mcp.example.com/notes",
    ]


def test_without_refresh_tokens_access_tokens_have_a_lifespan_of_their_own(of: Of) -> None:
    """Neither grant nor scope to refresh with: Authelia then shows no consent page of its own."""
    never = "refresh_tokens: never, access_token_lifetime: 4h, "
    result = of(DOOR.replace("front_door: {", f"front_door: {{{never}") + SERVERS)

    assert oidc(result)["lifespans"] == {"custom": {"authz-front-door": {"access_token": "14400s"}}}
    for client in clients(result).values():
        assert client["grant_types"] == ["authorization_code"]
        assert "offline_access" not in client["scopes"]
        assert client["lifespan"] == "authz-front-door"
    assert "consent twice" not in result.yaml()
    assert "lifespans" not in oidc(of(DOOR + SERVERS))


def test_the_id_token_says_whose_account_it_is(of: Of) -> None:
    """Authelia puts `preferred_username` there only by a claims policy, of the scope `profile`."""
    result = of(DOOR + SERVERS)

    assert oidc(result)["claims_policies"] == {
        "authz-front-door": {"id_token": ["preferred_username"]}
    }
    for client in clients(result).values():
        assert client["claims_policy"] == "authz-front-door"
        assert "profile" in client["scopes"]


def test_e_mail_addresses_are_in_the_id_token_where_they_are_asked_for(of: Of) -> None:
    """By the policy and by a scope of both clients; the front door then asks for that."""
    result = of(DOOR.replace("front_door: {", "front_door: {email_addresses: true, ") + SERVERS)

    assert oidc(result)["claims_policies"] == {
        "authz-front-door": {"id_token": ["preferred_username", "email"]}
    }
    for client in clients(result).values():
        assert identity_scopes(email=True) <= set(client["scopes"])
    for client in clients(of(DOOR + SERVERS)).values():
        assert "email" not in client["scopes"]
        assert identity_scopes(email=False) <= set(client["scopes"])


def test_a_console_has_a_callback_of_the_second_factor_alone(of: Of) -> None:
    """Its log-in goes by the client that proves two factors, which may ask for groups; no token
    carries them for it.
    """
    result = of(DOOR + SERVERS + "console: {groups: [admins]}\n")
    found = clients(result)

    uris = {name: client["redirect_uris"] for name, client in found.items()}
    assert [name for name in uris if any("/authz/admin/" in uri for uri in uris[name])] == [
        "authz-two-factor"
    ]
    assert "groups" in found["authz-two-factor"]["scopes"]
    assert "access_token" not in oidc(result)["claims_policies"]["authz-front-door"]
    assert "admin" not in of(DOOR + SERVERS).yaml()


def test_groups_are_asked_for_where_a_rule_needs_them(of: Of) -> None:
    """They come into the access token without a client's asking for them."""
    result = of(DOOR + SERVERS.replace("scopes: [mcp:files]", "groups: [staff]"))

    assert oidc(result)["claims_policies"]["authz-front-door"]["access_token"] == ["groups"]
    assert all("groups" in client["scopes"] for client in clients(result).values())
    assert "write `groups` into" not in result.yaml()


@pytest.mark.parametrize("where", ["server", "tool", "everywhere"])
def test_groups_are_asked_for_where_a_limit_counts_them(of: Of, where: str) -> None:
    """Or everybody would be counted with those who have none."""
    limits = "limits: [{per: group, rate: 9/minute}]"
    old, new = {
        "server": ("scopes: [mcp:files]", limits),
        "tool": ("look: {}", f"look: {{{limits}}}"),
        "everywhere": ("", ""),
    }[where]
    text = DOOR + SERVERS.replace(old, new)
    result = of(text + (f"{limits}\n" if where == "everywhere" else ""))

    assert oidc(result)["claims_policies"]["authz-front-door"]["access_token"] == ["groups"]
    assert all("groups" in client["scopes"] for client in clients(result).values())


def test_clients_of_the_front_door_are_none_of_authelias(of: Of) -> None:
    """Direct ones and machines are registered as ever; what narrows strangers is no client."""
    result = of(
        DOOR
        + "clients:\n"
        + "  claude: {redirect_uris: ['https://claude.ai/cb']}\n"
        + "  default: {scopes: [mcp:files]}\n"
        + "  script: {login: direct, redirect_uris: ['http://127.0.0.1/cb']}\n"
        + "  night: {machine: true, scopes: [mcp:files]}\n"
        + SERVERS.replace("scopes: [mcp:files]", "scopes: [mcp:files]\n    machines: [night]")
    )

    assert list(clients(result)) == ["authz-one-factor", "authz-two-factor", "script", "night"]
    assert clients(result)["script"]["public"] is True


def test_pages_of_others_fetch_no_tokens_from_authelia(of: Of) -> None:
    """CORS at Authelia is for direct clients; the front door answers the others."""
    gateway = "  origins: [https://inspector.example.com]\n"

    assert "cors" not in oidc(of(gateway + DOOR + SERVERS))
    direct = "clients: {script: {login: direct}}\n"
    assert "cors" in oidc(of(gateway + DOOR + direct + SERVERS))


def test_without_a_front_door_there_is_no_client_of_ours(of: Of) -> None:
    """Step-ups and log-ins need the section; nothing is registered ahead of it."""
    assert list(clients(of(SERVERS))) == ["mcp"]


def test_other_names_and_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids and the key's id are the file's; one key pair is made and serves both."""
    key, path = tmp_path / "front.pem", tmp_path / "authz.yaml"
    door = f"front_door: {{key_file: {key}, key_id: k1, one_factor: a, two_factor: b}}\n"
    path.write_text(SMALLEST + door + SERVERS)

    assert main(["authelia-config", str(path), "--make-key", "--json"]) == 0

    out = capsys.readouterr().out
    found = {
        one["client_id"]: one for one in json.loads(out)["identity_providers"]["oidc"]["clients"]
    }
    assert list(found) == ["a", "b"]
    assert found["a"]["jwks"] == found["b"]["jwks"]
    assert found["a"]["jwks"][0]["key_id"] == "k1"
    assert found["a"]["jwks"][0]["key"].startswith("-----BEGIN PUBLIC KEY-----")
    assert "PRIVATE" not in out


def test_without_the_key_says_how(of: Of) -> None:
    """A machine that has no secrets can print all the same."""
    assert "The public half of front_door.key_file" in of(DOOR + SERVERS).yaml()


def test_pages_have_callbacks_a_scope_and_claims_of_their_own(of: Of) -> None:
    """Where there are web interfaces, both clients log people in for them, and tell groups."""
    pages = "pages: {grafana: {host: grafana.example.com, upstream: 'http://grafana:3000'}}\n"
    with_pages, without = of(DOOR + SERVERS + pages), of(DOOR + SERVERS)
    found = clients(with_pages)

    for client, way in (("authz-one-factor", "one-factor/"), ("authz-two-factor", "")):
        callback = f"https://mcp.example.com/authz/page/{way}callback"
        assert callback in found[client]["redirect_uris"]
        assert "groups" in found[client]["scopes"]
        assert callback not in clients(without)[client]["redirect_uris"]
    assert oidc(with_pages)["claims_policies"]["authz-front-door"] == {
        "id_token": ["preferred_username", "name"],
        "access_token": ["groups"],
    }
