"""`authz revoke --user NAME` through the whole, for a person whose only log-in is refreshed."""

from collections.abc import Iterator

import pytest

from authz_demo.reporter import reason_of
from tests.support.commands import Typed
from tests.support.door import Door, assistant, play


@pytest.fixture
def typed(door: Door) -> Iterator[Typed]:
    """Leave nothing revoked: other tests share the whole."""
    commands = Typed(door.running)
    yield commands
    ids = [each["id"] for each in commands("revocations")]
    if ids:
        commands("revocations", "lift", *ids, "--restore")


@pytest.mark.attack("revoked-token")
def test_a_name_finds_a_person_whose_log_in_was_refreshed(door: Door, typed: Typed) -> None:
    """By the user name that was typed at Authelia: what was refreshed is refused at once."""

    async def game() -> None:
        async with assistant(door, door.john, "Names") as client:
            await client.whoami("notes")
            client.let_it_expire("notes")
            told = await client.whoami("notes")
            assert (200, "/token") in client.seen
            assert len(client.login.opened) == 1

            revoked = typed("revoke", "--user", door.john.username)
            answer = await door.call(client.browser, "notes", client.token, "whoami")

            assert (answer.status_code, reason_of(answer)) == (401, "token_revoked")
            assert told["x-authz-subject"] in str(revoked)

    play(game)
