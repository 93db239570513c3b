"""How tokens are made: opaque or JWT access tokens, refresh tokens, ID tokens.

Invariant: an access token never says how its person logged in. `amr` and `auth_time` are in ID
tokens only, and no configuration changes that.
"""

import hashlib
import math
import uuid
from typing import Any

from authz_demo.issuer.keys import base64url
from authz_demo.issuer.state import IssuerGrant, StandInIssuer, Token, opaque
from authz_demo.issuer.values import CLAIM_SCOPES, RegisteredClient, User


def person_claims(issuer: StandInIssuer, user: User, scopes: tuple[str, ...]) -> dict[str, Any]:
    """Return the claims about a person that the scopes let out."""
    known: dict[str, Any] = {
        "email": user.email,
        "groups": list(user.groups),
        "name": user.display_name,
        "preferred_username": user.username,
    }
    claims = {name: value for name, value in known.items() if CLAIM_SCOPES[name] in scopes}
    custom = {
        claim.name: claim.value for claim in issuer.config.custom_claims if claim.scope in scopes
    }
    return claims | custom


def access_token(
    issuer: StandInIssuer, client: RegisteredClient, grant: IssuerGrant, scopes: tuple[str, ...]
) -> str:
    """Make and remember an access token for the grant's audience."""
    issued = int(issuer.now())
    lifetime = client.access_token_lifetime or issuer.config.lifetimes.access_token
    expires = issued + lifetime
    if client.access_token == "opaque":  # noqa: S105 - the kind of token, not one
        token = opaque("at")
    else:
        claims = {
            "aud": list(grant.audience),
            "client_id": client.client_id,
            "exp": expires,
            "iat": issued,
            "iss": issuer.config.base,
            "jti": str(uuid.uuid4()),
            "nbf": issued,
            "scp": list(scopes),
        }
        if grant.user is not None:
            about = person_claims(issuer, grant.user, scopes)
            claims |= {name: about[name] for name in client.claims_policy if name in about}
            claims["sub"] = grant.user.subject
        token = issuer.keys.sign(claims, client.access_token, "at+jwt")
    issuer.memory.tokens[token] = Token("access", grant, scopes, grant.audience, issued, expires)
    return token


def refresh_token(issuer: StandInIssuer, grant: IssuerGrant) -> str:
    """Make and remember a refresh token; it keeps all the scopes of the grant."""
    issued = int(issuer.now())
    expires = issued + issuer.config.lifetimes.refresh_token
    token = opaque("rt")
    issuer.memory.tokens[token] = Token(
        "refresh", grant, grant.scopes, grant.audience, issued, expires
    )
    return token


def id_token(
    issuer: StandInIssuer, client: RegisteredClient, grant: IssuerGrant, user: User, access: str
) -> str:
    """Make an ID token (OpenID Connect Core, section 2), signed with RS256 whatever the client."""
    issued = int(issuer.now())
    about = person_claims(issuer, user, grant.scopes)
    claims: dict[str, Any] = {
        **{name: about[name] for name in client.id_token_claims if name in about},
        "amr": list(grant.amr),
        # OpenID Connect Core, section 3.1.3.6: the left half of the hash.
        "at_hash": base64url(hashlib.sha256(access.encode()).digest()[:16]),
        "aud": [grant.client_id],
        "auth_time": grant.auth_time,
        "azp": grant.client_id,
        "exp": issued + issuer.config.lifetimes.id_token,
        "iat": issued,
        "iss": issuer.config.base,
        "jti": str(uuid.uuid4()),
        "sub": user.subject,
    }
    if grant.nonce:
        claims["nonce"] = grant.nonce
    if grant.acr_asked:
        claims["acr"] = "0"
    return issuer.keys.sign(claims, "RS256", "JWT")


def token_response(
    issuer: StandInIssuer, client: RegisteredClient, grant: IssuerGrant, scopes: tuple[str, ...]
) -> dict[str, Any]:
    """Make the tokens that a grant gives, and the answer that carries them.

    Args:
        issuer: keys, memory and clock.
        client: who receives them.
        grant: what was granted.
        scopes: those of the access token: the grant's, or fewer where a refresh asked for fewer.
    """
    access = access_token(issuer, client, grant, scopes)
    now = issuer.now()
    expires = issuer.memory.tokens[access].expires_at
    answer: dict[str, Any] = {
        "access_token": access,
        # Authelia cuts the fraction of the second off, so this is 3599 of 3600.
        "expires_in": math.ceil(expires - now) - 1,
        "scope": " ".join(scopes),
        "token_type": "bearer",
    }
    if grant.user is not None and "openid" in scopes:
        answer["id_token"] = id_token(issuer, client, grant, grant.user, access)
    if grant.user is not None and "offline_access" in grant.scopes:
        answer["refresh_token"] = refresh_token(issuer, grant)
    return answer
