"""Fetching what strangers name: from the open Internet, within bounds, and from nowhere inside."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from authz.login.clients.documents import Documents
from authz.login.clients.faults import DocumentFault
from authz.login.clients.fetching import (
    LARGEST,
    Fetched,
    Fetcher,
    FetchError,
    SystemResolver,
    is_public,
)
from authz.login.clients.redirects import RedirectRules
from authz.login.protocol.values import OAuthClient
from authz.setup import certificates
from authz_demo.serving import ANYWHERE, ServingCertificate, serve
from tests.support.listening import Handler, listening
from tests.support.watched_network import FLOODS, Turns, WatchedNetwork, flood

HOST = "client.example.test"
URL = f"https://{HOST}/client.json"
LOCAL = "127.0.0.1"

INSIDE = [
    "127.0.0.1",
    "127.255.255.255",
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "192.0.0.9",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "233.252.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "100::1",
    "2001::1",
    "2001:0:808:808::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "2620:4f:8000::1",
    "3fff::1",
    "2600::5efe:7f00:1",
    "2600::200:5efe:a00:1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2600::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "",
    "localhost",
    "127.1",
    "0x7f000001",
    "2130706433",
    "8.8.8.8/32",
    "8.8.8.8 ",
]


@pytest.mark.attack("document-inside")
@pytest.mark.parametrize("address", INSIDE)
def test_no_address_of_our_own_network_is_public(address: str) -> None:
    """Private, loopback, link-local, multicast, reserved, however embedded, and what is none."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"],
)
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    """And what DNS64 makes of a public IPv4 address."""
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_the_table_is_no_laxer_than_python_for_ipv4(address: IPv4Address) -> None:
    """Whatever the library calls private, special or multicast, is not public."""
    if is_public(str(address)):
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_private))


@given(st.ip_addresses(v=6))
def test_the_table_is_no_laxer_than_python_for_ipv6(address: IPv6Address) -> None:
    """As above; and nothing that embeds an IPv4 address, but what DNS64 does."""
    if is_public(str(address)):
        assert address.is_global
        assert not any((address.is_multicast, address.is_private, address.is_site_local))
        assert address.ipv4_mapped is None
        assert address.sixtofour is None
        assert address.teredo is None


# --- a network that tells -----------------------------------------------------------------------


@dataclass
class Network(httpcore.AsyncNetworkBackend):
    """Remembers where it was sent, and goes nowhere."""

    asked: list[tuple[str, int]] = field(default_factory=list)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the base class's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append((host, port))
        raise httpcore.ConnectError


