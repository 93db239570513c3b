"""CheckRequests of other data planes (tests/fixtures/data_planes), decided by the real check."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from envoy_data_plane.envoy.service.auth.v3 import CheckRequest
from ruamel.yaml import YAML

from authz.config.compile import compile_policy
from authz.config.load import read
from authz.config.notes import notes
from authz.core.detail import Detail
from authz.core.policy import Rule
from authz.core.reason import Reason
from authz.envoy import codec
from authz.envoy.data_planes import ENVOY, FORMATS
from authz.server.check import Snapshot
from tests.server.test_check import CheckWorld, good
from tests.support.values import policy, server
from tests.support.wire import WireAnswer, answer, reason_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "fixtures" / "data_planes"
SHAPES: dict[str, dict[str, dict[str, object]]] = {
    plane: json.loads((FOLDER / f"{plane}.json").read_text())
    for plane in ("envoy_gateway", "agentgateway")
}
AGENTGATEWAY = FORMATS["agentgateway"]
PLACES = MappingProxyType({("mcp.example.com", path): "files" for path in ("/files", "/unnamed")})
PAGE = (ROOT / "docs" / "data-planes.md").read_text("utf-8")


def shape(plane: str, name: str) -> bytes:
    return bytes(CheckRequest.from_dict(SHAPES[plane][name]))


def world(plane: str, *, by_url: bool = False) -> CheckWorld:
    """The check with a server whose tools are named."""
    made = good()
    snapshot: Snapshot = made.check.snapshot
    rules = policy(server(tools={"read_*": Rule()}), places=PLACES if by_url else None)
    made.check.snapshot = replace(snapshot, policy=rules, plane=FORMATS[plane])
    return made


def asked(
    plane: str, name: str, *, by_url: bool = False
) -> tuple[WireAnswer, Mapping[str, object]]:
    made = world(plane, by_url=by_url)
    found = answer(asyncio.run(made.check(shape(plane, name))))
    return found, made.lines()[0]


@pytest.mark.parametrize("plane", list(SHAPES))
def test_a_call_is_judged_by_its_tool(plane: str) -> None:
    """The server of the route and the tool of the body are read, and other tools refused."""
    allowed, line = asked(plane, "call")

    assert allowed.allowed
    assert "authorization" in allowed.removed
    assert (line["server"], line["tool"]) == ("files", "read_note")
    raw = shape(plane, "call").replace(b"read_note", b"kill_note")
    assert reason_of(answer(asyncio.run(world(plane).check(raw)))) == Reason.TOOL_NOT_ALLOWED.label


def test_a_call_of_the_official_client_is_judged() -> None:
    """As Envoy Gateway passed it on: the mirror headers of 2026-07-28 are the body's."""
    allowed, line = asked("envoy_gateway", "official client")

    assert allowed.allowed
    assert (line["mcp_method"], line["tool"]) == ("tools/call", "read_note")


@pytest.mark.attack("partial-body")
@pytest.mark.parametrize(
    ("plane", "name", "reason", "detail"),
    [
        ("envoy_gateway", "call by url", Reason.UNKNOWN_SERVER, Detail.NO_SERVER_NAMED),
        ("envoy_gateway", "not utf-8", Reason.MALFORMED_JSON, Detail.NOT_UTF8),
        ("envoy_gateway", "web socket", Reason.MALFORMED_REQUEST, Detail.UPGRADE),
        ("envoy_gateway", "text: call", Reason.BODY_MISSING, Detail.BODY_NOT_SENT),
        ("envoy_gateway", "text: not utf-8", Reason.BODY_MISSING, Detail.BODY_NOT_SENT),
        ("agentgateway", "call by url", Reason.UNKNOWN_SERVER, Detail.NO_SERVER_NAMED),
        ("agentgateway", "part of a body", Reason.BODY_TOO_LARGE, Detail.PARTIAL_BODY),
        ("agentgateway", "no body", Reason.BODY_MISSING, Detail.BODY_NOT_SENT),
        ("agentgateway", "text", Reason.BODY_MISSING, Detail.BODY_NOT_SENT),
        ("agentgateway", "web socket", Reason.MALFORMED_REQUEST, Detail.UPGRADE),
        ("agentgateway", "two tokens", Reason.TOKEN_MALFORMED, Detail.NOT_ONE_BEARER_TOKEN),
    ],
)
def test_what_a_plane_cannot_vouch_for_is_refused(
    plane: str, name: str, reason: Reason, detail: Detail
) -> None:
    """A missing, partial or rewritten body, an upgrade and a route without a server are refused."""
    refused, line = asked(plane, name)

    assert reason_of(refused) == reason.label
    assert (line["reason"], line["detail"]) == (reason.label, detail)


@pytest.mark.parametrize(("plane", "name"), [(each, "call by url") for each in SHAPES])
def test_by_url_finds_the_server(plane: str, name: str) -> None:
    """Where that is configured, host and path name the server of a route that names none."""
    allowed, line = asked(plane, name, by_url=True)

    assert allowed.allowed
    assert line["server"] == "files"


def test_a_second_host_finds_no_server() -> None:
    """As agentgateway leaves Host beside `:authority` in HTTP/2, neither of them is believed."""
    refused, _ = asked("agentgateway", "second host", by_url=True)

    assert reason_of(refused) == Reason.UNKNOWN_SERVER.label


