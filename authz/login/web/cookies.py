"""Cookies and form tokens that tie a page, or a log-in at Authelia, to one browser.

Invariant: a form counts only from our own page in this very browser, for the purpose that the page
was made for; a log-in is finished only in the browser whose click began it. Tabs never collide,
and a browser keeps a bounded number of pending log-ins.

All cookies have the prefix `__Host-`, so that no neighbouring host can plant one (RFC 6265bis,
section 4.1.3.2). They are SameSite=Lax, not Strict: the pages are reached from other sites (a
client opens them, Authelia comes back to them), and a Strict cookie would be missing just then.
Lax is never sent with a cross-site POST.
"""

import asyncio
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from authz.http.bounded import BodyTooLargeError, media_type, read_body
from authz.login.protocol.members import MembersCodec, digest
from authz.tokens.sealing import NotSealedError, Sealer

FIELD: Final = "form_token"  # the hidden input of every form
LIFETIME: Final = 600  # seconds in which a form is sent, and in which a log-in ends
PATIENCE: Final = 10.0  # seconds for a body
LARGEST: Final = 4000  # characters of a cookie's value: browsers drop what is over 4096

_CSRF: Final = "__Host-authz-csrf-"
_PENDING: Final = "__Host-authz-tx-"
_RANDOM: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Lax"
_ENDED: Final = "__Host-authz-over"
_MOST: Final = 16  # pending log-ins of a browser
_MOST_ENDED: Final = 64  # log-ins whose end is remembered
_MOST_TOGETHER: Final = 18 * 1024  # characters of their cookies: Envoy takes 32 KiB of headers
# What a page after a log-in is to show: no pending log-in has to make room for it.
_PAGE: Final = "__Host-authz-page-"
_MOST_PAGES: Final = 8
_MOST_PAGES_TOGETHER: Final = 6 * 1024
_LARGEST_FORM: Final = 32 * 1024
_MOST_FIELDS: Final = 128  # a box for each scope that may be left out, and the rest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Purpose(Generic[T]):
    """What a sealed form token or cookie is for, and the JSON of its value.

    A value that was sealed for one purpose opens for no other.

    Attributes:
        name: a fixed word; part of the seal.
        encode, decode: to JSON members and back; `decode` may raise ValueError.
        is_page: whether a cookie holds what a page shows after a log-in, and no pending log-in.
    """

    name: str
    encode: Callable[[T], Mapping[str, object]]
    decode: Callable[[Mapping[str, object]], T]
    is_page: bool = False


def purpose(name: str, record: type[T], *, is_page: bool = False) -> Purpose[T]:
    """Return the purpose of a dataclass, whose members are sealed under their own names."""
    codec = MembersCodec(record)
    return Purpose(name, codec.write, codec.read, is_page)


def empty_purpose(name: str) -> Purpose[None]:
    """Return the purpose of a form that is about nothing but itself."""
    return Purpose(name, lambda _: {}, lambda _: None)


class LoginEnd(Enum):
    """Say why a log-in that this browser began is no longer pending."""

    USED = "u"  # its answer came
    CROWDED = "c"  # it made room for newer ones


class NotThisBrowserError(Exception):
    """Say that a form or a callback is not of this browser, this page, or this time.

    Its message is fixed text for the log; the page only says that the request was not accepted.
    """


class CookieTooLargeError(Exception):
    """Say that a value does not fit into a cookie: somebody's request was too long."""


