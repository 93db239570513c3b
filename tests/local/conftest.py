"""What every test of the local room stands on."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.local.state import State, held
from tests.process.stage import ServiceStage


@pytest.fixture
def stage(tmp_path: Path) -> ServiceStage:
    """Return an empty stage."""
    return ServiceStage(tmp_path)


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder with a short path, as Unix sockets need it."""
    with tempfile.TemporaryDirectory(prefix="authz-") as folder:
        yield Path(folder)


@pytest.fixture
def state(place: Path) -> Iterator[State]:
    """Return a state folder, held."""
    with held(place) as state:
        yield state
