"""The real Envoy, configured as Envoy Gateway configures it, with the real check behind it.

tests/fixtures/data_planes/README.md says where the configuration is from.
"""

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import grpc
import pytest

from authz.core.policy import Policy, Rule
from authz.envoy import codec
from authz.envoy.data_planes import FORMATS
from tests.server.test_check import CheckWorld, good
from tests.support import edge
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.values import call, policy, server

CONFIG = Path(__file__).parents[2] / "fixtures" / "data_planes" / "envoy_gateway.yaml"
HOST = "mcp.example.com"
RULES = policy(server(tools={"read_*": Rule()}))
BY_URL = replace(RULES, places=MappingProxyType({(HOST, "/unnamed"): "files"}))


@dataclass(frozen=True, slots=True)
class GatewayPlane:
    """Hold the running parts."""

    envoy: RunningEnvoy
    upstream: edge.EdgeUpstream
    world: CheckWorld

    def send(
        self,
        body: bytes = b"",
        path: str = "/files",
        method: str = "POST",
        host: str = HOST,
        *more: tuple[str, str],
        policy: Policy = RULES,
    ) -> int:
        """Return the status of the answer."""
        answer = self.read(body, path, method, host, *more, policy=policy)
        return int(answer.split()[1])

    def read(
        self,
        body: bytes = b"",
        path: str = "/files",
        method: str = "POST",
        host: str = HOST,
        *more: tuple[str, str],
        policy: Policy = RULES,
    ) -> bytes:
        """Return the answer to a request that is written as it stands here."""
        snapshot = self.world.check.snapshot
        self.world.check.snapshot = replace(snapshot, policy=policy, plane=FORMATS["envoy_gateway"])
        self.upstream.arrived.clear()
        lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "authorization: Bearer known"]
        if body:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        if "connection" not in dict(more):
            lines.append("connection: close")
        lines += [f"{name}: {value}" for name, value in more]
        port = self.envoy.port("mcp/eg/https")
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    @property
    def arrived(self) -> list[edge.Arrived]:
        return self.upstream.arrived


@contextmanager
def running(text: str) -> Iterator[GatewayPlane]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="e")))
        for name, file in (("ADMIN", "admin"), ("AUTHZ", "authz"), ("FILES", "files")):
            text = text.replace(name, str(folder / file))
        world = good()
        checks = grpc.server(futures.ThreadPoolExecutor(2))
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            lambda raw, _: asyncio.run(world.check(raw))
        )
        handlers = grpc.method_handlers_generic_handler(codec.AUTHORIZATION, {"Check": handler})
        checks.add_generic_rpc_handlers((handlers,))
        checks.add_insecure_port(f"unix:{folder}/authz")
        checks.start()
        stack.callback(lambda: checks.stop(None).wait())
        upstream, _ = stack.enter_context(edge.upstream(folder / "files"))
        files = {"envoy.yaml": text}
        envoy = stack.enter_context(running_envoy(files, folder, folder / "admin"))
        yield GatewayPlane(envoy, upstream, world)


@pytest.fixture(scope="module")
def plane() -> Iterator[GatewayPlane]:
    with running(CONFIG.read_text()) as found:
        yield found


def test_rules_for_tools_hold(plane: GatewayPlane) -> None:
    """A named tool arrives without the token, another one and a body that is not UTF-8 do not."""
    assert plane.send(call("read_note")) == 200
    (arrived,) = plane.arrived
    assert arrived.path == "/mcp"
    assert arrived.values("authorization") == []
    assert arrived.values("x-authz-subject") != []
    assert (
        plane.send(call("read_note"), "/files", "POST", HOST, ("x-authz-groups", "admins")) == 200
    )
    assert plane.arrived[0].values("x-authz-groups") == []
    for body in (
        call("kill"),
        call("read_note").replace(b"note", b"n\xff"),
        call("read_" + "x" * 70000),
    ):
        plane.send(body)
        assert plane.arrived == []


def test_a_token_is_asked_for_as_by_our_own_envoy(plane: GatewayPlane) -> None:
    """The challenge of a refusal reaches the client: status and WWW-Authenticate."""
    sent = f"POST /files HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    port = plane.envoy.port("mcp/eg/https")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(sent.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"www-authenticate: Bearer resource_metadata=" in answer


@pytest.mark.attack("connection-upgrade")
def test_no_connection_is_upgraded(plane: GatewayPlane) -> None:
    """Its routes let a GET become a WebSocket, after which nobody would read what is sent."""
    upgrade = (
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    )
    assert plane.send(b"", "/files", "GET", HOST, *upgrade) == 400
    assert plane.arrived == []
    assert plane.send(b"", "/files", "GET") == 200


def test_a_stream_ends_when_it_was_said_to(plane: GatewayPlane) -> None:
    """The time that an Allow gives an exchange bounds it, on a route without a timeout."""
    plane.upstream.go_on.clear()
    brief = replace(RULES, max_stream=1.0, stream_recheck=1.0)
    answer = plane.read(b"", "/files?stream", "GET", policy=brief)
    plane.upstream.go_on.set()

    assert b"data: first" in answer
    assert b"data: second" not in answer


PATHS = (
    "/unnamed", "//unnamed", "/%75nnamed", "/./unnamed", "/x/../unnamed", "/unnamed?x=1",
)  # fmt: skip
ODD = (
    "/unnamed;x", "/UNNAMED", "/unnamed/.", "/unnamed/x", "/unnamed%2f", "/unnamed%00", "/",
    "/unnamed%252f",
)  # fmt: skip


@pytest.mark.attack("host-games")
@pytest.mark.parametrize("path", [*PATHS, *ODD])
@pytest.mark.parametrize("host", [HOST, HOST.upper(), f"{HOST}:1234", f"{HOST}.", "notes.example"])
def test_by_url_a_server_is_what_envoy_routes_to(plane: GatewayPlane, path: str, host: str) -> None:
    """What Envoy normalises to the server's URL is found; any other host or path is refused."""
    status = plane.send(call("read_note"), path, "POST", host, policy=BY_URL)

    found = path in PATHS and host.lower() == HOST
    assert (status == 200) == found
    assert bool(plane.arrived) == found


@pytest.mark.attack("host-games")
@pytest.mark.parametrize("path", ["/unnamed", "/files"])
def test_without_by_url_no_host_chooses(plane: GatewayPlane, path: str) -> None:
    """A route without contextExtensions is refused, whatever Host and path say."""
    status = plane.send(call("read_note"), path)

    assert (status == 200) == (path == "/files")


@pytest.mark.attack("body-games")
def test_bodies_as_text_are_refused() -> None:
    """Without the patch no message is read, and none arrives."""
    text = CONFIG.read_text().replace(", pack_as_bytes: true", "")
    assert text != CONFIG.read_text()
    with running(text) as found:
        assert found.send(call("read_note")) == 400
        assert found.arrived == []
        assert "as text" in str(found.world.lines()[0]["detail"])
