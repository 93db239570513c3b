"""The log-in behind each access token of the front door, under the token's digest in Redis.

Law: a record is written once and read strictly; what cannot be read is no record, so its token is
refused. A token finds its own record only: the name is the SHA-256 of the whole token.
"""

import json
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, Final

from authz.core.principal import LoginRecord
from authz.core.strict_json import StrictJsonError, loads
from authz.ledger.keys import RedisKeys

Command = Callable[..., Awaitable[Any]]
_TEXTS: Final = ("client", "client_id", "grant", "subject", "account")
_LATER: Final = ("redirect_uri", "ends_at", "document_host")  # not in records of a version before
_MAY_BE_EMPTY: Final = frozenset({"account", *_LATER})
# Seconds that the old token's record stays after a refresh: calls under way end with it.
REFRESHED_RECORD_TTL: Final = 60


class LoginRecords:
    """Read and write the records of one deployment."""

    def __init__(self, command: Command, keys: RedisKeys) -> None:
        """Take what sends one command to Redis (`RedisLedger.command`), and the names."""
        self._command = command
        self._keys = keys

    async def of(self, token: str) -> LoginRecord | None:
        """Return the log-in behind a token; None where there is no record.

        Raises:
            UnavailableError: where Redis does not answer.
        """
        found = await self._command("GET", self._key(token))
        return decode(found) if isinstance(found, bytes) else None

    async def record(self, token: str, login: LoginRecord, lifetime: int) -> None:
        """Write the log-in behind a token, for so many seconds, at least 1.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        await self._command("SET", self._key(token), encode(login), "EX", lifetime)

    async def expire(self, token: str, within: int = REFRESHED_RECORD_TTL) -> None:
        """Let a record end in so many seconds, if it would not before.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        await self._command("EXPIRE", self._key(token), within, "LT")

    def _key(self, token: str) -> bytes:
        return self._keys.log_in(sha256(token.encode()).hexdigest())


def encode(login: LoginRecord) -> bytes:
    """Return a record as bytes."""
    record: dict[str, object] = {name: getattr(login, name) for name in (*_TEXTS, *_LATER)}
    record |= {"amr": sorted(login.amr), "auth_time": login.auth_time}
    return json.dumps(record, separators=(",", ":")).encode()


def decode(record: bytes) -> LoginRecord | None:
    """Read a record; None for anything that `encode` does not write."""
    try:
        found = loads(record)
    except StrictJsonError:
        return None
    if not isinstance(found, dict):
        return None
    if found.keys().isdisjoint(_LATER):
        found |= dict.fromkeys(_LATER, "")
    if found.keys() != {*_TEXTS, *_LATER, "amr", "auth_time"}:
        return None
    amr, auth_time = found["amr"], found["auth_time"]
    texts = {name: found[name] for name in (*_TEXTS, *_LATER)}
    if not all(
        isinstance(text, str) and (text or name in _MAY_BE_EMPTY) for name, text in texts.items()
    ):
        return None
    if not isinstance(amr, list) or not all(isinstance(each, str) for each in amr):
        return None
    if type(auth_time) is not int or auth_time < 0:
        return None
    return LoginRecord(amr=frozenset(amr), auth_time=auth_time, **texts)
