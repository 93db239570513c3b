"""Reloads: what is written comes into force by itself, and where it does not, that is said."""

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import StringIO
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from authz.config import changes
from authz.config.changes import FileMount
from authz.config.load import Settings, load
from authz.server import reloader as reloader_module
from authz.server.health import Health
from authz.server.reloader import ConfigReloader, RefusedConfigError
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder

_TEXT = """\
issuer: {{url: https://auth.example.com}}
gateway: {{url: https://mcp.example.com, listen: 127.0.0.1:8080}}
service: {{watch_config: {watch}}}
servers:
  files: {{upstream: "http://files:8000/mcp", groups: [{group}]}}
"""


class _Told:
    """Read what is told: events and metrics."""

    def __init__(self) -> None:
        self._lines = StringIO()
        self._log = EventLog("json", self._lines)
        self.metrics = Metrics()
        self.recorder = Recorder(self.metrics, self._log)

    @property
    def events(self) -> list[dict[str, object]]:
        """Return the events, without their times."""
        self._log.flush()
        found = [json.loads(line) for line in self._lines.getvalue().splitlines()]
        return [{name: each[name] for name in each if name != "time"} for each in found]

    def names(self) -> list[object]:
        """Return the events' names."""
        return [each["event"] for each in self.events]

    def not_in_force(self) -> set[str]:
        """Return the causes that metrics show."""
        text = generate_latest(self.metrics.registry).decode()
        head = 'authz_config_not_in_force{cause="'
        lines = (line for line in text.splitlines() if line.startswith(head))
        return {line.removeprefix(head).partition('"')[0] for line in lines if line.endswith("1.0")}

    def shown_configs(self) -> list[str]:
        """Return the digests that metrics show."""
        text = generate_latest(self.metrics.registry).decode()
        head = 'authz_config_info{config="'
        return [
            line.removeprefix(head).partition('"')[0]
            for line in text.splitlines()
            if line.startswith(head)
        ]


class _Scene:
    """An authz.yaml, and what is in force."""

    def __init__(self, folder: Path, watch: str = "true") -> None:
        self.path = folder / "authz.yaml"
        self.write(watch=watch)
        self.told, self.health = _Told(), Health()
        self.refuses = False
        self.meanwhile: Callable[[], object] = lambda: None
        settings = load(self.path, {})
        self.in_force: list[Settings] = [settings]
        self.reloader = ConfigReloader(
            self._load,
            self._take,
            self.told.recorder,
            settings,
            file=self.path,
            health=self.health,
        )

    def write(self, group: str = "staff", watch: str = "true") -> None:
        """Replace the file, as editors do."""
        new = self.path.with_name("new")
        new.write_text(_TEXT.format(group=group, watch=watch))
        new.replace(self.path)

    def group(self) -> str:
        """Return the group that is in force."""
        return " ".join(self.in_force[-1].policy.servers["files"].rule.groups or ())

    def _load(self) -> Settings:
        self.meanwhile()
        return load(self.path, {})

    async def _take(self, settings: Settings) -> None:
        if self.refuses:
            raise RefusedConfigError("there would be no pages")
        self.in_force.append(settings)

    async def look(self, times: int = 2) -> None:
        """Look so often: a change is taken at the second."""
        for _ in range(times):
            await self.reloader.look()


def _run(scene: _Scene, *steps: Callable[[], object]) -> None:
    async def run() -> None:
        await scene.look()  # what the first configuration was read from is not known yet
        for step in steps:
            done = step()
            if isinstance(done, Awaitable):
                await done

    asyncio.run(run())


@pytest.fixture
def scene(tmp_path: Path) -> _Scene:
    """What was read at the start."""
    return _Scene(tmp_path)


def _sed(scene: _Scene) -> None:
    subprocess.run(["sed", "-i", "s/staff/admins/", str(scene.path)], check=True)


def _vim(scene: _Scene) -> None:
    text = scene.path.read_text()
    old = scene.path.rename(scene.path.with_name("authz.yaml~"))
    scene.path.write_text(text.replace("staff", "admins"))
    old.unlink()


def _in_place(scene: _Scene) -> None:
    scene.path.write_text(scene.path.read_text().replace("staff", "admins"))


_SED = pytest.param(_sed, marks=pytest.mark.process)


