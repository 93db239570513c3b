"""MCP bodies: what is accepted has one reading, and everything else has its reason."""

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import pytest
from mcp_types import JSONRPCError, jsonrpc_message_adapter, methods
from pydantic import ValidationError

from authz.core import mcp
from authz.core.mcp import Envelope, Message, MessageKind, envelope, read
from authz.core.policy import JsonBounds
from authz.core.reason import Reason
from authz.core.request import RefusedError

MAX_BODY = 1 << 20
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
META = {VERSION_KEY: MODERN, CAPABILITIES_KEY: {}}
JSON = {"content-type": "application/json"}


def rpc(method: str = "tools/call", /, **params: object) -> dict[str, Any]:
    if method == "tools/call":
        params = {"name": "read_file", "arguments": {"path": "/x"}} | params
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


def encoded(message: object) -> bytes:
    return json.dumps(message).encode()


def taken(message: object, headers: Mapping[str, str] = JSON) -> Message:
    body = message if isinstance(message, bytes) else encoded(message)
    return read(body, {**JSON, **headers}, max_body=MAX_BODY)


def request_id(body: bytes) -> str | int | None:
    found = envelope(body, dict(JSON), max_body=MAX_BODY)
    return None if found is None else found.id


def reason(message: object, headers: Mapping[str, str] = JSON) -> Reason:
    with pytest.raises(RefusedError) as caught:
        taken(message, headers)
    return caught.value.reason


def modern(method: str = "tools/call", name: str | None = "read_file") -> dict[str, str]:
    headers = {"mcp-protocol-version": MODERN, "mcp-method": method}
    return headers if name is None else {**headers, "mcp-name": name}


def sentinel(text: str) -> str:
    return f"=?base64?{b64encode(text.encode()).decode()}?="


# --- what is read -------------------------------------------------------------------------------


def test_a_legacy_tools_call() -> None:
    """A tools/call of the older eras needs no header but the media type, and has its tool."""
    assert taken(rpc()) == Message(MessageKind.REQUEST, "tools/call", 7, "read_file", None)
    assert taken(rpc(), {"mcp-protocol-version": LEGACY}).version == LEGACY


def test_a_modern_tools_call() -> None:
    """A tools/call of 2026-07-28 says in its headers what its body says."""
    expected = Message(MessageKind.REQUEST, "tools/call", 7, "read_file", MODERN)

    assert taken(rpc(_meta=META), modern()) == expected


@pytest.mark.parametrize("answer", [{"result": {}}, {"error": {"code": 1, "message": "no"}}])
def test_a_response(answer: dict[str, object]) -> None:
    """A response has no method, no tool, and no id that an answer of ours could repeat."""
    message = taken({"jsonrpc": "2.0", "id": 1, **answer}, {"mcp-protocol-version": LEGACY})

    assert message == Message(MessageKind.RESPONSE, "", None, None, LEGACY)


# What mcp 2.3.0 (both eras) and 1.30.0 put on the wire, recorded: method, params, headers.
_STAMP = {
    "_meta": {
        VERSION_KEY: MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "mcp", "version": "0.1.0"},
        CAPABILITIES_KEY: {"elicitation": {"form": {}, "url": {}}, "roots": {"listChanged": True}},
    }
}
_SESSION = {"mcp-protocol-version": LEGACY}


