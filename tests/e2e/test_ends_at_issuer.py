"""A grant that ends here ends at the issuer too: its refresh token is refused there a moment later.

All tests run with the real processes; the issuer is asked by our own client there.
"""

import asyncio
import re
import time
from typing import Any

import httpx
import pytest

from authz.login.store.sealed import open_refresh
from authz.tokens.client_auth import PrivateKeyJwt
from authz.tokens.sealing import Sealer, sealing_secrets
from authz_demo.front_door import KEY, TWO_FACTOR
from tests.support.commands import Typed
from tests.support.door import Assistant, Door, assistant, play

_PATIENCE = 120.0


def upstream(door: Door, client: Assistant) -> str:
    """The issuer's refresh token in what a client holds, opened as only the front door can."""
    assert client.storage.tokens is not None
    assert client.storage.tokens.refresh_token is not None
    sealer = Sealer(sealing_secrets(None, pem(door)), time.time)
    issuer = door.running.environment.place.issuer
    return open_refresh(sealer, client.storage.tokens.refresh_token, issuer).upstream


def pem(door: Door) -> str:
    return (door.running.environment.place.folder / KEY).read_text()


async def asked(door: Door, http: httpx.AsyncClient, endpoint: str, token: str) -> Any:
    """What the issuer answers to our client of a token."""
    issuer = door.running.environment.place.issuer
    metadata = (await http.get(f"{issuer}/.well-known/openid-configuration")).json()
    proof = PrivateKeyJwt(TWO_FACTOR, pem(door), issuer).proof()
    answer = await http.post(metadata[endpoint], data={"token": token, **proof.form})
    assert answer.status_code == 200, answer.text
    return answer.json() if answer.content else None


async def active(door: Door, http: httpx.AsyncClient, token: str) -> bool:
    return bool((await asked(door, http, "introspection_endpoint", token))["active"])


async def by_the_person(door: Door, client: Assistant) -> None:
    """End it on the page of one's own log-ins."""
    url = door.at("/authz/log-ins")
    page = await door.john.visit(client.browser, url, door.running.environment.issuer.portal)
    (row,) = [each for each in page.text.split("<li>") if f"<bdi>{client.name}</bdi>" in each]
    found = re.search(r'name="form_token" value="([^"]+)"', row)
    assert found is not None
    done = await client.browser.post(
        f"{url}/end",
        data={"form_token": found[1]},
        headers={"Origin": door.at(""), "Sec-Fetch-Site": "same-origin"},
    )
    assert done.status_code == 303


async def by_the_operator(door: Door, client: Assistant) -> None:
    """Block the client by command, which reaches no issuer, and let it in again."""
    typed = Typed(door.running)
    listed = typed("clients")["clients"]
    (row,) = [each for each in listed if each["title"] == client.name]
    assert typed("clients", "block", row["id"])["ended"] == 1
    typed("clients", "unblock", row["id"])


@pytest.mark.parametrize("end", [by_the_person, by_the_operator])
def test_what_ends_here_ends_at_the_issuer(door: Door, end: Any) -> None:
    """The newest refresh token, which only the grant knows; a log-in beside it stays alive."""

    async def game() -> None:
        async with (
            assistant(door, door.john, f"Ending {end.__name__}") as client,
            door.network().browser() as http,
        ):
            other = Assistant(door, door.john, "Not ending", client.browser, client.network)
            await other.whoami("notes")
            await client.whoami("notes")
            first = upstream(door, client)
            client.let_it_expire("notes")
            await client.whoami("notes")
            newest = upstream(door, client)
            assert newest != first
            assert await active(door, http, newest)

            await end(door, client)

            until = time.monotonic() + _PATIENCE
            while await active(door, http, newest):
                assert time.monotonic() < until, "it lives on at the issuer"
                await asyncio.sleep(0.25)
            assert await active(door, http, upstream(door, other))
            await other.whoami("notes")

    play(game)


@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_only_the_newest_token_ends_its_family_at_the_issuer(door: Door, kind: str) -> None:
    """Why the grant keeps the newest: of a replaced one the issuer says 200, and ends nothing."""

    async def game() -> None:
        async with (
            assistant(door, door.john, f"Replaced {kind}") as client,
            door.network().browser() as http,
        ):
            await client.whoami("notes")
            old = {"access": client.token, "refresh": upstream(door, client)}
            client.let_it_expire("notes")
            await client.whoami("notes")
            await asked(door, http, "revocation_endpoint", old[kind])
            assert await active(door, http, upstream(door, client))
            assert await active(door, http, client.token)

    play(game)
