"""Install a lock file with pip, and say how far it is; what pip prints is shown where it fails.

    python tools/install.py PYTHON -r LOCK

Runs before the environment is there: nothing but the standard library.
"""

import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

_FLAGS = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--require-hashes")
_STEP = 20  # packages between two lines where nobody watches
_KEPT = 40  # lines of pip's that are shown where it fails


def locked(text: str) -> int:
    """Return how many packages a lock file names; some are for other machines only."""
    return len(re.findall(r"^[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[^\]]*\])?==", text, re.MULTILINE))


def progress(lines: Iterator[str], total: int) -> Iterator[str]:
    """Yield a line for each package that pip comes to, and one while it installs them."""
    count = 0
    for line in lines:
        if found := re.match(r"Collecting ([A-Za-z0-9._-]+)", line):
            count += 1
            yield f"  {count} of about {total} packages: {found[1]}"
        elif line.startswith("Installing collected packages"):
            yield f"  installing {count} packages"


def main(python: str, option: str, lock: str) -> int:
    """Run pip; return its exit status."""
    command = [python, "-m", "pip", "install", *_FLAGS, option, lock]
    kept = deque[str](maxlen=_KEPT)

    def heard(lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            kept.append(line)
            yield line

    total = locked(Path(lock).read_text())
    watched = sys.stdout.isatty()
    with subprocess.Popen(  # noqa: S603 - of the Makefile
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:
        assert pip.stdout is not None
        for number, line in enumerate(progress(heard(iter(pip.stdout)), total)):
            if watched:
                sys.stdout.write(f"\r\x1b[K{line[:100]}")
            elif number % _STEP == 0 or "installing" in line:
                sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    if watched:
        sys.stdout.write("\n")
    if pip.returncode:
        sys.stderr.writelines(kept)
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
