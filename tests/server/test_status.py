"""The listener for Prometheus and probes: three pages, nothing else."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from authz import __version__
from authz.envoy.codec import AUTHORIZATION
from authz.server.health import Health
from authz.server.status import IDENTITY_KEYS, Status
from authz.telemetry.metrics import Metrics


@pytest.fixture
def status() -> Iterator[tuple[Status, Health, Metrics]]:
    metrics, health = Metrics(), Health()
    listener = Status(metrics.registry, health, ("127.0.0.1", 0))
    listener.start()
    yield listener, health, metrics
    listener.stop()


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_readiness_names_what_is_missing(status: tuple[Status, Health, Metrics]) -> None:
    """/readyz is 503 with the part and its problem until every part is ready."""
    listener, health, _ = status
    health.set("keys", "not loaded yet")

    code, body = get(listener.port, "/readyz")
    assert code == 503
    assert json.loads(body) == {
        "ready": False,
        "config": "",
        "version": __version__,
        "instance": health.instance,
        "parts": {"keys": "not loaded yet"},
    }

    health.set("keys", "")
    assert get(listener.port, "/readyz")[0] == 200


def test_alive_is_not_ready(status: tuple[Status, Health, Metrics]) -> None:
    """/healthz says that the process answers, whatever its parts say."""
    assert get(status[0].port, "/healthz") == (200, "ok\n")


def test_metrics_are_prometheus_text(status: tuple[Status, Health, Metrics]) -> None:
    """/metrics shows what was counted."""
    status[2].decisions.labels("files", "allowed").inc()

    code, body = get(status[0].port, "/metrics")

    assert code == 200
    assert 'authz_decisions_total{reason="allowed",server="files"} 1.0' in body


@pytest.mark.attack("pages-on-another-listener")
@pytest.mark.parametrize(
    "path",
    ["/", "/metrics/", "/files", "/register", "/.well-known/x", "/authorize", "/token",
     "/authz/consent", "/authz/log-ins", "/authz/step-up", "/stats", "/config_dump",
     f"/{AUTHORIZATION}/Check"],
)  # fmt: skip
def test_nothing_else_is_here(status: tuple[Status, Health, Metrics], path: str) -> None:
    """No other path of the product answers on this listener."""
    assert get(status[0].port, path)[0] == 404


def test_only_get(status: tuple[Status, Health, Metrics]) -> None:
    """Probes and scrapes read; nothing can be posted."""
    assert get(status[0].port, "/metrics", "POST")[0] == 405


def test_the_keys_of_the_signed_identity() -> None:
    """The set that is in force, as a reload leaves it; where nothing is signed there is none."""
    in_force: list[bytes | None] = [None]
    listener = Status(Metrics().registry, Health(), ("127.0.0.1", 0), lambda: in_force[0])
    listener.start()
    try:
        assert get(listener.port, IDENTITY_KEYS)[0] == 404
        for keys in (b'{"keys": []}', b'{"keys": [1]}'):
            in_force[0] = keys
            assert get(listener.port, IDENTITY_KEYS) == (200, keys.decode())
    finally:
        listener.stop()
