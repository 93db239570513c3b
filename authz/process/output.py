"""What services write: each into a log file of its own, some of it to the terminal too.

Invariant: a slow reader stops no service. Files are bounded, the terminal is written to from a
thread behind a bounded queue, and what does not fit is counted, never waited for.
"""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

_LARGEST: Final = 16 << 20
_LONGEST_LINE: Final = 16 << 10
_TAIL: Final = 15
_QUEUE: Final = 2_000
# Seconds that a terminal has for the last lines; a paused one must not keep us from ending.
_LAST_WORDS: Final = 2.0


def printable(line: str) -> str:
    """Return a line without control characters: a service may repeat a stranger's bytes."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in line)


def _shown(raw: bytes) -> str:
    return printable(raw[:_LONGEST_LINE].decode("utf-8", "replace").rstrip("\r"))


class Console:
    """Write lines to a stream without ever making the caller wait."""

    def __init__(self, stream: TextIO, capacity: int = _QUEUE) -> None:
        """Start the writing thread; `close` ends it."""
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(capacity)
        self._lost = 0
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Write one line, or count it as lost where the stream does not keep up."""
        try:
            if self._lost:
                self._lines.put_nowait(f"({self._lost} lines were not shown)")
                self._lost = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Write what is waiting, for a bounded time."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=_LAST_WORDS)
            self._thread.join(_LAST_WORDS)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            # The terminal may be gone (EPIPE, EIO); the parts go on without it.
            with suppress(OSError, ValueError):
                self._stream.write(line + "\n")
                self._stream.flush()


class ServiceLog:
    """Keep what a service writes: in a file, of which one older one is kept, and the last lines.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, echo: Callable[[str], None] | None = None) -> None:
        """Append to the file.

        Args:
            path: the file, created with mode 600.
            echo: called with every whole line, made printable.
        """
        self.path = path
        self._echo = echo
        self._rest = b""
        self._last: deque[bytes] = deque(maxlen=_TAIL)
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def begin(self) -> None:
        """Forget the last lines: what follows is said by a new process."""
        self._rest = b""
        self._last.clear()

    def feed(self, chunk: bytes) -> None:
        """Take what a service wrote, in any pieces."""
        self._keep(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._line(line)

    def end(self) -> None:
        """Take an unfinished line as a line: its process is gone."""
        if self._rest:
            self._line(self._rest)
            self._keep(b"\n")
        self._rest = b""

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    @property
    def tail(self) -> tuple[str, ...]:
        """Return the last lines of the process that spoke last."""
        return tuple(map(_shown, self._last))

    def _line(self, raw: bytes) -> None:
        self._last.append(raw)
        if self._echo is not None:
            self._echo(_shown(raw))

    def _keep(self, chunk: bytes) -> None:
        # A full disk costs lines of a log, not the service.
        with suppress(OSError):
            if self._size + len(chunk) > _LARGEST:
                self._rotate()
            self._size += os.write(self._fd, chunk)

    def _rotate(self) -> None:
        self.path.replace(self.path.with_name(self.path.name + ".1"))
        os.close(self._fd)
        self._open()
