"""`authz authelia-config` as it is typed."""

import json
import stat
from pathlib import Path

import pytest

from authz.cli import main
from authz.config.key_files import make_key, public_half
from tests.authelia.conftest import SMALLEST

TEXT = """\
issuer:
  url: https://auth.example.com
  introspection: {{client_id: asks, key_file: {key}}}
gateway: {{url: https://mcp.example.com, tls: {{certificate: /c, key: /k}}}}
servers: {{files: {{upstream: 'http://files:8000/mcp'}}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "authz.yaml"
    path.write_text(TEXT.format(key=tmp_path / "key.pem"))
    return path


def test_makes_a_key_and_prints_its_public_half_only(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The private key is readable by its owner alone, and no word of it is printed."""
    assert main(["authelia-config", str(config), "--make-key", "--json"]) == 0

    key = config.with_name("key.pem")
    out = capsys.readouterr().out
    client = json.loads(out)["identity_providers"]["oidc"]["clients"][-1]
    private = "".join(key.read_text().splitlines()[1:-1])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert client["jwks"][0]["key"].startswith("-----BEGIN PUBLIC KEY-----")
    assert "PRIVATE" not in out
    assert private not in out.replace("\\n", "")


def test_a_key_that_is_there_stays(config: Path) -> None:
    """Asked for twice, a key is made once."""
    key = config.with_name("key.pem")
    make_key(key)
    before = key.read_bytes()

    assert main(["authelia-config", str(config), "--make-key"]) == 0

    assert key.read_bytes() == before


def test_without_the_key_says_how(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine that has no secrets can print all the same."""
    assert main(["authelia-config", str(config)]) == 0

    assert "openssl pkey" in capsys.readouterr().out


def test_a_key_is_made_only_where_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--make-key without a key_file is an error that says so."""
    path = tmp_path / "authz.yaml"
    path.write_text(SMALLEST + "servers: {files: {upstream: 'http://files:8000/mcp'}}\n")

    assert main(["authelia-config", str(path), "--make-key"]) == 1

    assert "key_file" in capsys.readouterr().err


def test_what_is_no_key_has_no_half(tmp_path: Path) -> None:
    """A file with something else in it is not quoted and not used."""
    path = tmp_path / "key.pem"
    path.write_bytes(b"\xff not a key")

    assert public_half(path) is None


def test_a_broken_file_is_asked_wrongly(tmp_path: Path) -> None:
    """authz.yaml with an error ends with 2, as everywhere."""
    path = tmp_path / "authz.yaml"
    path.write_text("servers: {}\n")

    assert main(["authelia-config", str(path)]) == 2
