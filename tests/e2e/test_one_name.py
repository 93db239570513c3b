"""One name for everything: the issuer under a path of the gateway's own name.

Shown here with real processes: a client that knows the URL of a server gets through, with second
factor and step-up; and nobody behind the gateway is ever sent another's cookies.
"""

import asyncio
from pathlib import Path

from authz_demo.front_door_scenario import require_step_up, run_front_door_scenario
from tests.e2e.authelia import issuer_of_the_environment
from tests.support.demo_environment import running_environment


def _unhurried(text: str) -> str:
    """Let a log-in count for longer than a slow machine takes from one step to the next."""
    return require_step_up(text).replace("max_login_age: 1m", "max_login_age: 10m")


def test_the_walk_goes_as_it_does_with_two_names(short: Path) -> None:
    """Log-in, consent, second factor, step-up, approval, refresh and refusals; the issuer is named
    with its path wherever it is named, or tokens and answers of its would be refused.
    """
    issuer = issuer_of_the_environment()
    with running_environment(
        short / "d", issuer, _unhurried, login="front_door", one_name=True
    ) as running:
        place = running.environment.place
        assert place.issuer == f"{place.gateway}/auth"
        found = asyncio.run(run_front_door_scenario(running.environment, lambda _: None))

    assert found == []