@pytest.mark.attack("tightened-rule-not-applied")
@pytest.mark.parametrize("edit", [lambda scene: scene.write("admins"), _SED, _vim, _in_place])
def test_a_tightened_rule_comes_into_force_by_itself(
    scene: _Scene, edit: Callable[[_Scene], None]
) -> None:
    """However it was edited; log, metrics and /readyz name the new configuration, and no other."""
    before = str(scene.in_force[0].digest)
    _run(scene, lambda: edit(scene), scene.look)

    after = str(load(scene.path, {}).digest)
    assert scene.group() == "admins"
    assert after != before
    assert scene.told.events == [{"event": "reloaded", "servers": ["files"], "config": after}]
    assert scene.told.shown_configs() == [after]
    assert scene.health.config == after
    assert scene.told.not_in_force() == set()


def test_nothing_changes_while_nothing_was_changed(scene: _Scene) -> None:
    """Another time, comments and layout reload nothing."""
    text = scene.path.read_text()
    _run(scene, scene.path.touch, scene.look)
    _run(scene, lambda: scene.path.write_text(f"# new\n{text}"), scene.look)

    assert scene.told.events == []
    assert len(scene.in_force) == 1


@pytest.mark.attack("half-written-configuration")
def test_sighup_takes_no_half_written_file(scene: _Scene) -> None:
    """What is there so far may be valid, with fewer rules: whoever asks is told, and it is taken
    once it is whole.
    """
    text = scene.path.read_text()

    async def ask_too_early() -> None:
        with scene.path.open("w") as writer:
            writer.write(text.replace(", groups: [staff]", ""))
            writer.flush()
            assert not await scene.reloader.reload()
        _expect(scene, ["reload_refused"], {"refused"})
        scene.write("admins")

    _run(scene, ask_too_early, scene.look)

    assert scene.group() == "admins"
    assert scene.told.not_in_force() == set()


