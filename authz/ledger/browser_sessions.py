"""Sessions of browsers in Redis, by a digest of their tokens; what is kept is sealed elsewhere.

Invariant: a session that was ended is not found any more, and nothing that was under way brings it
back (tests/ledger/test_browser_sessions.py).
"""

from authz.core.limits import digest
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command


class SessionRecords:
    """Sessions of one deployment; every method may raise UnavailableError."""

    def __init__(self, command: Command, keys: RedisKeys) -> None:
        self._command = command
        self._keys = keys

    async def get(self, origin: str, token: str) -> str | None:
        """Return what was kept of a session for an origin; None where there is none."""
        found = await self._command("GET", self._key(origin, token))
        return found.decode("ascii", "replace") if isinstance(found, bytes) else None

    async def put(self, origin: str, token: str, text: str, lifetime: int) -> None:
        """Keep a session, for so many seconds, at least 1."""
        await self._command("SET", self._key(origin, token), text, "EX", lifetime)

    async def renew(self, origin: str, token: str, text: str) -> None:
        """Keep another text of a session until the same end, where it has not been ended."""
        await self._command("SET", self._key(origin, token), text, "XX", "KEEPTTL")

    async def end(self, origin: str, token: str) -> None:
        """End a session."""
        await self._command("DEL", self._key(origin, token))

    def _key(self, origin: str, token: str) -> bytes:
        return self._keys.record("browser-session", digest(origin, token))
