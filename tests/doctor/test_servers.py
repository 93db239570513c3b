"""MCP servers that a new user has written down wrongly, or that are wrong: one fault each.

Every fault is made by a real server on a loopback port; the cause is to be found from what the
doctor says alone.
"""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations

from authz.config.load import read
from authz.core.catalogue import Sighting, read_definition
from authz.doctor import servers
from authz.doctor.finding import Finding, Severity
from authz.server.tool_rules import catalogue_of_list
from authz.setup.certificates import write_certificates
from authz_demo.samples import app
from authz_demo.serving import ANYWHERE, Address, ServingCertificate, serve
from tests.doctor import kit
from tests.doctor.kit import answering, diagnoses, problems, the
from tests.support.examples import examples
from tests.support.ports import held_port

EVIL = "evil\x1b[2J\u202e\n"


def delete_file(path: str) -> str:
    """Deletes."""
    return path


def read_file(path: str, start: int = 0) -> str:
    """Reads."""
    return path + str(start)


def files(*allowed: str) -> Any:
    """An official MCP server at /mcp, which takes these Hosts, or any."""
    server: MCPServer = MCPServer("files", log_level="CRITICAL")
    server.add_tool(read_file, annotations=ToolAnnotations(read_only_hint=True))
    server.add_tool(delete_file)
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=bool(allowed), allowed_hosts=list(allowed)
    )
    return server.streamable_http_app(streamable_http_path="/mcp", transport_security=security)


@dataclass(frozen=True)
class Written:
    """Say what stands in authz.yaml."""

    path: str = "/mcp"
    scheme: str = "http"
    rest: str = ""


def examine(
    app: Any,
    written: Written = Written(),
    tls: ServingCertificate | None = None,
    **options: Any,
) -> list[Finding]:
    """Serve an application, and let the doctor look at it."""

    async def both() -> list[Finding]:
        async with serve(app, ANYWHERE, tls) as port:
            url = f"{written.scheme}://127.0.0.1:{port}{written.path}"
            return await look(url, written.rest, **options)

    return asyncio.run(both())


async def look(url: str, rest: str = "", **options: Any) -> list[Finding]:
    known = kit.settings(servers=f"  files: {{upstream: '{url}'{rest}}}\n")
    return await servers.examine(known, **options)


def test_a_sound_server_has_no_findings_but_good_ones() -> None:
    """Both eras; the number of its tools is said."""
    for versions in ("", ", versions: ['2026-07-28']", ", versions: ['2025-11-25']"):
        found = examine(files(), Written(rest=versions))
        assert diagnoses(found) == ["lists"]
        assert "2 tools" in found[0].message


RULES = ", tools: {'read_*': {}, delet_file: {scopes: [x]}, 'send_*': {}}"


def test_a_typo_in_a_tools_name_is_named_with_the_nearest_names() -> None:
    """An exact name is a problem, a pattern that matches nothing a warning."""
    found = examine(files(), Written(rest=RULES))
    typo = the(found, "unknown_tool")
    assert typo.severity is Severity.PROBLEM
    assert '"delet_file"' in typo.message
    assert 'did you mean "delete_file"?' in typo.fix
    assert '"send_*"' in the(found, "rule_without_tool").message
    assert '"delete_file"' in the(found, "not_offered").message


@pytest.mark.parametrize(
    ("when", "near"),
    [("/pth", '"path"'), ("/elsewhere", ""), ("/path", None), ("/path/0", None)],
)
def test_a_condition_on_an_argument_that_no_tool_has_is_named(when: str, near: str | None) -> None:
    """With the member of the schema that was meant; what may be there is not complained of."""
    rest = f", tools: {{'*': {{when: [{{argument: {when}, present: true}}]}}}}"
    found = [each for each in examine(files(), Written(rest=rest)) if "argument" in each.diagnosis]
    if near is None:
        assert found == []
        return
    said = "\n".join(each.message for each in found)
    assert '"read_file"' in said
    assert '"delete_file"' in said
    wanted = Severity.PROBLEM if near else Severity.WARNING
    assert {each.severity for each in found} == {wanted}
    assert all(near in each.fix for each in found)


PAGE = (200, b"<!doctype html><title>Welcome</title>")
TLS_WANTED = (400, b"Client sent an HTTP request to an HTTPS server.\n")


