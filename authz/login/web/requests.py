"""Read requests: the address of who asks, a bounded body, an id for the log.

Invariant: nothing of a URL is made of what a request says of itself; the address is the one that
Envoy wrote, or there is none.
"""

import asyncio
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Final

from starlette.requests import ClientDisconnect, Request

from authz.core.limits import digest
from authz.http import bounded
from authz.login.protocol.values import OAuthError
from authz.login.web import error_pages
from authz.login.web.cookies import PATIENCE
from authz.login.web.error_pages import PageError

LARGEST: Final = 64 * 1024
_TOO_LARGE: Final = 413
_TOO_SLOW: Final = 408

REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id", default="")
# The network whose request it is: an address, of IPv6 the /64.
NETWORK: Final[ContextVar[str]] = ContextVar("network", default="")

# Digests that tie the lines of one log-in together (`authz connections`): of the client's id, and
# of the authorization request. Nobody gets an id or a challenge back from them.
CLIENT_KEY: Final[ContextVar[str]] = ContextVar("client_key", default="")
ATTEMPT: Final[ContextVar[str]] = ContextVar("attempt", default="")
_KEY_LENGTH: Final = 16  # hex digits


def begin_request(request_id: str, whose: str) -> None:
    """Set what every line of the log about a request has, and forget what the last one was."""
    REQUEST_ID.set(request_id)
    NETWORK.set(whose)
    CLIENT_KEY.set("")
    ATTEMPT.set("")


def set_attempt(client_id: str, challenge: str = "") -> None:
    """Say which client a request is of, and by its PKCE challenge which log-in."""
    CLIENT_KEY.set(digest("client", client_id)[:_KEY_LENGTH])
    if challenge:
        ATTEMPT.set(digest("attempt", client_id, challenge)[:_KEY_LENGTH])


def log_keys() -> dict[str, str]:
    """Return the fields of a line that tie it to the others of its log-in."""
    found = {"network": NETWORK.get(), "client_key": CLIENT_KEY.get(), "attempt": ATTEMPT.get()}
    return {name: value for name, value in found.items() if value}


def address_of(request: Request) -> str:
    """Return the address of who asks, as Envoy wrote it over whatever came.

    Raises:
        PageError: where it did not write one.
    """
    headers = request.headers.getlist("x-forwarded-for")
    try:
        (text,) = headers
        return str(ip_address(text.strip()))
    except ValueError:
        raise PageError(error_pages.NO_ADDRESS) from None


async def read_body(request: Request) -> bytes:
    """Return a program's body, of 64 KiB at most; a form of a page is read by `cookies.read_form`.

    Raises:
        OAuthError: where it is longer, or does not come.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            return await bounded.read_body(request.stream(), LARGEST)
    except bounded.BodyTooLargeError:
        raise OAuthError("invalid_request", "the body is too long", _TOO_LARGE) from None
    except (TimeoutError, ClientDisconnect):
        raise OAuthError("invalid_request", "the body did not come", _TOO_SLOW) from None


def content_type(request: Request) -> str:
    """Return the media type of a request's body."""
    return bounded.media_type(request.headers.get("content-type", ""))
