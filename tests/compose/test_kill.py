"""Every service is killed in turn, under load: what the caller sees is said, and never too much."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import pytest

from tests.compose import caller
from tests.compose.deployment import ComposeDeployment
from tests.compose.test_prometheus import query

OK: Final = "200"
# What a caller with a good token may see of each service's death besides 200. Of these none may be
# taken for a refusal of the token: a client would throw a good log-in away.
_SEEN: Final[Mapping[str, frozenset[str]]] = {
    "notes": frozenset({"server_unavailable"}),
    "authz": frozenset({"503"}),
    "envoy": frozenset({"no connection"}),
    "authz-pages": frozenset(),
    "redis": frozenset(),
    "authelia": frozenset(),
    "prometheus": frozenset(),
    "alertmanager": frozenset(),
    "files": frozenset(),
}
_MUST: Final = frozenset({"notes", "authz", "envoy"})
_TRIES: Final = 5


@pytest.mark.parametrize("service", list(_SEEN))
def test_a_service_dies_under_load(deployment: ComposeDeployment, service: str) -> None:
    """It comes back by itself; meanwhile the caller sees the documented answers and no other.

    How long a decision waits for what is away is tested with a clock of the tests' own
    (tests/ledger, tests/tokens); here the summary says it.
    """
    load = asyncio.run(_killed(deployment, service))
    refused = Counter({status: n for status, n in load.met.items() if status != OK})
    deployment.seen[service] = (
        f"killed: {dict(load.met)}, without a token {dict(load.strangers)}, "
        f"slowest {load.slowest:.2f} s"
    )

    assert load.met[OK] > 0
    assert refused.keys() <= _SEEN[service], load.explain()
    if service in _MUST:
        assert refused, "the load did not meet the death: nothing was proved"
    # Whatever is dead, nobody comes in without a token.
    assert load.strangers.keys() <= {"401", "503", "no connection"}, load.explain()


async def _killed(deployment: ComposeDeployment, service: str) -> caller.CallerLoad:
    _, token = await caller.log_in(deployment, "notes", "2026-07-28")
    load, stop = caller.CallerLoad(deployment, token), asyncio.Event()
    running = asyncio.create_task(load.run(stop))
    await _until(lambda: load.met[OK] > 10)
    for _ in range(_TRIES):
        await asyncio.to_thread(deployment.kill, service)
        again = load.met[OK]
        await _until(lambda: load.met[OK] > again + 10)  # noqa: B023 - awaited here
        if service not in _MUST or load.met.keys() != {OK}:
            break  # else it was there again before anybody asked
    stop.set()
    await running
    return load


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(300):
        while not holds():  # noqa: ASYNC110 - what is waited for is counted in other tasks
            await asyncio.sleep(0.05)


def test_what_redis_and_prometheus_keep_survives_their_death(deployment: ComposeDeployment) -> None:
    """A revocation and a sample that were there before are there after."""
    authz = ("/opt/authz/bin/authz",)
    config = ("--config", "/etc/authz/authz.yaml", "--json")
    deployment.inside("authz", *authz, "revoke", "--client", "ghost", "--force", *config)
    deployment.until(lambda: bool(query(deployment, 'up{job="authz"}')), "a sample")
    moment = query(deployment, 'timestamp(up{job="authz"})')[0]["value"]
    _written(deployment)

    for service in ("redis", "prometheus"):
        deployment.kill(service)

    assert "ghost" in deployment.inside("authz", *authz, "revocations", *config)
    assert query(deployment, 'up{job="authz"}', at=float(moment[1]))


def _written(deployment: ComposeDeployment) -> None:
    """Wait until Redis has written what it confirmed: within a second (appendfsync everysec)."""
    from tests.compose.test_redis import ask  # noqa: PLC0415 - beside its only use

    def done() -> bool:
        told = ask(deployment, "authz", "info", "persistence")
        return "aof_pending_bio_fsync:0" in told and "aof_buffer_length:0" in told

    deployment.until(done, "the append-only file")


def test_a_deployment_comes_back_as_a_whole(deployment: ComposeDeployment) -> None:
    """Envoy, authz and Redis start again at once: the log-in of before is still good."""
    _, token = asyncio.run(caller.log_in(deployment, "notes", "2026-07-28"))
    deployment.compose("restart", "-t", "5", "authz", "redis", "envoy")
    deployment.until_healthy("authz", "redis", "envoy")

    # Envoy, which started with the others, may see a moment later than the engine that authz is
    # there: its own health check is every second. A 503 is the only other answer.
    answers = list[int]()

    def admitted() -> bool:
        answers.append(asyncio.run(caller.once(deployment, "notes", token)).status_code)
        return answers[-1] == int(OK)

    deployment.until(admitted, "the log-in of before to be admitted")
    assert set(answers) <= {int(OK), 503}
