"""`authz pages` and `authz clients` as processes: sockets, signals, exit codes."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from authz.config.key_files import make_key
from tests.support.commands import Ended, type_command
from tests.support.hostile_target import status as answered
from tests.support.hostile_target import target_server
from tests.support.ports import held_port
from tests.support.relay import Relay, relayed
from tests.support.service import running_issuer, told_once, until
from tests.support.valkey import ValkeyServer, valkey

CONFIG = """\
issuer: {{url: 'https://auth.example.test', internal: '{issuer}'}}
front_door: {{key_file: '{key}'}}
gateway: {{url: 'https://mcp.example.test', tls: {{certificate: /a.crt, key: /a.key}}}}
redis: {{url: '{redis}'}}
telemetry: {{log: json{telemetry}}}
servers: {{files: {{upstream: 'http://files:8000/mcp', scopes: ['mcp:tools']}}}}
"""


class UnixTransport(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


@dataclass
class PagesProcess:
    process: "subprocess.Popen[str]"
    config: Path
    socket: Path
    lines: list[dict[str, object]] = field(default_factory=list)

    def wait_for(self, event: str, count: int = 1) -> None:
        until(lambda: [line["event"] for line in self.lines].count(event) >= count, event)

    def get(self, path: str) -> tuple[int, bytes]:
        connection = UnixTransport(self.socket)
        try:
            connection.request("GET", path, headers={"X-Forwarded-For": "192.0.2.1"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: a socket's path holds 108 bytes."""
    found = Path(tempfile.mkdtemp(prefix="pg-"))
    yield found
    shutil.rmtree(found, ignore_errors=True)


@contextmanager
def pages(
    folder: Path, store: ValkeyServer | Relay, issuer: str, telemetry: str = ""
) -> Iterator[PagesProcess]:
    key, config, path = folder / "k.pem", folder / "authz.yaml", folder / "p.sock"
    if not key.exists():
        make_key(key)
    config.write_text(CONFIG.format(issuer=issuer, key=key, redis=store.url, telemetry=telemetry))
    command = [sys.executable, "-m", "authz", "pages", "-c", str(config)]
    command += ["--listen", f"unix:{path}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    found = PagesProcess(process, config, path)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            found.lines.append(json.loads(line))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        found.wait_for("started")
        yield found
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(5)
        assert process.stderr is not None
        errors = process.stderr.read()
        process.stderr.close()
        assert process.stdout is not None
        process.stdout.close()
        assert errors == ""


def test_a_life(folder: Path, store: ValkeyServer) -> None:
    """Started, on a socket for owner and group; reloaded; told to stop, it answers and ends."""
    with running_issuer() as issuer, pages(folder, store, issuer.address) as found:
        assert stat.S_IMODE(found.socket.stat().st_mode) == 0o660
        status, body = found.get("/.well-known/oauth-authorization-server")
        assert (status, json.loads(body)["scopes_supported"][0]) == (200, "mcp:tools")

        good = found.config.read_text()
        found.config.write_text(good.replace("mcp:tools", "mcp:other"))
        found.process.send_signal(signal.SIGHUP)
        found.wait_for("reloaded")
        _, body = found.get("/.well-known/oauth-authorization-server")
        assert json.loads(body)["scopes_supported"][0] == "mcp:other"
        new = found.config.with_name("new.yaml")  # as editors do, and nobody signals
        new.write_text(good.replace("mcp:tools", "mcp:third"))
        new.replace(found.config)
        found.wait_for("reloaded", 2)
        _, body = found.get("/.well-known/oauth-authorization-server")
        assert json.loads(body)["scopes_supported"][0] == "mcp:third"
        found.config.write_text("nonsense: true\n")
        found.process.send_signal(signal.SIGHUP)
        found.wait_for("reload_refused")
        assert found.get("/.well-known/oauth-authorization-server")[0] == 200

        # A Redis that does not answer with new settings is not taken for one that does.
        found.config.write_text(good.replace(store.url, "unix:///nowhere"))
        found.process.send_signal(signal.SIGHUP)
        found.wait_for("reload_refused", 2)
        assert "redis: it does not answer with these settings" in json.dumps(found.lines)
        assert found.get("/.well-known/oauth-authorization-server")[0] == 200

        # What the server's library says of bytes that are no HTTP is an event, as all else.
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(found.socket))
            raw.sendall(b"nonsense of t0k3n\r\n\r\n")
            raw.recv(1024)
        found.wait_for("library")
        assert "t0k3n" not in json.dumps(found.lines)

        # A request is under way when the signal comes: its head is here, its body is not.
        late = UnixTransport(found.socket)
        late.putrequest("POST", "/token")
        late.putheader("Content-Type", "application/x-www-form-urlencoded")
        late.putheader("Content-Length", "12")
        late.endheaders()
        assert found.get("/nothing")[0] == 404  # so that it has been read
        found.process.send_signal(signal.SIGTERM)
        late.send(b"grant_type=x")
        answer = late.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]) == (
            400, "invalid_request",
        )  # fmt: skip
        late.close()
        assert found.process.wait(60) == 0
        found.wait_for("stopped")
        assert not found.socket.exists()


def test_metrics_tell_of_log_ins(folder: Path, store: ValkeyServer) -> None:
    """Each step is counted by its outcome, on a listener of its own that has no page."""
    port = held_port()
    with (
        running_issuer() as issuer,
        pages(folder, store, issuer.address, f", pages_metrics: '127.0.0.1:{port}'") as found,
    ):
        assert found.get("/authorize?client_id=nobody")[0] == 400

        there = f"http://127.0.0.1:{port}"
        told = httpx.get(f"{there}/metrics", trust_env=False, timeout=30).text
        assert 'authz_log_ins_total{outcome="invalid_client",step="authorize"} 1.0' in told
        assert "nobody" not in told
        assert httpx.get(f"{there}/readyz", trust_env=False, timeout=30).status_code == 200
        assert httpx.get(f"{there}/authorize", trust_env=False, timeout=30).status_code == 404
        assert found.get("/metrics")[0] == 404


