"""MCP bodies, as properties: over any bytes, any twin, and against two other readers."""

import json
from typing import Any

import mcp_types
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mcp.shared.inbound import (
    InboundLadderRejection,
    classify_inbound_request,
    encode_header_value,
)
from mcp_types import INVALID_PARAMS, JSONRPCNotification, JSONRPCRequest, jsonrpc_message_adapter
from pydantic import ValidationError

from authz.core.mcp import Message, MessageKind, envelope, read
from authz.core.request import RefusedError

MAX_BODY = 1 << 16
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
JSON = {"content-type": "application/json"}

NAMES = st.sampled_from(["read_file", "a", "größe x", "a,b", "=?base64?YQ==?="]) | st.text(
    min_size=1, max_size=12
)
KEYS = st.sampled_from(["x", "X", "path", "name"]) | st.text(max_size=4)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
METHODS = st.sampled_from(
    [
        "tools/call", "tools/list", "prompts/get", "resources/read", "tasks/get", "initialize",
        "notifications/initialized", "notifications/progress", "acme.example/open", "Tools/Call",
    ]
)  # fmt: skip
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES,
        "uri": NAMES,
        "taskId": NAMES,
        "arguments": JSON_VALUES,
        "_meta": st.fixed_dictionaries(
            {},
            optional={
                VERSION_KEY: st.sampled_from([MODERN, LEGACY]),
                CAPABILITIES_KEY: JSON_VALUES,
            },
        ),
    },
)
MESSAGES = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "id": st.integers() | st.text(max_size=3) | st.none() | st.floats(allow_nan=False),
        "method": METHODS,
        "params": PARAMS | JSON_VALUES,
        "result": JSON_VALUES,
    },
)
HEADERS = st.fixed_dictionaries(
    {"content-type": st.sampled_from(["application/json", "text/plain", ""])},
    optional={
        "mcp-protocol-version": st.sampled_from([MODERN, LEGACY, f"{MODERN},{MODERN}", "x"]),
        "mcp-method": METHODS,
        "mcp-name": NAMES.map(encode_header_value) | st.text(max_size=20),
        "content-length": st.sampled_from(["0", "5", "x", ""]),
        "content-encoding": st.sampled_from(["gzip", "identity"]),
        "x-envoy-auth-partial-body": st.sampled_from(["true", "false"]),
    },
)


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, str]]:
    """Draw a message and its headers as a client would write them, give or take one thing."""
    version = draw(st.sampled_from([None, LEGACY, MODERN]))
    method = draw(METHODS)
    thing = draw(NAMES)
    params: dict[str, Any] = {**draw(PARAMS), "name": thing, "uri": thing}
    params.pop("_meta", None)
    headers = dict(JSON)
    if version is not None:
        headers["mcp-protocol-version"] = version
    if version == MODERN:
        params["_meta"] = {VERSION_KEY: MODERN, CAPABILITIES_KEY: draw(JSON_VALUES)}
        headers["mcp-method"] = method
    if version == MODERN and method in {"tools/call", "prompts/get", "resources/read"}:
        headers["mcp-name"] = encode_header_value(thing)
    message = {"jsonrpc": "2.0", "id": draw(st.integers(0, 9)), "method": method, "params": params}
    if method.startswith("notifications/"):
        del message["id"]
    if draw(st.booleans()):
        return message, headers
    changes: dict[str, Any] = draw(MESSAGES)
    for key in sorted(changes)[: draw(st.integers(0, 2))]:
        message[key] = changes[key]
    if draw(st.booleans()):
        message.pop(draw(st.sampled_from(sorted(message))))
    return message, headers


# A busy machine is no failure.
ANY_TIME = settings(deadline=None)


def taken(body: bytes, headers: dict[str, str]) -> Message | None:
    try:
        return read(body, headers, max_body=MAX_BODY)
    except RefusedError:
        return None


