"""A server's own list: of the official servers of both eras, and of servers that mean no good."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import httpcore
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.config.model import ServerConfig
from authz.http import bounded_network
from authz.server.tool_lists import MAX_TOOLS, ToolList, ToolListError, list_tools
from authz_demo.samples import PATH, Sample, app
from authz_demo.serving import serve
from tests.demo.test_samples import FILES, NOTES
from tests.support.listening import listening
from tests.support.watched_network import Turns, WatchedNetwork, flood

MODERN, LEGACY = "2026-07-28", "2025-11-25"
Handle = Callable[[httpx.Request], httpx.Response]


def config(**more: object) -> ServerConfig:
    return ServerConfig.model_validate({"upstream": "http://files:8000/mcp", **more})


def asked(handle: Handle, **more: object) -> ToolList:
    def streamed(request: httpx.Request) -> httpx.Response:
        made = handle(request)
        return httpx.Response(
            made.status_code, headers=made.headers, stream=httpx.ByteStream(made.content)
        )

    transport = httpx.MockTransport(streamed)
    return asyncio.run(list_tools(config(**more), transport=transport))


def answering(result: object, **more: Any) -> Handle:
    """Answer every request with one result."""

    def handle(request: httpx.Request) -> httpx.Response:
        asked_id = json.loads(request.content).get("id")
        body = {"jsonrpc": "2.0", "id": asked_id, "result": result}
        return httpx.Response(200, json=body, **more)

    return handle


def failing(handle: Handle) -> str:
    with pytest.raises(ToolListError) as found:
        asked(handle, versions=[MODERN])
    return str(found.value)


@pytest.mark.parametrize(("name", "tools"), [("notes", NOTES), ("files", FILES)])
def test_official_servers_of_both_eras(name: Sample, tools: list[str]) -> None:
    """With one client and no word of who asks: the modern era is tried first where both may be."""

    async def look(versions: list[str]) -> ToolList:
        async with serve(app(name)) as port:
            upstream = f"http://127.0.0.1:{port}{PATH}"
            server = config(upstream=upstream, versions=versions)
            return await list_tools(server)

    era = MODERN if name == "notes" else LEGACY
    for versions in ([MODERN, LEGACY], [era]):
        found = asyncio.run(look(versions))
        assert [each.name for each in found.definitions] == tools
        assert not found.rejected


@pytest.mark.parametrize("version", [MODERN, LEGACY])
def test_pages_are_put_together_and_nobody_is_named(version: str) -> None:
    """Cursors are followed; no header says who asks; a session is ended."""
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if request.method == "DELETE":
            return httpx.Response(405)
        body = json.loads(request.content)
        if body["method"] == "notifications/initialized":
            return httpx.Response(202)
        result: dict[str, object] = {"protocolVersion": LEGACY, "capabilities": {}}
        if body["method"] == "tools/list":
            page = int(body["params"].get("cursor", "0"))
            result = {"tools": [{"name": f"tool-{page}"}]}
            result |= {"nextCursor": str(page + 1)} if page < 2 else {}
        message = json.dumps({"jsonrpc": "2.0", "id": body["id"], "result": result})
        stream = 'id: 1\r\ndata:\r\n\r\n: ping\r\n\r\ndata: {"jsonrpc":"2.0","method":"x"}\r\n\r\n'
        text = f"{stream}event: message\r\ndata: {message}\r\n\r\n"
        headers = {"content-type": "text/event-stream", "mcp-session-id": "s-1"}
        return httpx.Response(200, text=text, headers=headers)

    found = asked(handle, versions=[version])
    assert [each.name for each in found.definitions] == ["tool-0", "tool-1", "tool-2"]
    assert not [name for each in seen for name in each.headers if name.startswith("x-authz")]
    assert not [each for each in seen if "authorization" in each.headers]
    if version == LEGACY:
        assert [each.method for each in seen][-1] == "DELETE"
        assert all(each.headers["mcp-session-id"] == "s-1" for each in seen[1:])


@pytest.mark.attack("hostile-tool-list")
@pytest.mark.parametrize(
    ("handle", "words"),
    [
        pytest.param(answering({"tools": {}}), "its list is no array", id="shape"),
        pytest.param(answering([]), "it answers with an error", id="result"),
        pytest.param(
            answering({"tools": [{"name": "a"}], "nextCursor": "again"}),
            "its list has more than 64 pages",
            id="endless-pages",
        ),
        pytest.param(
            answering({"tools": [{"name": "a"}], "nextCursor": "x" * 5000}),
            "its list has a cursor that is no text, or too long",
            id="huge-cursor",
        ),
        pytest.param(
            answering({"tools": [{"name": str(n)} for n in range(MAX_TOOLS + 1)]}),
            f"it lists more than {MAX_TOOLS} tools",
            id="many",
        ),
        pytest.param(
            lambda _: httpx.Response(200, content=b"x" * (5 << 20)),
            "its answer is longer than 4096 KiB",
            id="huge",
        ),
        pytest.param(
            answering({"tools": [], "nextCursor": "more", "x": "x" * (3 << 20)}),
            "its answers are longer than 8192 KiB together",
            id="huge-together",
        ),
        pytest.param(
            lambda _: httpx.Response(
                200, content=b"data:{}\n\n" * 1001, headers={"content-type": "text/event-stream"}
            ),
            "its stream has more than 1000 events before the answer",
            id="many-events",
        ),
        pytest.param(
            lambda _: httpx.Response(302, headers={"location": "http://redis:6379/"}),
            "it answers with HTTP status 302",
            id="redirect",
        ),
        pytest.param(
            lambda _: httpx.Response(401), "it answers with HTTP status 401 (it asks who calls)",
            id="who",
        ),
        pytest.param(
            answering({"tools": []}, headers={"content-encoding": "zstd-ours"}),
            "its answer is compressed, though asked not to be",
            id="compressed",
        ),
        pytest.param(
            lambda _: httpx.Response(200, content=b'{"id": 1, "id": 1}'),
            "its answer is no strict JSON: a member occurs twice",
            id="twins",
        ),
        pytest.param(lambda _: httpx.Response(200, json=[]), "its answer is no JSON-RPC message",
                     id="batch"),
        pytest.param(
            lambda _: httpx.Response(200, json={"jsonrpc": "2.0", "id": 7, "result": {}}),
            "it answers something else",
            id="another-id",
        ),
    ],
)  # fmt: skip
def test_whatever_a_server_answers_ends_in_fixed_words(handle: Handle, words: str) -> None:
    """Too much, another shape, elsewhere: there is no list then, and nothing of it is repeated."""
    assert failing(handle) == words


@pytest.mark.attack("hostile-host", "hostile-tool-list")
def test_a_server_that_floods_us_holds_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker asks beside its decisions: other tasks run after each kilobyte of what comes."""
    turns = Turns()
    monkeypatch.setattr(httpcore, "AnyIOBackend", partial(WatchedNetwork, turns))
    monkeypatch.setattr(bounded_network, "MOST_LINES", 5_000)

    async def scene() -> None:
        other = asyncio.create_task(turns.take())
        async with listening(partial(flood, "interim")) as port:
            await list_tools(config(upstream=f"http://127.0.0.1:{port}/mcp"), seconds=60)
        other.cancel()

    with pytest.raises(ToolListError, match="no HTTP, or has no end"):
        asyncio.run(scene())
    assert turns.most <= 1024


def test_what_does_not_answer_is_given_up() -> None:
    """The time for all of it is bounded."""

    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def ask() -> None:
        await list_tools(config(), seconds=0.01, transport=httpx.MockTransport(hang))

    with pytest.raises(ToolListError, match="it does not answer in time"):
        asyncio.run(ask())


def test_what_is_no_definition_is_counted_and_both_of_a_name_are_kept() -> None:
    """One broken tool hides no other; two of one name are two."""
    tools = [{"name": "a"}, {"name": 5}, None, {"name": "a", "description": "other"}]
    found = asked(answering({"tools": tools}))

    assert [each.name for each in found.definitions] == ["a", "a"]
    assert len({each.digest for each in found.definitions}) == 2
    assert found.rejected == ("no name of 1 to 256 characters", "not an object")


@given(st.binary(max_size=200), st.sampled_from(["application/json", "text/event-stream"]))
def test_any_bytes_are_a_list_or_an_error(data: bytes, media: str) -> None:
    """Nothing else is raised."""

    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=data, headers={"content-type": media})

    with pytest.raises(ToolListError):
        asked(handle)
