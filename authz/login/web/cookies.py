"""What ties a page to the browser that it was shown in, and a transaction to the one that began it.

Law: a form counts only from our own page in this very browser, for the purpose that the page was
made for; a callback counts only in the browser whose click began its transaction. Tabs never
collide, and a browser keeps a bounded number of transactions.

All cookies have the prefix `__Host-`, so that no neighbouring host can plant one (RFC 6265bis,
section 4.1.3.2). They are SameSite=Lax, not Strict: the pages are reached from other sites (a
client opens them, Authelia comes back to them), and a Strict cookie would be missing just then.
Lax is never sent with a cross-site POST.
"""

import asyncio
import hmac
import re
import secrets
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from authz.login.protocol.digests import digest
from authz.tokens.sealing import NotSealedError, Sealer

FIELD: Final = "form_token"  # the hidden input of every form
LIFETIME: Final = 600  # seconds in which a form is sent, and in which a transaction ends
CONSENT: Final = "consent"
PATIENCE: Final = 10.0  # seconds for a body
LARGEST: Final = 4000  # characters of a transaction's cookie: browsers drop what is over 4096

_CSRF: Final = "__Host-authz-csrf-"
_TRANSACTION: Final = "__Host-authz-tx-"
_RANDOM: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Lax"
_OVER: Final = "__Host-authz-over"
_MOST: Final = 16  # transactions of a browser
_MOST_OVER: Final = 64  # transactions whose end is remembered
_MOST_TOGETHER: Final = 18 * 1024  # characters of their cookies: Envoy takes 32 KiB of headers
# What a page after the end of one is to show: of these no log-in under way has to make room.
_PAGE: Final = "__Host-authz-page-"
_PAGES: Final = frozenset({"back", "problem", "step-up-done", "log-ins-session"})
_MOST_PAGES: Final = 8
_MOST_PAGES_TOGETHER: Final = 6 * 1024
_LARGEST_FORM: Final = 32 * 1024
_MOST_FIELDS: Final = 20


class LoginEnd(Enum):
    """Say why a transaction that this browser began is there no more."""

    USED = "u"  # its answer came
    CROWDED = "c"  # it made room for newer ones


class NotThisBrowserError(Exception):
    """Say that a form or a callback is not of this browser, this page, or this time.

    Its message is fixed words for the log; the page says no more than that it did not count.
    """


class TransactionTooLargeError(Exception):
    """Say that a transaction does not fit into a cookie: somebody's request was too long."""


