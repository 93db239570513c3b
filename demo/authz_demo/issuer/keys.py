"""The signing keys of the stand-in: one RS256, one ES256, made when it starts."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Algorithm = Literal["RS256", "ES256"]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_P256_BYTES = 32


def base64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int, length: int | None = None) -> str:
    return base64url(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


def _kid(key: PrivateKey, algorithm: Algorithm) -> str:
    """Return an id as Authelia makes them by default: hex digits, a dash, the algorithm."""
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"{hashlib.sha256(der).hexdigest()[:6]}-{algorithm.lower()}"


@dataclass(frozen=True, slots=True)
class StandInKeys:
    """Hold the two key pairs; sign, and publish what verifies."""

    rsa: rsa.RSAPrivateKey
    ec: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls) -> "StandInKeys":
        """Make new ones."""
        return cls(
            rsa.generate_private_key(public_exponent=65537, key_size=2048),
            ec.generate_private_key(ec.SECP256R1()),
        )

    def sign(self, claims: dict[str, Any], algorithm: Algorithm, typ: str) -> str:
        """Return a compact JWT whose members are sorted, as Authelia's are."""
        key: PrivateKey = self.rsa if algorithm == "RS256" else self.ec
        return jwt.encode(
            dict(sorted(claims.items())),
            key,
            algorithm=algorithm,
            headers={"kid": _kid(key, algorithm), "typ": typ},
            sort_headers=True,
        )

    def jwks(self) -> dict[str, Any]:
        """Return the key set document (RFC 7517)."""
        public = self.rsa.public_key().public_numbers()
        point = self.ec.public_key().public_numbers()
        return {
            "keys": [
                {
                    "alg": "RS256",
                    "e": _number(public.e),
                    "kid": _kid(self.rsa, "RS256"),
                    "kty": "RSA",
                    "n": _number(public.n),
                    "use": "sig",
                },
                {
                    "alg": "ES256",
                    "crv": "P-256",
                    "kid": _kid(self.ec, "ES256"),
                    "kty": "EC",
                    "use": "sig",
                    "x": _number(point.x, _P256_BYTES),
                    "y": _number(point.y, _P256_BYTES),
                },
            ]
        }
