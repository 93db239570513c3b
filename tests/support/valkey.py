"""A real Valkey or Redis for tests: started in a moment, stopped for sure, broken on request."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from authz.local.state import SetupError
from authz.local.valkey import ALLOCATOR
from authz.local.valkey import binary as valkey_binary
from tests.support.ports import held_port

# Redis refuses longer socket paths than a sockaddr_un holds, and pytest's folders are long.
_PREFIX = "vk-"
_STARTUP = 60.0


def binaries() -> dict[str, Path | None]:
    """Return the servers that this machine may have, by name; None for what it lacks."""
    found = shutil.which("redis-server")
    return {"valkey": _wheel(), "redis": Path(found) if found else None}


def _wheel() -> Path | None:
    try:
        return valkey_binary()
    except SetupError:
        return None


@dataclass
class ValkeyServer:
    """Run one server on a Unix socket (port 0) or on a port of 127.0.0.1."""

    binary: Path
    directory: Path
    port: int = 0
    config: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def socket(self) -> Path:
        """Return the path of its Unix socket; there is one in any case."""
        return self.directory / "s"

    @property
    def url(self) -> str:
        """Return its URL."""
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self.socket}"

    def start(self, *, wait: bool = True) -> None:
        """Start it; with `wait`, return when it answers PING."""
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "dir": str(self.directory),
            "save": "",
            "appendonly": "no",
            **self.config,
        }
        self.spawn([part for name, value in options.items() for part in (f"--{name}", value)])
        if wait:
            self.await_pong()

    def spawn(self, arguments: Sequence[str | Path]) -> None:
        """Start its process."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, *arguments],
                env=ALLOCATOR | os.environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def await_pong(self) -> None:
        """Return when it answers PING."""
        deadline = time.monotonic() + _STARTUP
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                break
            try:
                self.command("PING")
            except redis.AuthenticationError:
                return
            except (redis.RedisError, OSError):
                time.sleep(0.01)
            else:
                return
        raise RuntimeError("no answer:\n" + (self.directory / "log").read_text())

    def command(self, *words: Any, password: str = "") -> Any:
        """Send one command over the Unix socket, and return the answer as bytes."""
        client = redis.Redis(
            unix_socket_path=str(self.socket),
            password=password or None,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=30,
        )
        try:
            return client.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            client.close()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def freeze(self) -> None:
        """Let it answer nothing, with its connections open (SIGSTOP)."""
        self.signal(signal.SIGSTOP)
        # A stopped process is what the next request must meet.
        assert self.process is not None
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word (SIGKILL)."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.socket.unlink(missing_ok=True)

    def restart(self) -> None:
        """Kill it and start it again, empty unless it persists."""
        self.kill()
        self.start()


@contextmanager
def valkey(
    name: str = "valkey", *, tcp: bool = False, start: bool = True, **config: str
) -> Iterator[ValkeyServer]:
    """Run a server for as long as the block does.

    Args:
        name: a name of `binaries`.
        tcp: listen on a port too, and say so in `url`.
        start: whether it runs when the block begins.
        config: directives of its configuration file, with underlines for dashes.
    """
    binary = binaries()[name]
    assert binary is not None, f"no {name} on this machine"
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    directives = {key.replace("_", "-"): value for key, value in config.items()}
    server = ValkeyServer(binary, directory, held_port() if tcp else 0, directives)
    try:
        if start:
            server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)
