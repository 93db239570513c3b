"""Chains of records: each holds the MAC of the one before it.

A chain belongs to one process, so that no process waits for another. Its MACs are HMAC-SHA256 with
a key that is made of the sealing key, cut to 128 bits (RFC 2104, section 5); without a sealing key
the key is public, and a chain shows damage, not forgery.
"""

import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from authz.audit.record import ChainLink, chained
from authz.tokens import base64url

_MAC_BYTES: Final = 16
_PUBLIC: Final = b"authz audit 1"  # in place of a key where there is none


@dataclass(frozen=True, slots=True)
class TrailKeys:
    """Hold the keys of MACs, newest first: the first writes, each of them verifies."""

    secret: tuple[bytes, ...] = ()

    @property
    def newest(self) -> bytes:
        """Return the key that writes."""
        return self.every[0]

    @property
    def every(self) -> tuple[bytes, ...]:
        """Return the keys that verify; the public one only where there is no other."""
        return self.secret or (_PUBLIC,)


def mac(key: bytes, text: bytes) -> str:
    """Return the MAC of a text as 22 characters of base64url."""
    return base64url.encode(hmac.digest(key, text, "sha256")[:_MAC_BYTES])


def is_mac(key: bytes, text: bytes, given: str) -> bool:
    """Tell whether a MAC is that of a text."""
    return hmac.compare_digest(mac(key, text).encode(), given.encode("utf-8", "replace"))


def floor_text(chain: str, link: ChainLink, time: int) -> bytes:
    """Return what the MAC of a floor covers: up to which record the bound has removed a chain."""
    return f"floor {chain} {link.number} {link.mac} {time}".encode()


@dataclass(frozen=True, slots=True)
class ChainedRecord:
    """Hold one record as it is stored.

    Attributes:
        text: the record.
        link: its number and MAC.
        previous: the MAC of the record before it; empty for the first.
    """

    text: bytes
    link: ChainLink
    previous: str = ""


class AuditChain:
    """Append records to one chain.

    Attributes:
        name: random, so that no two processes share a chain.
        head: the last record; None for none.
    """

    def __init__(self, key: bytes, name: str | None = None) -> None:
        self.name = secrets.token_hex(8) if name is None else name
        self.head: ChainLink | None = None
        self._key = key

    def add(self, body: str, time: float) -> ChainedRecord:
        """Return the next record, given its body (`record.body`) and its moment."""
        number, previous = (0, "") if self.head is None else (self.head.number + 1, self.head.mac)
        text = chained(body, time, self.name, number, previous).encode("ascii")
        self.head = ChainLink(number, mac(self._key, text))
        return ChainedRecord(text, self.head, previous)