class BrowserCookies:
    """Bind forms and pending log-ins to browsers."""

    def __init__(self, sealer: Sealer, origin: str) -> None:
        """Take the sealer, and the gateway's origin as browsers send it (no path, no slash)."""
        self._sealer = sealer
        # RFC 6454, section 6.2: a browser sends no default port, and lower case.
        self._origin = origin.lower().removesuffix(":443" if origin[:6] == "https:" else ":80")

    def form_token(self, request: Request, purpose: Purpose[T], value: T) -> tuple[str, str | None]:
        """Return the token of a form on a page, and the Set-Cookie that the page needs, if any.

        Args:
            request: for the page.
            purpose: what the form does.
            value: what the form is about; `check_post` gives it back. It can be neither altered
                nor moved to another browser.
        """
        values = _csrf(request)
        # One is used again: with a new one for every page, the forms of other tabs would end; and
        # all forms of one page share it.
        fresh = request.scope.setdefault("authz.csrf", secrets.token_urlsafe(32))
        csrf = values[-1] if values else str(fresh)
        token = self._sealer.seal(
            f"form-{purpose.name}",
            {"of": digest(csrf), "about": dict(purpose.encode(value))},
            LIFETIME,
        )
        # The name is of the value, because two tabs may be the first at once: both cookies stay.
        cookie = f"{_CSRF}{digest(csrf)[:8]}={csrf}; {_ATTRIBUTES}"
        return token, None if values else cookie

    def check_post(self, request: Request, form: Mapping[str, str], purpose: Purpose[T]) -> T:
        """Return what a form is about, when it was sent from our page in this browser.

        Args:
            request: the POST.
            form: its fields.
            purpose: as the page's.

        Raises:
            NotThisBrowserError: where it was not, or the page is too old.
        """
        if request.method != "POST" or request.headers.getlist("origin") != [self._origin]:
            raise NotThisBrowserError("a form of another origin")
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise NotThisBrowserError("a form of another site")
        try:
            sealed = self._sealer.open(f"form-{purpose.name}", form.get(FIELD, ""))
        except NotSealedError as error:
            raise NotThisBrowserError("a form without a token for it, or too old") from error
        # Any of them: two tabs may have been the first at once.
        if not any(_same(sealed.get("of"), digest(value)) for value in _csrf(request)):
            raise NotThisBrowserError("a form of another browser")
        return _decoded(purpose, sealed.get("about"))

    def keep(
        self, request: Request, response: Response, key: str, purpose: Purpose[T], value: T
    ) -> None:
        """Let this browser, and no other, come back for a value.

        Only what follows a click may call this: no page gives a browser a cookie that another
        site could make it fetch.

        Args:
            request: of this browser, checked; it tells what else the browser keeps.
            response: the answer to it.
            key: the secret under which the browser comes back: the state of a log-in.
            purpose: what the value is for.
            value: what `read` gives back.

        Raises:
            CookieTooLargeError: where it does not fit.
        """
        members = {"state": digest(key), "transaction": dict(purpose.encode(value))}
        sealed = self._sealer.seal(f"transaction-{purpose.name}", members, LIFETIME)
        if len(sealed) > LARGEST:
            raise CookieTooLargeError("a cookie over 4000 characters")
        for name in _superfluous(request, len(sealed), is_page=purpose.is_page):
            if purpose.is_page:
                _expire(response, name)
            else:
                self._remember_end(request, response, name, LoginEnd.CROWDED)
        name = _name(key, is_page=purpose.is_page)
        response.headers.append("set-cookie", f"{name}={sealed}; Max-Age={LIFETIME}; {_ATTRIBUTES}")

    def read(self, request: Request, key: str, purpose: Purpose[T]) -> T:
        """Return the value of a key, when this browser was given it.

        It stays: that a state counts once is the store's to say.

        Raises:
            NotThisBrowserError: where it was not, or it was too long ago.
        """
        name = _name(key, is_page=purpose.is_page)
        try:
            sealed = self._sealer.open(
                f"transaction-{purpose.name}", read_cookies(request).get(name, "")
            )
        except NotSealedError as error:
            raise NotThisBrowserError("no such cookie in this browser") from error
        if not _same(sealed.get("state"), digest(key)):
            raise NotThisBrowserError("a cookie of another state")
        return _decoded(purpose, sealed.get("transaction"))

    def forget(self, response: Response, key: str, purpose: Purpose[Any]) -> None:
        """Take a value's cookie from the browser."""
        _expire(response, _name(key, is_page=purpose.is_page))

    def end_login(self, request: Request, response: Response, state: str) -> None:
        """Take a log-in's cookie from the browser that has it; remember that it was used."""
        if _name(state) in read_cookies(request):
            self._remember_end(request, response, _name(state), LoginEnd.USED)

    def login_end(self, request: Request, state: str) -> LoginEnd | None:
        """Tell why a log-in is over that this browser began a while ago; None for any other.

        It says nothing but which page is true: what it tells of counts no more in any case.
        """
        why = self._known_ends(request).get(_name(state))
        return None if why is None else LoginEnd(why)

    def _remember_end(self, request: Request, response: Response, name: str, why: LoginEnd) -> None:
        _expire(response, name)
        # One cookie for all, so that many fit; the last that a response sets is whole.
        known = request.scope.setdefault("authz.over", dict(self._known_ends(request)))
        known.pop(name, None)
        known[name] = why.value
        for oldest in list(known)[:-_MOST_ENDED]:
            del known[oldest]
        shortened = {each.removeprefix(_PENDING): why for each, why in known.items()}
        sealed = self._sealer.seal("transactions-over", {"why": shortened}, LIFETIME)
        response.headers.append(
            "set-cookie", f"{_ENDED}={sealed}; Max-Age={LIFETIME}; {_ATTRIBUTES}"
        )

    def _known_ends(self, request: Request) -> Mapping[str, str]:
        try:
            held = self._sealer.open("transactions-over", read_cookies(request).get(_ENDED, ""))
        except NotSealedError:
            return {}
        return {_PENDING + name: why for name, why in held["why"].items()}


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of a form; empty where it is too long, too slow, or has a field twice.

    Only `application/x-www-form-urlencoded`: nothing here takes files.
    """
    if media_type(request.headers.get("content-type", "")) != "application/x-www-form-urlencoded":
        return {}
    try:
        async with asyncio.timeout(PATIENCE):
            body = await read_body(request.stream(), _LARGEST_FORM)
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except (ValueError, BodyTooLargeError, ClientDisconnect, TimeoutError):
        return {}
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else {}


def read_cookies(request: Request) -> Mapping[str, str]:
    """Return the cookies of a request, in the order in which the browser has them: oldest first.

    By hand: a name is taken as it stands. Parsers that strip more than blank and tab let a
    neighbour plant a cookie whose name only becomes one of `__Host-` when it is read. A name that
    comes twice is no name: whose it is cannot be told.
    """
    found: dict[str, str] = {}
    twice = set()
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            name, equals, value = pair.partition("=")
            name = name.strip(" \t")
            if equals and name in found:
                twice.add(name)
            if equals:
                found[name] = value.strip(" \t")
    return {name: value for name, value in found.items() if name not in twice}


def _decoded(purpose: Purpose[T], members: object) -> T:
    try:
        if isinstance(members, dict):
            return purpose.decode(members)
    except ValueError as error:
        raise NotThisBrowserError("sealed by another version") from error
    raise NotThisBrowserError("sealed without a value")


def _csrf(request: Request) -> list[str]:
    return [
        value
        for name, value in read_cookies(request).items()
        if name.startswith(_CSRF) and _RANDOM.match(value)
    ]


def _superfluous(request: Request, more: int, *, is_page: bool) -> list[str]:
    """Return the oldest cookies of a kind, those that have no room beside one more."""
    prefix, most, together = _PENDING, _MOST, _MOST_TOGETHER
    if is_page:
        prefix, most, together = _PAGE, _MOST_PAGES, _MOST_PAGES_TOGETHER
    room, count, names = together - more, 1, []
    for name, value in reversed(list(read_cookies(request).items())):
        if name.startswith(prefix) and re.fullmatch(r"[0-9a-f]{16}", name[-16:]):
            room, count = room - len(value), count + 1
            if room < 0 or count > most:
                names.append(name)
    return names


def _expire(response: Response, name: str) -> None:
    response.headers.append("set-cookie", f"{name}=; Max-Age=0; {_ATTRIBUTES}")


def _name(key: str, *, is_page: bool = False) -> str:
    return (_PAGE if is_page else _PENDING) + digest(key)[:16]


def _same(one: object, other: str) -> bool:
    return isinstance(one, str) and hmac.compare_digest(one.encode(), other.encode())
