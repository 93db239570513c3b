"""The front door, end to end: the official client (SDK 2.x) knows a URL and nothing else.

All tests run through Envoy, with the real processes, over TLS.
"""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from authz_demo.login_drivers import LoginFailedError
from authz_demo.reporter import reason_of
from tests.support.commands import Typed
from tests.support.door import CALLBACK, Assistant, Door, assistant, play, words
from tests.support.foreign import Foreign

ROOT = Path(__file__).resolve().parents[2]
MCP1 = ROOT / ".venv-mcp1" / "bin" / "python"
PASSED = (200, "")


async def seen(door: Door, http: httpx.AsyncClient, server: str, token: str) -> tuple[int, str]:
    answer = await door.call(http, server, token, "whoami")
    return answer.status_code, reason_of(answer)


@pytest.mark.parametrize(
    ("server", "mode"),
    [("notes", "2026-07-28"), ("notes", "auto"), ("files", "legacy"), ("files", "auto")],
)
def test_a_url_is_enough(door: Door, server: str, mode: str) -> None:
    """From a 401 to a tool's answer: metadata, registration, consent, log-in with TOTP, token."""

    async def game() -> None:
        async with assistant(door, door.john, "By URL") as client:
            told = await client.whoami(server, mode)
            assert told["x-authz-client"] == "dynamic/loopback"
            assert f"mcp:{server}" in told["x-authz-scopes"].split()
            assert told["authorization_arrived"] is told["cookie_arrived"] is False
            assert client.seen[:5] == [
                (401, f"/{server}"),
                (200, f"/.well-known/oauth-protected-resource/{server}"),
                (200, "/.well-known/oauth-authorization-server"),
                (201, "/register"),
                (200, "/token"),
            ]
            (opened,) = client.login.opened
            asked = parse_qs(urlsplit(opened).query)
            assert asked["resource"] == [door.url(server)]
            assert client.storage.tokens is not None
            assert client.storage.tokens.scope == f"mcp:{server}"
            assert client.storage.tokens.refresh_token is not None

    play(game)


@pytest.mark.parametrize("mode", ["2026-07-28", "auto"])
def test_a_url_with_a_slash_at_its_end_is_enough(door: Door, mode: str) -> None:
    """People copy URLs with one: document, log-in and call are the server's."""

    async def game() -> None:
        async with assistant(door, door.john, "By URL") as client:
            told = await client.whoami("notes/", mode)
            assert "mcp:notes" in told["x-authz-scopes"].split()
            assert (401, "/notes/") in client.seen
            assert (201, "/register") in client.seen

    play(game)


def sdk_1x(door: Door, server: str, tool: str = "whoami", **arguments: str) -> dict[str, Any]:
    """Let an older SDK log in and call a tool."""
    environment = door.running.environment
    told = (door.url(server), str(environment.place.port), str(environment.certificates.authority))
    command = [str(MCP1), str(ROOT / "tests/e2e/mcp1_client.py"), *told, "log-in", tool]
    return Foreign(door, door.john).run([*command, json.dumps(arguments)])


def test_a_server_without_scopes_beside_servers_with_scopes(door: Door) -> None:
    """The SDK takes what the authorization server's metadata lists: nothing that the server could
    not have; the log-in gives no scope of another server.
    """

    async def game() -> None:
        async with assistant(door, door.john, "No scopes") as client:
            told = await client.whoami("open", "legacy")
            assert told["x-authz-scopes"] is None
            (opened,) = client.login.opened
            asked = parse_qs(urlsplit(opened).query).get("scope", [""])[0]
            assert set(asked.split()) <= {"offline_access"}
            assert client.storage.tokens is not None
            assert not client.storage.tokens.scope
            client.let_it_expire("open")
            await client.whoami("open", "legacy")
            assert len(client.login.opened) == 1

    play(game)


def test_a_server_without_scopes_for_the_1x_line(door: Door) -> None:
    """The older SDK does the same, and gets in."""
    found = sdk_1x(door, "open")

    assert found.get("told", {}).get("x-authz-client") == "dynamic/loopback", found
    assert found["told"]["x-authz-scopes"] is None


def test_the_scope_of_a_tool_is_asked_for_at_the_log_in(door: Door) -> None:
    """The challenge names it, so the person is asked once, and every tool can be called."""

    async def game() -> None:
        async with assistant(door, door.john, "All scopes") as client:
            async with client.at("shelf", "legacy") as session:
                result = await session.call_tool("delete_file", {"name": "none"})
            assert "no file of that name" in result.content[0].text  # type: ignore[union-attr]
            assert client.storage.tokens is not None
            assert client.storage.tokens.scope == "mcp:shelf mcp:write"
            assert len(client.login.opened) == 1

    play(game)


