"""The flow of the front door, end to end: its happy paths, and what they leave behind."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from authz.demo.issuer.keys import Keys
from authz.ledger.keys import Keys as Names
from authz.ledger.log_ins import LogIns
from tests.demo.kit import JOHN, claims
from tests.login.front import GATEWAY, Client, Stage, john, stage
from tests.support.valkey import ValkeyServer

Play = Callable[[Stage], Awaitable[None]]


@pytest.fixture
def play(store: ValkeyServer, keys: Keys, tmp_path: Path) -> Callable[[Play], None]:
    """Run a coroutine on a stage of its own."""

    def run(scene: Play) -> None:
        async def whole() -> None:
            async with stage(store, keys, tmp_path) as found:
                await scene(found)

        asyncio.run(whole())

    return run


def test_a_client_that_knows_the_url_alone_logs_in(play: Callable[[Play], None]) -> None:
    """Register, consent, TOTP, code, tokens, refresh; and the check finds who logged in how."""

    async def scene(found: Stage) -> None:
        client = Client(found)
        assert (await client.register()).status_code == 201
        back = await client.log_in()
        assert back["state"] == client.state
        assert back["iss"] == GATEWAY
        answer = await client.exchange(back["code"])
        tokens = answer.json()
        assert answer.status_code == 200, tokens
        assert answer.headers["cache-control"] == "no-store"
        assert tokens.keys() == {
            "access_token", "token_type", "expires_in", "scope", "refresh_token"
        }  # fmt: skip
        assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "mcp:tools")
        log_ins = LogIns(found.ledger.command, Names(found.deployment))
        record = await log_ins.of(tokens["access_token"])
        assert record is not None
        assert (record.client, record.subject) == ("dynamic/loopback", JOHN)
        assert record.amr == {"pwd", "kba", "otp", "mfa"}
        assert claims(tokens["access_token"])["client_id"] == "authz-two-factor"

        again = await client.refresh(tokens["refresh_token"])
        assert again.status_code == 200, again.text
        renewed = await log_ins.of(again.json()["access_token"])
        assert renewed is not None
        assert renewed.grant == record.grant

    play(scene)


def test_a_server_that_wants_no_second_factor(play: Callable[[Play], None]) -> None:
    """The log-in goes through the client under `one_factor`, and says so."""

    async def scene(found: Stage) -> None:
        client = Client(found, resource="https://mcp.example.test/notes")
        await client.register()
        tokens = await client.tokens(john(totp_secret=None) if False else None)
        assert claims(tokens["access_token"])["client_id"] == "authz-one-factor"

    play(scene)
