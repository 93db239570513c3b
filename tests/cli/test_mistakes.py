"""What a person is told who asked for something that cannot be."""

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from authz.cli import main
from authz.cli.main import commands
from authz.cli.tasks import COMMANDS, Task
from authz.config.key_files import make_key
from authz.setup.certificates import write_certificates

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


def right_but_for_its_tls(tmp_path: Path, certificate: Path, key: Path) -> Path:
    door = tmp_path / "front_door.pem"
    make_key(door)
    text = TEXT.format(key=door).replace("/c", str(certificate)).replace("/k", str(key))
    path = tmp_path / "authz.yaml"
    path.write_text(text)
    return path


def test_a_certificate_that_is_not_there_is_told_before_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a warning with its line: Envoy may be elsewhere. Not where files are left unread."""
    config = right_but_for_its_tls(tmp_path, tmp_path / "tls.crt", tmp_path / "tls.key")

    assert main(["check-config", str(config)]) == 0
    err = capsys.readouterr().err
    assert (
        f"{config}:3: warning: gateway.tls.certificate: the file cannot be read here: No such"
        in err
    )
    assert main(["check-config", str(config), "--no-secrets"]) == 0
    assert capsys.readouterr().err == ""


def test_a_certificate_of_another_key_is_told_before_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two files that are here and do not fit serve nobody anywhere."""
    one, other = (
        write_certificates(tmp_path / name, ["mcp.example.com"]) for name in ("one", "other")
    )
    config = right_but_for_its_tls(tmp_path, one.certificate, other.key)

    assert main(["check-config", str(config)]) == 2
    assert "gateway.tls.certificate: it does not fit the key" in capsys.readouterr().err


def test_who_has_no_secrets_here_is_told_of_the_option(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing but files that are not here is wrong; not where something else is."""
    assert main(["check-config", str(config)]) == 2
    assert "--no-secrets" in capsys.readouterr().err
    config.write_text(config.read_text() + "colour: red\n")
    assert main(["check-config", str(config)]) == 2
    assert "--no-secrets" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chek-config"], "there is no such command; did you mean check-config?"),
        (["xyzzy"], "there is no such command; authz --help lists them"),
        (["check-config", "--no-secret5"], "no option --no-secret5; did you mean --no-secrets?"),
        (["revoke", "--user", "x", "--reson=hunter2"], "--reson; did you mean --reason?"),
        (["clients", "block", "x", "--reson", "y"], "--reson; did you mean --reason?"),
        (["schema", "hunter2"], "it takes fewer arguments than these"),
        (["clients", "--xyzzy"], "there is no option --xyzzy"),
    ],
)
def test_what_is_mistyped(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest command or option is named, with status 2; no value is repeated."""
    with pytest.raises(SystemExit) as left:
        main(words)

    assert left.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert "hunter2" not in err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_its_name(name: str) -> None:
    """What is taken for a command is one, and its example names it."""
    assert COMMANDS[name].example.split()[:2] == ["authz", name]
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])

    assert left.value.code == 0


def test_explaining_no_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty standard input is no broken JSON: what belongs there is said, with status 2."""
    for empty in (b"", b" \n"):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(empty)))
        assert main(["explain", "--line"]) == 2
        assert "there is no line on standard input" in capsys.readouterr().err


def test_alone_it_shows_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    """`authz` alone has every task with an example of each command, and ends with status 2."""
    assert main([]) == 2
    err = capsys.readouterr().err
    assert [err.index(f"\n{task.value}:\n") for task in Task] == sorted(
        err.index(f"\n{task.value}:\n") for task in Task
    )
    assert all(f"  {each.example}\n" in err for each in COMMANDS.values())


def test_the_configuration_is_given_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As an argument or with `-c`; two that differ are refused, twice the same is one."""
    assert main(["check-config", str(config), "-c", str(config), "--no-secrets"]) == 0
    with pytest.raises(SystemExit) as left:
        main(["check-config", str(config), "-c", "another.yaml"])
    assert left.value.code == 2
    assert "given twice" in capsys.readouterr().err


def test_options_of_a_list_hold_for_what_is_done_to_it(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`authz clients -c FILE --json block X` is `authz clients block X -c FILE --json`."""
    config.write_text(config.read_text() + "colour: red\n")
    both = []
    for words in (
        ["clients", "-c", str(config), "--json", "block", "x"],
        ["clients", "block", "x", "-c", str(config), "--json"],
    ):
        assert main(words) == 2
        both.append(capsys.readouterr().out)
    assert both[0] == both[1]
    assert '"field": "colour"' in both[0]


# What a service needs, which help does not.
_HEAVY = {"pydantic", "grpc", "redis", "httpx", "jinja2", "starlette", "cryptography", "ruamel"}


@pytest.mark.parametrize("words", [["--help"], ["--version"], []], ids=" ".join)
def test_help_loads_no_command(words: list[str]) -> None:
    """Help, the version and the tasks are there at once: nothing of the service is imported."""
    code = (
        "import sys\nfrom authz.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert not _HEAVY & set(ran.stderr.splitlines()[-1].split())


def complete(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("_AUTHZ_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    with pytest.raises(SystemExit):
        main([])
    return capsys.readouterr().out


def test_names_and_options_are_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell completes commands, commands of commands, and options."""
    assert complete("authz revo", monkeypatch, capsys) == "plain,revoke\nplain,revocations\n"
    assert complete("authz clients unb", monkeypatch, capsys) == "plain,unblock\n"
    assert "plain,--no-secrets" in complete("authz check-config --no", monkeypatch, capsys)


def test_the_pages_know_every_command() -> None:
    """The group lists what can be run, and nothing else."""
    assert commands.list_commands(click.Context(commands)) == list(COMMANDS)