def test_the_scope_of_a_tool_for_the_1x_line(door: Door) -> None:
    """The older SDK asks for it at the log-in too."""
    found = sdk_1x(door, "shelf", "delete_file", name="none")

    assert "no file of that name" in found.get("text", ""), found


@pytest.mark.attack("sdk-1x")
def test_a_url_is_enough_for_the_1x_line(door: Door) -> None:
    """An older SDK registers and logs in by itself, to a `localhost` of its own port."""
    found = sdk_1x(door, "files")

    assert found.get("told", {}).get("x-authz-client") == "dynamic/loopback", found
    assert found["told"]["authorization_arrived"] is False


@pytest.mark.attack("document-foreign-redirect")
def test_a_client_with_a_document_does_not_register(door: Door) -> None:
    """Where its log-in ends on loopback, any program may have used the document: no host's name."""

    async def game() -> None:
        url = door.documents.publish("/client.json", "Documented", CALLBACK)
        async with assistant(door, door.john, "Ignored", document=url) as client:
            told = await client.whoami("notes")
            assert told["x-authz-client"] == "dynamic/loopback"
            assert (201, "/register") not in client.seen
            (opened,) = client.login.opened
            assert parse_qs(urlsplit(opened).query)["client_id"] == [url]
            assert "/client.json" in door.documents.asked

    play(game)


@pytest.mark.attack("cimd-inside")
def test_a_document_inside_is_not_fetched(door: Door) -> None:
    """Through the real pages: a document host with a private address is refused, unasked."""

    async def game() -> None:
        asked = len(door.documents.asked)
        url = f"https://localhost:{door.documents.port}/client.json"
        async with assistant(door, door.john, "Inside", document=url) as client:
            with pytest.raises((ExceptionGroup, LoginFailedError)) as caught:
                await client.whoami("notes")
        assert "LoginFailedError" in words(caught.value)
        assert len(door.documents.asked) == asked

    play(game)


def test_a_refresh_needs_no_person(door: Door) -> None:
    """The SDK refreshes by itself; the new token passes, knows its TOTP, and nobody is asked."""

    async def game() -> None:
        async with assistant(door, door.john, "Refreshing") as client:
            await client.whoami("files", "legacy")
            before = client.token
            client.let_it_expire("files")
            told = await client.whoami("files", "legacy")
            assert told["x-authz-client"] == "dynamic/loopback"
            assert client.token != before
            assert len(client.login.opened) == 1
            assert [path for _, path in client.seen].count("/token") == 2

    play(game)


def test_an_application_that_starts_again_is_the_same_one(door: Door) -> None:
    """What the SDK keeps is enough: neither a registration nor a person is needed again."""

    async def game() -> None:
        async with assistant(door, door.john, "Restarted") as first:
            await first.whoami("notes")
        async with assistant(door, door.john, "Restarted", storage=first.storage) as second:
            await second.whoami("notes")
            assert second.login.opened == []
            assert (201, "/register") not in second.seen

    play(game)


@pytest.mark.attack("password-under-totp")
def test_a_password_is_enough_only_where_no_more_is_asked(door: Door) -> None:
    """Who has no second factor gets in where none is asked; elsewhere Authelia lets nobody on."""

    async def game() -> None:
        async with assistant(door, door.bob, "Password") as client:
            assert (await client.whoami("board"))["x-authz-client"] == "dynamic/loopback"
            token = client.token
        for server in ("notes", "files"):
            async with assistant(door, door.bob, "Password") as client:
                with pytest.raises((ExceptionGroup, LoginFailedError)) as caught:
                    await client.whoami(server)
                assert "one-time code" in words(caught.value)
                assert client.storage.tokens is None
        async with door.network().browser() as http:
            assert await seen(door, http, "board", token) == PASSED
            assert await seen(door, http, "notes", token) == (401, "audience_mismatch")

    play(game)


def test_who_has_a_second_factor_is_asked_for_it_only_where_a_rule_asks(door: Door) -> None:
    """One browser: the password for the board, and then only the code for the notes."""

    async def game() -> None:
        network = door.network()
        async with network.browser() as browser:
            only_password = replace(door.john, totp_secret=None)
            client = Assistant(door, only_password, "One", browser, network)
            await client.whoami("board")
            no_password = replace(door.john, password="")
            client = Assistant(door, no_password, "Two", browser, network)
            await client.whoami("notes")

    play(game)


