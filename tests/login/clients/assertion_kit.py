"""A client's keys, and the assertions that it signs with them."""

import json
import secrets
import time
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

EC_KEY: Final = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY: Final = ec.generate_private_key(ec.SECP256R1())
RSA_KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def public_jwk(key: Key, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """Return the public half as a JWK."""
    if isinstance(key, rsa.RSAPrivateKey):
        text = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())
    else:
        text = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())
    found: dict[str, Any] = json.loads(text)
    found.pop("key_ops", None)
    return found | ({} if kid is None else {"kid": kid}) | more


def assertion(
    client_id: str,
    audience: Any,
    key: Any = EC_KEY,
    *,
    algorithm: str = "ES256",
    kid: str | None = "k1",
    header: dict[str, Any] | None = None,
    now: float | None = None,
    **claims: Any,
) -> str:
    """Return an assertion; a claim that is None is left out."""
    at = int(time.time() if now is None else now)
    said = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": secrets.token_urlsafe(12),
        "iat": at,
        "exp": at + 300,
        **claims,
    }
    said = {name: value for name, value in said.items() if value is not None}
    headers = {**({} if kid is None else {"kid": kid}), **(header or {})}
    return jwt.encode(said, key, algorithm, headers=headers)
