"""A real Redis that speaks TLS and asks clients for a certificate; the wheel's Valkey does not."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from authz.core.ledger import Taken, UnavailableError
from authz.ledger.connections import TlsFiles
from authz.ledger.faults import RedisFault
from authz.ledger.location import SentinelAccess
from authz.ledger.redis import RedisOptions
from authz.setup import certificates
from authz.setup.certificates import SigningAuthority
from tests.ledger.queries import connected, query, take
from tests.support.ports import held_port
from tests.support.sentinels import SERVICE, sentinel
from tests.support.valkey import ValkeyServer, binaries, valkey

pytestmark = pytest.mark.skipif(
    binaries()["redis"] is None, reason="redis is NOT TESTED: no such server"
)
NAME = "redis.internal"
FILES = ("ca", "crt", "key", "client", "client-key", "ca-key", "stranger")
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Files:
    """What was made: authority, pairs of server and client, the authority's key, a stranger's."""

    authority: Path
    certificate: Path
    key: Path
    client: Path
    client_key: Path
    signing: Path
    strangers: Path

    @property
    def directives(self) -> dict[str, str]:
        """Return what the server is started with."""
        return {
            "tls-cert-file": str(self.certificate),
            "tls-key-file": str(self.key),
            "tls-ca-cert-file": str(self.authority),
        }

    @property
    def ours(self) -> TlsFiles:
        return TlsFiles(str(self.authority), str(self.client), str(self.client_key), NAME)


def a_client(authority: SigningAuthority) -> tuple[bytes, bytes]:
    """Return the certificate of a client, and its key."""
    signer = x509.load_pem_x509_certificate(authority.certificate)
    signing = load_pem_private_key(authority.key, None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authz")]))
        .issuer_name(signer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .sign(signing, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM), private


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    authority = certificates.new_authority(None)
    pair, client = certificates.issue(authority, [NAME]), a_client(authority)
    found = Files(*(folder / name for name in FILES))
    found.authority.write_bytes(authority.certificate)
    found.certificate.write_bytes(pair[0])
    found.key.write_bytes(pair[1])
    found.client.write_bytes(client[0])
    found.client_key.write_bytes(client[1])
    found.signing.write_bytes(authority.key)
    return found


@dataclass(frozen=True)
class TlsServer:
    """A server, and its port for TLS."""

    server: ValkeyServer
    port: int


@pytest.fixture(scope="module")
def there(files: Files) -> Iterator[TlsServer]:
    """Run a server that knows the user `authz` and no other."""
    port = held_port()
    with valkey("redis", start=False) as server:
        server.config |= {"tls-port": str(port), **files.directives}
        server.start()
        rights = ("~{authz}:*", "+@all", "-@dangerous", "+info")
        server.command("ACL", "SETUSER", "authz", "on", ">secret", *rights)
        server.command("ACL", "SETUSER", "default", "off", "nopass")
        yield TlsServer(server, port)


def fault(options: RedisOptions) -> str:
    """Return what a caller is told; empty where it is answered."""

    async def run() -> str:
        async with connected(options) as ledger:
            try:
                assert isinstance(await ledger.take(query(take(quota=1000))), Taken)
            except UnavailableError as error:
                return error.detail
            return ""

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        pytest.param({}, None, id="right"),
        pytest.param({"authorities": ""}, RedisFault.TLS, id="no authority"),
        pytest.param({"certificate": "", "key": ""}, RedisFault.TLS, id="no client certificate"),
        pytest.param({"server_name": ""}, RedisFault.TLS, id="the host's name"),
        pytest.param({"server_name": "redis.example.com"}, RedisFault.TLS, id="another name"),
        pytest.param({"authorities": "/nowhere"}, RedisFault.TLS_FILES, id="no file"),
        pytest.param({"authorities": __file__}, RedisFault.TLS_FILES, id="a file without one"),
        pytest.param({"key": "/nowhere"}, RedisFault.TLS_FILES, id="no file of the key"),
    ],
)
def test_certificates_of_both(
    there: TlsServer, files: Files, wrong: dict[str, str], said: RedisFault | None
) -> None:
    """With both certificates and the user's password callers are answered; without one, told."""
    tls = replace(files.ours, **wrong)
    url = f"rediss://127.0.0.1:{there.port}"
    assert fault(RedisOptions(url, "authz", "secret", timeout=20, tls=tls)) == (
        "" if said is None else said.value
    )


