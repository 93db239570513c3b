"""A rolling update and a node that is emptied, with processes: no request fails.

What a cluster does is done here in its order: a new replica is started and ready, its address comes
into the name and the old one's goes; the old one answers on until Envoy knows the new one (its
preStop), is told to end and drains. That the seconds of the chart are enough for it is in
test_chart.py: a busy machine takes any time.
"""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from authz.config.endpoints import Tcp, Unix
from authz.envoy.render import Topology, render
from tests.kubernetes.name_server import NameServer, asks, running_name_server
from tests.support import edge
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.load import LoadedEdge, LoadResult, run_load, upstream
from tests.support.ports import held_port
from tests.support.service import (
    PATIENCE,
    ServiceProcess,
    running_issuer,
    running_service,
    until,
)
from tests.support.valkey import valkey

NAME = "authz-authz.mcp.svc"
CONFIG = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, max_lifetime: 30d, deadline: 30s}}
gateway: {{url: https://mcp.example.test, listen: '127.0.0.1:0', address_calls: 1000000/second,
          refusals: http_status}}
redis: {{url: '{redis}'}}
telemetry: {{log: json}}
servers:
  files:
    upstream: http://127.0.0.1:9/mcp
    limits: [{{per: [client, user], rate: 100000000/minute}}]
"""
ENV = {"PATH": os.environ["PATH"]}
PAUSE = 0.02
REPLICAS = 2


@dataclass
class Cluster:
    """Hold what of a cluster a rolling update needs.

    Attributes:
        names: DNS.
        port: of Check, of every pod.
        pods: the replicas that run, by address.
    """

    config: str
    names: NameServer
    stack: ExitStack
    port: int = field(default_factory=held_port)
    pods: dict[str, ServiceProcess] = field(default_factory=dict)
    _made: int = 1

    def start(self) -> str:
        """Start a pod, and return its address once its readiness probe succeeds."""
        self._made += 1
        address = f"127.0.0.{self._made}"
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="k")))
        options = ["--check", f"{address}:{self.port}"]
        pod = self.stack.enter_context(running_service(folder, self.config, ENV, options=options))
        pod.wait_ready()
        self.pods[address] = pod
        return address

    def publish(self, *leaving: str) -> None:
        """Have the name lead to every pod that does not end."""
        self.names.names[NAME] = tuple(each for each in self.pods if each not in leaving)


@contextmanager
def running_cluster() -> Iterator[tuple[Cluster, LoadedEdge]]:
    with ExitStack() as stack:
        redis, issuer = stack.enter_context(valkey()), stack.enter_context(running_issuer())
        names = stack.enter_context(running_name_server())
        config = CONFIG.format(issuer=issuer.address, redis=redis.url)
        cluster = Cluster(config, names, stack)
        for _ in range(REPLICAS):
            cluster.start()
        cluster.publish()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="e")))
        where = Topology(
            authz=(Tcp(NAME, cluster.port),),
            admin=f"{folder}/admin",
            folder=str(folder),
            upstreams={"files": Unix(str(stack.enter_context(upstream(folder))))},
        )
        files = render(edge.patient_settings(config), where)
        files["envoy.yaml"] += asks(names.port)
        envoy = stack.enter_context(running_envoy(files, folder, folder / "admin"))
        found = LoadedEdge(envoy, envoy.port("gateway"))
        found.wait_healthy(REPLICAS)
        yield cluster, found


def healthy(envoy: RunningEnvoy) -> set[str]:
    """Return the addresses that Envoy asks."""
    said = json.loads(envoy.ask("/clusters?format=json"))["cluster_statuses"]
    (hosts,) = (each["host_statuses"] for each in said if each["name"] == "authz")
    return {
        each["address"]["socket_address"]["address"]
        for each in hosts
        if set(each["health_status"]) <= {"eds_health_status"}
    }


def replace_all(cluster: Cluster, edge: LoadedEdge) -> None:
    """Replace every pod as soon as Envoy knows the new ones: the fastest that an update can be.

    Each new one is ready before its predecessor ends (maxSurge 1, maxUnavailable 0).
    """
    old = list(cluster.pods)
    new = {cluster.start() for _ in old}
    cluster.publish(*old)  # they are deleted: they end, and are in no name any more
    until(lambda: new <= healthy(edge.envoy), f"{new} in Envoy")
    processes = [cluster.pods.pop(each).process for each in old]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        assert process.wait(PATIENCE) == 0


def under_load(edge: LoadedEdge, step: Callable[[], None]) -> LoadResult:
    """Send requests from before a step until after it."""

    async def play() -> LoadResult:
        done = asyncio.Event()
        running = asyncio.create_task(run_load(edge.port, done, 200, width=8, pause=PAUSE))
        try:
            await asyncio.to_thread(step)
        finally:
            done.set()
            found = await running
        return found

    return asyncio.run(play())


def test_an_update_fails_no_request() -> None:
    """Every replica is replaced under load; nothing fails, and every refusal stays one."""
    with running_cluster() as (cluster, edge):
        first, services = set(cluster.pods), list(cluster.pods.values())
        found = under_load(edge, partial(replace_all, cluster, edge))
        services += cluster.pods.values()
        assert not first & set(cluster.pods)
        assert found.failed == 0, found.explain(edge.envoy, *services)
        assert found.good[200] > 0
        assert set(found.bad) == {401}, found.bad
