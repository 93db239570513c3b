"""`authz login` as it is typed: what it asks for, where the token goes, what is printed."""

import asyncio
import shlex
import stat
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from authz.cli import login, main
from authz.config.load import read
from authz_demo.issuer import StandInIssuer, create_app
from authz_demo.issuer.keys import StandInKeys
from authz_demo.issuer.run import forwarded_headers
from authz_demo.person import BrowserUser
from authz_demo.serving import ANYWHERE, serve
from tests.demo.kit import ISSUER, SECRET, config

TEXT = """\
issuer: {{url: {issuer}, internal: '{internal}'}}
gateway: {{url: https://mcp.example.test, listen: '127.0.0.1:0'}}
clients:
  mcp-2fa: {{redirect_uris: ['http://localhost:3000/x', 'http://127.0.0.1/callback']}}
  night: {{machine: true}}
servers:
  files:
    upstream: http://files:8000/mcp
    scopes: [mcp:tools]
    tools: {{'delete_*': {{scopes: [mcp:admin]}}, '*': {{}}}}
"""


class Person2fa:
    """john, at the browser that the command opens."""

    def __init__(self, issuer: StandInIssuer) -> None:
        self.issuer = issuer
        self.threads: list[threading.Thread] = []

    def open(self, link: str) -> bool:
        thread = threading.Thread(target=lambda: asyncio.run(self._visit(link)))
        thread.start()
        self.threads.append(thread)
        return True

    async def _visit(self, link: str) -> None:
        transport = httpx.ASGITransport(create_app(self.issuer))
        headers = forwarded_headers(self.issuer.config)
        async with httpx.AsyncClient(transport=transport, headers=headers) as browser:
            url = await BrowserUser("john", "password", SECRET).log_in(browser, link)
        async with httpx.AsyncClient(trust_env=False, timeout=30) as browser:
            await browser.get(url)


@pytest.fixture
def authz_yaml(
    keys: StandInKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """authz.yaml of a stand-in that runs in a thread, with john at the browser."""
    issuer = StandInIssuer(config(time.time), keys)
    ready, port = threading.Event(), [0]
    with asyncio.Runner() as runner:
        loop, stop = runner.get_loop(), asyncio.Event()

        async def run() -> None:
            async with serve(create_app(issuer), ANYWHERE) as port[0]:
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: runner.run(run()))
        thread.start()
        assert ready.wait(60)
        person = Person2fa(issuer)
        monkeypatch.setattr(webbrowser, "open", person.open)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        path = tmp_path / "authz.yaml"
        path.write_text(TEXT.format(issuer=ISSUER, internal=f"http://127.0.0.1:{port[0]}"))
        yield path
        for each in person.threads:
            each.join(60)
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)


def test_the_token_is_in_a_file_of_its_owner_and_nowhere_else(
    authz_yaml: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Mode 600 in a folder of mode 700; what is printed is a line that reads it."""
    assert main(["login", str(authz_yaml), "--internal"]) == 0

    told, path = capfd.readouterr(), tmp_path / "cache" / "authz" / "files.token"
    token = path.read_text().strip()
    assert token.count(".") == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert token not in told.out + told.err
    assert "mcp:admin mcp:tools" in told.err or "mcp:tools mcp:admin" in told.err
    assert str(path) in told.out
    assert "https://mcp.example.test/files" in told.out


def test_the_token_is_printed_only_where_that_is_asked(
    authz_yaml: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--print-token` is for pipes: the token alone, and no file."""
    assert main(["login", str(authz_yaml), "--internal", "--print-token"]) == 0

    assert capfd.readouterr().out.strip().count(".") == 2
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "argv", [["--server", "x"], ["--client", "night"], ["--client", "stranger"]]
)
def test_what_is_not_in_the_file_is_asked_wrongly(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown server, a machine, a client that is not named: status 2, and what there is."""
    path = tmp_path / "authz.yaml"
    path.write_text(TEXT.format(issuer=ISSUER, internal="http://127.0.0.1:1"))

    assert main(["login", str(path), *argv]) == 2
    assert "is one of" in capsys.readouterr().err


def test_an_issuer_that_is_away_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failed, in a line and without a traceback."""
    path = tmp_path / "authz.yaml"
    path.write_text(TEXT.format(issuer=ISSUER, internal="http://127.0.0.1:1"))

    assert main(["login", str(path), "--internal", "--no-browser"]) == 1
    assert "metadata" in capsys.readouterr().err


def test_a_file_that_was_there_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """A link or a readable file at that place gets no token."""
    target, path = tmp_path / "target", tmp_path / "t"
    target.write_text("x")
    path.symlink_to(target)

    login.keep("secret", path)

    assert target.read_text() == "x"
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == ["t", "target"]


def test_a_client_without_a_loopback_address_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The port of localhost cannot vary at Authelia, so such a URI is of no use here."""
    path = tmp_path / "authz.yaml"
    text = TEXT.replace(", 'http://127.0.0.1/callback'", "")
    path.write_text(text.format(issuer=ISSUER, internal="http://127.0.0.1:1"))

    assert main(["login", str(path)]) == 2
    assert "http://127.0.0.1/callback" in capsys.readouterr().err


def test_the_curl_line_sends_the_token_through_a_pipe(tmp_path: Path) -> None:
    """A shell runs it as it stands; no program has the token among its arguments."""
    settings = read(TEXT.format(issuer=ISSUER, internal="http://127.0.0.1:1"), "authz.yaml", {})
    path = tmp_path / "a token's file"
    login.keep("t0ken", path)
    line = login.curl(settings, "files", path, "/ca.pem")
    curl = tmp_path / "curl"
    curl.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:], sys.stdin.read())\n")
    curl.chmod(0o700)

    found = subprocess.run(
        ["sh", "-c", line.replace("| curl", f"| {shlex.quote(str(curl))}")],
        capture_output=True,
        text=True,
        check=True,
    )

    arguments, _, sent = found.stdout.partition("] ")
    assert sent == "Authorization: Bearer t0ken\n\n"
    assert "t0ken" not in arguments
    assert "'--cacert', '/ca.pem'" in arguments
    assert "'https://mcp.example.test/files'" in arguments
