"""Workers that come and go, and the sum that never goes back."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from authz.server.health import Health
from authz.server.metrics_aggregator import MetricsAggregator, WorkerMetrics
from authz.server.status import IDENTITY_KEYS, Status
from authz.telemetry.metrics import Metrics
from tests.server.test_status import get


class Life:
    """One worker's status listener, in a place that others had before."""

    def __init__(self, place: Path) -> None:
        self.metrics, self.health = Metrics(), Health()
        self._listener = Status(self.metrics.registry, self.health, str(place))
        self._listener.start()

    def count(self, number: int) -> None:
        self.metrics.decisions.labels("files", "allowed").inc(number)

    def leave(self, final_metrics: Path | None = None) -> None:
        self._listener.stop()
        if final_metrics is not None:
            final_metrics.write_bytes(generate_latest(self.metrics.registry))


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="t") as name:
        yield Path(name)


@pytest.fixture
def aggregator(folder: Path) -> Iterator[MetricsAggregator]:
    slots = [WorkerMetrics(folder / "0"), WorkerMetrics(folder / "1")]
    one = MetricsAggregator(slots, CollectorRegistry(), ("127.0.0.1", 0))
    one.start()
    yield one
    one.stop()


def counted(aggregator: MetricsAggregator) -> float:
    _, text = get(aggregator.port, "/metrics")
    name = 'authz_decisions_total{reason="allowed",server="files"} '
    return sum(float(line[len(name) :]) for line in text.splitlines() if line.startswith(name))


def test_the_sum_over_two(folder: Path, aggregator: MetricsAggregator) -> None:
    """Prometheus sees one service."""
    lives = [Life(folder / name) for name in "01"]
    for slot, life, number in zip(aggregator._slots, lives, (2, 3), strict=True):
        slot.begin()
        life.count(number)

    assert counted(aggregator) == 5
    for life in lives:
        life.leave()


@pytest.mark.parametrize("told", [True, False], ids=["drained", "killed"])
def test_a_worker_that_is_gone_stays_in_the_sum(
    folder: Path, aggregator: MetricsAggregator, told: bool
) -> None:
    """Drained, all that it counted; killed, all up to the last look."""
    slot, final_metrics = aggregator._slots[0], folder / "counts"
    life = Life(folder / "0")
    slot.begin()
    life.count(2)
    assert counted(aggregator) == 2
    life.count(10)

    life.leave(final_metrics if told else None)
    assert counted(aggregator) == 2
    slot.end(final_metrics)

    expected = 12 if told else 2
    assert counted(aggregator) == expected
    assert not final_metrics.exists()
    again = Life(folder / "0")
    slot.begin()
    again.count(1)
    assert counted(aggregator) == expected + 1
    again.leave()


def test_what_a_worker_runs_is_known(folder: Path, aggregator: MetricsAggregator) -> None:
    """The digest that it showed last; nothing of one that is gone."""
    slot = aggregator._slots[0]
    assert slot.config == ""
    life = Life(folder / "0")
    slot.begin()
    for digest in ("0123456789ab-0", "0123456789ab-1"):
        life.metrics.show_config(digest)
        slot.scrape()
        assert slot.config == digest

    life.leave()
    slot.end(folder / "counts")

    assert slot.config == ""


@pytest.mark.attack("counters-go-back")
def test_looks_at_the_same_time_do_not_overtake_each_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is asked by one at a time, so that no older answer takes a newer one's place; who
    comes meanwhile is served by a look that began afterwards.
    """
    slot = WorkerMetrics(folder / "0")
    slot.begin()
    began, go_on = threading.Semaphore(0), threading.Semaphore(0)
    asked: list[int] = []

    def answer(place: Path, page: str) -> tuple[int, bytes]:
        asked.append(len(asked) + 1)
        text = f"# TYPE a_total counter\na_total {asked[-1]}\n"
        began.release()
        assert go_on.acquire(timeout=60)
        return 200, text.encode()

    monkeypatch.setattr("authz.server.metrics_aggregator.ask", answer)
    scrapers = [threading.Thread(target=slot.scrape) for _ in range(4)]
    scrapers[0].start()
    assert began.acquire(timeout=60)
    for each in scrapers[1:]:
        each.start()
    assert not began.acquire(timeout=0.05)  # nobody else asks while the first one waits
    go_on.release()
    assert began.acquire(timeout=60)
    go_on.release(len(scrapers))
    for each in scrapers:
        each.join(60)

    assert slot.counts()[1]["a_total"].values == {"a_total": float(len(asked))}


def test_ready_where_any_is(folder: Path, aggregator: MetricsAggregator) -> None:
    """Envoy asks those that are ready; each worker's state is told."""
    assert get(aggregator.port, "/readyz")[0] == 503
    life = Life(folder / "1")
    aggregator._slots[1].begin()
    life.health.set("keys", "not loaded yet")
    code, body = get(aggregator.port, "/readyz")
    assert code == 503
    assert json.loads(body)["parts"] == {
        "worker 0 worker": "it does not run",
        "worker 1 keys": "not loaded yet",
    }

    life.health.set("keys", "")

    code, body = get(aggregator.port, "/readyz")
    assert code == 200
    assert json.loads(body)["workers"] == {"0": False, "1": True}
    life.leave()


def test_a_worker_that_does_not_answer(aggregator: MetricsAggregator) -> None:
    """It is not ready, and what it counted before holds."""
    aggregator._slots[0].begin()

    assert "it does not answer" in get(aggregator.port, "/readyz")[1]
    assert counted(aggregator) == 0


def test_healthz_is_about_the_process_above(aggregator: MetricsAggregator) -> None:
    """It lives whatever its workers do; and there are no other pages."""
    assert get(aggregator.port, "/healthz") == (200, "ok\n")
    assert get(aggregator.port, "/")[0] == 404
    assert get(aggregator.port, "/metrics", "POST")[0] == 405


def test_the_keys_are_of_any_worker_that_answers(
    folder: Path, aggregator: MetricsAggregator
) -> None:
    """MCP servers ask the process above; a worker that is gone hides no key."""
    assert get(aggregator.port, IDENTITY_KEYS)[0] == 404
    one = Status(Metrics().registry, Health(), str(folder / "1"), lambda: b'{"keys": []}')
    one.start()
    try:
        assert get(aggregator.port, IDENTITY_KEYS) == (200, '{"keys": []}')
    finally:
        one.stop()
