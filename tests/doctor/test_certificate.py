"""The doctor's word about the certificate."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from authz.config.load import Settings, load
from authz.doctor import certificate
from authz.doctor.finding import Severity
from authz.setup.authority import AUTHORITY_LIFETIME
from tests.doctor.kit import diagnoses, the
from tests.setup.kit import copy_written
from tests.support.certificates import MadeCertificate, made

HOST = "mcp.example.test"
NOW = datetime.now(UTC)


def settings(folder: Path) -> Settings:
    path = folder / "authz.yaml"
    path.write_text(
        "issuer: {url: https://auth.example.test}\n"
        f"gateway: {{url: https://{HOST}, listen: '127.0.0.1:1',"
        f" tls: {{certificate: {folder}/tls.crt, key: {folder}/tls.key}}}}\n"
        "servers: {files: {upstream: 'http://files:8000/mcp'}}\n"
    )
    return load(path, {}, secrets=False)


def put(folder: Path, chain: bytes, key: bytes) -> None:
    (folder / "tls.crt").write_bytes(chain)
    (folder / "tls.key").write_bytes(key)


GOOD, OTHER = made(HOST), made("other.test")
AUTHORITY = made(is_authority=True)
PUBLIC = made(HOST, by=AUTHORITY, issuers_file=True)
ENDED = made(HOST, lives=(NOW - timedelta(days=9), NOW - timedelta(days=1)))
ENDING = made(HOST, lives=(NOW - timedelta(days=80), NOW + timedelta(days=9)))


@pytest.mark.parametrize(
    ("pair", "diagnosis", "severity"),
    [
        (GOOD, "fits", Severity.OK),
        (OTHER, "name_missing", Severity.PROBLEM),
        (ENDED, "expired", Severity.PROBLEM),
        (ENDING, "expires_soon", Severity.WARNING),
        (PUBLIC, "chain_incomplete", Severity.WARNING),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, pair: MadeCertificate, diagnosis: str, severity: Severity
) -> None:
    """What clients refuse is a problem; what they may get over, or comes, is a warning."""
    put(tmp_path, pair.pem, pair.key_pem)

    (found,) = certificate.examine(settings(tmp_path), tmp_path / "authz.yaml")

    assert (found.diagnosis, found.severity) == (diagnosis, severity)


@pytest.mark.attack("certificate-mismatch")
def test_a_key_of_another_certificate_is_a_problem(tmp_path: Path) -> None:
    """As an interrupted renewal leaves it."""
    put(tmp_path, GOOD.pem, OTHER.key_pem)

    found = the(certificate.examine(settings(tmp_path), tmp_path / "authz.yaml"), "key_mismatch")

    assert found.severity is Severity.PROBLEM


def test_files_that_are_elsewhere_are_not_judged(tmp_path: Path) -> None:
    """Where Envoy runs on another machine, or as another user."""
    found = certificate.examine(settings(tmp_path), tmp_path / "authz.yaml")

    assert diagnoses(found) == ["unread"]


@pytest.mark.slow
def test_a_folder_of_init_is_looked_at_from_the_host(tmp_path: Path) -> None:
    """Its files are under another path in the container; its authority is told in time."""
    copy_written(tmp_path)
    found = load(tmp_path / "authz/authz.yaml", {}, secrets=False)
    path = tmp_path / "authz/authz.yaml"
    soon = NOW.timestamp() + (AUTHORITY_LIFETIME - timedelta(days=30)).total_seconds()

    assert diagnoses(certificate.examine(found, path)) == ["fits"]
    late = certificate.examine(found, path, lambda: soon)
    assert "authority_ends" in diagnoses(late, Severity.WARNING)