def test_two_people_with_two_applications_each_at_once(door: Door) -> None:
    """Whatever overlaps, each application acts as who let it, with a grant of its own."""

    async def game() -> None:
        async def one(person: str, name: str) -> tuple[str, str, str]:
            who = getattr(door, person)
            async with assistant(door, who, f"{person} {name}") as client:
                told = await client.whoami("board")
                again = await client.whoami("board")
                assert told["x-authz-subject"] == again["x-authz-subject"]
                return person, told["x-authz-subject"], client.token

        both = [(person, name) for name in ("one", "two") for person in ("john", "bob")]
        found = await asyncio.gather(*(one(*each) for each in both))
        subjects = {
            person: {subject for who, subject, _ in found if who == person}
            for person in ("john", "bob")
        }
        assert [len(each) for each in subjects.values()] == [1, 1]
        assert subjects["john"] != subjects["bob"]
        assert len({token for *_, token in found}) == 4

    play(game)
    listed = Typed(door.running)("clients")["clients"]
    for person in ("john", "bob"):
        for name in ("one", "two"):
            (row,) = [each for each in listed if each["title"] == f"{person} {name}"]
            assert row["people"] == [person]


def test_consent_that_is_denied_is_told_to_the_client(door: Door) -> None:
    """Nobody goes to Authelia; the SDK raises with `access_denied`, and no token was given."""

    async def game() -> None:
        person = replace(door.john, consents=False, password="not needed")
        async with assistant(door, person, "Denied") as client:
            with pytest.raises((ExceptionGroup, LoginFailedError)) as caught:
                await client.whoami("notes")
            assert "access_denied" in words(caught.value)
            assert client.storage.tokens is None

    play(game)


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
def test_a_revoked_token_ends_its_grant(door: Door, which: str) -> None:
    """RFC 7009: from the next request on the access token is refused, and nothing refreshes."""

    async def game() -> None:
        async with (
            assistant(door, door.john, "Revoking") as client,
            door.network().browser() as http,
        ):
            await client.whoami("notes")
            held, known = client.storage.tokens, client.storage.client_info
            assert held is not None
            assert known is not None
            assert await seen(door, http, "notes", client.token) == PASSED
            metadata = await http.get(door.at("/.well-known/oauth-authorization-server"))
            form = {"token": getattr(held, which), "client_id": known.client_id}
            answer = await http.post(metadata.json()["revocation_endpoint"], data=form)
            assert answer.status_code == 200

            assert await seen(door, http, "notes", client.token) == (401, "token_revoked")
            form = {
                "grant_type": "refresh_token",
                "refresh_token": held.refresh_token,
                "client_id": known.client_id,
            }
            answer = await http.post(metadata.json()["token_endpoint"], data=form)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
            # The SDK, whose token is refused, asks its person again.
            await client.whoami("notes")
            assert len(client.login.opened) == 2

    play(game)


def test_a_blocked_client_is_out_until_it_is_let_in_again(door: Door) -> None:
    """`authz clients` lists who has come; `block` ends its log-ins and lets it begin no other."""
    typed = Typed(door.running)

    async def game() -> None:
        async with (
            assistant(door, door.john, "Blocked") as client,
            door.network().browser() as http,
        ):
            await client.whoami("notes")
            other = Assistant(door, door.john, "Not blocked", client.browser, client.network)
            await other.whoami("notes")
            listed = typed("clients")["clients"]
            (row,) = [each for each in listed if each["title"] == "Blocked"]
            assert (row["people"], row["servers"]) == (["john"], ["notes"])

            assert typed("clients", "block", row["id"])["ended"] == 1
            assert await seen(door, http, "notes", client.token) == (401, "token_revoked")
            assert await seen(door, http, "notes", other.token) == PASSED
            with pytest.raises((ExceptionGroup, LoginFailedError)):
                await client.whoami("notes")

            typed("clients", "unblock", row["id"])
            await client.whoami("notes")

    play(game)


def test_an_operator_ends_all_of_a_person(door: Door) -> None:
    """`authz revoke --user`: no token of that person passes, and nobody else notices."""
    typed = Typed(door.running)

    async def game() -> None:
        async with (
            assistant(door, door.john, "Ended") as client,
            assistant(door, door.bob, "Untouched") as other,
            door.network().browser() as http,
        ):
            told = await client.whoami("board")
            await other.whoami("board")
            typed("revoke", "--user", told["x-authz-subject"])
            try:
                assert await seen(door, http, "board", client.token) == (401, "token_revoked")
                assert await seen(door, http, "board", other.token) == PASSED
            finally:
                ids = [each["id"] for each in typed("revocations") if each["what"] == "person"]
                typed("revocations", "lift", *ids, "--restore")

    play(game)
