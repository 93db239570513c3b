"""Translate the path of a decision to C with mypyc: `make compiled`, into build/compiled/.

That is a copy of the tree with the compiled libraries beside their sources: what is started from
it, tests and benches too, runs compiled. Which files is said in pyproject.toml (hooks.mypyc).
Where there is no C compiler the sources run as they are.

The tree is left alone: mypyc writes its libraries beside the sources, where Python would take them
in place of sources that have changed since; so a copy is built.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
TREE: Final = ROOT / "build" / "compiled"
_MADE: Final = shutil.ignore_patterns(
    "__pycache__", "*.so", ".*", "build", "dist", "deploy", "node_modules"
)


def _left_behind(folder: str, names: list[str]) -> set[str]:
    """Return what is no source: what was made, and sockets of whatever runs in the tree."""
    odd = {name for name in names if not ((path := Path(folder, name)).is_file() or path.is_dir())}
    return odd | _MADE(folder, names)


def why_not() -> str:
    """Return what this machine lacks to compile; nothing where it lacks nothing."""
    compiler = (os.environ.get("CC") or str(sysconfig.get_config_var("CC") or "cc")).split()[0]
    if shutil.which(compiler) is None:
        return f"no C compiler ({compiler})"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return "" if header.is_file() else "no Python.h (Debian: python3-dev)"


def build(folder: Path) -> Path:
    """Build the wheel into a folder, and return it.

    Raises:
        subprocess.CalledProcessError: where it does not compile; the reason is on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="authz-compiled-") as place:
        copy = shutil.copytree(ROOT, Path(place) / "tree", ignore=_left_behind)
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
        subprocess.run(  # noqa: S603 - our own arguments
            [sys.executable, "-m", "pip", "wheel", *options, f"--wheel-dir={folder}", str(copy)],
            check=True,
            env=os.environ | {"HATCH_BUILD_HOOK_ENABLE_MYPYC": "1"},
            stdout=subprocess.DEVNULL,
        )
    return max(folder.glob("authz-*-cp*.whl"), key=lambda wheel: wheel.stat().st_mtime)


def plant(wheel: Path, tree: Path) -> None:
    """Make a copy of the tree that has the wheel's libraries beside their sources."""
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(ROOT, tree, ignore=_left_behind)
    with zipfile.ZipFile(wheel) as found:
        found.extractall(tree)  # a wheel that was built a moment ago


def main(argv: Sequence[str]) -> int:
    """Build and plant; exit 3 where this machine cannot."""
    parser = argparse.ArgumentParser(
        description="Translate the path of a decision to C, into build/compiled/.",
        epilog="`python -m authz ...` started from there runs it. Exit: 0 built, 3 not here.",
    )
    parser.parse_args(argv)
    lacking = why_not()
    if lacking:
        print(f"compiled: {lacking}; the sources run as they are", file=sys.stderr)
        return 3
    print("compiling the path of a decision (about a minute)", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="authz-wheel-") as folder:
        plant(build(Path(folder)), TREE)
    print(TREE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
