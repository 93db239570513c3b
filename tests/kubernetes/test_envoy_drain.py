"""The end of one of two Envoys, by the chart's own preStop: no request fails."""

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from authz.config.endpoints import Tcp, Unix
from authz.envoy.files import ENVOY_FILE
from authz.envoy.render import Topology, render
from tests.kubernetes.manifests import manifests
from tests.kubernetes.test_rolling import CONFIG, ENV
from tests.support import edge
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.load import LoadAnswer, LoadClient, explain_failures, post, token, upstream
from tests.support.ports import held_port
from tests.support.service import running_issuer, running_service
from tests.support.valkey import valkey
from tools.chart import PLAIN


@dataclass(frozen=True, slots=True)
class DrainedEdge:
    """Hold one of the two.

    Attributes:
        port: of the gateway.
        drain: where it is told to empty itself.
    """

    envoy: RunningEnvoy
    port: int
    drain: int


@contextmanager
def two_envoys() -> Iterator[tuple[DrainedEdge, DrainedEdge]]:
    with ExitStack() as stack:
        redis, issuer = stack.enter_context(valkey()), stack.enter_context(running_issuer())
        config = CONFIG.format(issuer=issuer.address, redis=redis.url)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s")))
        stack.enter_context(running_service(folder, config, ENV)).wait_ready()
        where = Topology(
            authz=(Unix(str(folder / "check.sock")),),
            upstreams={"files": Unix(str(stack.enter_context(upstream(folder))))},
        )
        found = []
        for _ in range(2):
            own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="e")))
            drain = held_port()
            at = replace(
                where, admin=f"{own}/admin", folder=str(own), drain=Tcp("127.0.0.1", drain)
            )
            files = render(edge.patient_settings(config), at)
            assert set(files) == {ENVOY_FILE}
            envoy = stack.enter_context(running_envoy(files, own, own / "admin"))
            envoy.wait_for("cluster.authz.membership_healthy", 1)
            found.append(DrainedEdge(envoy, envoy.port("gateway"), drain))
        yield found[0], found[1]


def run_pre_stop(edge: DrainedEdge) -> None:
    """Do what the chart has the kubelet do, without waiting afterwards."""
    bash, option, line = manifests(PLAIN.file).container("envoy")["lifecycle"]["preStop"]["exec"][
        "command"
    ]
    said, _, seconds = line.rpartition("sleep ")
    assert int(seconds) > 0
    said = said.replace("127.0.0.1/9467", f"127.0.0.1/{edge.drain}")
    # The end of the answer in place of the pause, which only has to be longer.
    command = [bash, option, f"{said} read -r status <&3; [[ $status == *' 200 '* ]]"]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, check=False)
    assert done.returncode == 0


def test_an_envoy_that_ends_fails_no_request() -> None:
    """Clients keep their connections until an answer closes them, and then find the other one.

    A load balancer that has not heard of it yet still gets answers; at the end nobody is left.
    """
    with two_envoys() as (first, second):
        gateway, answers = {"port": first.port}, list[LoadAnswer]()
        raw = post(token())

        async def client(done: asyncio.Event) -> None:
            found = LoadClient(gateway["port"])
            while not done.is_set():
                found.port = gateway["port"]
                answers.append(await found.send(raw))
                await asyncio.sleep(0.005)
            found.close()

        async def play() -> None:
            done = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(client(done))
                await reached(100)
                await asyncio.to_thread(run_pre_stop, first)
                await reached(50)  # the load balancer still leads to it
                gateway["port"] = second.port
                await asyncio.to_thread(
                    first.envoy.wait_for, "http.gateway.downstream_cx_active", 0
                )
                first.envoy.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(first.envoy.process.wait, 60)
                await reached(100)
                done.set()

        async def reached(more: int) -> None:
            end = len(answers) + more
            while len(answers) < end:  # noqa: ASYNC110 - clients tell nobody
                await asyncio.sleep(0.01)

        asyncio.run(play())
        failures = [each for each in answers if each.status != 200]
        assert failures == [], explain_failures(failures, second.envoy)
