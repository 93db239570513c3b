"""A server is added, moved and removed under load: the real Envoy follows, and no request fails.

The longer form, figures and all:

    python -m tests.server.test_envoy_follow [requests]
"""

import asyncio
import json
import os
import re
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from authz.config.endpoints import Unix
from authz.doctor import envoy as doctor
from authz.envoy.files import ROUTES_FILE, replace_files
from authz.envoy.render import Topology, render_watched
from authz.local import probe
from tests.support import edge
from tests.support.certificates import made
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.load import LoadClient, LoadResult, post, run_load, token, upstream
from tests.support.service import (
    ServiceProcess,
    running_issuer,
    running_service,
    until,
)
from tests.support.transports import installed
from tests.support.valkey import valkey

CONFIG = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, max_lifetime: 30d, deadline: 30s}}
gateway: {{url: https://mcp.example.test, listen: '127.0.0.1:0', address_calls: 1000000/second,
          refusals: http_status}}
redis: {{url: '{redis}'}}
telemetry: {{log: json}}
service: {{transport: {transport}, workers: {workers}, drain_notice: 100ms}}
servers:
  files: {{upstream: http://127.0.0.1:9/mcp, socket: {first},
          limits: [{{per: user, rate: 100000000/minute}}]}}
"""
NOTES = """\
  notes: {{upstream: http://127.0.0.1:9/mcp, socket: {second}, tools: {{read_*: {{}}}},
          limits: [{{per: user, rate: 100000000/minute}}]}}
"""
ENV = {"PATH": os.environ["PATH"]}


@dataclass(frozen=True, slots=True)
class FollowedEdge:
    """Hold a service whose reloads an Envoy follows.

    Attributes:
        first, second: sockets of upstreams.
        config: authz.yaml as it began.
    """

    service: ServiceProcess
    envoy: RunningEnvoy
    folder: Path
    first: Path
    second: Path
    config: str

    @property
    def port(self) -> int:
        return self.envoy.port("gateway")

    def reload(self, text: str) -> None:
        """Have a text in force; Envoy follows."""
        self.service.config.write_text(text)
        self.service.signal(signal.SIGHUP)

    def follow(self, text: str) -> dict[str, object]:
        """Have a text in force, and return what became of Envoy's files."""
        before = len(self.updates())
        self.reload(text)
        until(lambda: len(self.updates()) > before, "Envoy's files after a reload", 120)
        return self.updates()[-1]

    def updates(self) -> list[dict[str, object]]:
        found = self.service.events("envoy_updated") + self.service.events("envoy_not_updated")
        return sorted(found, key=lambda line: float(str(line["time"])))

    def wait_for(self, server: str, status: int) -> None:
        """Wait until good requests for a server get a status.

        Envoy says that it has taken routes before each of its threads has them.
        """
        until(lambda: self.ask(server) == status, f"{status} from {server}")

    def ask(self, server: str) -> int:
        """Return the status of a good request for a server."""
        sent = post(token(aud=[f"https://mcp.example.test/{server}"]))
        raw = sent.replace(b"POST /files ", f"POST /{server} ".encode())

        async def once() -> int:
            client = LoadClient(self.port)
            try:
                return (await client.send(raw)).status
            finally:
                client.close()

        return asyncio.run(once())