def test_who_logs_in_over_it(there: TlsServer, files: Files) -> None:
    """A certificate is no password: the user is asked for his all the same."""
    options = RedisOptions(f"rediss://127.0.0.1:{there.port}", timeout=20, tls=files.ours)
    assert fault(options) == RedisFault.NOT_LOGGED_IN.value
    assert fault(replace(options, username="authz", password="x")) == (
        RedisFault.NOT_LOGGED_IN.value
    )


def test_tls_where_there_is_none_and_none_where_there_is(there: TlsServer, files: Files) -> None:
    """Neither hangs, and neither is answered."""
    plain = RedisOptions(f"redis://127.0.0.1:{there.port}", "authz", "secret", timeout=20)
    assert fault(plain) in {RedisFault.CLOSED.value, "InvalidReplyError"}
    with valkey(tcp=True) as server:
        url = server.url.replace("redis://", "rediss://")
        # A plain server waits for the end of what it takes for a line.
        said = fault(RedisOptions(url, timeout=20, tls=files.ours))
        assert said in {RedisFault.TLS.value, RedisFault.LATE.value}


def test_sentinels_and_nodes_by_tls(there: TlsServer, files: Files) -> None:
    """Both by TLS; sentinels that speak none where that is said."""
    replication = "tls-replication yes\n" + "".join(
        f"{name} {value}\n" for name, value in files.directives.items()
    )
    port = held_port()
    with sentinel("redis", there.port, users=f"{replication}tls-port {port}\n") as guard:
        options = RedisOptions(
            f"rediss+sentinel://127.0.0.1:{port}/{SERVICE}",
            "authz",
            "secret",
            timeout=20,
            tls=files.ours,
        )
        assert fault(options) == ""
        assert fault(replace(options, tls=replace(files.ours, authorities=""))) == (
            RedisFault.SENTINEL_TLS.value
        )
        plain = f"rediss+sentinel://127.0.0.1:{guard.port}/{SERVICE}"
        assert fault(replace(options, url=plain)) in {
            RedisFault.SENTINEL_TLS.value,
            RedisFault.NO_SENTINEL.value,
        }
        assert fault(replace(options, url=plain, sentinel=SentinelAccess(tls=False))) == ""


@asynccontextmanager
async def a_liar(files: Files) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Name a host by an answer like a sentinel's; yield the answer's place, and what it was told.

    The host is anybody's whom the authority gave a certificate of its own name.
    """
    signer = SigningAuthority(files.authority.read_bytes(), files.signing.read_bytes())
    pair = certificates.issue(signer, ["localhost"])
    files.strangers.write_bytes(pair[0] + pair[1])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.strangers)
    told, ended = list[bytes](), asyncio.Event()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(await reader.read(1000))
        writer.close()
        await writer.wait_closed()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        port = str(host.sockets[0].getsockname()[1])
        said = ("ip", "localhost", "port", port, "config-epoch", "9")
        writer.write(b"*6\r\n" + b"".join(f"${len(e)}\r\n{e}\r\n".encode() for e in said))
        await reader.read()  # to its end
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with (
        await asyncio.start_server(hear, "localhost", ssl=context) as host,
        await asyncio.start_server(answer, "127.0.0.1") as sentinel_,
    ):
        port = sentinel_.sockets[0].getsockname()[1]
        yield f"rediss+sentinel://127.0.0.1:{port}/{SERVICE}", told
        await ended.wait()


@pytest.mark.attack("sentinel-forged")
def test_who_forges_a_sentinel_is_told_no_password(files: Files) -> None:
    """Where sentinels speak no TLS, nodes are known by one name, which no other host has."""

    async def run() -> None:
        async with a_liar(files) as (url, told):
            nodes = TlsFiles(str(files.authority), server_name=NAME)
            options = RedisOptions(
                url, "authz", "secret", timeout=20, tls=nodes, sentinel=SentinelAccess(tls=False)
            )
            async with connected(options) as ledger:
                with pytest.raises(UnavailableError):
                    await ledger.take(query(take()))
            with pytest.raises(ValueError, match="server_name"):
                replace(options, tls=TlsFiles(str(files.authority)))
            assert told == []

    asyncio.run(run())
