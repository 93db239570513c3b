"""A document of a stranger's choice, fetched without being led into our own network.

Invariant: the name is resolved once and by us; every address of it must be public; the connection
goes to one of exactly these addresses, under TLS for the name. No redirect, no proxy, no size and
no time beyond the bounds.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import Final

import httpcore

from authz.http.bounded import BodyTooLargeError, read_body
from authz.http.bounded_network import BoundedNetwork
from authz.login.clients.faults import DocumentFault

LARGEST: Final = 64 * 1024  # bytes
PATIENCE: Final = 5.0  # seconds, for everything together

_HTTPS: Final = 443
_OK: Final = 200
_TOO_MANY: Final = 429
_SERVER_FAULT: Final = 500
_REDIRECTS: Final = range(300, 400)
_GONE: Final = (404, 410)
_MOST_ADDRESSES: Final = 32
_MOST_LINES: Final = 5_000  # of a whole response
_TRIED: Final = 4
# Threads that resolve names: our own, since who is slow to answer for his names would otherwise
# hold the threads that resolve Authelia's.
_RESOLVERS: Final = 16
_JSON: Final = re.compile(r"application/(?:[a-z0-9!#$&^_.-]+\+)?json\s*(?:;.*)?\Z", re.IGNORECASE)
_MAX_AGE: Final = re.compile(r"max-age=\"?([0-9]{1,9})\"?\Z")

# --- which addresses are public --------------------------------------------------------------

# IANA's special-purpose registry (RFC 6890), multicast and what is reserved. Not asked of the
# standard library: what `is_global` says differs between versions of Python.
_SPECIAL_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
# Everything else is loopback, mapped IPv4, local, multicast or not assigned (RFC 4291, 2.4).
_UNICAST: Final = IPv6Network("2000::/3")
_SPECIAL_V6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo among them, which embeds IPv4
        "2001:db8::/32",
        "2002::/16",  # 6to4, which embeds IPv4
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
# DNS64 answers so for names that have IPv4 only (RFC 6052, section 2.1): as public as the IPv4 in
# it. A network's own prefix (RFC 8215) is local.
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")  # embeds IPv4 (RFC 5214, section 6.1)


def is_public(address: str) -> bool:
    """Tell whether an address is one of the open Internet, and leads nowhere else."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv4Address):
        return _is_public_v4(found)
    if found.scope_id is not None:
        return False
    if found in _NAT64:
        return _is_public_v4(IPv4Address(found.packed[12:]))
    return _is_public_v6(found)


def _is_public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in _SPECIAL_V4)


def _is_public_v6(address: IPv6Address) -> bool:
    if address not in _UNICAST or address.packed[8:12] in _ISATAP:
        return False
    return not any(address in network for network in _SPECIAL_V6)


# --- fetching --------------------------------------------------------------------------------

Resolve = Callable[[str], Awaitable[Sequence[str]]]


class FetchError(Exception):
    """Say why there is no document.

    Attributes:
        fault: what is wrong.
    """

    def __init__(self, fault: DocumentFault) -> None:
        """Keep it."""
        super().__init__(fault.value)
        self.fault = fault

    @property
    def description(self) -> str:
        """Return the fixed clause of the fault."""
        return self.fault.description

    @property
    def passing(self) -> bool:
        """Tell whether it may be over in a while."""
        return self.fault.passing


@dataclass(frozen=True, slots=True)
class Fetched:
    """Hold a document as it came.

    Attributes:
        body: its bytes.
        max_age: how many seconds its server says that it holds (RFC 9111, section 5.2.2); None
            where it does not say.
    """

    body: bytes
    max_age: int | None


