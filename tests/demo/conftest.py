"""Fixtures of the demo's tests."""

import asyncio
from collections.abc import Iterator

import pytest

from authz_demo.issuer import StandInIssuer
from authz_demo.issuer.keys import StandInKeys
from tests.demo.kit import DemoClock, DemoWorld, config


@pytest.fixture(scope="session")
def keys() -> StandInKeys:
    """Making an RSA key takes longer than all the rest."""
    return StandInKeys.generate()


@pytest.fixture
def world(keys: StandInKeys) -> Iterator[DemoWorld]:
    clock = DemoClock()
    with asyncio.Runner() as runner:
        world = DemoWorld(StandInIssuer(config(clock), keys), clock, runner)
        yield world
        world.close()
