"""Approvals, end to end: a call waits for its person, and passes as it was shown, once.

The clients are the official ones, unchanged, through Envoy; pages are visited as browsers do.
"""

import asyncio
import json
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from mcp import MCPError, UrlElicitationRequiredError
from mcp_types import ElicitRequestURLParams, ElicitResult

from authz.core.answers import REFUSAL
from authz_demo.login_drivers import LoginFailedError, press
from authz_demo.person import BrowserUser
from authz_demo.reporter import reason_of, refusal_of
from tests.e2e.test_typescript import HOME, NODE, run
from tests.support.door import Assistant, Door, assistant, play
from tests.support.foreign import Foreign

ROOT = Path(__file__).parents[2]
MCP1 = ROOT / ".venv-mcp1" / "bin" / "python"
AGENT = ROOT / "tests" / "e2e" / "mcp1_step_up.py"


class ApprovingAgent:
    """An application that hands links to its person, who decides as told."""

    def __init__(self, client: Assistant, *decisions: str) -> None:
        self.client = client
        self.decisions = list(decisions)
        self.shown: list[Any] = []
        self.ends: list[httpx.Response] = []

    async def visit(self, link: str) -> None:
        """Follow a link, read what is asked, and decide."""
        assert urlsplit(link).path == "/authz/approval"
        page = await look(self.client.door, self.client.person, self.client.browser, link)
        self.shown.append(arguments_of(page))
        self.ends.append(await press(self.client.browser, page, self.decisions.pop(0)))

    async def elicited(self, _: Any, params: Any) -> ElicitResult:
        assert isinstance(params, ElicitRequestURLParams)
        await self.visit(params.url)
        return ElicitResult(action="accept")


async def look(
    door: Door, person: BrowserUser, browser: httpx.AsyncClient, link: str
) -> httpx.Response:
    """Follow a link and log in; return the page that shows the call."""
    return await person.visit(browser, link, door.running.environment.issuer.portal)


def arguments_of(page: httpx.Response) -> Any:
    """Return the arguments as a person reads them."""
    first = re.search(r'<pre class="data" dir="ltr">(.*?)</pre>', page.text, re.DOTALL)
    assert first is not None, page.text
    return json.loads(unescape(re.sub(r"<[^>]*>", "", first[1])))


def text(result: Any) -> str:
    return str(result.content[0].text)


def test_a_client_of_2026_is_asked_for_input(door: Door) -> None:
    """One visit does the step-up and the approval; the next call is another one, and is declined
    in words, without a link.
    """

    async def game() -> None:
        async with assistant(door, door.john, "Approving modern") as client:
            agent = ApprovingAgent(client, "approve", "approve", "decline")
            options = {"elicitation_callback": agent.elicited}
            async with client.at("asked-notes", "2026-07-28", **options) as session:
                passed = await session.call_tool("delete_note", {"name": "none"})
                assert "no note of that name" in text(passed)  # the server's own answer
                again = await session.call_tool("delete_note", {"name": "none"})
                assert "no note of that name" in text(again)
                declined = await session.call_tool("delete_note", {"name": "all"})
                assert declined.is_error
                assert "declined this call" in text(declined)
                assert "https://" not in text(declined)
            assert agent.shown == [{"name": "none"}, {"name": "none"}, {"name": "all"}]
            assert "let it try again" in agent.ends[0].text

    play(game)


@pytest.mark.attack("approval-swapped")
def test_a_client_of_2025_gets_the_error_with_a_link(door: Door) -> None:
    """Error -32042; the same call passes once, and other arguments never do."""

    async def game() -> None:
        async with assistant(door, door.john, "Approving sessions") as client:
            agent = ApprovingAgent(client, "approve")
            options = {"elicitation_callback": agent.elicited}
            async with client.at("asked-files", "legacy", **options) as session:

                async def refused(name: str) -> str:
                    with pytest.raises(MCPError) as caught:
                        await session.call_tool("delete_file", {"name": name})
                    asked = UrlElicitationRequiredError.from_error(caught.value.error)
                    (elicitation,) = asked.elicitations
                    return elicitation.url

                await agent.visit(await refused("none"))
                await refused("plan.txt")
                result = await session.call_tool("delete_file", {"name": "none"})
                assert "no file of that name" in text(result)
                await refused("none")

    play(game)


