"""Canonical base64url without padding (RFC 7515, section 2).

Invariant: every octet string has one spelling. Padding, foreign characters, white space and
trailing bits that are not zero are errors, so that one token cannot be spelled in two ways.
"""

import base64
import binascii
from typing import Final

_TO_BASE64: Final = bytes.maketrans(b"-_", b"+/")


def decode(text: str) -> bytes:
    """Return the octets of a canonical base64url text without padding.

    Raises:
        ValueError: where re-encoding the octets would not give the same text.
    """
    padded = text.encode("ascii").translate(_TO_BASE64) + b"=" * (-len(text) % 4)
    try:
        octets = binascii.a2b_base64(padded, strict_mode=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    # strict_mode looks at characters and padding only: `+`, `/` and unused bits came through.
    if encode(octets) != text:
        raise ValueError("not canonical base64url")
    return octets


def encode(octets: bytes) -> str:
    """Return the canonical base64url text of the octets, without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")
