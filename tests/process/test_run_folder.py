"""Folders of a run: what the next start removes, and what it leaves."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz.process.run_folder import make_run_folder

HOLD = """
import sys
from authz.process.run_folder import make_run_folder
print(make_run_folder(), flush=True)
sys.stdin.read()
"""
# As `authz serve` becomes the watcher of its worker.
REPLACED = """
import os, sys
from authz.process.run_folder import make_run_folder
folder = make_run_folder()
code = "import sys; print(sys.argv[1], flush=True); sys.stdin.read()"
os.execv(sys.executable, [sys.executable, "-c", code, folder])
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def running(program: str) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True
    ) as it:
        assert it.stdout is not None
        try:
            yield it, Path(it.stdout.readline().strip())
        finally:
            it.kill()


def aged(folder: Path) -> Path:
    """Let a folder be of an hour ago."""
    moment = folder.stat().st_mtime - 3600
    os.utime(folder, (moment, moment))
    return folder


@pytest.mark.parametrize("program", [HOLD, REPLACED], ids=["held", "through-execve"])
def test_a_folder_is_kept_while_its_process_lives_and_removed_after_its_death(
    program: str,
) -> None:
    """A process that was killed cannot clean up; the next start does it."""
    with running(program) as (process, folder):
        (folder / "admin.sock").touch()
        aged(folder)
        make_run_folder()
        assert folder.exists()
        process.kill()
        process.wait()

        make_run_folder()
        assert not folder.exists()


def test_nothing_else_is_removed(here: Path) -> None:
    """A fresh folder may not be locked yet; others are not of ours, whatever their name."""
    fresh, shared, target = here / "authz-run-fresh", here / "authz-run-shared", here / "target"
    for folder, mode in ((fresh, 0o700), (shared, 0o755), (target, 0o700)):
        folder.mkdir()
        folder.chmod(mode)
    aged(shared)
    aged(target)
    link, file = here / "authz-run-link", here / "authz-run-file"
    link.symlink_to(target)
    file.write_text("x")

    make_run_folder()
    assert all(each.exists() for each in (fresh, shared, target, link, file))
