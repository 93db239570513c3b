"""The official client is told of a step-up through the real Envoy, in both eras."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError, UrlElicitationRequiredError
from starlette.applications import Starlette

from authz_demo.serving import ANYWHERE, serve
from tests.server.test_step_up_clients import StepUpScene, text_of, upstream
from tests.support.checked_edge import checked_edge
from tests.support.gateway import GATEWAY, tls

ROOT = Path(__file__).parents[2]
MCP1 = ROOT / ".venv-mcp1" / "bin" / "python"
AGENT = ROOT / "tests" / "e2e" / "mcp1_step_up.py"


class ThroughEnvoy(StepUpScene):
    """The same person and agent, and Envoy between them and the check."""

    def app(self) -> Starlette:
        """Build the server behind the gateway."""
        return upstream(self.ran)

    @asynccontextmanager
    async def between(self, port: int) -> AsyncIterator[int]:
        """Give the port at which Envoy finds the server."""
        yield port

    @asynccontextmanager
    async def edge(self) -> AsyncIterator[str]:
        """Run Envoy, the check and the server; give the server's URL."""
        check, capabilities = self.checked()
        try:
            async with (
                serve(self.app(), ANYWHERE) as server,
                self.between(server) as port,
                checked_edge(check, port) as url,
            ):
                yield url
        finally:
            await capabilities.aclose()

    @asynccontextmanager
    async def client(self, mode: str, *, elicits: bool = True) -> AsyncIterator[Client]:
        callback: Any = self.person if elicits else None
        async with (
            self.edge() as url,
            httpx2.AsyncClient(
                verify=tls("http/1.1"),
                timeout=30,
                headers={"host": GATEWAY, "authorization": "Bearer a.b.c"},
                event_hooks={"response": [self.seen]},
            ) as http,
            Client(
                streamable_http_client(url, http_client=http),
                mode=mode,
                elicitation_callback=callback,
            ) as client,
        ):
            yield client

    async def seen(self, response: httpx2.Response) -> None:
        """Write down what came back instead of the tool's answer."""
        if response.headers.get("content-type", "").startswith("application/json"):
            body = await response.aread()
            if b"step-up" in body:
                self.told.append(response.status_code)


def play(environment: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(environment(), 120))


def test_a_modern_agent_steps_up_and_goes_on() -> None:
    """An input-required result with HTTP 200 passes Envoy as the denial that it is."""
    environment = ThroughEnvoy()

    async def run() -> None:
        async with environment.client("2026-07-28") as client:
            assert not (await client.call_tool("delete_note", {})).is_error

    play(run)
    assert (environment.ran, environment.told, len(environment.shown)) == (
        ["delete_note"],
        [200],
        1,
    )


def test_a_modern_agent_that_asks_again_is_told_in_words() -> None:
    """Before the step-up is done nothing reaches the server."""
    environment = ThroughEnvoy(steps_up=False)

    async def run() -> None:
        async with environment.client("2026-07-28") as client:
            told = await client.call_tool("delete_note", {})
            assert told.is_error
            assert "authz/step-up" in text_of(told)

    play(run)
    assert (environment.ran, environment.told, len(environment.shown)) == ([], [200, 200], 1)


def test_a_legacy_agent_gets_the_elicitation_and_calls_again() -> None:
    """Error -32042 reaches the application whole."""
    environment = ThroughEnvoy()

    async def run() -> None:
        async with environment.client("legacy") as client:
            with pytest.raises(MCPError) as told:
                await client.call_tool("delete_note", {})
            asked = UrlElicitationRequiredError.from_error(told.value.error)
            await environment.person(None, asked.elicitations[0])
            assert not (await client.call_tool("delete_note", {})).is_error

    play(run)
    assert (environment.ran, environment.told) == (["delete_note"], [200])


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
def test_an_agent_that_shows_no_links_is_told_in_words(mode: str) -> None:
    """The sentence and the link are in a result that the model reads."""
    environment = ThroughEnvoy()

    async def run() -> None:
        async with environment.client(mode, elicits=False) as client:
            told = await client.call_tool("delete_note", {})
            assert told.is_error
            assert "authz/step-up" in text_of(told)

    play(run)
    assert (environment.ran, environment.told) == ([], [200])


@pytest.mark.skipif(not MCP1.exists(), reason="no .venv-mcp1: `make test` makes it")
def test_an_agent_of_the_older_sdk_gets_the_elicitation_and_calls_again() -> None:
    """SDK 1.x, whose own class for error -32042 reads ours."""
    environment = ThroughEnvoy()
    pipe = asyncio.subprocess.PIPE

    async def run() -> None:
        async with environment.edge() as url:
            words = (str(AGENT), url, GATEWAY, "a.b.c", "delete_note")
            agent = await asyncio.create_subprocess_exec(str(MCP1), *words, stdin=pipe, stdout=pipe)
            assert agent.stdin is not None
            assert agent.stdout is not None
            told = json.loads(await agent.stdout.readline())
            assert told["version"] == "2025-11-25"
            assert told["url"].startswith("https://mcp.example.test/authz/step-up?ticket=")
            environment.ledger.stepped_up = True
            agent.stdin.write(b"\n")
            assert json.loads(await agent.stdout.readline()) == {"error": False}
            assert await agent.wait() == 0

    play(run)
    assert environment.ran == ["delete_note"]