@pytest.mark.parametrize(
    ("app", "path", "diagnosis", "told"),
    [
        pytest.param(files(), "/mpc", "not_found", "/mcp", id="another path answers"),
        pytest.param(files(), "", "not_found", "/mcp", id="no path"),
        pytest.param(answering((404, b"")), "/mcp", "not_found", "the path", id="404"),
        pytest.param(answering((405, b"")), "/mcp", "no_post", "the path", id="405"),
        pytest.param(answering((200, b"")), "/mcp", "no_mcp", "the path", id="200 and nothing"),
        pytest.param(files("files:8000"), "/mcp", "host_check", "allowed_hosts", id="421"),
        pytest.param(
            answering((403, b"")), "/mcp", "forbidden", "its callers", id="403 whatever the Host"
        ),
        pytest.param(answering((502, b"")), "/mcp", "bad_gateway", "proxy", id="502"),
        pytest.param(answering((503, b"")), "/mcp", "not_ready", "log", id="503"),
        pytest.param(answering((418, b"")), "/mcp", "status", "log", id="another status"),
        pytest.param(answering((401, b"")), "/mcp", "own_login", "identity: signed", id="401"),
        pytest.param(
            answering(PAGE, **{"content-type": "text/html; charset=utf-8"}),
            "/mcp",
            "html",
            "the path",
            id="a page",
        ),
        pytest.param(
            answering((200, b"x" * 300_000)), "/mcp", "too_large", "listens", id="a long answer"
        ),
        pytest.param(
            answering((200, b"\x1f\x8b"), **{"content-encoding": "gzip"}),
            "/mcp",
            "compressed",
            "compression",
            id="gzip",
        ),
        pytest.param(
            answering((307, b""), location="/mcp/"), "/mcp", "redirect", "/mcp/", id="a slash"
        ),
        pytest.param(
            answering((302, b""), location="https://{url}/\u202e"),
            "/mcp",
            "redirect",
            "the path",
            id="a hostile redirect",
        ),
    ],
)
def test_what_answers_names_the_fault(app: Any, path: str, diagnosis: str, told: str) -> None:
    """One problem, whose line says what to write."""
    found = examine(app, Written(path))
    assert problems(found) == [diagnosis]
    assert told in the(found, diagnosis).fix
    assert str(found[0]).replace("\n", "").isprintable()


def test_a_host_that_is_refused_with_403() -> None:
    """Servers of the TypeScript SDK refuse so; that another Host passes tells it apart."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            host = dict(scope["headers"])[b"host"]
            status = 200 if host.startswith(b"localhost") else 403
            await answering((status, b""))(scope, receive, send)

    assert problems(examine(app)) == ["host_check"]


def test_a_server_of_the_newest_protocol_alone_is_asked_in_it() -> None:
    """It refuses the older one (400) before it looks at Host and path."""
    assert diagnoses(examine(app("notes"))) == ["lists"]
    assert problems(examine(app("notes", ["notes:8000"]))) == ["host_check"]
    wrong = examine(app("notes"), Written("/mpc"))
    assert problems(wrong) == ["not_found"]
    assert "/mcp" in the(wrong, "not_found").fix


def test_a_401_to_whom_brings_no_signed_identity_is_no_fault() -> None:
    """Such a server is right to refuse the doctor."""
    text = """\
