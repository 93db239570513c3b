"""The two discovery documents, equal to the recorded ones but for the issuer.

What Authelia lists is listed, though most of it is not stood in for.
"""

from typing import Any, Final

_HMAC: Final = ["HS256", "HS384", "HS512"]
_RSA_EC: Final = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"]
_SIGNING: Final = [*_HMAC, *_RSA_EC]
_SIGNING_OR_NONE: Final = [*_SIGNING, "none"]
_KEY_WRAPPING: Final = [
    "RSA1_5",
    "RSA-OAEP",
    "RSA-OAEP-256",
    "A128KW",
    "A192KW",
    "A256KW",
    "dir",
    "ECDH-ES",
    "ECDH-ES+A128KW",
    "ECDH-ES+A192KW",
    "ECDH-ES+A256KW",
    "A128GCMKW",
    "A192GCMKW",
    "A256GCMKW",
    "PBES2-HS256+A128KW",
    "PBES2-HS384+A192KW",
    "PBES2-HS512+A256KW",
]
_CONTENT: Final = [
    "A128CBC-HS256",
    "A192CBC-HS384",
    "A256CBC-HS512",
    "A128GCM",
    "A192GCM",
    "A256GCM",
]
_CONFIDENTIAL: Final = [
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
]
_ANY_CLIENT: Final = [*_CONFIDENTIAL, "none"]
_CLAIMS: Final = [
    "amr",
    "aud",
    "azp",
    "client_id",
    "exp",
    "iat",
    "iss",
    "jti",
    "rat",
    "auth_time",
    "nonce",
    "groups",
    "sub",
    "name",
    "given_name",
    "family_name",
    "middle_name",
    "nickname",
    "preferred_username",
    "profile",
    "picture",
    "website",
    "email",
    "email_verified",
    "alt_emails",
    "gender",
    "birthdate",
    "zoneinfo",
    "locale",
    "phone_number",
    "phone_number_verified",
    "address",
    "updated_at",
]

# Path by member, for the members that name an endpoint.
ENDPOINTS: Final = {
    "authorization_endpoint": "/api/oidc/authorization",
    "device_authorization_endpoint": "/api/oidc/device-authorization",
    "introspection_endpoint": "/api/oidc/introspection",
    "jwks_uri": "/jwks.json",
    "pushed_authorization_request_endpoint": "/api/oidc/pushed-authorization-request",
    "revocation_endpoint": "/api/oidc/revocation",
    "token_endpoint": "/api/oidc/token",
    "userinfo_endpoint": "/api/oidc/userinfo",
}


def _encryption(*names: str) -> dict[str, list[str]]:
    wrapped = {f"{name}_encryption_alg_values_supported": _KEY_WRAPPING for name in names}
    return wrapped | {f"{name}_encryption_enc_values_supported": _CONTENT for name in names}


def authorization_server(issuer: str) -> dict[str, Any]:
    """Return the RFC 8414 document."""
    endpoints = {name: issuer + path for name, path in ENDPOINTS.items()}
    del endpoints["userinfo_endpoint"]  # OpenID Connect's, so in the other document only
    return {
        "issuer": issuer,
        **endpoints,
        **_encryption("introspection"),
        "authorization_response_iss_parameter_supported": True,
        "claims_supported": _CLAIMS,
        "code_challenge_methods_supported": ["S256"],
        "grant_types_supported": [
            "authorization_code",
            "implicit",
            "client_credentials",
            "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "introspection_endpoint_auth_methods_supported": _CONFIDENTIAL,
        "introspection_signing_alg_values_supported": _SIGNING_OR_NONE,
        "require_pushed_authorization_requests": False,
        "response_modes_supported": [
            "form_post",
            "query",
            "fragment",
            "jwt",
            "form_post.jwt",
            "query.jwt",
            "fragment.jwt",
        ],
        "response_types_supported": [
            "code",
            "id_token",
            "token",
            "id_token token",
            "code id_token",
            "code token",
            "code id_token token",
        ],
        "revocation_endpoint_auth_methods_supported": _ANY_CLIENT,
        "revocation_endpoint_auth_signing_alg_values_supported": _SIGNING,
        "scopes_supported": [
            "offline_access",
            "openid",
            "profile",
            "email",
            "address",
            "phone",
            "groups",
        ],
        "subject_types_supported": ["public", "pairwise"],
        "token_endpoint_auth_methods_supported": _ANY_CLIENT,
        "token_endpoint_auth_signing_alg_values_supported": _SIGNING,
    }


def openid_configuration(issuer: str) -> dict[str, Any]:
    """Return the OpenID Connect Discovery document."""
    return {
        **authorization_server(issuer),
        **_encryption("authorization", "id_token", "request_object", "userinfo"),
        "authorization_signing_alg_values_supported": _SIGNING,
        "claim_types_supported": ["normal"],
        "claims_parameter_supported": True,
        "id_token_signing_alg_values_supported": _SIGNING,
        "prompt_values_supported": ["consent", "login", "none", "select_account"],
        "request_object_signing_alg_values_supported": _SIGNING_OR_NONE,
        "request_parameter_supported": True,
        "request_uri_parameter_supported": True,
        "require_request_uri_registration": True,
        "userinfo_endpoint": issuer + ENDPOINTS["userinfo_endpoint"],
        "userinfo_signing_alg_values_supported": _SIGNING_OR_NONE,
    }
