"""Metrics over four workers: added up at a scrape, against prometheus-client's multiprocess mode.

    python -m bench.metrics [ROUNDS]

Added up is what authz does: each worker counts in its own memory and answers on a Unix socket, and
the process above adds the answers up. In multiprocess mode each worker counts in memory-mapped
files, and whoever is scraped reads all of them. The figures of docs/decisions/0016 are of this.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from itertools import cycle
from pathlib import Path
from typing import IO, cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from authz.server.metrics_aggregator import MetricsAggregator, WorkerMetrics
from authz.server.status import Page, StatusPages
from authz.telemetry.metrics import Metrics
from bench.result import Found, compare, show

WORKERS = 4
RESTARTS = 20
SCRAPES = 50
OBSERVATIONS = 100_000
LATE = 1000  # observations since the last scrape of a worker that is killed
FIGURES = ("observation ns", "scrape ms", f"after {RESTARTS} deaths", f"lost of {LATE}", "series")
_LABELS = [(f"server-{n}", reason) for n in range(5) for reason in ("allowed", "rate_limited")]
_DECISIONS = re.compile(r"^authz_decisions_total\{.*\} (\S+)$", re.MULTILINE)


def work(address: str) -> None:
    """Be a worker: make as many observations as each line says, and print what one cost."""
    metrics = Metrics()
    metrics.follow(lambda: 1.0, lambda: "redis")

    def page() -> Page:
        return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(metrics.registry)

    pages = StatusPages({"/metrics": page}, address)
    pages.start()
    labels = cycle(_LABELS)
    for line in sys.stdin:
        began = time.perf_counter_ns()
        for _ in range(int(line)):
            metrics.decisions.labels(*next(labels)).inc()
            metrics.duration.observe(0.0007)
        print((time.perf_counter_ns() - began) / int(line), flush=True)
    pages.stop()


class BenchWorker:
    """A worker process."""

    def __init__(self, address: Path, environment: dict[str, str]) -> None:
        """Start it; it has made one observation of every kind."""
        self.address = address
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.metrics", "work", str(address)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.observe(len(_LABELS))

    def observe(self, number: int) -> float:
        """Let it make observations; return the nanoseconds of one."""
        stdin, stdout = cast("IO[str]", self.process.stdin), cast("IO[str]", self.process.stdout)
        stdin.write(f"{number}\n")
        stdin.flush()
        return float(stdout.readline())

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill it."""
        self.process.send_signal(how)
        self.process.communicate()


class AddedUp:
    """The present way."""

    def __init__(self, folder: Path) -> None:
        """Have a place for each worker."""
        self.environment: dict[str, str] = {}
        self.places = [WorkerMetrics(folder / str(n)) for n in range(WORKERS)]
        self.pages: StatusPages = MetricsAggregator(
            self.places, CollectorRegistry(), ("127.0.0.1", 0)
        )

    def begun(self, number: int) -> None:
        self.places[number].begin()

    def ended(self, number: int, _: int) -> None:
        self.places[number].end(Path("/nonexistent"))


class Multiprocess:
    """prometheus-client's multiprocess mode."""

    def __init__(self, folder: Path) -> None:
        """Have a folder for the files."""
        self.files = folder / "files"
        self.files.mkdir()
        self.environment = {"PROMETHEUS_MULTIPROC_DIR": str(self.files)}
        self.pages = StatusPages({"/metrics": self._page}, ("127.0.0.1", 0))

    def _page(self) -> Page:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self.files))  # type: ignore[no-untyped-call]
        return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)

    def begun(self, number: int) -> None:
        """Nothing is told: the files are found by their names."""

    def ended(self, _: int, pid: int) -> None:
        mark_process_dead(pid, path=str(self.files))  # type: ignore[no-untyped-call]


Way = AddedUp | Multiprocess


@contextmanager
def served(way: Way) -> Iterator[Callable[[], str]]:
    """Yield what scrapes it."""
    way.pages.start()
    url = f"http://127.0.0.1:{way.pages.port}/metrics"

    def scrape() -> str:
        with urllib.request.urlopen(url) as answer:
            return str(answer.read().decode())

    try:
        yield scrape
    finally:
        way.pages.stop()


def milliseconds(scrape: Callable[[], str]) -> float:
    """Return the median of some scrapes."""
    found = []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        scrape()
        found.append((time.perf_counter() - began) * 1000)
    return statistics.median(found)


def counted(text: str) -> float:
    """Return all decisions of an exposition."""
    return sum(map(float, _DECISIONS.findall(text)))


def measure(kind: type[AddedUp] | type[Multiprocess]) -> list[float]:
    """Return the figures of one way."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        way = kind(folder)
        workers = [BenchWorker(folder / str(n), way.environment) for n in range(WORKERS)]
        for number in range(WORKERS):
            way.begun(number)
        with served(way) as scrape:
            cost = workers[0].observe(OBSERVATIONS)
            text = scrape()
            before, took = counted(text), milliseconds(scrape)
            for _ in range(RESTARTS):
                number = WORKERS - 1
                workers[number].end()
                way.ended(number, workers[number].process.pid)
                workers[number] = BenchWorker(folder / str(number), way.environment)
                way.begun(number)
            after = milliseconds(scrape)
            before = counted(scrape())
            workers[0].observe(LATE)
            workers[0].end()
            way.ended(0, workers[0].process.pid)
            lost = before + LATE - counted(scrape())
        for worker in workers[1:]:
            worker.end()
        series = sum(not line.startswith("#") for line in text.splitlines())
        return [cost, took, after, lost, series]


def run(rounds: int) -> list[Found]:
    """Measure both in turn."""
    rows: dict[str, list[list[float]]] = {"added up": [], "multiprocess mode": []}
    for _ in range(rounds):
        rows["added up"].append(measure(AddedUp))
        rows["multiprocess mode"].append(measure(Multiprocess))
    return compare("metrics of four workers", FIGURES, rows, "added up")


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2])
    else:
        show(run(int(sys.argv[1]) if sys.argv[1:] else 3))
