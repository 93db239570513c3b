"""What is translated to C is written so that it means the same there."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def sources() -> Iterator[Path]:
    """Yield the files that mypyc translates."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    for name in wheel["targets"]["wheel"]["hooks"]["mypyc"]["include"]:
        path = ROOT / name.lstrip("/")
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def waits(statements: list[ast.stmt]) -> list[int]:
    """Return the lines on which the statements may wait for others."""
    kinds = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)
    found = [node for each in statements for node in ast.walk(each) if isinstance(node, kinds)]
    return [node.lineno for node in found]


@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_awaited_while_an_exception_is_handled(path: Path) -> None:
    """Not in an `except`, nor in a `finally`: mypyc has one current exception for each thread,
    not for each coroutine, so what is raised again after a wait could be another caller's, or none.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert not waits(node.body)
        if isinstance(node, ast.Try):
            assert not waits(node.finalbody)
