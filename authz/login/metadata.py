"""What clients read about the front door (RFC 8414).

Law: nothing is promised that is not so; every URL is the gateway's.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from authz.config.model import FrontDoor
from authz.login.paths import AUTHORIZE, REGISTER, REVOKE, TOKEN


def metadata(url: str, front_door: FrontDoor, scopes: Iterable[str]) -> Mapping[str, Any]:
    """Return the document.

    `offline_access` is not among the scopes: a refresh token is given in any case, and clients
    that saw it would ask for a consent of its own.

    Args:
        url: the gateway's, which is the issuer's name to clients.
        front_door: its section.
        scopes: what servers name.
    """
    document: dict[str, Any] = {
        "issuer": url,
        "authorization_endpoint": url + AUTHORIZE,
        "token_endpoint": url + TOKEN,
        "revocation_endpoint": url + REVOKE,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        # Their absence would promise the second (OpenID Connect Discovery, section 3).
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "client_id_metadata_document_supported": front_door.metadata_hosts != (),
    }
    if named := sorted(scopes):
        document["scopes_supported"] = named
    if front_door.registration:
        document["registration_endpoint"] = url + REGISTER
    return document
