"""The token endpoint: codes, refresh tokens, client credentials.

Invariant: a code or refresh token that is used twice ends every token of its grant.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import Any

from authz_demo.issuer.authenticate import authenticate
from authz_demo.issuer.errors import ErrorCode, StandInOAuthError
from authz_demo.issuer.mint import token_response
from authz_demo.issuer.resources import (
    Form,
    machine_audience,
    narrowed,
    require_scopes,
    split_spaces,
)
from authz_demo.issuer.state import Code, IssuerGrant, StandInIssuer, Token
from authz_demo.issuer.values import RegisteredClient

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]+\Z")
_VERIFIER_LENGTHS = (43, 128)  # RFC 7636, section 4.1


def token(issuer: StandInIssuer, form: Form, authorization: str) -> dict[str, Any]:
    """Answer a token request.

    Args:
        issuer: the stand-in.
        form: every value of every parameter.
        authorization: the Authorization header; empty where there is none.

    Raises:
        StandInOAuthError: what is wrong with it.
    """
    if not form:
        raise StandInOAuthError(ErrorCode.INVALID_REQUEST, "The POST body can not be empty.")
    first = {name: values[0] for name, values in form.items()}
    kind = first.get("grant_type", "")
    if not kind:
        raise StandInOAuthError(
            ErrorCode.INVALID_REQUEST, "Request parameter 'grant_type' is missing"
        )
    client = authenticate(issuer, first, authorization)
    answer = _GRANTS.get(kind)
    if answer is None:
        raise StandInOAuthError(ErrorCode.INVALID_REQUEST)
    if kind == "client_credentials" and client.public:
        raise StandInOAuthError(
            ErrorCode.INVALID_GRANT,
            "The OAuth 2.0 Client is marked as public and is thus not allowed to use "
            "authorization grant 'client_credentials'.",
        )
    if kind not in client.grant_types:
        raise StandInOAuthError(
            ErrorCode.UNAUTHORIZED_CLIENT,
            f"The OAuth 2.0 Client is not allowed to use authorization grant '{kind}'.",
        )
    return answer(issuer, client, form, first)


def _code(
    issuer: StandInIssuer, client: RegisteredClient, form: Form, first: Mapping[str, str]
) -> dict[str, Any]:
    code = issuer.memory.codes.get(first.get("code", ""))
    if code is None:
        raise StandInOAuthError(ErrorCode.INVALID_GRANT)
    if code.used:
        code.grant.revoked = True
        raise StandInOAuthError(
            ErrorCode.INVALID_GRANT, "The authorization code has already been used."
        )
    if code.grant.client_id != client.client_id:
        raise StandInOAuthError(
            ErrorCode.INVALID_GRANT,
            "The OAuth 2.0 Client ID from this request does not match the one from the authorize "
            "request.",
        )
    if issuer.now() >= code.expires_at:
        raise StandInOAuthError(ErrorCode.INVALID_GRANT)
    if first.get("redirect_uri", "") != code.redirect_uri:
        raise StandInOAuthError(
            ErrorCode.INVALID_GRANT,
            "The 'redirect_uri' from this request does not match the one from the authorize "
            "request.",
        )
    _verify_challenge(code, first.get("code_verifier", ""))
    code.grant.audience = narrowed(code.grant.audience, form, issuer.config.release)
    code.used = True
    return token_response(issuer, client, code.grant, code.grant.scopes)


def _verify_challenge(code: Code, verifier: str) -> None:
    """Check the PKCE verifier (RFC 7636, section 4.6). A challenge can be tried once."""
    if not code.challenge:
        if verifier:
            raise StandInOAuthError(
                ErrorCode.INVALID_GRANT,
                "The PKCE code verifier was provided but the code challenge was absent from the "
                "authorization request.",
            )
        return
    if code.challenge_spent:
        raise StandInOAuthError(
            ErrorCode.INVALID_GRANT, "Unable to find initial PKCE data tied to this request."
        )
    code.challenge_spent = True
    shortest, longest = _VERIFIER_LENGTHS
    if len(verifier) < shortest:
        raise StandInOAuthError(
            ErrorCode.INVALID_GRANT, "The PKCE code verifier must be at least 43 characters."
        )
    if len(verifier) > longest:
        raise StandInOAuthError(
            ErrorCode.INVALID_GRANT, "The PKCE code verifier must be no more than 128 characters."
        )
    if not _VERIFIER.match(verifier):
        raise StandInOAuthError(
            ErrorCode.INVALID_GRANT,
            "The PKCE code verifier must only contain [a-Z], [0-9], '-', '.', '_', '~'.",
        )
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
    if not hmac.compare_digest(digest, code.challenge.encode()):
        raise StandInOAuthError(
            ErrorCode.INVALID_GRANT, "The PKCE code challenge did not match the code verifier."
        )


def _refresh(
    issuer: StandInIssuer, client: RegisteredClient, form: Form, first: Mapping[str, str]
) -> dict[str, Any]:
    token = issuer.memory.tokens.get(first.get("refresh_token", ""))
    if token is None or token.kind != "refresh":
        raise StandInOAuthError(ErrorCode.INVALID_GRANT)
    if token.ended:
        # RFC 9700, section 4.14.2: whoever has an old one may have been robbed; all of it ends.
        token.grant.revoked = True
    if not token.active(issuer.now()):
        raise StandInOAuthError(ErrorCode.INVALID_GRANT)
    if token.grant.client_id != client.client_id:
        raise StandInOAuthError(
            ErrorCode.INVALID_GRANT,
            "The OAuth 2.0 Client ID from this request does not match the ID during the initial "
            "token issuance.",
        )
    scopes = _narrowed_scopes(token, first.get("scope", ""))
    token.grant.audience = narrowed(token.grant.audience, form, issuer.config.release)
    token.ended = True
    for access in issuer.family(token.grant, "access"):
        access.ended = True
    return token_response(issuer, client, token.grant, scopes)


def _narrowed_scopes(token: Token, asked: str) -> tuple[str, ...]:
    scopes = split_spaces(asked) or token.scopes
    for scope in scopes:
        if scope not in token.scopes:
            raise StandInOAuthError(
                ErrorCode.INVALID_SCOPE,
                f"The requested scope '{scope}' was not originally granted by the resource owner.",
            )
    return scopes


def _client_credentials(
    issuer: StandInIssuer, client: RegisteredClient, form: Form, first: Mapping[str, str]
) -> dict[str, Any]:
    scopes = split_spaces(first.get("scope", ""))
    require_scopes(client, scopes)
    granted = machine_audience(client, form, issuer.config.release)
    grant = IssuerGrant(client.client_id, None, scopes, granted, issuer.now())
    return token_response(issuer, client, grant, scopes)


_Answer = Callable[[StandInIssuer, RegisteredClient, Form, Mapping[str, str]], dict[str, Any]]
_GRANTS: dict[str, _Answer] = {
    "authorization_code": _code,
    "client_credentials": _client_credentials,
    "refresh_token": _refresh,
}