@dataclass
class Names:
    """Answers in turn; the last answer stays."""

    answers: list[list[str]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


def failure(fetcher: Fetcher, url: str = URL, host: str = HOST) -> FetchError:
    return asyncio.run(refused_in_time(fetcher, url, host))


async def refused_in_time(fetcher: Fetcher, url: str, host: str) -> FetchError:
    """Far longer than any patience here, and no test's business but for those who are slow."""
    async with asyncio.timeout(60):
        with pytest.raises(FetchError) as caught:
            await fetcher(url, host)
    return caught.value


@pytest.mark.attack("document-inside")
@pytest.mark.parametrize("address", INSIDE)
def test_nothing_inside_is_connected_to(address: str) -> None:
    """A name of an address inside is refused before anything is sent."""
    network = Network()

    refused = failure(Fetcher(Names([[address]]), network=network))

    assert refused.fault is DocumentFault.PRIVATE_ADDRESS
    assert network.asked == []


@pytest.mark.attack("document-inside")
@pytest.mark.parametrize("order", [1, -1])
def test_one_address_inside_spoils_all(order: int) -> None:
    """Whichever place it has among public ones."""
    network = Network()
    answer = ["8.8.8.8", "2606:4700::1111", "10.0.0.1"][::order]

    assert not failure(Fetcher(Names([answer]), network=network)).passing
    assert network.asked == []


@pytest.mark.attack("document-inside-after-dns-change")
def test_what_dns_says_later_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is resolved once; the connection goes to what was checked, not to the name."""

    def resolved_again(*_: object, **__: object) -> Any:
        raise AssertionError("somebody resolved a name again")

    monkeypatch.setattr(socket, "getaddrinfo", resolved_again)
    network, names = Network(), Names([["8.8.8.8", "2606:4700::1111"], ["127.0.0.1"]])

    assert failure(Fetcher(names, network=network)).passing

    assert names.asked == [HOST]
    assert network.asked == [("8.8.8.8", 443), ("2606:4700::1111", 443)]


def test_of_many_addresses_few_are_tried() -> None:
    """A host with a hundred addresses is no host; of thirty, four are tried."""
    network = Network()
    failure(Fetcher(Names([[f"8.8.8.{n}" for n in range(30)]]), network=network))
    assert len(network.asked) == 4

    network = Network()
    failure(Fetcher(Names([[f"8.8.8.{n}" for n in range(100)]]), network=network))
    assert network.asked == []


def test_a_host_without_an_address_may_have_one_later() -> None:
    """Nothing found, or nobody to ask."""

    async def nobody(_: str) -> Sequence[str]:
        raise socket.gaierror

    assert failure(Fetcher(nobody)).fault is DocumentFault.NO_ADDRESS
    assert failure(Fetcher(Names([[]]))).fault is DocumentFault.NO_ADDRESS


def test_the_system_is_asked_for_an_absolute_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """No search domain of ours completes a stranger's name; every address comes back."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2606:4700::1111", port, 0, 0)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = SystemResolver()

    assert asyncio.run(_ask(resolver)) == ["8.8.8.8", "2606:4700::1111"]
    assert asked == [f"{HOST}."]
    resolver.close()


async def _ask(resolver: SystemResolver) -> Sequence[str]:
    return await resolver(HOST)


# --- a real server, reached under another name -------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.CertificateFiles:
    return certificates.write_certificates(tmp_path_factory.mktemp("tls"), [HOST])


@dataclass
class Page:
    """An application that answers one thing."""

    body: bytes = b"{}"
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)
    drip: float | None = None
    seen: list[Scope] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.seen.append(scope)
        await send(
            {"type": "http.response.start", "status": self.status, "headers": list(self.headers)}
        )
        await receive()
        while self.drip is not None:
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(self.drip):
                    await receive()
                    return  # whoever asked is gone
        await send({"type": "http.response.body", "body": self.body})


def trusting(files: certificates.CertificateFiles) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=files.authority)


@asynccontextmanager
async def served(
    page: Page, files: certificates.CertificateFiles, patience: float = 5.0, *, trusted: bool = True
) -> AsyncIterator[Fetcher]:
    async with serve(page, ANYWHERE, ServingCertificate(files.certificate, files.key)) as port:
        yield Fetcher(
            Names([[LOCAL]]),
            public=lambda address: address == LOCAL,
            trust=trusting(files) if trusted else None,
            port=port,
            patience=patience,
        )


def fetched(page: Page, files: certificates.CertificateFiles, **how: Any) -> Fetched:
    async def scene() -> Fetched:
        async with served(page, files, **how) as fetcher:
            return await fetcher(URL, HOST)

    return asyncio.run(scene())


def not_fetched(
    page: Page, files: certificates.CertificateFiles, url: str = URL, host: str = HOST, **how: Any
) -> FetchError:
    async def scene() -> FetchError:
        async with served(page, files, **how) as fetcher:
            return await refused_in_time(fetcher, url, host)

    return asyncio.run(scene())


