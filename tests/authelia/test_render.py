"""What authz.yaml implies for Authelia; the real one has started with the recorded copies."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from authz.authelia import Implied, implied
from authz.authelia.clients import PLACEHOLDER
from authz.config.load import load, read
from authz_demo.environment import _CONFIGURATION as DEMO  # its text, with other people's places

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = "servers: {files: {upstream: 'http://files:8000/mcp', scopes: [mcp:files]}}\n"
Of = Callable[[str], Implied]


def clients(result: Implied) -> dict[str, Any]:
    oidc: Any = result.values["identity_providers"]
    return {client["client_id"]: client for client in oidc["oidc"]["clients"]}


def oidc(result: Implied) -> Any:
    providers: Any = result.values["identity_providers"]
    return providers["oidc"]


def demo() -> Implied:
    text = DEMO.format(
        issuer="https://auth.example.test",
        internal="http://127.0.0.1:9091",
        gateway="https://mcp.example.test",
        port=8443,
        certificate="/tls.crt",
        key="/tls.key",
        metrics=9464,
        domain="example.test",
    )
    return implied(read(text, "authz.yaml", {}, secrets=False).config)


@pytest.mark.parametrize("name", ["envoy", "demo"])
def test_is_what_the_real_authelia_started_with(name: str) -> None:
    """The text is that with which Authelia 4.39.20 started and the journey worked, to the letter.

    After a change, start a real one with what is printed (AUTHELIA=… pytest tests/e2e), then
    record it here.
    """
    settings = load(ROOT / "envoy" / "authz.yaml", {}, secrets=False)
    rendered = {"envoy": lambda: implied(settings.config), "demo": demo}[name]()

    assert rendered.yaml() == (HERE / f"{name}.yml").read_text("utf-8")


@pytest.mark.parametrize("name", ["envoy", "demo"])
def test_yaml_and_json_say_the_same(name: str) -> None:
    """The two forms hold the same values."""
    text = (HERE / f"{name}.yml").read_text("utf-8")
    settings = load(ROOT / "envoy" / "authz.yaml", {}, secrets=False)
    rendered = implied(settings.config) if name == "envoy" else demo()

    assert YAML(typ="safe").load(text) == json.loads(rendered.json())


def test_a_person_s_client_is_public_with_pkce(of: Of) -> None:
    """A client with people has no secret, and S256 is all that it may prove itself with."""
    client = clients(of("clients: {claude: {scopes: [mcp:files]}}\n" + FILES))["claude"]

    assert client["public"] is True
    assert "client_secret" not in client
    assert client["require_pkce"] is True
    assert client["pkce_challenge_method"] == "S256"
    assert client["token_endpoint_auth_method"] == "none"
    assert client["access_token_signed_response_alg"] == "RS256"


def test_a_client_may_refresh(of: Of) -> None:
    """Official clients ask for offline_access: without it, or its grant, is no log-in at all."""
    client = clients(of("clients: {claude: {scopes: [mcp:files]}}\n" + FILES))["claude"]

    assert client["scopes"] == ["mcp:files", "offline_access"]
    assert "refresh_token" in client["grant_types"]


@pytest.mark.parametrize(
    ("assurance", "policy"),
    [
        pytest.param("", "one_factor", id="none"),
        pytest.param("assurance: two_factor", "two_factor", id="two_factor"),
        pytest.param("assurance: totp", "two_factor", id="totp"),
    ],
)
def test_an_assurance_becomes_the_policy(of: Of, assurance: str, policy: str) -> None:
    """What is declared of a client is what Authelia is told to enforce."""
    result = of(f"clients: {{claude: {{scopes: [mcp:files], {assurance}}}}}\n{FILES}")

    assert clients(result)["claude"]["authorization_policy"] == policy


def test_totp_leaves_no_other_factor(of: Of) -> None:
    """An assurance of TOTP turns Authelia's other second factors off."""
    result = of("clients: {claude: {scopes: [mcp:files], assurance: totp}}\n" + FILES)

    assert result.values["webauthn"] == result.values["duo_api"] == {"disable": True}


def test_the_audience_is_what_the_scopes_open(of: Of) -> None:
    """A client gets tokens for the servers whose scopes it may have, and for no other."""
    servers = (
        "servers:\n"
        "  files: {upstream: 'http://files:8000/mcp', scopes: [mcp:files]}\n"
        "  notes: {upstream: 'http://notes:8000/mcp', scopes: [mcp:notes]}\n"
        "  named: {upstream: 'http://named:8000/mcp', resource: https://mcp.example.com/other}\n"
    )
    result = of(
        "clients: {one: {scopes: [mcp:files]}, two: {scopes: [mcp:notes]}, all: {}}\n" + servers
    )

    assert clients(result)["one"]["audience"] == [
        "https://mcp.example.com/files",
        "https://mcp.example.com/other",
    ]
    assert len(clients(result)["all"]["audience"]) == 3
    assert clients(result)["all"]["scopes"] == ["mcp:files", "mcp:notes", "offline_access"]


