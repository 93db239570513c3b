"""`authz doctor` as it is typed."""

import io
import json
import socket
from pathlib import Path
from subprocess import run

import pytest

from authz.cli import main
from authz.doctor import files
from tests.doctor.kit import diagnoses, settings
from tests.setup.kit import copy_written
from tests.tokens.token_factory import rsa_signer

# Doctor asks git.
pytestmark = pytest.mark.process
TEXT = """\
issuer: {url: https://auth.example.test, internal: 'http://127.0.0.1:1'}
gateway: {url: https://mcp.example.test}
servers: {files: {upstream: 'http://files:8000/mcp'}}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "authz.yaml"
    path.write_text(TEXT)
    path.chmod(0o644)
    return str(path)


def test_problems_are_status_1(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An issuer that is not there is a problem, its line is named, and the rest is looked at."""
    assert main(["doctor", config]) == 1

    out = capsys.readouterr().out
    assert "problem  issuer" in out
    assert "mend: correct issuer.internal" in out
    assert "1 problem(s)" in out


def test_json(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts read findings as a list of objects."""
    assert main(["doctor", config, "--json"]) == 1

    found = json.loads(capsys.readouterr().out)
    assert {"part", "diagnosis", "severity", "words", "mend"} == found[0].keys()
    assert "unreachable" in {each["diagnosis"] for each in found}


@pytest.mark.attack("never-printed")
def test_tokens_come_by_file_input_and_environment(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each way of giving a token is looked at, and none of them prints it."""
    text = rsa_signer().token()
    file = Path(config).with_name("token")
    file.write_text(text)
    monkeypatch.setenv("AUTHZ_TOKEN", text)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    assert main(["doctor", config, "--token-file", str(file), "--token-file", "-"]) == 1

    out = capsys.readouterr().out
    assert out.count("it cannot be verified without keys") == 3
    assert not any(part in out for part in text.split("."))


@pytest.mark.parametrize("content", [b"\xff", b"a" * 70_000])
def test_what_is_no_token_is_asked_wrongly(
    config: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be a token is not looked at."""
    file = Path(config).with_name("token")
    file.write_bytes(content)

    assert main(["doctor", config, "--token-file", str(file)]) == 2
    assert main(["doctor", config, "--token-file", "eyJ-pasted-here"]) == 2
    err = capsys.readouterr().err
    assert "token-file" in err
    assert "eyJ" not in err


def test_a_broken_file_is_asked_wrongly(tmp_path: Path) -> None:
    """authz.yaml with an error ends with 2: there is nothing to look at yet."""
    path = tmp_path / "authz.yaml"
    path.write_text("servers: {}\n")

    assert main(["doctor", str(path)]) == 2


def test_a_token_is_no_argument(config: str) -> None:
    """There is no option that takes a token itself."""
    with pytest.raises(SystemExit, match="2"):
        main(["doctor", config, "--token", "x"])


def test_files_that_others_may_write(tmp_path: Path) -> None:
    """authz.yaml, and the folders of sockets, belong to whoever may change the rules."""
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o777)
    path = tmp_path / "authz.yaml"
    path.write_text("")
    path.chmod(0o666)
    server = f"  files: {{upstream: 'http://localhost/mcp', socket: {folder}/mcp.sock}}\n"
    check = f"service: {{check: 'unix:{folder}/check.sock'}}\n"
    known = settings(servers=server, rest=check)
    with socket.socket(socket.AF_UNIX) as admin:
        admin.bind(str(tmp_path / "a"))
        (tmp_path / "a").chmod(0o777)
        found = list(files.examine(known, path, tmp_path / "a"))

    assert [each for each in diagnoses(found) if each != "configuration"] == [
        "writable",
        "writable",
        "writable",
        "open_admin",
        "read",
    ]
    assert any("servers.files.socket" in each.message for each in found)


def test_what_cannot_be_seen_is_said() -> None:
    """Where an assurance rests on Authelia's own configuration, its two lines are named."""
    known = settings(clients="{claude: {assurance: two_factor}}")
    found = list(files.examine(known, Path("authz.yaml"), Path("/nowhere/admin")))

    (said,) = (each for each in found if each.diagnosis == "sessions")
    assert "session.redis" in said.fix
    assert "authorization_policy" in said.fix


def test_the_host_of_containers_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its secrets have their paths in containers: git is asked, and the rest has its command."""
    copy_written(tmp_path)
    run(["git", "init", "--quiet"], cwd=tmp_path, check=True)

    assert main(["doctor", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "git has no secret in the clear" in out
    assert "docker compose run --rm doctor" in out

    run(["git", "add", "-f", "secrets"], cwd=tmp_path, check=True)
    assert main(["doctor", str(tmp_path / "authz.yaml"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [each["diagnosis"] for each in found if each["severity"] == "problem"] == ["tracked"]
