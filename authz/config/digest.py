"""Digests of a configuration, by which what runs is compared with what is written.

Invariant: a digest tells no secret that could be guessed: the files that authz.yaml names are
digested under a key made of the private keys among them, and passwords are left out where there is
none (tests/config/test_digest.py).
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_LENGTH: Final = 12  # hex digits of each half
_KEY_PURPOSE: Final = b"authz configuration digest 1\0"


@dataclass(frozen=True, slots=True)
class ConfigDigest:
    """Name a configuration in log, metrics and `authz status`.

    Attributes:
        file: of what authz.yaml says, without comments and layout.
        named: of the files that it names (pins, keys, passwords, authorities); empty where
            they were not read.
    """

    file: str
    named: str = ""

    def __str__(self) -> str:
        """Return both halves, `3f9a12bc44d0-07c1e2aa9b35`, or the first where it is alone."""
        return f"{self.file}-{self.named}" if self.named else self.file

    def agrees(self, other: "ConfigDigest") -> bool:
        """Tell whether nothing that both know differs."""
        return self.file == other.file and (
            not (self.named and other.named) or self.named == other.named
        )


def parse_digest(text: str) -> ConfigDigest:
    """Read what `str` of a digest says."""
    file, _, named = text.partition("-")
    return ConfigDigest(file, named)


def digest_document(data: object) -> str:
    """Return the digest of the values of a YAML document, in their order."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def digest_named(
    secrets: Mapping[str, str],
    pins: Mapping[str, Mapping[str, str]],
    authorities: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the digest of the files that a configuration names.

    Args:
        secrets: what secret files hold, by what they are for.
        pins: digests of approved definitions, by server and tool.
        authorities: what servers' certificates may be signed by, PEM, by server.
    """
    keys = {name: text for name, text in secrets.items() if _is_private_key(text)}
    # Passwords have too little entropy for a digest whose key everybody knows.
    digested = secrets if keys else {}
    named = [digested, pins, *([dict(authorities)] if authorities else [])]
    text = json.dumps(named, ensure_ascii=True, sort_keys=True)
    key = hashlib.sha256(_KEY_PURPOSE + json.dumps(keys, sort_keys=True).encode()).digest()
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()[:_LENGTH]


def _is_private_key(text: str) -> bool:
    """Tell a private key from other secrets by its form: it was parsed when it was read."""
    first, *rest = text.lstrip().splitlines() or [""]
    return first.startswith("-----BEGIN ") and bool(rest)
