"""The authority made on the spot: what it signs is trusted for its names, its files are safe."""

import asyncio
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from starlette.types import Receive, Scope, Send

from authz.setup.certificates import CertificateFiles, write_certificates
from authz_demo.serving import ServingCertificate, serve

NAMES = ("mcp.example.test", "auth.example.test", "127.0.0.1", "::1")


async def no_content(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def handshake(server: CertificateFiles, trusted: Path, name: str) -> str | None:
    """The TLS version agreed on with a client that trusts one authority and asks for a name."""
    context = ssl.create_default_context(cafile=trusted)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    async with serve(no_content, tls=ServingCertificate(server.certificate, server.key)) as port:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=name
        )
        try:
            return str(writer.get_extra_info("ssl_object").version())
        finally:
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize("name", NAMES)
def test_a_server_is_trusted_for_its_names(tmp_path: Path, name: str) -> None:
    """Whoever trusts the authority trusts the server, by name and by address, strictly checked."""
    paths = write_certificates(tmp_path, NAMES)

    assert asyncio.run(handshake(paths, paths.authority, name)) == "TLSv1.3"


def test_a_server_is_trusted_for_no_other_name(tmp_path: Path) -> None:
    """A name that was not asked for is not in the certificate."""
    paths = write_certificates(tmp_path, NAMES)

    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        asyncio.run(handshake(paths, paths.authority, "evil.example"))


def test_a_server_of_another_authority_is_not_trusted(tmp_path: Path) -> None:
    """Two authorities made on the spot have nothing in common."""
    one, two = (
        write_certificates(tmp_path / "one", NAMES),
        write_certificates(tmp_path / "two", NAMES),
    )

    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(handshake(one, two.authority, NAMES[0]))


def test_both_certificates_are_good_for_seven_days(tmp_path: Path) -> None:
    """Nothing made here is of use for longer than a week."""
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    paths = write_certificates(tmp_path, NAMES, now)

    for path in (paths.authority, paths.certificate):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        assert certificate.not_valid_before_utc <= now
        assert certificate.not_valid_after_utc == now + timedelta(days=7)


def test_the_authority_can_sign_servers_only(tmp_path: Path) -> None:
    """The server's certificate cannot sign, and the authority's no further authority."""
    paths = write_certificates(tmp_path, NAMES)
    authority, server = (
        x509.load_pem_x509_certificate(path.read_bytes()).extensions
        for path in (paths.authority, paths.certificate)
    )

    assert server.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert authority.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_keys_are_for_their_owner_and_the_authoritys_is_nowhere(tmp_path: Path) -> None:
    """The one key that is written has mode 600; three files are all there is; no draft is left."""
    paths = write_certificates(tmp_path / "tls", NAMES)

    assert stat.S_IMODE(paths.key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    assert {path.name for path in (tmp_path / "tls").iterdir()} == {"ca.crt", "tls.crt", "tls.key"}


def test_making_them_again_replaces_them(tmp_path: Path) -> None:
    """A second call leaves a pair that fits together, with the modes of the first."""
    write_certificates(tmp_path, NAMES)
    old = (tmp_path / "tls.key").read_bytes()

    paths = write_certificates(tmp_path, NAMES)

    assert paths.key.read_bytes() != old
    assert stat.S_IMODE(paths.key.stat().st_mode) == 0o600
    assert asyncio.run(handshake(paths, paths.authority, NAMES[0])) == "TLSv1.3"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """Where the file cannot be put in its place, its draft is taken away."""
    (tmp_path / "tls.key").mkdir()

    with pytest.raises(OSError, match="directory"):
        write_certificates(tmp_path, NAMES)

    assert {path.name for path in tmp_path.iterdir()} == {"ca.crt", "tls.key"}


def test_a_server_needs_a_name(tmp_path: Path) -> None:
    """Without a name there is nothing to certify."""
    with pytest.raises(ValueError, match="name"):
        write_certificates(tmp_path, ())
