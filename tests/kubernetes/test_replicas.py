"""docs/replicas.md names every module whose objects keep something for the next request."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "replicas.md").read_text("utf-8")
# What runs for long: `authz serve` and `authz pages`.
PACKAGES = ("audit", "core", "http", "ledger", "login", "notify", "server", "telemetry", "tokens")
KEEPING = frozenset(
    (
        *("dict", "set", "deque", "defaultdict", "Counter", "OrderedDict"),
        *("TTLCache", "LRUCache", "WeakKeyDictionary", "WeakValueDictionary"),
        *("Semaphore", "BoundedSemaphore", "IdentityCache", "Buckets", "TokenBucket", "Bulkhead"),
        *("Lockouts", "ConcurrencyLimit"),
    )
)


def _called(value: ast.expr | None) -> str:
    """Return the class that is called; a literal is what it makes."""
    if isinstance(value, ast.Dict):
        return "dict"
    if not isinstance(value, ast.Call):
        return ""
    made = value.func.value if isinstance(value.func, ast.Subscript) else value.func
    return made.attr if isinstance(made, ast.Attribute) else getattr(made, "id", "")


def _kept(tree: ast.AST) -> Iterator[str]:
    """Yield attributes of `self` that hold what grows."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Attribute) and _called(node.value) in KEEPING:
                    yield target.attr


def keeping() -> dict[str, list[str]]:
    """Return the modules that keep something, with the names of what they keep."""
    modules = (each for name in PACKAGES for each in (ROOT / "authz" / name).rglob("*.py"))
    found = {each: sorted(_kept(ast.parse(each.read_text("utf-8")))) for each in modules}
    return {
        each.relative_to(ROOT / "authz").as_posix(): names for each, names in found.items() if names
    }


def test_every_module_that_keeps_something_has_its_place() -> None:
    found = keeping()
    assert found["login/upstream/limits.py"]  # lock-outs
    assert {name: kept for name, kept in found.items() if f"`{name}`" not in PAGE} == {}


def test_what_the_page_names_is_there() -> None:
    for name in re.findall(r"`([a-z_/]+\.py)`", PAGE):
        assert (ROOT / name).exists() or (ROOT / "authz" / name).exists(), name
