"""What stands between a log-in at the gateway and the session on a page's own host.

Invariant: a code opens one session, on the host and in the browser that it was made for
(tests/login/web/test_admin_pages.py).
"""

from dataclasses import dataclass, field
from typing import Final

from authz.core.browser_session import BrowserSession
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command
from authz.login.protocol.members import digest
from authz.tokens.browser_sessions import session_of, session_value
from authz.tokens.sealing import NotSealedError, Sealer

LIFETIME: Final = 60  # seconds in which the browser goes from the one host to the other
_PURPOSE: Final = "page-code"
_LONGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class PageHandover:
    """Hold what a code stands for.

    Attributes:
        origin: where the session is opened.
        path: where the browser goes then.
        browser: a digest of the cookie that it has there.
        session: that is opened.
    """

    origin: str
    path: str
    browser: str = field(repr=False)
    session: BrowserSession


class PageCodes:
    """Keep codes in Redis, sealed; both methods may raise UnavailableError."""

    def __init__(self, command: Command, keys: RedisKeys, sealer: Sealer) -> None:
        """Take Redis, names, and what seals."""
        self._command = command
        self._keys = keys
        self._sealer = sealer

    async def issue(self, code: str, handover: PageHandover) -> None:
        """Keep what a code stands for."""
        value = {
            "origin": handover.origin,
            "path": handover.path,
            "browser": handover.browser,
            "session": session_value(handover.session),
        }
        sealed = self._sealer.seal(_PURPOSE, value, LIFETIME)
        await self._command("SET", self._key(code), sealed, "EX", LIFETIME)

    async def take(self, code: str) -> PageHandover | None:
        """Return what a code stands for, once; None for what is no code, or none any more."""
        stored = await self._command("GET", self._key(code))
        if not isinstance(stored, bytes):
            return None  # nothing is written of what anybody makes up
        first = await self._command("SET", self._used(code), b"1", "EX", 2 * LIFETIME, "NX")
        if first is None:
            return None
        try:
            text = stored.decode("ascii", "replace")
            value = self._sealer.open(_PURPOSE, text, longest=_LONGEST)
            origin, path, browser = value["origin"], value["path"], value["browser"]
            return PageHandover(origin, path, browser, session_of(value["session"]))
        except (NotSealedError, KeyError):
            return None

    def _key(self, code: str) -> bytes:
        return self._keys.record("page-code", digest(code))

    def _used(self, code: str) -> bytes:
        return self._keys.record("page-code-used", digest(code))
