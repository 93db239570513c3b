"""What the tests of log-ins share: the stand-in of the demo's tests, a real Valkey, a stage."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from authz_demo.issuer.keys import StandInKeys
from tests.demo.conftest import keys, world
from tests.login.front import Change, FrontDoorStage, stage
from tests.support.valkey import ValkeyServer, valkey

__all__ = ["keys", "world"]


class Play(Protocol):
    """Run a scene on a stage of its own."""

    def __call__(
        self, scene: Callable[[FrontDoorStage], Awaitable[None]], change: Change = str
    ) -> None: ...


@pytest.fixture(scope="session")
def store() -> Iterator[ValkeyServer]:
    """A server that all tests share which leave it whole, each with a deployment of its own."""
    with valkey() as server:
        yield server


@pytest.fixture
def play(store: ValkeyServer, keys: StandInKeys, tmp_path: Path) -> Play:
    """The whole front door, for one scene."""

    def run(scene: Callable[[FrontDoorStage], Awaitable[None]], change: Change = str) -> None:
        async def whole() -> None:
            async with stage(store, keys, tmp_path, change) as found:
                await scene(found)

        asyncio.run(whole())

    return run