def test_people_are_told_of_a_blocked_client(folder: Path, store: ValkeyServer) -> None:
    """A target that a reload brings is told of a blocked client that comes, as a line says."""
    with (
        running_issuer() as issuer,
        target_server(answered(200)) as target,
        pages(folder, store, issuer.address) as found,
    ):
        hook = f"notify: {{hook: {{form: slack, url_file: '{folder / 'hook'}'}}}}\n"
        client = "clients: {old: {redirect_uris: ['https://old.example/cb']}}\n"
        (folder / "hook").write_text(f"{target.url}/services/hunter2")
        (folder / "hook").chmod(0o600)
        found.config.write_text(found.config.read_text() + client + hook)
        found.process.send_signal(signal.SIGHUP)
        found.wait_for("reloaded")
        ended = type_command("clients", "block", "old", "-c", str(found.config))
        assert ended.status == 0

        asked = "/authorize?response_type=code&client_id=old&redirect_uri=https://old.example/cb"
        assert found.get(asked)[0] == 403
        until(lambda: bool(target.posted), "the message")

        found.wait_for("security")
        (line,) = [each["ecs"] for each in found.lines if each["event"] == "security"]
        assert isinstance(line, dict)
        assert (line["event.action"], line["authz.client"]) == ("blocked_client", "old")
        text = json.loads(target.posted[0].body)["text"]
        assert "client: `old`" in text
        assert "192.0.2.1" not in text
        found.process.send_signal(signal.SIGTERM)
        assert found.process.wait(60) == 0
        assert "hunter2" not in json.dumps(found.lines)


@pytest.mark.attack("redis-failover")
def test_a_failover_by_name_is_followed_without_a_visit(folder: Path) -> None:
    """The old primary stays up as a replica and the name leads to a new one: within seconds, and
    without anybody's visit, the log says READONLY once, then that Redis is back. While the new one
    takes no writes either, readiness says what is wrong.
    """
    port = held_port()
    metrics = f", pages_metrics: '127.0.0.1:{port}'"

    def readyz() -> tuple[int, str]:
        answer = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=30)
        return answer.status_code, answer.text

    with (
        valkey() as first,
        valkey() as second,
        relayed(first.socket) as name,
        running_issuer() as issuer,
        pages(folder, name, issuer.address, metrics) as found,
    ):
        until(lambda: readyz()[0] == 200, "ready")
        second.command("REPLICAOF", "127.0.0.1", "1")
        first.command("REPLICAOF", "127.0.0.1", "1")
        name.target = second.socket
        # Not ready alone would not do: a Redis of a busy machine may have answered late.
        until(lambda: "READONLY: it is a replica" in readyz()[1], "not ready")
        assert readyz()[0] == 503

        second.command("REPLICAOF", "NO", "ONE")
        until(lambda: readyz()[0] == 200, "ready again")
        found.wait_for("redis_back")
        faults = [line["detail"] for line in found.lines if line["event"] == "fault"]
        assert told_once(faults, "READONLY: it is a replica"), faults


def test_a_stale_socket_is_replaced_and_a_file_is_not(folder: Path, store: ValkeyServer) -> None:
    """What a killed process left behind is no reason not to start; anything else is."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "p.sock"))
    with running_issuer() as issuer, pages(folder, store, issuer.address) as found:
        assert found.get("/nothing")[0] == 404
        command = [sys.executable, "-m", "authz", "pages", "-c", str(found.config)]
        taken = folder / "file"
        taken.write_text("mine")
        for where in (f"unix:{found.socket}", f"unix:{taken}", "nowhere"):
            answer = subprocess.run(
                [*command, "--listen", where], capture_output=True, text=True, check=False
            )
            assert answer.returncode == (2 if where == "nowhere" else 1)
            assert answer.stderr.startswith("authz: ")
        assert taken.read_text() == "mine"


def test_clients_of_an_empty_deployment(folder: Path, store: ValkeyServer) -> None:
    """Nobody is listed; blocking whoever has not come yet is allowed, and taken back."""
    key, config = folder / "k.pem", folder / "authz.yaml"
    make_key(key)
    text = CONFIG.format(issuer="http://127.0.0.1:9", key=key, redis=store.url, telemetry="")
    config.write_text(text.replace("redis: {", "redis: {deployment: empty, "))

    environment = {**os.environ, "USER": "me"}

    def ask(*words: str) -> Ended:
        return type_command("clients", *words, "-c", str(config), env=environment)

    def ask_process(*words: str) -> Ended:
        command = [sys.executable, "-m", "authz", "clients", *words, "-c", str(config)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return Ended(ran.returncode, ran.stdout, ran.stderr)

    assert ask_process() == ask() == Ended(0, "nobody is logged in\n", "")
    blocked = ask("block", "https://evil.example", "--reason", "why")
    assert blocked.status == 0
    told = blocked.out.splitlines()
    assert told[0] == "blocked https://evil.example; log-ins ended: 0"
    assert told[1].startswith("nobody was logged in under that name")
    assert told[2] == (f"undo it with: authz clients unblock https://evil.example -c {config}")
    listed = json.loads(ask("--json").out)
    assert listed["clients"] == []
    assert [(each["what"], each["by"]) for each in listed["blocked"]] == [
        ("https://evil.example", "me")
    ]
    assert ask("unblock", "https://evil.example").status == 0
    assert (ended := ask_process("unblock", "https://evil.example")).status == 1
    assert ended == ask("unblock", "https://evil.example")
