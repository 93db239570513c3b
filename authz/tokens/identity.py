"""Signed identity assertions (JWT) for MCP servers that do not trust their network.

Invariant: an assertion is for one server, names one principal, and is at most a minute old when it
ends; a cached one is signed anew after half of its life.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from authz.config.key_files import PrivateKey, read_private_key
from authz.core.answers import told_scopes
from authz.core.policy import Server
from authz.core.principal import Principal
from authz.tokens.base64url import encode

TYPE: Final = "authz-identity+jwt"
LIFETIME: Final = 60  # seconds
_CAPACITY: Final = 4096
# RFC 7638, section 3.2: the members that a thumbprint is made of, in this order.
_REQUIRED: Final = {"ES256": ("crv", "kty", "x", "y"), "RS256": ("e", "kty", "n")}


@dataclass(frozen=True, slots=True)
class _Signed:
    principal: Principal  # held, so that its number is nobody else's
    server: Server
    assertion: str
    renew_at: float


class IdentitySigner:
    """Sign and cache assertions of who calls which server."""

    def __init__(self, pem: str, issuer: str, clock: Callable[[], float]) -> None:
        """Take the private key.

        Args:
            pem: P-256 (ES256) or RSA (RS256), without a passphrase.
            issuer: the `iss` of assertions: the gateway's URL.
            clock: seconds since the epoch.

        Raises:
            ValueError: where it is no such key.
        """
        self._key, self._algorithm = read_private_key(pem)
        self._issuer = issuer
        self._clock = clock
        self._headers = {"typ": TYPE, "kid": public_key(self._key, self._algorithm)["kid"]}
        self._signed: dict[tuple[int, int], _Signed] = {}

    def assertion(self, principal: Principal, server: Server) -> str:
        """Return a signed assertion that this principal calls this server now."""
        key, now = (id(principal), id(server)), self._clock()
        found = self._signed.get(key)
        if found is not None and now < found.renew_at:
            return found.assertion
        ends = min(int(now) + LIFETIME, principal.expires_at)
        claims = _claims(principal, server) | {
            "iss": self._issuer,
            "iat": int(now),
            "exp": ends,
        }
        assertion = jwt.encode(claims, self._key, self._algorithm, headers=self._headers)
        self._signed.pop(key, None)
        if len(self._signed) >= _CAPACITY:
            del self._signed[next(iter(self._signed))]
        self._signed[key] = _Signed(principal, server, assertion, now + (ends - now) / 2)
        return assertion


def _claims(principal: Principal, server: Server) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "aud": server.resource,
        "idp": principal.issuer,
        "client_id": principal.client_id,
        "scope": " ".join(sorted(told_scopes(principal, server))),
        "groups": sorted(principal.groups),
    }
    if principal.subject is not None:
        claims["sub"] = principal.subject
    return claims


def key_set(*pems: str) -> bytes:
    """Return the public halves as a key set (RFC 7517), each once, for MCP servers.

    Raises:
        ValueError: where one is no private key (`read_private_key`).
    """
    keys = [public_key(*read_private_key(pem)) for pem in pems]
    once = {str(key["kid"]): key for key in keys}
    return json.dumps({"keys": list(once.values())}, indent=2).encode() + b"\n"


def public_key(key: PrivateKey, algorithm: str) -> dict[str, Any]:
    """Return the public half as a JWK, named by its thumbprint (RFC 7638)."""
    public = key.public_key()
    jwk: dict[str, Any]
    if isinstance(public, EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
    named = {name: jwk[name] for name in _REQUIRED[algorithm]}
    text = json.dumps(named, separators=(",", ":"), sort_keys=True)
    kid = encode(hashlib.sha256(text.encode()).digest())
    return {**named, "kid": kid, "alg": algorithm, "use": "sig"}