@pytest.mark.parametrize(
    ("message", "headers"),
    [
        (rpc("server/discover", **_STAMP), modern("server/discover", None)),
        (rpc("tools/list", **_STAMP), modern("tools/list", None)),
        (rpc(**_STAMP), modern()),
        (rpc(name="größe x", **_STAMP), modern(name="=?base64?Z3LDtsOfZSB4?=")),
        (rpc("prompts/get", name="pr", arguments={}, **_STAMP), modern("prompts/get", "pr")),
        (
            rpc("resources/read", uri="file:///a,b.txt", **_STAMP),
            modern("resources/read", "file:///a,b.txt"),
        ),
        (
            rpc("completion/complete", ref={"type": "ref/prompt", "name": "pr"}, **_STAMP),
            modern("completion/complete", None),
        ),
        (rpc("resources/subscribe", uri="x:/y", **_STAMP), modern("resources/subscribe", None)),
        (rpc("tasks/get", taskId="t1", **_STAMP), modern("tasks/get", None)),
        (rpc("tasks/result", taskId="t1", **_STAMP), modern("tasks/result", None)),
        (rpc("tasks/get", taskId="t1", **_STAMP), modern("tasks/get", "t1")),
        (rpc("acme.example/open", widget="w 1", **_STAMP), modern("acme.example/open", "w 1")),
        (
            {**rpc("subscriptions/listen", notifications={}, **_STAMP), "id": "listen-1"},
            modern("subscriptions/listen", None),
        ),
        (
            {"jsonrpc": "2.0", "method": "notifications/roots/list_changed", "params": _STAMP},
            modern("notifications/roots/list_changed", None),
        ),
        (rpc("initialize", protocolVersion=LEGACY, capabilities={}, clientInfo={}), {}),
        ({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, _SESSION),
        ({"method": "ping", "jsonrpc": "2.0", "id": 0}, _SESSION),
        ({"jsonrpc": "2.0", "method": "notifications/initialized"}, _SESSION),
        (rpc("acme.example/open", widget="w 1"), {**_SESSION, "mcp-name": "w 1"}),
        ({"jsonrpc": "2.0", "id": 1, "result": {"roots": []}}, _SESSION),
    ],
)
def test_what_official_clients_send(message: dict[str, Any], headers: dict[str, str]) -> None:
    """Nothing that the official clients send is refused, in either era."""
    found = taken(message, headers)

    assert found.method == message.get("method", "")
    assert found.version == headers.get("mcp-protocol-version")


def test_the_methods_of_mcp_are_known() -> None:
    """Every method that the official types know is one of ours: none is taken for an extension."""
    theirs = {method for method, _ in {**methods.CLIENT_REQUESTS, **methods.CLIENT_NOTIFICATIONS}}

    assert theirs <= mcp._KNOWN


@pytest.mark.parametrize("client_id", [0, -1, 2**53 - 1, 1 - 2**53, "a", "é", "x" * 256])
def test_ids(client_id: object) -> None:
    """Strings and integers that every parser reads alike are ids."""
    assert taken({**rpc("ping"), "id": client_id}).id == client_id


# --- the HTTP message ---------------------------------------------------------------------------


@pytest.mark.attack("mcp-media-type")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("content-encoding", "gzip", id="gzip"),
        pytest.param("content-encoding", "identity, gzip", id="several-codings"),
        pytest.param("content-encoding", "", id="empty-coding"),
        pytest.param("content-type", "", id="no-type"),
        pytest.param("content-type", "text/plain", id="text"),
        pytest.param("content-type", "application/json-rpc", id="json-rpc"),
        pytest.param("content-type", "application/json,text/plain", id="two-types"),
        pytest.param("content-type", "application/json; charset=utf-16", id="utf-16"),
        pytest.param("content-type", "application/json; charset=utf-8; a=b", id="parameter"),
        pytest.param("content-type", "application/json; charset=utf-8;", id="two-semicolons"),
        pytest.param("content-type", "application/json; charset=utf8, text/plain", id="list"),
        pytest.param("content-type", "application/x-www-form-urlencoded", id="form"),
    ],
)
def test_other_media(name: str, value: str) -> None:
    """A compressed body, or one of another type, is 415: nobody guesses what it says."""
    assert reason(rpc(), {name: value}) is Reason.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize(
    "value",
    [
        "application/json",
        "Application/JSON; Charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/json;",
        "application/json ; ",
        "application/json; charset=utf8",
    ],
)
def test_media(value: str) -> None:
    """JSON in UTF-8 is accepted however it is spelled."""
    assert taken(rpc(), {"content-type": value, "content-encoding": "Identity"}).tool


@pytest.mark.attack("mcp-body-missing")
@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        pytest.param(b"", {"content-length": "118"}, Reason.BODY_MISSING, id="not-buffered"),
        pytest.param(b"", {}, Reason.BODY_MISSING, id="empty"),
        pytest.param(
            encoded(rpc()), {"x-envoy-auth-partial-body": "true"}, Reason.BODY_MISSING, id="partial"
        ),
        pytest.param(
            encoded(rpc()),
            {"x-envoy-auth-partial-body": "false,true"},
            Reason.BODY_MISSING,
            id="partial-twice",
        ),
        pytest.param(encoded(rpc()), {"content-length": "1"}, Reason.MALFORMED_REQUEST, id="short"),
        pytest.param(
            encoded(rpc()),
            {"content-length": f"+{len(encoded(rpc()))}"},
            Reason.MALFORMED_REQUEST,
            id="length-oddly-written",
        ),
        pytest.param(
            encoded(rpc()),
            {"content-length": str(len(encoded(rpc()))), "transfer-encoding": "chunked"},
            Reason.MALFORMED_REQUEST,
            id="length-and-chunks",
        ),
        pytest.param(
            encoded(rpc()),
            {"transfer-encoding": "gzip, chunked"},
            Reason.MALFORMED_REQUEST,
            id="compressed-chunks",
        ),
    ],
)
def test_bodies_that_are_not_whole(body: bytes, headers: dict[str, str], expected: Reason) -> None:
    """A body that is missing, partial or not as long as announced never reads as no tool."""
    assert reason(body, headers) is expected


def test_whole_bodies() -> None:
    """An exact length, or chunks, or what Envoy says of a whole body, changes nothing."""
    length = {"content-length": str(len(encoded(rpc()))), "x-envoy-auth-partial-body": "false"}

    assert taken(rpc(), length) == taken(rpc(), {"transfer-encoding": "Chunked"}) == taken(rpc())


