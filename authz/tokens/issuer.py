"""The issuer's metadata and key set over HTTP, within bounds.

Law: a document is believed only if it came whole, in time and in size, from the issuer's own
address (or, for keys, from an https address that the issuer names), without a redirect.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import httpx

from authz.core.strict_json import StrictJsonError, loads
from authz.tokens.jwk import KeySet, KeySetError, read_key_set

_MAX_DOCUMENT: Final = 1 << 20  # bytes
_OK: Final = 200
_MAX_PORT: Final = 65535  # httpx takes any number, and the socket then raises OverflowError


class Fault(Enum):
    """Name what is wrong with an issuer: the label of a metric."""

    UNREACHABLE = "unreachable"
    LATE = "late"
    STATUS = "status"
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
        detail: fixed words for the log.
    """

    def __init__(self, fault: Fault, detail: str) -> None:
        """Keep what is wrong and the words for the log."""
        super().__init__(fault.value, detail)
        self.fault = fault
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Target:
    """Say where a request goes and which headers go with it."""

    url: httpx.URL
    headers: Mapping[str, str]


class IssuerAddress:
    """Know how the issuer is named in tokens and how it is reached from here.

    One parser reads every URL and the request is made from its result: two parsers that
    disagree about a host are how such checks are passed by.
    """

    def __init__(self, issuer: str, internal: str | None = None) -> None:
        """Take the issuer as in `iss`, and the origin to ask in its place, if there is one.

        Raises:
            ValueError: where the issuer is not an https URL without query and fragment
                (RFC 8414, section 2; http is taken with an internal address), or the internal
                address is not a bare origin.
        """
        self.issuer = issuer
        self._url = _parse(issuer)
        self._internal = None if internal is None else _parse(internal)
        if self._url.query or "?" in issuer or "#" in issuer:
            raise ValueError("the issuer is a URL without query and fragment")
        if self._internal is None and self._url.scheme != "https":
            raise ValueError("the issuer must be https, unless it has an internal address")
        if self._internal is not None and self._internal.raw_path != b"/":
            raise ValueError("the internal address is scheme, host and port only")

    def metadata(self) -> tuple[Target, Target]:
        """Return where metadata may be: RFC 8414, section 3.1, then OpenID Discovery, section 4."""
        path = self._url.path.rstrip("/")
        return (
            self._at(self._url.copy_with(path=f"/.well-known/oauth-authorization-server{path}")),
            self._at(self._url.copy_with(path=f"{path}/.well-known/openid-configuration")),
        )

    def keys(self, jwks_uri: object) -> Target:
        """Return where the `jwks_uri` of the metadata is asked for.

        Raises:
            IssuerError: FOREIGN_ADDRESS for anything but the issuer's origin or https.
        """
        try:
            url = _parse(jwks_uri)
        except ValueError as error:
            raise IssuerError(Fault.FOREIGN_ADDRESS, "jwks_uri is not an http(s) URL") from error
        if _origin(url) == _origin(self._url):
            return self._at(url)
        if url.scheme != "https":
            raise IssuerError(Fault.FOREIGN_ADDRESS, "jwks_uri is elsewhere and not https")
        return Target(url, {})

    def _at(self, url: httpx.URL) -> Target:
        if self._internal is None:
            return Target(url, {})
        # Authelia takes its own name from these two and refuses plain http without them.
        forwarded = {
            "X-Forwarded-Proto": self._url.scheme,
            "X-Forwarded-Host": self._url.netloc.decode("ascii"),
        }
        return Target(self._internal.copy_with(raw_path=url.raw_path), forwarded)


def _parse(text: object) -> httpx.URL:
    if not isinstance(text, str):
        raise ValueError("not a URL")  # noqa: TRY004 - a document's value, not a caller's type
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError("not a URL") from error
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
        raise ValueError("not an http(s) URL without credentials")
    if (url.port or 0) > _MAX_PORT:
        raise ValueError("not a URL")
    return url


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def issuer_client(*, timeout: float, verify: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """Return an HTTP client that goes where it is sent and nowhere else.

    Args:
        timeout: seconds for connecting and for each read; the whole has a bound of its own.
        verify: whom to trust; None for the system's authorities and SSL_CERT_FILE.
    """
    return httpx.AsyncClient(
        follow_redirects=False,
        timeout=timeout,
        limits=httpx.Limits(max_connections=4, max_keepalive_connections=1),
        # No proxies of the environment: the internal address is meant literally.
        trust_env=False,
        verify=verify or ssl.create_default_context(),
        # Nothing is unpacked, so that no small answer becomes a large one.
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
    )


class IssuerKeys:
    """Fetch the key set that the issuer's metadata names."""

    def __init__(
        self,
        address: IssuerAddress,
        algorithms: frozenset[str],
        client: httpx.AsyncClient,
        *,
        total: float = 10.0,
    ) -> None:
        """Take the address, the allowed algorithms, a client, and seconds for the whole fetch."""
        self._address = address
        self._algorithms = algorithms
        self._client = client
        self._total = total

    async def fetch(self) -> KeySet:
        """Return the key set as it is published now.

        Raises:
            IssuerError: where none can be had; the caller keeps what it has.
        """
        try:
            # A read time-out alone would let an issuer drip one byte at a time for ever.
            async with asyncio.timeout(self._total):
                target = self._address.keys((await self._metadata()).get("jwks_uri"))
                document = await self._get(target)
        except TimeoutError as error:
            raise IssuerError(Fault.LATE, "no whole answer in time") from error
        try:
            return read_key_set(document, self._algorithms)
        except KeySetError as error:
            raise IssuerError(Fault.NO_KEYS, str(error)) from error

    async def _metadata(self) -> Mapping[str, object]:
        first, second = self._address.metadata()
        try:
            document = await self._get(first)
        except IssuerError as error:
            if error.fault is not Fault.STATUS:
                raise
            document = await self._get(second)
        # RFC 8414, section 3.3: identical, or another issuer's metadata would be believed.
        if document.get("issuer") != self._address.issuer:
            raise IssuerError(Fault.WRONG_ISSUER, "the metadata is of another issuer")
        return document

    async def _get(self, target: Target) -> Mapping[str, object]:
        try:
            data = await self._read(target)
            document = loads(data)
        except httpx.HTTPError as error:
            raise IssuerError(Fault.UNREACHABLE, type(error).__name__) from error
        except StrictJsonError as error:
            raise IssuerError(Fault.MALFORMED, "not strict JSON") from error
        if not isinstance(document, dict):
            raise IssuerError(Fault.MALFORMED, "not a JSON object")
        return document

    async def _read(self, target: Target) -> bytes:
        data = bytearray()
        async with self._client.stream(
            "GET", target.url, headers=target.headers, follow_redirects=False
        ) as response:
            # Whoever stands before an issuer may set cookies: they would pile up, and be sent.
            self._client.cookies.clear()
            if response.status_code != _OK:
                raise IssuerError(Fault.STATUS, f"status {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise IssuerError(Fault.MALFORMED, "compressed, though asked not to be")
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > _MAX_DOCUMENT:
                    raise IssuerError(Fault.TOO_LARGE, "longer than 1 MiB")
        return bytes(data)
