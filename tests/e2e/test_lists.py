"""Lists show what the caller may use: the real service on both transports, through a real Envoy."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError

from authz_demo.serving import Address, serve
from tests.support.gateway import GATEWAY, tls
from tests.support.list_edge import ListEdge, running_list_edge, token
from tests.support.older_clients import (
    Operation,
    needs_sdk_1,
    needs_typescript,
    run_sdk_1,
    run_typescript,
)
from tests.support.service import until
from tests.support.transports import installed

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
NAMES: Final = ("read_a", "delete_a", "burn_a", "staff_a", "other")
SEEN: Final = ["read_a", "burn_a"]
SECRET: Final = b"delete_a"


@pytest.fixture(scope="module", params=["grpcio", "ngh2", "pyvoy"])
def shared(request: pytest.FixtureRequest) -> Iterator[ListEdge]:
    with running_list_edge(installed(request.param)) as edge:
        yield edge


@pytest.fixture
def edge(shared: ListEdge) -> ListEdge:
    """The running parts, with a server that holds nothing back."""
    shared.raw.go_on.set()
    return shared


def listed(*names: str, **more: object) -> bytes:
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
    return json.dumps({"jsonrpc": "2.0", "id": 7, "result": {"tools": tools, **more}}).encode()


def event(data: bytes) -> bytes:
    return b"event: message\r\nid: 3\r\ndata: " + data + b"\r\n\r\n"


def names(body: bytes) -> list[str]:
    return [tool["name"] for tool in json.loads(body)["result"]["tools"]]


def not_shown(body: bytes) -> str:
    """Return the reason of the error that stands in place of a list, for this very request."""
    answer: dict[str, Any] = json.loads(body)
    assert (answer["id"], answer.get("result")) == (7, None)
    return str(answer["error"]["data"]["reason"])


@pytest.mark.attack("list-unfiltered")
def test_a_list_has_what_may_be_called(edge: ListEdge) -> None:
    """By scopes, groups and names; a missing second factor hides nothing. Pages stay pages."""
    edge.answers(JSON, listed(*NAMES, nextCursor="page-2"))
    answer = edge.ask()
    assert names(answer.body) == SEEN
    assert json.loads(answer.body)["result"]["nextCursor"] == "page-2"
    assert b"accept-encoding" not in edge.raw.requests[0].lower()
    assert b"x-authz-caller" not in edge.raw.requests[0].lower()

    richer = edge.ask(scp=["mcp:files", "mcp:files:write"], groups=["staff"])
    assert names(richer.body) == list(NAMES[:-1])

    edge.answers(JSON, listed("other", nextCursor="page-3"))
    assert json.loads(edge.ask().body)["result"] == {"tools": [], "nextCursor": "page-3"}


@pytest.mark.attack("list-unfiltered")
def test_events_are_filtered_one_by_one(edge: ListEdge) -> None:
    """However the stream is divided; other events stay, and come before the list is there."""
    before = b"id: 1\ndata: \n\n: ping\r\n\r\n" + event(
        b'{"jsonrpc":"2.0","method":"notifications/x"}'
    )
    stream = event(listed(*NAMES))
    edge.streams(EVENTS, before, stream[:40], stream[40:-1], stream[-1:])
    edge.raw.go_on.clear()
    with edge.client.connect() as connection:
        connection.sendall(edge.raw_request())
        seen = b""
        while before not in seen:
            seen += connection.recv(65536)
        edge.raw.go_on.set()
        while b"\r\n0\r\n\r\n" not in seen:
            seen += connection.recv(65536)
    assert SECRET not in seen
    assert b"read_a" in seen
    assert b"burn_a" in seen


def test_two_megabytes(edge: ListEdge) -> None:
    """A long list is filtered; of one over the bound nothing is shown, however it comes."""
    edge.answers(JSON, listed(*(f"read_{n:0200}" for n in range(8_000)), *NAMES))
    found = edge.ask().body
    assert len(found) > 1 << 20
    assert names(found)[-2:] == SEEN
    long = listed(*NAMES, padding="x" * (4 << 20))
    edge.answers(JSON, long)
    assert not_shown(edge.ask().body) == "list_not_shown"
    edge.streams(JSON, *(long[start : start + 65536] for start in range(0, len(long), 65536)))
    assert not_shown(edge.ask().body) == "list_not_shown"
    edge.streams(EVENTS, *(long[start : start + 65536] for start in range(0, len(long), 65536)))
    edge.raw.pieces[0] = edge.raw.pieces[0].replace(b"{", b"data: {", 1)
    assert SECRET not in edge.ask().body


@pytest.mark.attack("list-unfiltered")
@pytest.mark.parametrize(
    ("media", "body", "more"),
    [
        pytest.param(JSON, listed(*NAMES)[:-1], {}, id="cut"),
        pytest.param(JSON, b"[" + listed(*NAMES) + b"]", {}, id="batch"),
        pytest.param(JSON, listed(*NAMES).replace(b"{", b'{"result":{},', 1), {}, id="twice"),
        pytest.param(JSON, listed(*NAMES).replace(b"tools", b"Tools"), {}, id="case"),
        pytest.param(JSON, listed(*NAMES), {"content_encoding": "gzip"}, id="encoding"),
        pytest.param("text/html", listed(*NAMES), {}, id="html"),
        pytest.param("", listed(*NAMES), {}, id="no-type"),
        pytest.param(EVENTS, event(listed(*NAMES)[:-1]), {}, id="event-cut"),
        pytest.param(EVENTS, b"data: [" + listed(*NAMES) + b"]", {}, id="event-batch"),
    ],
)
def test_what_cannot_be_filtered_is_not_shown(
    edge: ListEdge, media: str, body: bytes, more: dict[str, str]
) -> None:
    """The client gets an error with its id, the log a line with the cause, the metric a count."""
    lines = len(edge.service.events("list_not_shown"))
    edge.answers(media, body, **more)
    answer = edge.ask()
    assert SECRET not in answer.body
    data = answer.body.split(b"data: ")[-1].strip() if media == EVENTS else answer.body
    assert not_shown(data) == "list_not_shown"
    line = edge.service.wait_for("list_not_shown", lines + 1)
    assert (line["server"], line["method"]) == ("files", "tools/list")
    assert line["request_id"] == answer.header("x-request-id")
    assert f'outcome="{line["fault"]}",server="files"' in edge.service.get("/metrics")[1]


def test_what_is_no_list_stays(edge: ListEdge) -> None:
    """Errors, refusals in plain text, other methods and a server without the filter: each byte."""
    error = b'{"jsonrpc":"2.0","id":7, "error":{"code":-32601,"message":"no"}}'
    edge.answers(JSON, error)
    assert edge.ask().body == error
    edge.answers("text/plain", b"Session not found", status="404 Not Found")
    found = edge.ask()
    assert (found.status, found.body) == (404, b"Session not found")
    edge.answers(JSON, listed(*NAMES))
    assert edge.ask(server="open").body == listed(*NAMES)
    assert edge.ask("prompts/list").body == listed(*NAMES)


@pytest.mark.attack("list-unfiltered")
def test_a_client_cannot_choose(edge: ListEdge) -> None:
    """Headers and ids of the client turn nothing off, and speak for nobody else."""
    edge.answers(JSON, listed(*NAMES))
    forged = [("x-authz-filter", "off"), ("x-authz-list", "none"), ("x-envoy-list", "none")]
    for header in (*forged, ("list", ""), ("caller", "admin"), ("range", "bytes=0-9")):
        assert names(edge.ask(more=(header,)).body) == SEEN, header
    odd = 'a"}\\u2028%REQ(X)%'
    edge.answers(JSON, b"{")
    answer = edge.ask(rpc_id=odd)
    assert json.loads(answer.body)["id"] == odd


@pytest.mark.attack("list-unfiltered")
def test_a_resumed_stream_brings_no_list_that_was_hidden(edge: ListEdge) -> None:
    """With Last-Event-ID a GET brings responses to earlier requests (2025-11-25)."""
    edge.streams(EVENTS, event(listed(*NAMES)), event(b'{"jsonrpc":"2.0","id":8,"result":{}}'))
    resumed = edge.ask(http="GET", more=(("last-event-id", "2"),))
    assert event(b'{"jsonrpc":"2.0","id":8,"result":{}}') in resumed.body
    assert names(resumed.body.split(b"data: ")[1].split(b"\r\n")[0]) == SEEN
    edge.streams(EVENTS, event(listed(*NAMES)[:-1]))
    assert SECRET not in edge.ask(http="GET", more=(("last-event-id", "2"),)).body


# --- the official clients -----------------------------------------------------------------------


@contextmanager
def official_server(edge: ListEdge, *, json_response: bool) -> Iterator[None]:
    """Serve an official MCP server on the socket of `sdk`, in a loop of its own."""
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        mcp: MCPServer = MCPServer("sdk", log_level="CRITICAL")
        for name in ("read_file", "delete_file", "other"):
            mcp.add_tool(lambda: "done", name=name, description=name)
        app = mcp.streamable_http_app(
            streamable_http_path="/sdk", json_response=json_response, host="sdk"
        )
        async with serve(app, Address(uds=edge.folder / "sdk")):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(120)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
        (edge.folder / "sdk").unlink(missing_ok=True)


@pytest.fixture(params=[True, False], ids=["json", "events"])
def official(edge: ListEdge, request: pytest.FixtureRequest) -> Iterator[ListEdge]:
    with official_server(edge, json_response=request.param):
        yield edge


def test_official_clients_see_what_they_may_call(official: ListEdge) -> None:
    """SDK 2.x of both eras; and a call of what is hidden is refused."""

    async def tools(mode: str, bearer: str) -> list[str]:
        headers = {"host": GATEWAY, "authorization": f"Bearer {bearer}"}
        async with (
            httpx2.AsyncClient(verify=tls("http/1.1"), headers=headers, timeout=120) as http,
            Client(
                streamable_http_client(f"{official.url}/sdk", http_client=http), mode=mode
            ) as one,
        ):
            found = [tool.name for tool in (await one.list_tools()).tools]
            if "delete_file" in found:
                assert not (await one.call_tool("delete_file", {})).is_error
            else:
                with pytest.raises(MCPError):
                    await one.call_tool("delete_file", {})
            return found

    narrow, wide = token(), token(scp=["mcp:files", "mcp:files:write"])
    for mode in ("legacy", "2026-07-28"):
        assert asyncio.run(tools(mode, narrow)) == ["read_file"], mode
        assert asyncio.run(tools(mode, wide)) == ["read_file", "delete_file"], mode


LIST: Final[list[Operation]] = [("tools/list", "", {})]


@needs_sdk_1
def test_the_older_sdk_sees_what_it_may_call(official: ListEdge) -> None:
    """SDK 1.x: the same list, filtered."""
    assert run_sdk_1(f"{official.url}/sdk", GATEWAY, token(), LIST) == ["read_file"]


@needs_typescript
def test_the_typescript_client_sees_what_it_may_call(official: ListEdge) -> None:
    """The TypeScript SDK: the same again."""
    url, port = f"https://{GATEWAY}/sdk", official.client.port
    assert run_typescript(url, port, token(), LIST) == ["read_file"]


# --- the service fails; the last tests of this file ----------------------------------------------


@pytest.mark.attack("list-unfiltered")
def test_a_service_that_hangs_or_dies_shows_nothing(edge: ListEdge) -> None:
    """Stopped or killed between Check and the response, or within it: an error, never the list."""
    body = listed(*NAMES)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
    whole = [head, b"content-length: %d\r\n\r\n" % len(body) + body]
    cut = [head + b"content-length: %d\r\n\r\n" % len(body) + body[:50], body[50:]]
    # Envoy's health checks see it come back.
    process = edge.service.process
    pids = [process.pid, *children(process.pid)]
    for pieces in (whole, cut):
        answer = interrupted(edge, pieces, lambda: send(pids, signal.SIGSTOP))
        send(pids, signal.SIGCONT)
        assert SECRET not in answer
        assert body not in answer
        edge.envoy.wait_for("cluster.authz.membership_healthy", 1)
        edge.answers(JSON, body)
        until(lambda: names_or_none(edge.ask().body) == SEEN, "the service")
    answer = interrupted(edge, whole, lambda: send(pids[::-1], signal.SIGKILL))
    assert SECRET not in answer
    assert b"list_not_shown" in answer


def names_or_none(body: bytes) -> list[str] | None:
    try:
        return names(body)
    except (ValueError, KeyError):
        return None


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def interrupted(edge: ListEdge, pieces: list[bytes], interrupt: Any) -> bytes:
    """Return what a client gets whose answer is interrupted after its first piece."""
    edge.raw.pieces = pieces
    edge.raw.go_on.clear()
    edge.raw.requests.clear()
    with edge.client.connect() as connection:
        connection.settimeout(120)
        connection.sendall(edge.raw_request())
        until(lambda: bool(edge.raw.requests), "the request")
        interrupt()
        edge.raw.go_on.set()
        found = b""
        while piece := connection.recv(65536):
            found += piece
        return found
