"""A refusal ends nobody's session: the clients that can be had here, through the real Envoy.

One session makes three calls: one over the limit, one while the server is away, one that passes.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult
from starlette.applications import Starlette

from authz.core.answers import REFUSAL
from authz.core.ledger import LedgerAnswer, Mode, OverLimit, Query, Taken
from authz.core.limits import Quota
from tests.e2e.test_step_up_told import MCP1, ThroughEnvoy, play
from tests.e2e.test_typescript import HOME, NODE
from tests.server.test_step_up_clients import text_of
from tests.support.gateway import GATEWAY
from tests.support.values import LIMIT

AGENT = Path(__file__).with_name("mcp1_refused.py")


class FailingLedger:
    """A ledger whose limit is exhausted when it is told so."""

    over = False

    async def take(self, query: Query) -> LedgerAnswer:
        del query
        if self.over:
            return OverLimit((Quota(LIMIT, 0, 12),), 12)
        return Taken((), Mode.REDIS)


class Bridge:
    """Stand between Envoy and the server, and go away."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._listening: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def back(self) -> None:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def away(self) -> None:
        assert self._listening is not None
        self._listening.close()
        for writer in self._open:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._server)
        self._open |= {writer, back}
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class RefusingService(ThroughEnvoy):
    """The person and agent of the step-ups, with a limit and a server that goes away."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = FailingLedger()
        self.ledger = self.limits  # type: ignore[assignment]  # another ledger
        self.bridge: Bridge | None = None

    def app(self) -> Starlette:
        """Build a server without sessions, which may be reached again after it was away."""
        server: MCPServer = MCPServer("files", log_level="CRITICAL")

        def delete_note() -> str:
            self.ran.append("delete_note")
            return "deleted"

        server.add_tool(delete_note)
        return server.streamable_http_app(
            streamable_http_path="/files", json_response=True, stateless_http=True, host="files"
        )

    @asynccontextmanager
    async def between(self, port: int) -> AsyncIterator[int]:
        self.bridge = Bridge(port)
        await self.bridge.back()
        yield self.bridge.port
        await self.bridge.away()

    async def stage(self, call: int) -> None:
        """Set the scene for the first call, the second and the third."""
        assert self.bridge is not None
        self.limits.over = call == 0
        if call == 1:
            await self.bridge.away()
        if call == 2:
            await self.bridge.back()


def refused(result: CallToolResult, reason: str) -> bool:
    meta: dict[str, Any] = dict(result.meta or {})
    return bool(result.is_error) and meta[REFUSAL]["reason"] == reason


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
def test_the_official_client_goes_on(mode: str) -> None:
    """SDK 2.x, in both eras: results that a model reads, and a session that lives."""
    environment = RefusingService()

    async def run() -> None:
        async with environment.client(mode, elicits=False) as client:
            told = []
            for call in range(3):
                await environment.stage(call)
                told.append(await client.call_tool("delete_note", {}))
            assert refused(told[0], "rate_limited")
            assert "Retry after 12 s" in text_of(told[0])
            assert refused(told[1], "server_unavailable")
            assert not told[2].is_error

    play(run)
    assert environment.ran == ["delete_note"]


async def agent(environment: RefusingService, *words: str) -> list[dict[str, Any]]:
    """Run a client of another environment; return what it was told at each call."""
    pipe = asyncio.subprocess.PIPE
    env = {"PATH": os.environ["PATH"]}
    ran = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, env=env)
    assert ran.stdin is not None
    assert ran.stdout is not None
    assert json.loads(await ran.stdout.readline()) == "ready"
    told = []
    for call in range(3):
        await environment.stage(call)
        ran.stdin.write(b"\n")
        told.append(json.loads(await ran.stdout.readline()))
    await ran.wait()
    return told


def check(told: list[dict[str, Any]]) -> None:
    assert [each.get("error") for each in told] == [True, True, False], told
    assert "Retry after 12 s" in told[0]["text"]
    assert "cannot be reached" in told[1]["text"]


@pytest.mark.skipif(not MCP1.exists(), reason="no .venv-mcp1: `make test` makes it")
def test_the_older_sdk_goes_on() -> None:
    """SDK 1.x: under any status of an error its session would be over (facts of decision 11)."""
    environment = RefusingService()

    async def run() -> None:
        async with environment.edge() as url:
            check(
                await agent(
                    environment, str(MCP1), str(AGENT), url, GATEWAY, "a.b.c", "delete_note"
                )
            )

    play(run)
    assert environment.ran == ["delete_note"]


@pytest.mark.skipif(
    NODE is None or not (HOME / "node_modules").exists(),
    reason="NOT TESTED: the TypeScript client: node is missing, or `make typescript` was not run",
)
def test_the_typescript_client_goes_on() -> None:
    """SDK 1.x of TypeScript: words for the model in place of an exception with raw JSON."""
    environment = RefusingService()

    async def run() -> None:
        async with environment.edge() as url:
            port = str(urlsplit(url).port)
            script = str(HOME / "refused.mjs")
            words = (f"https://{GATEWAY}/files", port, "a.b.c", "delete_note")
            check(await agent(environment, str(NODE), script, *words))

    play(run)
    assert environment.ran == ["delete_note"]