def test_a_document_comes_over_tls_for_its_name(
    files: certificates.CertificateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No proxy of the environment is asked, no cookie and nothing of ours is sent."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    page = Page(b'{"a":1}')

    assert fetched(page, files) == Fetched(b'{"a":1}', None)

    (scope,) = page.seen
    assert scope["method"] == "GET"
    assert scope["path"] == "/client.json"
    assert dict(scope["headers"]) == {
        b"host": HOST.encode(),
        b"accept": b"application/json",
        b"accept-encoding": b"identity",
        b"user-agent": b"authz",
    }


def test_another_hosts_certificate_is_not_taken(files: certificates.CertificateFiles) -> None:
    """TLS is verified for the name in the URL, not for the address, and by known authorities."""
    assert not_fetched(Page(), files, "https://other.example.test/c", "other.example.test").passing
    assert not_fetched(Page(), files, trusted=False).fault is DocumentFault.TLS


@pytest.mark.attack("document-redirect")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(files: certificates.CertificateFiles, status: int) -> None:
    """Not even to the same host."""
    page = Page(status=status, headers=((b"location", URL.encode()),))

    assert not_fetched(page, files).fault is DocumentFault.REDIRECT
    assert len(page.seen) == 1


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (201, DocumentFault.STATUS),
        (204, DocumentFault.STATUS),
        (401, DocumentFault.STATUS),
        (404, DocumentFault.NOT_FOUND),
        (410, DocumentFault.NOT_FOUND),
        (429, DocumentFault.SERVER_FAULT),
        (503, DocumentFault.SERVER_FAULT),
    ],
)
def test_only_200_counts(
    files: certificates.CertificateFiles, status: int, fault: DocumentFault
) -> None:
    """What is gone is gone; a server that is overrun or broken may be back."""
    body = b"" if status == 204 else b"{}"
    headers = () if status == 204 else Page.headers
    found = not_fetched(Page(body, status, headers), files)
    assert found.fault is fault
    assert found.passing is (fault is DocumentFault.SERVER_FAULT)


@pytest.mark.attack("document-large")
@pytest.mark.parametrize("declared", [True, False])
def test_a_long_document_is_not_read_to_its_end(
    files: certificates.CertificateFiles, declared: bool
) -> None:
    """64 KiB and not a byte more, said beforehand or not."""
    length = ((b"content-length", b"%d" % (LARGEST + 1)),) if declared else ()
    page = Page(b" " * (LARGEST + 1), headers=(*Page.headers, *length))

    assert not_fetched(page, files).fault is DocumentFault.TOO_LARGE
    assert len(fetched(Page(b" " * LARGEST), files).body) == LARGEST


@pytest.mark.attack("document-slow")
def test_a_byte_now_and_then_does_not_hold_us(files: certificates.CertificateFiles) -> None:
    """Every read is in time, and the whole is not."""
    assert not_fetched(Page(drip=0.01), files, patience=0.3).fault is DocumentFault.LATE


@pytest.mark.attack("document-slow")
def test_who_resolves_slowly_does_not_hold_us() -> None:
    """The time of the name counts, too."""

    async def never(_: str) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    assert failure(Fetcher(never, patience=0.01)).fault is DocumentFault.LATE


@pytest.mark.parametrize(
    "kind",
    [
        b"text/html",
        b"text/plain",
        b"application/javascript",
        b"application/jsonp",
        b"text/html; application/json",
        b"",
        b"application/json, text/html",
    ],
)
def test_only_json_is_read(files: certificates.CertificateFiles, kind: bytes) -> None:
    """A page that shows JSON is no document."""
    page = Page(headers=((b"content-type", kind),))
    assert not_fetched(page, files).fault is DocumentFault.WRONG_TYPE


@pytest.mark.parametrize(
    "kind", [b"application/json", b"application/json; charset=utf-8", b"application/cimd+json"]
)
def test_json_of_any_kind_is_read(files: certificates.CertificateFiles, kind: bytes) -> None:
    """The draft's section 4 lets servers be more specific."""
    assert fetched(Page(headers=((b"content-type", kind),)), files).body == b"{}"


def test_nothing_is_unpacked(files: certificates.CertificateFiles) -> None:
    """A small answer could become a large one."""
    page = Page(headers=(*Page.headers, (b"content-encoding", b"gzip")))
    assert not_fetched(page, files).fault is DocumentFault.COMPRESSED


