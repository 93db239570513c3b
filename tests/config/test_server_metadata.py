"""The metadata of the front door is what RFC 8414 asks for, and says what is so."""

from collections.abc import Callable

import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url

from authz.config.load import Settings
from authz.config.server_metadata import (
    ALGORITHMS,
    challenge_scopes,
    document_scopes,
    server_metadata,
)

SettingsOf = Callable[[str], Settings]
DOOR = "front_door: {key_file: /run/secrets/front-door.pem}\n"


def test_authlib_finds_nothing_wrong(smallest: str, settings_of: SettingsOf) -> None:
    """A library that knows the RFC validates every member, and where the document lies."""
    document = server_metadata(settings_of(f"{smallest}{DOOR}").config)

    AuthorizationServerMetadata(document).validate()
    assert get_well_known_url(str(document["issuer"]), external=True) == (
        "https://mcp.example.com/.well-known/oauth-authorization-server"
    )


def test_all_of_it(smallest: str, settings_of: SettingsOf) -> None:
    """Nothing is promised that the pages do not do: public clients, or keys of documents; S256."""
    config = settings_of(
        f"{smallest}    scopes: [b]\n    tools: {{t: {{scopes: [a]}}}}\n{DOOR}"
    ).config

    assert server_metadata(config) == {
        "issuer": "https://mcp.example.com",
        "authorization_endpoint": "https://mcp.example.com/authorize",
        "token_endpoint": "https://mcp.example.com/token",
        "revocation_endpoint": "https://mcp.example.com/revoke",
        "registration_endpoint": "https://mcp.example.com/register",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "revocation_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
        "revocation_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": True,
        "scopes_supported": ["a", "b", "offline_access"],
    }


@pytest.mark.parametrize(
    ("more", "registers", "documents"),
    [
        (", registration: false", False, True),
        (", metadata_hosts: []", True, False),
        (", metadata_hosts: [claude.ai]", True, True),
    ],
)
def test_what_is_off_is_not_offered(
    more: str, registers: bool, documents: bool, smallest: str, settings_of: SettingsOf
) -> None:
    """Clients try what is offered first, so what is off must not be."""
    document = server_metadata(settings_of(f"{smallest}{DOOR.replace('}', more + '}')}").config)

    assert ("registration_endpoint" in document) is registers
    assert document["client_id_metadata_document_supported"] is documents
    for endpoint in ("token", "revocation"):
        ways = document[f"{endpoint}_endpoint_auth_methods_supported"]
        assert ways == (["none", "private_key_jwt"] if documents else ["none"])
        signed = f"{endpoint}_endpoint_auth_signing_alg_values_supported"
        assert (signed in document) is documents


def test_strangers_come_only_where_logging_in_there_is_the_rule(
    smallest: str, settings_of: SettingsOf
) -> None:
    """With `login: direct` only clients that are configured for it log in at the front door."""
    text = smallest.replace("gateway:", "  login: direct\ngateway:")
    clients = "clients: {c: {login: front_door, redirect_uris: ['x:/y']}}"
    document = server_metadata(settings_of(f"{text}{DOOR}{clients}").config)

    assert "registration_endpoint" not in document
    assert document["client_id_metadata_document_supported"] is False


@pytest.mark.parametrize(
    ("rules", "common"),
    [
        (", scopes: [x]", ["x"]),
        (", scopes: [y], tools: {t: {scopes: [x]}}", ["x"]),
        (", scopes: [y], tools: {t: {scopes: [x]}}, challenge_scopes: own", []),
        (", scopes: [y]", []),
        ("", []),
    ],
)
def test_the_authorization_server_lists_what_is_right_at_every_server(
    rules: str, common: list[str], smallest: str, settings_of: SettingsOf
) -> None:
    """A client that finds no scopes in a server's own metadata asks for all of the authorization
    server's: another server's among them would be none of its own.
    """
    more = "    scopes: [x]\n    tools: {t: {scopes: [z]}}\n"
    more += f"  b: {{upstream: 'http://b/'{rules}}}\n{DOOR}"
    document = server_metadata(settings_of(f"{smallest}{more}").config)

    assert document["scopes_supported"] == [*common, "offline_access"]


@pytest.mark.parametrize(
    ("rules", "door", "told"),
    [
        ("scopes: [b], tools: {t: {scopes: [a]}}", True, (["a", "b"], ["a", "b"])),
        ("scopes: [b], tools: {t: {scopes: [a]}}, challenge_scopes: own", True, (["b"], ["b"])),
        ("tools: {t: {scopes: [a]}}, challenge_scopes: own", True, (["a"], ["a"])),
        ("tools: {t: {scopes: [a]}}", True, (["a"], ["a"])),
        ("tools: {t: {}}", True, ([], [])),
        # The issuer itself refuses a log-in with a scope that its client may not have.
        ("scopes: [b], tools: {t: {scopes: [a]}}", False, (["b"], ["a", "b"])),
        ("scopes: [b], tools: {t: {scopes: [a]}}, challenge_scopes: all", False, (["a", "b"],) * 2),
        ("tools: {t: {scopes: [a]}}", False, (["a"], ["a"])),
    ],
)
def test_which_scopes_a_client_is_told_of(
    rules: str,
    door: bool,
    told: tuple[list[str], list[str]],
    smallest: str,
    settings_of: SettingsOf,
) -> None:
    """Challenge and document go by the setting, and name some wherever the server has any."""
    text = f"{smallest}  one: {{upstream: 'http://b/', {rules}}}\n{DOOR if door else ''}"
    settings = settings_of(text)

    challenge, document = told
    assert challenge_scopes(settings.config, "one") == challenge
    assert settings.policy.servers["one"].challenge_scopes == frozenset(challenge)
    assert document_scopes(settings.config, "one") == document
