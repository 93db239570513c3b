"""Several servers behind one URL: FastMCP multiplexes behind the real Envoy and the check.

docs/decisions/0022-several-servers.md says what holds and what is lost.
"""

import asyncio
import io
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from authz.core.policy import Rule
from authz.core.second_factor import Method, SecondFactor
from authz.ledger.deadline import Deadline
from authz.ledger.memory import MemoryLedger
from authz.server.check import Check, Snapshot
from authz.server.refusal_limiter import RefusalLimiter
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz_demo.environment import free_port
from tests.clients.clients import CLIENTS
from tests.server.test_check import FakeVerifier
from tests.support.checked_edge import checked_edge
from tests.support.gateway import GATEWAY, tls
from tests.support.values import policy, principal, server

FASTMCP = CLIENTS["fastmcp-4"]
PROGRAM = Path(__file__).with_name("python") / "multiplexer.py"
PATIENCE: Final = 60
RULES = policy(
    server(
        tools={
            "a_*": Rule(),
            "a_delete": Rule(second_factor=SecondFactor(Method.TOTP)),
            "b_read": Rule(),
        }
    )
)


@asynccontextmanager
async def program(*arguments: str, port: int) -> AsyncIterator[None]:
    """Run a part of the multiplexer until the block ends; it listens when the block begins."""
    command = (str(FASTMCP.program[0]), str(PROGRAM), *arguments)
    process = await asyncio.create_subprocess_exec(*command)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert process.returncode is None
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                break
        yield
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def house(check: Check) -> AsyncIterator[str]:
    """Run two servers, what puts them under one URL, and Envoy with the check before it."""
    async with AsyncExitStack() as stack:
        one, other, both = free_port(), free_port(), free_port()
        await stack.enter_async_context(program("server", "one", str(one), port=one))
        await stack.enter_async_context(program("server", "other", str(other), port=other))
        words = ("house", str(both), str(one), str(other))
        await stack.enter_async_context(program(*words, port=both))
        yield await stack.enter_async_context(checked_edge(check, both))


def checked() -> Check:
    now = int(time.time())
    john = replace(principal(), issued_at=now - 10, expires_at=now + 3600)
    ledger = MemoryLedger(time.time)
    return Check(
        Snapshot(RULES, FakeVerifier(lambda _: john, john), ledger, Deadline(5)),
        Recorder(Metrics(), EventLog("json", io.StringIO())),
        RefusalLimiter(),
    )


async def told(client: Client, tool: str) -> tuple[bool, str]:
    result = await client.call_tool(tool, {})
    (content,) = result.content
    assert isinstance(content, TextContent)
    return bool(result.is_error), content.text


async def visit(url: str, mode: str) -> None:
    headers = {
        "authorization": "Bearer known",
        "host": GATEWAY,
        "cookie": "authelia_session=secret",
        "x-authz-subject": "somebody",
    }
    async with (
        httpx2.AsyncClient(headers=headers, verify=tls(), timeout=PATIENCE) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"a_read", "a_delete", "b_read"} <= names
        for tool, name in (("a_read", "one"), ("b_read", "other")):
            is_error, text = await told(client, tool)
            assert not is_error
            arrived = json.loads(text)
            assert arrived["server"] == name
            assert arrived["headers"]["x-authz-subject"] == principal().subject
            assert not {"authorization", "cookie"} & set(arrived["headers"])
        is_error, text = await told(client, "a_delete")
        assert is_error
        assert "second factor" in text
        is_error, text = await told(client, "b_delete")
        assert is_error
        assert "not offered" in text


async def _visits() -> None:
    async with house(checked()) as url:
        for mode in ("2026-07-28", "legacy"):
            await visit(url, mode)


def test_rules_hold_for_each_server_by_prefix() -> None:
    """In both eras patterns with the prefix decide, and each server learns who calls."""
    if FASTMCP.missing:
        assert os.environ.get("AUTHZ_CLIENTS") != "required", FASTMCP.missing
        pytest.skip(f"NOT TESTED: {FASTMCP.title}: {FASTMCP.missing}")
    asyncio.run(_visits())