def test_a_machine_gets_what_names_it(of: Of) -> None:
    """A machine has a secret that its operator makes, and the servers that name it."""
    servers = (
        "servers:\n"
        "  files: {upstream: 'http://files:8000/mcp', scopes: [a], machines: [night]}\n"
        "  notes: {upstream: 'http://notes:8000/mcp', scopes: [a]}\n"
    )
    result = of("clients: {night: {machine: true, scopes: [a]}, claude: {}}\n" + servers)
    machine = clients(result)["night"]

    assert machine["audience"] == ["https://mcp.example.com/files"]
    assert machine["grant_types"] == ["client_credentials"]
    assert machine["client_secret"] == PLACEHOLDER
    assert "authelia crypto hash generate" in result.yaml()
    # Authelia 4.39.20 refuses this policy where client_credentials is the only grant.
    assert "authorization_policy" not in machine
    assert "offline_access" not in machine["scopes"]


def test_the_placeholder_is_no_digest() -> None:
    """A client secret that nobody replaced stops Authelia, and is never a secret that works.

    It takes a word without an identifier between dollar signs, or an unknown one, for an error.
    """
    assert re.fullmatch(r"\$[A-Z]+\$", PLACEHOLDER)


def test_groups_come_with_the_scopes_that_clients_ask_for(of: Of) -> None:
    """A scope of a server with groups brings them: clients ask for what a challenge names."""
    result = of(
        "servers:\n"
        "  files: {upstream: 'http://files:8000/mcp', scopes: [mcp:files], groups: [staff]}\n"
        "  notes:\n"
        "    upstream: http://notes:8000/mcp\n"
        "    tools: {wipe: {scopes: [mcp:wipe], groups: [root]}, look: {scopes: [mcp:look]}}\n"
    )

    assert oidc(result)["claims_policies"] == {"authz": {"access_token": ["groups"]}}
    assert oidc(result)["scopes"] == {
        "mcp:files": {"claims": ["groups"]},
        "mcp:wipe": {"claims": ["groups"]},
        "mcp:look": {"claims": []},
    }
    assert clients(result)["mcp"]["claims_policy"] == "authz"
    assert "groups" in clients(result)["mcp"]["scopes"]


def test_groups_without_a_scope_are_told(of: Of) -> None:
    """Where no scope can bring groups, the text says what to write."""
    result = of("servers: {files: {upstream: 'http://files:8000/mcp', groups: [staff]}}\n")

    assert "write `groups` into servers.files.scopes" in result.yaml()


def test_a_scope_that_authelia_cannot_define_is_left_out(of: Of) -> None:
    """4.39.20 does not start where a scope with such a name is defined; it may be used."""
    result = of("servers: {files: {upstream: 'http://files:8000/mcp', scopes: ['a#b', 'a.b']}}\n")

    assert oidc(result)["scopes"] == {"a.b": {"claims": []}}
    assert "a#b" in clients(result)["mcp"]["scopes"]


def test_the_smallest_file_has_a_client(of: Of) -> None:
    """Authelia does not start without a client, so there is one to begin with."""
    client = clients(of(FILES))["mcp"]

    assert client["redirect_uris"] == ["http://127.0.0.1/callback", "http://[::1]/callback"]
    assert client["audience"] == ["https://mcp.example.com/files"]


def test_opaque_only_is_not_signed(of: Of) -> None:
    """A client of servers that take opaque tokens only gets opaque ones."""
    text = (
        "  introspection: {client_id: asks, auth: client_secret_basic, secret_file: /s}\n"
        "servers: {files: {upstream: 'http://files:8000/mcp', tokens: [opaque]}}\n"
    )
    head = "issuer:\n  url: https://auth.example.com\n"
    gateway = "gateway: {url: https://mcp.example.com, tls: {certificate: /c, key: /k}}\n"
    first, _, rest = text.partition("\n")
    config = read(head + first + "\n" + gateway + rest, "authz.yaml", {}, secrets=False).config
    result = clients(implied(config))

    assert "access_token_signed_response_alg" not in result["mcp"]
    assert result["asks"]["introspection_endpoint_auth_method"] == "client_secret_basic"
    assert result["asks"]["client_secret"] == PLACEHOLDER


def test_pages_of_configured_origins_may_fetch_tokens(of: Of) -> None:
    """Authelia's token endpoint answers no other origin."""
    result = of("  origins: [https://inspector.example.com]\n" + FILES)

    assert oidc(result)["cors"]["allowed_origins"] == ["https://inspector.example.com"]
    assert "cors" not in oidc(of(FILES))


@pytest.mark.parametrize(
    ("client", "words"),
    [
        pytest.param("{}", "put in what the client documents", id="no-redirect"),
        pytest.param(
            "{redirect_uris: ['http://localhost:3118/callback']}",
            "Prefer 127.0.0.1",
            id="localhost",
        ),
        pytest.param("{scopes: [other]}", "its tokens are for nobody", id="no-server"),
    ],
)
def test_traps_are_told_where_they_are(of: Of, client: str, words: str) -> None:
    """A client that would end in an error at Authelia has a comment that says so."""
    assert words in of(f"clients: {{claude: {client}, other: {{}}}}\n{FILES}").yaml()


def test_the_same_file_is_the_same_text(of: Of) -> None:
    """What is printed depends on authz.yaml alone."""
    assert of(FILES).yaml() == of(FILES).yaml()
