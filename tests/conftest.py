"""What every test shares: markers of what it needs, hypothesis without a clock, where each runs.

Without a clock, since the machines are noisy.
"""

import gc
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

if find_spec("authz_demo") is None:
    install = "pip install --no-index --no-deps --no-build-isolation -e demo"
    pytest.exit(f"demo/ is not installed here: make setup (or only this: .venv/bin/{install})", 4)

from tests.support.distribution import LONGEST, SharingScheduling
from tests.support.needs import NEEDS, forbid_programs, needs

# What a collection makes stays to its end: nothing is to be found until then (see below).
gc.disable()

settings.register_profile("authz", deadline=None)
# `--hypothesis-profile=long`: thirty times as many examples, for a long run by hand.
settings.register_profile("long", deadline=None, max_examples=3000)
settings.register_profile("unit", deadline=None, max_examples=20)
settings.load_profile("authz")

_UNIT = "only quick tests that start no program, few examples; one that starts one fails"
_found: dict[tuple[object, ...], frozenset[str]] = {}
_above: dict[Path, list[Any]] = {}  # the conftest.py that hold for the tests of a folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--unit", action="store_true", help=_UNIT)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("unit"):
        settings.load_profile("unit")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Start two processes for each core: what starts programs waits for them half of its time."""
    if config.getoption("unit") or "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return 2 * len(os.sched_getaffinity(0))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharingScheduling | None:
    """With `--dist loadfile`, keep together what shares a fixture of many programs."""
    return SharingScheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test with what it needs."""
    if isinstance(item, pytest.Function):
        key = (item.function, *item.fixturenames)
        if key not in _found:
            _found[key] = needs([item.function, *_fixtures(item)])
        for need in sorted(_found[key]):
            item.add_marker(need)


def _fixtures(item: pytest.Function) -> Iterator[object]:
    """Yield the functions of a test's fixtures: of its module, and of every conftest.py above."""
    folder = item.path.parent
    if folder not in _above:
        plugins = item.config.pluginmanager.get_plugins()
        found = [each for each in plugins if getattr(each, "__file__", "").endswith("conftest.py")]
        _above[folder] = [
            each for each in found if folder.is_relative_to(Path(each.__file__).parent)
        ]
    for where in (item.module, item.cls, *_above[folder]):
        yield from (getattr(where, name) for name in item.fixturenames if hasattr(where, name))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first, then those that start programs: they wait for them."""
    markers = {each: {mark.name for mark in each.iter_markers()} for each in items}
    live = {each.path for each in items if markers[each] & NEEDS}
    first = [Path(__file__).parent / name for name in LONGEST]
    rank = {path: place for place, path in enumerate(first)}
    items.sort(key=lambda each: (rank.get(each.path, len(rank)), each.path not in live))
    if config.getoption("unit"):
        left_out = {each for each in items if markers[each] & {*NEEDS, "slow"}}
        config.hook.pytest_deselected(items=[each for each in items if each in left_out])
        items[:] = [each for each in items if each not in left_out]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Hold every test to its markers; the process of xdist that starts the others has none."""
    if session.config.getoption("unit") and session.items:
        forbid_programs()
    # Ten thousand tests and what they import stay to the end: no collection walks them again.
    gc.freeze()
    gc.enable()
