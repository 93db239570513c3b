"""`authz add-server`: a server is added whole, to a file that somebody keeps, or not at all."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.cli.main import main
from authz.config.key_files import make_key
from authz.config.load import load
from authz.config.problems import ConfigError
from authz.setup import add_server as module
from authz.setup.add_server import AddServerError, NewServer, add_server
from authz.setup.answers import SetupAnswers
from authz.setup.write import authelia_clients, compose_text

TEXT = """\
# mine, with a remark
issuer: {url: https://auth.example.com}   # Authelia
gateway:
  url: https://mcp.example.com
  tls: {certificate: /run/tls.crt, key: /run/tls.key}
servers:
  files:   # the first one
    upstream: http://files:8000/mcp
    tools: {read_*: {}}
"""
NEW = NewServer("github", "http://github-mcp:8000/mcp")


def written(folder: Path, text: str = TEXT) -> Path:
    path = folder / "authz.yaml"
    path.write_text(text)
    path.chmod(0o640)
    return path


def init_folder(root: Path) -> Path:
    """Make what `authz init` leaves, without its secrets; return its authz.yaml."""
    answers = SetupAnswers("example.com", servers={"files": "http://files:8000/mcp"})
    (root / "init.json").write_text(answers.to_json())
    (root / "docker-compose.yml").write_text(compose_text(answers))
    (root / "authz").mkdir()
    return written(root / "authz")


def snapshot(folder: Path) -> Mapping[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_file_is_what_it_was_and_the_server_besides(tmp_path: Path) -> None:
    """Comments, order, mode and links stay; nothing is left beside the file."""
    path = written(tmp_path)
    (tmp_path / "link.yaml").symlink_to(path)

    done = add_server(tmp_path / "link.yaml", NEW, {}, replaces=False, dry_run=False)

    assert path.read_text() == TEXT + '  github:\n    upstream: "http://github-mcp:8000/mcp"\n'
    assert done.url == "https://mcp.example.com/github"
    assert path.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "link.yaml").is_symlink()
    assert {each.name for each in tmp_path.iterdir()} == {"authz.yaml", "link.yaml"}
    assert set(load(path, {}, secrets=False).config.servers) == {"files", "github"}


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    """It says what would be."""
    path = written(tmp_path)
    done = add_server(path, NEW, {}, replaces=False, dry_run=True)
    assert path.read_text() == TEXT
    assert "github" in done.texts[path]


def test_a_server_that_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    """Then its URL alone is another one: the rules stay."""
    path = written(tmp_path)
    again = NewServer("files", "http://other:1/mcp")
    with pytest.raises(AddServerError, match="--replace"):
        add_server(path, again, {}, replaces=False, dry_run=False)
    assert path.read_text() == TEXT

    assert add_server(path, again, {}, replaces=True, dry_run=False).replaced

    assert path.read_text() == TEXT.replace("http://files:8000/mcp", '"http://other:1/mcp"')


def test_a_socket_is_not_left_to_lead_elsewhere(tmp_path: Path) -> None:
    """With a socket the new URL would change nothing but Host: that is refused."""
    path = written(tmp_path, TEXT + "    socket: /run/files.sock\n")
    before = path.read_text()
    with pytest.raises(AddServerError, match="socket"):
        add_server(path, NewServer("files", "http://x:1"), {}, replaces=True, dry_run=False)
    assert path.read_text() == before


HOSTILE = [
    ("", "http://x:1"), ("A", "http://x:1"), ("../x", "http://x:1"), ("a\nb: {}", "http://x:1"),
    ("a: {}", "http://x:1"), ("authorize", "http://x:1"), ("a" * 64, "http://x:1"),
    ("ok", ""), ("ok", "x"), ("ok", "file:///etc/passwd"), ("ok", "http://"),
    ("ok", "http://a:b@x/"), ("ok", "http://x\n  admin: {upstream: http://y}"), ("ok", "http://é"),
    ("ok", "http://x/ y"), ("ok", "http://x:99999"), ("ok", "http://x/#f"), ("ok", "http://x/\x1b[0m"),
    ("ok", "javascript:x"), ("ok", "http://" + "x" * 5000), ("ok", "http://x?y=1"),
]  # fmt: skip


@pytest.mark.attack("hostile-setup")
@pytest.mark.parametrize(("name", "url"), HOSTILE)
def test_a_hostile_name_or_url_is_refused(
    tmp_path: Path, name: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written, the status is 2, and nothing but text is printed."""
    path = written(tmp_path)
    assert main(["add-server", "--", name, url, str(path)]) == 2
    assert path.read_text() == TEXT
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.attack("hostile-setup")
@given(st.text(max_size=30), st.text(max_size=40))
def test_whatever_is_written_is_that_server_and_nothing_else(name: str, rest: str) -> None:
    """Words that would be YAML of their own never are."""
    new = NewServer(name, f"http://{rest}")
    try:
        config = module._planned(Path("authz.yaml"), new, {}, replaces=False).settings.config
    except (AddServerError, ConfigError):
        return
    assert set(config.servers) == {"files", name}
    assert config.servers[name].upstream == f"http://{rest}"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("cwd")
    written(folder)
    monkeypatch.chdir(folder)


def test_a_wrong_authz_yaml_is_told_and_kept(tmp_path: Path) -> None:
    """A server is not added to a file that the service would refuse."""
    path = written(tmp_path, TEXT.replace("https://mcp", "ftp://mcp"))
    before = path.read_text()
    assert main(["add-server", "github", NEW.upstream, str(path)]) == 2
    assert path.read_text() == before


def test_an_init_folder_gets_the_network(tmp_path: Path) -> None:
    """The files are those that `authz init` would have written with this server."""
    path = init_folder(tmp_path)

    done = add_server(path, NEW, {}, replaces=False, dry_run=False)

    servers = {"files": "http://files:8000/mcp", "github": NEW.upstream}
    expected = SetupAnswers("example.com", servers=servers)
    assert done.network == "mcp-github"
    assert (tmp_path / "docker-compose.yml").read_text() == compose_text(expected)
    assert (tmp_path / "init.json").read_text() == expected.to_json()
    assert list(done.texts)[-1] == path


def test_a_name_that_begins_another_gets_a_network_of_its_own(tmp_path: Path) -> None:
    """`mcp-git` is not there because `mcp-github` is."""
    path = init_folder(tmp_path)
    for name in ("github", "git"):
        add_server(path, NewServer(name, NEW.upstream), {}, replaces=False, dry_run=False)

    servers = {"files": "http://files:8000/mcp", "github": NEW.upstream, "git": NEW.upstream}
    expected = compose_text(SetupAnswers("example.com", servers=servers))
    assert (tmp_path / "docker-compose.yml").read_text() == expected


def test_an_address_needs_no_network(tmp_path: Path) -> None:
    """A server at an IP address is reached without one of ours."""
    path = init_folder(tmp_path)
    compose = (tmp_path / "docker-compose.yml").read_text()
    new = NewServer("github", "http://192.0.2.1:8000/mcp")
    assert add_server(path, new, {}, replaces=False, dry_run=False).network == ""
    assert (tmp_path / "docker-compose.yml").read_text() == compose


@pytest.mark.parametrize("name", ["envoy", "redis", "authelia"])
def test_a_name_of_ours_is_refused_in_an_init_folder(tmp_path: Path, name: str) -> None:
    """Its container would have the name of another one."""
    path = init_folder(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(AddServerError, match="name of ours"):
        add_server(path, NewServer(name, NEW.upstream), {}, replaces=False, dry_run=False)
    assert snapshot(tmp_path) == before


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several files none is replaced where one cannot be written; no draft is left."""
    path = init_folder(tmp_path)
    before = snapshot(tmp_path)
    calls = list[int]()

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        add_server(path, NEW, {}, replaces=False, dry_run=False)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("upstream", "elsewhere"),
    [
        ("http://192.168.1.20:8000/mcp", True),
        ("http://[fd00::1]:8000/mcp", True),
        ("http://nas.lan:8000/mcp", True),
        ("http://mail:8000/mcp", False),
        ("http://127.0.0.1:8000/mcp", False),
        ("http://[::1]:8000/mcp", False),
        ("http://mail.localhost/mcp", False),
    ],
)
def test_of_a_server_on_another_machine_the_signed_identity_is_told(
    upstream: str, elsewhere: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who reaches it there could forge the headers that name the caller."""
    path = tmp_path / "authz.yaml"
    path.write_text(TEXT)
    assert main(["add-server", "far", upstream, str(path)]) == 0
    assert ("identity: signed" in capsys.readouterr().out) is elsewhere


def test_authelia_is_told_in_an_init_folder_unless_its_file_was_edited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `authz init --render` would write is written, and that Authelia alone is started anew
    said; what somebody wrote into the file stays, and the line that renders it is told.
    """
    path = init_folder(tmp_path)
    door = tmp_path / "secrets" / "front_door"
    door.parent.mkdir()
    make_key(door)
    path.write_text(TEXT.replace("servers:", f"front_door: {{key_file: {door}}}\nservers:"))
    clients = tmp_path / "authelia" / "authz.yml"
    clients.parent.mkdir()
    clients.write_text(authelia_clients(tmp_path, load(path, {}, secrets=False)))

    assert main(["add-server", "github", NEW.upstream, str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["restart"] == ["authelia"]
    assert str(clients) in said["files"]
    assert any(each.startswith("docker compose restart authelia ") for each in said["next"])
    assert clients.read_text() == authelia_clients(tmp_path, load(path, {}, secrets=False))
    assert clients.read_text().count("https://mcp.example.com/github") == 2  # both clients of ours

    edited = f"{clients.read_text()}# mine\n"
    clients.write_text(edited)
    assert main(["add-server", "mail", "http://mail:8000/mcp", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["restart"] == []
    assert any(each.startswith("authz init --render;") for each in said["next"])
    assert clients.read_text() == edited


def test_the_command_says_what_it_did_and_what_remains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people and as JSON."""
    path = init_folder(tmp_path)
    assert main(["add-server", "github", NEW.upstream, str(path), "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["dry_run"] is True
    assert said["url"] == "https://mcp.example.com/github"
    assert len(said["files"]) == 3
    assert snapshot(tmp_path)[path] == TEXT.encode()

    assert main(["add-server", "github", NEW.upstream, str(path), "--group", "staff"]) == 0
    out = capsys.readouterr().out
    assert f"wrote  {path}" in out
    assert "docker network connect" in out
    assert "authz init --render" in out
    assert load(path, {}, secrets=False).config.servers["github"].groups == ("staff",)
    assert main(["add-server", "github", NEW.upstream, str(path)]) == 2
    assert "--replace" in capsys.readouterr().err
