"""Every command that reads authz.yaml takes its path in both ways, and means the same by both."""

import shlex
from pathlib import Path

import pytest

from authz.cli import main
from authz.cli.tasks import COMMANDS

# What each needs besides; what does not read authz.yaml has no line.
NEEDED = {
    "check-config": "",
    "authelia-config": "",
    "envoy-config": "",
    "up": "",
    "serve": "",
    "pages": "",
    "client-config": "claude",
    "login": "",
    "add-server": "notes http://notes:8000/mcp",
    "identity-keys": "",
    "tools": "files",
    "status": "",
    "certificate": "",
    "revoke": "--user ada",
    "revocations": "",
    "revocations lift": "0123abcd",
    "clients": "",
    "clients block": "https://evil.example",
    "clients unblock": "desk",
    "audit": "",
    "limits": "",
    "limits reset": "0123abcd",
    "notify": "",
    "notify phone": "--test",
    "doctor": "",
    "explain": "--token-file {folder}/token --method GET",
    "connections": "--log {folder}/log --person ada",
}
APART = {"schema", "init", "demo"}  # `init` writes a folder, and names it


def status_of(*words: str) -> int:
    """Return the exit status; of what is asked wrongly, too."""
    try:
        return main(words)
    except SystemExit as ended:
        return int(str(ended.code))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An authz.yaml with a mistake, which whoever reads it tells."""
    (tmp_path / "log").write_text('{"event": "decision", "verdict": "deny"}\n')
    (tmp_path / "token").write_text("x")
    path = tmp_path / "authz.yaml"
    path.write_text("issuer: {url: http://auth.example.test}\n")
    return path


def test_the_table_has_every_command() -> None:
    assert {each.partition(" ")[0] for each in NEEDED} | APART == set(COMMANDS)


@pytest.mark.parametrize(("command", "needed"), NEEDED.items(), ids=NEEDED)
def test_a_path_is_taken_as_an_argument_and_with_c(
    file: Path, capsys: pytest.CaptureFixture[str], command: str, needed: str
) -> None:
    """The file or its folder; as the last argument, or before or after others with -c."""
    words = [*command.split(), *shlex.split(needed.format(folder=file.parent))]
    first, rest = len(command.split()), words[len(command.split()) :]
    forms = [
        [*words, str(file)],
        [*words, str(file.parent)],
        [*words, "-c", str(file)],
        [*words, f"--config={file}"],
        [*words[:first], "-c", str(file.parent), *rest],
    ]
    told = []
    for form in forms:
        status = status_of(*form)
        told.append((status, *capsys.readouterr()))

    assert told == [told[0]] * len(forms)
    status, out, err = told[0]
    assert status != 0
    assert f"{file}:1: issuer.url: " in out + err


@pytest.mark.parametrize(("command", "needed"), NEEDED.items(), ids=NEEDED)
def test_two_paths_are_one_too_many(
    file: Path, capsys: pytest.CaptureFixture[str], command: str, needed: str
) -> None:
    """Nothing is done, and no path is repeated."""
    words = [*command.split(), *shlex.split(needed.format(folder=file.parent))]
    assert status_of(*words, "/other/authz.yaml", "-c", str(file)) == 2
    assert "the configuration is given twice" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["clients", "revocations", "limits"])
def test_before_a_command_of_a_command_a_path_is_for_that_too(
    file: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """`authz clients FILE block X` is `authz clients block X FILE`."""
    words = {"clients": ["block", "x"], "revocations": ["lift", "x"], "limits": ["reset", "x"]}[
        command
    ]
    assert main([command, str(file), *words]) == 2
    assert f"{file}:1: issuer.url: " in capsys.readouterr().err


@pytest.mark.attack("token-as-argument")
@pytest.mark.parametrize("command", ["revoke", "audit", "clients", "revocations"])
def test_what_is_no_path_is_not_taken_for_one(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """A token that was pasted is refused, and not repeated."""
    for token in ("eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "authelia_at_Zm9v.YmFy", "x" * 5000, "a\0b"):
        assert status_of(command, token) == 2
        said = capsys.readouterr()
        assert token not in said.out + said.err


def test_an_id_is_no_path(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `connections` and `lift` a word is a path where it looks like one, or leads to a file."""
    log = ["--log", str(file.parent / "log")]
    monkeypatch.chdir(file.parent)
    assert main(["connections", "0123abcd", *log]) == 1  # no such story
    assert "issuer.url" not in capsys.readouterr().err
    assert main(["connections", "0123abcd", "authz.yaml", *log, "--person", "ada"]) == 2
    assert "authz.yaml:1: issuer.url" in capsys.readouterr().err
    assert main(["revocations", "lift", "0123", "4567", "authz.yaml"]) == 2
    assert "authz.yaml:1: issuer.url" in capsys.readouterr().err
