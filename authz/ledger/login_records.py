"""Login records in Redis: the log-in behind each access token of the front door.

Invariant: a token finds its own record only, by the SHA-256 of the whole token, and a record that
`encode` does not write is none, so its token is refused (tests/ledger/test_login_records.py).
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from typing import Any, Final

from authz.core.principal import LoginRecord
from authz.core.strict_json import StrictJsonError, loads
from authz.ledger.keys import RedisKeys

Command = Callable[..., Awaitable[Any]]  # RedisLedger.command
_TEXTS: Final = ("client", "client_id", "grant", "subject", "account")
_LATER: Final = ("redirect_uri", "ends_at", "document_host")  # not in records of earlier releases
_MAY_BE_EMPTY: Final = frozenset({"account", *_LATER})
# Seconds that the old token's record stays after a refresh, for calls under way.
REFRESHED_RECORD_TTL: Final = 60


async def scan(command: Command, pattern: bytes) -> AsyncIterator[list[bytes]]:
    """Yield the keys that match, in the lots that Redis gives, each key once; for commands.

    Raises:
        UnavailableError: where Redis did not answer.
    """
    cursor, seen = b"0", set[bytes]()
    while True:
        cursor, found = await command("SCAN", cursor, "MATCH", pattern, "COUNT", 500)
        new = [key for key in dict.fromkeys(found) if key not in seen]
        seen.update(new)
        if new:
            yield new
        if cursor in (b"0", 0):
            return


class LoginRecords:
    """Login records of one deployment; every method may raise UnavailableError."""

    def __init__(self, command: Command, keys: RedisKeys) -> None:
        self._command = command
        self._keys = keys

    async def get(self, token: str) -> LoginRecord | None:
        """Return the record of a token; None where there is none."""
        return await self._get(self._key(token))

    async def of_digest(self, name: str) -> LoginRecord | None:
        """Return the record of a token, given the token's hex SHA-256; None where there is none."""
        return await self._get(self._keys.login_record(name))

    async def put(self, token: str, record: LoginRecord, lifetime: int) -> None:
        """Write the record of a token, for so many seconds, at least 1."""
        await self._command("SET", self._key(token), encode(record), "EX", lifetime)

    async def expire(self, token: str, within: int = REFRESHED_RECORD_TTL) -> None:
        """Let a record expire in so many seconds, if it would not before."""
        await self._command("EXPIRE", self._key(token), within, "LT")

    async def _get(self, key: bytes) -> LoginRecord | None:
        found = await self._command("GET", key)
        return decode(found) if isinstance(found, bytes) else None

    def _key(self, token: str) -> bytes:
        return self._keys.login_record(sha256(token.encode()).hexdigest())


def encode(record: LoginRecord) -> bytes:
    """Return a record as bytes."""
    members: dict[str, object] = {name: getattr(record, name) for name in (*_TEXTS, *_LATER)}
    members |= {"amr": sorted(record.amr), "auth_time": record.auth_time}
    return json.dumps(members, separators=(",", ":")).encode()


def decode(data: bytes) -> LoginRecord | None:
    """Read a record; None for anything that `encode` does not write."""
    try:
        members = loads(data)
    except StrictJsonError:
        return None
    if not isinstance(members, dict):
        return None
    if members.keys().isdisjoint(_LATER):
        members |= dict.fromkeys(_LATER, "")
    if members.keys() != {*_TEXTS, *_LATER, "amr", "auth_time"}:
        return None
    amr, auth_time = members["amr"], members["auth_time"]
    texts = {name: members[name] for name in (*_TEXTS, *_LATER)}
    if not all(
        isinstance(text, str) and (text or name in _MAY_BE_EMPTY) for name, text in texts.items()
    ):
        return None
    if not isinstance(amr, list) or not all(isinstance(each, str) for each in amr):
        return None
    if type(auth_time) is not int or auth_time < 0:
        return None
    return LoginRecord(amr=frozenset(amr), auth_time=auth_time, **texts)
