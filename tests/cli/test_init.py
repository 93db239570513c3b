"""`authz init` as scripts and people use it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from authz.cli import main
from tests.setup.kit import snapshot

pytestmark = pytest.mark.slow


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["init", *arguments])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_flags_are_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked; a password comes from standard input; JSON says what was done."""
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))
    flags = ("--domain", "home.example.com", "--user", "john", "--password-file", "-", "--json")
    status, out, err = run(capsys, str(tmp_path / "deploy"), *flags)
    told: dict[str, Any] = json.loads(out)

    assert (status, err) == (0, "")
    assert told["gateway"] == "https://mcp.home.example.com"
    assert told["servers"]["notes"] == "https://mcp.home.example.com/notes"
    assert told["password_file"] is None
    assert told["files"]["docker-compose.yml"] == "written"
    assert "correct horse" not in out


def test_the_second_run_needs_no_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the first was told is known, and nothing changes."""
    run(capsys, str(tmp_path), "--domain", "home.example.com", "--port", "8443", "--yes")
    before = snapshot(tmp_path)

    status, out, _ = run(capsys, str(tmp_path), "--yes")

    assert status == 0
    assert "Nothing was missing" in out
    assert snapshot(tmp_path) == before


def test_a_person_is_told_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the password is, how TOTP is enrolled, what to paste; and no secret."""
    status, out, _ = run(capsys, str(tmp_path), "--domain", "home.example.com", "--yes")

    assert status == 0
    assert "authelia storage user totp generate admin" in out
    assert "authz client-config" in out
    assert (tmp_path / "secrets/first_password").read_text() not in out


def test_a_person_is_asked_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a domain, a name, and a password that is not shown."""
    answers = iter(["home.example.com", "mary"])
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    monkeypatch.setattr("getpass.getpass", lambda _: "correct horse")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    status, out, _ = run(capsys, str(tmp_path))

    assert status == 0
    assert "correct horse" not in out
    assert "  mary:\n" in (tmp_path / "users/users.yml").read_text()


def test_a_person_who_mistypes_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that cannot be used is said at once, and its question comes again."""
    answers = iter(["bad domain", "home.example.com", "Mary Sue", "mary"])
    questions: list[str] = []

    def answer(question: str) -> str:
        questions.append(question)
        return next(answers)

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("getpass.getpass", lambda _: "correct horse")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    status, _, _ = run(capsys, str(tmp_path))

    assert status == 0
    assert questions[1].startswith("domain: write lower-case labels")
    assert questions[3].startswith("user: write a-z")
    assert "  mary:\n" in (tmp_path / "users/users.yml").read_text()


@pytest.mark.parametrize("gone", [EOFError, KeyboardInterrupt])
def test_a_person_who_leaves_has_nothing_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    gone: type[BaseException],
) -> None:
    """Ctrl-C and Ctrl-D at a question end the command in words, with status 1."""

    def leave(_: str) -> str:
        raise gone

    monkeypatch.setattr("builtins.input", leave)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    status, _, err = run(capsys, str(tmp_path / "deploy"))

    assert (status, err) == (1, "\nauthz: stopped\n")
    assert not (tmp_path / "deploy").exists()


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--domain", "a b"),
        ("--domain", "a.b", "--server", "../x=http://x"),
        ("--domain", "a.b", "--server", "x"),
        ("--domain", "a.b", "--owner", "0:0"),
        ("--domain", "a.b", "--owner", "root"),
        ("--domain", "a.b", "--port", "99999"),
        ("--issuer", "http://auth.example.com"),
        ("--domain", "a.b", "--password-file", "/dev/null"),
    ],
)
@pytest.mark.attack("authz init")
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    """Status 2, one line, and an empty folder."""
    status, out, err = run(capsys, str(tmp_path / "deploy"), "--yes", *flags)

    assert (status, out) == (2, "")
    assert err.startswith("authz: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "deploy").exists()


def test_an_authelia_that_is_there_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No second one is made, and its file stays as it is."""
    theirs = tmp_path / "configuration.yml"
    theirs.write_text("session: {cookies: [{authelia_url: 'https://login.example.com'}]}")
    flags = ("--authelia", str(theirs), "--internal", "http://sso:9091", "--yes")
    status, out, _ = run(capsys, str(tmp_path / "deploy"), *flags)

    assert status == 0
    text = (tmp_path / "deploy/authz/authz.yaml").read_text()
    assert "url: https://login.example.com\n  internal: http://sso:9091" in text
    assert "https://mcp.example.com" in text
    assert not (tmp_path / "deploy/users").exists()
    assert (tmp_path / "deploy/authelia/authz.yml").exists()
    assert "authelia/authz.yml" in out
