"""Key files: private keys that sign (PEM), their public halves, and keys to seal with.

No message quotes a key.
"""

import os
import re
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from authz.config.files import read_regular

PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey

_MIN_RSA_BITS: Final = 2048  # RFC 7518, section 3.3
_LONGEST_FILE: Final = 16 * 1024
# RFC 9110, sections 5.1 and 5.5; a value as it can stand in any header.
_HEADER: Final = re.compile(
    r"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}): *(?P<value>[\x21-\x7e](?:[\x20-\x7e]*))\Z"
)
_MOST_HEADERS: Final = 16
_MIN_SEALING_KEY: Final = 32  # characters of a line
_FORMER: Final = "key_file:"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Hold the public half of what assertions are signed with: PEM and its algorithm."""

    pem: str
    algorithm: str


def read_private_key(pem: str) -> tuple[PrivateKey, str]:
    """Return a key and its algorithm: P-256 with ES256, RSA with RS256.

    Raises:
        ValueError: where the text is no such key in PEM, or one under a passphrase.
    """
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("it holds no private key in PEM without a passphrase") from None
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key, "ES256"
    if isinstance(key, RSAPrivateKey) and key.key_size >= _MIN_RSA_BITS:
        return key, "RS256"
    raise ValueError("its key is neither P-256 nor RSA of 2048 bits or more")


def to_pem(key: PrivateKey) -> str:
    """Return a private key as PKCS #8 in PEM, without a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def new_private_key() -> str:
    """Return a new P-256 key (ES256), PEM."""
    return to_pem(generate_private_key(SECP256R1()))


def make_key(path: Path) -> None:
    """Make a P-256 key (ES256) where there is no file yet; one that is there stays.

    Raises:
        OSError: where the file cannot be written.
    """
    try:
        # Never there with other rights than these, not for a moment.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(new_private_key())


def public_half(path: Path) -> PublicKey | None:
    """Return the public half of a private key; None where the file is not here or is no key."""
    try:
        key, algorithm = read_private_key(read_regular(path, _LONGEST_FILE).decode("ascii"))
    except (OSError, ValueError):
        return None
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(pem.decode("ascii"), algorithm)


def sealing_lines(text: str) -> tuple[str, ...]:
    """Return the keys of a file, in its order, without blank lines.

    Raises:
        ValueError: where the file holds no line, one that is too short to be a key, or one that
            begins with `key_file:` and holds no private key.
    """
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines or any(len(line) < _MIN_SEALING_KEY for line in lines):
        raise ValueError(f"it holds no key, or one of less than {_MIN_SEALING_KEY} characters")
    for line in lines:
        former_key(line)
    return lines


def former_key(line: str) -> str | None:
    """Return the private key (PEM) that a line holds in base64 after `key_file:`.

    What was sealed while `front_door.seal_file` was not set is sealed with a key made of it.

    Returns:
        None for another line.

    Raises:
        ValueError: where it holds no private key.
    """
    if not line.startswith(_FORMER):
        return None
    try:
        pem = b64decode(line.removeprefix(_FORMER), validate=True).decode("ascii")
    except ValueError:
        raise ValueError(f"a line begins with {_FORMER} and holds no base64") from None
    read_private_key(pem)
    return pem


def header_lines(text: str) -> tuple[tuple[str, str], ...]:
    """Return the names and values of a file of headers, names in lower case.

    Raises:
        ValueError: where a line is no header (RFC 9110, section 5), one comes twice, or there are
            too many.
    """
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _HEADER.match(line)
        if match is None or match["name"].lower() in found:
            raise ValueError("a line is no `name: value` of printable ASCII, or comes twice")
        found[match["name"].lower()] = match["value"]
    if not 0 < len(found) <= _MOST_HEADERS:
        raise ValueError(f"it holds no header, or more than {_MOST_HEADERS}")
    return tuple(found.items())
