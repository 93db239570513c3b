"""What `authz doctor --outside` says of a gateway that is reached as a stranger reaches it.

The server is a real one, with TLS of an authority that is trusted here and an intermediate one.
"""

import asyncio
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from authz.cli import main
from authz.doctor import outside
from authz.doctor.finding import Finding
from authz.doctor.outside_http import OutsideClient, OutsideError, OutsideFault, read_url
from tests.doctor.kit import diagnoses, problems

HOST = "mcp.example.test"
URL = f"https://{HOST}/files"
ISSUER = f"https://{HOST}"
NOW = datetime.now(UTC)
DOCUMENT = "/.well-known/oauth-protected-resource/files"
METADATA = "/.well-known/oauth-authorization-server"
GOOD: dict[tuple[str, str], tuple[int, dict[str, str], object]] = {
    ("POST", "/files"): (
        401,
        {"WWW-Authenticate": f'Bearer resource_metadata="{ISSUER}{DOCUMENT}", scope="x"'},
        {},
    ),
    ("GET", DOCUMENT): (
        200,
        {"Access-Control-Allow-Origin": "*"},
        {"resource": URL, "authorization_servers": [ISSUER]},
    ),
    ("GET", METADATA): (
        200,
        {"Access-Control-Allow-Origin": "*"},
        {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "registration_endpoint": f"{ISSUER}/register",
            "code_challenge_methods_supported": ["S256"],
        },
    ),
    ("OPTIONS", "/token"): (204, {"Access-Control-Allow-Origin": "*"}, {}),
}
ALL_GOOD = ["tls", "challenge", "document", "resource", "document", "token_endpoint"]