@pytest.mark.attack("mcp-body-too-large")
def test_a_large_body_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten megabytes are 413 before a byte of them is read, and no id is looked for in them."""
    monkeypatch.setattr(mcp, "loads", None)
    body = encoded(rpc(arguments={"text": "x" * 10_000_000}))

    assert reason(body) is Reason.BODY_TOO_LARGE
    assert request_id(body) is None


# --- the JSON document --------------------------------------------------------------------------

_PLAIN = encoded(rpc())


@pytest.mark.attack("mcp-json")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(_PLAIN.replace(b"7", b"NaN"), id="nan"),
        pytest.param(_PLAIN.replace(b'"/x"', b"-Infinity"), id="infinity-in-arguments"),
        pytest.param(_PLAIN + b"x", id="trailing-bytes"),
        pytest.param(_PLAIN + b"\n" + _PLAIN, id="two-documents"),
        pytest.param(json.dumps(rpc()).encode("utf-16"), id="utf-16"),
        pytest.param(b"\xef\xbb\xbf" + _PLAIN, id="bom"),
        pytest.param(_PLAIN.replace(b'"/x"', b"1" * 5_000), id="5000-digits"),
        pytest.param(_PLAIN.replace(b"/x", b"\xff"), id="not-utf-8"),
    ],
)
def test_documents_that_are_not_json(body: bytes) -> None:
    """What is not one strict JSON document is refused, and lends its id to nobody."""
    assert reason(body) is Reason.MALFORMED_JSON
    assert request_id(body) is None


@pytest.mark.attack("mcp-batch")
def test_batches() -> None:
    """An array is refused whole: no call in it is judged by another's rule."""
    assert reason([rpc(name="read_file"), rpc(name="delete_all")]) is Reason.BATCH
    assert reason([]) is Reason.BATCH
    assert request_id(encoded([rpc()])) is None


def _twin(key: str, twin: str, message: dict[str, Any] | None = None) -> bytes:
    """Write a message that has a member once more, under another spelling of its key."""
    text = json.dumps(message or rpc(_meta=META))
    begin = text.index(f'"{key}":')
    return f'{text[:begin]}"{twin}": "delete_all", {text[begin:]}'.encode()


@pytest.mark.attack("mcp-twins")
@pytest.mark.parametrize(
    ("key", "twin"),
    [
        pytest.param("method", "method", id="method-twice"),
        pytest.param("method", "Method", id="method-case"),
        pytest.param("method", "ｍethod", id="method-full-width"),  # noqa: RUF001 - the attack
        pytest.param("id", "ID", id="id-case"),
        pytest.param("jsonrpc", "JSONRPC", id="jsonrpc-case"),
        pytest.param("params", "params", id="params-twice"),
        pytest.param("params", "param\u017f", id="params-long-s"),
        pytest.param("name", "name", id="name-twice"),
        pytest.param("name", "n\\u0061me", id="name-twice-escaped"),
        pytest.param("name", "Name", id="name-case"),
        pytest.param("name", "NAME", id="name-upper"),
        pytest.param("name", "ｎａｍｅ", id="name-full-width"),  # noqa: RUF001 - the attack
        pytest.param("name", "name\\u0000", id="name-nul"),
        pytest.param("name", "name ", id="name-blank"),
        pytest.param("name", "na\\u200dme", id="name-joiner"),
        pytest.param("name", "name\\ud800", id="name-surrogate"),
        pytest.param("arguments", "Arguments", id="arguments-case"),
        pytest.param("_meta", "_Meta", id="meta-case"),
        pytest.param(VERSION_KEY, VERSION_KEY, id="version-twice"),
        pytest.param(VERSION_KEY, VERSION_KEY.upper(), id="version-case"),
        pytest.param(CAPABILITIES_KEY, CAPABILITIES_KEY.lower(), id="capabilities-case"),
        pytest.param("path", "path", id="argument-twice"),
    ],
)
def test_twins(key: str, twin: str) -> None:
    """No member that decides has a twin, in whatever spelling; exact twins are nowhere."""
    assert taken(rpc(_meta=META), modern()).tool == "read_file"
    assert reason(_twin(key, twin), modern()) in {Reason.MALFORMED_JSON, Reason.INVALID_MESSAGE}


