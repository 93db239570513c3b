"""Whether authz.yaml, or a file that it names, has changed and is whole.

Invariant: a file that somebody is still writing is never called changed: it has to look the same
twice, and nobody may hold it open for writing, where the kernel tells
(tests/config/test_changes.py).
A replaced file, an exchanged link (Kubernetes' `..data`) and a rewritten file are seen alike, also
where size and time of modification stay: the time of the inode's change cannot be set.
"""

import fcntl
import os
import signal
import stat
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

# What to say of an authz.yaml that is mounted as a single file, and of one that was replaced.
SINGLE_FILE: Final = (
    "authz.yaml is mounted as a single file: an editor that replaces it leaves this container with"
    " the old one. Mount its folder (docs/upgrade.md)"
)
REPLACED: Final = (
    "authz.yaml was replaced outside of this container, which still has the old file, because it is"
    " mounted as a single file. Create the container anew: docker compose up -d --force-recreate"
    " authz authz-pages; and mount the folder (docs/upgrade.md)"
)
_MOUNTS: Final = Path("/proc/self/mountinfo")
_DELETED: Final = "//deleted"
_ROOT, _POINT = 3, 4  # fields of a line of mountinfo, proc_pid_mountinfo(5)


class FileStamp(NamedTuple):
    """Identify a state of a file, links followed; all 0 where there is none."""

    device: int = 0
    inode: int = 0
    size: int = 0
    modified: int = 0  # nanoseconds
    changed: int = 0  # nanoseconds


Stamps = Mapping[Path, FileStamp]


class Look(Enum):
    """Say what a look at the files has shown."""

    SAME = "same"
    UNSETTLED = "unsettled"  # changed a moment ago, or open for writing
    CHANGED = "changed"


def stamp(path: Path) -> FileStamp:
    """Return the present state of a file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return FileStamp()
    return FileStamp(
        found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )


def is_open_for_writing(path: Path) -> bool:
    """Tell whether somebody holds a file open for writing; False where the kernel does not tell.

    It tells the owner of a file, on file systems of this machine: a read lease is refused.
    """
    try:
        # A FIFO would keep us waiting for somebody who writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return False
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        # Whoever opens it for writing meanwhile breaks the lease: by a signal that does nothing, in
        # place of SIGIO, which would end this process. Closing gives the lease back.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:  # not ours, or a file system without leases
        return False
    finally:
        os.close(descriptor)
    return False


class ConfigFiles:
    """Look at authz.yaml and the files that it names, by their stamps."""

    def __init__(self, file: Path) -> None:
        """Take authz.yaml; what it names is told by `follow`."""
        self._file = file
        self._named: frozenset[Path] = frozenset()
        self._taken: Stamps = MappingProxyType({})
        self._last: Stamps = MappingProxyType({})

    def follow(self, named: Iterable[Path]) -> None:
        """Say which files the configuration in force names."""
        self._named = frozenset(named)

    def mark(self) -> None:
        """Take the present state as known; to be called before the files are read."""
        self._taken = self._last = self._stamps()

    def look(self) -> Look:
        """Compare the present state with the known one."""
        now, last = self._stamps(), self._last
        self._last = now
        changed = [path for path in now if now[path] != self._taken.get(path)]
        if not changed:
            return Look.SAME
        if now != last or any(map(is_open_for_writing, changed)):
            return Look.UNSETTLED
        return Look.CHANGED

    def is_being_written(self) -> bool:
        """Tell whether one of the files is open for writing."""
        return any(map(is_open_for_writing, self._stamps()))

    def have_moved(self) -> bool:
        """Tell whether what was read since `mark` may be a part, or of two moments."""
        return self._stamps() != self._taken or self.is_being_written()

    def _stamps(self) -> Stamps:
        return {path: stamp(path) for path in (self._file, *self._named)}


class FileMount(NamedTuple):
    """A file that is mounted alone.

    Attributes:
        root: its path on the file system that it is of.
        is_replaced: whether another file has taken its name there since.
    """

    root: str
    is_replaced: bool


def file_mount(path: Path, mounts: Path = _MOUNTS) -> FileMount | None:
    """Return how a file is mounted alone; None where its folder is, or nothing.

    Args:
        path: the file.
        mounts: the table of this process's mounts.
    """
    try:
        wanted = str(path.resolve(strict=True))
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
        links = path.stat().st_nlink
    except (OSError, ValueError, RuntimeError):
        return None
    found: FileMount | None = None
    for line in lines:
        fields = line.split(" ")
        if len(fields) > _POINT and _unescaped(fields[_POINT]) == wanted:
            root = _unescaped(fields[_ROOT])
            replaced = root.endswith(_DELETED) or links == 0
            found = FileMount(root.removesuffix(_DELETED), replaced)
    return found  # of several at one place the last lies on top


def _unescaped(text: str) -> str:
    """Return a field without the octal escapes of space, tab, newline and backslash."""
    for character in " \t\n\\":
        text = text.replace(f"\\{ord(character):03o}", character)
    return text
