"""The front door's metadata (RFC 8414), and the scopes that servers name to clients (RFC 9728).

It follows from authz.yaml alone, so that Envoy can answer it while the pages are away.
"""

from typing import Final, get_args

from authz.config.model import Algorithm, ChallengeScopes, Config

OFFLINE: Final = "offline_access"
ALGORITHMS: Final[tuple[str, ...]] = get_args(Algorithm)


def server_metadata(config: Config) -> dict[str, object]:
    """Return the document of `/.well-known/oauth-authorization-server`, member by member.

    Args:
        config: with a `front_door`.
    """
    door = config.front_door
    assert door is not None
    base, strangers = config.gateway.url, config.login == "front_door"
    documents = strangers and door.metadata_hosts != ()
    refreshes = door.refresh_tokens != "never"
    methods = ["none", *(["private_key_jwt"] if documents else [])]
    document: dict[str, object] = {
        # Section 3.3: the URL that the document's own was made of, to the letter.
        "issuer": base,
        "authorization_endpoint": f"{base}/authorize",
        "token_endpoint": f"{base}/token",
        "revocation_endpoint": f"{base}/revoke",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", *(["refresh_token"] if refreshes else [])],
        "code_challenge_methods_supported": ["S256"],
        # A secret that a program carries is none; a key that a document publishes is the client's.
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "authorization_response_iss_parameter_supported": True,  # RFC 9207, section 3
        "client_id_metadata_document_supported": documents,
        # Clients that find no scopes in a server's own metadata ask for all of these (the official
        # Python SDKs, Codex), at whichever server: so they are what is right at every server.
        "scopes_supported": [*_common_scopes(config), *([OFFLINE] if refreshes else [])],
    }
    if documents:
        for endpoint in ("token", "revocation"):
            document[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] = list(ALGORITHMS)
    if strangers and door.registration:
        document["registration_endpoint"] = f"{base}/register"
    return document


def challenge_scopes(config: Config, name: str) -> list[str]:
    """Return the scopes that a server's first challenge names; none where it has none at all."""
    return _named_scopes(config, name, "all" if config.login == "front_door" else "own")


def document_scopes(config: Config, name: str) -> list[str]:
    """Return the scopes that a server's RFC 9728 document names."""
    return _named_scopes(config, name, "all")


def _named_scopes(config: Config, name: str, default: ChallengeScopes) -> list[str]:
    server = config.servers[name]
    own = server.scopes if (server.challenge_scopes or default) == "own" else ()
    return sorted(own or config.scopes_of(name))


def _common_scopes(config: Config) -> list[str]:
    named = [frozenset(document_scopes(config, name)) for name in config.servers]
    return sorted(frozenset.intersection(*named))
