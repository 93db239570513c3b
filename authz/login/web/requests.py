"""Read requests: the address of who asks, a bounded body, an id for the log.

Invariant: nothing of a URL is made of what a request says of itself; the address is the one that
Envoy wrote, or there is none.
"""

import asyncio
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Final

from starlette.requests import ClientDisconnect, Request

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
