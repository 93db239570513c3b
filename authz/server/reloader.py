"""Follow authz.yaml: reload when told to (SIGHUP), and when what is written has changed.

Invariant: a configuration that has an error, is still being written or cannot be reached changes
nothing, and what is in force is then not said to be what is written
(tests/server/test_reloader.py).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from enum import Enum
from itertools import compress
from pathlib import Path
from typing import Final

from authz.config.changes import (
    REPLACED,
    SINGLE_FILE,
    ConfigFiles,
    FileMount,
    Look,
    file_mount,
)
from authz.config.load import Settings, watched_files
from authz.config.model import Config
from authz.config.problems import ConfigError, ProblemSeverity
from authz.process.ticks import until_tick
from authz.server.health import Health
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import EventFacts, SecurityEvent

# Seconds between two looks: a change is taken when two have seen the same.
INTERVAL: Final = 1.0
# Looks until a refused configuration is tried again: a file that it names may be there now.
_RETRY: Final = 10
# Looks in which a file does not settle until that is shown, and until it is told: a moment of it is
# every change's, and the first looks' after the start.
_SHOW_UNSETTLED: Final = 3
_TELL_UNSETTLED: Final = 30

_OFF: Final = (
    "authz.yaml or a file that it names has changed; service.watch_config is off: send SIGHUP"
)
_CRASHED: Final = "it could not be taken: the event `crash` says where"
_WRITING: Final = "authz.yaml or a file that it names is being written: nothing is taken until then"

Load = Callable[[], Settings]
Take = Callable[[Settings], Awaitable[None]]
# What has to be started anew for the second configuration, in words.
Restarts = Callable[[Config, Config], Sequence[str]]


class Reload(Enum):
    """Say why a configuration is read."""

    TOLD = "signal"
    SEEN = "file"


class NotInForce(Enum):
    """Say why what is written is not in force; a label of `authz_config_not_in_force`."""

    REFUSED = "refused"  # it has an error
    REPLACED = "replaced"  # it cannot be reached: a single mounted file
    UNTAKEN = "untaken"  # still being written, or nobody has asked for a reload
    WORKER = "worker"  # a worker runs another one


class RefusedConfigError(Exception):
    """Refuse a configuration that has no error, but is none for this process."""


class ConfigReloader:
    """Keep what is in force what is written.

    Attributes:
        settings: what is in force.
        since: when it was taken, Unix time.
    """

    def __init__(
        self,
        load: Load,
        take: Take,
        recorder: Recorder,
        settings: Settings,
        *,
        file: Path | None = None,
        announces: bool = True,
        tells_change: bool = False,
        restarts: Restarts = lambda _, __: (),
        health: Health | None = None,
        interval: float = INTERVAL,
    ) -> None:
        """Take what is in force; nothing is watched before `run`.

        Args:
            load: reads the configuration; raises `ConfigError`.
            take: puts it in force as a whole; raises `ConfigError` or `RefusedConfigError`, and has
                then changed nothing.
            recorder: where outcomes go.
            settings: what `load` returned first.
            file: authz.yaml, to be watched; None where another process watches it.
            announces: whether this process runs the configuration itself, and says so.
            tells_change: whether a change is a security event here: of all processes that read
                one file, in one.
            restarts: tells what a new configuration needs besides; asked where `file` is watched.
            health: where the digest in force is shown, and a note where another one is written.
            interval: seconds between two looks.
        """
        self.settings = settings
        self.since = time.time()
        self._load = load
        self._take = take
        self._recorder = recorder
        self._file = file
        self._announces = announces
        self._tells_change = tells_change
        self._restarts = restarts
        self._health = Health() if health is None else health
        self._interval = interval
        self._told = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._refused: tuple[str, ...] = ()
        self._causes: dict[NotInForce, str] = {}
        self._told_causes: dict[NotInForce, str] = {}
        self._quiet = 0
        self._unsettled = 0
        self._files: ConfigFiles | None = None
        self._mount: FileMount | None = None
        if file is not None:
            self._files = ConfigFiles(file)
            self._files.follow(watched_files(settings.config))
            self._mount = file_mount(file)
        if announces:
            recorder.metrics.show_config(str(settings.digest))
        self._show()

    @property
    def _watches(self) -> bool:
        return self.settings.config.service.watch_config

    def request(self) -> None:
        """Have the configuration read, as SIGHUP does."""
        self._told.set()

    async def run(self) -> None:
        """Follow requests, and the files where there are any to watch."""
        if self._mount is not None:
            self._recorder.event("config_warning", problem=SINGLE_FILE)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_look()):
                    await self._told.wait()
            try:
                if self._told.is_set():
                    self._told.clear()
                    await self.reload()
                else:
                    await self.look()
            except Exception as error:  # noqa: BLE001 - a reload that fails must not stop the process
                self._recorder.metrics.reloads.labels("refused").inc()
                self._set(NotInForce.REFUSED, _CRASHED, tell=False)
                self._recorder.crash(error)

    def _until_look(self) -> float | None:
        if self._files is None:
            return None
        return until_tick(self._interval, asyncio.get_running_loop().time())

    def tell_of_workers(self, numbers: Sequence[int]) -> None:
        """Say which workers run another configuration than the process above them gave out."""
        if numbers:
            names = ", ".join(map(str, numbers))
            words = f"worker {names} runs another configuration than the others (SIGUSR2 restarts)"
            self._set(NotInForce.WORKER, words, tell=True)
        else:
            self._clear(NotInForce.WORKER)

    async def look(self) -> None:
        """Compare the files with what is in force, and take what has changed and is whole."""
        if self._files is None:
            return
        found = await asyncio.to_thread(self._files.look)
        if await self._look_at_mount():
            return
        self._quiet = 0 if found is Look.CHANGED else self._quiet + 1
        self._unsettled = self._unsettled + 1 if found is Look.UNSETTLED else 0
        if found is Look.CHANGED:
            await self._changed()
        elif found is Look.UNSETTLED:
            if self._unsettled >= _SHOW_UNSETTLED:
                tell = self._unsettled >= _TELL_UNSETTLED
                self._set(NotInForce.UNTAKEN, _WRITING, tell=tell)
        elif self._causes.get(NotInForce.UNTAKEN) == _WRITING:
            self._clear(NotInForce.UNTAKEN)  # as it was before
        elif self._refused and self._quiet % _RETRY == 0 and self._watches:
            await self.reload(Reload.SEEN)

    async def reload(self, why: Reload = Reload.TOLD, take: Take | None = None) -> bool:
        """Read the configuration and put it in force; tell whether that was done.

        Reloads follow one another, so that the file that was read last is the one in force.

        Args:
            why: where the files are seen to have changed, what is in force already is left alone,
                and a refusal that was told is not told again.
            take: in place of the one that was given.
        """
        async with self._reloading:
            try:
                settings = await self._read()
                if why is Reload.SEEN and settings.is_same(self.settings):
                    self._in_force(self.settings)
                    return False
                await (take or self._take)(settings)
            except ConfigError as errors:
                # Warnings are told with the errors; what is in the way is the errors.
                is_error = [each.severity is ProblemSeverity.ERROR for each in errors.problems]
                problems = [str(problem) for problem in errors.problems]
                self._refuse(problems, why, list(compress(problems, is_error)))
                return False
            except RefusedConfigError as error:
                self._refuse([str(error)], why)
                return False
            except OSError as error:
                self._refuse([f"a file cannot be read: {error.strerror}"], why)
                return False
            self._taken(settings)
            return True

    async def _read(self) -> Settings:
        """Read the configuration.

        Raises:
            ConfigError: where it has an error.
            RefusedConfigError: where it cannot be reached.
        """
        if await self._look_at_mount():
            raise RefusedConfigError(REPLACED)
        return await asyncio.to_thread(self._marked_load)

    def _marked_load(self) -> Settings:
        if self._files is not None:
            if self._files.is_being_written():
                raise RefusedConfigError(_WRITING)
            self._files.mark()  # before it is read: what changes meanwhile is a change
        settings = self._load()
        if self._files is not None and self._files.have_moved():
            raise RefusedConfigError(_WRITING)
        return settings

    async def _changed(self) -> None:
        """Take what has changed, or where that is not wanted, say that it was not taken."""
        if self._watches:
            await self.reload(Reload.SEEN)
            return
        try:
            same = (await asyncio.to_thread(self._marked_load)).is_same(self.settings)
        except (ConfigError, RefusedConfigError):
            same = False
        if same:
            self._clear(NotInForce.UNTAKEN)
        else:
            self._set(NotInForce.UNTAKEN, _OFF, tell=True)

    async def _look_at_mount(self) -> bool:
        """Tell whether the file that is mounted has lost its name to another one."""
        if self._file is None or self._mount is None:
            return False
        now = await asyncio.to_thread(file_mount, self._file)
        if now is None or not (now.is_replaced or now.root != self._mount.root):
            return False
        self._set(NotInForce.REPLACED, REPLACED, tell=True)
        return True

    def _refuse(self, problems: Sequence[str], why: Reload, errors: Sequence[str] = ()) -> None:
        told = self._refused == tuple(problems)
        self._refused = tuple(problems)
        self._clear(NotInForce.UNTAKEN)
        first, *more = errors or problems
        words = f"{first}; and {len(more)} more" if more else first
        self._set(NotInForce.REFUSED, words, tell=False)
        if why is Reload.SEEN and told:
            return
        self._recorder.metrics.reloads.labels("refused").inc()
        self._recorder.event("reload_refused", problems=list(problems))

    def _taken(self, settings: Settings) -> None:
        old, self.since = self.settings, time.time()
        self._in_force(settings)
        digest = str(settings.digest)
        if self._announces:
            self._recorder.metrics.show_config(digest)
            self._recorder.metrics.reloads.labels("ok").inc()
            servers = sorted(settings.policy.servers)
            self._recorder.event("reloaded", servers=servers, config=digest)
        if self._tells_change and not settings.is_same(old):
            self._recorder.security(
                SecurityEvent.CONFIGURATION_CHANGED, EventFacts(reason=f"config {digest}")
            )
        if self._file is not None:
            for words in self._restarts(old.config, settings.config):
                self._recorder.event("restart_needed", problem=words)

    def _in_force(self, settings: Settings) -> None:
        self.settings = settings
        self._refused = ()
        self._clear(NotInForce.REFUSED, NotInForce.UNTAKEN)
        if self._files is not None:
            self._files.follow(watched_files(settings.config))

    def _set(self, cause: NotInForce, words: str, *, tell: bool) -> None:
        if tell and self._told_causes.get(cause) != words:
            self._told_causes[cause] = words
            self._recorder.event("config_not_in_force", cause=cause.value, problem=words)
        self._causes[cause] = words
        self._recorder.metrics.config_not_in_force.labels(cause.value).set(1)
        self._show()

    def _clear(self, *causes: NotInForce) -> None:
        for cause in causes:
            self._told_causes.pop(cause, None)
            if self._causes.pop(cause, None) is not None:
                self._recorder.metrics.config_not_in_force.labels(cause.value).set(0)
        self._show()

    def _show(self) -> None:
        self._health.config = str(self.settings.digest)
        self._health.note("config", "; ".join(self._causes.values()))
