"""Certificates that are renewed under the real Envoy: what it serves, and that no request fails."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from authz.cli import main
from tests.support.certificates import MadeCertificate, made
from tests.support.edge import certificate
from tests.support.gateway import GATEWAY, GOOD, PORTAL, Gateway, tls
from tests.support.wild_client import read

REFUSED = "sds.certificate.key_rotation_failed"
REQUEST = (
    f"POST /files HTTP/1.1\r\nHost: {GATEWAY}\r\n{GOOD[0]}: {GOOD[1]}\r\n"
    "Content-Length: 2\r\n\r\n{}"
).encode()
CONFIG = """\
issuer: {{url: https://{portal}, internal: 'http://authelia:9091', serve: true}}
gateway:
  url: https://{host}
  listen: 127.0.0.1:{port}
  tls: {{certificate: {folder}/tls.crt, key: {folder}/tls.key}}
servers: {{files: {{upstream: 'http://files:8000/mcp'}}}}
"""


def new(*names: str) -> MadeCertificate:
    return made(*names or (GATEWAY, PORTAL))


def serial(gateway: Gateway) -> int:
    with gateway.send.connect() as sock:
        assert isinstance(sock, ssl.SSLSocket)
        found = x509.load_der_x509_certificate(sock.getpeercert(binary_form=True) or b"")
    return found.serial_number


def is_served(gateway: Gateway, wanted: int) -> bool:
    """Tell whether new connections come to see a certificate, within many of them."""
    return any(serial(gateway) == wanted for _ in range(500))


@contextmanager
def traffic(gateway: Gateway) -> Iterator[list[int]]:
    """Yield the statuses of requests sent meanwhile, on one connection and on new ones."""
    statuses, begun, done = list[int](), threading.Event(), threading.Event()

    def ask() -> None:
        with replace(gateway.send, tls=tls("http/1.1")).connect() as kept:
            while not done.is_set():
                statuses.append(read(kept, REQUEST, "POST").status)
                statuses.append(gateway.send("POST", "/files", GOOD, body=b"{}").status)
                begun.set()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert begun.wait(30)
        yield statuses
    finally:
        done.set()
        thread.join()


@pytest.fixture
def config(gateway: Gateway, tmp_path: Path) -> Path:
    """An authz.yaml of the running gateway."""
    path = tmp_path / "authz.yaml"
    folder = gateway.folder / "tls"
    port = gateway.send.port
    path.write_text(CONFIG.format(portal=PORTAL, host=GATEWAY, port=port, folder=folder))
    return path


def acme_client(folder: Path, pair: MadeCertificate, *, links: bool) -> tuple[Path, Path]:
    """Replace the files of a client: links removed and made anew (certbot), or written over."""
    paths = folder / "fullchain.pem", folder / "privkey.pem"
    for path, content in zip(paths, (pair.pem, pair.key_pem), strict=True):
        if links:
            archive = folder / f"{path.stem}{pair.certificate.serial_number}.pem"
            archive.write_bytes(content)
            path.unlink(missing_ok=True)
            path.symlink_to(archive)
        else:
            path.write_bytes(content)
    return paths


@pytest.mark.parametrize("swap", [True, False], ids=["swap", "rename"])
def test_files_that_are_renamed_into_place_are_served(gateway: Gateway, *, swap: bool) -> None:
    """By mv, or by the link that Kubernetes swaps; no request fails meanwhile."""
    number = x509.random_serial_number()
    with traffic(gateway) as statuses:
        certificate(gateway.folder / "tls", number, GATEWAY, PORTAL, swap=swap)
        assert is_served(gateway, number)

    assert set(statuses) == {200}


def test_the_hook_of_a_client_is_served_at_once(
    gateway: Gateway, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of certbot's way and of acme.sh's: the next connection sees it, and nothing is mixed."""
    refused = gateway.envoy.stat(REFUSED)
    with traffic(gateway) as statuses:
        for links in (True, False, True):
            pair = new()
            files = acme_client(tmp_path, pair, links=links)
            assert main(["certificate", str(config), "--install", *map(str, files)]) == 0
            assert serial(gateway) == pair.certificate.serial_number
            assert "served   yes" in capsys.readouterr().out

    assert set(statuses) == {200}
    assert gateway.envoy.stat(REFUSED) == refused


def test_what_envoy_does_not_notice_is_told(
    gateway: Gateway, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of files written over Envoy keeps the old pair; the command says so, or has them read."""
    first, second = new(), new()
    files = acme_client(tmp_path, first, links=False)
    main(["certificate", str(config), "--install", *map(str, files)])
    tls_folder = gateway.folder / "tls"
    (tls_folder / "tls.key").write_bytes(second.key_pem)
    (tls_folder / "tls.crt").write_bytes(second.pem)

    assert main(["certificate", str(config)]) == 1
    assert "served   NO" in capsys.readouterr().out
    assert serial(gateway) == first.certificate.serial_number

    paths = [str(tls_folder / name) for name in ("tls.crt", "tls.key")]
    assert main(["certificate", str(config), "--install", *paths]) == 0
    assert serial(gateway) == second.certificate.serial_number


@pytest.mark.attack("certificate-mismatch")
def test_a_pair_that_does_not_fit_is_never_taken(
    gateway: Gateway, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command refuses it; of one put there by hand Envoy keeps the old and counts it."""
    old, good = new(), new()
    files = acme_client(tmp_path, old, links=False)
    main(["certificate", str(config), "--install", *map(str, files)])
    for chain, key in (
        (good.pem, old.key_pem),
        (new("other.example.com").pem, good.key_pem),
        (b"", good.key_pem),
    ):
        files[0].write_bytes(chain)
        files[1].write_bytes(key)
        assert main(["certificate", str(config), "--install", *map(str, files)]) == 1
        assert "is not taken, the old one stays" in capsys.readouterr().err
    refused = gateway.envoy.stat(REFUSED)
    folder = gateway.folder / "tls"

    (folder / "new").write_bytes(good.pem)
    with traffic(gateway) as statuses:
        (folder / "new").rename(folder / "tls.crt")
        gateway.envoy.wait_for(REFUSED, refused + 1)
        assert serial(gateway) == old.certificate.serial_number
        assert main(["certificate", str(config)]) == 1
        assert "does not fit the key" in capsys.readouterr().out
        (folder / "new").write_bytes(good.key_pem)
        (folder / "new").rename(folder / "tls.key")
        assert is_served(gateway, good.certificate.serial_number)

    assert set(statuses) == {200}


def test_envoy_says_when_its_certificate_ends(
    gateway: Gateway, config: Path, tmp_path: Path
) -> None:
    """By its statistics, which the alert reads: of what is served, not of a file."""
    pair = new()
    files = acme_client(tmp_path, pair, links=False)
    main(["certificate", str(config), "--install", *map(str, files)])

    lines = gateway.envoy.ask("/stats/prometheus?filter=expiration_unix_time").splitlines()
    (value,) = [line for line in lines if line.startswith(EXPIRY)]

    assert int(value.split()[-1]) == pair.certificate.not_valid_after_utc.timestamp()


EXPIRY = "envoy_listener_ssl_certificate_expiration_unix_time_seconds"
