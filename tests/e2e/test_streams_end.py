"""The official clients (SDK 1.x, 2.x), whose streams end with what allowed them, through Envoy."""

import asyncio
import contextlib
import io
import itertools
import json
import os
import time
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from starlette.types import ASGIApp, Receive, Scope, Send

from authz.core.ledger import LedgerAnswer, Mode, Query, Taken
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.ledger.deadline import Deadline
from authz.server.check import Check, Snapshot
from authz.server.refusal_limiter import RefusalLimiter
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz_demo.serving import ANYWHERE, serve
from tests.e2e.test_step_up_told import MCP1
from tests.server.test_check import FakeVerifier
from tests.support.checked_edge import checked_edge
from tests.support.gateway import GATEWAY, tls
from tests.support.values import policy, principal, server

SDK_1: Final = Path(__file__).with_name("mcp1_stream.py")
_PATIENCE: Final = 300.0  # seconds


class Events(EventStore):
    """Keep every event of every stream."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self.kept.append((stream_id, message))
        return str(len(self.kept))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str:
        stream = self.kept[int(last_event_id) - 1][0]
        for number, (of, message) in enumerate(self.kept, 1):
            if number > int(last_event_id) and of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


class Allowing:
    """A ledger that has no objection."""

    async def take(self, query: Query) -> LedgerAnswer:
        return Taken((), Mode.REDIS)


class RenewingClient(httpx2.Auth):
    """Send a token, and the next one where that is refused."""

    def __init__(self) -> None:
        self.number = 1

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        request.headers["authorization"] = f"Bearer token.{self.number}.x"
        if (yield request).status_code == 401:
            self.number += 1
            request.headers["authorization"] = f"Bearer token.{self.number}.x"
            yield request


class EndingWorld:
    """An MCP server behind Envoy and the check, and tokens of which the first expires soon."""

    def __init__(self, *, recheck: float, first: float) -> None:
        self._recheck = recheck
        self._lasts = first
        self._first = 0
        self.session: Any = None
        self.events = Events()
        self.cut = asyncio.Event()
        self.streams = 0
        self.auth = RenewingClient()

    def verified(self, token: str) -> Principal:
        """Return who sent a token; the first expires some time after a stream was opened with it.

        Not before, however long that takes on a busy machine: a stream of the next token would not
        end.
        """
        if not self.streams:
            self._first = int(time.time() + self._lasts)
        until = self._first if token == "token.1.x" else int(time.time()) + 3600
        if until <= time.time():
            raise RefusedError(Reason.TOKEN_EXPIRED)
        return replace(principal(), issued_at=int(time.time()), expires_at=until)

    def app(self) -> ASGIApp:
        mcp: MCPServer = MCPServer("files", log_level="CRITICAL")

        async def slow(seconds: float, ctx: Context) -> str:
            self.session = ctx.session
            await asyncio.sleep(seconds)
            return "done"

        mcp.add_tool(slow)
        inner = mcp.streamable_http_app(
            streamable_http_path="/files", event_store=self.events, host="files"
        )

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            get = scope["type"] == "http" and scope["method"] == "GET"
            self.streams += get
            try:
                await inner(scope, receive, send)
            finally:
                if get:
                    self.cut.set()

        return counted

    @asynccontextmanager
    async def edge(self) -> AsyncIterator[str]:
        """Run all of it; give the server's URL."""
        rules = policy(server(), max_stream=3600.0, stream_recheck=self._recheck)
        tokens = FakeVerifier(self.verified)
        check = Check(
            Snapshot(rules, tokens, Allowing(), Deadline(5.0)),
            Recorder(Metrics(), EventLog("json", io.StringIO())),
            RefusalLimiter(),
        )
        async with serve(self.app(), ANYWHERE) as port, checked_edge(check, port) as url:
            yield url

    @asynccontextmanager
    async def client(self, mode: str, heard: list[str]) -> AsyncIterator[Client]:
        """Run all of it, and the SDK 2.x as its client."""

        async def hear(message: object) -> None:
            heard.append(type(getattr(message, "root", message)).__name__)

        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(self.edge())
            http = await stack.enter_async_context(
                httpx2.AsyncClient(
                    verify=tls("http/1.1"),
                    headers={"host": GATEWAY},
                    auth=self.auth,
                    timeout=_PATIENCE,
                )
            )
            yield await stack.enter_async_context(
                Client(
                    streamable_http_client(url, http_client=http), mode=mode, message_handler=hear
                )
            )