@pytest.mark.attack("approval-other-person")
def test_a_client_that_declares_nothing_gets_words(door: Door) -> None:
    """Whoever else follows the link sees nothing; its person's word is told."""

    async def game() -> None:
        async with (
            assistant(door, door.john, "Approving words") as client,
            client.network.browser() as bobs,
            client.at("asked-files", "legacy") as session,
        ):
            told = await session.call_tool("delete_file", {"name": "plan.txt"})
            assert told.is_error
            assert told.meta is not None
            link = told.meta[REFUSAL]["approval_url"]
            assert f"repeat the request: {link}" in text(told)
            assert "plan.txt" not in link
            seen = await look(door, door.bob, bobs, link)
            assert "somebody else" in seen.text
            assert "plan.txt" not in seen.text

            page = await look(door, door.john, client.browser, link)
            assert arguments_of(page) == {"name": "plan.txt"}
            await press(client.browser, page, "decline")
            told = await session.call_tool("delete_file", {"name": "plan.txt"})
            assert "declined this call" in text(told)

    play(game)


@pytest.mark.attack("approval-raced")
def test_of_many_retries_at_once_one_passes(door: Door) -> None:
    """Through Envoy and Redis: the file is deleted once for one approval."""

    async def game() -> None:
        async with assistant(door, door.john, "Approving race") as client:
            await client.whoami("asked-notes", "2026-07-28")
            async with client.network.browser() as http:

                async def call() -> httpx.Response:
                    return await door.call(
                        http, "asked-notes", client.token, "delete_note", name="none"
                    )

                link = refusal_of(await call())[1]["approval_url"]
                page = await look(door, door.john, client.browser, link)
                await press(client.browser, page, "approve")
                answers = await asyncio.gather(*(call() for _ in range(40)))
            passed = [each for each in answers if "no note of that name" in each.text]
            assert len(passed) == 1
            others = {reason_of(each) for each in answers if each not in passed}
            assert others <= {"approval_required", "too_many_refusals"}

    play(game)


def test_somebody_without_a_code_sees_nothing(door: Door) -> None:
    """Where the rule asks for a one-time code, who has none is stopped at the log-in."""

    async def game() -> None:
        async with (
            assistant(door, door.john, "Approving bob") as client,
            client.network.browser() as http,
            client.network.browser() as bobs,
        ):
            await client.whoami("asked-notes", "2026-07-28")
            refused = await door.call(http, "asked-notes", client.token, "delete_note", name="none")
            link = refusal_of(refused)[1]["approval_url"]
            with pytest.raises(LoginFailedError, match="one-time code"):
                await look(door, door.bob, bobs, link)

    play(game)


@pytest.mark.skipif(
    NODE is None or not (HOME / "node_modules").exists(),
    reason="NOT TESTED: the TypeScript client: node is missing, or `make typescript` was not run",
)
def test_the_typescript_client_gets_its_own_error(door: Door) -> None:
    """It hands the link to its person, who approves, and calls again."""
    who = Foreign(door, door.john)
    found = run(door, who, "asked-files", elicits="delete_file")

    assert "no file of that name" in found.get("after", ""), found
    assert "let it try again" in who.ends[0].text


@pytest.mark.skipif(not MCP1.exists(), reason="no .venv-mcp1: `make test` makes it")
def test_a_client_of_the_older_sdk_gets_the_error_with_a_link(door: Door) -> None:
    """SDK 1.x: its own class reads the elicitation, and the call passes after the approval."""
    pipe = asyncio.subprocess.PIPE

    async def game() -> None:
        async with assistant(door, door.john, "Approving older") as client:
            await client.whoami("asked-files", "legacy")
            place = urlsplit(door.url("asked-files"))
            url = f"https://127.0.0.1:{door.running.environment.place.port}{place.path}"
            words = (str(AGENT), url, place.netloc, client.token, "list_files")
            agent = await asyncio.create_subprocess_exec(str(MCP1), *words, stdin=pipe, stdout=pipe)
            assert agent.stdin is not None
            assert agent.stdout is not None
            told = json.loads(await agent.stdout.readline())
            page = await look(door, door.john, client.browser, told["url"])
            assert arguments_of(page) == {}
            await press(client.browser, page, "approve")
            agent.stdin.write(b"\n")
            assert json.loads(await agent.stdout.readline()) == {"error": False}
            assert await agent.wait() == 0

    play(game)
