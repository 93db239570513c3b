"""The issuer's metadata (RFC 8414, OpenID Discovery) and its key set, with where both are fetched.

Invariant: metadata is used only where it names this issuer, and what it names is requested at
the issuer's own address or at an https address, nowhere else.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import httpx

from authz.tokens.issuer_http import IssuerEndpoint, IssuerError, IssuerFault, get
from authz.tokens.jwk import KeySet, KeySetError, read_key_set

_MAX_PORT: Final = 65535  # httpx takes any number, and the socket then raises OverflowError


class IssuerAddress:
    """The issuer as tokens name it, and how it is reached from here.

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

    def metadata(self) -> tuple[IssuerEndpoint, IssuerEndpoint]:
        """Return the URLs of metadata: RFC 8414, section 3.1, then OpenID Discovery, section 4."""
        path = self._url.path.rstrip("/")
        return (
            self._at(self._url.copy_with(path=f"/.well-known/oauth-authorization-server{path}")),
            self._at(self._url.copy_with(path=f"{path}/.well-known/openid-configuration")),
        )

    def endpoint(self, name: str, uri: object) -> IssuerEndpoint:
        """Return how to request a URL of the metadata.

        Args:
            name: the member that holds it, for the log: `jwks_uri`, `introspection_endpoint`.
            uri: its value.

        Raises:
            IssuerError: FOREIGN_ADDRESS for anything but the issuer's origin or https.
        """
        try:
            url = _parse(uri)
        except ValueError as error:
            raise IssuerError(
                IssuerFault.FOREIGN_ADDRESS, f"{name} is not an http(s) URL"
            ) from error
        if _origin(url) == _origin(self._url):
            return self._at(url)
        if url.scheme != "https":
            raise IssuerError(IssuerFault.FOREIGN_ADDRESS, f"{name} is elsewhere and not https")
        return IssuerEndpoint(url, {})

    def _at(self, url: httpx.URL) -> IssuerEndpoint:
        if self._internal is None:
            return IssuerEndpoint(url, {})
        # Authelia takes its own name from these two and refuses plain http without them.
        forwarded = {
            "X-Forwarded-Proto": self._url.scheme,
            "X-Forwarded-Host": self._url.netloc.decode("ascii"),
        }
        return IssuerEndpoint(self._internal.copy_with(raw_path=url.raw_path), forwarded)


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


async def read_metadata(address: IssuerAddress, client: httpx.AsyncClient) -> Mapping[str, object]:
    """Return the issuer's metadata.

    Raises:
        IssuerError: where there is none, or it is another issuer's.
    """
    first, second = address.metadata()
    try:
        document = await get(client, first)
    except IssuerError as error:
        if error.fault not in {IssuerFault.STATUS, IssuerFault.UNAUTHORIZED}:
            raise
        document = await get(client, second)
    return _of_issuer(address, document)


async def read_openid_configuration(
    address: IssuerAddress, client: httpx.AsyncClient
) -> Mapping[str, object]:
    """Return the issuer's OpenID Connect metadata (OpenID Discovery, section 4).

    Raises:
        IssuerError: where there is none, or it is another issuer's.
    """
    _, target = address.metadata()
    return _of_issuer(address, await get(client, target))


def _of_issuer(address: IssuerAddress, document: Mapping[str, object]) -> Mapping[str, object]:
    # RFC 8414, section 3.3: identical, or another issuer's metadata would be used.
    if document.get("issuer") != address.issuer:
        raise IssuerError(IssuerFault.WRONG_ISSUER, "the metadata is of another issuer")
    return document


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
            IssuerError: where it cannot be fetched; the caller keeps what it has.
        """
        try:
            # A read time-out alone would let an issuer drip one byte at a time for ever.
            async with asyncio.timeout(self._total):
                metadata = await read_metadata(self._address, self._client)
                target = self._address.endpoint("jwks_uri", metadata.get("jwks_uri"))
                document = await get(self._client, target)
        except TimeoutError as error:
            raise IssuerError(IssuerFault.LATE, "no whole answer in time") from error
        try:
            return read_key_set(document, self._algorithms)
        except KeySetError as error:
            raise IssuerError(IssuerFault.NO_KEYS, str(error)) from error
