"""Files that share what takes long to start run in one process of xdist, the longest first."""

import ast
from pathlib import Path

import pytest

from tests.support.distribution import LONGEST, TOGETHER, unit

TESTS = Path(__file__).parent
# The fixtures of tests/e2e/conftest.py that start programs, and those that need them.
STARTING = {"door": {"door"}, "whole": {"whole", "direct_clients"}}


def asked(file: Path) -> set[str]:
    """Return the arguments of a file's functions, and what `usefixtures` names.

    Without fixtures of its own, which have their names for themselves.
    """
    found, own = set(), set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef):
            own.add(node.name)
            found |= {each.arg for each in node.args.args}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("usefixtures"):
            found |= {str(ast.literal_eval(each)) for each in node.args}
    return found - own


def test_the_longest_files_exist() -> None:
    """One that was moved is missed here, not silently in the order."""
    assert [name for name in LONGEST if not (TESTS / name).is_file()] == []


@pytest.mark.parametrize("fixture", TOGETHER)
def test_files_that_share_a_fixture_are_together(fixture: str) -> None:
    """A file that asks for it elsewhere would start its seven processes once more.

    One that asks for both starts one of them anew: which, says the table.
    """
    files = sorted((TESTS / "e2e").glob("test_*.py"))
    uses = {file.name for file in files if asked(file) & STARTING[fixture]}
    here, elsewhere = set(TOGETHER[fixture]), set[str]()
    for other in TOGETHER.keys() - {fixture}:
        elsewhere |= set(TOGETHER[other])

    assert here <= uses
    assert uses <= here | elsewhere
    assert {unit(f"tests/e2e/{name}") for name in here} == {fixture}


def test_other_files_are_alone() -> None:
    """As `--dist loadfile` has them."""
    assert unit("tests/core/test_decision.py") == "tests/core/test_decision.py"
