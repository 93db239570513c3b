"""Two replicas of the pages behind one Envoy: a log-in is of no one process."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from authz.config.endpoints import Tcp
from authz.config.load import load
from authz.envoy.files import RENDERED_FILE, replace_files
from authz.envoy.render import Topology, render_watched
from authz.envoy.render.settings import topology_of
from authz.local import running as running_up
from authz.local.services import pages_service
from authz.local.state import State
from authz.process.service import ServiceSpec
from authz_demo.front_door_scenario import require_step_up, run_front_door_scenario
from tests.support.demo_environment import RunningEnvironment, running_environment
from tests.support.envoy import UnixConnection
from tests.support.ports import held_port
from tests.support.service import until


def quiet(_: str) -> None:
    """Say nothing."""


@contextmanager
def another_replica(configuration: Path, env: dict[str, str], at: Tcp) -> Iterator[None]:
    """Run `authz pages` with the environment of the first."""
    command = [sys.executable, "-m", "authz", "pages", "-c", str(configuration)]
    command += ["--listen", str(at), "--status", f"127.0.0.1:{held_port()}"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)

    def answers() -> bool:
        assert process.poll() is None
        with suppress(OSError), socket.create_connection((at.host, at.port), 1):
            return True
        return False

    try:
        until(answers, "the second replica")
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0


def lead_to(running: RunningEnvironment, at: Tcp) -> Topology:
    """Have Envoy follow to a further replica, as `authz envoy-config --pages` does."""
    folder = running.state / "envoy"
    settings = load(running.environment.configuration, os.environ, secrets=False, authorities=True)
    there = topology_of((folder / RENDERED_FILE).read_text("utf-8"))
    where = replace(there, pages=(*there.pages, at))
    done = replace_files(folder, render_watched(settings, where), Path(where.stats))
    assert not done.refused
    return where


def requests(where: Topology) -> list[int]:
    """Return how many requests each replica of the pages has had from Envoy."""
    connection = UnixConnection(Path(where.admin))
    try:
        connection.request("GET", "/clusters?format=json")
        said = json.loads(connection.getresponse().read())["cluster_statuses"]
    finally:
        connection.close()
    (hosts,) = (each["host_statuses"] for each in said if each["name"] == "pages")
    return [
        int(stat.get("value", 0))
        for host in hosts
        for stat in host["stats"]
        if stat["name"] == "rq_total"
    ]


def test_the_whole_walk_over_two_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register, consent, log in with TOTP, step up, refresh, revoke: each where Envoy sends it."""
    environments = list[dict[str, str]]()

    def noting(state: State, configuration: Path, env: dict[str, str]) -> ServiceSpec:
        environments.append(env)
        return pages_service(state, configuration, env)

    monkeypatch.setattr(running_up, "pages_service", noting)
    folder = Path(tempfile.mkdtemp(prefix="tp-"))
    try:
        with running_environment(
            folder / "d", change=require_step_up, login="front_door"
        ) as running:
            at = Tcp("127.0.0.1", held_port())
            configuration = running.environment.configuration
            with another_replica(configuration, environments[0], at):
                where = lead_to(running, at)
                assert asyncio.run(run_front_door_scenario(running.environment, quiet)) == []
                asked = requests(where)
                assert len(asked) == len(where.pages)
                assert min(asked) > 0, asked
    finally:
        shutil.rmtree(folder, ignore_errors=True)
