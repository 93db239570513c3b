"""`authz revoke` against the whole: from the next request on, and back again."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from authz_demo.reporter import Reporter, reason_of
from authz_demo.scenario import Scenario
from tests.support.commands import Typed
from tests.support.demo_environment import RunningEnvironment

pytestmark = pytest.mark.usefixtures("direct_clients")

REVOKED = (401, "token_revoked")
PASSED = (200, "")


@pytest.fixture
def typed(whole: RunningEnvironment) -> Iterator[Typed]:
    """Leave nothing revoked: other tests share the whole."""
    commands = Typed(whole)
    yield commands
    ids = [each["id"] for each in commands("revocations")]
    if ids:
        commands("revocations", "lift", *ids, "--restore")


async def seen(scenario: Scenario, token: str) -> tuple[int, str]:
    answer = await scenario.tool("notes", "whoami", token)
    return answer.status_code, reason_of(answer)


def play(whole: RunningEnvironment, game: Callable[[Scenario], Awaitable[None]]) -> None:
    async def go() -> None:
        async with whole.network.browser() as http:
            await game(Scenario(whole.environment, Reporter(lambda _: None), whole.network, http))

    asyncio.run(go())


async def token_of(scenario: Scenario, client_id: str, who: Any) -> tuple[str, str]:
    """Return a fresh token, which the service knows by now, and its subject."""
    told = await scenario.call("notes", client_id, who, "whoami")
    return scenario.tokens[f"{client_id} notes"], told["x-authz-subject"]


@pytest.mark.attack("revoked-token")
def test_one_token(whole: RunningEnvironment, typed: Typed) -> None:
    """A cached token is refused from the next request on; its person's other token passes."""

    async def game(scenario: Scenario) -> None:
        john = whole.environment.who.john
        token, _ = await token_of(scenario, "demo", john)
        other, _ = await token_of(scenario, "demo", john)
        assert await seen(scenario, token) == PASSED

        words = ("--token-file", "-", "--reason", "pasted")
        entry = typed("revoke", *words, token=token)["revoked"]
        assert await seen(scenario, token) == REVOKED
        assert await seen(scenario, other) == PASSED
        (shown,) = typed("revocations")
        assert shown == entry
        assert (shown["what"], shown["by"], shown["reason"]) == ("token", "ops", "pasted")

        typed("revocations", "lift", entry["id"])
        assert await seen(scenario, token) == PASSED

    play(whole, game)


@pytest.mark.attack("revoked-token")
@pytest.mark.parametrize("what", ["person", "client"])
def test_a_user_or_a_client(whole: RunningEnvironment, typed: Typed, what: str) -> None:
    """All tokens are refused until it is lifted; then who logs in anew passes, old ones do not."""

    async def game(scenario: Scenario) -> None:
        who = whole.environment.who
        token, subject = await token_of(scenario, "demo", who.john)
        other, _ = await token_of(scenario, "password-only", who.bob)
        words = {"person": ("--user", subject), "client": ("--client", "demo")}[what]

        entry = typed("revoke", *words)["revoked"]
        assert entry["name"] == words[1]
        assert await seen(scenario, token) == REVOKED
        assert await seen(scenario, other) == PASSED

        typed("revocations", "lift", entry["id"])
        assert await seen(scenario, token) == REVOKED
        assert await seen(scenario, other) == PASSED
        typed("revocations", "lift", entry["id"], "--restore")
        assert await seen(scenario, token) == PASSED

    play(whole, game)


@pytest.mark.attack("revoked-token")
def test_everything_up_to_a_moment(whole: RunningEnvironment, typed: Typed) -> None:
    """Whatever was issued up to then is refused, a later log-in passes."""

    async def game(scenario: Scenario) -> None:
        who = whole.environment.who
        tokens = [
            (await token_of(scenario, "demo", who.john))[0],
            (await token_of(scenario, "password-only", who.bob))[0],
        ]
        moment = int(time.time())
        # A token's `iat` is in whole seconds: the later log-in must be in a later one.
        await asyncio.sleep(moment + 1.05 - time.time())

        entry = typed("revoke", "--everything", "--issued-before", str(moment))["revoked"]
        assert (entry["id"], entry["issued_until"]) == ("everything", moment)
        assert [await seen(scenario, each) for each in tokens] == [REVOKED, REVOKED]
        later, _ = await token_of(scenario, "demo", who.john)
        assert await seen(scenario, later) == PASSED

        typed("revocations", "lift", "everything", "--restore")
        assert [await seen(scenario, each) for each in tokens] == [PASSED, PASSED]

    play(whole, game)
