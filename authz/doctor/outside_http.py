"""Ask a public URL as a stranger does, without being led into the network that doctor runs in.

Invariant: a host's name is resolved once for each question, and the connection goes to an address
that was checked; private addresses are connected to only where the operator asked for it. No
redirect is followed, no proxy used, and size and time are bounded.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import httpcore
from cryptography import x509

from authz.config.certificates import names_issuers_file
from authz.http.bounded import BodyTooLargeError, read_body
from authz.login.clients.fetching import (
    CheckedAddresses,
    Resolve,
    is_public,
    joined_fields,
)

LARGEST: Final = 64 * 1024  # bytes
PATIENCE: Final = 10.0  # seconds for one question
_MOST_ADDRESSES: Final = 8
_LONGEST_URL: Final = 2048
_PORTS: Final = {"http": 80, "https": 443}


class OutsideFault(Enum):
    """Name why a question has no answer; the value is a clause for a person."""

    BAD_URL = "it is no http or https URL with a host"
    NO_ADDRESS = "the name has no address"
    PRIVATE = "the name leads to an address that is not on the open Internet"
    UNREACHABLE = "nobody answers there"
    LATE = "there was no answer in time"
    TLS = "TLS failed"
    TOO_LARGE = "the answer is larger than 64 KiB"
    PROTOCOL = "the answer is no valid HTTP"


class OutsideError(Exception):
    """Say why a question has no answer.

    Attributes:
        fault: what is wrong.
    """

    def __init__(self, fault: OutsideFault) -> None:
        """Keep it."""
        super().__init__(fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class OutsideUrl:
    """A URL taken apart.

    Attributes:
        text, scheme, host, port, path: of it; the path without query.
    """

    text: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Return scheme, host and, where it is not the scheme's own, port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        own = self.port == _PORTS[self.scheme]
        return f"{self.scheme}://{host}" + ("" if own else f":{self.port}")


def read_url(text: str) -> OutsideUrl:
    """Return a URL taken apart.

    Raises:
        OutsideError: where it is none that can be asked.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise OutsideError(OutsideFault.BAD_URL) from None
    plain = text.isascii() and text.isprintable() and " " not in text and "\\" not in text
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc or not plain:
        raise OutsideError(OutsideFault.BAD_URL)
    if len(text) > _LONGEST_URL or port == 0:
        raise OutsideError(OutsideFault.BAD_URL)
    return OutsideUrl(text, parts.scheme, host, port or _PORTS[parts.scheme], parts.path or "/")


@dataclass(frozen=True, slots=True)
class OutsideAnswer:
    """What a question was answered; fields that come more than once are joined."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Handshake:
    """How TLS with one address went.

    Attributes:
        fault: empty where it succeeded; else what OpenSSL says.
        code: X509_V_ERR_…, 0 where it is no matter of the certificate.
        expires: of the leaf, seconds since the epoch; None where none was seen.
        has_issuer_url: whether the leaf says where its issuer's certificate is (RFC 5280, 4.2.2.1).
        is_self_signed: whether the leaf is its own issuer.
    """

    fault: str = ""
    code: int = 0
    expires: float | None = None
    has_issuer_url: bool = False
    is_self_signed: bool = False


async def system_addresses(host: str) -> Sequence[str]:
    """Return the addresses of a host.

    Raises:
        OSError: where there are none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True, slots=True)
