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


def test_each_missing_file_is_told_what_makes_it(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The key that signs who calls and a password's file are not made by `authelia-config`."""
    key, password = tmp_path / "identity.pem", tmp_path / "password"
    text = config.read_text().replace("key: /k}}", f"key: /k}}, identity_key_file: {key}}}")
    config.write_text(f"{text}redis: {{url: redis://redis:6379/0, password_file: {password}}}\n")

    assert main(["check-config", str(config)]) == 2
    lines = capsys.readouterr().err.splitlines()
    (of_key,) = [line for line in lines if "gateway.identity_key_file" in line]
    (of_password,) = [line for line in lines if "redis.password_file" in line]
    assert "authz identity-keys --make-key" in of_key
    assert "--make-key" not in of_password


def test_an_identity_key_that_is_not_named(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who asks for the key set of a file that names no key is told what to write."""
    assert main(["identity-keys", str(config)]) == 1
    assert "write gateway.identity_key_file: " in capsys.readouterr().err


def test_a_client_that_is_not_needed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who names an unknown client where there is a front door hears that none is needed."""
    config.write_text(
        config.read_text() + "clients: {desk: {redirect_uris: ['http://127.0.0.1/callback']}}\n"
    )

    assert main(["login", str(config), "--client", "desc"]) == 2
    err = capsys.readouterr().err
    assert "--client is one of: desk; leave --client out" in err
