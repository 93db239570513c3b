"""Sessions of browsers as Redis keeps them: sealed, for one origin and token.

Invariant: what was not sealed here, for this origin and this token, is no session, so that whoever
can read and write Redis alone makes none, nor a copy (tests/tokens/test_page_sessions.py).
"""

from collections.abc import Mapping
from typing import Any, Final

from authz.core.browser_session import BrowserLogin
from authz.core.limits import digest
from authz.core.second_factor import Method
from authz.tokens.sealing import NotSealedError, Sealer

_PURPOSE: Final = "page-session"
_LONGEST: Final = 64 * 1024  # characters: of a person in very many groups
_TEXTS: Final = ("subject", "account", "name", "email")
_SECONDS: Final = ("auth_time", "began", "until")


def seal_login(
    sealer: Sealer, login: BrowserLogin, origin: str, token: str, lifetime: float
) -> str:
    """Return the log-in of a session as a text that opens for so many seconds.

    Args:
        sealer: seals.
        login: of the session.
        origin: of its page.
        token: that its browser has; of it a digest is kept.
        lifetime: seconds.
    """
    bound = {"origin": origin, "token": digest(token)}
    return sealer.seal(_PURPOSE, {**bound, **login_value(login)}, lifetime)


def open_login(sealer: Sealer, text: str, origin: str, token: str) -> BrowserLogin:
    """Return the log-in of a session.

    Raises:
        NotSealedError: where it is none for this origin and this token, or has ended.
    """
    value = sealer.open(_PURPOSE, text, longest=_LONGEST)
    if value.get("origin") != origin:
        raise NotSealedError
    if value.get("token") != digest(token):
        raise NotSealedError
    return login_of(value)


def login_value(login: BrowserLogin) -> dict[str, Any]:
    """Return a log-in as JSON members."""
    value: dict[str, Any] = {name: getattr(login, name) for name in (*_TEXTS, *_SECONDS)}
    return value | {"groups": sorted(login.groups), "method": int(login.method)}


def login_of(value: Mapping[str, Any]) -> BrowserLogin:
    """Return the log-in of JSON members.

    Raises:
        NotSealedError: where a member is missing or wrong.
    """
    texts = {name: value.get(name) for name in _TEXTS}
    seconds = {name: value.get(name) for name in _SECONDS}
    groups, method = value.get("groups"), value.get("method")
    if not all(isinstance(text, str) for text in texts.values()) or not texts["subject"]:
        raise NotSealedError
    if not all(type(number) is int for number in seconds.values()):
        raise NotSealedError
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise NotSealedError
    if type(method) is not int or not 0 <= method <= int(Method.TOTP):
        raise NotSealedError
    members: dict[str, Any] = {**texts, **seconds}
    return BrowserLogin(groups=frozenset(groups), method=Method(method), **members)
