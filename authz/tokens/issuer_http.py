"""JSON over HTTP from the issuer, within bounds.

Invariant: a response is used only if it is complete, within its size, with status 200 and without a
redirect. The caller bounds the time for the whole.
"""

import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import httpx

from authz.core.strict_json import StrictJsonError, loads
from authz.http import bounded

_MAX_DOCUMENT: Final = 1 << 20  # bytes
_OK: Final = 200
_UNAUTHORIZED: Final = 401


class IssuerFault(Enum):
    """Name what is wrong with an issuer: the label of a metric."""

    UNREACHABLE = "unreachable"
    LATE = "late"
    STATUS = "status"
    UNAUTHORIZED = "unauthorized"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    WRONG_ISSUER = "wrong_issuer"
    FOREIGN_ADDRESS = "foreign_address"
    NO_KEYS = "no_keys"
    UNEXPECTED = "unexpected"


class IssuerError(Exception):
    """Say that the issuer gave no usable answer.

    Attributes:
        fault: what is wrong, of a bounded set.
        detail: fixed text for the log.
    """

    def __init__(self, fault: IssuerFault, detail: str) -> None:
        """Keep what is wrong and the words for the log."""
        super().__init__(fault.value, detail)
        self.fault = fault
        self.detail = detail


# Causes of a failed connection, as an operator knows them; the first that fits.
_CAUSES: Final[Mapping[type[BaseException], str]] = {
    ssl.SSLCertVerificationError: "its certificate is not trusted",
    ssl.SSLError: "no TLS there",
    socket.gaierror: "the name is not known",
    ConnectionRefusedError: "nobody listens there",
}


def describe_error(error: BaseException) -> str:
    """Describe in fixed text why an HTTP request failed: its class, and the cause if known."""
    name, beneath = type(error).__name__, error.__cause__ or error.__context__
    while beneath is not None:
        for kind, words in _CAUSES.items():
            if isinstance(beneath, kind):
                return f"{name}: {words}"
        beneath = beneath.__cause__ or beneath.__context__
    return name


@dataclass(frozen=True, slots=True)
class IssuerEndpoint:
    """A URL and the headers of a request to it."""

    url: httpx.URL
    headers: Mapping[str, str] = field(repr=False)


def issuer_client(
    *,
    timeout: float,
    verify: ssl.SSLContext | None = None,
    connections: int = 4,
    kept: int = 1,
    wrap: Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport] | None = None,
) -> httpx.AsyncClient:
    """Return an HTTP client without redirects, proxies or cookies.

    Args:
        timeout: seconds for connecting and for each read; the caller bounds the whole.
        verify: which authorities to trust; None for the system's authorities and SSL_CERT_FILE.
        connections: the most at once.
        kept: how many of them stay open for the next request.
        wrap: returns what is to carry the requests in place of a transport; None for the transport
            itself.
    """

    def transport_with(trust: ssl.SSLContext) -> httpx.AsyncBaseTransport:
        # No proxies of the environment: the internal address is meant literally.
        return httpx.AsyncHTTPTransport(
            verify=trust,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=kept),
            trust_env=False,
        )

    transport = _SystemTrust(transport_with) if verify is None else transport_with(verify)
    return httpx.AsyncClient(
        follow_redirects=False,
        timeout=timeout,
        transport=transport if wrap is None else wrap(transport),
        trust_env=False,
        # Nothing is unpacked, so that no small answer becomes a large one.
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
    )


class _SystemTrust(httpx.AsyncBaseTransport):
    """Read the system's authorities for the first https URL: they take a megabyte, and 30 ms.

    Many an issuer is asked over plain HTTP, at its internal address.
    """

    def __init__(self, make: Callable[[ssl.SSLContext], httpx.AsyncBaseTransport]) -> None:
        self._make = make
        # It trusts nobody: whatever scheme would come to it, TLS fails.
        self._plain = make(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        self._secure: httpx.AsyncBaseTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "http":
            return await self._plain.handle_async_request(request)
        if self._secure is None:
            self._secure = self._make(ssl.create_default_context())
        return await self._secure.handle_async_request(request)

    async def aclose(self) -> None:
        await self._plain.aclose()
        if self._secure is not None:
            await self._secure.aclose()


async def get(
    client: httpx.AsyncClient, target: IssuerEndpoint, largest: int = _MAX_DOCUMENT
) -> Mapping[str, object]:
    """GET a JSON object of `largest` bytes at most.

    Raises:
        IssuerError: where there is no usable one.
    """
    return await _object(client, client.build_request("GET", target.url), target, largest)


async def post(
    client: httpx.AsyncClient, target: IssuerEndpoint, form: Mapping[str, str], largest: int
) -> Mapping[str, object]:
    """POST a form; return the JSON object of the response.

    Raises:
        IssuerError: as `get`.
    """
    request = client.build_request("POST", target.url, data=dict(form))
    return await _object(client, request, target, largest)


async def _object(
    client: httpx.AsyncClient, request: httpx.Request, target: IssuerEndpoint, largest: int
) -> Mapping[str, object]:
    request.headers.update(target.headers)
    try:
        document = loads((await bounded.send(client, request, largest, {_OK})).body)
    except bounded.UnexpectedStatusError as error:
        if error.status == _UNAUTHORIZED:
            detail = "the issuer does not take our credentials"
            raise IssuerError(IssuerFault.UNAUTHORIZED, detail) from error
        raise IssuerError(IssuerFault.STATUS, str(error)) from error
    except bounded.BodyTooLargeError as error:
        raise IssuerError(IssuerFault.TOO_LARGE, str(error)) from error
    except bounded.CompressedBodyError as error:
        raise IssuerError(IssuerFault.MALFORMED, str(error)) from error
    except httpx.HTTPError as error:
        raise IssuerError(IssuerFault.UNREACHABLE, describe_error(error)) from error
    except StrictJsonError as error:
        raise IssuerError(IssuerFault.MALFORMED, "not strict JSON") from error
    if not isinstance(document, dict):
        raise IssuerError(IssuerFault.MALFORMED, "not a JSON object")
    return document