class BrowserCookies:
    """Bind forms and transactions to browsers."""

    def __init__(self, sealer: Sealer, origin: str) -> None:
        """Take the sealer, and the gateway's origin as browsers send it (no path, no slash)."""
        self._sealer = sealer
        # RFC 6454, section 6.2: a browser sends no default port, and lower case.
        self._origin = origin.lower().removesuffix(":443" if origin[:6] == "https:" else ":80")

    def form_token(
        self, request: Request, purpose: str = CONSENT, about: Mapping[str, Any] | None = None
    ) -> tuple[str, str | None]:
        """Return the token of a form on a page, and the Set-Cookie that the page needs, if any.

        Args:
            request: for the page.
            purpose: what the form does: its token counts for nothing else.
            about: what the form is about (JSON); `check_post` gives it back. A page sends what it
                waits with in here, so that it can be neither altered nor moved to another browser.
        """
        values = _csrf(request)
        # One is used again: with a new one for every page, the forms of other tabs would end; and
        # all forms of one page share it.
        fresh = request.scope.setdefault("authz.csrf", secrets.token_urlsafe(32))
        value = values[-1] if values else str(fresh)
        token = self._sealer.seal(
            f"form-{purpose}", {"of": digest(value), "about": dict(about or {})}, LIFETIME
        )
        # The name is of the value, because two tabs may be the first at once: both cookies stay.
        cookie = f"{_CSRF}{digest(value)[:8]}={value}; {_ATTRIBUTES}"
        return token, None if values else cookie

    def check_post(
        self, request: Request, form: Mapping[str, Any], purpose: str = CONSENT
    ) -> Mapping[str, Any]:
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
            sealed = self._sealer.open(f"form-{purpose}", str(form.get(FIELD, "")))
        except NotSealedError as error:
            raise NotThisBrowserError("a form without a token for it, or too old") from error
        # Any of them: two tabs may have been the first at once.
        if not any(_same(sealed.get("of"), digest(value)) for value in _csrf(request)):
            raise NotThisBrowserError("a form of another browser")
        about: Mapping[str, Any] = sealed["about"]
        return about

    def begin(
        self,
        response: Response,
        state: str,
        transaction: Mapping[str, Any],
        purpose: str,
        request: Request,
    ) -> None:
        """Let this browser, and no other, end a transaction.

        Only what follows a click may call this: no page gives a browser a cookie that another
        site could make it fetch.

        Args:
            response: the answer to the click.
            state: of the transaction: the name under which it comes back.
            transaction: JSON.
            purpose: what the callback's page is for.
            request: the approval, checked; it tells what else the browser keeps.

        Raises:
            TransactionTooLargeError: where it does not fit.
        """
        value = {"state": digest(state), "transaction": dict(transaction)}
        sealed = self._sealer.seal(f"transaction-{purpose}", value, LIFETIME)
        if len(sealed) > LARGEST:
            raise TransactionTooLargeError("a transaction over 4000 characters")
        for name in _superfluous(request, purpose, len(sealed)):
            if purpose in _PAGES:
                _expire(response, name)
            else:
                self._remember(request, response, name, LoginEnd.CROWDED)
        response.headers.append(
            "set-cookie", f"{_name(state, purpose)}={sealed}; Max-Age={LIFETIME}; {_ATTRIBUTES}"
        )

    def take(self, request: Request, state: str, purpose: str) -> Mapping[str, Any]:
        """Return the transaction of a state, when this browser began it.

        It stays: that a state counts once is the store's to say.

        Raises:
            NotThisBrowserError: where it did not, or it was too long ago.
        """
        try:
            sealed = self._sealer.open(
                f"transaction-{purpose}", cookies(request).get(_name(state, purpose), "")
            )
        except NotSealedError as error:
            raise NotThisBrowserError("no such transaction in this browser") from error
        if not _same(sealed.get("state"), digest(state)):
            raise NotThisBrowserError("a transaction of another state")
        transaction: Mapping[str, Any] = sealed["transaction"]
        return transaction

    def forget(self, response: Response, state: str) -> None:
        """Take the transaction's cookie from the browser."""
        for prefix in (_TRANSACTION, _PAGE):
            _expire(response, prefix + digest(state)[:16])

    def end(self, request: Request, response: Response, state: str) -> None:
        """Take a transaction's cookie from the browser that has it; remember that it was used."""
        if _name(state) in cookies(request):
            self._remember(request, response, _name(state), LoginEnd.USED)

    def over(self, request: Request, state: str) -> LoginEnd | None:
        """Tell why a transaction is over that this browser began a while ago; None for any other.

        It says nothing but which page is true: what it tells of counts no more in any case.
        """
        why = self._known_over(request).get(_name(state))
        return None if why is None else LoginEnd(why)

    def _remember(self, request: Request, response: Response, name: str, why: LoginEnd) -> None:
        _expire(response, name)
        # One cookie for all, so that many fit; the last that a response sets is whole.
        known = request.scope.setdefault("authz.over", dict(self._known_over(request)))
        known.pop(name, None)
        known[name] = why.value
        for oldest in list(known)[:-_MOST_OVER]:
            del known[oldest]
        shortened = {each.removeprefix(_TRANSACTION): why for each, why in known.items()}
        sealed = self._sealer.seal("transactions-over", {"why": shortened}, LIFETIME)
        response.headers.append(
            "set-cookie", f"{_OVER}={sealed}; Max-Age={LIFETIME}; {_ATTRIBUTES}"
        )

    def _known_over(self, request: Request) -> Mapping[str, str]:
        try:
            held = self._sealer.open("transactions-over", cookies(request).get(_OVER, ""))
        except NotSealedError:
            return {}
        return {_TRANSACTION + name: why for name, why in held["why"].items()}


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of a form; empty where it is too long, too slow, or has a field twice.

    Only `application/x-www-form-urlencoded`: nothing here takes files.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return {}
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _LARGEST_FORM:
                    return {}
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except (ValueError, ClientDisconnect, TimeoutError):
        return {}
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else {}


def cookies(request: Request) -> Mapping[str, str]:
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


def _csrf(request: Request) -> list[str]:
    return [
        value
        for name, value in cookies(request).items()
        if name.startswith(_CSRF) and _RANDOM.match(value)
    ]


def _superfluous(request: Request, purpose: str, more: int) -> list[str]:
    """Return the oldest cookies of a kind, those that have no room beside one more."""
    prefix, most, together = _TRANSACTION, _MOST, _MOST_TOGETHER
    if purpose in _PAGES:
        prefix, most, together = _PAGE, _MOST_PAGES, _MOST_PAGES_TOGETHER
    room, count, names = together - more, 1, []
    for name, value in reversed(list(cookies(request).items())):
        if name.startswith(prefix) and re.fullmatch(r"[0-9a-f]{16}", name[-16:]):
            room, count = room - len(value), count + 1
            if room < 0 or count > most:
                names.append(name)
    return names


def _expire(response: Response, name: str) -> None:
    response.headers.append("set-cookie", f"{name}=; Max-Age=0; {_ATTRIBUTES}")


def _name(state: str, purpose: str = "") -> str:
    return (_PAGE if purpose in _PAGES else _TRANSACTION) + digest(state)[:16]


def _same(one: object, other: str) -> bool:
    return isinstance(one, str) and hmac.compare_digest(one.encode(), other.encode())