issuer: {{url: https://auth.example.test}}
gateway: {{url: https://mcp.example.test, identity_key_file: /nowhere.pem}}
servers: {{files: {{upstream: 'http://127.0.0.1:{port}/mcp', identity: signed}}}}
"""

    async def both() -> list[Finding]:
        async with serve(answering((401, b""))) as port:
            known = read(text.format(port=port), "authz.yaml", {}, secrets=False)
            return await servers.examine(known)

    assert diagnoses(asyncio.run(both())) == ["asks_identity"]


def test_the_old_transport_is_named() -> None:
    """A server of MCP 2024-11-05 takes GET at its path, and no POST."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        stream = scope["method"] == "GET"
        kind = [(b"content-type", b"text/event-stream")] if stream else []
        start = {"type": "http.response.start", "status": 200 if stream else 405, "headers": kind}
        await send(start)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    assert problems(examine(app, Written("/sse"))) == ["old_transport"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ServingCertificate]:
    """Certificates of one authority: good, for another name, and expired."""
    root = tmp_path_factory.mktemp("tls")
    found = {}
    then = datetime.now(UTC) - timedelta(days=30)
    for name, host, now in (
        ("good", "127.0.0.1", None),
        ("other", "elsewhere.test", None),
        ("old", "127.0.0.1", then),
    ):
        paths = write_certificates(root / name, [host], now)
        found[name] = ServingCertificate(paths.certificate, paths.key)
    return found


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        pytest.param(("https", "", "good"), "speaks_http", id="https to http"),
        pytest.param(("http", "good", "good"), "speaks_https", id="http to https"),
        pytest.param(("https", "good", "other"), "untrusted", id="another authority"),
        pytest.param(("https", "other", "other"), "other_name", id="another name"),
        pytest.param(("https", "old", "old"), "expired", id="expired"),
    ],
)
def test_schemes_and_certificates(
    pair: dict[str, ServingCertificate],
    wrong: tuple[str, str, str],
    diagnosis: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both schemes taken for the other; a chain, a name and a date that are wrong."""
    scheme, certificate, trusted = wrong
    monkeypatch.setenv("SSL_CERT_FILE", str(pair[trusted].certificate.with_name("ca.crt")))
    tls = pair.get(certificate)
    assert problems(examine(files(), Written(scheme=scheme), tls)) == [diagnosis]


def test_a_proxy_that_says_that_https_is_wanted() -> None:
    """Go and nginx answer a plain request to a TLS port with 400: TLS itself is tried."""

    async def both() -> list[Finding]:
        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first = await reader.read(1)
            if first != b"\x16":  # no handshake of TLS
                head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(TLS_WANTED[1])}\r\n"
                writer.write(head.encode() + b"Connection: close\r\n\r\n" + TLS_WANTED[1])
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(client, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await look(f"http://127.0.0.1:{port}/mcp")

    # This one hangs up at a handshake, so it is taken for what it says: a status.
    assert problems(asyncio.run(both())) == ["status"]


async def _nobody(port: int) -> list[Finding]:
    return await look(f"http://127.0.0.1:{port}/mcp")


def test_nobody_there() -> None:
    """A port that nobody listens at is a problem wherever the doctor runs."""
    assert problems(asyncio.run(_nobody(held_port()))) == ["refused"]


@pytest.mark.parametrize(("beside", "severity"), [(True, "problem"), (False, "warning")])
def test_a_name_that_is_not_known_here(beside: bool, severity: str) -> None:
    """Beside Envoy it is a problem; elsewhere Envoy may know it, and that is said."""
    (found,) = asyncio.run(look("http://nobody.invalid:8000/mcp", beside_envoy=beside))
    assert (found.diagnosis, found.severity.value) == ("no_name", severity)
    assert ("if Envoy reaches it" in found.fix) is not beside


def test_what_speaks_no_http() -> None:
    """Redis, for example."""

    async def both() -> list[Finding]:
        async def client(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"-ERR unknown command\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(client, "127.0.0.1", 0)
        async with server:
            return await _nobody(server.sockets[0].getsockname()[1])

    assert problems(asyncio.run(both())) == ["no_http"]


def test_a_server_behind_a_unix_socket(tmp_path: Path) -> None:
    """One that is there is asked; one that is not is named by its field."""

    async def both() -> tuple[list[Finding], list[Finding]]:
        path = tmp_path / "mcp.sock"
        rest = f", socket: '{path}'"
        url = "http://localhost/mcp"
        async with serve(files(), Address(uds=path)):
            there = await look(url, rest)
        path.unlink(missing_ok=True)
        return there, await look(url, rest, beside_envoy=True)

    there, gone = asyncio.run(both())
    assert diagnoses(there) == ["lists"]
    assert problems(gone) == ["no_socket"]
    assert "servers.files.socket" in gone[0].fix


def test_what_clients_were_shown_is_compared_where_it_cannot_be_asked() -> None:
    """In a container that shares no network with the server, its last list serves."""
    text = {"name": "delete_file", "inputSchema": {"type": "object"}}
    seen = [Sighting(read_definition(text), 1_795_380_700)]

    async def sightings(server: str) -> list[Sighting]:
        assert server == "files"
        return seen

    rest = ", tools: {delet_file: {}}"
    found = asyncio.run(look("http://nobody.invalid:8000/mcp", rest, seen=sightings))
    assert diagnoses(found) == ["no_name", "seen", "unknown_tool", "not_offered"]


@pytest.mark.attack("never-printed")
def test_names_that_a_server_chose_do_not_act_on_a_terminal() -> None:
    """A tool's name with escapes, and a schema's, are shown as escapes in JSON."""
    tools = [
        {"name": EVIL, "inputSchema": {"type": "object", "properties": {EVIL: {}}}},
        {"name": 5},
    ]
    result = {"tools": tools, "resultType": "complete"}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    app = answering((200, body), **{"content-type": "application/json"})
    rules = "{'evil*': {when: [{argument: /evi, present: true}]}, evil: {}}"
    found = examine(app, Written(rest=f", versions: ['2026-07-28'], tools: {rules}"))
    assert {"no_tools", "unknown_argument"} <= set(diagnoses(found))
    for each in found:
        assert str(each).replace("\n", "").isprintable()
        assert str(each).isascii()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["properties", "$ref", "a", "type"]), inner, max_size=3),
    ),
    max_leaves=8,
)


@examples(80)
@given(st.lists(st.dictionaries(st.sampled_from(["name", "inputSchema", "annotations"]), JSON)))
def test_lists_of_any_content_are_compared(tools: list[dict[str, object]]) -> None:
    """Whatever a server says of its tools ends in printable findings."""
    rest = ", tools: {'a*': {when: [{argument: /a/b, present: true}], audit: [/a]}}"
    known = kit.settings(servers=f"  files: {{upstream: 'http://files/mcp'{rest}}}\n")
    definitions = []
    for index, tool in enumerate(tools):
        definitions.append(read_definition({**tool, "name": f"a{index}{tool.get('name')}"[:200]}))
    catalogue = catalogue_of_list(definitions)
    for found in servers.compare(known.policy.servers["files"], definitions, catalogue):
        assert str(found).replace("\n", "").isprintable()


def test_a_server_that_never_answers_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for one server is bounded whatever it does, and others are looked at meanwhile."""
    monkeypatch.setattr(servers, "_WHOLE", 0.2)

    async def both() -> list[Finding]:
        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(client, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await look(f"http://127.0.0.1:{port}/mcp", beside_envoy=True)

    assert problems(asyncio.run(both())) == ["late"]
