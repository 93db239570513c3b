"""Put a certificate and its key where Envoy reads them, in one step.

Envoy reads both files again when something is renamed into the certificate's folder, and keeps the
old pair where the two do not fit (`sds.certificate.key_rotation_failed`). Rewritten files and links
that are removed and made anew it does not notice. So both files are links into a folder behind one
link, as Kubernetes mounts secrets, and that link is replaced by a rename.

Invariant: at any moment the two names lead to files of one pair
(tests/setup/test_certificate_files.py).
"""

import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from authz.config.files import (
    PRIVATE,
    READABLE,
    FileOwner,
    locked_folder,
    write_atomically,
    write_draft,
)

_LINK: Final = "..data"
_HOME: Final = "..pair-"


def replace_pair(certificate: Path, key: Path, chain: bytes, private: bytes) -> None:
    """Replace both files.

    Args:
        certificate: the file that Envoy reads the chain from.
        key: the file of the key; where it is in another folder, it is renamed into place first,
            and between the two renames Envoy keeps the old pair.
        chain: the new chain, PEM.
        private: its key, PEM.

    Raises:
        OSError: where something cannot be written; both files are as they were.
    """
    folder = certificate.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.resolve() != key.parent.resolve():
        _write(key, private, PRIVATE)
        _write(certificate, chain, READABLE)
        return
    with locked_folder(folder):
        _adopt(folder, certificate.name, key.name)
        home = _home(folder)
        _write(home / certificate.name, chain, READABLE)
        _write(home / key.name, private, PRIVATE)
        _link(folder, _LINK, home.name)
        for name in (key.name, certificate.name):
            _link(folder, name, f"{_LINK}/{name}")
        for each in folder.glob(f"{_HOME}*"):
            if each.name != home.name:
                shutil.rmtree(each, ignore_errors=True)


def announce(certificate: Path) -> None:
    """Have Envoy read both files again: something is renamed into their folder.

    Raises:
        OSError: where the folder cannot be written.
    """
    draft = write_draft(certificate.with_name("renewed"), b"", READABLE, _owner(certificate.parent))
    renamed = draft.with_name(f"{draft.name}.read")
    draft.rename(renamed)
    renamed.unlink()


def _adopt(folder: Path, *names: str) -> None:
    """Turn a pair of plain files into links to copies of them: what is read stays the same."""
    paths = [folder / name for name in names]
    if all(_is_ours(path) for path in paths) or not all(path.exists() for path in paths):
        return
    home = _home(folder)
    for path in paths:
        _write(home / path.name, path.read_bytes(), path.stat().st_mode & 0o777)
    _link(folder, _LINK, home.name)
    for path in paths:
        _link(folder, path.name, f"{_LINK}/{path.name}")


def _is_ours(path: Path) -> bool:
    return path.is_symlink() and path.readlink() == Path(_LINK, path.name)


def _home(folder: Path) -> Path:
    home = folder / f"{_HOME}{secrets.token_hex(8)}"
    home.mkdir(mode=0o700)
    _give(home, folder)
    return home


def _link(folder: Path, name: str, target: str) -> None:
    place = folder / name
    if place.is_symlink() and place.readlink() == Path(target):
        return
    draft = folder / f".{name}.{secrets.token_hex(8)}"
    draft.symlink_to(target)
    try:
        _give(draft, folder)
        draft.replace(place)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _write(path: Path, content: bytes, mode: int) -> None:
    write_atomically(path, content, mode, _owner(path.parent))


def _owner(folder: Path) -> FileOwner:
    """Return whom the files of a folder are given to, where we may: the containers run as it."""
    found = folder.stat()
    return found.st_uid, found.st_gid


def _give(path: Path, folder: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, *_owner(folder), follow_symlinks=False)
