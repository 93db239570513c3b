"""The demonstration's own walk: what `authz demo` shows, and that it notices what is wrong."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from authz_demo.front_door_scenario import require_step_up, run_front_door_scenario
from tests.e2e.authelia import issuer_of_the_environment
from tests.support.demo_environment import RunningEnvironment, running_environment

UNFILTERED = "filter_lists: false"
Walked = Callable[[Callable[[str], str]], list[str]]


def quiet(_: str) -> None:
    """Say nothing."""


@pytest.fixture
def run(short: Path) -> Walked:
    """Return what walks through a scene whose authz.yaml was changed."""

    def walked(change: Callable[[str], str]) -> list[str]:
        issuer = issuer_of_the_environment()
        with running_environment(short / "d", issuer, change, login="front_door") as running:
            found: list[str] = asyncio.run(run_front_door_scenario(running.environment, quiet))
            assert isinstance(running, RunningEnvironment)
            return found

    return walked


def test_the_walk_goes_as_it_should(run: Walked) -> None:
    """A client that knows a URL alone gets through, and whoever should not does not."""
    assert run(require_step_up) == []


def test_the_walk_notices_every_sabotaged_rule(
    run: Walked,
) -> None:
    """A walk that cannot fail proves nothing: with a rule taken out, its step goes otherwise."""

    def sabotaged(text: str) -> str:
        for rule, instead in (
            (", evidence: [step_up]", ""),
            ("    second_factor: totp\n", ""),
            ("rate: 5/5 seconds", "rate: 50/5 seconds"),
            ("{approve: each_call}", "{}"),
            ("    versions: ['2026-07-28']\n    limits", f"    {UNFILTERED}\n    limits"),
        ):
            assert rule in text
            text = text.replace(rule, instead)
        return text

    failed = run(lambda text: sabotaged(require_step_up(text)))

    for step in (
        "What it was shown",
        "Read a note",
        "Delete something",
        "stopped at the log-in",
        "Another program",
        "A flood",
    ):
        assert any(step in each for each in failed), (step, failed)
