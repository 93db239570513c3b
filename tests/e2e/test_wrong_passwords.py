"""Wrong passwords at the portal of a real Authelia, with the `regulation` that `authz init` writes.

Invariant: a stranger locks nobody out who is at another address, and nobody at his own for longer
than a ban. Authelia counts the address that Envoy wrote, whatever the client says of itself.
"""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from authz_demo.person import BrowserUser
from tests.e2e.authelia import RealAuthelia, binary_of_the_environment
from tests.setup.kit import authelia_configuration, make
from tests.support.demo_environment import RunningEnvironment, running_environment

STRANGER, ELSEWHERE, NEIGHBOUR = "127.0.0.61", "127.0.0.62", "127.0.0.61"
_FORGED = ("X-Forwarded-For", "127.0.0.99")


@dataclass(frozen=True, slots=True)
class Portal:
    """Hold the whole, and the Authelia in it."""

    running: RunningEnvironment
    authelia: RealAuthelia

    async def log_in(self, address: str, name: str, password: str) -> httpx.Response:
        """Give a password at the portal, from an address."""
        body = {"username": name, "password": password, "keepMeLoggedIn": False}
        network = replace(self.running.network, source=address)
        async with network.browser() as browser:
            url = f"{self.running.environment.place.issuer}/api/firstfactor"
            return await browser.post(url, json=body, headers=dict((_FORGED,)), timeout=30)

    async def gets_in(self, address: str, person: BrowserUser) -> bool:
        """Tell whether a person's own password is good at an address."""
        answer = await self.log_in(address, person.username, person.password)
        assert answer.status_code in {200, 401}, answer.text
        return answer.status_code == httpx.codes.OK

    async def fail(self, address: str, name: str, times: int) -> None:
        """Give wrong passwords, one after the other."""
        for _ in range(times):
            assert (
                await self.log_in(address, name, "wrong")
            ).status_code == httpx.codes.UNAUTHORIZED


@pytest.fixture
def portal(short: Path) -> Iterator[Portal]:
    """The whole with an Authelia that nobody has failed at yet."""
    binary = binary_of_the_environment()
    if binary is None:
        pytest.skip("AUTHELIA names no program: the stand-in bans nobody")
    make(short / "init")
    authelia = RealAuthelia(binary, authelia_configuration(short / "init")["regulation"])
    with running_environment(short / "w", authelia) as running:
        yield Portal(running, authelia)


@pytest.mark.attack("password-guessing")
def test_a_stranger_locks_out_his_own_address_alone(portal: Portal) -> None:
    """Ten wrong passwords for john: he logs in elsewhere at once. At the stranger's address nobody
    does, for two minutes at most; what is tried meanwhile does not lengthen it.
    """

    async def environment() -> None:
        who = portal.running.environment.who
        await portal.fail(STRANGER, who.john.username, 10)
        assert await portal.gets_in(ELSEWHERE, who.john)
        assert not await portal.gets_in(NEIGHBOUR, who.john)
        assert not await portal.gets_in(NEIGHBOUR, who.bob)
        banned = portal.authelia.bans("ip")
        await portal.fail(STRANGER, who.john.username, 3)
        assert portal.authelia.bans("ip") == banned
        assert re.findall(r"127\.\S+", banned) == [STRANGER]
        assert portal.authelia.bans("user").strip() == "No results."

    asyncio.run(environment())


def test_a_right_password_of_anybody_at_an_address_begins_the_count_anew(portal: Portal) -> None:
    """An office of people who mistype is not banned: nine, one that is right, and nine again."""

    async def environment() -> None:
        who = portal.running.environment.who
        for _ in range(2):
            await portal.fail(NEIGHBOUR, who.john.username, 9)
            assert await portal.gets_in(NEIGHBOUR, who.bob)
        assert portal.authelia.bans("ip").strip() == "No results."

    asyncio.run(environment())