@pytest.mark.parametrize(
    ("control", "age"),
    [
        (b"max-age=600", 600),
        (b"public, max-age=600", 600),
        (b'Max-Age="600"', 600),
        (b"max-age=600, max-age=60", 60),
        (b"s-maxage=9", None),
        (b"max-age=-1", None),
        (b"max-age=1e9", None),
        (b"max-age=99999999999", None),
        (b"no-store, max-age=600", 0),
        (b"no-cache", 0),
        (b"," * 5000, None),
    ],
)
def test_its_server_says_how_long_it_holds(
    files: certificates.CertificateFiles, control: bytes, age: int | None
) -> None:
    """As far as it says so rightly."""
    page = Page(headers=(*Page.headers, (b"cache-control", control)))
    assert fetched(page, files).max_age == age


def raw(answer: bytes) -> Handler:
    async def answered(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    return answered


@pytest.mark.parametrize("answer", [b"", b"\x00" * 100, b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0"])
def test_what_speaks_no_tls_is_no_document(
    answer: bytes, files: certificates.CertificateFiles
) -> None:
    """Whatever it answers, the reason is ours."""

    async def scene() -> FetchError:
        async with listening(raw(answer)) as port:
            fetcher = Fetcher(
                Names([[LOCAL]]),
                public=lambda _: True,
                trust=trusting(files),
                port=port,
            )
            with pytest.raises(FetchError) as caught:
                await fetcher(URL, HOST)
            return caught.value

    assert asyncio.run(scene()).passing


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000,
    ],
)
def test_what_speaks_no_http_is_no_document(
    answer: bytes, files: certificates.CertificateFiles
) -> None:
    """Cut short, something else, or header fields without an end."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate, files.key)

    async def scene() -> FetchError:
        async with listening(raw(answer), tls=tls) as port:
            fetcher = Fetcher(
                Names([[LOCAL]]),
                public=lambda _: True,
                trust=trusting(files),
                port=port,
            )
            return await refused_in_time(fetcher, URL, HOST)

    assert asyncio.run(scene()).passing


@pytest.mark.attack("hostile-host", "slow-document")
@pytest.mark.parametrize("kind", FLOODS)
def test_a_strangers_host_holds_nobody_elses_log_in(
    kind: str, files: certificates.CertificateFiles
) -> None:
    """Interim responses without an end, and chunks of one byte: others run after each kilobyte, and
    it ends long before its time is up.
    """
    tls, turns = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), Turns()
    tls.load_cert_chain(files.certificate, files.key)

    async def scene() -> FetchError:
        other = asyncio.create_task(turns.take())
        async with listening(partial(flood, kind), tls=tls) as port:
            fetcher = Fetcher(
                Names([[LOCAL]]),
                public=lambda _: True,
                trust=trusting(files),
                network=WatchedNetwork(turns),
                port=port,
                patience=30.0,
            )
            with pytest.raises(FetchError) as caught:
                await fetcher(URL, HOST)
        other.cancel()
        return caught.value

    assert asyncio.run(scene()).fault is DocumentFault.PROTOCOL
    assert turns.most <= 1024


# --- the whole way -------------------------------------------------------------------------------


def test_a_document_becomes_a_client(files: certificates.CertificateFiles) -> None:
    """From the URL over real TLS to what the consent page shows."""
    said = {"client_id": URL, "client_name": "A", "redirect_uris": [f"https://{HOST}/cb"]}
    page = Page(json.dumps(said).encode())

    async def scene() -> OAuthClient:
        async with served(page, files) as fetcher:
            documents = Documents(fetcher, RedirectRules())
            await documents.find(URL)
            return await documents.find(URL)

    client = asyncio.run(scene())

    assert client.redirect_uris == (f"https://{HOST}/cb",)
    assert client.document_host == HOST
    assert len(page.seen) == 1
