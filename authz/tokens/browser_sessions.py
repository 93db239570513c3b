"""Sessions of browsers as Redis keeps them: sealed, for one origin and token.

Invariant: what was not sealed here, for this origin and this token, is no session, so that whoever
can read and write Redis alone makes none, nor a copy (tests/tokens/test_browser_sessions.py).
"""

from collections.abc import Mapping
from typing import Any, Final

from authz.core.browser_session import BrowserSession
from authz.core.limits import digest
from authz.core.second_factor import Method
from authz.tokens.sealing import NotSealedError, Sealer

_PURPOSE: Final = "browser-session"
_LONGEST: Final = 64 * 1024  # characters: of a person in very many groups
_TEXTS: Final = ("subject", "account", "token", "name", "email")
_SECONDS: Final = ("auth_time", "began", "until", "groups_at", "token_until")


def seal_session(
    sealer: Sealer, session: BrowserSession, origin: str, token: str, lifetime: float
) -> str:
    """Return a session as a text that opens for so many seconds.

    Args:
        sealer: seals.
        session: of a browser.
        origin: of the pages that it is for.
        token: that its browser has; of it a digest is kept.
        lifetime: seconds.
    """
    bound = {"origin": origin, "of": digest(token)}
    return sealer.seal(_PURPOSE, {**bound, "session": session_value(session)}, lifetime)


def open_session(sealer: Sealer, text: str, origin: str, token: str) -> BrowserSession:
    """Return the session of a text.

    Raises:
        NotSealedError: where it is none for this origin and this token, or has ended.
    """
    value = sealer.open(_PURPOSE, text, longest=_LONGEST)
    if value.get("origin") != origin:
        raise NotSealedError
    if value.get("of") != digest(token):
        raise NotSealedError
    return session_of(value.get("session"))


def session_value(session: BrowserSession) -> dict[str, Any]:
    """Return a session as JSON members."""
    value: dict[str, Any] = {name: getattr(session, name) for name in (*_TEXTS, *_SECONDS)}
    return value | {
        "groups": sorted(session.groups),
        "method": int(session.method),
        "two_factor": session.two_factor,
    }


def session_of(value: object) -> BrowserSession:
    """Return the session of JSON members.

    Raises:
        NotSealedError: where a member is missing or wrong.
    """
    if not isinstance(value, Mapping):
        raise NotSealedError
    texts = {name: value.get(name) for name in _TEXTS}
    seconds = {name: value.get(name) for name in _SECONDS}
    groups, method, two_factor = value.get("groups"), value.get("method"), value.get("two_factor")
    if not all(isinstance(text, str) for text in texts.values()) or not texts["subject"]:
        raise NotSealedError
    if not all(type(number) is int for number in seconds.values()):
        raise NotSealedError
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise NotSealedError
    if type(method) is not int or not 0 <= method <= int(Method.TOTP):
        raise NotSealedError
    if type(two_factor) is not bool:
        raise NotSealedError
    members: dict[str, Any] = {**texts, **seconds, "two_factor": two_factor}
    return BrowserSession(groups=frozenset(groups), method=Method(method), **members)
