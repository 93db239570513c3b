"""Metrics and readiness of several workers as one: the status pages of the process above them.

Invariant: counters never go back, whichever worker is started anew. What a worker had counted when
it ended is kept: all of it where it ended as told, else all up to the last scrape, a second ago.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from authz import __version__
from authz.http.unix_socket import UnixConnection
from authz.server.health import Health
from authz.server.status import (
    IDENTITY_KEYS,
    Page,
    StatusPages,
    healthz,
    key_page,
    readyz,
)
from authz.server.worker_control import ListenAddress
from authz.telemetry.expositions import Exposition, Family, merge, of_pool, parse, persisted, render

# Seconds for a worker to answer; a page needs a millisecond or two.
_PATIENCE: Final = 1.0
_CONFIG: Final = "authz_config_info"
_GONE: Final = "it does not run"
_SILENT: Final = "it does not answer"


def ask(path: Path, page: str) -> tuple[int, bytes]:
    """Return the status and body of a page on a Unix socket.

    Raises:
        OSError: where nobody answers.
    """
    connection = UnixConnection(path, _PATIENCE)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except HTTPException as error:
        raise ConnectionError("the answer is not HTTP") from error
    finally:
        connection.close()


class WorkerState(NamedTuple):
    """Say how one worker is.

    Attributes:
        ready: whether it may be asked.
        parts: each part and its problem, empty where there is none.
        notes: what is wrong with parts that are ready all the same.
        config: the digest of the configuration that it runs; empty where it does not say.
    """

    ready: bool
    parts: Mapping[str, str]
    notes: Mapping[str, str] = MappingProxyType({})
    config: str = ""


class WorkerMetrics:
    """Remember what the workers in one place have counted, one after the other."""

    def __init__(self, place: Path) -> None:
        """Take the socket on which whoever runs there answers."""
        self._place = place
        self._lock = threading.Lock()
        # Held while the worker is asked: of two answers that cross, nobody could say which of them
        # was counted later, and a counter would go back.
        self._asking = threading.Lock()
        self._asked = 0
        self._generation = 0
        self._runs = False
        self._left: Exposition = {}
        self._last: Exposition = {}

    def begin(self) -> None:
        """Say that a worker runs there now."""
        with self._lock:
            self._runs = True

    def end(self, final_metrics: Path) -> None:
        """Say that the worker is gone, and where it may have left its last counts."""
        last = None
        with suppress(OSError, ValueError):
            last = parse(final_metrics.read_text("utf-8"))
            final_metrics.unlink()
        with self._lock:
            self._left = merge([self._left, persisted(self._last if last is None else last)])
            self._last = {}
            self._runs = False
            self._generation += 1

    def scrape(self) -> None:
        """Ask the worker for its counts; where it does not answer, the last ones hold.

        Callers at the same time are served by one look that began after they came.
        """
        asked = self._asked
        with self._asking:
            if self._asked > asked:
                return
            self._asked += 1
            self._scrape()

    def _scrape(self) -> None:
        with self._lock:
            generation, runs = self._generation, self._runs
        if not runs:
            return
        try:
            _, body = ask(self._place, "/metrics")
            found = parse(body.decode())
        except (OSError, ValueError):
            return
        with self._lock:
            # A worker that has ended meanwhile has been counted by `end`.
            if generation == self._generation:
                self._last = found

    @property
    def config(self) -> str:
        """Return the digest of what the worker runs, as it said last; empty where it has not."""
        with self._lock:
            shown = self._last.get(_CONFIG, Family("gauge")).values
        return next((name.split('"')[1] for name, value in shown.items() if value), "")

    def page(self, path: str) -> bytes | None:
        """Return a page of the worker; None where it does not answer, or has none."""
        try:
            status, body = ask(self._place, path)
        except (OSError, ValueError):
            return None
        return body if status == HTTPStatus.OK else None

    def counts(self) -> list[Exposition]:
        """Return what was counted there."""
        with self._lock:
            return [self._left, self._last]

    def state(self) -> WorkerState:
        """Return how the worker is."""
        with self._lock:
            if not self._runs:
                return WorkerState(ready=False, parts={"worker": _GONE})
        try:
            _, body = ask(self._place, "/readyz")
            said = json.loads(body)
            return WorkerState(
                bool(said["ready"]),
                _words(said["parts"]),
                _words(said.get("notes", {})),
                str(said.get("config", "")),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return WorkerState(ready=False, parts={"worker": _SILENT})


def _words(said: Mapping[object, object]) -> Mapping[str, str]:
    return {str(part): str(words) for part, words in said.items()}


class MetricsAggregator(StatusPages):
    """Serve the pages of all workers together."""

    def __init__(
        self,
        slots: Sequence[WorkerMetrics],
        registry: CollectorRegistry,
        place: ListenAddress,
        health: Health | None = None,
        *,
        more: Mapping[str, Callable[[], Page]] = MappingProxyType({}),
    ) -> None:
        """Bind the listener.

        Args:
            slots: the workers' places.
            registry: what the process above counts itself.
            place: where to listen.
            health: of the process above: the digest in force, and its notes.
            more: further pages, by path.

        Raises:
            OSError: where the address cannot be bound.
        """
        self._slots = slots
        self._health = Health() if health is None else health
        self._registry = registry
        pages = {
            "/metrics": self._metrics,
            "/healthz": healthz,
            "/readyz": self._readyz,
            IDENTITY_KEYS: self._identity_keys,
            **more,
        }
        super().__init__(pages, place)

    def scrape(self) -> None:
        """Ask every worker for its counts."""
        for slot in self._slots:
            slot.scrape()

    def _metrics(self) -> Page:
        self.scrape()
        found = [of_pool(parse(generate_latest(self._registry).decode()))]
        for slot in self._slots:
            found += slot.counts()
        return HTTPStatus.OK, CONTENT_TYPE_LATEST, render(merge(found)).encode()

    def _identity_keys(self) -> Page:
        """Return the key set of the first worker that answers: after a reload all have the same."""
        found = (slot.page(IDENTITY_KEYS) for slot in self._slots)
        return key_page(next((keys for keys in found if keys is not None), None))

    def _readyz(self) -> Page:
        """Say ready where any worker is: Envoy asks those that are."""
        states = [slot.state() for slot in self._slots]
        parts = {
            f"worker {number} {part}": problem
            for number, state in enumerate(states)
            for part, problem in state.parts.items()
        }
        ready = any(state.ready for state in states)
        workers = {str(number): state.ready for number, state in enumerate(states)}
        said: dict[str, object] = {"config": self._health.config, "version": __version__}
        said |= {"parts": parts, "workers": workers, "instance": self._health.instance}
        said["configs"] = {str(number): state.config for number, state in enumerate(states)}
        notes = dict(self._health.notes) | {
            f"worker {number} {part}": words
            for number, state in enumerate(states)
            for part, words in state.notes.items()
        }
        if notes:
            said["notes"] = notes
        return readyz(ready, said)
