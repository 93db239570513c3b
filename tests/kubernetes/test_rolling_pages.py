"""Every replica of the pages is replaced under load, behind one Envoy: no request fails.

As in test_rolling.py; but Envoy asks the pages for no health: it leaves a replica whose address is
in the name no more, and that one answers on until it does.
"""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from authz.config.endpoints import Tcp, Unix
from authz.config.key_files import make_key
from authz.envoy.render import Topology, render
from tests.kubernetes.name_server import NameServer, asks, running_name_server
from tests.kubernetes.test_rolling import ENV, REPLICAS
from tests.support import edge
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.load import HOST, LoadAnswer, LoadClient, explain_failures
from tests.support.ports import held_port
from tests.support.service import PATIENCE, running_issuer, until
from tests.support.valkey import valkey

NAME = "authz-pages.mcp.svc"
CONFIG = """\
issuer: {{url: https://auth.example.test, internal: {issuer}}}
front_door: {{key_file: {key}, address_pages: 1000000/minute}}
gateway: {{url: https://mcp.example.test, listen: '127.0.0.1:0', address_rate: 1000000/second}}
redis: {{url: '{redis}'}}
telemetry: {{log: json}}
servers: {{files: {{upstream: 'http://127.0.0.1:9/mcp', scopes: ['mcp:files']}}}}
"""
# A client that nobody knows: the pages themselves say so.
ASKED = f"GET /authorize?client_id=nobody HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()


@dataclass
class PagesCluster:
    """Hold the replicas that run, by address, and the name that leads to them."""

    config: Path
    names: NameServer
    stack: ExitStack
    port: int = field(default_factory=held_port)
    pods: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _made: int = 1

    def start(self) -> str:
        """Start a pod, and return its address once its readiness probe succeeds."""
        self._made += 1
        address, status = f"127.0.0.{self._made}", f"127.0.0.1:{held_port()}"
        command = [sys.executable, "-m", "authz", "pages", "-c", str(self.config)]
        command += ["--listen", f"{address}:{self.port}", "--status", status]
        process = subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL)
        self.stack.callback(process.wait, 60)
        self.stack.callback(process.terminate)

        def ready() -> bool:
            assert process.poll() is None
            with suppress(OSError), urllib.request.urlopen(f"http://{status}/readyz") as answer:
                return bool(answer.status == 200)
            return False

        until(ready, f"{address} is ready")
        self.pods[address] = process
        return address

    def publish(self, *leaving: str) -> None:
        """Have the name lead to every pod that does not end."""
        self.names.names[NAME] = tuple(each for each in self.pods if each not in leaving)


@contextmanager
def running_pages() -> Iterator[tuple[PagesCluster, RunningEnvoy]]:
    with ExitStack() as stack:
        redis, issuer = stack.enter_context(valkey()), stack.enter_context(running_issuer())
        names = stack.enter_context(running_name_server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="e")))
        make_key(folder / "k.pem")
        text = CONFIG.format(issuer=issuer.address, redis=redis.url, key=folder / "k.pem")
        config = folder / "authz.yaml"
        config.write_text(text)
        cluster = PagesCluster(config, names, stack)
        for _ in range(REPLICAS):
            cluster.start()
        cluster.publish()
        where = Topology(
            authz=(Unix(f"{folder}/check.sock"),),
            pages=(Tcp(NAME, cluster.port),),
            admin=f"{folder}/admin",
            folder=str(folder),
        )
        files = render(edge.patient_settings(text), where)
        files["envoy.yaml"] += asks(names.port)
        envoy = stack.enter_context(running_envoy(files, folder, folder / "admin"))
        until(lambda: known(envoy) == set(cluster.pods), "every replica in Envoy")
        yield cluster, envoy


def known(envoy: RunningEnvoy) -> set[str]:
    """Return the addresses that Envoy has of the pages."""
    said = json.loads(envoy.ask("/clusters?format=json"))["cluster_statuses"]
    hosts = next((each["host_statuses"] for each in said if each["name"] == "pages"), ())
    return {each["address"]["socket_address"]["address"] for each in hosts}


def replace_all(cluster: PagesCluster, envoy: RunningEnvoy) -> None:
    """Replace every pod as soon as Envoy knows the new ones alone."""
    old = list(cluster.pods)
    new = {cluster.start() for _ in old}
    cluster.publish(*old)
    until(lambda: known(envoy) == new, f"{new} alone in Envoy")
    processes = [cluster.pods.pop(each) for each in old]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        assert process.wait(PATIENCE) == 0


def test_an_update_of_the_pages_fails_no_request() -> None:
    """Each answer is a replica's own, before, while and after they are replaced."""
    with running_pages() as (cluster, envoy):
        port, answers = envoy.port("gateway"), list[LoadAnswer]()

        async def client(done: asyncio.Event) -> None:
            found = LoadClient(port)
            while not done.is_set():
                answers.append(await found.send(ASKED))
                await asyncio.sleep(0.02)
            found.close()

        async def play() -> None:
            done = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(client(done))
                await asyncio.to_thread(replace_all, cluster, envoy)
                end = len(answers) + 50
                while len(answers) < end:  # noqa: ASYNC110 - clients tell nobody
                    await asyncio.sleep(0.01)
                done.set()

        asyncio.run(play())
        failures = [each for each in answers if each.status != 400]
        assert failures == [], explain_failures(failures, envoy)
