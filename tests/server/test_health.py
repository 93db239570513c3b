"""Readiness: all parts or none, and whoever watches is told."""

import asyncio

from authz.server.health import Health


def test_nothing_is_ready_before_it_says_so() -> None:
    """A service without a word from its parts is not ready."""
    health = Health()
    assert not health.ready

    health.set("keys", "not loaded yet")
    assert not health.ready

    health.set("keys", "")
    assert health.ready
    assert dict(health.parts) == {"keys": ""}


def test_one_part_is_enough_to_be_unready() -> None:
    """Ready means every part is."""
    health = Health()
    health.set("keys", "")
    health.set("redis", "away")

    assert not health.ready


def test_a_watcher_is_told_of_every_change_once() -> None:
    """A watch yields the state now and then only what changed."""

    async def watch() -> list[bool]:
        health = Health()
        seen: list[bool] = []
        async for ready in health.watch():
            seen.append(ready)
            if len(seen) == 1:
                health.set("keys", "")
            elif len(seen) == 2:
                health.set("keys", "")  # no change
                health.set("drain", "stopping")
            else:
                return seen
        return seen

    assert asyncio.run(watch()) == [False, True, False]
