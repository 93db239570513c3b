"""Browser sessions in Redis: who logged in with which methods, and what asks the issuer about them.

Invariant: a session is found by the secret that one browser has, until its end; it is sealed under
a purpose of its own and for that secret, so that a copy in Redis is nobody's
(tests/login/store/test_browser_sessions.py). A revocation of its person, or of everything, ends it.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Final

from pydantic import ConfigDict

from authz.core.principal import Person
from authz.ledger.keys import EVERYTHING, RedisKeys, person_field
from authz.ledger.login_records import Command
from authz.ledger.records import read_revocation
from authz.login.protocol.members import STRICT, MembersCodec, digest
from authz.login.store.sealed import SealedValue
from authz.tokens.sealing import NotSealedError, Sealer

_KIND: Final = "browser-session"


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """Hold one log-in of a person in one browser.

    Attributes:
        subject: of the person.
        account: what the person is called, for pages.
        method: which second factor the log-in proved (`authz.core.second_factor.Method`).
        auth_time: when the person typed something last, seconds since the epoch.
        began, until: its first and last second.
        token: the access token by which the issuer is asked about the person.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    subject: str
    account: str
    method: int
    auth_time: int
    began: int
    until: int
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _KeptSession:
    """Hold a session as it is sealed, with the digest of its secret."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    of: str
    session: BrowserSession


_SEALED: Final = SealedValue(_KIND, MembersCodec(_KeptSession))


class BrowserSessionStore:
    """Keep the sessions of one deployment; every method may raise UnavailableError."""

    def __init__(self, command: Command, keys: RedisKeys, sealer: Sealer, issuer: str) -> None:
        """Take Redis, names, what seals, and whose people these are."""
        self._command = command
        self._keys = keys
        self._sealer = sealer
        self._issuer = issuer

    async def put(self, secret: str, session: BrowserSession) -> None:
        """Keep a session until its end."""
        lifetime = max(1, session.until - session.began)
        kept = _KeptSession(digest(secret), session)
        sealed = _SEALED.seal(self._sealer, kept, lifetime)
        await self._command("SET", self._key(secret), sealed, "EX", lifetime)

    async def find(self, secret: str) -> BrowserSession | None:
        """Return the session of a secret; None where there is none."""
        found = await self._command("GET", self._key(secret))
        if not isinstance(found, bytes):
            return None
        try:
            kept = _SEALED.open(self._sealer, found.decode("ascii", "replace"))
        except NotSealedError:
            return None
        return kept.session if kept.of == digest(secret) else None

    async def is_revoked(self, session: BrowserSession) -> bool:
        """Tell whether a revocation names the person of a session, or everything.

        One of what was issued up to a moment takes the log-ins of that time with it.
        """
        fields = (person_field(Person(self._issuer, session.subject)), EVERYTHING)
        found = await self._command("HMGET", self._keys.revocations, *fields)
        at = min(session.began, session.auth_time)
        return any(each is not None and read_revocation(each).covers(at) for each in found)

    async def end(self, secret: str) -> None:
        """End a session."""
        await self._command("DEL", self._key(secret))

    def _key(self, secret: str) -> bytes:
        return self._keys.record(_KIND, digest(secret))
