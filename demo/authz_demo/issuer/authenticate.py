"""Client authentication: none, a secret, or a signed assertion (RFC 7523).

Invariant: the method is the registered one or the client is refused, even with the right secret.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

import jwt

from authz_demo.issuer.errors import ErrorCode, StandInOAuthError
from authz_demo.issuer.metadata import ENDPOINTS
from authz_demo.issuer.state import StandInIssuer
from authz_demo.issuer.values import AuthMethod, RegisteredClient

_BEARER_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def authenticate(
    issuer: StandInIssuer, form: Mapping[str, str], authorization: str
) -> RegisteredClient:
    """Return the client of a request.

    Args:
        issuer: what knows the clients.
        form: the first value of every parameter.
        authorization: the header's value; empty where there is none.

    Raises:
        StandInOAuthError: `invalid_client`, `invalid_request`, `jti_known`.
    """
    if authorization[:6].lower() == "basic ":
        client_id, secret = _basic(authorization[6:])
        return _by_secret(issuer, client_id, secret, "client_secret_basic")
    if "client_assertion_type" in form or "client_assertion" in form:
        return _by_assertion(issuer, form)
    client_id = form.get("client_id", "")
    if form.get("client_secret"):
        return _by_secret(issuer, client_id, form["client_secret"], "client_secret_post")
    if client_id:
        return _registered(issuer, client_id, "none")
    raise StandInOAuthError(ErrorCode.INVALID_REQUEST, "Client Credentials missing or malformed.")


def _registered(issuer: StandInIssuer, client_id: str, method: AuthMethod) -> RegisteredClient:
    client = issuer.config.client(client_id)
    if client is None:
        raise StandInOAuthError(ErrorCode.INVALID_CLIENT)
    if client.token_endpoint_auth_method != method:
        raise StandInOAuthError(
            ErrorCode.INVALID_CLIENT,
            "The request was determined to be using 'token_endpoint_auth_method' method "
            f"'{method}', however the OAuth 2.0 client registration does not allow this method.",
        )
    return client


def _basic(credentials: str) -> tuple[str, str]:
    # RFC 6749, section 2.3.1: both halves are form-encoded before they are joined.
    try:
        text = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise StandInOAuthError(
            ErrorCode.INVALID_REQUEST, "Client Credentials missing or malformed."
        ) from error
    client_id, _, secret = text.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def _by_secret(
    issuer: StandInIssuer, client_id: str, secret: str, method: AuthMethod
) -> RegisteredClient:
    client = _registered(issuer, client_id, method)
    if not hmac.compare_digest(secret.encode(), client.client_secret.encode()):
        raise StandInOAuthError(ErrorCode.INVALID_CLIENT)
    return client


def _by_assertion(issuer: StandInIssuer, form: Mapping[str, str]) -> RegisteredClient:
    kind, assertion = form.get("client_assertion_type", ""), form.get("client_assertion", "")
    if kind != _BEARER_ASSERTION:
        raise StandInOAuthError(
            ErrorCode.INVALID_REQUEST, f"Unknown client_assertion_type '{kind}'."
        )
    if not assertion:
        raise StandInOAuthError(
            ErrorCode.INVALID_REQUEST,
            "The request parameter 'client_assertion' must be set when using "
            f"'client_assertion_type' of '{_BEARER_ASSERTION}'.",
        )
    subject = _subject(assertion)
    client = _registered(issuer, form.get("client_id") or subject, "private_key_jwt")
    claims = _verified(issuer, client, assertion)
    jti = claims.get("jti")
    if not jti or claims.get("iss") != client.client_id or claims.get("sub") != client.client_id:
        raise StandInOAuthError(
            ErrorCode.INVALID_CLIENT, "The client assertion had invalid claims."
        )
    if (client.client_id, jti) in issuer.memory.assertions:
        raise StandInOAuthError(
            ErrorCode.JTI_KNOWN, "Claim 'jti' from 'client_assertion' MUST only be used once."
        )
    issuer.memory.assertions.add((client.client_id, jti))
    return client


def _subject(assertion: str) -> str:
    try:
        claims = jwt.decode(assertion, options={"verify_signature": False})
    except jwt.PyJWTError as error:
        raise StandInOAuthError(
            ErrorCode.INVALID_CLIENT,
            "OAuth 2.0 client provided a client assertion which could not be decoded or validated.",
        ) from error
    return str(claims.get("sub", ""))


def _verified(issuer: StandInIssuer, client: RegisteredClient, assertion: str) -> dict[str, Any]:
    """Return the claims of an assertion meant for this issuer or its token endpoint.

    The introspection endpoint's own URL is refused as an audience, even there: Authelia knows
    these two only.
    """
    refused = StandInOAuthError(
        ErrorCode.INVALID_CLIENT,
        f"OAuth 2.0 client with id '{client.client_id}' provided a client assertion which could "
        "not be decoded or validated.",
    )
    base = issuer.config.base
    try:
        claims: dict[str, Any] = jwt.decode(
            assertion,
            client.public_key,
            algorithms=["ES256", "RS256"],
            audience=[base, base + ENDPOINTS["token_endpoint"]],
            # The clock is the configured one, which PyJWT cannot be given.
            options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
    except (jwt.PyJWTError, ValueError) as error:
        raise refused from error
    expires = claims.get("exp")
    if not isinstance(expires, int | float) or expires <= issuer.now():
        raise refused
    return claims
