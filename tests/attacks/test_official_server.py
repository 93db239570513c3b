"""The official MCP server behind the decision: it runs the very tool that was judged, or none.

Parsers may differ in what they refuse, never in what they take a message to call. The server
here is the SDK's own, over its own HTTP, in both eras; what the decision would let through is sent
to it byte by byte.
"""

import asyncio
import json
import unicodedata
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mcp.server.mcpserver import MCPServer
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette

from authz.core.mcp import Message, read
from authz.core.request import RefusedError
from authz.core.strict_json import StrictJsonError, loads
from tests.support.examples import examples

pytestmark = pytest.mark.slow

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
# What differs between parsers, to be put anywhere into a message.
PIECES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"-", b".", b"e", b"0", b"1e999", b"-0", b"00",
    b"NaN", b"Infinity", b"null", b"true", b" ", b"\t", b"\n", b"\x0b", b"\x00", b"\x7f",
    b"\xc2\xa0", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xc0\x80", b"\xff", b"/*",
    b"'",
    b"\\u0000", b"\\ud800", b"\\udc00", b"\xef\xbc\x91", b'"name":"drop",', b'"Name":"drop",',
    b'"n\\u0061me":"drop",', b'"method":"tools/call",', b'"params":{"name":"drop"},',
]  # fmt: skip


def call(name: str = "look", **more: object) -> dict[str, Any]:
    params = {"name": name, "arguments": {}, **more}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def modern(name: str = "look", **more: object) -> tuple[dict[str, Any], dict[str, str]]:
    meta = {VERSION_KEY: MODERN, CAPABILITIES_KEY: {}}
    headers = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": name}
    return call(name, _meta=meta, **more), headers


def judged(body: bytes, headers: dict[str, str]) -> Message | None:
    try:
        return read(body, headers, max_body=1 << 16)
    except RefusedError:
        return None


class OfficialServer:
    """Two tools of the official SDK that write down their names when they run."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        server: MCPServer = MCPServer("here", log_level="CRITICAL")
        for name in ("look", "drop", "Look", "look drop"):
            server.add_tool(self._tool(name), name=name)
        self._app: Starlette = server.streamable_http_app(
            streamable_http_path="/mcp", json_response=True, stateless_http=True, host="test"
        )

    def _tool(self, name: str) -> Any:
        def run() -> str:
            self.ran.append(name)
            return name

        return run

    def post(self, *messages: tuple[bytes, Mapping[str, str]]) -> list[list[str]]:
        """Send the messages one by one; return what each of them ran."""

        async def send() -> list[list[str]]:
            found = []
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with (
                self._app.router.lifespan_context(self._app),
                httpx.AsyncClient(transport=transport, base_url="http://test") as client,
            ):
                for body, headers in messages:
                    self.ran.clear()
                    await client.post("/mcp", content=body, headers={**JSON, **headers})
                    found.append(list(self.ran))
            return found

        return asyncio.run(send())


def wild() -> Iterator[tuple[bytes, dict[str, str]]]:
    """Yield messages that some server could take for a call of `drop`, in both eras."""
    legacy = {"mcp-protocol-version": LEGACY}
    for headers in ({}, legacy, {"mcp-name": "look"}, {"mcp-name": "drop", "mcp-method": "x"}):
        yield json.dumps(call("drop")).encode(), headers
        for media in ("application/json;", "application/json ; charset=utf8"):
            yield json.dumps(call("drop")).encode(), {**headers, "content-type": media}
        yield json.dumps({**call("drop"), "params": None}).encode(), headers
        yield json.dumps({**call("drop"), "error": {}}).encode(), headers
        yield json.dumps(call()).encode(), headers
        yield json.dumps([call(), call("drop")]).encode(), headers
        yield json.dumps(call(meta={VERSION_KEY: MODERN})).encode(), headers
        yield json.dumps(call(_meta={VERSION_KEY: MODERN})).encode(), headers
        yield json.dumps(call(arguments={"name": "drop"})).encode(), headers
        yield json.dumps(call("look drop")).encode(), headers
        text = json.dumps(call())
        for piece in PIECES:
            for mark in ('{"name"', '"look"', '"method"', '"arguments"', '"jsonrpc"'):
                at = text.index(mark) + (mark[0] == "{")
                yield text[:at].encode() + piece + text[at:].encode(), headers
    message, headers = modern()
    for name in ("look", "drop", "Look", "=?base64?ZHJvcA==?=", "=?base64?bG9vaw==?=", "look,drop"):
        for method in ("tools/call", "tools/list", "Tools/Call"):
            changed = {**headers, "mcp-name": name, "mcp-method": method}
            yield json.dumps(message).encode(), changed
            yield json.dumps(call("drop")).encode(), changed
            yield json.dumps({**message, "method": "tools/list"}).encode(), changed
    sentinel = f"=?base64?{b64encode(b'look').decode()}?="
    yield json.dumps(modern(sentinel)[0]).encode(), modern(sentinel)[1]


@pytest.mark.attack("official-server-differs")
def test_the_official_server_runs_what_was_judged() -> None:
    """Of all that is let through nothing runs another tool than the one that was judged."""
    passed = [(body, headers, found) for body, headers in wild() if (
        found := judged(body, {**JSON, **headers})) is not None]  # fmt: skip
    ran = OfficialServer().post(*((body, headers) for body, headers, _ in passed))

    assert len(passed) >= 20
    # Honest calls do run, or this test would prove nothing.
    assert ["look"] in ran
    assert ["drop"] in ran
    for (body, headers, message), each in zip(passed, ran, strict=True):
        assert each in ([], [message.tool]), (body, headers)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a tools/call with a few pieces put in, or put in place of others."""
    body = bytearray(json.dumps(call(draw(st.sampled_from(["look", "drop"])))).encode())
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(body)))
        end = min(len(body), begin + draw(st.sampled_from([0, 0, 1, 2, 6])))
        body[begin:end] = draw(st.sampled_from(PIECES))
    return bytes(body)


@pytest.mark.attack("parsers-differ")
@examples(500)
@given(damaged())
def test_other_parsers_read_the_same(body: bytes) -> None:
    """What is read strictly is read alike by the standard library and by pydantic's Rust parser."""
    try:
        document = loads(body)
    except StrictJsonError:
        return
    try:
        theirs = from_json(body, allow_inf_nan=False)
    except ValueError:
        theirs = document  # stricter about lone surrogates, never otherwise minded

    assert document == theirs == json.loads(body)


def readings(pairs: object, key: str) -> list[object]:
    """Return every value that some parser in use takes for the member of that name."""
    if not isinstance(pairs, list):
        return []
    return [value for name, value in pairs if _folded(name) == key]


def _folded(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name.partition("\0")[0]).casefold()
    return "".join(each for each in plain if unicodedata.category(each) not in {"Cf", "Mn"}).strip()


class _Pairs(list[Any]):
    """The members of an object as they were written, so that twins are still two."""


@pytest.mark.attack("mcp-twins")
@examples(500)
@given(damaged())
@example(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","name":"drop"}}')
@example(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","Name":"drop"}}')
@example(
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","\uff4eame":"drop"}}'.encode()
)
@example(
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","Params":{"name":"drop"},"params":{"name":"look"}}'
)
def test_no_parser_could_find_another_tool(body: bytes) -> None:
    """Whichever twin a parser prefers, and however it folds keys, it finds one method and tool."""
    found = judged(body, JSON)
    if found is None or found.tool is None:
        return
    pairs = json.loads(body, object_pairs_hook=_Pairs)
    (params,) = readings(pairs, "params")

    assert readings(pairs, "method") == ["tools/call"]
    assert readings(params, "name") == [found.tool]


@pytest.mark.attack("parsers-differ")
@examples(500)
@given(damaged())
def test_the_official_types_find_the_same_tool(body: bytes) -> None:
    """However a call was damaged: where it is let through, the SDK finds that method and tool."""
    found = judged(body, JSON)
    if found is None:
        return
    try:
        theirs = jsonrpc_message_adapter.validate_json(body)
    except ValidationError:
        return

    assert getattr(theirs, "method", "") == found.method
    if found.tool is not None:
        assert (getattr(theirs, "params", None) or {})["name"] == found.tool