@pytest.mark.attack("mcp-look-alikes")
@pytest.mark.parametrize(
    "alike",
    [
        "Arguments", "ARGUMENTS", "_arguments", "argu-ments", "arguments_", "_name", "na-me",
        "Uri", "Ref", "taskID", "task_id", "Notifications", "_Meta", "META", "meta",
        "input_responses", "RequestState", "protocol_version", "Capabilities",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["tools/call", "tasks/result", "tools/list", "acme/run"])
def test_a_member_alike_to_one_that_decides_is_refused_alone(method: str, alike: str) -> None:
    """Where it stands without the one itself, a server could read what was judged to be absent."""
    message = rpc(method, name="pay", **{alike: {}})
    # An extension may call its members as it likes, but for the metadata.
    if method == "acme/run" and alike.lower() != "_meta":
        assert taken(message).method == method
    else:
        assert reason(message) is Reason.MALFORMED_JSON


@pytest.mark.attack("mcp-look-alikes")
@pytest.mark.parametrize("method", ["tools/call", "acme/run"])
@pytest.mark.parametrize("key", [VERSION_KEY, CAPABILITIES_KEY])
def test_metadata_alike_to_what_decides_is_refused_alone(method: str, key: str) -> None:
    """A message of one era is none of the other to somebody else; other metadata is free."""
    for alike in (key.upper(), key.replace("V", "_v").replace("C", "-c"), key + "_"):
        assert reason(rpc(method, name="pay", _meta={alike: "x"})) is Reason.MALFORMED_JSON
    assert taken(rpc(method, name="pay", _meta={"Version": 1, "progress_token": 2})).id == 7


@pytest.mark.parametrize("name", ["tools/call", "prompts/get"])
def test_arguments_may_differ_by_case(name: str) -> None:
    """A tool's own arguments decide nothing here, and `x` and `X` are two of them."""
    message = rpc(name, name="plot", arguments={"x": 1, "X": {"a": 1, "A": 2}})

    assert taken(message).method == name


# --- the JSON-RPC message -----------------------------------------------------------------------


@pytest.mark.attack("mcp-frames")
@pytest.mark.parametrize(
    "message",
    [
        pytest.param("tools/call", id="a-string"),
        pytest.param(None, id="null"),
        pytest.param({}, id="empty"),
        pytest.param({**rpc(), "jsonrpc": "1.0"}, id="version-1"),
        pytest.param({**rpc(), "jsonrpc": 2.0}, id="version-number"),
        pytest.param({**rpc(), "extra": 1}, id="unknown-member"),
        pytest.param({**rpc(), "result": {}}, id="request-and-result"),
        pytest.param({"jsonrpc": "2.0", "id": 1}, id="neither"),
        pytest.param({"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}}, id="result-and-error"),
        pytest.param({"jsonrpc": "2.0", "result": {}}, id="response-without-id"),
        pytest.param({"jsonrpc": "2.0", "id": 1, "result": []}, id="result-a-list"),
        pytest.param({"jsonrpc": "2.0", "id": 1, "error": None}, id="error-null"),
        pytest.param({"jsonrpc": "2.0", "id": None, "result": {}}, id="result-for-nobody"),
        pytest.param({**rpc(), "params": None}, id="params-null-without-the-name"),
        pytest.param({"jsonrpc": "2.0", "id": None, "method": "ping"}, id="request-for-nobody"),
        pytest.param({"jsonrpc": "2.0", "id": [], "error": {}}, id="error-for-a-list"),
        pytest.param({"jsonrpc": "2.0", "error": {}, "method": "ping"}, id="error-and-method"),
        pytest.param({**rpc("ping"), "params": ["a"]}, id="params-a-list"),
        pytest.param({**rpc("ping"), "params": "a"}, id="params-a-string"),
        pytest.param(rpc(_meta=None), id="meta-null"),
        pytest.param(rpc(_meta=[]), id="meta-a-list"),
        pytest.param({**rpc("notifications/cancelled")}, id="notification-with-id"),
        pytest.param({"jsonrpc": "2.0", "method": "tools/list"}, id="request-without-id"),
    ],
)
def test_frames(message: object) -> None:
    """What has not exactly the members of one JSON-RPC message of MCP is refused."""
    assert reason(message) is Reason.INVALID_MESSAGE


@pytest.mark.attack("mcp-ids")
@pytest.mark.parametrize(
    "written",
    [
        "1.0", "1e2", "null", "true", "[1]", '{"id":1}', str(2**53), str(2**53 + 1), str(-(2**53)),
        '""', f'"{"x" * 257}"', '"a\\n"', '"a\\u0000"', '"\\ud800"',
    ],
)  # fmt: skip
def test_odd_ids(written: str) -> None:
    """An id that parsers read differently, or that an answer could not repeat, is refused."""
    body = encoded(rpc()).replace(b": 7", f": {written}".encode())

    assert reason(body) is Reason.INVALID_MESSAGE
    assert request_id(body) is None


@pytest.mark.attack("mcp-method-spelling")
@pytest.mark.parametrize(
    "method",
    [
        "tools/call ", " tools/call", "Tools/Call", "TOOLS/CALL", "tools/call\0", "tools/call\n",
        "tool\u017f/call", "tools/ca\uff4cl", "tools//call", "tools/call/", "/tools/call",
        "tools/./call", "tools/x/../call", "tools\\call", "tools%2fcall", "tools\u2215call",
        "tools/call\u200b", "logging/setlevel", "Notifications/Initialized", "", "a" * 129,
    ],
)  # fmt: skip
def test_methods_that_are_almost_known(method: str) -> None:
    """A method that some server could take for one of MCP's is refused, never let through."""
    params = {"name": "delete_all"}

    assert reason({**rpc(), "method": method, "params": params}) is Reason.INVALID_MESSAGE


@pytest.mark.parametrize("method", [None, 1, ["tools/call"], {"a": 1}, True])
def test_methods_that_are_no_strings(method: object) -> None:
    """A method is a string."""
    assert reason({**rpc(), "method": method}) is Reason.INVALID_MESSAGE


@pytest.mark.attack("mcp-tool-name")
@pytest.mark.parametrize(
    "params",
    [
        pytest.param({}, id="missing"),
        pytest.param({"Name": "read_file"}, id="other-case"),
        *(
            pytest.param({"name": name}, id=label)
            for label, name in {
                "empty": "", "null": None, "number": 1, "list": ["read_file"], "true": True,
                "object": {"name": "read_file"}, "leading-blank": " read_file",
                "trailing-blank": "read_file ", "newline": "read_file\n", "nul": "read_file\0",
                "c1-control": "read\x85file", "surrogate": "read\ud800", "bidi": "read\u202efile",
                "zero-width": "read\u200bfile", "no-break-space": "read\xa0file", "long": "x" * 257,
            }.items()
        ),
    ],
)  # fmt: skip
def test_tools_without_a_name(params: dict[str, object]) -> None:
    """A tools/call names its tool in one readable string, or it is refused."""
    assert reason({**rpc(), "params": params}) is Reason.INVALID_MESSAGE


@pytest.mark.attack("mcp-tool-name")
def test_a_tools_call_without_params() -> None:
    """No params is no tool's name."""
    assert reason({"jsonrpc": "2.0", "id": 1, "method": "tools/call"}) is Reason.INVALID_MESSAGE


@pytest.mark.attack("mcp-notifications")
@pytest.mark.parametrize("version", [None, "2025-03-26", LEGACY, MODERN])
def test_a_tools_call_without_id(version: str | None) -> None:
    """A notification never calls a tool, in any era."""
    headers = {} if version is None else {"mcp-protocol-version": version}
    message = rpc(name="delete_all")
    del message["id"]
    if version == MODERN:
        message["params"]["_meta"] = META

    assert reason(message, headers) is Reason.INVALID_MESSAGE


@pytest.mark.attack("mcp-notifications")
def test_a_notification_has_no_name() -> None:
    """Neither a notification nor a response carries the name of a thing in its headers."""
    notification = {"jsonrpc": "2.0", "method": "acme/moved", "params": {"name": "delete_all"}}
    response = {"jsonrpc": "2.0", "id": 1, "result": {"name": "delete_all"}}

    for message in (notification, response):
        assert taken(message).tool is None
        assert reason(message, {"mcp-name": "delete_all"}) is Reason.HEADER_MISMATCH
        assert reason(message, {"mcp-method": "tools/call"}) is Reason.HEADER_MISMATCH


@pytest.mark.attack("mcp-notifications")
def test_no_responses_in_the_modern_era() -> None:
    """In 2026-07-28 servers ask nothing of clients, so there is nothing to respond to."""
    message = {"jsonrpc": "2.0", "id": 1, "result": {}}

    assert reason(message, {"mcp-protocol-version": MODERN}) is Reason.INVALID_MESSAGE


@pytest.mark.attack("mcp-side-doors")
@pytest.mark.parametrize(("method", "member"), [("prompts/get", "name"), ("resources/read", "uri")])
def test_named_things(method: str, member: str) -> None:
    """A prompt and a resource are named by one readable string, compared as it stands."""
    for value in (None, "", 1, ["x"], "a\0b", "file:///a\r\n", " x", "\ud800", "x" * 9_000):
        assert reason(rpc(method, **{member: value})) is Reason.INVALID_MESSAGE
    sent = modern(method, "file:///a/b")
    for value in ("file:///a/../a/b", "file:///a/%62", "FILE:///a/b", "file:///a/b/"):
        assert reason(rpc(method, **{member: value, "_meta": META}), sent) is Reason.HEADER_MISMATCH


# --- the headers --------------------------------------------------------------------------------


@pytest.mark.attack("mcp-mirror-headers")
@pytest.mark.parametrize(
    ("message", "headers"),
    [
        pytest.param(rpc(_meta=META), {"mcp-protocol-version": MODERN}, id="both-missing"),
        pytest.param(rpc(_meta=META), modern(name=None), id="name-missing"),
        pytest.param(
            rpc(_meta=META),
            {"mcp-protocol-version": MODERN, "mcp-name": "read_file"},
            id="method-missing",
        ),
        pytest.param(rpc(_meta=META), modern("tools/list"), id="other-method"),
        pytest.param(rpc(_meta=META), modern("Tools/Call"), id="method-case"),
        pytest.param(rpc(_meta=META), modern("tools/call,tools/call"), id="method-twice"),
        pytest.param(rpc(_meta=META), modern(name="delete_all"), id="other-name"),
        pytest.param(
            rpc(title="delete_all", _meta=META), modern(name="delete_all"), id="another-member"
        ),
        pytest.param(rpc(_meta=META), modern(name="Read_File"), id="name-case"),
        pytest.param(rpc(_meta=META), modern(name="read_file,read_file"), id="name-twice"),
        pytest.param(rpc(_meta=META), modern(name=""), id="name-empty"),
        pytest.param(rpc(_meta=META), modern(name="=?base64??="), id="name-empty-in-base64"),
        pytest.param(rpc(_meta=META), modern(name=sentinel("delete_all")), id="other-in-base64"),
        pytest.param(
            rpc(name="a?", _meta=META), modern(name="=?base64?YT9=?="), id="spare-bits"
        ),
        pytest.param(
            rpc(name="ab", _meta=META), modern(name="=?base64?YWI?="), id="no-padding"
        ),
        pytest.param(rpc(_meta=META), modern(name="=?base64?cmVhZF9maWxl *?="), id="not-base64"),
        pytest.param(rpc(_meta=META), modern(name="=?base64?/w==?="), id="not-utf-8"),
        pytest.param(
            rpc(_meta=META),
            modern(name=sentinel("read_file").replace("base64", "BASE64")),
            id="sentinel-case",
        ),
        pytest.param(
            rpc(name=sentinel("read_file"), _meta=META),
            modern(name=sentinel("read_file")),
            id="a-name-that-looks-encoded",
        ),
        pytest.param(rpc(name="é", _meta=META), modern(name="é"), id="not-ascii"),
        pytest.param(rpc(name="a", _meta=META), modern(name="a\t"), id="control"),
        pytest.param(
            rpc("tools/list", _meta=META), modern("tools/list"), id="name-on-a-nameless-method"
        ),
        pytest.param(
            rpc("ping", name="read_file", _meta=META), modern("ping"), id="name-of-no-meaning"
        ),
        pytest.param(
            rpc("tasks/get", taskId="t1", _meta=META), modern("tasks/get", "t2"), id="other-task"
        ),
        pytest.param(
            rpc("acme/open", widget="w1", _meta=META), modern("acme/open", "w2"), id="extension"
        ),
        pytest.param(
            rpc("acme/open", widget="", _meta=META),
            modern("acme/open", "=?base64??="),
            id="empty-like-the-body",
        ),
        pytest.param(
            rpc("acme/open", widget=None, _meta=META),
            modern("acme/open", "=?base64?%?="),
            id="malformed-beside-null",
        ),
        pytest.param(
            rpc("tasks/get", _meta=META),
            modern("tasks/get", "=?base64?/w==?="),
            id="malformed-beside-nothing",
        ),
        pytest.param(rpc(), {"mcp-method": "tools/list"}, id="legacy-method"),
        pytest.param(rpc(), {"mcp-name": "delete_all"}, id="legacy-name"),
        pytest.param(rpc("tools/list"), {"mcp-name": "read_file"}, id="legacy-nameless"),
    ],
)  # fmt: skip
def test_headers_unlike_the_body(message: dict[str, Any], headers: dict[str, str]) -> None:
    """A header that says something else than the body, or is missing where required, is -32020."""
    assert reason(message, headers) is Reason.HEADER_MISMATCH
    assert Reason.HEADER_MISMATCH.row.code == -32020


def test_headers_like_the_body() -> None:
    """Headers are compared after decoding, and legacy messages may have them, too."""
    assert taken(rpc(_meta=META), modern(name=sentinel("read_file"))).tool == "read_file"
    looks_encoded = sentinel("read_file")
    assert taken(rpc(name=looks_encoded, _meta=META), modern(name=sentinel(looks_encoded))).tool
    assert taken(rpc(), {"mcp-method": "tools/call", "mcp-name": "read_file"}).tool == "read_file"


@pytest.mark.attack("mcp-versions")
@pytest.mark.parametrize(
    ("header", "claimed", "expected"),
    [
        pytest.param(MODERN, None, Reason.VERSION_MISSING, id="body-says-nothing"),
        pytest.param(MODERN, LEGACY, Reason.HEADER_MISMATCH, id="body-says-older"),
        pytest.param(LEGACY, MODERN, Reason.HEADER_MISMATCH, id="header-says-older"),
        pytest.param("2025-03-26", MODERN, Reason.HEADER_MISMATCH, id="header-says-oldest"),
        pytest.param(None, MODERN, Reason.HEADER_MISMATCH, id="no-header"),
        pytest.param(None, LEGACY, Reason.HEADER_MISMATCH, id="no-header-older"),
        pytest.param(f"{MODERN},{MODERN}", MODERN, Reason.HEADER_MISMATCH, id="header-twice"),
        pytest.param(f"{LEGACY},{MODERN}", MODERN, Reason.HEADER_MISMATCH, id="two-headers"),
        pytest.param("2099-01-01", "2099-01-01", Reason.UNSUPPORTED_VERSION, id="unknown"),
        pytest.param("2024-10-07", None, Reason.UNSUPPORTED_VERSION, id="too-old"),
        pytest.param("", None, Reason.UNSUPPORTED_VERSION, id="empty"),
        pytest.param("draft", "draft", Reason.UNSUPPORTED_VERSION, id="draft"),
    ],
)
def test_versions(header: str | None, claimed: str | None, expected: Reason) -> None:
    """The era is the header's, the body agrees with it, and an unknown one is refused."""
    headers = {"mcp-method": "tools/call", "mcp-name": "read_file"}
    if header is not None:
        headers["mcp-protocol-version"] = header
    meta: dict[str, object] = {CAPABILITIES_KEY: {}}
    if claimed is not None:
        meta[VERSION_KEY] = claimed

    assert reason(rpc(_meta=meta), headers) is expected


@pytest.mark.parametrize("claimed", [None, 1, {}, [MODERN]])
def test_a_version_that_is_no_string(claimed: object) -> None:
    """The member is evidence of the modern era whatever it says: null is not the same as absent."""
    assert reason(rpc(_meta={VERSION_KEY: claimed})) is Reason.HEADER_MISMATCH
    assert reason(rpc(_meta={VERSION_KEY: claimed}), modern()) is Reason.HEADER_MISMATCH


# --- what the client can do ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        pytest.param({"elicitation": {"form": {}, "url": {}}}, True, id="both"),
        pytest.param({"elicitation": {"url": {}}}, True, id="url"),
        pytest.param({"elicitation": {"form": {}}}, False, id="form"),
        pytest.param({"elicitation": {}}, False, id="empty-means-form"),
        pytest.param({"elicitation": {"url": None}}, False, id="null"),
        pytest.param({"elicitation": {"url": True}}, False, id="true"),
        pytest.param({"elicitation": {"URL": {}}}, False, id="case"),
        pytest.param({"elicitation": ["url"]}, False, id="list"),
        pytest.param({"url": {}}, False, id="elsewhere"),
        pytest.param({}, False, id="none"),
        pytest.param([], False, id="no-object"),
    ],
)
def test_url_elicitation(capabilities: object, expected: bool) -> None:
    """It counts where the era puts it: in each `_meta`, or once in `initialize` of 2025-11-25."""
    stamped = rpc(_meta={VERSION_KEY: MODERN, CAPABILITIES_KEY: capabilities})
    opening = rpc("initialize", protocolVersion=LEGACY, capabilities=capabilities)
    older = rpc("initialize", protocolVersion="2025-06-18", capabilities=capabilities)
    legacy = rpc(_meta={CAPABILITIES_KEY: capabilities}, capabilities=capabilities)

    assert taken(stamped, modern()).elicits_url is expected
    assert taken(opening).elicits_url is expected
    assert not taken(older).elicits_url
    assert not taken(legacy).elicits_url


# --- the id of a refusal ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(rpc(), 7, id="accepted"),
        pytest.param({**rpc(), "id": "a"}, "a", id="string"),
        pytest.param({**rpc(), "method": "Tools/Call"}, 7, id="refused-for-its-method"),
        pytest.param({**rpc(), "params": {}}, 7, id="refused-for-its-params"),
        pytest.param({"jsonrpc": "2.0", "method": "notifications/initialized"}, None, id="none"),
        pytest.param({"jsonrpc": "2.0", "id": 7, "result": {}}, None, id="response"),
        pytest.param({**rpc(), "extra": 1}, None, id="not-a-request"),
        pytest.param({**rpc(), "jsonrpc": "1.0"}, None, id="not-json-rpc"),
        pytest.param("x", None, id="not-an-object"),
    ],
)
def test_the_id_of_a_refusal(message: object, expected: object) -> None:
    """A refusal repeats the id of what is a request, whatever else is wrong with it."""
    assert request_id(encoded(message)) == expected


