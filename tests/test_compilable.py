"""What is compiled can be: the traps of mypyc that its type check does not see."""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import UnionType
from typing import Union, get_origin

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


def _bound(statements: list[ast.stmt]) -> dict[str, list[ast.expr | None]]:
    """Return the names that statements bind, each with its values; None for one that is not seen
    (of a loop, a `with`, an unpacked tuple).
    """
    bound: dict[str, list[ast.expr | None]] = {}
    seen: set[ast.expr] = set()
    for node in chain.from_iterable(map(ast.walk, statements)):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    bound.setdefault(target.id, []).append(node.value)
                    seen.add(target)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in seen:
            bound.setdefault(node.id, []).append(None)
    return bound


def _annotated(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Return what is annotated within a tree: parameters, names and attributes as written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation:
            yield node.arg, node.annotation
        elif isinstance(node, ast.AnnAssign):
            yield ast.unparse(node.target), node.annotation


def _is_one_type(annotation: ast.expr, names: Mapping[str, object]) -> bool:
    """Tell whether an annotation is surely no union, by the names of its module."""
    try:
        kind = eval(ast.unparse(annotation), dict(names))  # our own text
    except NameError:
        return False  # of type checks alone: it may be an alias of a union
    return not isinstance(kind, UnionType | str) and get_origin(kind) is not Union


def _is_one_kind(values: list[ast.expr | None]) -> bool:
    """Tell whether these are constants of one type."""
    kinds = {type(each.value) if isinstance(each, ast.Constant) else None for each in values}
    return len(kinds) == 1 and not kinds & {None, type(None)}


def _narrowed_in_finally(source: str, names: Mapping[str, object]) -> set[str]:
    """Return what each `finally` reads that may be of several types.

    That is: a name or an attribute that is annotated so, and a name that its `try` binds without
    an annotation to anything but constants of one type.
    """
    tree = ast.parse(source)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    attributes = {name: kind for name, kind in _annotated(tree) if "." in name}
    found = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, functions)):
        annotations = attributes | dict(_annotated(function))
        for node in ast.walk(function):
            if not isinstance(node, ast.Try | ast.TryStar):
                continue
            bound = _bound([*node.body, *(s for h in node.handlers for s in h.body), *node.orelse])
            for read in chain.from_iterable(map(ast.walk, node.finalbody)):
                if not isinstance(read, ast.Name | ast.Attribute):
                    continue
                name = ast.unparse(read)
                if name in annotations:
                    sound = _is_one_type(annotations[name], names)
                else:
                    sound = name not in bound or _is_one_kind(bound[name])
                if not sound:
                    found.add(name)
    return found


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_finally_reads_what_is_of_several_types(path: Path) -> None:
    """Mypy looks at a `finally` twice, and mypyc takes the types of the second time: those of a
    `try` that ran to its end. After a return, an exception or a cancellation the value may be of
    the other type, and its cast raises a TypeError in place of all that the `finally` was to do.
    """
    source = path.read_text()
    if "finally:" in source:
        assert _narrowed_in_finally(source, vars(import_module(_module(path)))) == set()


# Compiled, a name of several types failed with "A object expected; got None" or the like: after a
# return, a caught exception and an exception of an async function.
_FINALLY = """
def f(given: {given}) -> None:
    {before}
    try:
        {tried}
    finally:
        print({read})
"""


@pytest.mark.parametrize(
    ("given", "before", "tried", "read", "found"),
    [
        pytest.param("int", "x: int | None = None", "x = g()", "x", {"x"}, id="optional"),
        pytest.param("int", "x: Answer = 'a'", "x = g()", "x", {"x"}, id="an alias"),
        pytest.param("int", "x: Unknown = g()", "x = g()", "x", {"x"}, id="for type checks alone"),
        pytest.param(
            "int | None", "pass", "assert given is not None", "given", {"given"}, id="argument"
        ),
        pytest.param(
            "int", "self.x: int | None = 1", "self.x = g()", "self.x", {"self.x"}, id="attribute"
        ),
        pytest.param("int", "pass", "x = g()", "x", {"x"}, id="without an annotation"),
        pytest.param("int", "pass", "(x, y) = g()", "x", {"x"}, id="unpacked"),
        pytest.param("int", "x = 'ended'", "x = None", "x", {"x"}, id="none"),
        pytest.param("int", "x: int = 0", "x = g()", "x", set(), id="sound: of one type"),
        pytest.param("int", "x = False", "x = True", "x", set(), id="sound: a constant"),
        pytest.param(
            "int", "x: int | None = None", "x = g()", "given", set(), id="sound: not read"
        ),
    ],
)
def test_what_a_finally_reads_is_found(
    given: str, before: str, tried: str, read: str, found: set[str]
) -> None:
    """Also behind an alias, and where nothing says the type."""
    source = _FINALLY.format(given=given, before=before, tried=tried, read=read)
    assert _narrowed_in_finally(source, {"Answer": int | str}) == found


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
