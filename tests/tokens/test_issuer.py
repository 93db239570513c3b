"""The issuer's documents over real HTTP, from issuers that behave and from hostile ones."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from authz.tokens.issuer import IssuerAddress, IssuerKeys
from authz.tokens.issuer_http import IssuerError, IssuerFault, issuer_client
from authz.tokens.jwk import DEFAULT_ALGORITHMS, KeySet
from tests.support.listening import listening
from tests.tokens.token_factory import ISSUER, ec_signer, rsa_signer

OAUTH = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
KEYS = "/jwks.json"
TRUST = ssl.create_default_context()  # reading all authorities takes long, so once
HTML = b"<!doctype html><title>Log in</title>"

Writer = asyncio.StreamWriter
Play = Callable[[Writer], Awaitable[None]]


@dataclass
class IssuerSite:
    """An HTTP server that answers paths with bytes, or plays a scene on the connection."""

    pages: dict[str, bytes | Play] = field(default_factory=dict)
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            path = head[0].split(" ")[1]
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            self.requests.append((path, headers))
            page = self.pages.get(path, answer(b"404 Not Found", status="404 Not Found"))
            if isinstance(page, bytes):
                writer.write(page)
                await writer.drain()
            else:
                await page(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, as it should
        finally:
            writer.close()


def answer(body: bytes, *, status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{more}\r\n"
    return head.encode() + body


def document(**members: object) -> bytes:
    return answer(json.dumps(members).encode())


def metadata(**changes: object) -> bytes:
    return document(**{"issuer": ISSUER, "jwks_uri": f"{ISSUER}{KEYS}", **changes})


def good_pages() -> dict[str, bytes | Play]:
    return {
        OAUTH: metadata(),
        KEYS: document(keys=[rsa_signer().jwk(), ec_signer().jwk()]),
    }


@asynccontextmanager
async def site(pages: Mapping[str, bytes | Play] | None = None) -> AsyncIterator[IssuerSite]:
    """Serve an issuer's documents, some of them replaced: `oauth`, `openid`, `keys`."""
    served = IssuerSite(good_pages())
    names = {"oauth": OAUTH, "openid": OPENID, "keys": KEYS}
    served.pages.update({names[name]: page for name, page in (pages or {}).items()})
    async with listening(served.serve) as port:
        served.url = f"http://127.0.0.1:{port}"
        yield served


async def fetch(url: str, *, total: float = 5.0, read: float = 5.0) -> KeySet:
    async with issuer_client(timeout=read, verify=TRUST) as client:
        source = IssuerKeys(IssuerAddress(ISSUER, url), DEFAULT_ALGORITHMS, client, total=total)
        return await source.fetch()


def result(
    pages: Mapping[str, bytes | Play], *, total: float = 5.0, read: float = 5.0
) -> list[str] | IssuerFault:
    """Fetch keys from such a site: the kids, or the fault."""

    async def play() -> list[str] | IssuerFault:
        async with site(pages) as served:
            try:
                keys = await fetch(served.url, total=total, read=read)
            except IssuerError as error:
                return error.fault
            return [key.key_id for key in keys.keys]

    return asyncio.run(play())


def test_keys_come_through_the_internal_address() -> None:
    """Metadata and keys are asked for inside, under the name that the issuer has outside."""

    async def play() -> IssuerSite:
        async with site() as served:
            await fetch(served.url)
            return served

    asked = asyncio.run(play()).requests

    assert [path for path, _ in asked] == [OAUTH, KEYS]
    for _, headers in asked:
        assert headers["x-forwarded-proto"] == "https"
        assert headers["x-forwarded-host"] == "auth.example.test"
        assert headers["accept-encoding"] == "identity"


def test_openid_discovery_is_asked_where_there_is_no_oauth_metadata() -> None:
    """An issuer with OpenID Connect's document only is as good."""
    gone = answer(b"", status="404 Not Found")

    assert result({"oauth": gone, "openid": metadata()}) == ["mcp-rs256", "mcp-es256"]
    assert result({"oauth": gone, "openid": gone}) is IssuerFault.STATUS


def test_one_broken_key_among_good_ones_is_left_out() -> None:
    """The good keys of a set with a broken one are used."""
    broken = [{"kty": "EC", "crv": "P-256", "kid": "b", "x": "!!", "y": None}, 7, {"kty": []}]

    assert result({"keys": document(keys=[*broken, rsa_signer().jwk()])}) == ["mcp-rs256"]


async def _drip(writer: Writer) -> None:
    """Send a byte now and then, so that no single read ever times out."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def _drip_headers(writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def _say_nothing(_: Writer) -> None:
    await asyncio.sleep(3600)


async def _flood(writer: Writer) -> None:
    """Send 50 MB without saying how much it will be."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(50):
        writer.write(b" " * (1 << 20))
        await writer.drain()


