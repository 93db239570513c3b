"""A Docker engine for the tests: the one that runs, or one of their own where root may start it.

An engine that we start has its own folder, socket and containers; in one that is there we use names
of our own.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

_START: Final = 60


class NoEngineError(Exception):
    """Say why there is none."""


class Engine:
    """Speak to one engine by its command line."""

    def __init__(self, host: str | None) -> None:
        """Take its address; None for the usual one."""
        keep = ("PATH", "HOME", "LANG", "DOCKER_HOST", "TMPDIR")
        self.env = {name: os.environ[name] for name in keep if name in os.environ}
        # The classic builder: it needs no plugin, and our files nothing newer.
        self.env["DOCKER_BUILDKIT"] = "0"
        if host is not None:
            self.env["DOCKER_HOST"] = host

    def run(self, *arguments: str, check: bool = True, timeout: float = 300) -> str:
        """Run one docker command; return what it printed, errors included."""
        done = subprocess.run(
            ["docker", *arguments],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"docker {' '.join(arguments)}: {done.stdout}")
        return done.stdout

    def has(self, image: str) -> bool:
        """Tell whether an image is there."""
        return bool(self.run("images", "-q", image).strip())

    def build(self, image: str, context: Path, *arguments: str) -> None:
        """Build an image without a network."""
        self.run("build", "--network=none", "--quiet", *arguments, "-t", image, str(context))

    def inspect(self, *names: str) -> list[dict[str, Any]]:
        """Return what the engine knows of containers or images."""
        found: list[dict[str, Any]] = json.loads(self.run("inspect", *names))
        return found


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """Give an engine that answers.

    Raises:
        NoEngineError: where there is none and none can be started.
    """
    if shutil.which("docker") is None:
        raise NoEngineError("the command `docker` is not installed")
    if _answers(Engine(None)):
        yield Engine(None)
        return
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        raise NoEngineError("no Docker engine answers, and we may not start one (dockerd, as root)")
    with _own(folder) as own:
        yield own


def _answers(candidate: Engine) -> bool:
    with suppress(subprocess.TimeoutExpired):
        return "Server Version" in candidate.run("info", check=False, timeout=20)
    return False


@contextmanager
def _own(folder: Path) -> Iterator[Engine]:
    host = f"unix://{folder}/docker.sock"
    command = ["dockerd", "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")]
    command += ["--pidfile", str(folder / "pid"), "-H", host, "--log-level", "warn"]
    log = folder / "dockerd.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(command, stdout=output, stderr=output)
    own = Engine(host)
    try:
        until = time.monotonic() + _START
        while not _answers(own):
            if daemon.poll() is not None or time.monotonic() > until:
                raise NoEngineError(f"dockerd did not start: {_tail(log)}")
            time.sleep(0.2)
        yield own
    finally:
        daemon.terminate()
        with suppress(subprocess.TimeoutExpired):
            daemon.wait(30)
        shutil.rmtree(folder / "data", ignore_errors=True)  # gigabytes that nobody needs again


def _tail(log: Path) -> str:
    return " / ".join(log.read_text("utf-8", "replace").splitlines()[-5:])


def compose_command() -> Sequence[str]:
    """Return how Compose is called here: what Debian ships, or the plugin.

    Raises:
        NoEngineError: where there is neither.
    """
    named = os.environ.get("AUTHZ_COMPOSE")
    if named:
        return (named,)
    if shutil.which("docker-compose"):
        return ("docker-compose",)
    if shutil.which("docker"):
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if plugin.returncode == 0:
            return ("docker", "compose")
    raise NoEngineError("neither docker-compose nor the plugin `docker compose` is installed")