async def until(true: Any) -> None:
    for _ in itertools.count():
        if true():
            return
        await asyncio.sleep(0.02)


@pytest.mark.attack("stream-outlives-token")
@pytest.mark.parametrize(
    ("recheck", "first"), [(2.0, 3600.0), (3600.0, 6.0)], ids=["recheck", "expiry"]
)
def test_a_legacy_client_comes_back_and_loses_no_event(recheck: float, first: float) -> None:
    """Its GET stream is cut; what is sent meanwhile arrives once it is there again."""

    async def run() -> None:
        world, heard = EndingWorld(recheck=recheck, first=first), list[str]()
        async with world.client("legacy", heard) as client:
            await client.call_tool("slow", {"seconds": 0})
            await until(lambda: world.streams)
            await world.session.send_tool_list_changed()
            await until(lambda: len(heard) == 1)
            await world.cut.wait()
            await world.session.send_prompt_list_changed()
            await until(lambda: len(heard) == 2)
            # A stream of the first token's last moments may end once more.
            await until(lambda: world.auth.number == (1 if first > recheck else 2))
        assert heard == ["ToolListChangedNotification", "PromptListChangedNotification"]
        assert world.streams >= 2

    asyncio.run(asyncio.wait_for(run(), _PATIENCE))


@pytest.mark.attack("stream-outlives-token")
@pytest.mark.skipif(not MCP1.exists(), reason="no .venv-mcp1: `make test` makes it")
@pytest.mark.parametrize(
    ("recheck", "first"), [(2.0, 3600.0), (3600.0, 6.0)], ids=["recheck", "expiry"]
)
def test_the_older_sdk_comes_back_and_loses_no_event(recheck: float, first: float) -> None:
    """SDK 1.x: its GET stream is cut; what is sent meanwhile arrives once it is there again."""

    async def run() -> None:
        world, pipe = EndingWorld(recheck=recheck, first=first), asyncio.subprocess.PIPE
        async with world.edge() as url:
            words = (str(MCP1), str(SDK_1), url, GATEWAY, "slow")
            env = {"PATH": os.environ["PATH"]}
            ran = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, env=env)
            assert ran.stdin is not None
            assert ran.stdout is not None
            heard = [json.loads(await ran.stdout.readline())]
            await until(lambda: world.streams)
            await world.session.send_tool_list_changed()
            heard.append(json.loads(await ran.stdout.readline()))
            await world.cut.wait()
            await world.session.send_prompt_list_changed()
            heard.append(json.loads(await ran.stdout.readline()))
            ran.stdin.close()
            await ran.wait()
        assert heard == ["called", "ToolListChangedNotification", "PromptListChangedNotification"]
        assert world.streams >= 2

    asyncio.run(asyncio.wait_for(run(), _PATIENCE))


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
def test_a_call_under_way_is_not_cut_by_the_recheck(mode: str) -> None:
    """It goes on past `stream_recheck`; its token is still good."""

    async def run() -> None:
        world = EndingWorld(recheck=1.0, first=3600.0)
        async with world.client(mode, []) as client:
            assert not (await client.call_tool("slow", {"seconds": 2.5})).is_error

    asyncio.run(asyncio.wait_for(run(), _PATIENCE))


@pytest.mark.attack("stream-outlives-token")
def test_a_modern_client_is_told_that_its_subscription_ended_and_listens_again() -> None:
    """`subscriptions/listen` has no replay: the client listens anew and fetches what it needs."""

    async def listen(client: Client) -> None:
        # On a busy machine it may end before the server has acknowledged it.
        async with client.listen(tools_list_changed=True) as subscription:
            async for _event in subscription:
                pass

    async def run() -> None:
        world = EndingWorld(recheck=1.0, first=3600.0)
        async with world.client("2026-07-28", []) as client:
            for _ in range(2):
                with pytest.raises(SubscriptionLost):
                    await listen(client)

    asyncio.run(asyncio.wait_for(run(), _PATIENCE))
