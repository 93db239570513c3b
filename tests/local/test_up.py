"""`authz up`, the whole of it: the real Valkey, the real service, the real Envoy."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz.config.endpoints import Unix
from authz.config.key_files import make_key
from authz.config.load import Settings, load
from authz.local import probe
from authz.local.deployment import Deployment, Extras
from authz.local.restarts import restarts_of_up
from authz.local.running import UpSettings, once_ready
from authz.local.state import DEFAULT_NAME, FAILED, MISCONFIGURED, State, default_folder, held
from authz.local.up import up
from authz.local.valkey import ALLOCATOR
from authz.process.group import STOPPED
from authz.process.service import ServiceSpec
from tests.process.stage import DEADLINE, ServiceStage, gone, listens, until, wait_until
from tests.support.ports import held_port

_FILE = """\
issuer: {{url: https://auth.example.test, internal: "http://127.0.0.1:{issuer}", serve: true}}
gateway: {{url: https://mcp.example.test, listen: "127.0.0.1:{gateway}"}}
telemetry: {{metrics: "127.0.0.1:{metrics}"}}
servers: {{files: {{upstream: http://127.0.0.1:8000/mcp}}}}
{more}
"""
_ISSUER = "https://auth.example.test"
_ROOT = str(Path(__file__).parents[2])
PARTS = ("valkey", "service", "envoy")
ENV = dict(os.environ, PYTHONPATH=_ROOT)


@contextmanager
def _issuer() -> Iterator[int]:
    """Serve an issuer's metadata and Authelia's recorded keys."""
    documents = {
        "/.well-known/oauth-authorization-server": json.dumps(
            {"issuer": _ISSUER, "jwks_uri": f"{_ISSUER}/jwks.json"}
        ).encode(),
        "/jwks.json": (Path(_ROOT) / "tests/fixtures/authelia/jwks.json").read_bytes(),
    }

    class UpHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = documents.get(self.path, b"")
            self.send_response(200 if body else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), UpHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class UpSite:
    """Hold an authz.yaml; its issuer is not there unless it is given."""

    def __init__(self, folder: Path, more: str = "", issuer: int = 0) -> None:
        self.gateway, self.metrics, nobody = (held_port() for _ in range(3))
        issuer = issuer or nobody
        self.file = folder / "authz.yaml"
        ports = {"gateway": self.gateway, "metrics": self.metrics, "issuer": issuer}
        self.file.write_text(_FILE.format(**ports, more=more))

    def settings(self) -> Settings:
        return load(self.file, ENV)

    async def up(self, stage: ServiceStage, **changes: Any) -> int:
        given = {"say": stage.lines.append, "signals": stage.signals} | changes
        return await up(self.settings(), self.file, default_folder(self.file), ENV, **given)

    def ask(self) -> int:
        """Ask for the server without a token, and return the status."""
        connection = HTTPConnection("127.0.0.1", self.gateway, timeout=DEADLINE)
        try:
            connection.request("GET", "/files", headers={"Host": "mcp.example.test"})
            return connection.getresponse().status
        finally:
            connection.close()

    def of_envoy(self) -> str:
        """Return Envoy's statistics, which the service passes on."""
        url = f"http://127.0.0.1:{self.metrics}/envoy/metrics"
        return httpx.get(url, trust_env=False, timeout=30).text

    async def metric(self, name: str) -> float:
        body = (await probe.http(("127.0.0.1", self.metrics), "/metrics")).body.decode()
        return sum(
            float(line.rpartition(" ")[2])
            for line in body.splitlines()
            if line.startswith((name + " ", name + "{"))
        )


@pytest.fixture
def site(place: Path) -> UpSite:
    """Return an authz.yaml in a folder with a short path, without an issuer."""
    return UpSite(place)


@pytest.fixture
def whole(place: Path) -> Iterator[UpSite]:
    """Return the same with an issuer."""
    with _issuer() as port:
        yield UpSite(place, issuer=port)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _family(pid: int) -> list[int]:
    return [pid, *(each for child in _children(pid) for each in _family(child))]


def test_the_whole(whole: UpSite, stage: ServiceStage, place: Path) -> None:
    """All parts run; a request without a token is challenged by authz, through Envoy; only the
    gateway and metrics are on the network; and at the end nothing is left.
    """
    others = _children(os.getpid())  # of tests before this one
    services: list[int] = []

    async def walk() -> int:
        services.extend(each for each in _children(os.getpid()) if each not in others)
        assert await asyncio.to_thread(whole.ask) == 401
        assert await whole.metric("authz_decisions_total") == 1
        assert "envoy_cluster_upstream_cx_connect_fail" in await asyncio.to_thread(whole.of_envoy)
        _assert_private(services, whole, place / DEFAULT_NAME)
        await _dies_and_comes_back(whole, stage, services)
        await _reloads(whole, stage)
        return STOPPED

    assert asyncio.run(whole.up(stage, when_ready=walk, patient=False)) == STOPPED
    # A slow machine may be told what the service still waits for.
    told = [line for line in stage.lines if " | " not in line and "not ready yet" not in line]
    assert told[-3:] == ["envoy    stopped", "service  stopped", "valkey   stopped"]
    assert told[:3] == ["valkey   ready", "service  ready", "envoy    ready"]
    assert told[3].startswith("authz is up")
    assert f"127.0.0.1:{whole.metrics}/metrics" in told[3]
    wait_until(lambda: all(map(gone, services)))


def test_issuer_comes_later(
    site: UpSite, stage: ServiceStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its issuer everything starts, says what is missing, and lets nobody in."""
    monkeypatch.setattr("authz.local.services._READY_TIMEOUT", 0.0)
    started = asyncio.Event()

    def say(line: str) -> None:
        stage.lines.append(line)
        if line.startswith("authz is up"):
            started.set()

    async def play() -> int:
        run = asyncio.create_task(site.up(stage, say=say, when_ready=once_ready))
        await until(lambda: started.is_set() or run.done())
        assert started.is_set(), stage.lines
        assert await asyncio.to_thread(site.ask) >= 400
        stage.send(signal.SIGTERM)
        return await run

    assert asyncio.run(play()) == STOPPED
    assert stage.said("service  runs, but is not ready yet: ")


async def _dies_and_comes_back(site: UpSite, stage: ServiceStage, services: list[int]) -> None:
    for pid in services:
        os.kill(pid, signal.SIGKILL)
    told = ("valkey   ready", "service  ready", "envoy    ready")
    await until(lambda: all(stage.lines.count(line) == 2 for line in told))
    assert await asyncio.to_thread(site.ask) == 401


async def _reloads(site: UpSite, stage: ServiceStage) -> None:
    site.file.write_text(site.file.read_text().replace("8000/mcp", "8001/mcp"))
    stage.send(signal.SIGHUP)
    await until(lambda: stage.said('"event":"reloaded"'))
    # A server has moved: Envoy follows, and nothing has to be started again.
    await until(lambda: stage.said('"event":"envoy_updated"'))
    assert stage.said('"confirmed":true,"restart":false')
    assert not any("until `authz up` is started again" in line for line in stage.lines)


def _assert_private(services: list[int], site: UpSite, folder: Path) -> None:
    assert len(services) == 3
    # The worker is a service itself: nothing stands between it and the supervisor.
    worker = b"authz.server.worker_program"
    assert any(worker in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in services)
    places = {place for pid in services for each in _family(pid) for place in listens(each)}
    network = {place for place in places if not place.startswith("/")}
    sockets = {path.name: path for path in (folder / "run").iterdir()}
    assert network == {f"0100007F:{port:04X}" for port in (site.gateway, site.metrics)}
    assert sockets.keys() <= {"valkey.sock", "check.sock", "admin.sock", "stats.sock"}
    assert places - network == {str(path) for path in sockets.values()}
    assert {path.stat().st_mode & 0o077 for path in sockets.values()} == {0}


def _program(site: UpSite, *arguments: str) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-m", "authz", "up", "-c", str(site.file), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, env=ENV, cwd=_ROOT, stdout=pipe, stderr=pipe, text=True)


def test_several_workers(place: Path, stage: ServiceStage) -> None:
    """With service.workers Envoy asks each of them, and the metrics are those of all."""

    async def seen(what: str) -> list[str]:
        answer = await probe.http(place / DEFAULT_NAME / "run" / "admin.sock", "/clusters")
        found = re.findall(rf"authz::.*::{what}::(\S+)", answer.body.decode())
        assert len(found) == 2
        return found

    async def walk() -> int:
        sockets = sorted(each.name for each in (place / DEFAULT_NAME / "run").glob("check*"))
        assert sockets == ["check-0.sock", "check-1.sock"]
        # One may still wait for the issuer's keys.
        while await seen("health_flags") != ["healthy", "healthy"]:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
        for _ in range(20):  # each thread of Envoy takes turns of its own
            assert await asyncio.to_thread(there.ask) == 401
        assert "0" not in await seen("rq_total")
        assert await there.metric("authz_decisions_total") == 20
        return STOPPED

    with _issuer() as port:
        there = UpSite(place, "service: {workers: 2}", issuer=port)
        assert asyncio.run(there.up(stage, when_ready=walk, patient=False)) == STOPPED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_command(whole: UpSite, place: Path, number: signal.Signals) -> None:
    """The command line does the same, tells a second one who is there, and whatever ends it ends
    its parts.
    """
    with _program(whole) as first:
        try:
            # A log is there before the part that writes it: count the parts, not the logs.
            wait_until(lambda: first.poll() is not None or len(_children(first.pid)) == len(PARTS))
            services = _children(first.pid)
            with _program(whole) as second:
                told, _ = second.communicate(timeout=DEADLINE)
        finally:
            first.send_signal(number)
        said, complaints = first.communicate(timeout=DEADLINE)

    assert second.returncode == FAILED
    assert f"already runs on the state folder {place / DEFAULT_NAME}" in told
    assert f"(process {first.pid})" in told
    expected = STOPPED if number is signal.SIGTERM else -number
    assert first.returncode == expected, (said, complaints)
    assert len(services) == len(PARTS)
    wait_until(lambda: all(map(gone, services)))


def test_not_here(site: UpSite, stage: ServiceStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that cannot watch processes is told so, not left with what was started."""
    monkeypatch.delattr(os, "pidfd_open")

    assert asyncio.run(site.up(stage)) == FAILED
    assert stage.lines == ["this needs Linux 5.3 or newer; elsewhere run the parts in containers"]


def test_once_ready(site: UpSite, stage: ServiceStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for everything is told what is missing, and everything is stopped."""
    monkeypatch.setattr("authz.local.services._REQUIRED_READY_TIMEOUT", 0.0)

    assert asyncio.run(site.up(stage, when_ready=once_ready, patient=False)) == FAILED
    assert stage.said("service could not start: not ready within 0 s")
    assert stage.lines[-1] == "valkey   stopped"


def test_taken_port(site: UpSite, stage: ServiceStage) -> None:
    """A taken port is said before anything starts."""
    with socket.create_server(("127.0.0.1", site.gateway)):
        assert asyncio.run(site.up(stage)) == FAILED
    assert stage.lines == [f"gateway.listen: 127.0.0.1:{site.gateway} is taken by another process"]


def test_wrong_state_folder(site: UpSite, stage: ServiceStage, place: Path) -> None:
    """A state folder that cannot be used is a wrong configuration."""
    (place / DEFAULT_NAME).mkdir(mode=0o755)

    assert asyncio.run(site.up(stage)) == MISCONFIGURED
    assert len(stage.lines) == 1


# --- what the parts are told -------------------------------------------------------------------


def _deployment(
    site: UpSite, state: State, env: Mapping[str, str], extras: Extras | None = None
) -> Deployment:
    return Deployment(site.settings(), site.file, state, env, extras or Extras())


def _services(
    site: UpSite, state: State, env: Mapping[str, str], extras: Extras | None = None
) -> tuple[ServiceSpec, ...]:
    deployment = _deployment(site, state, env, extras)
    return deployment.services(deployment.write(patient=True))


def test_environments(site: UpSite, place: Path) -> None:
    """The service gets our environment and Valkey's place; the others get no secret."""
    env = {"PATH": "/bin", "AUTHZ_REDIS_PASSWORD": "stale", "SECRET": "x", "TZ": "UTC"}
    with held(place / "state") as state:
        given = {spec.name: dict(spec.env) for spec in _services(site, state, env)}

    plain = {"PATH": "/bin", "TZ": "UTC"}
    assert given["valkey"] == plain | ALLOCATOR
    assert given["envoy"] == plain
    assert given["service"] == plain | {
        "SECRET": "x",
        "AUTHZ_REDIS_URL": f"unix://{place}/state/run/valkey.sock",
        "AUTHZ_REDIS_USERNAME": "authz",
        "AUTHZ_REDIS_PASSWORD_FILE": f"{place}/state/redis-password",
    }


@pytest.mark.parametrize("by", ["file", "environment"])
def test_given_redis(place: Path, by: str) -> None:
    """Where a Redis is given, none is brought, and the service is told nothing else."""
    more = "redis: {url: unix:///run/redis.sock}" if by == "file" else ""
    env = {} if by == "file" else {"AUTHZ_REDIS_URL": "unix:///run/redis.sock"}
    with held(place / "state") as state:
        services = _services(UpSite(place, more), state, env)

    assert [spec.name for spec in services] == ["service", "envoy"]
    assert services[0].env == env


def test_deployment_name(place: Path) -> None:
    """The embedded Valkey's user may touch the keys of the configured deployment."""
    with held(place / "state") as state:
        _services(UpSite(place, "redis: {deployment: other}"), state, {})
        text = (state.valkey / "valkey.conf").read_text()

    assert "~{other}:* " in text


def test_extras(site: UpSite, stage: ServiceStage, place: Path) -> None:
    """Further parts start between Valkey and the service, and Envoy is told their sockets."""
    extras = Extras(
        (stage.spec("issuer"), stage.spec("notes")),
        {"files": Unix("/run/files.sock")},
        Unix("/run/issuer.sock"),
    )
    with held(place / "state") as state:
        services = _services(site, state, {}, extras)
        text = "".join(path.read_text() for path in state.envoy.glob("*.yaml"))

    assert [spec.name for spec in services] == ["valkey", "issuer", "notes", "service", "envoy"]
    for path in ("/run/files.sock", "/run/issuer.sock", str(state.socket("admin"))):
        assert path in text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("8000/mcp", "8001/mcp", False),
        ("gateway: {", "gateway: {max_connections: 77, ", True),
        ("servers:", "limits: [{per: user, rate: 1/day}]\nservers:", False),
        ("servers:", "servers: [", False),
    ],
    ids=["upstream", "connections", "limit", "broken"],
)
def test_edge_would_change(site: UpSite, place: Path, old: str, new: str, expected: bool) -> None:
    """A reload for which Envoy has to be started again is told from one that it follows."""
    with held(place / "state") as state:
        running = _deployment(site, state, ENV).write(patient=True)
        assert restarts_of_up(running, ENV) == []
        site.file.write_text(site.file.read_text().replace(old, new))
        assert list(restarts_of_up(running, ENV)) == (["Envoy"] if expected else [])


DOOR = "front_door: {key_file: KEY}"


def _door(place: Path, more: str = "") -> UpSite:
    """Return an authz.yaml with a front door, whose key is there."""
    key = place / "front.pem"
    make_key(key)
    return UpSite(place, f"{DOOR.replace('KEY', str(key))}\n{more}")


def test_a_front_door_is_a_part(place: Path) -> None:
    """The pages start before Envoy, which is told their socket, with the service's own Redis."""
    site, env = _door(place), {"PATH": "/bin", "SECRET": "x"}
    with held(place / "state") as state:
        services = {spec.name: spec for spec in _services(site, state, env)}
        text = (state.envoy / "clusters.yaml").read_text()
        acl = (state.valkey / "valkey.conf").read_text()
        socket = state.socket("pages")

    assert list(services) == ["valkey", "service", "pages", "envoy"]
    assert str(socket) in text
    assert services["pages"].env == services["service"].env
    assert "AUTHZ_REDIS_URL" in services["pages"].env
    assert "+expire" in acl


def test_the_front_door_follows_a_reload_and_not_its_own_removal(place: Path) -> None:
    """SIGHUP goes to the pages, too; that they are not wanted any more has to be told."""
    site = _door(place)
    with held(place / "state") as state:
        deployment = _deployment(site, state, ENV)
        running = deployment.write(patient=True)
        assert restarts_of_up(running, ENV) == []
        more = "limits: [{per: user, rate: 1/day}]\nservers:"
        site.file.write_text(site.file.read_text().replace("servers:", more))
        assert restarts_of_up(running, ENV) == []
        pages = next(each for each in deployment.services(running) if each.name == "pages")
        assert pages.reloads
        whole = site.file.read_text()
        site.file.write_text(
            "\n".join(line for line in whole.splitlines() if "front_door:" not in line)
        )
        assert restarts_of_up(running, ENV) == ["the front door"]
        assert UpSettings.of(running.to_json()) == running


def test_default_folder(place: Path) -> None:
    """The state lies beside authz.yaml."""
    assert default_folder(place / "authz.yaml") == place / ".authz"
    assert default_folder(Path("authz.yaml")) == Path.cwd() / ".authz"
