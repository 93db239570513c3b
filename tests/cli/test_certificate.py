"""`authz certificate` without an Envoy: what it shows, takes and refuses; a private authority."""

import asyncio
import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from authz.cli import main
from authz.setup.authority import AUTHORITY_LIFETIME
from authz.setup.certificates import CertificateFiles
from tests.setup.kit import copy_written
from tests.setup.test_certificates import handshake
from tests.support.certificates import made

pytestmark = pytest.mark.slow

HOSTS = ("mcp.home.example.com", "auth.home.example.com")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of `authz init`, whose port nobody listens at."""
    copy_written(tmp_path / "deploy")
    answers = tmp_path / "deploy/init.json"
    told = json.loads(answers.read_text()) | {"port": 1, "bind": "127.0.0.1"}
    answers.write_text(json.dumps(told))
    return tmp_path / "deploy"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["certificate", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out, told.err


def shown(capsys: pytest.CaptureFixture[str], folder: Path) -> dict[str, Any]:
    status, out, _ = run(capsys, folder, "--json")
    return {"status": status, **json.loads(out)}


def is_trusted(folder: Path, trusted: Path) -> bool:
    """Shake hands with what the folder serves, as a client that trusts one file."""
    tls = folder / "secrets/tls"
    files = CertificateFiles(trusted, tls / "tls.crt", tls / "tls.key")
    try:
        return all(asyncio.run(handshake(files, trusted, host)) for host in HOSTS)
    except ssl.SSLCertVerificationError:
        return False


def test_what_is_there_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names, who signed it, until when, of the authority too; and that nobody was asked."""
    status, out, _ = run(capsys, folder)

    assert status == 0
    assert ", ".join(HOSTS) in out
    assert "(396 days)" in out
    assert f"({AUTHORITY_LIFETIME.days - 1} days)" in out
    assert "not known: nobody answers at 127.0.0.1:1" in out


def test_a_renewal_is_trusted_by_who_trusted_the_one_before(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another certificate and key under the same authority: a real handshake, before and after."""
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes((folder / "ca.crt").read_bytes())
    before, key = shown(capsys, folder), (folder / "secrets/tls/tls.key").read_bytes()
    assert is_trusted(folder, trusted)

    status, _, _ = run(capsys, folder, "--renew")
    after = shown(capsys, folder)

    assert status == after["status"] == 0
    assert after["serial"] != before["serial"]
    assert (folder / "secrets/tls/tls.key").read_bytes() != key
    assert (folder / "ca.crt").read_bytes() == trusted.read_bytes()
    assert is_trusted(folder, trusted)


def test_the_authority_itself_is_replaced_without_a_gap(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clients trust both, then the certificate changes: at no step is a client without one."""
    old, both = tmp_path / "old.crt", folder / "ca.crt"
    old.write_bytes(both.read_bytes())

    assert run(capsys, folder, "--new-authority")[0] == 0
    assert (is_trusted(folder, old), is_trusted(folder, both)) == (True, True)
    assert len(x509.load_pem_x509_certificates(both.read_bytes())) == 2
    assert run(capsys, folder, "--renew")[0] == 0
    assert (is_trusted(folder, old), is_trusted(folder, both)) == (False, True)


def test_a_broken_answer_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whose the new authority is to be stands there; nothing is made without it."""
    before = (folder / "ca.crt").read_bytes()
    (folder / "init.json").write_text("{")

    status, _, err = run(capsys, folder, "--new-authority")

    assert status == 1
    assert "init.json is not what" in err
    assert (folder / "ca.crt").read_bytes() == before


def test_a_folder_without_an_authority_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As earlier releases made it; the certificate stays, and a new authority is the way."""
    (folder / "secrets/ca.key").unlink()
    before = shown(capsys, folder)["serial"]

    status, _, err = run(capsys, folder, "--renew")

    assert (status, shown(capsys, folder)["serial"]) == (1, before)
    assert "--new-authority" in err
    assert run(capsys, folder, "--new-authority")[0] == 0
    assert run(capsys, folder, "--renew")[0] == 0


def test_an_authority_is_for_its_domain_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gateway that moved to another domain needs another authority: clients would refuse it."""
    path = folder / "authz/authz.yaml"
    path.write_text(path.read_text().replace("mcp.home.example.com", "mcp.example.net"))

    status, _, err = run(capsys, folder, "--renew")

    assert status == 1
    assert "cannot vouch for mcp.example.net" in err


def test_what_clients_would_refuse_is_not_installed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another's key, another's name, one that has ended: the old one stays, and each says why."""
    good, other = made(*HOSTS), made("mcp.example.net")
    begin = datetime.now(UTC) - timedelta(days=9)
    ended = made(*HOSTS, lives=(begin, begin + timedelta(days=8)))
    before = shown(capsys, folder)["serial"]
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    for pair, why in (
        ((good.pem, other.key_pem), "does not fit the key"),
        ((good.pem, good.encrypted_key), "needs a password"),
        ((other.pem, other.key_pem), '"mcp.home.example.com"'),
        ((ended.pem, ended.key_pem), "ended 24 hours ago"),
        ((good.key_pem, good.pem), "holds no certificate"),
    ):
        chain.write_bytes(pair[0])
        key.write_bytes(pair[1])
        status, _, err = run(capsys, folder, "--install", chain, key)
        assert status == 1
        assert why in err
    assert shown(capsys, folder)["serial"] == before

    chain.write_bytes(good.pem)
    key.write_bytes(good.key_pem)
    assert run(capsys, folder, "--install", chain, key)[0] == 0
    assert shown(capsys, folder)["serial"] == f"{good.certificate.serial_number:x}"


def test_a_missing_file_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what the system says of it."""
    status, _, err = run(capsys, folder, "--install", tmp_path / "a", tmp_path / "b")

    assert status == 1
    assert f"{tmp_path / 'a'}: No such file or directory" in err
