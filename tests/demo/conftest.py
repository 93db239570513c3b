"""Fixtures of the demo's tests."""

import asyncio
from collections.abc import Iterator

import pytest

from authz_demo.issuer import Issuer
from authz_demo.issuer.keys import Keys
from tests.demo.kit import Clock, World, config


@pytest.fixture(scope="session")
def keys() -> Keys:
    """Making an RSA key takes longer than all the rest."""
    return Keys.generate()


@pytest.fixture
def world(keys: Keys) -> Iterator[World]:
    clock = Clock()
    with asyncio.Runner() as runner:
        world = World(Issuer(config(clock), keys), clock, runner)
        yield world
        world.close()