def test_a_stream_is_allowed() -> None:
    """A GET without a body is a stream, as behind our own Envoy."""
    for plane in SHAPES:
        assert asked(plane, "stream")[0].allowed


@pytest.mark.attack("forged-address")
def test_a_clients_own_address_header_is_not_believed() -> None:
    """Envoy overwrites it; agentgateway passes it on, and is not asked for it."""
    forged = shape("envoy_gateway", "forged address")
    assert codec.decode(forged).address == "127.0.0.1"
    forged = shape("agentgateway", "forged address")
    assert codec.decode(forged, AGENTGATEWAY).address == "198.51.100.7"
    # The attack works where the plane is misnamed, which the page says.
    assert codec.decode(forged, ENVOY).address == "203.0.113.9"


@pytest.mark.attack("spoofed-identity")
@pytest.mark.parametrize("plane", list(SHAPES))
def test_a_clients_own_identity_is_replaced(plane: str) -> None:
    """`x-authz-subject` of the client is overwritten."""
    allowed, _ = asked(plane, "forged address")

    assert allowed.headers["x-authz-subject"] != "somebody"


@pytest.mark.attack("partial-body")
@pytest.mark.parametrize("size", [-1, 0, 1, 104, 106, 2**40])
def test_a_size_that_is_not_the_bodys_is_a_part(size: int) -> None:
    """As agentgateway sends it: a part of a body is marked by its size alone."""
    sent = CheckRequest.from_dict(SHAPES["agentgateway"]["call"])
    assert sent.attributes is not None
    assert sent.attributes.request is not None
    assert sent.attributes.request.http is not None
    sent.attributes.request.http.size = size
    refused = answer(asyncio.run(world("agentgateway").check(bytes(sent))))

    assert reason_of(refused) == Reason.BODY_TOO_LARGE.label


# --- the page -----------------------------------------------------------------------------------


def documents(first: str) -> Iterator[Any]:
    text = re.findall(rf"```yaml\n# {first}\n(.*?)```", PAGE, re.DOTALL)[0]
    yield from YAML(typ="safe").load_all(text)


def test_the_page_configures_envoy_gateway_as_it_was_tried() -> None:
    """Its SecurityPolicy and patch ask for what the running Envoy of the live test has."""
    kinds = {str(each["kind"]): each["spec"] for each in documents("envoy-gateway")}
    ext_auth = kinds["SecurityPolicy"]["extAuth"]
    patches = kinds["EnvoyPatchPolicy"]["jsonPatches"]
    rendered = (FOLDER / "envoy_gateway.yaml").read_text()

    assert ext_auth["failOpen"] is False
    assert ext_auth["contextExtensions"] == [{"name": "server", "type": "Value", "value": "files"}]
    assert "check_settings: {context_extensions: {server: files}}" in rendered
    assert f"status_on_error: {{code: {ext_auth['statusOnError']}}}" in rendered
    assert f"timeout: {ext_auth['timeout']}" in rendered
    for patch in patches:
        name, value = patch["operation"]["path"], patch["operation"]["value"]
        assert f"{name}: {str(value).lower()}" in rendered


def test_the_page_configures_agentgateway() -> None:
    """Every extAuthz of it fails closed, sends whole bodies as bytes, and names the server."""
    (document,) = documents("agentgateway")
    (bind,) = document["binds"]
    (route,) = bind["listeners"][0]["routes"]
    ext_authz = route["policies"]["extAuthz"]

    assert ext_authz["failureMode"] == {"denyWithStatus": 503}
    assert ext_authz["includeRequestBody"] == {"maxRequestBytes": 1 << 20, "packAsBytes": True}
    assert ext_authz["protocol"] == {"grpc": {"context": {"server": "files"}}}
    assert "cache" not in ext_authz


SMALLEST = """\
issuer: {url: https://auth.example.com, login: direct}
gateway: {url: https://mcp.example.com, tls: {certificate: /c, key: /k}}
servers:
  files: {upstream: 'http://files:8000/mcp'}
  notes: {upstream: 'http://notes:8000/mcp', resource: https://mcp.example.com/a/notes}
"""


def test_the_urls_of_servers_are_the_places() -> None:
    """`match: by_url` compiles to each server's URL with and without port and last slash."""
    text = f"{SMALLEST}service: {{data_plane: envoy_gateway, match: by_url}}\n"
    places = compile_policy(read(text, "authz.yaml", {}, secrets=False).config).places

    assert places == {
        (host, path): name
        for host in ("mcp.example.com", "mcp.example.com:443")
        for name, own in (("files", "/files"), ("notes", "/a/notes"))
        for path in (own, f"{own}/")
    }
    assert compile_policy(read(SMALLEST, "authz.yaml", {}, secrets=False).config).places is None


@pytest.mark.parametrize("plane", ["envoy", "envoy_gateway", "agentgateway"])
def test_check_config_says_what_is_lost(plane: str) -> None:
    """Nothing of our own Envoy; of each other plane what its row of the page says."""
    text = f"{SMALLEST}service: {{data_plane: {plane}}}\n"
    said = [each for each in notes(read(text, "a", {}, secrets=False).config) if plane in each]

    assert bool(said) == (plane != "envoy")
    assert any("stream" in each for each in said) == (plane == "agentgateway")
