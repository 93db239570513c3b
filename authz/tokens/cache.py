"""LRU cache of verified tokens by SHA-256.

Invariant: it holds principals and never a verdict; nothing is returned past its expiry, and no more
than the capacity is held. Refused tokens are not cached.

Not cachetools: this is on the compiled path of every check, and entries are also dropped when
their key is withdrawn.
"""

from collections import OrderedDict
from collections.abc import Container
from hashlib import sha256
from typing import NamedTuple

from authz.core.principal import Principal


def token_digest(token: str) -> bytes:
    """Return the SHA-256 by which a token is cached; it is ASCII."""
    return sha256(token.encode("ascii")).digest()


class _Entry(NamedTuple):
    principal: Principal
    key: str


class PrincipalCache:
    """Hold principals by token digest; the least recently used go first."""

    def __init__(self, capacity: int) -> None:
        """Take how many to hold at most, at least 1."""
        if capacity < 1:
            raise ValueError("a cache holds at least one entry")
        self._capacity = capacity
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal of a token that has not expired."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if entry.principal.expires_at <= now:
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return entry.principal

    def put(self, digest: bytes, principal: Principal, key: str) -> None:
        """Remember a principal, with the identity of the key that verified it."""
        self._entries[digest] = _Entry(principal, key)
        self._entries.move_to_end(digest)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def forget_keys(self, identities: Container[str]) -> None:
        """Drop every token that one of these keys verified."""
        gone = [digest for digest, entry in self._entries.items() if entry.key in identities]
        for digest in gone:
            del self._entries[digest]
