"""Gather what the container images are built of: `make wheelhouse`, into dist/wheelhouse/.

For every image a list with hashes (`authz.txt`, `samples.txt`) and the wheels that the lists name;
our own wheel in dist/authz/ and beside it a compiled one where this machine can make it for the
image's Python (tools/compiled.py); the demonstration's wheel in dist/demo/. With these the images
build without a network.

Only what requirements.lock names with a hash is taken. What an image needs is read from the
metadata of the packages that are installed here; the platform is the image's own.
"""

import argparse
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final

import compiled  # beside this file
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
# The Python of the images; Dockerfile names the same.
PYTHON: Final = "3.11"
# Debian 12 has glibc 2.36; pip takes each of these as it is written and implies no older one.
_GLIBC: Final = ("2_36", "2_35", "2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17")
# What the service runs on. envoy-data-plane renders Envoy's configuration, ngh2 on uvloop carries
# Check.
_SERVICE: Final = ("authz", "envoy-data-plane", "ngh2", "opentelemetry-proto", "uvloop")
# What the sample servers and the stand-in issuer of the tests run on.
_SAMPLES: Final = ("authz", "mcp", "pyotp")


def environments(machine: str) -> list[dict[str, str]]:
    """Return what markers are judged by: the image's platform, its first and its last patch."""
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    python = {"python_version": PYTHON, "platform_machine": machine}
    base = {name: str(value) for name, value in default_environment().items()}
    return [
        base | linux | python | {"python_full_version": f"{PYTHON}.{patch}", "extra": ""}
        for patch in (0, 99)
    ]


def closure(roots: Iterable[str], machine: str) -> set[str]:
    """Return the names of all packages that the roots need on Linux, themselves included."""
    found: set[str] = set()
    waiting = [Requirement(root) for root in roots]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        try:
            needs = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue  # of another patch release of Python than ours; such back-ports need nothing
        waiting += (need for need in needs if _applies(need.marker, machine, extras))
    return found


def _applies(marker: Marker | None, machine: str, extras: Iterable[str] = ()) -> bool:
    return marker is None or any(
        marker.evaluate(each | {"extra": extra})
        for each in environments(machine)
        for extra in ("", *extras)
    )


def locked(names: Iterable[str], machine: str) -> str:
    """Return the lock's entries of these packages for a machine, hashes and all.

    Raises:
        SystemExit: where the lock has none for one.
    """
    entries: dict[str, list[str]] = {}
    for entry in _entries((ROOT / "requirements.lock").read_text("utf-8")):
        wanted = Requirement(entry.splitlines()[0].rstrip("\\ "))
        # The lock is for every Python: it may have a package twice, for an older and a newer one.
        if _applies(wanted.marker, machine):
            lines = [line for line in entry.splitlines() if not line.lstrip().startswith("#")]
            entries.setdefault(canonicalize_name(wanted.name), []).append("\n".join(lines) + "\n")
    chosen: list[str] = []
    for name in sorted(set(names) - {"authz"}):
        if name not in entries:
            sys.exit(f"wheelhouse: requirements.lock has no {name}; run make lock")
        chosen += entries[name]
    return "".join(chosen)


def fetch(lists: Sequence[str], folder: Path, machine: str) -> None:
    """Download the wheels that the lists name, with their hashes checked.

    pip would judge markers by the Python that runs it; the one of the image judges them later.
    """
    wanted = folder / "download.txt"
    wanted.write_text(
        re.sub(
            r" ;[^\n\\]*",
            "",
            "".join(dict.fromkeys(each for text in lists for each in _entries(text))),
        ),
        "utf-8",
    )
    platforms = [f"--platform=manylinux_{glibc}_{machine}" for glibc in _GLIBC]
    _run(
        sys.executable,
        *("-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--require-hashes", "--no-deps", "--only-binary=:all:", f"--dest={folder}"),
        *("--implementation=cp", f"--python-version={PYTHON}"),
        *(f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")),
        *platforms,
        f"--platform=manylinux2014_{machine}",
        f"--requirement={wanted}",
    )
    wanted.unlink()


def _entries(text: str) -> list[str]:
    return re.findall(r"^[a-zA-Z0-9].*?(?=^[a-zA-Z0-9]|\Z)", text, re.MULTILINE | re.DOTALL)


def main(argv: Sequence[str]) -> int:
    """Fill the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--machine", default="x86_64", choices=("x86_64", "aarch64"))
    options = parser.parse_args(argv)
    folder = ROOT / "dist" / "wheelhouse"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*"):
        if old.suffix != ".whl":
            old.unlink()
    own, demo = ROOT / "dist" / "authz", ROOT / "dist" / "demo"
    for place in (own, demo):
        shutil.rmtree(place, ignore_errors=True)
    roots = {"authz": _SERVICE, "samples": _SAMPLES}
    lists = [locked(closure(needed, options.machine), options.machine) for needed in roots.values()]
    for name, text in zip(roots, lists, strict=True):
        (folder / f"{name}.txt").write_text(text, "utf-8")
    fetch(lists, folder, options.machine)
    build = ("-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps")
    build += ("--no-build-isolation",)
    _run(sys.executable, *build, f"--wheel-dir={own}", str(ROOT))
    _run(sys.executable, *build, f"--wheel-dir={demo}", str(ROOT / "demo"))
    lacking = _why_not_compiled(options.machine)
    if lacking:
        print(f"wheelhouse: the image runs the sources as they are: {lacking}", file=sys.stderr)
    else:
        compiled.build(own)
    _drop_old(lists, folder)
    print(folder.parent)
    return 0


def _why_not_compiled(machine: str) -> str:
    """Return why this machine cannot compile for the image; nothing where it can."""
    if platform.machine() != machine or f"{sys.version_info[0]}.{sys.version_info[1]}" != PYTHON:
        return f"compiled files are made on {machine} with Python {PYTHON}"
    return compiled.why_not()


def _drop_old(lists: Sequence[str], folder: Path) -> None:
    """Remove the wheels of an older lock: they would only swell the build's context."""
    pins = {
        canonicalize_name(name): version
        for each in lists
        for name, version in re.findall(
            r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==(\S+)", each, re.MULTILINE
        )
    }
    for wheel in folder.glob("*.whl"):
        name, version = wheel.name.split("-")[:2]
        if pins.get(canonicalize_name(name)) != version:
            wheel.unlink()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - our own arguments


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
