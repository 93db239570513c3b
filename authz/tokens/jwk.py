"""Key sets (RFC 7517): the keys that may verify an access token.

Invariant: a key verifies with the algorithms that it was published for, and only those. What is
not plainly a public signature key of an allowed algorithm is skipped.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

import jwt

from authz.tokens import base64url
from authz.tokens.jose import is_key_id


class _Family(NamedTuple):
    """Which keys an algorithm takes (RFC 7518, sections 3.3 to 3.5)."""

    key_type: str
    curve: str | None


_RSA: Final = _Family("RSA", None)
# Asymmetric signatures only: whoever verifies with a shared secret could also sign with it.
ALGORITHMS: Final[Mapping[str, _Family]] = MappingProxyType(
    {
        **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), _RSA),
        "ES256": _Family("EC", "P-256"),
        "ES384": _Family("EC", "P-384"),
        "ES512": _Family("EC", "P-521"),
    }
)
DEFAULT_ALGORITHMS: Final = frozenset({"RS256", "ES256"})

_NUMBERS: Final = MappingProxyType({"RSA": ("e", "n"), "EC": ("x", "y")})
_MAX_KEYS: Final = 64
_RSA_BITS: Final = range(2048, 8192 + 1)  # RFC 7518, section 3.3; the end bounds our own work
_RSA_EXPONENT: Final = range(3, 1 << 32, 2)


class KeySetError(ValueError):
    """Say that a document is no key set, or one without a single usable key."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key, ready to verify.

    Attributes:
        key_id: its `kid`; empty where it has none.
        identity: a digest of all that it is: another key under an old `kid` is another key.
        by_algorithm: the key bound to each algorithm that it may verify.
    """

    key_id: str
    identity: str
    by_algorithm: Mapping[str, jwt.PyJWK] = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of an issuer.

    Attributes:
        keys: no two of them with the same `kid`.
        skipped: how many keys of the document were left out.
    """

    keys: tuple[VerificationKey, ...] = ()
    skipped: int = 0

    def knows(self, key_id: str) -> bool:
        """Tell whether there is a key with that `kid`."""
        return any(key.key_id == key_id for key in self.keys)

    def choose(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Return the one key that may verify, or None where there is none or more than one.

        Args:
            key_id: the token's `kid`; without one, the only key that fits the algorithm is meant.
            algorithm: the token's `alg`.
        """
        fitting = [
            key
            for key in self.keys
            if algorithm in key.by_algorithm and key_id in (None, key.key_id)
        ]
        return fitting[0] if len(fitting) == 1 else None

    @property
    def identities(self) -> frozenset[str]:
        """Return the identities of all keys."""
        return frozenset(key.identity for key in self.keys)


def check_algorithms(algorithms: Iterable[str]) -> frozenset[str]:
    """Return the configured algorithms, if each is an asymmetric signature known here.

    Raises:
        ValueError: for `none`, HMAC, unknown names, and for no name at all.
    """
    names = frozenset(algorithms)
    if not names or not names <= ALGORITHMS.keys():
        raise ValueError(f"algorithms must be some of {', '.join(sorted(ALGORITHMS))}")
    return names


def read_key_set(document: object, algorithms: frozenset[str]) -> KeySet:
    """Read a JWK Set (RFC 7517, section 5), leaving out what cannot be used.

    Two different keys under one `kid` are both left out: such a `kid` is ambiguous.

    Raises:
        KeySetError: where it is no key set, is over-long, or no key of it can be used.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > _MAX_KEYS:
        raise KeySetError("no list of keys, or too long a one")
    read = [key for entry in entries if (key := _read_key(entry, algorithms)) is not None]
    distinct = {key.identity: key for key in read}
    names = Counter(key.key_id for key in distinct.values() if key.key_id)
    keys = tuple(key for key in distinct.values() if names[key.key_id] <= 1)
    if not keys:
        raise KeySetError("no usable key")
    return KeySet(keys, skipped=len(entries) - len(keys))


def _read_key(entry: object, algorithms: frozenset[str]) -> VerificationKey | None:
    """Return the key of one JWK, or None where it may not verify anything here."""
    if not isinstance(entry, dict) or not _is_for_signatures(entry):
        return None
    public = _public_members(entry)
    usable = sorted(_algorithms_of(entry) & algorithms)
    if public is None or not usable:
        return None
    try:
        by_algorithm = {name: jwt.PyJWK(dict(public), name) for name in usable}
    except (jwt.PyJWTError, ValueError):
        # cryptography checks the numbers: a point off its curve, an even modulus.
        return None
    key_id = entry.get("kid", "")
    material = json.dumps([key_id, usable, public], sort_keys=True).encode()
    return VerificationKey(
        key_id, hashlib.sha256(material).hexdigest(), MappingProxyType(by_algorithm)
    )


def _is_for_signatures(entry: Mapping[str, object]) -> bool:
    """Tell whether the JWK's `use` and `key_ops` let it verify signatures (RFC 7517, section 4)."""
    operations = entry.get("key_ops", ["verify"])
    return (
        entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and ("kid" not in entry or is_key_id(entry["kid"]))
        # A published private key proves nothing any more.
        and "d" not in entry
    )


def _algorithms_of(entry: Mapping[str, object]) -> frozenset[str]:
    """Return what the key can verify: its `alg` if that fits its type, else all that fit."""
    family = (entry.get("kty"), entry.get("crv") if entry.get("kty") == "EC" else None)
    fitting = frozenset(name for name, takes in ALGORITHMS.items() if takes == family)
    if "alg" not in entry:
        return fitting
    return frozenset(name for name in fitting if name == entry["alg"])


def _public_members(entry: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return what makes the public key and nothing else, or None where they are invalid."""
    kind = entry.get("kty")
    names = _NUMBERS.get(kind) if isinstance(kind, str) else None
    if names is None:
        return None
    texts = [text for name in names if isinstance(text := entry.get(name), str)]
    try:
        numbers = [int.from_bytes(base64url.decode(text)) for text in texts]
    except ValueError:
        return None
    if len(numbers) != len(names) or (kind == "RSA" and not _is_sound_rsa(*numbers)):
        return None
    curve = {"crv": entry.get("crv")} if kind == "EC" else {}
    return {"kty": kind, **curve, **dict(zip(names, texts, strict=True))}


def _is_sound_rsa(exponent: int, modulus: int) -> bool:
    # An even modulus is taken by the library and fails inside OpenSSL at the first signature.
    return exponent in _RSA_EXPONENT and modulus.bit_length() in _RSA_BITS and modulus % 2 == 1
