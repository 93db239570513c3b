"""The state folder: where the services keep files, and their sockets.

Invariant: only its user can enter it, only one `authz up` uses it at a time, and its path needs no
quoting in any service's notation.
"""

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from authz.config.endpoints import LONGEST_SOCKET
from authz.config.files import read_regular, write_atomically

_PLAIN: Final = re.compile(r"/[A-Za-z0-9._/-]*")
_SOCKETS: Final = "run"
_LONGEST_NAME: Final = 16
_LONGEST_SECRET: Final = 256  # bytes
_LONGEST_FOLDER: Final = LONGEST_SOCKET - len(f"/{_SOCKETS}/.sock") - _LONGEST_NAME
_OTHERS: Final = 0o077
_FOLDERS: Final = (_SOCKETS, "log", "valkey", "envoy")
DEFAULT_NAME: Final = ".authz"

# Exit codes: a service could not start; what was asked for is wrong.
FAILED: Final = 1
MISCONFIGURED: Final = 2


class SetupError(Exception):
    """Say in words what keeps the services from being started, and what would be right.

    Attributes:
        code: the exit code of `authz up`.
    """

    def __init__(self, words: str, code: int = MISCONFIGURED) -> None:
        """Keep the words and the code."""
        super().__init__(words)
        self.code = code


@dataclass(frozen=True, slots=True)
class State:
    """Name what lies in the state folder.

    Attributes:
        folder: absolute, mode 700.
        lock: the descriptor of its lock; -1 where it is only looked at.
    """

    folder: Path
    lock: int = field(default=-1, compare=False)

    def socket(self, name: str) -> Path:
        """Return the path of a service's socket; the name has 16 characters at most."""
        assert len(name) <= _LONGEST_NAME
        return self.folder / _SOCKETS / f"{name}.sock"

    @property
    def logs(self) -> Path:
        """Return the folder of the log files."""
        return self.folder / "log"

    @property
    def valkey(self) -> Path:
        """Return the folder of Valkey's configuration and data."""
        return self.folder / "valkey"

    @property
    def envoy(self) -> Path:
        """Return the folder of Envoy's configuration."""
        return self.folder / "envoy"

    @property
    def redis_password(self) -> Path:
        """Return the file with the password of the embedded Valkey."""
        return self.folder / "redis-password"


def default_folder(configuration: Path) -> Path:
    """Return where the state of an authz.yaml is kept unless another folder is named."""
    return configuration.absolute().parent / DEFAULT_NAME


@contextmanager
def held(folder: Path) -> Iterator[State]:
    """Make the folder where it is missing, and hold it against other supervisors.

    Raises:
        SetupError: where it cannot be used, or another process holds it.
    """
    path = Path(os.path.abspath(folder))  # noqa: PTH100 - symbolic links may stay: they are shorter
    _check_path(path)
    try:
        _make(path)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupError(f"the state folder {path} cannot be used: {error.strerror}") from error
    try:
        _lock(lock, path)
        yield State(path, lock)
    finally:
        os.close(lock)


def secret(path: Path) -> str:
    """Return the secret that a file holds; make both, once, where there is none.

    Raises:
        SetupError: where the file is not ours alone, or holds no secret.
    """
    try:
        if not path.exists():
            write_atomically(path, secrets.token_urlsafe(32) + "\n")
        status = path.lstat()
        text = read_regular(path, _LONGEST_SECRET).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} cannot be read: {error}") from error
    if not stat.S_ISREG(status.st_mode) or not _ours(status):
        raise SetupError(f"{path} is readable by others: remove it, a new one is made")
    if re.fullmatch(r"[A-Za-z0-9_-]{43}", text) is None:
        raise SetupError(f"{path} holds no password of ours: remove it, a new one is made")
    return text


def _check_path(path: Path) -> None:
    if _PLAIN.fullmatch(str(path)) is None:
        raise SetupError(
            f"the state folder {str(path)!r} has characters other than letters, digits and . _ / -"
            " in its path; name another with --state"
        )
    if len(str(path)) > _LONGEST_FOLDER:
        raise SetupError(
            f"the state folder {path} has {len(str(path))} characters in its path, and the Unix"
            f" sockets in it leave room for {_LONGEST_FOLDER}; name a shorter one with --state"
        )


def _make(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _ours(path.stat()):
        raise SetupError(
            f"the state folder {path} can be entered by others: give it to yourself alone"
            f" (chmod 700 {path}), or name another with --state"
        )
    for name in _FOLDERS:
        (path / name).mkdir(mode=0o700, exist_ok=True)
    # The folder may lie in a repository, and holds a password.
    (path / ".gitignore").write_text("*\n")


def _ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS


def _lock(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        raise SetupError(
            f"authz up already runs on the state folder {path} (process {holder or 'unknown'});"
            " stop it, or name another folder with --state",
            FAILED,
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