@pytest.mark.attack("mcp-secrets")
@pytest.mark.parametrize(
    "body",
    [
        encoded(rpc(name=["hunter2"])),
        encoded(rpc("hunter2 ")),
        encoded(rpc())[:-1] + b',"hunter2":1,"hunter2":1}',
        b'{"hunter2',
        b"hunter2",
    ],
)
def test_refusals_repeat_nothing(body: bytes) -> None:
    """The words of a refusal hold nothing that the caller wrote, for they go into the log."""
    with pytest.raises(RefusedError) as caught:
        read(body, {**JSON, "mcp-name": "hunter2"}, max_body=MAX_BODY)

    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in caught.value.detail


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, False),
        ({"inputResponses": {}}, True),
        ({"inputResponses": {"x": {"action": "accept"}}}, True),
        ({"requestState": "opaque"}, True),
        ({"requestState": None}, True),
        ({"arguments": {"requestState": "a tool's own"}}, False),
    ],
)
def test_a_request_that_goes_on_from_an_earlier_result(
    more: dict[str, object], expected: bool
) -> None:
    """2026-07-28: answers to what was asked, or the state that came with the question."""
    assert taken(rpc(_meta=META, **more), modern()).is_continuation is expected


def test_what_an_answer_repeats() -> None:
    """Of a message, or of its bytes alone: its id, whether it calls a tool, and the era."""
    headers = {**JSON, **modern()}
    expected = Envelope(7, "tools/call", modern=True)

    assert taken(rpc(_meta=META), modern()).envelope == expected
    assert envelope(encoded(rpc()), headers, max_body=MAX_BODY) == expected
    assert expected.calls_tool
    assert envelope(encoded(rpc()), headers, max_body=8) is None
    assert envelope(encoded({**rpc(), "method": 1}), {}, max_body=MAX_BODY) == Envelope(7, "")
    assert taken({"jsonrpc": "2.0", "method": "notifications/initialized"}).envelope is None


