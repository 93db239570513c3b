"""Files are read without waiting and replaced whole."""

import os
import threading
from pathlib import Path

import pytest

from authz.config.files import READABLE, IrregularFileError, read_regular, write_atomically
from authz.config.pins import read_file
from authz.config.problems import WrongValueError


@pytest.mark.parametrize("size", [0, 1, 8, 9, 100])
def test_a_file_is_read_up_to_its_bound(tmp_path: Path, size: int) -> None:
    """Of one that is too long there is one byte more than allowed: the caller can tell."""
    (tmp_path / "a").write_bytes(b"x" * size)
    (tmp_path / "link").symlink_to("a")

    assert read_regular(tmp_path / "link", 8) == b"x" * min(size, 9)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "missing"])
def test_what_is_no_file_keeps_nobody_waiting(tmp_path: Path, kind: str) -> None:
    """A pipe that nobody writes to, a folder, a device without an end: an error, at once."""
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()

    with pytest.raises(OSError, match="No such file" if kind == "missing" else "no regular file"):
        read_regular(path, 8)


def test_a_pipe_that_takes_the_place_of_approved_tools(tmp_path: Path) -> None:
    """Whatever `stat` saw before, what was opened is looked at: no race keeps a reload waiting."""
    path, stop = tmp_path / "pins.json", threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (tmp_path / "file").write_text("{}")
            (tmp_path / "file").replace(path)
            os.mkfifo(tmp_path / "pipe")
            (tmp_path / "pipe").replace(path)

    path.write_text("{}")
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(200):
            with pytest.raises(WrongValueError):
                read_file(path)
    finally:
        stop.set()
        swapping.join()


@pytest.mark.parametrize(("mode", "umask"), [(0o600, 0), (READABLE, 0o077), (READABLE, 0)])
def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path, mode: int, umask: int) -> None:
    """Its rights are those that were asked for; a link in its place is replaced, not followed."""
    (tmp_path / "other").write_text("other")
    (tmp_path / "a").symlink_to("other")
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a", "one", mode)
    finally:
        os.umask(before)

    assert (tmp_path / "a").read_text() == "one"
    assert (tmp_path / "a").lstat().st_mode == 0o100000 | mode
    assert (tmp_path / "other").read_text() == "other"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_replaced_leaves_nothing(tmp_path: Path) -> None:
    """A folder in its place stays, and no draft is left."""
    (tmp_path / "a").mkdir()

    with pytest.raises(OSError, match="Is a directory"):
        write_atomically(tmp_path / "a", b"one")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "b", "\ud800")
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_the_error_names_the_path(tmp_path: Path) -> None:
    """As every OSError does."""
    with pytest.raises(IrregularFileError) as caught:
        read_regular(tmp_path, 8)
    assert caught.value.filename == str(tmp_path)
