"""Every command on the host of a folder of `authz init`: it works, or says the line that does."""

import shlex
from pathlib import Path

import pytest

from authz.cli import main
from authz.cli.tasks import COMMANDS

EXEC = "docker compose exec authz authz"
PIPED = "docker compose exec -T authz authz"
DOCTOR = "docker compose run --rm doctor"
DOCTOR_PIPED = "docker compose run --rm -T doctor"
WHERE = "-c /etc/authz/authz.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "deploy"
    words = ["--domain", "demo.localhost", "--port", "8443", "--bind", "127.0.0.1", "--yes"]
    assert main(["init", str(folder), *words]) == 0
    (folder / "token").write_text("not.a.token")
    (folder / "lines").write_text("")
    return folder


@pytest.fixture
def folder(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def test_a_server_that_cannot_be_added_is_told_why(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container would refuse it, too: its line would hide the cause."""
    assert main(["add-server", "token", "http://x:8000/mcp"]) == 2
    err = capsys.readouterr().err
    assert "docker compose" not in err
    assert "token" in err


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("clients", f"{EXEC} clients {WHERE}"),
        ("clients block x --by anna", f"{EXEC} clients block x --by anna {WHERE}"),
        ("clients -c authz/authz.yaml unblock x", f"{EXEC} clients unblock x {WHERE}"),
        ("revoke --user x --reason 'a b'", f"{EXEC} revoke --user x --reason 'a b' {WHERE}"),
        ("revoke --token-file token", f"{PIPED} revoke --token-file - {WHERE} < token"),
        ("revoke --token-file=token", f"{PIPED} revoke --token-file - {WHERE} < token"),
        ("revocations", f"{EXEC} revocations {WHERE}"),
        ("revocations lift token:1", f"{EXEC} revocations lift token:1 {WHERE}"),
        ("audit --person ada", f"{EXEC} audit --person ada {WHERE}"),
        ("audit --verify --log lines", f"{PIPED} audit --verify --log /dev/stdin {WHERE} < lines"),
        ("limits --person ada", f"{EXEC} limits --person ada {WHERE}"),
        ("limits reset x", f"{EXEC} limits reset x {WHERE}"),
        ("notify --test", f"{EXEC} notify --test {WHERE}"),
        ("explain authz.yaml --server files --token-file token",
         f"{PIPED} explain --server files --token-file - {WHERE} < token"),
        ("tools files", f"{DOCTOR} tools files {WHERE}"),
        ("tools files . --json", f"{DOCTOR} tools files --json {WHERE}"),
        ("tools files --pin", f"{DOCTOR_PIPED} tools files --pin -o - {WHERE} > files.pins.json"),
        ("tools files --pin -o a.json", f"{DOCTOR_PIPED} tools files --pin -o - {WHERE} > a.json"),
        ("check-config", f"docker compose run --rm authz check-config {WHERE}"),
        ("serve", "docker compose up -d"),
        ("pages", "docker compose up -d"),
        ("up", "docker compose up -d"),
    ],
)  # fmt: skip
def test_what_needs_a_container_says_its_line(
    folder: Path, typed: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exact line, with files of the host on standard input and output."""
    assert main(shlex.split(typed)) != 0
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == f"  {line}", folder
    if not typed.startswith("check-config"):
        assert "cannot be read" not in err  # to make these files here would be no remedy


@pytest.mark.parametrize(
    ("typed", "status"),
    [
        ("check-config --no-secrets", 0),
        ("authelia-config", 0),
        ("client-config claude", 0),
        ("envoy-config -o /dev/null/x", 1),
        # It asks git.
        pytest.param("doctor --no-documents", None, marks=pytest.mark.process),
        ("add-server fresh http://fresh:8000/mcp --dry-run", 0),
        ("schema", 0),
    ],
)
def test_what_works_here_says_none(
    folder: Path, typed: str, status: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """No line where the host can do it, or where a container could not either."""
    assert main(shlex.split(typed)) in ({0, 1} if status is None else {status})
    assert "docker compose exec authz authz" not in capsys.readouterr().err, folder


@pytest.mark.process
def test_doctor_says_the_line_of_its_own_service(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There alone everything is reached; a folder of an earlier release has no such service."""
    words = ["doctor", "--no-gateway", "--no-documents"]
    main(words)
    assert "docker compose run --rm doctor" in capsys.readouterr().out, folder
    monkeypatch.setattr("authz.doctor.run.has_doctor", lambda _: False)
    monkeypatch.setattr("authz.cli.compose_line.has_doctor", lambda _: False)
    main(words)
    assert "docker compose exec authz-pages authz doctor" in capsys.readouterr().out
    assert main(["tools", "files"]) != 0
    assert f"{EXEC} tools files {WHERE}" in capsys.readouterr().err


def test_every_command_was_tried_here() -> None:
    """A command that is added has to be told where it runs."""
    asking = "clients revoke revocations audit explain tools limits notify"
    tried = f"{asking} check-config serve pages up authelia-config client-config envoy-config"
    tried += " doctor schema status connections certificate add-server"
    elsewhere = {"init", "demo", "login", "identity-keys"}  # of the host by what they are
    assert set(tried.split()) | elsewhere >= COMMANDS.keys()


def test_from_another_folder(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line works where it was typed."""
    monkeypatch.chdir(made.parent)
    assert main(["audit", "-c", "deploy"]) == 2
    wanted = f"docker compose -f deploy/docker-compose.yml exec authz authz audit {WHERE}"
    assert capsys.readouterr().err.splitlines()[-1].strip() == wanted


def test_a_mistake_of_the_file_is_told_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a container could not do it either, and where the folder is one's own."""
    (tmp_path / "authz.yaml").write_text("servers: {}\n")
    assert main(["audit", "-c", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "docker" not in err
    assert "issuer" in err


def test_with_json_problems_stay_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program reads what it always read."""
    assert main(["audit", "--json"]) == 2
    assert capsys.readouterr().out.startswith("["), folder
