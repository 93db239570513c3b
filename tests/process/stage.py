"""Stages for tests of supervision: small real programs, signals and time under control."""

import asyncio
import os
import select
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from authz.process.group import Handlers, ServiceGroup
from authz.process.service import ServiceSpec, ServiceTiming
from authz.process.supervisor import Backoff

DEADLINE = 60.0
_PAUSE = threading.Event()  # never set: its wait is a pause between two looks

# Every script appends its process id to NAME.pids; `up()` says that it is ready, `rest()` does
# nothing until it is killed.
PRELUDE = """
import os, signal, subprocess, sys
here, name = sys.argv[1:3]
def note(text, file=None):
    fd = os.open(f"{here}/{file or name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, (text + "\\n").encode())
def up():
    note("", name + ".up")
def rest():
    while True:
        signal.pause()
note(str(os.getpid()), name + ".pids")
"""
RESTING = "up(); rest()"


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something, for a bounded time."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - processes and files tell nobody
            await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for something outside of an event loop."""
    for _ in range(int(DEADLINE / 0.01)):
        if condition():
            return
        _PAUSE.wait(0.01)
    raise AssertionError("it did not happen")


def gone(pid: int) -> bool:
    """Tell whether a process has ended, its zombie included."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], 0)[0])
    finally:
        os.close(fd)


def listens(pid: int) -> set[str]:
    """Return every address that a process listens on."""
    links = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    inodes = {link[8:-1] for link in links if link.startswith("socket:")}
    found = set()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        rows = [line.split() for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()]
        found |= {row[1] for row in rows[1:] if row[9] in inodes}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]]
    return found | {row[7] for row in rows if row[6] in inodes and len(row) > 7}


class ServiceStage:
    """Make parts of small scripts, and see what they did and what was said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.handlers: Handlers = {}
        self.timing = ServiceTiming(poll=0.01, backoff=Backoff(first=0.01))

    def spec(self, name: str, script: str = RESTING, **changes: Any) -> ServiceSpec:
        """Make a part that runs a script and is ready once that has called `up()`."""

        async def ready() -> bool:
            return (self.folder / f"{name}.up").exists()

        argv = (sys.executable, "-I", "-S", "-c", PRELUDE + script, str(self.folder), name)
        return replace(ServiceSpec(name, argv, dict(os.environ), ready), **changes)

    def supervisor(self, *services: ServiceSpec, **changes: Any) -> ServiceGroup:
        """Make a supervisor whose signals are sent by `send`."""
        given: dict[str, Any] = {"timing": self.timing, "signals": self.signals} | changes
        return ServiceGroup(services, self.folder, self.lines.append, **given)

    @contextmanager
    def signals(self, handlers: Handlers) -> Iterator[None]:
        """Stand in for `loop_signals`."""
        self.handlers = handlers
        yield

    def send(self, number: signal.Signals) -> None:
        """Be the kernel that delivers a signal to the supervisor."""
        self.handlers[number]()

    @asynccontextmanager
    async def playing(
        self, *services: ServiceSpec, **changes: Any
    ) -> AsyncIterator[asyncio.Task[int]]:
        """Run a supervisor; at the end it is stopped, and no process of it is left."""
        task = asyncio.create_task(self.supervisor(*services, **changes).run())
        try:
            yield task
        finally:
            if not task.done():
                self.send(signal.SIGTERM)
            await asyncio.wait({task}, timeout=DEADLINE)
            assert task.done()
            # A grandchild was killed before that, and may take a moment to be gone.
            pids = [pid for spec in services for pid in self.pids(spec.name)]
            await until(lambda: all(map(gone, pids)))

    def read(self, name: str) -> list[str]:
        """Return the lines of a file; none where it does not exist."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def pids(self, name: str) -> list[int]:
        """Return the process ids that a script has run under, in order."""
        return [int(line) for line in self.read(f"{name}.pids")]

    def said(self, words: str) -> bool:
        """Tell whether a line with these words was said."""
        return any(words in line for line in self.lines)
