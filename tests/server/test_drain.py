"""What the end of a worker costs through the real Envoy: nothing where it was told to end.

The longer form, figures and all:

    python -m tests.server.test_drain [requests]
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.server.test_worker_pool import victim, wait_all_ready
from tests.support.load import LoadedEdge, LoadResult, run_load, running_edge
from tests.support.service import KeyIssuer, ServiceProcess, running_issuer, running_service
from tests.support.transports import installed
from tests.support.valkey import valkey

# The notice is what it takes Envoy to know (two health checks of one second), and a little; the
# deadline, which Envoy's time-out follows, is longer than a busy machine needs for a check.
CONFIG = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, max_lifetime: 30d, deadline: 30s}}
gateway: {{url: https://mcp.example.test, listen: '127.0.0.1:0', address_calls: 1000000/second,
          refusals: http_status}}
redis: {{url: '{redis}'}}
telemetry: {{log: json}}
service: {{transport: {transport}, workers: {workers}, drain_notice: 2500ms}}
servers:
  files:
    upstream: http://127.0.0.1:9/mcp
    limits: [{{per: [client, user], rate: 100000000/minute}}]
"""
ENV = {"PATH": os.environ["PATH"]}
IN_FLIGHT = 16
# How often Envoy has left a worker out.
LEFT_OUT = "cluster.authz.outlier_detection.ejections_enforced_total"
# Of each client after an answer: some three hundred requests a second, more of which are late where
# the machine has no time besides to start workers.
PAUSE = 0.05


@pytest.fixture(params=["ngh2", "pyvoy", "grpcio"], scope="module")
def transport(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


@pytest.fixture(scope="module")
def issuer() -> Iterator[KeyIssuer]:
    with running_issuer() as one:
        yield one


@pytest.fixture(scope="module")
def pool(issuer: KeyIssuer, transport: str) -> Iterator[tuple[ServiceProcess, LoadedEdge]]:
    with running_pool(issuer, transport) as both:
        yield both


@contextmanager
def running_pool(issuer: KeyIssuer, transport: str) -> Iterator[tuple[ServiceProcess, LoadedEdge]]:
    """Run two workers under one process, and Envoy in front of them."""
    with ExitStack() as stack:
        redis = stack.enter_context(valkey())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="d")))
        config = CONFIG.format(
            issuer=issuer.address, redis=redis.url, transport=transport, workers=2
        )
        service = stack.enter_context(running_service(folder, config, ENV, 2))
        checks = [folder / "check-0.sock", folder / "check-1.sock"]
        edge = stack.enter_context(running_edge(config, checks))
        wait_all_ready(service, 2)
        edge.wait_healthy(2)
        yield service, edge


@contextmanager
def running_pair(
    issuer: KeyIssuer, transport: str
) -> Iterator[tuple[list[ServiceProcess], LoadedEdge]]:
    """Run two services of one worker each, and Envoy in front of both."""
    with ExitStack() as stack:
        redis = stack.enter_context(valkey())
        config = CONFIG.format(
            issuer=issuer.address, redis=redis.url, transport=transport, workers=1
        )
        services, checks = [], []
        for _ in range(2):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="d")))
            services.append(stack.enter_context(running_service(folder, config, ENV)))
            services[-1].wait_ready()
            checks.append(folder / "check.sock")
        edge = stack.enter_context(running_edge(config, checks))
        edge.wait_healthy(2)
        yield services, edge


def during(
    edge: LoadedEdge,
    begin: Callable[[], object],
    over: Callable[[], bool],
    least: int,
    pause: float = PAUSE,
) -> LoadResult:
    """Send requests from before something begins until it is over."""

    async def play() -> LoadResult:
        done = asyncio.Event()
        running = asyncio.create_task(run_load(edge.port, done, least, IN_FLIGHT, pause))
        await asyncio.sleep(0.2)
        begin()
        while not over():  # noqa: ASYNC110 - another process calls nobody
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        done.set()
        return await running

    return asyncio.run(play())