async def _hang_up(writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    await writer.drain()


HUGE = b'{"keys":[],"x":"' + b"x" * (1 << 20) + b'"}'
REDIRECT = answer(b"", status="302 Found", more="location: http://127.0.0.1:1/elsewhere\r\n")
ZIPPED = answer(b"\x1f\x8b", more="content-encoding: gzip\r\n")
LABELLED = answer(
    json.dumps(
        {"issuer": ISSUER, "jwks_uri": f"{ISSUER}{KEYS}", "keys": [rsa_signer().jwk()]}
    ).encode(),
    more="content-encoding: gzip\r\n",
)
HOSTILE: dict[str, tuple[IssuerFault, bytes | Play]] = {
    "redirect": (IssuerFault.STATUS, REDIRECT),
    "server-error": (IssuerFault.STATUS, answer(b"{}", status="500 Internal Server Error")),
    "no-content": (IssuerFault.STATUS, answer(b"", status="204 No Content")),
    "html-with-200": (IssuerFault.MALFORMED, answer(HTML)),
    "empty": (IssuerFault.MALFORMED, answer(b"")),
    "array": (IssuerFault.MALFORMED, answer(b"[]")),
    "duplicate-member": (IssuerFault.MALFORMED, answer(b'{"keys":[],"keys":[]}')),
    "nan": (IssuerFault.MALFORMED, answer(b'{"keys":NaN}')),
    "100000-deep": (IssuerFault.MALFORMED, answer(b'{"keys":' + b"[" * 100_000)),
    "bad-utf-8": (IssuerFault.MALFORMED, answer(b'{"keys":"\xff"}')),
    "compressed": (IssuerFault.MALFORMED, ZIPPED),
    "compressed-in-name-only": (IssuerFault.MALFORMED, LABELLED),
    "1-MB": (IssuerFault.TOO_LARGE, answer(HUGE)),
    "50-MB-unannounced": (IssuerFault.TOO_LARGE, _flood),
    "hangs-up": (IssuerFault.UNREACHABLE, _hang_up),
    "not-http": (IssuerFault.UNREACHABLE, b"\x16\x03\x01 hello\r\n\r\n"),
    "header-flood": (IssuerFault.UNREACHABLE, answer(b"{}", more=f"x: {'y' * 200_000}\r\n")),
}


@pytest.mark.parametrize("place", ["oauth", "keys"])
@pytest.mark.parametrize(("fault", "page"), HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.attack("key-set-hostile")
def test_a_hostile_document_is_a_fault(place: str, fault: IssuerFault, page: bytes | Play) -> None:
    """Redirects, HTML, giants and broken connections are faults of the issuer, and bounded."""
    assert result({place: page}) is fault


@pytest.mark.parametrize("place", ["oauth", "keys"])
@pytest.mark.parametrize("play", [_drip, _drip_headers, _say_nothing])
@pytest.mark.attack("key-set-slow")
def test_a_slow_issuer_is_given_up(place: str, play: Play) -> None:
    """The whole fetch has a bound, whatever each single read takes."""
    assert result({place: play}, total=0.3) is IssuerFault.LATE


def test_a_silent_issuer_is_given_up_at_the_read_time_out() -> None:
    """A read that takes too long is a fault of its own."""
    assert result({"keys": _say_nothing}, read=0.2) is IssuerFault.UNREACHABLE


@pytest.mark.parametrize("keys", [[], [{"kty": "oct", "k": "AAAA", "kid": "x"}], {}, None, "x"])
@pytest.mark.attack("key-set-hostile")
def test_a_set_without_a_usable_key_is_a_fault(keys: object) -> None:
    """An empty key set never replaces a good one."""
    assert result({"keys": document(keys=keys)}) is IssuerFault.NO_KEYS


@pytest.mark.parametrize(
    "issuer",
    [f"{ISSUER}/", "https://AUTH.example.test", "https://evil.example", "", None, [ISSUER], 7],
    ids=repr,
)
@pytest.mark.attack("metadata-of-another-issuer")
def test_metadata_of_another_issuer_is_not_believed(issuer: object) -> None:
    """RFC 8414, section 3.3: the issuer member is the configured issuer, as a string."""
    assert result({"oauth": metadata(issuer=issuer)}) is IssuerFault.WRONG_ISSUER


@pytest.mark.parametrize(
    "jwks_uri",
    [
        "file:///etc/passwd",
        "http://auth.example.test/jwks.json",
        "http://127.0.0.1:1/jwks.json",
        "http://169.254.169.254/latest/meta-data",
        "ftp://auth.example.test/jwks.json",
        "https://user:secret@auth.example.test/jwks.json",
        "//auth.example.test/jwks.json",
        "/jwks.json",
        "jwks.json",
        "https://",
        "https://[::1",
        "https://127.0.0.1:99999/",
        "https://a\x00b/",
        "",
        None,
        7,
        ["https://auth.example.test/jwks.json"],
    ],
    ids=repr,
)
@pytest.mark.attack("key-set-elsewhere")
def test_keys_are_not_fetched_from_just_anywhere(jwks_uri: object) -> None:
    """Keys come from the issuer's own origin, or over https; nothing else is even asked."""
    assert result({"oauth": metadata(jwks_uri=jwks_uri)}) is IssuerFault.FOREIGN_ADDRESS


def test_the_path_and_query_of_the_jwks_uri_are_kept() -> None:
    """Inside, the same path is asked for, on the internal address and nowhere else."""
    address = IssuerAddress("https://auth.example.test:8443/realms/a", "http://authelia:9091")

    target = address.endpoint("jwks_uri", "https://auth.example.test:8443/realms/a/keys%2Fx?v=1")

    assert str(target.url) == "http://authelia:9091/realms/a/keys%2Fx?v=1"
    assert target.headers == {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "auth.example.test:8443",
    }


def test_foreign_https_keys_are_asked_for_directly_and_without_our_headers() -> None:
    """An issuer may keep its keys at another https address: it is asked under its own name."""
    address = IssuerAddress(ISSUER, "http://authelia:9091")

    target = address.endpoint("jwks_uri", "https://keys.example.test/a")

    assert str(target.url) == "https://keys.example.test/a"
    assert target.headers == {}


@pytest.mark.parametrize(
    ("issuer", "first", "second"),
    [
        ("https://a.test", f"https://a.test{OAUTH}", f"https://a.test{OPENID}"),
        ("https://a.test/", f"https://a.test{OAUTH}", f"https://a.test{OPENID}"),
        ("https://a.test/x/y", f"https://a.test{OAUTH}/x/y", f"https://a.test/x/y{OPENID}"),
        ("https://a.test/x/", f"https://a.test{OAUTH}/x", f"https://a.test/x{OPENID}"),
    ],
)
def test_metadata_addresses(issuer: str, first: str, second: str) -> None:
    """RFC 8414 puts its path between host and issuer path, OpenID behind it."""
    oauth, openid = IssuerAddress(issuer).metadata()

    assert (str(oauth.url), str(openid.url)) == (first, second)
    assert oauth.headers == openid.headers == {}


@pytest.mark.parametrize(
    ("issuer", "internal"),
    [
        ("http://auth.example.test", None),
        ("auth.example.test", None),
        ("file:///etc", None),
        ("https://a@auth.example.test", None),
        ("https://auth.example.test/?x=1", None),
        ("https://auth.example.test/?", None),
        ("https://auth.example.test/#x", None),
        ("", None),
        (ISSUER, "authelia:9091"),
        (ISSUER, "http://authelia:9091/base"),
        (ISSUER, "http://authelia:9091/?x=1"),
        (ISSUER, "http://a:b@authelia:9091"),
        (ISSUER, "unix:///run/authelia.sock"),
        (ISSUER, ""),
    ],
)
@pytest.mark.attack("issuer-plain-http")
def test_an_issuer_is_https_or_has_an_internal_address(issuer: str, internal: str | None) -> None:
    """Plain http is only taken inside, where it is configured on purpose."""
    with pytest.raises(ValueError, match=r"URL|https|internal"):
        IssuerAddress(issuer, internal)


def test_nobody_at_the_internal_address_is_a_fault() -> None:
    """A refused connection is a fault, not an exception of the HTTP library."""

    async def play() -> IssuerFault | None:
        async with site() as served:
            url = served.url
        try:
            await fetch(url)
        except IssuerError as error:
            return error.fault
        return None

    assert asyncio.run(play()) is IssuerFault.UNREACHABLE


def test_cookies_of_whoever_stands_before_the_issuer_are_not_kept() -> None:
    """Nothing that an answer sets is sent with the next request."""
    jar = "set-cookie: a=b; Path=/\r\n"
    page = answer(json.dumps({"issuer": ISSUER, "jwks_uri": f"{ISSUER}{KEYS}"}).encode(), more=jar)

    async def play() -> IssuerSite:
        async with site({"oauth": page}) as served:
            await fetch(served.url)
            return served

    assert all("cookie" not in headers for _, headers in asyncio.run(play()).requests)


def test_the_client_follows_no_redirect_and_no_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client of the issuer goes where it is sent and nowhere else."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    async def play() -> httpx.Response:
        async with site({"keys": REDIRECT}) as served, issuer_client(timeout=5) as client:
            return await client.get(f"{served.url}{KEYS}")

    assert asyncio.run(play()).status_code == 302