class OutsideClient:
    """Ask URLs.

    Attributes:
        resolve: a host's addresses; raises OSError.
        private: whether addresses that are not public may be connected to.
        trust: whom to trust.
        patience: seconds for one question.
        port: in place of a URL's own, for tests, whose resolver is their own as well.
    """

    resolve: Resolve = system_addresses
    private: bool = False
    trust: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    patience: float = PATIENCE
    port: int | None = None

    async def addresses(self, host: str) -> Sequence[str]:
        """Return the addresses of a host that may be connected to.

        Raises:
            OutsideError: where there are none, or one may not.
        """
        try:
            async with asyncio.timeout(self.patience):
                found = list(dict.fromkeys(await self.resolve(host)))[:_MOST_ADDRESSES]
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            raise OutsideError(OutsideFault.NO_ADDRESS) from None
        if not found:
            raise OutsideError(OutsideFault.NO_ADDRESS)
        # One private address among public ones is no accident: a client may take that one.
        if not self.private and not all(map(is_public, found)):
            raise OutsideError(OutsideFault.PRIVATE)
        return found

    async def ask(
        self,
        url: OutsideUrl,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> OutsideAnswer:
        """Return the answer to one request.

        Raises:
            OutsideError: where there is none.
        """
        addresses = await self.addresses(url.host)
        fields = {"Accept-Encoding": "identity", "User-Agent": "authz-doctor", **(headers or {})}
        try:
            async with (
                asyncio.timeout(self.patience),
                httpcore.AsyncConnectionPool(
                    self.trust,
                    max_connections=1,
                    network_backend=CheckedAddresses(addresses, self.port),
                ) as pool,
                pool.stream(
                    method, url.text, headers=list(fields.items()), content=body
                ) as response,
            ):
                told = joined_fields(response.headers)
                # A 401 to a POST may be a stream that never ends: its headers are enough.
                stream = told.get("content-type", "").startswith("text/event-stream")
                text = b"" if stream else await read_body(response.aiter_stream(), LARGEST)
                return OutsideAnswer(response.status, told, text)
        except BodyTooLargeError:
            raise OutsideError(OutsideFault.TOO_LARGE) from None
        except (TimeoutError, httpcore.TimeoutException):
            raise OutsideError(OutsideFault.LATE) from None
        except httpcore.ProtocolError:
            raise OutsideError(OutsideFault.PROTOCOL) from None
        except (OSError, httpcore.NetworkError) as error:
            fault = OutsideFault.TLS if _is_tls(error) else OutsideFault.UNREACHABLE
            raise OutsideError(fault) from None

    async def handshake(self, url: OutsideUrl, address: str) -> Handshake:
        """Return how TLS with one address goes, which `addresses` has returned.

        Raises:
            OutsideError: where there is no connection.
        """
        return await asyncio.to_thread(self._shake, url, address)

    def _shake(self, url: OutsideUrl, address: str) -> Handshake:
        fault, code = "", 0
        try:
            der = self._leaf(url, address, self.trust)
        except ssl.SSLCertVerificationError as error:
            fault, code, der = error.verify_message, error.verify_code, None
        except TimeoutError:
            raise OutsideError(OutsideFault.LATE) from None
        except ssl.SSLError as error:
            return Handshake(error.reason or "TLS failed")
        except OSError:
            raise OutsideError(OutsideFault.UNREACHABLE) from None
        if der is None:
            # Looked at once more, to say what is wrong with it; nothing is sent.
            blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
            try:
                der = self._leaf(url, address, blind)
            except OSError:
                return Handshake(fault, code)
        return _described(der, fault, code)

    def _leaf(self, url: OutsideUrl, address: str, context: ssl.SSLContext) -> bytes | None:
        with (
            socket.create_connection((address, self.port or url.port), self.patience) as raw,
            context.wrap_socket(raw, server_hostname=url.host) as sock,
        ):
            return sock.getpeercert(binary_form=True)


def is_ipv6(address: str) -> bool:
    """Tell whether an address is of IPv6."""
    return ip_address(address).version == 6  # noqa: PLR2004 - the version's number


def _is_tls(error: BaseException) -> bool:
    beneath: BaseException | None = error
    while beneath is not None:
        if isinstance(beneath, ssl.SSLError):
            return True
        beneath = beneath.__cause__ or beneath.__context__
    return False


def _described(der: bytes | None, fault: str, code: int) -> Handshake:
    try:
        leaf = x509.load_der_x509_certificate(der or b"")
        expires = leaf.not_valid_after_utc.timestamp()
    except (ValueError, OverflowError):
        return Handshake(fault, code)
    return Handshake(fault, code, expires, names_issuers_file(leaf), leaf.issuer == leaf.subject)
