"""Two replicas, and an upgrade of the image: one after the other, and no request fails meanwhile.

The last file of this folder: what it changes of the deployment stays.
"""

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest

from tests.compose import caller
from tests.compose.deployment import ComposeDeployment, init
from tests.compose.images import AUTHZ, NEXT, SAMPLES

_REPLICAS = ("authz-2", "authz")
_LABEL = "authz.next"


@pytest.fixture(scope="module")
def replicas(
    deployment: ComposeDeployment, tmp_path_factory: pytest.TempPathFactory
) -> ComposeDeployment:
    """The deployment with a second replica, as docs/upgrade.md adds one, and a newer image."""
    for name in (AUTHZ, SAMPLES):
        context = tmp_path_factory.mktemp("next")
        (context / "Dockerfile").write_text(f"FROM {name}\nLABEL {_LABEL}=true\n")
        deployment.engine.build(f"{name.rpartition(':')[0]}:{NEXT}", context)
    compose = deployment.folder / "docker-compose.yml"
    compose.rename(compose.with_name("docker-compose.old"))
    init(deployment.folder, "--replicas", "2")
    deployment.probe_often()
    init(deployment.folder, "--render")
    deployment.compose("up", "-d", "--no-deps", "authz-2")
    deployment.until_healthy("authz-2")
    return deployment


def test_an_upgrade_of_the_image_fails_no_request(replicas: ComposeDeployment) -> None:
    """Calls with a token and without, from before the first replica is replaced to after the last:
    each gets what it got before; and `authz status` names both.
    """
    load = asyncio.run(_upgraded(replicas))
    replicas.seen["upgrade"] = f"{dict(load.met)}, without a token {dict(load.strangers)}"

    assert load.failures == [], load.explain()
    assert load.met.keys() == {"200"}
    for service in _REPLICAS:
        assert replicas.state(service)["Config"]["Labels"][_LABEL] == "true"
        replicas.until(partial(_tells_both, replicas, service), f"status in {service}")


def _tells_both(deployment: ComposeDeployment, service: str) -> bool:
    """Tell whether `authz status` names both replicas, each with what is written in force.

    A replica is healthy before the last of its workers is up.
    """
    status = ("/opt/authz/bin/authz", "status", "-c", "/etc/authz/authz.yaml", "--json")
    said = json.loads(deployment.inside(service, *status, check=False))
    programs = said["programs"]
    return {each["config"] for each in programs} == {said["written"]} and {
        "authz serve at authz", "authz serve at authz-2"
    } <= {each["name"] for each in programs}  # fmt: skip


async def _upgraded(deployment: ComposeDeployment) -> caller.CallerLoad:
    _, token = await caller.log_in(deployment, "notes", "2026-07-28")
    load, stop = caller.CallerLoad(deployment, token), asyncio.Event()
    running = asyncio.create_task(load.run(stop))
    await _more(load)
    await asyncio.to_thread(_upgrade, deployment)
    await _more(load)
    stop.set()
    await running
    return load


def _upgrade(deployment: ComposeDeployment) -> None:
    """Do what docs/upgrade.md says."""
    env: Path = deployment.folder / ".env"
    lines = env.read_text().splitlines()
    env.write_text(
        "".join(
            f"AUTHZ_VERSION={NEXT}\n" if line.startswith("AUTHZ_VERSION=") else f"{line}\n"
            for line in lines
        )
    )
    for service in _REPLICAS:
        deployment.compose("up", "-d", "--no-deps", service)
        deployment.until_healthy(service)


async def _more(load: caller.CallerLoad) -> None:
    before = load.met["200"]
    async with asyncio.timeout(300):
        while load.met["200"] < before + 20:  # noqa: ASYNC110 - counted in other tasks
            await asyncio.sleep(0.05)
