"""The OAuth endpoints that clients and resource servers call.

Introspection has the members of the recorded Authelia: no `jti`, no `iss`, no `token_type`; and a
refresh token is as active as an access token.
"""

import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from authz_demo.issuer import grants
from authz_demo.issuer.authenticate import authenticate
from authz_demo.issuer.authorize import CheckedRequest, check, redirect_uri
from authz_demo.issuer.errors import ErrorCode, StandInOAuthError
from authz_demo.issuer.mint import person_claims
from authz_demo.issuer.requests import NO_STORE, json_response, read_all, read_form
from authz_demo.issuer.state import PushedRequest, StandInIssuer, Token
from authz_demo.issuer.values import RegisteredClient

_REQUEST_URI = "urn:ietf:params:oauth:request_uri:"
_NOT_KEPT = ("client_secret", "client_assertion", "client_assertion_type")


def _authorization(request: Request) -> str:
    return request.headers.get("authorization", "")


async def token(issuer: StandInIssuer, request: Request) -> Response:
    """Answer a token request (RFC 6749, section 3.2)."""
    return json_response(grants.token(issuer, await read_all(request), _authorization(request)))


async def pushed(issuer: StandInIssuer, request: Request) -> Response:
    """Keep an authorization request (RFC 9126); PKCE is looked at when it is used."""
    form = await read_all(request)
    first = {name: values[0] for name, values in form.items()}
    if not first and not _authorization(request):
        raise StandInOAuthError(
            ErrorCode.INVALID_CLIENT, "The requested OAuth 2.0 Client could not be authenticated."
        )
    client = authenticate(issuer, first, _authorization(request))
    form["client_id"] = [client.client_id]
    asked = CheckedRequest(
        client, redirect_uri(client, form), form, (("client_id", client.client_id),)
    )
    check(asked, issuer.config.release)
    name = _REQUEST_URI + secrets.token_urlsafe(32)
    issuer.memory.pushed[name] = PushedRequest(
        tuple((key, value) for key in form if key not in _NOT_KEPT for value in form[key]),
        issuer.now() + issuer.config.lifetimes.pushed_request,
    )
    lifetime = issuer.config.lifetimes.pushed_request
    return json_response({"expires_in": lifetime, "request_uri": name}, 201)


async def introspection(issuer: StandInIssuer, request: Request) -> Response:
    """Tell whether a token is active (RFC 7662), to any client that proves itself."""
    form = await read_form(request)
    if not form:
        raise StandInOAuthError(ErrorCode.INVALID_REQUEST, "The POST body can not be empty.")
    try:
        authenticate(issuer, form, _authorization(request))
    except StandInOAuthError as error:
        raise StandInOAuthError(
            ErrorCode.REQUEST_UNAUTHORIZED,
            "The request either did not include a known client authentication method, or "
            "contained invalid authentication details.",
        ) from error
    found = issuer.memory.tokens.get(form.get("token", ""))
    if found is None or not found.active(issuer.now()):
        return json_response({"active": False})
    return json_response(_introspected(found))


def _introspected(found: Token) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "active": True,
        "aud": list(found.audience),
        "client_id": found.grant.client_id,
        "exp": found.expires_at,
        "iat": found.issued_at,
        "scope": " ".join(found.scopes),
    }
    if found.grant.user is not None:
        answer |= {"sub": found.grant.user.subject, "username": found.grant.user.username}
    return answer


async def revocation(issuer: StandInIssuer, request: Request) -> Response:
    """End a token and all its family (RFC 7009); unknown ones are answered alike.

    So is one that a refresh has replaced, and it ends nothing: only the newest ones do.
    """
    form = await read_form(request)
    if not form:
        raise StandInOAuthError(ErrorCode.INVALID_REQUEST)
    client = _revoking_client(issuer, form, _authorization(request))
    found = issuer.memory.tokens.get(form.get("token", ""))
    if found is not None and not found.ended:
        if found.grant.client_id != client.client_id:
            raise StandInOAuthError(ErrorCode.UNAUTHORIZED_CLIENT)
        found.grant.revoked = True
    return Response(status_code=200, headers=NO_STORE)


def _revoking_client(
    issuer: StandInIssuer, form: dict[str, str], authorization: str
) -> RegisteredClient:
    try:
        return authenticate(issuer, form, authorization)
    except StandInOAuthError as error:
        if error.row is ErrorCode.INVALID_CLIENT.row:
            raise StandInOAuthError(
                ErrorCode.INVALID_CLIENT, ""
            ) from error  # no hint at this endpoint
        raise


async def userinfo(issuer: StandInIssuer, request: Request) -> Response:
    """Tell about the person of an access token (OpenID Connect Core, section 5.3)."""
    scheme, _, value = _authorization(request).partition(" ")
    found = issuer.memory.tokens.get(value) if scheme.lower() == "bearer" else None
    if found is None or not found.active(issuer.now()):
        return _no_userinfo(StandInOAuthError(ErrorCode.REQUEST_UNAUTHORIZED))
    if found.kind != "access":
        return _no_userinfo(StandInOAuthError(ErrorCode.INVALID_TOKEN))
    user = found.grant.user
    if user is None or "openid" not in found.scopes:
        return _no_userinfo(
            StandInOAuthError(
                ErrorCode.INSUFFICIENT_SCOPE, "The granted scope was missing the 'openid' scope."
            )
        )
    # Of the directory as it is now, whatever was true when the token was made.
    current = issuer.config.user(user.username)
    claims = {} if current is None else person_claims(issuer, current, found.scopes)
    if "email" in claims:
        claims["email_verified"] = True
    if "name" in claims:
        claims["updated_at"] = int(issuer.now())
    claims |= {"rat": int(found.grant.requested_at), "sub": user.subject}
    return json_response(claims)


def _no_userinfo(error: StandInOAuthError) -> Response:
    """Return a refusal in the three wordings that were recorded."""
    quoted = f'error_description="{error.description}"'
    if error.row is ErrorCode.REQUEST_UNAUTHORIZED.row:
        challenge, members = f'Bearer error="{error.row.name}",{quoted}', {}
    elif error.row is ErrorCode.INVALID_TOKEN.row:
        challenge = f'Bearer {quoted}, error_hint="{error.hint}", error="{error.row.name}"'
        members = error.members()
    else:
        challenge = (
            f'Bearer error="{error.row.name}", {quoted}, error_hint="{error.hint}", scope="openid"'
        )
        members = error.members()
    return json_response(members, error.row.status, {"www-authenticate": challenge})
