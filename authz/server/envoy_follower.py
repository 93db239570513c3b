"""Have Envoy follow a reload: its watched files are written by a child process.

Invariant: files are written after the service has the rules, and one after the other; the
configuration that came last is the one that stays (tests/server/test_envoy_follow.py).
"""

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.config.load import Settings
from authz.envoy.files import RENDERED_FILE, EnvoyUpdate, rendered_mark
from authz.server.health import Health
from authz.telemetry.recorder import Recorder

# Seconds for all of it: four files that Envoy has 15 s each to take, and the rendering.
_LONGEST: Final = 120.0
# What the child gets of our environment, which may hold secrets of the service.
_PLAIN: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_PART: Final = "envoy"
_BUILDING: Final = "it has not followed the last reload yet"
# A cause of `authz_config_not_in_force`.
_BEHIND: Final = "envoy"


@dataclass(frozen=True, slots=True)
class WatchedFolder:
    """Name the folder whose files Envoy watches.

    Attributes:
        folder: with a `rendered.json` by `authz envoy-config -o`.
        python: the interpreter; a service embedded in an Envoy has none to ask.
    """

    folder: str
    python: str


class EnvoyFollower:
    """Write Envoy's files whenever a configuration was taken."""

    def __init__(
        self, watched: WatchedFolder, env: Mapping[str, str], recorder: Recorder, health: Health
    ) -> None:
        """Take where; nothing is written yet.

        Args:
            watched: the folder.
            env: the environment.
            recorder: where outcomes go.
            health: gets a note while Envoy has not followed.
        """
        self._watched = watched
        self._env = {name: env[name] for name in _PLAIN if name in env}
        self._recorder = recorder
        self._health = health
        self._one = asyncio.Lock()
        self._wanted: Settings | None = None
        self._child: subprocess.Popen[str] | None = None
        self._stopped = threading.Event()

    async def follow(self, settings: Settings) -> None:
        """Write what a configuration implies, unless a later one has come meanwhile."""
        self._wanted = settings
        async with self._one:
            if settings is not self._wanted:
                return
            if await asyncio.to_thread(self._is_rendered, settings):
                self._health.note(_PART, "")
                self._show(behind=False)
                return
            self._health.note(_PART, _BUILDING)
            why = ""
            try:
                update = await asyncio.to_thread(self._apply, settings.text)
            except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
                update, why = EnvoyUpdate(), str(error) or type(error).__name__
            if not self._stopped.is_set():
                self._tell(update, why)

    def stop(self) -> None:
        """Write nothing more; a file that is just being written is written whole."""
        self._stopped.set()
        if self._child is not None:
            self._child.kill()

    def _is_rendered(self, settings: Settings) -> bool:
        """Tell whether the files are of this very configuration, by this very release."""
        try:
            said = json.loads((Path(self._watched.folder) / RENDERED_FILE).read_text("utf-8"))
        except (OSError, ValueError):
            return False
        mark = rendered_mark(settings.text, settings.authorities)
        return isinstance(said, dict) and mark.items() <= said.items()

    def _apply(self, text: str) -> EnvoyUpdate:
        """Run the child.

        Raises:
            OSError, ValueError, TypeError, subprocess.SubprocessError: where it failed.
        """
        # -P: a file in the working folder must not stand in for a module of ours.
        command = (self._watched.python, "-P", "-m", "authz.envoy.apply", self._watched.folder)
        pipe = subprocess.PIPE
        with subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=self._env
        ) as self._child:
            if self._stopped.is_set():
                self._child.kill()
            try:
                out, err = self._child.communicate(text, _LONGEST)
            except subprocess.TimeoutExpired:
                self._child.kill()
                raise
        if self._child.returncode:
            raise ValueError(err.strip().rpartition("\n")[2][:500] or "it ended early")
        return EnvoyUpdate(**json.loads(out))

    def _show(self, *, behind: bool) -> None:
        self._recorder.metrics.config_not_in_force.labels(_BEHIND).set(behind)

    def _tell(self, update: EnvoyUpdate, why: str) -> None:
        counts = self._recorder.metrics.envoy_updates
        self._show(behind=bool(why or update.refused))
        if why or update.refused:
            counts.labels("refused" if update.refused else "failed").inc()
            words = f"it refused {update.refused}; its log says why" if update.refused else why
            self._health.note(_PART, f"it has not followed the last reload: {words}")
            self._recorder.event(
                "envoy_not_updated", refused=update.refused, why=why, folder=self._watched.folder
            )
            return
        counts.labels("taken" if update.confirmed else "unconfirmed").inc()
        words = "" if update.confirmed else "it does not say whether it followed the last reload"
        if update.restart:
            words = "envoy.yaml has changed, which Envoy reads when it is restarted"
        self._health.note(_PART, words)
        self._recorder.event(
            "envoy_updated",
            files=list(update.changed),
            confirmed=update.confirmed,
            restart=update.restart,
        )


def watched_folder(folder: Path, python: str) -> WatchedFolder:
    """Return the folder that Envoy watches.

    Raises:
        OSError: where nothing was rendered into it, or it cannot be written.
    """
    if not (folder / RENDERED_FILE).is_file():
        raise OSError(
            f"--envoy: {folder} has no {RENDERED_FILE}; run `authz envoy-config authz.yaml -o"
            f" {folder}` once, which says where Envoy finds its parts"
        )
    if not os.access(folder, os.W_OK):
        raise OSError(f"--envoy: {folder} cannot be written")
    return WatchedFolder(str(folder.absolute()), python)
