"""The benches, as far as can be told without measuring."""

from importlib import import_module
from pathlib import Path

import pytest

BENCHES = sorted((Path(__file__).parents[1] / "bench").glob("[a-z]*.py"))


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_every_bench_finds_what_it_measures(path: Path) -> None:
    """What it imports is there: nothing else notices when a name moves."""
    import_module(f"bench.{path.stem}")