class Authority:
    """A root, an intermediate authority, and leaves of both."""

    def __init__(self) -> None:
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._sign("root", self.root_key, None, None, authority=True)
        self.middle_key = ec.generate_private_key(ec.SECP256R1())
        self.middle = self._sign(
            "middle", self.middle_key, self.root, self.root_key, authority=True
        )

    def chain(
        self,
        folder: Path,
        *,
        whole: bool = True,
        host: str = HOST,
        days: float = 60,
        says_issuer: bool = True,
        own: bool = False,
    ) -> ssl.SSLContext:
        """Return a server's TLS, with or without the intermediate certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = (None, None) if own else (self.middle, self.middle_key)
        leaf = self._sign(host, key, *issuer, days=days, says_issuer=says_issuer)
        pem = serialization.Encoding.PEM
        sent = leaf.public_bytes(pem) + (self.middle.public_bytes(pem) if whole else b"")
        (folder / "chain.pem").write_bytes(sent)
        (folder / "key.pem").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
        return context

    @property
    def trust(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        pem = self.root.public_bytes(serialization.Encoding.PEM).decode()
        context.load_verify_locations(cadata=pem)
        return context

    @staticmethod
    def _sign(
        name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: x509.Certificate | None,
        issuer_key: ec.EllipticCurvePrivateKey | None,
        *,
        authority: bool = False,
        days: float = 60,
        says_issuer: bool = False,
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = issuer_key or key
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=90))
            .not_valid_after(NOW + timedelta(days=days))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, content_commitment=False, key_encipherment=False,
                    data_encipherment=False, key_agreement=False, key_cert_sign=authority,
                    crl_sign=authority, encipher_only=False, decipher_only=False,
                ),
                critical=True,
            )
        )  # fmt: skip
        if not authority:
            built = built.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
            ).add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
            )
        if says_issuer:
            place = x509.UniformResourceIdentifier("http://ca.example.test/middle.der")
            access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, place)
            built = built.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        return built.sign(signer, hashes.SHA256())


@dataclass
class Site:
    """A server that answers as a table says.

    Attributes:
        answers: status, headers and body, by method and path.
        asked: what was asked.
    """

    answers: dict[tuple[str, str], tuple[int, dict[str, str], object]]
    port: int = 0
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


Start = Callable[..., Site]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start sites, and end them."""
    servers = list[http.server.ThreadingHTTPServer]()

    def begin(tls: ssl.SSLContext, answers: Any = GOOD) -> Site:
        site = Site(dict(answers))

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 5

            def answer(self) -> None:
                site.asked.append((self.command, self.path, dict(self.headers)))
                status, headers, body = site.answers.get((self.command, self.path), (404, {}, {}))
                text = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(text)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_OPTIONS = answer  # noqa: N815 - the base class's names

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Say nothing of clients that do not trust."""

        server = Server(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        site.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return site

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def resolving(*addresses: str) -> Callable[[str], Any]:
    async def resolve(_: str) -> Sequence[str]:
        return addresses

    return resolve


def look(site: Site, authority: Authority, url: str = URL, **more: Any) -> list[Finding]:
    """Look at a site, which is at the port of HTTPS for whoever resolves its name."""
    settings: dict[str, Any] = {
        "resolve": resolving("127.0.0.1"),
        "private": True,
        "trust": authority.trust,
    }
    client = OutsideClient(**(settings | {"port": site.port, "patience": 5.0} | more))
    found = asyncio.run(outside.examine(url, client))
    assert found[-1].diagnosis == "where" or len(found) == 1
    return [each for each in found if each.diagnosis not in ("no_ipv6", "where", "http", "no_http")]


def test_a_good_gateway_is_good(authority: Authority, start: Start, tmp_path: Path) -> None:
    """Everything that an assistant needs before a person logs in, and no token is sent."""
    site = start(authority.chain(tmp_path))

    assert diagnoses(look(site, authority)) == ALL_GOOD
    assert not any("Authorization" in headers for *_, headers in site.asked)


@pytest.mark.parametrize(
    ("chain", "diagnosis"),
    [
        ({"whole": False}, "intermediate_missing"),
        ({"whole": False, "says_issuer": False}, "certificate_untrusted"),
        ({"own": True}, "certificate_untrusted"),
        ({"host": "other.example.test"}, "certificate_name"),
        ({"days": -1}, "certificate_expired"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_named(
    chain: dict[str, Any], diagnosis: str, authority: Authority, start: Start, tmp_path: Path
) -> None:
    """An assistant that does not trust it gets no further, so neither does this."""
    site = start(authority.chain(tmp_path, **chain))

    assert problems(look(site, authority)) == [diagnosis]
    assert site.asked == []


def test_a_certificate_that_ends_soon_is_a_warning(
    authority: Authority, start: Start, tmp_path: Path
) -> None:
    """Two weeks before, while nothing is wrong yet."""
    found = look(start(authority.chain(tmp_path, days=5)), authority)

    assert problems(found) == []
    assert "certificate_ends" in diagnoses(found)


def changed(
    key: tuple[str, str], status: int, headers: dict[str, str] | None = None, **members: object
) -> Any:
    old_status, old_headers, body = GOOD[key]
    assert isinstance(body, dict)
    del old_status
    return GOOD | {key: (status, old_headers if headers is None else headers, body | members)}


CHALLENGE, READ, ISSUED = ("POST", "/files"), ("GET", DOCUMENT), ("GET", METADATA)


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        (changed(CHALLENGE, 200), ["open"]),
        (changed(CHALLENGE, 404), ["not_found"]),
        (changed(CHALLENGE, 302, {"Location": "https://elsewhere.test/"}), ["challenge_redirect"]),
        (changed(CHALLENGE, 503), ["challenge"]),
        (changed(CHALLENGE, 401, {}), ["challenge"]),
        (changed(CHALLENGE, 401, {"WWW-Authenticate": "Basic realm=x"}), ["challenge"]),
        (changed(READ, 301, {"Location": "/x"}), ["document"]),
        (changed(READ, 200, resource=f"{ISSUER}/notes"), ["resource"]),
        (changed(READ, 200, resource=7), ["resource"]),
        (changed(READ, 200, authorization_servers=[]), ["no_issuer"]),
        (changed(READ, 200, authorization_servers=["javascript:x"]), ["issuer"]),
        (GOOD | {READ: (200, {}, b"<html>")}, ["document"]),
        (GOOD | {READ: (200, {}, b"x" * 70_000)}, ["document"]),
        (GOOD | {READ: (200, {"Access-Control-Allow-Origin": "*"}, b"[]")}, ["document"]),
        (changed(READ, 200, {}), ["document_cors"]),
        (changed(ISSUED, 200, issuer=f"{ISSUER}/"), ["issuer"]),
        (changed(ISSUED, 200, code_challenge_methods_supported=["plain"]), ["pkce"]),
        (changed(ISSUED, 200, token_endpoint="http://x.test/token"), ["endpoint"]),
        (changed(ISSUED, 200, registration_endpoint=None), ["registration"]),
        (GOOD | {("OPTIONS", "/token"): (403, {}, {})}, ["token_cors"]),
    ],
)  # fmt: skip
def test_what_stops_an_assistant_is_named(
    answers: Any, found: list[str], authority: Authority, start: Start, tmp_path: Path
) -> None:
    """Each of them alone: the first that is wrong is what the person has to know."""
    findings = look(start(authority.chain(tmp_path), answers), authority)
    wrong = [each for each in findings if each.severity.value in ("problem", "warning")]

    assert [each.diagnosis for each in wrong][: len(found)] == found
    assert all(each.fix for each in wrong)


PRIVATE = ("10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1")


@pytest.mark.attack("led-inside")
@pytest.mark.parametrize("address", PRIVATE)
def test_it_is_led_into_no_private_network(
    address: str, authority: Authority, start: Start, tmp_path: Path
) -> None:
    """Neither by the name itself, nor by one public address beside it; unless it was asked to."""
    site = start(authority.chain(tmp_path))
    for addresses in ((address,), ("93.184.215.14", address)):
        found = look(site, authority, resolve=resolving(*addresses), private=False)
        assert diagnoses(found) == ["private_address"]
    assert site.asked == []


@pytest.mark.attack("led-inside")
def test_a_document_leads_to_no_private_network(
    authority: Authority, start: Start, tmp_path: Path
) -> None:
    """What the gateway names is resolved and checked as the gateway itself was."""
    inside = changed(CHALLENGE, 401, {
        "WWW-Authenticate": 'Bearer resource_metadata="https://inside.example.test/x"'
    })  # fmt: skip
    site = start(authority.chain(tmp_path), inside)
    asked = list[str]()

    class Careful(OutsideClient):
        async def addresses(self, host: str) -> Sequence[str]:
            asked.append(host)
            if host == HOST:
                return ["127.0.0.1"]
            return await OutsideClient(resolving("10.0.0.1")).addresses(host)

    client = Careful(trust=authority.trust, port=site.port)
    found = asyncio.run(outside.examine(URL, client))

    assert "document" in problems(found)
    assert "inside.example.test" in asked
    assert [path for _, path, _ in site.asked if path != "/files"] == []


def test_ipv6_that_does_not_answer_is_a_problem(
    authority: Authority, start: Start, tmp_path: Path
) -> None:
    """A name with an address of IPv6 that nobody listens at stops who takes that one."""
    site = start(authority.chain(tmp_path))
    found = look(site, authority, resolve=resolving("127.0.0.1", "::1"))

    assert problems(found) == ["ipv6_unreachable"]


@pytest.mark.parametrize(
    "text",
    ["", "files", "ftp://x.test/", "https://", "https://u:p@x.test/", "https://x.test:0/",
     "https://x.test:99999/", "https://[::1/", "https://x.test/\nx", "https://x\\y.test/"],
)  # fmt: skip
def test_what_is_no_url_is_refused(text: str) -> None:
    """Nothing is asked of what cannot be taken apart."""
    with pytest.raises(OutsideError) as found:
        read_url(text)
    assert found.value.fault is OutsideFault.BAD_URL


def test_the_command_needs_no_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """It runs on any machine; a loopback URL is refused unless it is asked for."""
    assert main(["doctor", "--outside", "https://127.0.0.1:9/files", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [each["diagnosis"] for each in told] == ["port", "private_address"]

    assert main(["doctor", "--outside", "https://127.0.0.1:9/files", "--private"]) == 1
    assert "nobody answers there" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["doctor", "--private"])
