"""A folder for the sockets and files of one run, which the next start removes after a SIGKILL.

Invariant: nothing is removed but a private folder of this user's whose lock nobody holds
(tests/process/test_run_folder.py). The lock (flock) is on the folder itself: it ends with the
process, and holds across PID namespaces that share a folder for temporary files.
"""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from typing import Final

_PREFIX: Final = "authz-run-"
_FRESH: Final = 60.0  # seconds between the making of a folder and its lock, with much to spare


def make_run_folder() -> str:
    """Return a new folder, locked until this process ends, also through execve.

    Folders of processes that have ended are removed before.

    Raises:
        OSError: where it cannot be made.
    """
    _remove_abandoned(tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.set_inheritable(descriptor, True)
    return folder


def _remove_abandoned(parent: str) -> None:
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX):
                with suppress(OSError):
                    _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    """Remove one folder.

    Raises:
        OSError: where it is not ours, or locked.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        is_private = found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == stat.S_IRWXU
        if is_private and found.st_mtime < time.time() - _FRESH:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