def rolled(service: ServiceProcess) -> Callable[[], bool]:
    before = len(service.events("rolling_restart_done"))
    return lambda: len(service.events("rolling_restart_done")) > before


@pytest.mark.attack("sigterm-under-load")
def test_a_rolling_restart_costs_no_request(pool: tuple[ServiceProcess, LoadedEdge]) -> None:
    """Both workers are replaced under load, and every request is answered as it should be."""
    service, edge = pool

    found = during(edge, lambda: service.signal(signal.SIGUSR2), rolled(service), 500)

    assert service.events("rolling_restart_stopped") == []
    assert found.failures == [], found.explain(edge.envoy, service)
    assert found.good.keys() == {200}


@pytest.mark.attack("worker-killed")
def test_a_killed_worker_costs_no_more_than_it_held(
    pool: tuple[ServiceProcess, LoadedEdge],
) -> None:
    """Who was with the dead worker gets a 503; nobody does once Envoy has left it out, and nobody
    gets a wrong verdict.
    """
    service, edge = pool
    edge.wait_healthy(2)
    killed, left_out = len(service.events("worker_ended")), edge.envoy.stat(LEFT_OUT)

    found = during(
        edge,
        lambda: os.kill(victim(service), signal.SIGKILL),
        lambda: (
            len(service.events("worker_ended")) > killed and edge.envoy.stat(LEFT_OUT) > left_out
        ),
        500,
    )
    # How many that is depends on when Envoy is given time to see it: no figure holds always.
    assert {each.status for each in found.failures} <= {503}, found.explain(edge.envoy, service)

    found = during(edge, lambda: None, lambda: True, 200)
    assert found.failures == [], found.explain(edge.envoy, service)


@pytest.mark.attack("sigterm-under-load")
def test_sigterm_of_one_of_two_costs_no_request(issuer: KeyIssuer, transport: str) -> None:
    """One of two services ends under load, and every request is answered as it should be."""
    with running_pair(issuer, transport) as (services, edge):
        ending = services[0]
        found = during(
            edge,
            lambda: ending.signal(signal.SIGTERM),
            lambda: ending.process.poll() is not None,
            500,
        )

        assert ending.process.returncode == 0
        assert found.failures == [], found.explain(edge.envoy, *services)
        assert found.good.keys() == {200}


def load_runs(least: int) -> None:
    """Do the same with more requests, and print what came of it."""
    with running_issuer() as issuer:
        for transport in ("ngh2", "pyvoy", "grpcio"):
            with running_pair(issuer, transport) as (services, edge):
                one = services[0]
                _tell(
                    f"{transport}: SIGTERM of one of two",
                    during(
                        edge,
                        lambda one=one: one.signal(signal.SIGTERM),  # type: ignore[misc]
                        lambda one=one: one.process.poll() is not None,  # type: ignore[misc]
                        least,
                        0,
                    ),
                )
            with running_pool(issuer, transport) as (service, edge):
                begin = time.monotonic()
                found = during(
                    edge,
                    lambda service=service: service.signal(signal.SIGUSR2),  # type: ignore[misc]
                    rolled(service),
                    least,
                    0,
                )
                _tell(f"{transport}: rolling restart of two", found)
                print(f"    {time.monotonic() - begin:.0f} s")
                wait_all_ready(service, 2)
                edge.wait_healthy(2)
                killed = during(
                    edge,
                    lambda service=service: os.kill(  # type: ignore[misc]
                        victim(service), signal.SIGKILL
                    ),
                    lambda service=service: bool(service.events("worker_ended")),  # type: ignore[misc]
                    least,
                    0,
                )
                _tell(f"{transport}: SIGKILL of one of two", killed)


def _tell(what: str, found: LoadResult) -> None:
    total = found.good.total() + found.bad.total()
    print(f"{what}: {total} requests, {found.failed} failed; {dict(found.good)} {dict(found.bad)}")
    print(
        f"    slowest {max(found.times) * 1000:.0f} ms, failing for {found.longest_failing:.2f} s"
    )


if __name__ == "__main__":
    load_runs(int(sys.argv[1]) if sys.argv[1:] else 10_000)