@contextmanager
def followed(transport: str, workers: int) -> Iterator[FollowedEdge]:
    """Run a service, an Envoy that follows its reloads, and two upstreams."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="f")))
        (folder / "a").mkdir()
        (folder / "b").mkdir()
        first, second = (stack.enter_context(upstream(folder / name)) for name in "ab")
        config = CONFIG.format(
            issuer=stack.enter_context(running_issuer()).address,
            redis=stack.enter_context(valkey()).url,
            transport=transport,
            workers=workers,
            first=first,
        )
        checks = [folder / "check.sock"]
        if workers > 1:
            checks = [folder / f"check-{number}.sock" for number in range(workers)]
        where = Topology(
            authz=tuple(Unix(str(each)) for each in checks),
            admin=f"{folder}/admin",
            folder=str(folder / "envoy"),
            stats=f"{folder}/stats",
        )
        files = render_watched(edge.patient_settings(config), where)
        replace_files(folder / "envoy", files, None)
        options = ("--envoy", str(folder / "envoy"))
        service = stack.enter_context(
            running_service(folder, config, ENV, workers, options=options)
        )
        envoy = stack.enter_context(running_envoy({}, folder / "envoy", folder / "admin"))
        envoy.wait_for("cluster.authz.membership_healthy", workers)
        yield FollowedEdge(service, envoy, folder / "envoy", first, second, config)


@pytest.fixture(params=[("ngh2", 1), ("grpcio", 2)], scope="module", ids=["one", "two"])
def running(request: pytest.FixtureRequest) -> Iterator[FollowedEdge]:
    transport, workers = request.param
    with followed(installed(transport), workers) as found:
        yield found


def during(running: FollowedEdge, work: Callable[[], None], least: int, pause: float) -> LoadResult:
    """Send requests for `files` while something happens."""

    async def play() -> LoadResult:
        done = asyncio.Event()
        load = asyncio.create_task(run_load(running.port, done, least, 16, pause))
        await asyncio.to_thread(work)
        done.set()
        return await load

    return asyncio.run(play())


def change(running: FollowedEdge) -> None:
    """Add a server, move the one that is asked, remove what was added."""
    notes = NOTES.format(second=running.second)
    moved = running.config.replace(str(running.first), str(running.second))
    running.wait_for("notes", 404)
    added = running.follow(running.config + notes)
    assert added["confirmed"] is True, added
    assert added["files"] == ["clusters.yaml", "routes.yaml", "rendered.json"]
    running.wait_for("notes", 200)
    assert running.follow(moved + notes)["confirmed"] is True
    assert running.follow(moved)["confirmed"] is True
    running.wait_for("notes", 404)


@pytest.mark.attack("reload-under-load")
def test_no_request_fails_while_servers_come_move_and_go(running: FollowedEdge) -> None:
    """Each request is answered by a server whose rules it met, and by the one that is meant."""
    found = during(running, lambda: change(running), 100, 0.4)

    assert found.failures == [], found.explain(running.envoy, running.service)
    assert found.good.keys() == {200}
    known = re.findall(
        r"^(mcp:.+?)::observability_name", running.envoy.ask("/clusters"), re.MULTILINE
    )
    assert [name.rpartition(":")[0] for name in known] == ["mcp:files"]
    running.follow(running.config)


def test_a_private_authority_that_is_written_over_is_followed(running: FollowedEdge) -> None:
    """Without a signal: the file is watched as authz.yaml is, and Envoy has the new one."""
    file = running.folder.parent / "ca.crt"
    authorities = [made(is_authority=True) for _ in range(2)]
    file.write_bytes(authorities[0].pem)
    secure = f"  secure: {{upstream: https://127.0.0.1:9/mcp, upstream_ca: {file}}}\n"
    assert running.follow(running.config + secure)["confirmed"] is True
    before = len(running.updates())
    file.write_bytes(authorities[1].pem)
    until(lambda: len(running.updates()) > before, "Envoy's files after a change", 120)

    assert running.updates()[-1]["files"] == ["clusters.yaml", "rendered.json"]
    assert running.updates()[-1]["confirmed"] is True
    serials = re.findall(r'"serial_number": "([0-9a-f]+)"', running.envoy.ask("/certs"))
    assert [int(each, 16) for each in serials] == [authorities[1].certificate.serial_number]
    running.follow(running.config)


@pytest.mark.attack("route-of-another-upstream")
def test_a_route_that_envoy_has_of_its_own_opens_nothing(running: FollowedEdge) -> None:
    """A removed server and one that has moved are refused, whatever Envoy still routes."""
    routes = (running.folder / ROUTES_FILE).read_text()
    name = re.search(r'upstream: "?([0-9a-f]{16})', routes)
    assert name is not None
    other = routes.replace(name[1], "fedcba9876543210").replace(
        "mcp:files:fedcba9876543210", f"mcp:files:{name[1]}"
    )
    version = re.search(r'version_info: "?([0-9a-f]{16})', routes)
    assert version is not None
    other = other.replace(version[1], "a000000000000001")
    rendered = {path.name: path.read_text() for path in running.folder.glob("*.[yj]*")}
    stats = running.folder.parent / "stats"
    assert replace_files(running.folder, rendered | {ROUTES_FILE: other}, stats).confirmed
    try:
        running.wait_for("files", 503)
        unknown = other.replace("server: files", "server: nobody").replace(
            "a000000000000001", "a000000000000002"
        )
        assert replace_files(running.folder, rendered | {ROUTES_FILE: unknown}, stats).confirmed
        running.wait_for("files", 404)
    finally:
        assert replace_files(running.folder, rendered, stats).confirmed
    running.wait_for("files", 200)


@pytest.mark.attack("loopback-envoy-admin")
def test_the_statistics_socket_leads_to_no_other_page_of_the_admin_interface(
    running: FollowedEdge,
) -> None:
    """It is its owner's, and passes on GET of what it is for, however a path is written."""
    stats = running.folder.parent / "stats"

    def status(path: str, method: str = "GET") -> int:
        return asyncio.run(probe.http(stats, path, method)).status

    assert stat.S_IMODE(stats.stat().st_mode) == 0o600
    assert status("/stats?filter=nothing") == status("/ready") == 200
    for path in ("/stats", "/quitquitquit", "/drain_listeners", "/logging?level=off"):
        assert status(path, "POST") == 404
    for path in (
        "/config_dump",
        "/certs",
        "/",
        "/stats/../config_dump",
        "/stats/%2e%2e/config_dump",
        "/stats/prometheus/../../config_dump",
        "//config_dump",
        "/stats/recentlookups",
    ):
        assert status(path) in {400, 404}, path


