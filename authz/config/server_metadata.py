"""The metadata of the front door as an authorization server (RFC 8414).

Law: it is a function of authz.yaml alone, so that Envoy can answer it while the pages are away, and
it says nothing that the pages do not do. It stands in this room because both need it: the renderer
and the pages, which do without Envoy's classes.
"""

from typing import Final

from authz.config.model import Config
from authz.config.rules import Server

OFFLINE: Final = "offline_access"


def server_metadata(config: Config) -> dict[str, object]:
    """Return the document of `/.well-known/oauth-authorization-server`, member by member.

    Args:
        config: with a `front_door`.
    """
    door = config.front_door
    assert door is not None
    base, strangers = config.gateway.url, config.login == "front_door"
    document: dict[str, object] = {
        # Section 3.3: the URL that the document's own was made of, to the letter.
        "issuer": base,
        "authorization_endpoint": f"{base}/authorize",
        "token_endpoint": f"{base}/token",
        "revocation_endpoint": f"{base}/revoke",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        # Every client is a public one: a secret that a program carries is none.
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": True,  # RFC 9207, section 3
        "client_id_metadata_document_supported": strangers and door.metadata_hosts != (),
        "scopes_supported": [*_all_scopes(config), OFFLINE],
    }
    if strangers and door.registration:
        document["registration_endpoint"] = f"{base}/register"
    return document


def scopes_of(server: Server) -> list[str]:
    """Return what a server or any of its tools asks for (`offline_access` no rule can ask)."""
    tools = (server.tools or {}).values()
    return sorted(set(server.scopes).union(*(tool.scopes for tool in tools)))


def _all_scopes(config: Config) -> list[str]:
    return sorted({scope for server in config.servers.values() for scope in scopes_of(server)})
