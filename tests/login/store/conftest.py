"""Scenes on the stores of the front door."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.login.service.flow_kit import Flow, flow
from tests.support.valkey import ValkeyServer


@pytest.fixture
def run(store: ValkeyServer) -> Callable[[Callable[[Flow], Awaitable[None]]], None]:
    """Run a scene on a deployment of its own."""

    def play(scene: Callable[[Flow], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with flow(store) as found:
                await scene(found)

        asyncio.run(whole())

    return play
