"""What runs and what is written: each difference is a problem, and says where it is."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from authz.cli import main
from authz.config.changes import FileMount
from authz.config.endpoints import Tcp
from authz.config.load import Settings, load
from authz.config.restarts import PAGES, SERVE
from authz.doctor import running
from authz.doctor.finding import Finding, Severity
from authz.server.health import Health
from authz.server.metrics_aggregator import MetricsAggregator, WorkerMetrics
from authz.server.status import Page, Status, StatusPages, readyz
from tests.doctor.kit import problems

_TEXT = """\
issuer: {{url: https://auth.example.test}}
gateway: {{url: https://mcp.example.test}}
telemetry: {{metrics: "127.0.0.1:{port}"}}
servers: {{files: {{upstream: "http://files:8000/mcp", groups: [{group}]}}}}
"""


class _Place:
    """An authz.yaml, and a program that runs what it held."""

    def __init__(self, folder: Path, port: int) -> None:
        self.path = folder / "authz.yaml"
        self._port = port
        self.write()

    def write(self, group: str = "staff") -> None:
        """Write the rules."""
        self.path.write_text(_TEXT.format(port=self._port, group=group))

    @property
    def settings(self) -> Settings:
        """Return what is written."""
        return load(self.path, {})


@contextmanager
def _service(folder: Path) -> Iterator[tuple[_Place, Health]]:
    health = Health()
    health.set("keys", "")
    status = Status(CollectorRegistry(), health, ("127.0.0.1", 0))
    status.start()
    try:
        place = _Place(folder, status.port)
        health.config = str(place.settings.digest)
        yield place, health
    finally:
        status.stop()


def _examine(place: _Place) -> list[Finding]:
    return asyncio.run(running.examine(place.settings, place.path))


def test_the_same_is_said_to_be_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By doctor, and by `authz status` with status 0."""
    with _service(tmp_path) as (place, health):
        assert [each.diagnosis for each in _examine(place)] == ["in_force"]
        assert main(["status", str(place.path)]) == 0
        assert health.config in capsys.readouterr().out


def test_what_is_wrong_with_a_part_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of parts that are not ready, and of those that are all the same; it runs what is written."""
    with _service(tmp_path) as (place, health):
        health.set("redis", "Redis is away (connection refused)")
        health.note("audit", "the audit trail is not written \x1b[2J")
        assert main(["status", str(place.path)]) == 0
        said = capsys.readouterr().out
        assert "authz serve: redis: Redis is away (connection refused)" in said
        assert "audit: the audit trail is not written" in said
        assert "\x1b" not in said
        assert main(["status", str(place.path), "--json"]) == 0
        (program,) = json.loads(capsys.readouterr().out)["programs"]
        assert program["parts"] == {"keys": "", "redis": "Redis is away (connection refused)"}
        assert set(program["trouble"]) == {"redis", "audit"}


@pytest.mark.attack("tightened-rule-not-applied")
def test_a_rule_that_is_not_in_force_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What runs, what is written and why; `authz status` ends with 1."""
    with _service(tmp_path) as (place, health):
        place.write("admins")
        health.note("config", "authz.yaml:4: no")

        (found,) = _examine(place)
        assert (found.diagnosis, found.severity) == ("not_in_force", Severity.PROBLEM)
        assert health.config in found.message
        assert str(place.settings.digest) in found.message
        assert "authz.yaml:4: no" in found.message

        assert main(["status", str(place.path), "--json"]) == 1
        said = json.loads(capsys.readouterr().out)
        assert said["written"] == str(place.settings.digest)
        assert said["programs"][0]["config"] == health.config
        assert "another one now" in said["programs"][0]["problem"]


def test_a_worker_that_runs_another_one_is_named(tmp_path: Path) -> None:
    """The others are as they should be."""
    folders = [tmp_path / "0", tmp_path / "1"]
    healths = [Health(), Health()]
    workers = [
        Status(CollectorRegistry(), health, str(at))
        for health, at in zip(healths, folders, strict=True)
    ]
    above = Health()
    slots = [WorkerMetrics(at) for at in folders]
    aggregator = MetricsAggregator(slots, CollectorRegistry(), ("127.0.0.1", 0), above)
    for each in (*workers, aggregator):
        each.start()
    for slot in slots:
        slot.begin()
    try:
        place = _Place(tmp_path, aggregator.port)
        above.config = healths[0].config = str(place.settings.digest)
        healths[1].config = "0" * 12 + "-" + "1" * 12

        found = _examine(place)
    finally:
        for each in (*workers, aggregator):
            each.stop()

    assert [each.diagnosis for each in found] == ["in_force", "in_force", "not_in_force"]
    assert "worker 1" in found[2].message


def test_every_replica_is_asked_and_one_process_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By all addresses of a name; a process with two of them is one, and one may run another."""
    ours, theirs = Health(), Health()
    first = Status(CollectorRegistry(), ours, ("127.0.0.1", 0))
    second = Status(CollectorRegistry(), theirs, ("127.0.0.2", first.port))
    third = Status(CollectorRegistry(), ours, ("127.0.0.3", first.port))
    for each in (first, second, third):
        each.start()
    try:
        place = _Place(tmp_path, first.port)
        ours.config, theirs.config = str(place.settings.digest), "0" * 12 + "-" + "1" * 12
        addresses = [f"127.0.0.{number}" for number in (1, 2, 3, 4)]  # nobody is at the last
        _resolve(monkeypatch, {"replicas.test": addresses})

        other = f"replicas.test:{first.port}"
        assert main(["status", str(place.path), "--replica", other, "--json"]) == 1
        programs = json.loads(capsys.readouterr().out)["programs"]
        assert [each["name"] for each in programs] == [
            "authz serve at 127.0.0.1",
            f"authz serve at 127.0.0.2:{first.port}",
        ]
        assert not programs[0]["problem"]
        assert "another one now" in programs[1]["problem"]
        assert main(["status", str(place.path), "--replica", "127.0.0.4:1"]) == 1
        assert "nobody answers at 127.0.0.4:1" in capsys.readouterr().out
        with pytest.raises(SystemExit, match="2"):
            main(["status", str(place.path), "--replica", "nowhere"])
    finally:
        for each in (first, second, third):
            each.stop()


def test_containers_of_two_replicas_are_asked_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where authz.yaml has all addresses; one that is away and still has a name is told."""
    with _service(tmp_path) as (place, health):
        text = place.path.read_text()
        place.path.write_text(text.replace("127.0.0.1", "0.0.0.0"))
        health.config = str(place.settings.digest)
        _resolve(monkeypatch, {"authz": ["127.0.0.1"], "authz-2": []})
        assert [each.message.partition(" runs")[0] for each in _examine(place)] == ["authz serve"]

        _resolve(monkeypatch, {})  # no container: this machine
        assert [each.diagnosis for each in _examine(place)] == ["in_force"]


def _resolve(monkeypatch: pytest.MonkeyPatch, names: Mapping[str, list[str]]) -> None:
    async def addresses(host: str, _port: int) -> list[str]:
        return [host] if host.startswith("127.") else names.get(host, [])

    monkeypatch.setattr(running, "_addresses", addresses)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda text: text.replace("groups", "grups"), id="a field"),
        pytest.param(lambda text: f"{text}servers: {{", id="no YAML"),
    ],
)
def test_of_a_broken_file_both_are_told(
    tmp_path: Path,
    broken: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What runs, and that the file has an error, with its place; the status is 1."""
    with _service(tmp_path) as (place, health):
        usual = {
            SERVE: Tcp("127.0.0.1", _port_of(place)),
            PAGES: Tcp("127.0.0.1", 1),
        }
        monkeypatch.setattr(running, "_USUAL", usual)
        place.path.write_text(broken(place.path.read_text()))
        assert main(["status", str(place.path)]) == 1
        said = capsys.readouterr()
        assert f"it runs {health.config}, and goes on with it" in said.out
        assert "authz.yaml:" in said.err
        assert main(["status", str(place.path), "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert found["written"] is None
        assert found["errors"]
        assert [each["config"] for each in found["programs"]] == [health.config]


def _port_of(place: _Place) -> int:
    return place.settings.config.telemetry.metrics.port


@given(st.text(max_size=60))
def test_whatever_a_broken_file_holds_there_are_places(text: str) -> None:
    """Of what cannot be read the usual ones."""
    for each in (
        text,
        f"telemetry: {text}",
        f"telemetry: {{metrics: {text}, pages_metrics: {text}}}",
    ):
        assert running.places_in(each).serve.port <= 65535


def test_nobody_there_is_not_a_problem_of_doctor(tmp_path: Path) -> None:
    """It may be asked from elsewhere; `authz status` says that it does not know."""
    with _service(tmp_path) as (place, _):
        pass

    found = _examine(place)

    assert [each.diagnosis for each in found] == ["unknown"]
    assert problems(found) == []
    assert main(["status", str(place.path)]) == 1


@pytest.mark.attack("hostile-answer")
@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"\xff",
        b"{}",
        b'{"parts": {}, "config": ["x"], "configs": 3}',
        b'{"parts": {}, "config": "\\u001b[2J", "notes": {"config": 1}}',
        b"[" * 60_000,
    ],
)
def test_an_answer_of_somebody_else_is_unknown(tmp_path: Path, body: bytes) -> None:
    """Whoever listens there may say anything: nothing of it reaches the terminal as it is."""

    def page() -> Page:
        status, kind, _ = readyz(True, {})
        return status, kind, body

    pages = StatusPages({"/readyz": page}, ("127.0.0.1", 0))
    pages.start()
    try:
        found = _examine(_Place(tmp_path, pages.port))
    finally:
        pages.stop()

    assert [each.diagnosis for each in found] == ["unknown"]
    assert all(str(each).isascii() and "\x1b" not in str(each) for each in found)
    assert threading.active_count() < 50


@pytest.mark.parametrize(
    ("replaced", "severity"), [(True, Severity.PROBLEM), (False, Severity.WARNING)]
)
def test_a_single_mounted_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replaced: bool, severity: Severity
) -> None:
    """Before it does harm, and once it has: what is read there is then not what is written."""
    mount = FileMount("/deploy/authz.yaml", replaced)
    monkeypatch.setattr(running, "file_mount", lambda _: mount)
    with _service(tmp_path) as (place, _):
        found = _examine(place)

    assert (found[0].diagnosis, found[0].severity) == ("single_file", severity)
