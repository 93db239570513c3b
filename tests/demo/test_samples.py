"""The sample servers with the SDK's own client: each speaks its era, and shows what reached it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from authz_demo.samples import PATH, Sample, app, main
from authz_demo.serving import Address, serve

NOTES = ["list_notes", "read_note", "write_note", "delete_note", "read_diary", "whoami"]
FILES = ["list_files", "read_file", "delete_file", "whoami"]


@asynccontextmanager
async def connected(
    name: Sample, mode: str = "auto", headers: dict[str, str] | None = None
) -> AsyncIterator[Client]:
    async with serve(app(name)) as port, httpx2.AsyncClient(headers=headers) as http:
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


def test_notes_are_kept_and_deleted() -> None:
    """What is written is read; what is deleted is gone, and that is told in words."""
    note = {"name": "plan"}

    written, listed, read, deleted, gone, again = calls(
        "notes",
        ("write_note", note | {"text": "call mum"}),
        ("list_notes", {}),
        ("read_note", note),
        ("delete_note", note),
        ("read_note", note),
        ("delete_note", note),
    )

    assert not written.is_error
    assert listed.structured_content == {"result": ["plan", "welcome"]}
    assert read.content[0].text == "call mum"
    assert not deleted.is_error
    assert gone.is_error
    assert again.is_error
    assert "there is no note of that name" in again.content[0].text


def test_files_are_read_and_deleted_in_memory() -> None:
    """A deleted file is gone for this server, and every server begins with all of them."""
    plan = {"name": "plan.txt"}

    listed, read, deleted, gone, again = calls(
        "files",
        ("list_files", {}),
        ("read_file", plan),
        ("delete_file", plan),
        ("read_file", plan),
        ("delete_file", plan),
    )

    assert listed.structured_content == {"result": ["plan.txt", "readme.txt"]}
    assert (read.is_error, deleted.is_error, gone.is_error, again.is_error) == (0, 0, 1, 1)
    assert not calls("files", ("read_file", plan))[0].is_error


@pytest.mark.parametrize(
    ("hosts", "host", "status"),
    [
        pytest.param(["mcp.example.test"], "mcp.example.test", 200, id="the gateway's"),
        pytest.param(["mcp.example.test"], "127.0.0.1", 421, id="another"),
        pytest.param([], "mcp.example.test", 200, id="unguarded"),
    ],
)
def test_a_sample_answers_to_its_hosts(hosts: list[str], host: str, status: int) -> None:
    """The guard against DNS rebinding lets named authorities in; without any it is off."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    headers = {
        "host": host,
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/list",
    }

    async def ask() -> int:
        async with serve(app("notes", hosts)) as port, httpx2.AsyncClient() as http:
            answer = await http.post(f"http://127.0.0.1:{port}{PATH}", json=body, headers=headers)
            return int(answer.status_code)

    assert asyncio.run(ask()) == status


def test_a_sample_serves_on_a_unix_socket(tmp_path: Path) -> None:
    """The socket that Envoy is given works as a port does."""
    socket = tmp_path / "files.sock"

    async def look() -> list[str]:
        transport = httpx2.AsyncHTTPTransport(uds=str(socket))
        async with (
            serve(app("files"), Address(uds=socket)),
            httpx2.AsyncClient(transport=transport) as http,
            Client(streamable_http_client(f"http://files{PATH}", http_client=http)) as client,
        ):
            return [tool.name for tool in (await client.list_tools()).tools]

    assert asyncio.run(look()) == FILES


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["notes"], id="nowhere"),
        pytest.param(["nothing", "--uds", "x"], id="unknown"),
        pytest.param(["notes", "--port", "0"], id="a port for any host"),
    ],
)
def test_a_sample_is_not_run_half_told(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a place, a name, or the hosts of a port, the command line is refused."""
    with pytest.raises(SystemExit):
        main(argv)
    assert "usage:" in capsys.readouterr().err
