"""What is compiled can be: the traps of mypyc that its type check does not see."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
_HOOK = ("tool", "hatch", "build", "targets", "wheel", "hooks", "mypyc", "include")


def included() -> list[Path]:
    """Return the files that are compiled."""
    node = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for name in _HOOK:
        node = node[name]
    places = [ROOT / str(place).removeprefix("/") for place in node]
    return sorted(
        file for place in places for file in ([place] if place.is_file() else place.glob("*.py"))
    )


COMPILED = included()
# Not what npm installed for the TypeScript client's tests: some of its packages carry Python.
SOURCES = sorted(
    file
    for folder in ("authz", "bench", "demo", "tests")
    for file in (ROOT / folder).rglob("*.py")
    if "node_modules" not in file.parts
)


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def _name(base: ast.expr) -> str:
    return re.sub(r"\[.*", "", ast.unparse(base))


def _imported(tree: ast.Module, modules: set[str]) -> set[str]:
    """Return the names that a file has from these modules."""
    return {
        each.asname or each.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in modules
        for each in node.names
    }


def test_what_is_listed_is_there() -> None:
    """No entry of the list is of a file that was moved: that would run interpreted, silently."""
    assert len(COMPILED) > 30
    assert all(file.is_file() for file in COMPILED)


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_name_stands_for_two_kinds_of_exception(path: Path) -> None:
    """Mypyc gives a name one type for a whole function: the second `except … as error` of another
    type would raise a TypeError in place of what it was to catch.
    """
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        caught: dict[str, set[str]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.ExceptHandler) and node.name and node.type:
                caught.setdefault(node.name, set()).add(ast.unparse(node.type))
        assert all(len(kinds) == 1 for kinds in caught.values()), (function.name, caught)


# Words of gcc that begin with two underscores: mypyc's field of an attribute has one more than the
# attribute, so that `_signed` is no field, and the C does not compile.
_WORDS_OF_C = frozenset(
    {"_alignof", "_asm", "_attribute", "_complex", "_const", "_extension__", "_imag", "_inline"}
    | {"_label__", "_real", "_restrict", "_signed", "_thread", "_typeof", "_volatile"}
)


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_attribute_is_a_word_of_c(path: Path) -> None:
    """The compiler of C would refuse the struct of its class."""
    tree = ast.walk(ast.parse(path.read_text()))
    found = {node.attr for node in tree if isinstance(node, ast.Attribute)}
    assert not found & _WORDS_OF_C


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_looked_for_in_an_unpacked_tuple(path: Path) -> None:
    """`x in (*a, b)` is an internal error of mypyc: the file is not translated at all."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            values = (each for each in node.comparators if isinstance(each, ast.Tuple | ast.List))
            assert not any(isinstance(one, ast.Starred) for each in values for one in each.elts)


def _waits(statements: list[ast.stmt]) -> list[int]:
    """Return the lines on which the statements may wait for others."""
    kinds = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)
    found = [node for each in statements for node in ast.walk(each) if isinstance(node, kinds)]
    return [node.lineno for node in found]


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_awaited_while_an_exception_is_handled(path: Path) -> None:
    """Not in an `except`, nor in a `finally`: mypyc has one current exception for each thread,
    not for each coroutine, so what is raised again after a wait could be another caller's, or none:
    a task that never ends, or the end of the process.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert not _waits(node.body)
        if isinstance(node, ast.Try | ast.TryStar):
            assert not _waits(node.finalbody)


def test_no_interpreted_class_inherits_from_a_compiled_one() -> None:
    """Mypyc forbids it when the class is made, that is when a process starts."""
    modules = {_module(path) for path in COMPILED}
    # Protocols stay classes of Python. Exceptions do, too, but their methods are compiled: one that
    # inherits the constructor fails when it is raised.
    plain = {"Ledger"}
    found = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        if path not in COMPILED and (names := _imported(tree, modules) - plain):
            found += [
                (path.name, each.name)
                for each in _classes(tree)
                if names & {_name(base) for base in each.bases}
            ]
    assert found == []
