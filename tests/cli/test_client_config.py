"""`authz client-config`: each client's own format, the right servers, and what is lacking said."""

import json
import re
import shlex
from pathlib import Path

import pytest

from authz.cli import main
from authz.config.load import read
from authz.setup.clients import FORMATS

DIRECT = """\
issuer: {url: https://auth.example.com, login: direct}
gateway: {url: https://mcp.example.com, tls: {certificate: /c, key: /k}}
clients:
  desktop: {redirect_uris: [http://127.0.0.1/callback], scopes: [mcp:notes, mcp:write]}
  backup: {machine: true, scopes: [mcp:files]}
servers:
  notes: {upstream: http://n, scopes: [mcp:notes], tools: {'*': {}, write: {scopes: [mcp:write]}}}
  files: {upstream: http://f, scopes: [mcp:files], machines: [backup]}
"""


@pytest.fixture
def direct(tmp_path: Path) -> Path:
    path = tmp_path / "authz.yaml"
    path.write_text(DIRECT)
    return path


def paste(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    assert main(["client-config", *map(str, arguments)]) == 0
    told = capsys.readouterr()
    return told.out, told.err


def test_claude_is_a_line_for_a_terminal(direct: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the id that it has at the issuer, and the servers that it may use alone."""
    out, err = paste(capsys, "claude", direct)

    assert [shlex.split(line) for line in out.splitlines()] == [
        [
            *("claude", "mcp", "add", "--transport", "http", "--client-id", "desktop"),
            *("--callback-port", "43117", "notes", "https://mcp.example.com/notes"),
        ]
    ]
    assert "http://localhost:43117/callback" in err


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_a_private_authority_is_named(
    kind: str, direct: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder of `authz init` with an authority of its own each client is told its file, on
    standard error, so that what is pasted stays what it was.
    """
    plain, err = paste(capsys, kind, direct)
    assert "private authority" not in err
    (direct.parent / "init.json").write_text("{}")
    (direct.parent / "ca.crt").write_text("a certificate")
    out, err = paste(capsys, kind, direct)
    assert out == plain
    assert str(direct.parent / "ca.crt") in err
    node = "NODE_EXTRA_CA_CERTS=" in err
    assert node == (kind != "vscode")


def test_vscode(direct: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """mcp.json with `servers`."""
    out, _ = paste(capsys, "vscode", direct)

    server = {"type": "http", "url": "https://mcp.example.com/notes"}
    assert json.loads(out) == {"servers": {"notes": {**server, "oauth": {"clientId": "desktop"}}}}


def test_cursor(direct: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """mcp.json with `mcpServers`, and every scope of the server and its tools."""
    out, _ = paste(capsys, "cursor", direct)

    assert json.loads(out)["mcpServers"]["notes"]["auth"] == {
        "CLIENT_ID": "desktop",
        "scopes": ["mcp:notes", "mcp:write", "offline_access"],
    }


def test_inspector(direct: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A catalog, in whichever era the server speaks."""
    out, _ = paste(capsys, "inspector", direct)

    entry = json.loads(out)["mcpServers"]["notes"]
    assert (entry["type"], entry["protocolEra"]) == ("http", "auto")
    assert entry["oauth"]["clientId"] == "desktop"


@pytest.mark.parametrize("kind", FORMATS)
def test_with_the_front_door_a_client_is_told_the_url_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """No id, no scope, nothing to register: for every server."""
    path = tmp_path / "authz.yaml"
    text = DIRECT.replace(", login: direct}", "}\nfront_door: {key_file: /run/secrets/front_door}")
    path.write_text(text)
    out, err = paste(capsys, kind, path)

    for name in ("notes", "files"):
        assert f"https://mcp.example.com/{name}" in out
    assert not re.search("client|oauth|auth|scope", out, re.IGNORECASE)
    assert "redirect_uris" not in err


@pytest.mark.parametrize("kind", FORMATS)
def test_what_a_client_calls_back_can_be_written(kind: str) -> None:
    """Each redirect URI that is named is one that authz.yaml takes."""
    uris = json.dumps(FORMATS[kind].redirect_uris)
    read(DIRECT.replace("[http://127.0.0.1/callback]", uris), "authz.yaml", {}, secrets=False)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--server", "nobody"), "no server"),
        (("--client", "nobody"), "no client"),
    ],
)
def test_what_is_not_there_is_said(
    direct: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], word: str
) -> None:
    """Status 2, and nothing to paste."""
    assert main(["client-config", "claude", str(direct), *arguments]) == 2
    told = capsys.readouterr()

    assert told.out == ""
    assert word in told.err


def test_of_several_clients_one_is_named(direct: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not guessed which one somebody sits at."""
    direct.write_text(DIRECT.replace("  backup:", "  other: {}\n  backup:"))

    assert main(["client-config", "claude", str(direct)]) == 2
    assert "desktop, other" in capsys.readouterr().err
    assert "other" in paste(capsys, "claude", direct, "--client", "other")[0]
