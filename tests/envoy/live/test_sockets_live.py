"""An MCP server on a Unix socket, as authz.yaml names it, through the real Envoy.

The server is one of the official SDK with its guard against DNS rebinding on, which lets in
the Host that the URL says and no other.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz.core.answers import UpstreamChanges as Changes
from tests.support import edge
from tests.support.gateway import GOOD, running_gateway

_PATIENCE = 120.0
_HEADERS = (
    GOOD,
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
    ("mcp-protocol-version", "2025-11-25"),
)
_INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@contextmanager
def sample(socket: Path, host: str) -> Iterator[None]:
    """Run the sample `files` of the demonstration, which answers to one Host, at a socket."""
    command = [sys.executable, "-P", "-m", "authz_demo.samples", "files"]
    with subprocess.Popen([*command, "--uds", str(socket), "--host", host]) as process:
        try:
            end = time.monotonic() + _PATIENCE
            while not socket.exists():
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="s") as made:
        yield Path(made)


def server(socket: Path, upstream: str) -> str:
    return f"  local: {{upstream: '{upstream}', socket: {socket}}}\n"


@pytest.mark.parametrize(
    ("url", "status"),
    [("http://localhost:8000/mcp", 200), ("http://localhost/mcp", 421), ("http://x/other", 404)],
)
def test_a_server_on_a_socket_is_asked_as_its_url_says(folder: Path, url: str, status: int) -> None:
    """Over the socket, by the Host and the path of the URL: another of either is another answer."""
    socket = folder / "mcp.sock"
    with (
        sample(socket, "localhost:8000"),
        running_gateway(server(socket, url)) as gateway,
    ):
        # The sample asks who its caller is, as authz tells it.
        gateway.authz.allow = Changes(
            tuple((f"x-authz-{each}", "somebody") for each in ("subject", "client", "issuer")), ()
        )
        body = json.dumps(_INITIALIZE).encode()
        answer = gateway.send("POST", "/local", *_HEADERS, body=body)
        assert answer.status == status
        if status == 200:
            assert b"protocolVersion" in answer.body
        assert gateway.send("POST", "/local", body=body).status == 401


def test_what_reaches_it_is_what_reaches_any_server(folder: Path) -> None:
    """Host, path and identity as over TCP, and no token; without its server it is a 503."""
    socket = folder / "mcp.sock"
    with running_gateway(server(socket, "http://localhost:8000/a/mcp")) as gateway:
        assert gateway.send("POST", "/local", GOOD, body=b"{}").status == 503
        with edge.upstream(socket) as (local, _):
            assert gateway.send("POST", "/local?x=1", GOOD, body=b"{}").status == 200
            (request,) = local.arrived
            assert request.values("host") == ["localhost:8000"]
            assert request.path == "/a/mcp?x=1"
            assert request.values("x-authz-subject") == ["from-authz"]
            assert request.values("authorization") == []
