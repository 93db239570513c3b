"""What a person is told who asked for something that cannot be."""

from pathlib import Path

import pytest

from authz.cli import main

TEXT = """\
issuer: {{url: https://auth.example.com}}
front_door: {{key_file: {key}}}
gateway: {{url: https://mcp.example.com, tls: {{certificate: /c, key: /k}}}}
servers: {{files: {{upstream: 'http://files:8000/mcp'}}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "authz.yaml"
    path.write_text(TEXT.format(key=tmp_path / "nowhere" / "key.pem"))
    return path


def test_a_key_that_is_not_there_yet(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who has no key is told what makes one."""
    assert main(["check-config", str(config)]) == 2
    assert "authz authelia-config --make-key" in capsys.readouterr().err


def test_secrets_that_are_elsewhere(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file whose secrets lie in a container is checked without them, when that is asked for."""
    assert main(["check-config", str(config), "--no-secrets"]) == 0
    assert "is right" in capsys.readouterr().out


def test_a_key_in_a_folder_that_is_not_there(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No folder is made for a key; the field and what mends it are named."""
    assert main(["authelia-config", str(config), "--make-key"]) == 1

    err = capsys.readouterr().err
    assert "front_door.key_file cannot be made" in err
    assert "Errno" not in err


def test_a_fragment_is_not_written(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--fragment` with a folder to write to is refused, not printed as if none were given."""
    folder = tmp_path / "envoy"

    assert main(["envoy-config", str(config), "--fragment", "-o", str(folder)]) == 2
    assert "--fragment" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.attack("never-printed")
def test_a_token_in_place_of_its_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who gives a token where its file's name belongs does not find it on the screen."""
    wrong = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"

    assert main(["explain", str(config), "--token-file", wrong]) == 2
    captured = capsys.readouterr()
    assert wrong not in captured.out + captured.err
