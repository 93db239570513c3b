"""Sealed values: authenticated encryption of values that others hold for us (JWE, RFC 7516).

Invariant: a value opens only for the purpose that it was sealed for and before its end; the error
gives no reason. The newest key seals, every key opens, so that keys can be rotated.

`dir` with A256GCM, the purpose as `typ` and the key's name as `kid`, both authenticated with the
text.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from joserfc.registry import HeaderParameter

from authz.config.key_files import former_key, sealing_lines
from authz.core.strict_json import StrictJsonError, loads

LONGEST: Final = 12 * 1024  # characters of a sealed value; Authelia's tokens are a tenth of it
_REGISTRY: Final = jwe.JWERegistry(
    {"typ": HeaderParameter("purpose", "str"), "kid": HeaderParameter("key", "str")},
    ["dir", "A256GCM"],
)


class NotSealedError(Exception):
    """The text was not sealed by us for this purpose, or has expired."""


def sealing_secrets(file: str | None, private_key: str) -> tuple[str, ...]:
    """Return the secrets that keys are derived from: lines of a file, or our clients' private key.

    A line `key_file:` with a private key's file in base64 opens what was sealed while there was no
    such file.

    Raises:
        ValueError: where the file holds no line, or one that is no key.
    """
    if file is None:
        return (private_key,)
    return tuple(_secret_of(line) for line in sealing_lines(file))


def _secret_of(line: str) -> str:
    return former_key(line) or line


class Sealer:
    """Seal and open values of one deployment."""

    def __init__(self, secrets: Sequence[str], clock: Callable[[], float]) -> None:
        """Take what keys are made of, newest first, and a clock of seconds since the epoch."""
        if not secrets:
            raise ValueError("nothing to seal with")
        keys = [_derive(secret) for secret in secrets]
        self._newest = keys[0]
        self._keys = dict(reversed(keys))  # of two alike the newer counts
        self._clock = clock

    def seal(self, purpose: str, value: Mapping[str, Any], lifetime: float) -> str:
        """Return a text of URL-safe characters that holds the value.

        Args:
            purpose: a fixed name; what is sealed for one purpose opens for no other.
            value: JSON.
            lifetime: seconds.
        """
        key_id, key = self._newest
        header = {"alg": "dir", "enc": "A256GCM", "typ": purpose, "kid": key_id}
        until = self._clock() + lifetime
        plain = json.dumps({"until": until, "value": value}, separators=(",", ":")).encode()
        return jwe.encrypt_compact(header, plain, key, registry=_REGISTRY)

    def open(self, purpose: str, text: str, *, longest: int = LONGEST) -> Mapping[str, Any]:
        """Return the value of a sealed text.

        Args:
            purpose: as it was sealed for.
            text: what somebody sent, or Redis kept.
            longest: characters that it may have.

        Raises:
            NotSealedError: where it was not sealed by us for this purpose, was altered, or has
                expired.
        """
        if len(text) > longest or not text.isascii():
            raise NotSealedError
        try:
            found = jwe.decrypt_compact(text, self._key, registry=_REGISTRY)
            header, plain = found.headers(), loads(found.plaintext or b"")
        except (JoseError, StrictJsonError, ValueError, TypeError, KeyError) as error:
            raise NotSealedError from error
        if header.get("typ") != purpose or not isinstance(plain, dict):
            raise NotSealedError
        until, value = plain.get("until"), plain.get("value")
        if not isinstance(until, int | float) or not isinstance(value, dict):
            raise NotSealedError
        if self._clock() >= until:
            raise NotSealedError
        return value

    def mac_key(self, purpose: str) -> Sequence[bytes]:
        """Return keys for HMAC (dynamic registrations), one of each sealing key, newest first."""
        keys = [
            self._newest[1],
            *(key for name, key in self._keys.items() if name != self._newest[0]),
        ]
        return [_expand(key.raw_value, f"authz mac {purpose}") for key in keys]

    def _key(self, recipient: Any) -> OctKey:
        return self._keys[recipient.headers()["kid"]]


def _derive(secret: str) -> tuple[str, OctKey]:
    raw = _expand(secret.encode(), "authz sealing 1")
    name = hashlib.sha256(raw).digest()[:6]  # of the derived key, which it does not give away
    return base64.urlsafe_b64encode(name).decode("ascii"), OctKey.import_key(raw)


def _expand(material: bytes, info: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info.encode()).derive(material)
