"""Files of private authorities: certificates and nothing else come out of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from authz.config.load import load, read
from authz.config.problems import ConfigError, WrongValueError
from authz.config.upstream_authorities import parse_authorities
from tests.support.certificates import MadeCertificate, made

CONFIG = """\
issuer: {{url: https://auth.example.test}}
gateway: {{url: https://mcp.example.test}}
servers: {{files: {{upstream: 'https://files:8443/mcp', upstream_ca: {file}}}}}
"""
FIELD = "servers.files.upstream_ca"


def authority(begins: float = -1, ends: float = 400, *, subject: str = "ours") -> MadeCertificate:
    """Make one that begins and ends in so many days from now."""
    now = datetime.now(UTC)
    lives = now + timedelta(days=begins), now + timedelta(days=ends)
    return made(is_authority=True, lives=lives, subject=subject)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An authz.yaml whose server names `ca.crt` beside it."""
    path = tmp_path / "authz.yaml"
    path.write_text(CONFIG.format(file=tmp_path / "ca.crt"))
    return path


def wrong(file: Path) -> str:
    """Return what is wrong with the one file."""
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    (problem,) = (each for each in caught.value.problems if each.field == FIELD)
    return problem.wrong


def test_what_a_file_holds_is_known_by_its_server(file: Path) -> None:
    """As certificates alone, the one that ends first in front, whatever stands around them."""
    first, last = authority(ends=20), authority(ends=300)
    text = b"# ours\n" + last.pem + b"and\n" + first.pem + b"-----BEGIN X-----\n"
    (file.parent / "ca.crt").write_bytes(text)

    settings = load(file, {})
    assert settings.authorities == {"files": (first.pem + last.pem).decode()}
    assert not [each for each in settings.warnings if each.field == FIELD]
    assert settings.authorities == load(file, {}, secrets=False, authorities=True).authorities
    assert load(file, {}, secrets=False).authorities == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds no certificate"),
        (authority().pem * 17, "more than 16 certificates"),
        (authority().pem + b"#" * 65536, "longer than 64 KiB"),
        (authority().pem + authority().key_pem, "holds a private key"),
        (authority().encrypted_key + authority().pem, "holds a private key"),
    ],
)
def test_what_is_no_list_of_authorities(file: Path, content: bytes, words: str) -> None:
    """Nothing is taken of a file in which something is wrong."""
    (file.parent / "ca.crt").write_bytes(content)
    assert words in wrong(file)


@pytest.mark.attack("upstream-authority")
def test_a_file_that_is_not_there_is_an_error(file: Path) -> None:
    """The system's authorities never take its place; a folder is no file."""
    assert "cannot be read: No such file" in wrong(file)
    (file.parent / "ca.crt").mkdir()
    assert "no regular file" in wrong(file)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (authority(ends=-0.1), "ended 2 hours ago"),
        (authority(ends=5.1), "ends in 5 days"),
        (authority(begins=5.1), "begins in 5 days only"),
        (made("files"), "a server's own certificate"),
    ],
)
def test_what_a_person_should_look_at(file: Path, made: MadeCertificate, words: str) -> None:
    """It is taken all the same: other servers go on."""
    (file.parent / "ca.crt").write_bytes(authority().pem + made.pem)
    settings = load(file, {})
    (warning,) = [each for each in settings.warnings if each.field == FIELD]

    assert words in warning.wrong
    assert settings.authorities["files"].count("BEGIN CERTIFICATE") == 2


def test_another_authority_is_another_configuration(file: Path) -> None:
    """A reload takes it, and its digest is another one; nothing else changes the digest."""
    first, second = authority(), authority()
    (file.parent / "ca.crt").write_bytes(first.pem)
    before = load(file, {})
    (file.parent / "ca.crt").write_bytes(b"# the same\n" + first.pem)
    assert load(file, {}).is_same(before)
    (file.parent / "ca.crt").write_bytes(second.pem)
    after = load(file, {})

    assert not after.is_same(before)
    assert after.digest != before.digest
    assert after.digest.file == before.digest.file


@given(st.binary(max_size=400), st.integers(0, 400))
def test_whatever_a_file_holds(junk: bytes, cut: int) -> None:
    """Certificates come out, or WrongValueError."""
    pem = _PEM[: len(_PEM) - max(cut - 200, 0)]
    try:
        found = parse_authorities(junk + b"\n" + pem)
    except WrongValueError:
        return
    assert all(isinstance(each, x509.Certificate) for each in found)


_PEM = authority().pem


def test_configurations_without_one_have_the_digest_of_before(tmp_path: Path) -> None:
    """What runs is compared with what is written across an upgrade."""
    text = CONFIG.format(file="x").replace(", upstream_ca: x", "")
    assert read(text, "authz.yaml", {}).digest.named == "189a153163c0"


def test_a_folder_of_init_has_the_file_beside_authz_yaml(tmp_path: Path) -> None:
    """Where containers have it in /etc/authz; elsewhere that path is what it says."""
    path = tmp_path / "authz/authz.yaml"
    path.parent.mkdir()
    path.write_text(CONFIG.format(file="/etc/authz/internal-ca.crt"))
    path.with_name("internal-ca.crt").write_bytes(_PEM)
    assert "cannot be read" in wrong(path)
    (tmp_path / "init.json").write_text("{}")
    assert load(path, {}).authorities == {"files": _PEM.decode()}
