"""The sample servers with the SDK's own client: each speaks its era, and shows what reached it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from authz_demo.samples import PATH, Sample, app
from authz_demo.serving import serve

NOTES = ["list_notes", "read_note", "write_note", "delete_note", "read_diary", "whoami"]
FILES = ["list_files", "read_file", "delete_file", "whoami"]


@asynccontextmanager
async def connected(
    name: Sample, mode: str = "auto", headers: dict[str, str] | None = None
) -> AsyncIterator[Client]:
    async with serve(app(name)) as port, httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(f"http://127.0.0.1:{port}{PATH}", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


def calls(
    name: Sample, *asked: tuple[str, dict[str, Any]], headers: dict[str, str] | None = None
) -> list[Any]:
    """The results of some tool calls in one connection."""

    async def ask() -> list[Any]:
        async with connected(name, headers=headers) as client:
            return [await client.call_tool(tool, arguments) for tool, arguments in asked]

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("name", "mode", "version", "tools"),
    [
        pytest.param("notes", "auto", "2026-07-28", NOTES, id="notes, asked first"),
        pytest.param("notes", "2026-07-28", "2026-07-28", NOTES, id="notes, modern"),
        pytest.param("files", "auto", "2025-11-25", FILES, id="files, fallen back"),
        pytest.param("files", "legacy", "2025-11-25", FILES, id="files, legacy"),
    ],
)
def test_a_sample_speaks_its_era(name: Sample, mode: str, version: str, tools: list[str]) -> None:
    """The official client ends up in the sample's era, and finds its tools."""

    async def look() -> tuple[str, list[str]]:
        async with connected(name, mode) as client:
            listed = await client.list_tools()
            return client.protocol_version, [tool.name for tool in listed.tools]

    assert asyncio.run(look()) == (version, tools)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param("notes", "legacy", id="a session with notes"),
        pytest.param("files", "2026-07-28", id="no session with files"),
    ],
)
def test_a_sample_refuses_the_other_era(name: Sample, mode: str) -> None:
    """A client that insists on the other era is told which versions there are (-32022)."""

    async def insist() -> None:
        async with connected(name, mode) as client:
            await client.list_tools()

    def codes(error: BaseException) -> set[int]:
        if isinstance(error, BaseExceptionGroup):
            return {code for part in error.exceptions for code in codes(part)}
        return {error.error.code} if isinstance(error, MCPError) else set()

    with pytest.raises((ExceptionGroup, MCPError)) as caught:
        asyncio.run(insist())
    assert codes(caught.value) == {-32022}


@pytest.mark.parametrize("name", ["notes", "files"])
def test_whoami_shows_what_the_gateway_said_and_what_came_through(name: Sample) -> None:
    """Identity headers are shown; a token or cookie that reached the server is told of."""
    identity = {"x-authz-subject": "s", "x-authz-client": "c", "x-authz-scopes": "a b"}
    issuer = {"x-authz-issuer": "i"}

    clean, leaky = (
        calls(name, ("whoami", {}), headers=headers)[0].structured_content
        for headers in (identity | issuer, {"authorization": "Bearer x", "cookie": "a=b"})
    )

    assert {key: clean[key] for key in identity} == identity
    assert (clean["authorization_arrived"], clean["cookie_arrived"]) == (False, False)
    assert (leaky["authorization_arrived"], leaky["cookie_arrived"]) == (True, True)
    assert leaky["x-authz-subject"] is None