def test_what_envoy_refuses_is_told_and_taken_back(running: FollowedEdge) -> None:
    """An update that Envoy does not take leaves files and Envoy as they were, and says so."""
    rendered = {path.name: path.read_text() for path in running.folder.glob("*.[yj]*")}
    if not running.service.status_port:
        pytest.skip("the notes of several workers are on a page that is a socket")
    # A port of somebody else: Envoy cannot listen there.
    taken = running.config.replace("127.0.0.1:0", f"127.0.0.1:{running.service.status_port}")
    outcome = running.follow(taken)

    assert outcome["event"] == "envoy_not_updated"
    assert outcome["refused"] == "listeners.yaml"
    assert {path.name: path.read_text() for path in running.folder.glob("*.[yj]*")} == rendered
    notes = json.loads(running.service.get("/readyz")[1])["notes"]
    assert "refused listeners.yaml" in notes["envoy"]
    behind = 'authz_config_not_in_force{cause="envoy"} '
    assert f"{behind}1.0" in running.service.get("/metrics")[1]
    for socket in ("admin", "stats"):
        told = list(doctor._updates(doctor._counts(running.folder.parent / socket)))
        assert [each.diagnosis for each in told] == ["update_refused"]
        assert "listeners.yaml 1 time" in told[0].message
    admin = running.folder.parent / "admin"
    watches = bool(doctor._counts(admin))
    assert list(doctor._lenient(doctor._ask(admin, "/server_info"), watches=watches)) == []
    lenient = doctor._lenient({"command_line_options": {}}, watches=watches)
    assert [each.diagnosis for each in lenient] == ["lenient"]
    running.wait_for("files", 200)
    running.reload(running.config)
    until(
        lambda: "envoy" not in json.loads(running.service.get("/readyz")[1]).get("notes", {}),
        "no word about Envoy: it has what is in force",
        120,
    )
    assert f"{behind}0.0" in running.service.get("/metrics")[1]


def main(requests: int) -> None:
    """Print what a change costs."""
    for transport, workers in (("ngh2", 1), ("grpcio", 2)):
        with followed(transport, workers) as running:
            found = during(running, lambda one=running: change(one), requests, 0.0)  # type: ignore[misc]
            told = f"{transport}, {workers} worker(s): {dict(found.good)}, {dict(found.bad)}"
            sys.stdout.write(f"{told}, failed: {found.failed}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
