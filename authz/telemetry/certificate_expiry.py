"""When the certificate that Envoy serves ends, read anew where its file has changed."""

from collections.abc import Callable
from pathlib import Path

from authz.config.certificates import read_certificate_file
from authz.config.changes import FileStamp, stamp


class CertificateExpiry:
    """Follow one file; of one that cannot be read (any more) the last answer stands."""

    def __init__(self, path: Callable[[], Path | None]) -> None:
        """Look at the file that `path` names at each call; None names none."""
        self._path = path
        self._seen: tuple[Path, FileStamp] | None = None
        self._end: float | None = None

    def is_known(self) -> bool:
        """Tell whether there is an answer: Envoy's files may be on another machine."""
        self._look()
        return self._end is not None

    def __call__(self) -> float:
        """Return seconds since the epoch; 0 where no file was ever read."""
        self._look()
        return self._end or 0.0

    def _look(self) -> None:
        path = self._path()
        if path is None:
            return
        try:
            mark = (path, stamp(path))
            if mark == self._seen:
                return
            self._end = read_certificate_file(path).not_after
            self._seen = mark
        except (OSError, ValueError):
            return
