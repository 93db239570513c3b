"""Tokens made on the fly, honest and forged, and small fakes of what the verifier stands on."""

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import settings

from authz.core.ledger import UnavailableError
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.tokens.claims import ClaimRules
from authz.tokens.front_door import FrontDoorTokens
from authz.tokens.issuer_http import IssuerError
from authz.tokens.jwk import DEFAULT_ALGORITHMS, KeySet, read_key_set
from authz.tokens.keys import KeyRefreshPolicy, KeysFetched, SigningKeys
from authz.tokens.verifier import TokenVerifier

ISSUER: Final = "https://auth.example.test"
FILES: Final = "https://mcp.example.test/files"
NOTES: Final = "https://mcp.example.test/notes"
NOW: Final = 1_795_381_000
RULES: Final = ClaimRules(ISSUER, leeway=30, max_lifetime=7200)

# As a recorded Authelia makes them (fixtures: "2fa default").
CLAIMS: Final[Mapping[str, object]] = {
    "aud": [FILES, NOTES],
    "client_id": "mcp-2fa",
    "exp": NOW + 3600,
    "iat": NOW - 60,
    "iss": ISSUER,
    "jti": "4460598a-9523-4cfa-b027-d6cf2c902979",
    "nbf": NOW - 60,
    "scp": ["openid", "mcp:tools"],
    "sub": "52b134ec-d812-4022-82b4-9100df7e1418",
}


class _Absent:
    """Stand for a member that is left out; its name in a test's id is always the same."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()

unhurried: Final = settings(deadline=None)  # a busy machine is no failure

T = TypeVar("T")


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, length: int | None = None) -> str:
    return b64(value.to_bytes(length or (value.bit_length() + 7) // 8))


def with_changes(values: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Merge, leaving out what is ABSENT."""
    return {name: value for name, value in {**values, **changes}.items() if value is not ABSENT}


@dataclass(frozen=True)
class TokenSigner:
    """An issuer's key."""

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    kid: str
    alg: str

    def jwk(self, **changes: object) -> dict[str, object]:
        common = {"kid": self.kid, "alg": self.alg, "use": "sig"}
        public = self.key.public_key().public_numbers()
        if isinstance(public, rsa.RSAPublicNumbers):
            own = {"kty": "RSA", "n": number(public.n), "e": number(public.e)}
        else:
            size = (public.curve.key_size + 7) // 8
            own = {
                "kty": "EC",
                "crv": {256: "P-256", 384: "P-384", 521: "P-521"}[public.curve.key_size],
                "x": number(public.x, size),
                "y": number(public.y, size),
            }
        return with_changes({**own, **common}, changes)

    def sign(self, data: bytes) -> bytes:
        digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[
            self.alg[2:]
        ]
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(digest)))
            size = (self.key.curve.key_size + 7) // 8
            return r.to_bytes(size) + s.to_bytes(size)
        if self.alg.startswith("PS"):
            pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
            return self.key.sign(data, pss, digest)
        return self.key.sign(data, padding.PKCS1v15(), digest)

    def compact(self, header: bytes, payload: bytes) -> str:
        """Sign these very bytes."""
        signed = f"{b64(header)}.{b64(payload)}"
        return f"{signed}.{b64(self.sign(signed.encode()))}"

    def header(self, **changes: object) -> dict[str, object]:
        return with_changes({"alg": self.alg, "kid": self.kid, "typ": "at+jwt"}, changes)

    def token(
        self, claims: Mapping[str, object] | None = None, header: Mapping[str, object] | None = None
    ) -> str:
        """Sign a good token with some changes."""
        return self.compact(
            json.dumps(self.header(**(header or {}))).encode(),
            json.dumps(with_changes(CLAIMS, claims or {})).encode(),
        )


@cache
def rsa_signer(kid: str = "mcp-rs256", alg: str = "RS256", bits: int = 2048) -> TokenSigner:
    return TokenSigner(rsa.generate_private_key(65537, bits), kid, alg)


@cache
def ec_signer(kid: str = "mcp-es256", alg: str = "ES256") -> TokenSigner:
    curves: dict[str, ec.EllipticCurve] = {
        "ES256": ec.SECP256R1(),
        "ES384": ec.SECP384R1(),
        "ES512": ec.SECP521R1(),
    }
    return TokenSigner(ec.generate_private_key(curves[alg]), kid, alg)


def key_set(*keys: object) -> KeySet:
    return read_key_set({"keys": list(keys)}, DEFAULT_ALGORITHMS)


class TokenClock:
    """Time that passes when told to."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Source:
    """A key source that answers what it is told to, and counts."""

    def __init__(self, answer: KeySet | IssuerError | Exception) -> None:
        self.answer = answer
        self.fetches = 0
        self.gate: asyncio.Event | None = None

    async def fetch(self) -> KeySet:
        self.fetches += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class TokenBench:
    """A verifier with all that it stands on, in the hands of a test."""

    def __init__(
        self,
        *jwks: object,
        algorithms: frozenset[str] = DEFAULT_ALGORITHMS,
        capacity: int = 100,
        renewal: KeyRefreshPolicy | None = None,
        front_door: FrontDoorTokens | None = None,
        rules: ClaimRules = RULES,
    ) -> None:
        published = jwks or (rsa_signer().jwk(), ec_signer().jwk())
        self.source = Source(read_key_set({"keys": list(published)}, algorithms))
        self.clock = TokenClock(NOW)
        self.monotonic = TokenClock(1000.0)
        self.fetched: list[KeysFetched] = []
        self.keys = SigningKeys(
            self.source,
            renewal or KeyRefreshPolicy(deadline=5.0),
            observer=self.fetched.append,
            clock=self.monotonic,
        )
        self.verifier = TokenVerifier(
            self.keys,
            rules,
            algorithms,
            front_door=front_door,
            clock=self.clock,
            capacity=capacity,
        )

    def outcome(self, token: str) -> Principal | Reason | str:
        """Verify a token: who sent it, why not, or whose fault."""
        return asyncio.run(outcome_of(self.verifier.verify(token)))


async def outcome_of(call: Coroutine[Any, Any, T]) -> T | Reason | str:
    try:
        return await call
    except RefusedError as refused:
        return refused.reason
    except UnavailableError as fault:
        return f"unavailable: {fault.dependency}"


def refusal(call: Callable[[], object]) -> Reason | None:
    """Return why a call refuses, or None where it does not."""
    try:
        call()
    except RefusedError as refused:
        return refused.reason
    return None
