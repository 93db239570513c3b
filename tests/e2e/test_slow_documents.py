"""Hosts of client metadata documents that never answer, through the real Envoy and `authz pages`.

Invariant: whoever names many of them takes his own share of the fetches and nobody else's.
"""

import asyncio
from urllib.parse import urlencode

import httpx
import pytest

from authz_demo.loopback import LoopbackNetwork
from tests.support.door import Door, play

CALLBACK = "https://client.example.test/callback"
MANY = 10  # less than front_door.address_documents
PEOPLE = 3
WIDTH = 8  # fetches at once, authz/login/clients/lookup.py


def authorize(door: Door, client_id: str) -> str:
    """Return the URL at which a client's log-in begins."""
    query = {
        "client_id": client_id,
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
        "resource": door.url("notes"),
        "scope": "mcp:notes",
        "state": "s",
    }
    return door.at(f"/authorize?{urlencode(query)}")


async def page(network: LoopbackNetwork, url: str) -> httpx.Response:
    """Open a page in a browser of its own."""
    async with network.browser() as browser:
        return await browser.get(url, timeout=60)


@pytest.mark.attack("document-starvation")
def test_slow_hosts_of_one_address_keep_nobody_else_waiting(door: Door) -> None:
    """One address opens ten log-ins of clients whose hosts hang. Clients of other addresses, never
    seen before, have their consent pages; each document was asked for before the eighth slow one.
    """
    documents = door.documents
    slow = [documents.publish(f"/slow/{n}", "Slow", CALLBACK) for n in range(MANY)]
    good = [documents.publish(f"/at-once/{n}", "At once", CALLBACK) for n in range(PEOPLE)]

    async def game() -> None:
        stranger = door.network()
        documents.go_on.clear()
        try:
            opened = [asyncio.create_task(page(stranger, authorize(door, url))) for url in slow]
            assert await asyncio.to_thread(documents.hangs.wait, 60)
            answers = [await page(door.network(), authorize(door, url)) for url in good]
        finally:
            documents.go_on.set()
        assert [answer.status_code for answer in answers] == [httpx.codes.OK] * PEOPLE
        assert all("At once" in answer.text for answer in answers)
        before = documents.asked[: documents.asked.index(f"/at-once/{PEOPLE - 1}")]
        assert 0 < sum(path.startswith("/slow/") for path in before) < WIDTH
        await asyncio.gather(*opened)

    play(game)