@pytest.mark.attack("half-written-configuration")
@pytest.mark.parametrize("closes", [False, True])
def test_what_is_written_while_it_is_read_is_not_taken(
    scene: _Scene, *, closes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer may begin after the look at the file: what was read then may be a part of it, with
    fewer rules, and for this process without the right to ask who writes, too.
    """
    text = scene.path.read_text()
    if closes:
        monkeypatch.setattr(changes, "is_open_for_writing", lambda _: False)

    def cut() -> None:
        scene.meanwhile = lambda: None
        writer = stack.enter_context(scene.path.open("w"))
        writer.write(text.replace(", groups: [staff]", ""))
        writer.flush()

    async def race(read: Callable[[], Awaitable[object]]) -> None:
        scene.meanwhile = cut
        await read()
        assert len(scene.in_force) == 1
        stack.close()
        scene.write()

    with ExitStack() as stack:
        _run(scene, lambda: race(scene.reloader.reload))
        _run(scene, lambda: scene.write("admins"), lambda: race(scene.look))
    _run(scene, lambda: scene.write("admins"), scene.look)

    assert len(scene.in_force) == 2
    assert scene.group() == "admins"
    assert scene.told.not_in_force() == set()


@pytest.mark.attack("half-written-configuration")
def test_a_file_that_does_not_settle_is_shown_and_later_told(scene: _Scene) -> None:
    """A moment of it is every change's and says nothing; what lasts is told, however long all was
    quiet before.
    """

    async def write_for_long() -> None:
        await scene.look(40)
        with scene.path.open("a") as writer:
            writer.write("\n# more")
            writer.flush()
            await scene.look()
            _expect(scene, [], set())
            await scene.look()
            _expect(scene, [], {"untaken"})
            await scene.look(30)
            _expect(scene, ["config_not_in_force"], {"untaken"})

    _run(scene, write_for_long, scene.look, lambda: _expect(scene, ["config_not_in_force"], set()))


@pytest.mark.attack("half-written-configuration")
def test_an_invalid_file_is_refused_once_and_mended(scene: _Scene) -> None:
    """The old rules stay; log and counter have each change once, metrics show it all the time."""
    broken = "issuer: {}\n"
    _run(
        scene,
        lambda: scene.path.write_text(broken),
        lambda: scene.look(25),
        lambda: _expect(scene, ["reload_refused"], {"refused"}),
        lambda: scene.path.write_text("servers: {}\n"),
        scene.look,
        lambda: _expect(scene, ["reload_refused"] * 2, {"refused"}),
        lambda: scene.write("admins"),
        scene.look,
        lambda: _expect(scene, ["reload_refused"] * 2 + ["reloaded"], set()),
    )

    assert scene.group() == "admins"
    assert 'authz_config_reloads_total{outcome="refused"} 2.0' in _exposition(scene)


def test_the_note_names_the_error_and_not_a_warning_before_it(scene: _Scene) -> None:
    """The log has both, in the file's order."""
    text = scene.path.read_text().replace("groups:", "grups:")
    _run(scene, lambda: scene.path.write_text(text), scene.look)

    assert "no such field" in scene.health.notes["config"]
    assert len(scene.told.events[0]["problems"]) == 2  # type: ignore[arg-type]


def test_the_old_file_put_back_ends_the_alarm(scene: _Scene) -> None:
    """It is in force already, so nothing is reloaded."""
    _run(
        scene,
        lambda: scene.path.write_text("issuer: {}"),
        scene.look,
        scene.write,
        scene.look,
        lambda: _expect(scene, ["reload_refused"], set()),
    )

    assert len(scene.in_force) == 1


def test_a_refused_configuration_is_taken_once_what_it_names_is_there(scene: _Scene) -> None:
    """Its files cannot be watched: it is read again by and by, and its refusal not repeated."""
    key = scene.path.with_name("password")
    named = f"redis: {{url: 'redis://r:6379/0', password_file: {key}}}\n"
    _run(
        scene,
        lambda: scene.path.write_text(named + scene.path.read_text()),
        lambda: scene.look(3),
        lambda: _expect(scene, ["reload_refused"], {"refused"}),
        lambda: key.write_text("hunter2"),
        lambda: scene.look(12),
    )

    assert scene.told.names() == ["reload_refused", "reloaded"]
    _run(scene, lambda: key.write_text("hunter3"), scene.look)
    password = scene.in_force[-1].secrets.redis_password
    assert password is not None
    assert password.get_secret_value() == "hunter3"


def test_a_configuration_that_this_process_cannot_use_is_refused(scene: _Scene) -> None:
    """`authz pages` without a front door, for one."""
    scene.refuses = True
    _run(scene, lambda: scene.write("admins"), lambda: scene.look(5))

    assert scene.told.names() == ["reload_refused"]
    assert scene.told.not_in_force() == {"refused"}
    assert scene.reloader.settings is scene.in_force[0]


def test_with_watching_off_a_change_is_told_and_waits_for_sighup(tmp_path: Path) -> None:
    """What runs is then not what is written, and that is said until somebody reloads."""
    scene = _Scene(tmp_path, watch="false")
    _run(
        scene,
        lambda: scene.write("admins", "false"),
        lambda: scene.look(5),
        lambda: _expect(scene, ["config_not_in_force"], {"untaken"}),
        scene.reloader.reload,
        lambda: _expect(scene, ["config_not_in_force", "reloaded"], set()),
    )

    assert scene.group() == "admins"


def test_a_worker_that_runs_another_one_is_told(scene: _Scene) -> None:
    """Once, and until it runs what the others run."""
    for numbers in ([1], [1], []):
        scene.reloader.tell_of_workers(numbers)
        assert scene.told.not_in_force() == ({"worker"} if numbers else set())

    assert scene.told.names() == ["config_not_in_force"]


@contextmanager
def _mounted(monkeypatch: pytest.MonkeyPatch, mount: list[FileMount]) -> Iterator[None]:
    monkeypatch.setattr(reloader_module, "file_mount", lambda _: mount[-1])
    yield
    monkeypatch.undo()


@pytest.mark.attack("tightened-rule-not-applied")
@pytest.mark.parametrize(
    "after",
    [FileMount("/deploy/authz.yaml", is_replaced=True), FileMount("/x.bak", is_replaced=False)],
)
def test_a_single_mounted_file_that_was_replaced_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: FileMount
) -> None:
    """The container can read the old file only: nothing is said to be reloaded, and why is said,
    with what to do. tests/config/test_changes.py shows what the kernel lists.
    """
    mount = [FileMount("/deploy/authz.yaml", is_replaced=False)]
    with _mounted(monkeypatch, mount):
        scene = _Scene(tmp_path)
        _run(
            scene,
            lambda: mount.append(after),
            lambda: scene.look(5),
            lambda: _expect(scene, ["config_not_in_force"], {"replaced"}),
            scene.reloader.reload,
        )

    assert scene.told.names() == ["config_not_in_force", "reload_refused"]
    assert "--force-recreate" in str(scene.told.events[-1])
    assert "replaced" in scene.told.not_in_force()
    assert "config" in scene.health.notes


def _expect(scene: _Scene, events: list[str], causes: set[str]) -> None:
    assert (scene.told.names(), scene.told.not_in_force()) == (events, causes)


def _exposition(scene: _Scene) -> str:
    return generate_latest(scene.told.metrics.registry).decode()
