"""`tools/install.py`: how far an installation is, and what went wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.install import locked, progress

ROOT = Path(__file__).resolve().parent.parent


def test_every_package_of_the_lock_file_counts() -> None:
    """The total is of packages, not of hashes or comments."""
    text = "# a==1\na==1 \\\n    --hash=sha256:0\nb-c[d]==2\nB.c==2 ; python_version > '3'\n"
    assert locked(text) == 3
    assert locked((ROOT / "requirements.lock").read_text()) > 100


def test_lines_say_how_far_it_is() -> None:
    """One for each package, by its name."""
    said = ["Collecting a==1 (from -r x)\n", "  Downloading a.whl\n", "Collecting b\n",
            "Installing collected packages: a, b\n"]  # fmt: skip
    assert list(progress(iter(said), 3)) == [
        "  1 of about 3 packages: a",
        "  2 of about 3 packages: b",
        "  installing 2 packages",
    ]


@pytest.mark.process
def test_what_pip_says_is_shown_where_it_fails(tmp_path: Path) -> None:
    """And its exit status is ours, so that make stops; the real pip, with nothing to take."""
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"authz-is-not-there==1 --hash=sha256:{'0' * 64}\n")
    found = subprocess.run(
        [sys.executable, ROOT / "tools/install.py", sys.executable, "-r", str(lock)],
        capture_output=True, text=True, check=False, timeout=120,
        env={"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert found.returncode == 1
    assert "No matching distribution found for authz-is-not-there" in found.stderr
