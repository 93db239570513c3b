"""A step-up, end to end: a tool wants a recent log-in, and each client is told as it can be.

A refused call passes after its person has logged in again, and only then. The clients are the
official ones, unchanged, through Envoy.
"""

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookiejar import Cookie
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from mcp import MCPError, UrlElicitationRequiredError
from mcp.shared.auth import OAuthClientInformationFull
from mcp_types import ElicitRequestURLParams, ElicitResult
from pydantic import AnyUrl

from authz.core.answers import REFUSAL
from authz_demo.client import MemoryTokenStorage
from authz_demo.environment import CALLBACK
from authz_demo.reporter import expect, reason_of, refusal_of
from tests.support.door import Assistant, Door, assistant, play

MISSING = {"second_factor_required", "login_too_old"}


class Agent:
    """What an application does with a link: it hands it to its person."""

    def __init__(self, client: Assistant) -> None:
        self.client = client
        self.links: list[str] = []
        self.ends: list[httpx.Response] = []

    async def visit(self, link: str) -> httpx.Response:
        self.links.append(link)
        portal = self.client.door.running.environment.issuer.portal
        end = await self.client.person.visit(self.client.browser, link, portal)
        self.ends.append(end)
        return end

    async def elicited(self, _: Any, params: Any) -> ElicitResult:
        assert isinstance(params, ElicitRequestURLParams)
        assert not self.links, "asked twice"
        await self.visit(params.url)
        return ElicitResult(action="accept")


COMERS = {  # who comes, from which browser, to which server
    "Modern": ("one", "notes"),
    "Sessions": ("two", "files"),
    "Wordy notes": ("three", "notes"),
    "Wordy files": ("four", "files"),
    "Stepped up": ("five", "notes"),
    "The other": ("five", "notes"),
}


class Aged:
    """Applications that came so long ago that their log-ins let them delete nothing any more."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.storages = {name: MemoryTokenStorage(None) for name in COMERS}
        self.cookies: dict[str, list[Cookie]] = {}

    async def come(self) -> None:
        for name, (which, server) in COMERS.items():
            async with self.back(name) as client:
                await client.whoami(server)
                # At once after the log-in nothing more is asked.
                if server == "notes":
                    expect(await self._delete(client), 200)
                self.cookies[which] = list(client.browser.cookies.jar)
        async with self.back("The other") as client, client.network.browser() as http:
            await self.door.called(
                http, "notes", client.token, "delete_note", is_missing, name="none"
            )

    async def _delete(self, client: Assistant) -> httpx.Response:
        async with client.network.browser() as http:
            return await self.door.call(http, "notes", client.token, "delete_note", name="none")

    @asynccontextmanager
    async def back(self, name: str) -> AsyncIterator[Assistant]:
        """Give an application again, with what it and its person's browser have kept."""
        storage = self.storages[name]
        async with assistant(self.door, self.door.john, name, storage=storage) as client:
            for cookie in self.cookies.get(COMERS[name][0], ()):
                client.browser.cookies.jar.set_cookie(cookie)
            yield client


@pytest.fixture(scope="module")
def aged(door: Door) -> Aged:
    """Wait once for all."""
    found = Aged(door)
    play(found.come)
    return found


def is_missing(answer: httpx.Response) -> bool:
    return reason_of(answer) in MISSING


def text(result: Any) -> str:
    return str(result.content[0].text)


def test_a_client_of_2026_is_asked_for_input(door: Door, aged: Aged) -> None:
    """The agent hands the link to its person in the middle of the call, which then goes through."""

    async def game() -> None:
        async with aged.back("Modern") as client:
            agent = Agent(client)
            options = {"elicitation_callback": agent.elicited}
            async with client.at("notes", "2026-07-28", **options) as session:
                result = await session.call_tool("delete_note", {"name": "none"})
                # It is the server's own answer: it has no such note.
                assert "no note of that name" in text(result)
            (link,) = agent.links
            assert link.startswith(door.at("/authz/step-up?ticket="))
            assert "Go back to your assistant and try again" in agent.ends[0].text
            assert client.login.opened == []

            async with client.network.browser() as http:
                again = await door.called(
                    http, "notes", client.token, "delete_note", is_missing, name="none"
                )
            assert refusal_of(again)[1]["step_up_url"]

    play(game)


