"""`authz demo` finds the package that it runs, and says what is missing where it is not there."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from authz.cli import demo
from authz.cli.main import main


def test_without_its_package_the_command_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where authz-demo is not installed the command ends with status 1 and names the way."""
    monkeypatch.setattr(demo, "entry_points", lambda **_: EntryPoints())

    assert main(["demo", "--once"]) == 1
    assert "pip install . ./demo" in capsys.readouterr().err


def test_a_package_that_it_needs_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where authz-demo lacks a package of its own the command names it, without a traceback."""
    broken = EntryPoint("demo", "authz_demo_without_mcp:demo", "authz.commands")
    monkeypatch.setattr(demo, "entry_points", lambda **_: EntryPoints((broken,)))

    assert main(["demo"]) == 1
    assert "authz_demo_without_mcp" in capsys.readouterr().err
