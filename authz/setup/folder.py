"""A folder into which each file is put once.

Invariant: a file that exists is not replaced, by a race neither (`link` fails where a name is
taken), and a new file appears whole or not at all (tests/setup/test_write.py).
"""

import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Final

from authz.config.files import write_draft

OWNER: Final = 0o600
EVERYBODY: Final = 0o644
_FOLDER: Final = 0o755
_PRIVATE_FOLDER: Final = 0o700


class FileOutcome(Enum):
    """Say what became of a file."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    KEPT = "kept"  # it is not what would be written now
    RENEWED = "renewed"


class Folder:
    """Put files into one folder.

    Attributes:
        root: where it is.
        outcomes: what became of each file, by its path in the folder.
    """

    def __init__(self, root: Path, uid: int, gid: int) -> None:
        """Take the folder; it is made with its first file.

        Args:
            root: where it is.
            uid: who is to own its files, where we may give them away.
            gid: their group.
        """
        self.root = root
        self.outcomes: dict[str, FileOutcome] = {}
        self._owner = (uid, gid) if os.geteuid() == 0 else None

    def folder(self, name: str, *, private: bool = False) -> Path:
        """Make a folder where there is none, and those above it.

        Raises:
            OSError: where it cannot be made, or something else has its name.
        """
        path = self.root / name
        missing = [each for each in (path, *path.parents) if not each.exists()]
        for each in reversed(missing):
            each.mkdir(mode=_PRIVATE_FOLDER if private else _FOLDER)
            self._give(each)
        return path

    def put(self, name: str, content: str | bytes, mode: int = EVERYBODY) -> FileOutcome:
        """Write a file where there is none; tell whether one that is there is the same.

        Raises:
            OSError: where it cannot be read or written.
        """
        data = content.encode() if isinstance(content, str) else content
        path = self.root / name
        if path.exists() or path.is_symlink():
            same = path.read_bytes() == data
            return self._told(name, FileOutcome.UNCHANGED if same else FileOutcome.KEPT)
        try:
            self._appear(path, data, mode)
        except FileExistsError:  # somebody was quicker
            return self._told(name, FileOutcome.KEPT)
        return self._told(name, FileOutcome.WRITTEN)

    def renew(self, name: str, content: str, mode: int = EVERYBODY) -> FileOutcome:
        """Write a file that is made of others, in place of the one that is there.

        Raises:
            OSError: where it cannot be written.
        """
        path = self.root / name
        old = path.read_bytes() if path.exists() else None
        if old == content.encode():
            return self._told(name, FileOutcome.UNCHANGED)
        self._draft(path, content.encode(), mode).replace(path)
        return self._told(name, FileOutcome.WRITTEN if old is None else FileOutcome.RENEWED)

    def secret(self, name: str, make: Callable[[], str]) -> str:
        """Return a secret: the one that is there, else one that is made now (mode 600).

        Raises:
            OSError: where it cannot be read or written.
        """
        path = self.root / name
        if not path.exists():
            self.put(name, make(), OWNER)
            return path.read_text("utf-8")
        self._told(name, FileOutcome.UNCHANGED)
        return path.read_text("utf-8")

    def _told(self, name: str, outcome: FileOutcome) -> FileOutcome:
        self.outcomes[name] = outcome
        return outcome

    def _appear(self, path: Path, data: bytes, mode: int) -> None:
        draft = self._draft(path, data, mode)
        try:
            os.link(draft, path)
        finally:
            draft.unlink()

    def _draft(self, path: Path, data: bytes, mode: int) -> Path:
        private = mode == OWNER
        self.folder(str(path.parent.relative_to(self.root)), private=private)
        return write_draft(path, data, mode, self._owner)

    def _give(self, path: Path) -> None:
        if self._owner is not None:
            os.chown(path, *self._owner)
