"""The official MCP client at a check that asks for a step-up, in both eras, before a real server.

In place of Envoy stands a page of Python: it asks the check, answers a refusal as it is, and hands
the rest to the official server. The same through Envoy is tests/e2e.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError, UrlElicitationRequiredError
from mcp_types import (
    CallToolResult,
    ElicitRequestParams,
    ElicitRequestURLParams,
    ElicitResult,
    TextContent,
)
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from authz.core.ledger import LedgerAnswer, Mode, Query, StepUpMissing, Taken
from authz.core.request import HttpRequest
from authz.ledger.approval_requests import ApprovalRequests
from authz.ledger.deadline import Deadline
from authz.ledger.keys import RedisKeys
from authz.server.capabilities import Capabilities
from authz.server.check import Check, Snapshot
from authz.server.refusal_limiter import RefusalLimiter
from authz.server.step_up_links import ApprovalLinks, StepUpLinks, StepUpOffers
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from tests.server.test_check import FakeVerifier
from tests.server.test_step_up_links import GATEWAY, StepUpLinksWorld
from tests.support.wire import answer, check_request

URL = "http://mcp.example.test/files"


class StepUpLedger:
    """A ledger that takes a step-up as done when it is told so."""

    def __init__(self) -> None:
        self.stepped_up = False
        self.asked: list[Query] = []

    async def take(self, query: Query) -> LedgerAnswer:
        self.asked.append(query)
        if query.step_up is not None and not self.stepped_up:
            return StepUpMissing()
        return Taken((), Mode.REDIS)


def upstream(ran: list[str]) -> Starlette:
    mcp: MCPServer = MCPServer("files", log_level="CRITICAL")

    def delete_note() -> str:
        ran.append("delete_note")
        return "deleted"

    mcp.add_tool(delete_note)
    return mcp.streamable_http_app(
        streamable_http_path="/files", json_response=True, host="mcp.example.test"
    )


class RecordingGateway:
    """Do what Envoy does with the answer of a check."""

    def __init__(self, check: Check, app: Starlette, told: list[int]) -> None:
        self._check = check
        self._app = app
        self._told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            part = await receive()
            body += part.get("body", b"")
            more = part.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        context = {"server": "files"}
        sent = HttpRequest(
            scope["method"], scope["path"], headers, body, context, "192.0.2.7", "req"
        )
        found = answer(await self._check(check_request(sent)))
        if found.allowed:
            await self._app(scope, _again(body, receive), send)
            return
        self._told.append(found.status)
        raw = [(name.encode(), value.encode()) for name, value in found.headers.items()]
        await send({"type": "http.response.start", "status": found.status, "headers": raw})
        await send({"type": "http.response.body", "body": found.body})


def _again(body: bytes, receive: Receive) -> Receive:
    parts: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Any:
        return parts.pop() if parts else await receive()

    return read


class StepUpScene:
    """A person, an agent and a gateway."""

    def __init__(self, *, steps_up: bool = True) -> None:
        self.world = StepUpLinksWorld()
        self.ledger = StepUpLedger()
        self.ran: list[str] = []
        self.shown: list[str] = []
        self._steps_up = steps_up
        self.told: list[int] = []

    async def person(self, _: Any, asked: ElicitRequestParams) -> ElicitResult:
        """Be shown a link, follow it, and log in."""
        assert isinstance(asked, ElicitRequestURLParams)
        self.shown.append(asked.url)
        self.ledger.stepped_up = self._steps_up
        return ElicitResult(action="accept")

    def checked(self) -> tuple[Check, Capabilities]:
        """Build the check that decides."""
        capabilities = Capabilities(self.world.redis, RedisKeys("test"))
        links = StepUpLinks(self.world.sealer, GATEWAY)
        requests = ApprovalRequests(self.world.redis, RedisKeys("test"))
        approvals = ApprovalLinks(self.world.sealer, GATEWAY, requests)
        offers = StepUpOffers(links, capabilities, self.world.mode, approvals)
        tokens = FakeVerifier(lambda _: self.world.who)
        check = Check(
            Snapshot(self.world.policy, tokens, self.ledger, Deadline(5.0), offers),
            Recorder(Metrics(), EventLog("json", self.world.stream)),
            RefusalLimiter(),
        )
        return check, capabilities

    @asynccontextmanager
    async def client(self, mode: str, *, elicits: bool = True) -> AsyncIterator[Client]:
        check, capabilities = self.checked()
        app = upstream(self.ran)
        gateway = RecordingGateway(check, app, self.told)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(gateway),
                headers={"authorization": "Bearer a.b.c"},
            ) as http,
            Client(
                streamable_http_client(URL, http_client=http),
                mode=mode,
                elicitation_callback=self.person if elicits else None,  # type: ignore[arg-type]  # a context of any kind
            ) as client,
        ):
            yield client
        await capabilities.aclose()


def play(scene: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 60))


def test_a_modern_agent_hands_the_link_to_its_person_and_the_call_goes_through() -> None:
    """One call of the application: refused, link, step-up, done."""
    scene = StepUpScene()

    async def run() -> None:
        async with scene.client("2026-07-28") as client:
            result = await client.call_tool("delete_note", {})
            assert not result.is_error

    play(run)
    assert scene.ran == ["delete_note"]
    assert len(scene.shown) == 1
    assert scene.shown[0].startswith("https://mcp.example.test/authz/step-up?ticket=")
    assert scene.told == [200]


def text_of(result: CallToolResult) -> str:
    """Return what the model reads."""
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def test_a_modern_agent_whose_person_does_nothing_is_told_in_words() -> None:
    """The link is shown once; the retry has a result that the model reads."""
    scene = StepUpScene(steps_up=False)

    async def run() -> None:
        async with scene.client("2026-07-28") as client:
            told = await client.call_tool("delete_note", {})
            assert told.is_error
            assert "https://mcp.example.test/authz/step-up?ticket=" in text_of(told)

    play(run)
    assert (scene.ran, len(scene.shown)) == ([], 1)
    assert scene.told == [200, 200]


def test_a_legacy_agent_gets_the_elicitation_and_calls_again() -> None:
    """2025-11-25: error -32042, whose link the application shows; then the same call passes."""
    scene = StepUpScene()

    async def run() -> None:
        async with scene.client("legacy") as client:
            with pytest.raises(MCPError) as told:
                await client.call_tool("delete_note", {})
            asked = UrlElicitationRequiredError.from_error(told.value.error)
            await scene.person(None, asked.elicitations[0])
            result = await client.call_tool("delete_note", {})
            assert not result.is_error

    play(run)
    assert scene.ran == ["delete_note"]
    assert scene.told == [200]


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
def test_an_agent_that_shows_no_links_is_told_in_words(mode: str) -> None:
    """The model has the sentence and the link, and the session goes on."""
    scene = StepUpScene()

    async def run() -> None:
        async with scene.client(mode, elicits=False) as client:
            told = await client.call_tool("delete_note", {})
            assert told.is_error
            assert "https://mcp.example.test/authz/step-up?ticket=" in text_of(told)
            scene.ledger.stepped_up = True
            assert not (await client.call_tool("delete_note", {})).is_error

    play(run)
    assert (scene.ran, scene.shown) == (["delete_note"], [])
    assert scene.told == [200]
