"""What tests of a deployment folder share."""

import pytest

from authz.setup import secrets


@pytest.fixture(autouse=True)
def quick_digests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digest passwords with the least memory and one pass, but for tests of how slow that is."""
    if "slow_digests" not in request.fixturenames:
        monkeypatch.setattr(secrets, "_MEMORY", 8 * secrets._LANES)
        monkeypatch.setattr(secrets, "_PASSES", 1)


@pytest.fixture
def slow_digests() -> None:
    """Leave passwords to the digest that people get."""
