"""One HTTP request, as a person would try it with curl: its response, or why there is none.

Whatever is at the other end gives a response or an ExchangeError, within bounds of time and size.
No redirect is followed, nothing is unpacked, no credential and no cookie is sent, and no proxy of
the environment is used.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import httpx

from authz.config.urls import split
from authz.http import bounded
from authz.local.probe import hang_up

_MOST: Final = 256 * 1024  # bytes of a body
_SECONDS: Final = 5.0
_HELLO: Final = 16  # bytes that show whether HTTP is spoken


class ExchangeFault(Enum):
    """Name why there is no response; the value says it of an address, in fixed words."""

    NO_NAME = "its name is not known here"
    REFUSED = "nobody listens there"
    LATE = "it does not answer in time"
    NO_ROUTE = "no way leads there"
    NO_SOCKET = "there is no such socket"
    NOT_PERMITTED = "this user may not connect to the socket"
    UNTRUSTED = "its certificate is of an authority that is not trusted here"
    OTHER_NAME = "its certificate is for another name"
    EXPIRED = "its certificate has expired"
    NOT_YET_VALID = "its certificate is not valid yet"
    TLS = "TLS with it fails"
    NO_TLS = "it speaks plain http, and https is written"
    WANTS_TLS = "it speaks https, and plain http is written"
    NO_HTTP = "what it answers is no HTTP"
    TOO_LARGE = "its answer is too long"
    COMPRESSED = "its answer is compressed, though asked not to be"


# Verification results of OpenSSL (x509_vfy.h).
_VERIFICATION: Final[Mapping[int, ExchangeFault]] = {
    9: ExchangeFault.NOT_YET_VALID,
    10: ExchangeFault.EXPIRED,
    62: ExchangeFault.OTHER_NAME,
    64: ExchangeFault.OTHER_NAME,  # of an IP address
}


_OF_AN_ADDRESS: Final[Mapping[type[Exception], ExchangeFault]] = {
    socket.gaierror: ExchangeFault.NO_NAME,
    ConnectionRefusedError: ExchangeFault.REFUSED,
}
_OF_A_SOCKET: Final[Mapping[type[Exception], ExchangeFault]] = {
    FileNotFoundError: ExchangeFault.NO_SOCKET,
    ConnectionRefusedError: ExchangeFault.NO_SOCKET,
    PermissionError: ExchangeFault.NOT_PERMITTED,
}


class ExchangeError(Exception):
    """Say why there is no response."""

    def __init__(self, fault: ExchangeFault) -> None:
        """Take the fault."""
        super().__init__(fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Target:
    """Say where a request goes.

    Attributes:
        url: as authz.yaml spells URLs.
        socket: of Unix, in place of the URL's host and port.
        headers: besides those of HTTP.
        place: host and port to connect to in place of the URL's, which stays the name that is asked
            for (Host, SNI) and that the certificate must have.
        verify: which authorities to trust; None for the system's and SSL_CERT_FILE.
    """

    url: str
    socket: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    place: tuple[str, int] | None = None
    verify: ssl.SSLContext | None = field(default=None, repr=False)


async def exchange(
    target: Target,
    *,
    method: str = "GET",
    content: bytes | None = None,
    seconds: float = _SECONDS,
    largest: int = _MOST,
) -> bounded.BoundedResponse:
    """Send one request.

    Args:
        target: where to.
        method: of HTTP.
        content: the body; None for none.
        seconds: how long all of it may take.
        largest: bytes of the response's body.

    Raises:
        ExchangeError: where there is no response.
    """
    try:
        async with asyncio.timeout(seconds):
            try:
                async with _client(target, seconds) as client:
                    request = _request(client, target, method, content)
                    return await bounded.send(client, request, largest)
            except httpx.HTTPError as error:
                raise ExchangeError(await _cause(target, error)) from error
    except TimeoutError:
        raise ExchangeError(ExchangeFault.LATE) from None
    except bounded.CompressedBodyError:
        raise ExchangeError(ExchangeFault.COMPRESSED) from None
    except bounded.BodyTooLargeError:
        raise ExchangeError(ExchangeFault.TOO_LARGE) from None
    except httpx.InvalidURL:
        raise ExchangeError(ExchangeFault.NO_NAME) from None


def _request(
    client: httpx.AsyncClient, target: Target, method: str, content: bytes | None
) -> httpx.Request:
    headers = dict(target.headers)
    if target.place is None:
        return client.build_request(method, target.url, headers=headers, content=content)
    (host, port), url = target.place, split(target.url)
    return client.build_request(
        method,
        httpx.URL(target.url).copy_with(host=host, port=port),
        headers={**headers, "host": url.authority},
        content=content,
        extensions={"sni_hostname": url.host.strip("[]")},
    )


def _client(target: Target, seconds: float) -> httpx.AsyncClient:
    trust = target.verify or ssl.create_default_context()
    transport = httpx.AsyncHTTPTransport(uds=target.socket, verify=trust, trust_env=False)
    headers = {"accept-encoding": "identity"}
    return httpx.AsyncClient(transport=transport, headers=headers, timeout=seconds, trust_env=False)


async def opens_event_stream(target: Target, seconds: float) -> bool:
    """Tell whether a GET opens an event stream, which need not end: its body is not read."""
    try:
        async with (
            asyncio.timeout(seconds),
            _client(target, seconds) as client,
            client.stream(
                "GET", target.url, headers={**target.headers, "accept": "text/event-stream"}
            ) as answer,
        ):
            media = bounded.media_type(answer.headers.get("content-type", ""))
            return answer.is_success and media == "text/event-stream"
    except (TimeoutError, httpx.HTTPError):
        return False


async def _cause(target: Target, error: httpx.HTTPError) -> ExchangeFault:
    """Return what lies beneath an error, trying the other scheme where that may be it."""
    if isinstance(error, httpx.TimeoutException):
        return ExchangeFault.LATE
    beneath = _beneath(error)
    for each in beneath:
        if isinstance(each, ssl.SSLCertVerificationError):
            return _VERIFICATION.get(each.verify_code, ExchangeFault.UNTRUSTED)
    causes = _OF_A_SOCKET if target.socket is not None else _OF_AN_ADDRESS
    for kind, fault in causes.items():
        if any(isinstance(each, kind) for each in beneath):
            return fault
    if split(target.url).scheme == "https":
        # A peer that hangs up at the first byte of TLS ends in an error of connecting.
        if await speaks_http(target):
            return ExchangeFault.NO_TLS
        is_tls = any(isinstance(each, ssl.SSLError) for each in beneath)
        unreached = isinstance(error, httpx.ConnectError) and not is_tls
        return ExchangeFault.NO_ROUTE if unreached else ExchangeFault.TLS
    if isinstance(error, httpx.ConnectError):
        return ExchangeFault.NO_ROUTE
    return ExchangeFault.WANTS_TLS if await speaks_tls(target) else ExchangeFault.NO_HTTP


def _beneath(error: BaseException) -> list[BaseException]:
    """Return an error with all that led to it, of several addresses of a name too."""
    found, left = list[BaseException](), [error]
    while left:
        each = left.pop()
        if each in found:
            continue
        found.append(each)
        left += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        left += [cause for cause in (each.__cause__, each.__context__) if cause is not None]
    return found


async def _connect(
    target: Target, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = split(target.url)
    host = url.host.strip("[]")
    name = host if tls is not None else None
    if target.socket is not None:
        return await asyncio.open_unix_connection(target.socket, ssl=tls, server_hostname=name)
    where, port = target.place or (host, url.port)
    return await asyncio.open_connection(
        where, port, ssl=tls, server_hostname=name, limit=_HELLO * 4
    )


async def speaks_tls(target: Target) -> bool:
    """Tell whether TLS is spoken at an address, whatever its certificate says."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE  # nothing is sent, and nothing that is read is believed
    try:
        _, writer = await _connect(target, tls)
    except OSError:
        return False
    await hang_up(writer)
    return True


async def speaks_http(target: Target) -> bool:
    """Tell whether plain HTTP/1 is spoken at an address."""
    try:
        reader, writer = await _connect(target, None)
    except OSError:
        return False
    try:
        host = split(target.url).authority
        writer.write(f"HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        return (await reader.read(_HELLO)).startswith(b"HTTP/")
    except OSError:
        return False
    finally:
        await hang_up(writer)
