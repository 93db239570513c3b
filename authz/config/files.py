"""Files as people and other programs leave them: read within bounds, replaced whole.

Invariant: reading waits for nobody, whatever stands at the path; whoever reads a file that is
replaced sees the old one or the new one, never a part (tests/config/test_files.py).
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
READABLE: Final = 0o644

FileOwner = tuple[int, int]  # user and group


class IrregularFileError(OSError):
    """Say that there is no regular file at a path, but a pipe, a device or a folder."""

    def __init__(self, path: Path) -> None:
        """Take the path."""
        super().__init__(errno.EINVAL, "this is no regular file", str(path))


def read_regular(path: Path, longest: int) -> bytes:
    """Return the content of a regular file; of one that is too long, one byte more than allowed.

    Args:
        path: the file; symbolic links are followed.
        longest: bytes that it may have.

    Raises:
        IrregularFileError: where something else is there.
        OSError: where it cannot be read.
    """
    # Without O_NONBLOCK a FIFO would keep us waiting for somebody who writes. What was opened is
    # looked at, not the path, where something else may stand by now.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise IrregularFileError(path)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(longest + 1)
    finally:
        os.close(descriptor)


def write_draft(
    path: Path, content: str | bytes, mode: int = PRIVATE, owner: FileOwner | None = None
) -> Path:
    """Write, beside a file, what is to take its place by a rename.

    Args:
        path: the file, which may be missing.
        content: bytes, or text to be written as UTF-8.
        mode: its rights, which the umask does not change.
        owner: of whom it is to be, where this process is root; None for its own user.

    Returns:
        The draft's path; all of it is on the disk.

    Raises:
        OSError: where that is not possible; nothing is left then.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    # Never there with other rights than these, not for a moment.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if owner is not None and os.geteuid() == 0:
                os.fchown(file.fileno(), *owner)
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft


def write_atomically(
    path: Path, content: str | bytes, mode: int = PRIVATE, owner: FileOwner | None = None
) -> None:
    """Put a file in place of whatever is there, by a rename.

    Args:
        path: the file.
        content: bytes, or text to be written as UTF-8.
        mode: its rights, which the umask does not change.
        owner: as of `write_draft`.

    Raises:
        OSError: where that is not possible; nothing is left then.
    """
    draft = write_draft(path, content, mode, owner)
    try:
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Wait until nobody else holds the folder, and hold it.

    Raises:
        OSError: where there is none, or it cannot be locked.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