class SystemResolver:
    """Ask the system for addresses, in threads of its own."""

    def __init__(self) -> None:
        """Begin nothing yet."""
        self._threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="authz-names")

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the addresses of a host.

        Raises:
            OSError: where there are none.
        """
        # The last dot: a stranger's name is not completed by our own search domains.
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: socket.getaddrinfo(f"{host}.", _HTTPS, type=socket.SOCK_STREAM),
        )
        return [str(address[0]) for *_, address in found]

    def close(self) -> None:
        """End; questions that are under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class CheckedAddresses(httpcore.AsyncNetworkBackend):
    """Connect to addresses that were checked, whatever host is asked for."""

    def __init__(
        self,
        addresses: Iterable[str],
        port: int | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """Take the addresses; the rest is for tests.

        Args:
            addresses: in the order in which they are tried.
            port: in place of the one that is asked for.
            network: how to connect to an address.
        """
        self._addresses = tuple(addresses)
        self._port = port
        self._network = network or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - never resolved again: DNS may say something else by now
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the base class's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers."""
        failure: Exception = httpcore.ConnectError("no address")
        for address in self._addresses:
            try:
                return await self._network.connect_tcp(
                    address, self._port or port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class Fetcher:
    """Fetch documents, each over a connection of its own."""

    def __init__(
        self,
        resolve: Resolve,
        *,
        public: Callable[[str], bool] = is_public,
        trust: ssl.SSLContext | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
        port: int = _HTTPS,
        patience: float = PATIENCE,
    ) -> None:
        """Take how names are resolved; the rest is for tests.

        Args:
            resolve: a host's addresses; raises OSError.
            public: which addresses may be connected to.
            trust: whom to trust; None for the system's authorities and SSL_CERT_FILE.
            network: how to connect to an address.
            port: where.
            patience: seconds for everything together.
        """
        self._resolve = resolve
        self._public = public
        self._trust = trust
        self._network = network
        self._port = port
        self._patience = patience

    async def __call__(self, url: str, host: str) -> Fetched:
        """Return the document at a URL of this host.

        Raises:
            FetchError: where there is none to be believed.
        """
        try:
            # Over everything: who sends a byte a second is never late for a single read.
            async with asyncio.timeout(self._patience):
                return await self._get(url, await self._addresses(host))
        except TimeoutError as error:
            raise FetchError(DocumentFault.LATE) from error
        except (OSError, httpcore.NetworkError, httpcore.TimeoutException) as error:
            fault = _beneath(error)
            raise FetchError(fault) from error
        except httpcore.ProtocolError as error:
            raise FetchError(DocumentFault.PROTOCOL) from error

    async def _addresses(self, host: str) -> Sequence[str]:
        try:
            found = list(dict.fromkeys(await self._resolve(host)))
        except OSError as error:
            raise FetchError(DocumentFault.NO_ADDRESS) from error
        if not found:
            raise FetchError(DocumentFault.NO_ADDRESS)
        # One address inside among public ones is no accident, and the next try would meet it.
        if len(found) > _MOST_ADDRESSES or not all(self._public(each) for each in found):
            raise FetchError(DocumentFault.PRIVATE_ADDRESS)
        return found[:_TRIED]

    async def _get(self, url: str, addresses: Sequence[str]) -> Fetched:
        if self._trust is None:  # to read all authorities takes a while: not before one is needed
            self._trust = await asyncio.to_thread(ssl.create_default_context)
        checked = CheckedAddresses(addresses, self._port, self._network)
        # A stranger's host must hold nobody else's log-in.
        backend = BoundedNetwork(4 * LARGEST, _MOST_LINES, checked)
        headers = (
            ("Accept", "application/json"),
            # Nothing is unpacked, so that no small answer becomes a large one.
            ("Accept-Encoding", "identity"),
            ("User-Agent", "authz"),
        )
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self._patience)
        async with (
            httpcore.AsyncConnectionPool(
                self._trust, max_connections=1, network_backend=backend
            ) as pool,
            pool.stream("GET", url, headers=headers, extensions={"timeout": timeouts}) as response,
        ):
            fields = joined_fields(response.headers)
            _check(response.status, fields)
            try:
                body = await read_body(response.aiter_stream(), LARGEST)
            except BodyTooLargeError as error:
                raise FetchError(DocumentFault.TOO_LARGE) from error
        return Fetched(body, _max_age(fields.get("cache-control", "")))


def _beneath(error: BaseException) -> DocumentFault:
    """Return what is wrong with a connection: TLS, time, or the way there."""
    beneath: BaseException | None = error
    while beneath is not None:
        for kind, fault in _CAUSES.items():
            if isinstance(beneath, kind):
                return fault
        beneath = beneath.__cause__ or beneath.__context__
    return DocumentFault.UNREACHABLE


_CAUSES: Final = {
    ssl.SSLError: DocumentFault.TLS,  # an OSError itself
    httpcore.TimeoutException: DocumentFault.LATE,
    TimeoutError: DocumentFault.LATE,
}


def _of_status(status: int) -> DocumentFault:
    if status in _REDIRECTS:
        return DocumentFault.REDIRECT
    if status in _GONE:
        return DocumentFault.NOT_FOUND
    broken = status >= _SERVER_FAULT or status == _TOO_MANY
    return DocumentFault.SERVER_FAULT if broken else DocumentFault.STATUS


def joined_fields(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the header fields, those that come more than once joined (RFC 9110, section 5.3)."""
    fields: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


def _check(status: int, fields: dict[str, str]) -> None:
    if status != _OK:
        # A redirect is a refusal as well (the draft's section 5): it could lead inside.
        raise FetchError(_of_status(status))
    if fields.get("content-encoding", "identity").lower() != "identity":
        raise FetchError(DocumentFault.COMPRESSED)
    if not _JSON.match(fields.get("content-type", "")):
        raise FetchError(DocumentFault.WRONG_TYPE)


def _max_age(control: str) -> int | None:
    directives = {each.strip() for each in control.lower().split(",")}
    if not directives.isdisjoint({"no-store", "no-cache"}):
        return 0
    ages = [int(found[1]) for each in directives if (found := _MAX_AGE.match(each))]
    return min(ages, default=None)
