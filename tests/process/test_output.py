"""What parts say is kept, bounded, and never makes anybody wait."""

import io
import os
import threading
from pathlib import Path

import pytest

from authz.process import output
from authz.process.output import Console, ServiceLog, printable


def test_printable() -> None:
    """A terminal obeys nothing that a part repeats."""
    assert printable("a\tb\x1b[2Jé\r\x00\x9b") == "a\tb\\x1b[2Jé\\x0d\\x00\\x9b"


def test_lines_in_pieces(tmp_path: Path) -> None:
    """Lines are whole, however the bytes arrive; the last one too, when its process is gone."""
    echoed: list[str] = []
    log = ServiceLog(tmp_path / "a.log", echoed.append)

    for piece in (b"o", b"ne\ntw", b"o\r\n\xff", b"three"):
        log.feed(piece)
    log.end()
    log.close()

    assert echoed == ["one", "two", "\ufffdthree"]
    assert (tmp_path / "a.log").read_bytes() == b"one\ntwo\r\n\xffthree\n"


def test_private(tmp_path: Path) -> None:
    """Nobody else reads a log."""
    ServiceLog(tmp_path / "a.log").close()

    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600


def test_appends(tmp_path: Path) -> None:
    """What an earlier run said stays, and is no part of the last lines of this one."""
    (tmp_path / "a.log").write_bytes(b"earlier\n")
    log = ServiceLog(tmp_path / "a.log")
    log.feed(b"now\n")
    log.close()

    assert (tmp_path / "a.log").read_bytes() == b"earlier\nnow\n"
    assert log.tail == ("now",)


def test_tail_is_of_one_process(tmp_path: Path) -> None:
    """The last lines are those of the process that spoke last, a bounded number."""
    log = ServiceLog(tmp_path / "a.log")
    log.feed(b"old\nunfinished")
    log.begin()
    log.feed(b"".join(b"%d\n" % number for number in range(100)))
    log.close()

    assert log.tail == tuple(str(number) for number in range(85, 100))


def test_endless_line(tmp_path: Path) -> None:
    """A line without an end is cut, and takes no memory."""
    echoed: list[str] = []
    log = ServiceLog(tmp_path / "a.log", echoed.append)
    for _ in range(64):
        log.feed(b"x" * 4096)
    log.close()

    assert max(map(len, echoed)) <= 16 << 10
    assert len(echoed) >= 8


def test_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log and the one before it stay under a bound each, and no line is lost between them."""
    monkeypatch.setattr(output, "_LARGEST", 100)
    log = ServiceLog(tmp_path / "a.log")
    for number in range(30):
        log.feed(b"line %03d\n" % number)
    log.close()

    older, newer = ((tmp_path / name).read_bytes() for name in ("a.log.1", "a.log"))
    assert len(older) <= 100
    assert len(newer) <= 100
    assert (older + newer).endswith(b"".join(b"line %03d\n" % n for n in range(15, 30)))
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600


def test_full_disk() -> None:
    """A disk that is full costs lines in the file, nothing else."""
    log = ServiceLog(Path("/dev/full"))
    log.feed(b"said all the same\n")
    log.close()

    assert log.tail == ("said all the same",)


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A log is a file in the folder, not what somebody made its name point to."""
    (tmp_path / "a.log").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic links"):
        ServiceLog(tmp_path / "a.log")


def test_console_writes() -> None:
    """Lines come out in order, and all of them at the end."""
    stream = io.StringIO()
    console = Console(stream)
    for number in range(100):
        console.say(str(number))
    console.close()

    assert stream.getvalue().split() == [str(number) for number in range(100)]


class _Paused(io.StringIO):
    """Be a terminal on which somebody pressed Ctrl-S."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def write(self, text: str) -> int:
        self.goes_on.wait(30)
        return super().write(text)


def test_paused_terminal() -> None:
    """Nobody waits for a paused terminal, and what it missed is counted when it goes on."""
    stream = _Paused()
    console = Console(stream, capacity=10)
    for number in range(1000):
        console.say(str(number))
    stream.goes_on.set()
    while console._lost:
        console.say("on")
    console.close()

    assert "lines were not shown)" in stream.getvalue()
    assert stream.getvalue().startswith("0\n1\n")


def test_terminal_gone() -> None:
    """Lines for a terminal that is gone are thrown away."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    console = Console(stream)
    console.say("x" * 100_000)
    console.say("y")
    console.close()

    assert not console._thread.is_alive()
    with pytest.raises(BrokenPipeError):
        stream.close()
