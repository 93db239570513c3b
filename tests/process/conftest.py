"""What every test of the process layer stands on."""

from pathlib import Path

import pytest

from tests.process.stage import ServiceStage


@pytest.fixture
def stage(tmp_path: Path) -> ServiceStage:
    """Return an empty stage."""
    return ServiceStage(tmp_path)