def test_the_oldest_version_is_of_the_older_era() -> None:
    """2024-11-05 is read like what came after it, by its header and without one."""
    opening = rpc("initialize", protocolVersion="2024-11-05", capabilities={}, clientInfo={})

    assert taken(rpc(), {"mcp-protocol-version": "2024-11-05"}).version == "2024-11-05"
    assert taken(opening).method == "initialize"


@pytest.mark.parametrize(
    ("message", "headers", "expected"),
    [
        (rpc(), {"mcp-protocol-version": "2099-01-01"}, "2099-01-01"),
        (rpc(), {"mcp-protocol-version": "x" * 100}, "x" * 64),
        (rpc("initialize", protocolVersion="2025-11-25"), {}, "2025-11-25"),
        (rpc("initialize", protocolVersion=7), {}, ""),
        ({**rpc("initialize"), "params": []}, {}, ""),
        (rpc(protocolVersion="2025-11-25"), {}, ""),
    ],
)
def test_which_version_was_asked_for(
    message: dict[str, Any], headers: dict[str, str], expected: str
) -> None:
    """Of the header, or what `initialize` proposes; never more than fits an answer."""
    found = envelope(encoded(message), headers, max_body=MAX_BODY)

    assert found is not None
    assert found.version == expected


@pytest.mark.attack("mcp-json-work")
def test_what_costs_too_much_has_a_reason_of_its_own() -> None:
    """Depth and work are told apart from broken JSON, and follow the settings."""
    deep = encoded(rpc()).replace(b'"/x"', b"[" * 100 + b"]" * 100)
    large = encoded(rpc()).replace(b'"/x"', b"[" + b"{}," * 300_000 + b"1]")

    assert reason(deep) is Reason.JSON_TOO_DEEP
    assert reason(large) is Reason.JSON_TOO_COSTLY
    assert reason(encoded(rpc()).replace(b'"/x"', b"[" * 10_000)) is Reason.JSON_TOO_DEEP
    bounds = JsonBounds(10**9, 200)
    for body in (deep, large):
        assert read(body, dict(JSON), max_body=MAX_BODY, bounds=bounds).tool == "read_file"


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": None},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": None},
        {"jsonrpc": "2.0", "method": "notifications/initialized", "params": None},
    ],
)
def test_params_of_null_are_none(message: dict[str, Any]) -> None:
    """The official types read it as absent, and find the same method and id."""
    found = taken(message)
    theirs = jsonrpc_message_adapter.validate_json(encoded(message))

    assert theirs.params is None  # type: ignore[union-attr]  # a request or notification
    assert getattr(theirs, "method", None) == found.method
    assert getattr(theirs, "id", None) == found.id
    del message["params"]
    assert taken(message) == found


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "x"}},
        {"jsonrpc": "2.0", "error": {"code": -32700, "message": "x"}},
    ],
)
def test_an_error_to_nobody_is_a_response(message: dict[str, Any]) -> None:
    """It calls nothing, here and to the official types, and nothing answers it."""
    found = taken(message, {"mcp-protocol-version": LEGACY})

    assert (found.kind, found.method, found.tool, found.id) == (
        MessageKind.RESPONSE,
        "",
        None,
        None,
    )
    assert found.envelope is None
    try:
        theirs = jsonrpc_message_adapter.validate_json(encoded(message))
    except ValidationError:
        return  # without the member they are stricter
    assert isinstance(theirs, JSONRPCError)


@pytest.mark.parametrize(
    ("params", "arguments"),
    [
        ({"name": "t"}, {}),
        ({"name": "t", "arguments": {"a": None}}, {"a": None}),
        ({"name": "t", "arguments": None}, None),
        ({"name": "t", "arguments": []}, None),
        ({"name": "t", "arguments": "{}"}, None),
    ],
)
def test_arguments_are_an_object_or_none(params: dict[str, object], arguments: object) -> None:
    """Missing ones are empty; what servers read differently, null among it, is no object.

    They are neither shown nor compared.
    """
    found = taken(rpc() | {"params": params})
    assert found.arguments == arguments
    assert "arguments" not in repr(found)