def calls(
    version: str | None, name: str, arguments: object
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a tools/call and its headers, as the official client writes them."""
    params: dict[str, Any] = {"name": name, "arguments": arguments}
    headers = dict(JSON)
    if version is not None:
        headers["mcp-protocol-version"] = version
    if version == MODERN:
        params["_meta"] = {VERSION_KEY: MODERN, CAPABILITIES_KEY: {}}
        headers |= {"mcp-method": "tools/call", "mcp-name": encode_header_value(name)}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, headers


# --- (a) any bytes ------------------------------------------------------------------------------


@ANY_TIME
@given(
    st.binary()
    | st.text().map(str.encode)
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | MESSAGES.map(lambda value: json.dumps(value).encode())
    | exchanges().map(lambda exchange: json.dumps(exchange[0]).encode()),
    HEADERS,
)
@example(b"[" * 1_000, JSON)
@example(b'{"jsonrpc":"2.0","id":1,"method":"ping"}', JSON)
def test_any_bytes(body: bytes, headers: dict[str, str]) -> None:
    """Whatever is sent becomes a Message or a RefusedError, and no other error."""
    message = taken(body, headers)
    found = envelope(body, headers, max_body=MAX_BODY)

    if message is not None:
        assert found == message.envelope


@ANY_TIME
@given(MESSAGES, st.data())
def test_damaged_bytes(message: dict[str, Any], data: st.DataObject) -> None:
    """A message with a piece cut out or put in is read as the stdlib reads it, or refused."""
    body = json.dumps(message).encode()
    begin = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(begin, len(body)))
    damaged = body[:begin] + data.draw(st.binary(max_size=3)) + body[end:]

    found = taken(damaged, JSON)

    if found is not None and found.kind is not MessageKind.RESPONSE:
        assert json.loads(damaged)["method"] == found.method


# --- (b) one twin -------------------------------------------------------------------------------


def _exact(key: str) -> str:
    return key


def _escaped(key: str) -> str:
    return f"\\u{ord(key[0]):04x}{key[1:]}"


def _full_width(key: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in key)


def _long_s(key: str) -> str:
    return key.replace("s", "\u017f").replace("k", "\u212a")


def _cut(key: str) -> str:
    return key + "\\u0000"


def _joined(key: str) -> str:
    return key[0] + "\u200d" + key[1:]


def _blank(key: str) -> str:
    return key + " "


SPELLINGS = st.sampled_from(
    [
        _exact, _escaped, str.upper, str.lower, str.title, str.swapcase, _full_width, _long_s,
        _cut, _joined, _blank,
    ]
)  # fmt: skip
# The way to each object whose members decide, and to one of the tool's own.
LEVELS: tuple[tuple[str, ...], ...] = ((), ("params",), ("params", "_meta"))


def with_twin(value: dict[str, Any], level: tuple[str, ...], key: str, twin: str, at: int) -> str:
    """Write a document whose object at `level` has `key` once more, spelled `twin` (in JSON)."""
    members = []
    for name, inner in value.items():
        deeper = bool(level) and name == level[0]
        text = with_twin(inner, level[1:], key, twin, at) if deeper else json.dumps(inner)
        members.append(f"{json.dumps(name)}:{text}")
    if not level:
        members.insert(at % (len(members) + 1), f'"{twin}":{json.dumps(value[key])}')
    return "{" + ",".join(members) + "}"


@ANY_TIME
@given(
    st.sampled_from([None, LEGACY, MODERN]),
    st.sampled_from(LEVELS),
    SPELLINGS,
    st.integers(0, 9),
    st.data(),
)
def test_one_twin(
    version: str | None, level: tuple[str, ...], spelling: Any, at: int, data: st.DataObject
) -> None:
    """A valid message into which a twin of a deciding member was put anywhere is refused."""
    message, headers = calls(version, "read_file", {"path": "/x"})
    message["params"].setdefault("_meta", {"progressToken": 1})
    assert taken(json.dumps(message).encode(), headers) is not None
    inner = message
    for step in level:
        inner = inner[step]
    key = data.draw(st.sampled_from(sorted(inner)))
    twin = spelling(key)
    # A key that the spelling leaves alone is there twice, which is refused as well.
    body = with_twin(message, level, key, twin, at).encode()

    assert taken(body, headers) is None


@ANY_TIME
@given(st.dictionaries(KEYS, JSON_VALUES, min_size=1, max_size=3), st.integers(0, 9), st.data())
def test_one_exact_twin_of_an_argument(
    arguments: dict[str, Any], at: int, data: st.DataObject
) -> None:
    """Among a tool's own arguments nothing is there twice, either."""
    message, headers = calls(None, "read_file", arguments)
    key = data.draw(st.sampled_from(sorted(arguments)))
    body = with_twin(message, ("params", "arguments"), key, json.dumps(key)[1:-1], at)

    assert taken(body.encode(), headers) is None


# --- (c) other readers --------------------------------------------------------------------------


@ANY_TIME
@given(exchanges())
def test_the_stdlib_reads_the_same(exchange: tuple[dict[str, Any], dict[str, str]]) -> None:
    """What is accepted has the method, the id and the tool that the standard library finds."""
    message, headers = exchange
    body = json.dumps(message).encode()
    found = taken(body, headers)
    if found is None:
        return
    plain = json.loads(body)

    assert plain.get("method", "") == found.method
    assert found.kind is not MessageKind.REQUEST or plain["id"] == found.id
    if found.method == "tools/call":
        assert plain["params"]["name"] == found.tool
    else:
        assert found.tool is None


@ANY_TIME
@given(st.sampled_from([None, LEGACY, MODERN]), NAMES, st.dictionaries(KEYS, JSON_VALUES))
def test_the_official_types_read_the_same_tool(
    version: str | None, name: str, arguments: dict[str, Any]
) -> None:
    """A tools/call that is accepted calls the same tool in the official types."""
    message, headers = calls(version, name, arguments)
    body = json.dumps(message).encode()
    found = taken(body, headers)
    # A name that the official client can send is refused only for what a reader cannot see.
    assert (found is not None) == (name.isprintable() and name == name.strip())
    if found is None:
        return

    theirs = jsonrpc_message_adapter.validate_json(body)

    assert isinstance(theirs, JSONRPCRequest)
    assert theirs.id == found.id
    assert mcp_types.CallToolRequestParams.model_validate(theirs.params).name == found.tool


@ANY_TIME
@given(exchanges())
def test_the_official_types_read_the_same_shape(
    exchange: tuple[dict[str, Any], dict[str, str]],
) -> None:
    """A request is a request to the official types, and a notification a notification."""
    message, headers = exchange
    body = json.dumps(message).encode()
    found = taken(body, headers)
    if found is None:
        return
    try:
        theirs = jsonrpc_message_adapter.validate_json(body)
    except ValidationError:
        # They may be stricter (a surrogate in an argument), never otherwise minded.
        return

    assert isinstance(theirs, JSONRPCRequest) == (found.kind is MessageKind.REQUEST)
    assert isinstance(theirs, JSONRPCNotification) == (found.kind is MessageKind.NOTIFICATION)
    assert getattr(theirs, "method", "") == found.method


@ANY_TIME
@given(exchanges(), HEADERS, st.booleans())
def test_the_official_server_agrees_on_headers(
    exchange: tuple[dict[str, Any], dict[str, str]], others: dict[str, str], altered: bool
) -> None:
    """A modern request whose headers pass here passes the official server's own comparison."""
    message, headers = exchange
    if altered:
        headers |= {name: value for name, value in others.items() if name.startswith("mcp-")}
    found = taken(json.dumps(message).encode(), headers)
    if found is None or found.version != MODERN or found.kind is not MessageKind.REQUEST:
        return

    verdict = classify_inbound_request(message, headers=headers)

    # It asks for the capabilities as well, which decide nothing here.
    assert not isinstance(verdict, InboundLadderRejection) or verdict.code == INVALID_PARAMS