def test_a_client_of_2025_gets_the_error_with_a_link(aged: Aged) -> None:
    """Error -32042 to who declared URL elicitation in `initialize`; the retry goes through."""

    async def game() -> None:
        async with aged.back("Sessions") as client:
            agent = Agent(client)
            options = {"elicitation_callback": agent.elicited}
            async with client.at("files", "legacy", **options) as session:
                with pytest.raises(MCPError) as caught:
                    await session.call_tool("delete_file", {"name": "none"})
                asked = UrlElicitationRequiredError.from_error(caught.value.error)
                (elicitation,) = asked.elicitations
                await agent.visit(elicitation.url)
                result = await session.call_tool("delete_file", {"name": "none"})
                assert "no file of that name" in text(result)

    play(game)


@pytest.mark.parametrize(("server", "mode"), [("notes", "2026-07-28"), ("files", "legacy")])
def test_a_client_that_declares_nothing_gets_words(aged: Aged, server: str, mode: str) -> None:
    """The tool's result is a sentence with the link, which its person can follow by hand."""
    tool = "delete_note" if server == "notes" else "delete_file"

    async def game() -> None:
        async with aged.back(f"Wordy {server}") as client:
            agent = Agent(client)
            async with client.at(server, mode) as session:
                told = await session.call_tool(tool, {"name": "none"})
                assert told.is_error
                assert told.meta is not None
                link = told.meta[REFUSAL]["step_up_url"]
                assert f"repeat the request: {link}" in text(told)
                await agent.visit(link)
                result = await session.call_tool(tool, {"name": "none"})
                assert "of that name" in text(result)

    play(game)


@pytest.mark.attack("step-up-of-another")
def test_a_step_up_helps_nobody_else(door: Door, aged: Aged) -> None:
    """Another application of the same person on the same machine is refused as before; a person
    without TOTP who follows the link gets nothing; and whose link it is not, neither.
    """

    async def game() -> None:
        async with (
            aged.back("Stepped up") as client,
            aged.back("The other") as other,
            client.network.browser() as http,
            client.network.browser() as bobs,
        ):
            refused = await door.call(http, "notes", client.token, "delete_note", name="none")
            link = refusal_of(refused)[1]["step_up_url"]
            portal = door.running.environment.issuer.portal
            with pytest.raises(Exception, match="one-time code"):
                await door.bob.visit(bobs, link, portal)
            refused = await door.call(http, "notes", client.token, "delete_note", name="none")
            assert is_missing(refused)

            await Agent(client).visit(link)
            passed = await door.call(http, "notes", client.token, "delete_note", name="none")
            expect(passed, 200)
            refused = await door.call(http, "notes", other.token, "delete_note", name="none")
            assert is_missing(refused)

    play(game)


@pytest.mark.usefixtures("direct_clients")
def test_a_client_that_logs_in_directly_steps_up(door: Door) -> None:
    """Of a log-in at the issuer itself nothing is known: the step-up is what there is."""

    async def game() -> None:
        known = OAuthClientInformationFull(
            client_id="old-script",
            redirect_uris=[AnyUrl(CALLBACK)],
            token_endpoint_auth_method="none",
        )
        async with door.network().browser() as browser:
            client = Assistant(
                door,
                door.john,
                "Direct",
                browser,
                door.network(),
                storage=MemoryTokenStorage(known),
            )
            place = door.running.environment.place
            issuer = door.running.environment.issuer
            token = await direct_token(browser, place.issuer, door, issuer.portal)
            answer = await door.call(browser, "notes", token, "whoami")
            expect(answer, 200)
            refused = await door.call(browser, "notes", token, "delete_note", name="none")
            assert is_missing(refused)
            await Agent(client).visit(refusal_of(refused)[1]["step_up_url"])
            passed = await door.call(browser, "notes", token, "delete_note", name="none")
            expect(passed, 200)

    play(game)


async def direct_token(browser: httpx.AsyncClient, issuer: str, door: Door, portal: Any) -> str:
    """Log in at the issuer itself, as a client that is registered there by hand."""
    verifier = secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
    asked = {
        "response_type": "code",
        "client_id": "old-script",
        "redirect_uri": CALLBACK,
        "scope": "mcp:notes offline_access",
        "state": secrets.token_urlsafe(16),
        "code_challenge": challenge.decode(),
        "code_challenge_method": "S256",
        "resource": door.url("notes"),
        "prompt": "consent",
    }
    url = f"{issuer}/api/oidc/authorization?{urlencode(asked)}"
    came = parse_qs(urlsplit(await door.john.log_in(browser, url, portal)).query)
    form = {
        "grant_type": "authorization_code",
        "code": came["code"][0],
        "redirect_uri": CALLBACK,
        "client_id": "old-script",
        "code_verifier": verifier,
    }
    answer = await browser.post(f"{issuer}/api/oidc/token", data=form)
    token: str = answer.json()["access_token"]
    return token
