"""Two sample MCP servers made with the official SDK, one in each era of the protocol.

`notes` speaks 2026-07-28 (no sessions), `files` speaks 2025-11-25 (sessions). Both keep what they
have in memory. `python -m authz_demo.samples notes --uds PATH` runs one. They trust whoever can
reach them, so only the gateway may; their tool `whoami` shows what it said of the caller, and
whether a token or cookie came through.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import UNSUPPORTED_PROTOCOL_VERSION
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from authz.integrations.mcp_identity import GatewayIdentity, Verify
from authz_demo.serving import LOOPBACK, Address, serve_forever

Sample = Literal["notes", "files"]
PATH: Final = "/mcp"
IDENTITY: Final = ("x-authz-subject", "x-authz-client", "x-authz-scopes")
KEPT_BACK: Final = ("authorization", "cookie")
_VERSION_HEADER: Final = "mcp-protocol-version"

_Tool = Context[Any, Request]


def _whoami(ctx: _Tool) -> dict[str, str | bool | None]:
    """Show what the gateway says of the caller, and whether a token or cookie came through."""
    request = ctx.request_context.request
    assert request is not None
    told: dict[str, str | bool | None] = {name: request.headers.get(name) for name in IDENTITY}
    arrived = {f"{name}_arrived": name in request.headers for name in KEPT_BACK}
    return {**told, **arrived, "host": request.headers.get("host")}


class _Sure(BaseModel):
    """An answer to whether something is meant."""

    really: bool


def _missing(kind: str, name: str) -> ToolError:
    # Any other exception is the server's own fault to the SDK: a traceback, and no words.
    return ToolError(f"there is no {kind} of that name: {name!r}")


def _notes() -> MCPServer:
    server: MCPServer = MCPServer("notes", version="1", log_level="WARNING")
    notes = {"welcome": "Notes are kept until the demonstration ends."}

    @server.tool()
    def list_notes() -> list[str]:
        """List the names of all notes."""
        return sorted(notes)

    @server.tool()
    def read_note(name: str) -> str:
        """Read a note."""
        if name not in notes:
            raise _missing("note", name)
        return notes[name]

    @server.tool()
    def write_note(name: str, text: str) -> str:
        """Write a note; one of the same name is replaced."""
        notes[name] = text
        return f"wrote {name}"

    @server.tool()
    def delete_note(name: str) -> str:
        """Delete a note."""
        if notes.pop(name, None) is None:
            raise _missing("note", name)
        return f"deleted {name}"

    def confirmed() -> Elicit[_Sure]:
        return Elicit("Really?", _Sure)

    @server.tool()
    def read_diary(sure: Annotated[_Sure, Resolve(confirmed)]) -> str:
        """Read the diary, after its reader was asked whether that is meant."""
        return "Dear diary." if sure.really else "You decided against it."

    server.add_tool(_whoami, name="whoami")
    return server


def _files() -> MCPServer:
    server: MCPServer = MCPServer("files", version="1", log_level="WARNING")
    files = {"readme.txt": "No real file is read or deleted here.", "plan.txt": "Try to delete me."}

    @server.tool()
    def list_files() -> list[str]:
        """List the names of all files."""
        return sorted(files)

    @server.tool()
    def read_file(name: str) -> str:
        """Read a file."""
        if name not in files:
            raise _missing("file", name)
        return files[name]

    @server.tool()
    def delete_file(name: str) -> str:
        """Delete a file."""
        if files.pop(name, None) is None:
            raise _missing("file", name)
        return f"deleted {name}"

    server.add_tool(_whoami, name="whoami")
    return server


_SAMPLES: dict[Sample, tuple[Callable[[], MCPServer], tuple[str, ...]]] = {
    "notes": (_notes, MODERN_PROTOCOL_VERSIONS),
    "files": (_files, HANDSHAKE_PROTOCOL_VERSIONS),
}


def app(name: Sample, hosts: Sequence[str] = (), verify: Verify | None = None) -> ASGIApp:
    """Return one sample server, at `/mcp`.

    Args:
        name: which one.
        hosts: the Host headers that it answers to, as the SDK's guard against DNS rebinding takes
            them: the gateway's authority, `mcp.example.com` or `mcp.example.com:8443`. None:
            any, which is right on a Unix socket only, where no browser comes.
        verify: checks the signed identity; None: the headers are believed, and who has none is
            nobody: whoever comes past the gateway, as tests do.
    """
    make, versions = _SAMPLES[name]
    # Without settings the SDK lets loopback names in only, and answers the gateway with 421.
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=bool(hosts), allowed_hosts=list(hosts)
    )
    server = make().streamable_http_app(streamable_http_path=PATH, transport_security=security)
    return _one_era(GatewayIdentity(server, verify, required=verify is not None), versions)


def _one_era(server: ASGIApp, versions: tuple[str, ...]) -> ASGIApp:
    """Refuse the other era's requests: the SDK's server speaks both and cannot be told not to.

    The header alone decides, as in the SDK: without it a request is of the era of sessions.
    """

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked = Headers(scope=scope).get(_VERSION_HEADER, HANDSHAKE_PROTOCOL_VERSIONS[-1])
            if asked not in versions:
                await _unsupported(asked, versions)(scope, receive, send)
                return
        await server(scope, receive, send)

    return guarded


def _unsupported(asked: str, versions: tuple[str, ...]) -> Response:
    error = {
        "code": UNSUPPORTED_PROTOCOL_VERSION,
        "message": "Unsupported protocol version",
        "data": {"supported": list(versions), "requested": asked},
    }
    body = {"jsonrpc": "2.0", "id": None, "error": error}
    return Response(json.dumps(body), 400, media_type="application/json")


def main(argv: Sequence[str]) -> int:
    """Run one sample server until SIGTERM or SIGINT.

    Args:
        argv: its name, `--port N` (and `--bind ADDRESS`) or `--uds PATH`, and any number of
            `--host AUTHORITY`.

    Returns:
        the exit status.
    """
    parser = argparse.ArgumentParser(prog="authz_demo.samples", description=__doc__)
    parser.add_argument("name", choices=get_args(Sample))
    parser.add_argument("--host", action="append", default=[], help="a Host header to answer to")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int, help="a port of --bind; wants --host")
    where.add_argument("--uds", type=Path, help="a Unix socket, made with mode 600")
    parser.add_argument("--bind", default=LOOPBACK, help="an IPv4 address (default: %(default)s)")
    options = parser.parse_args(argv)
    if options.port is not None and not options.host:
        parser.error("--port wants --host: a browser can reach a port")
    where_to = Address(options.port or 0, options.uds, options.bind)
    serve_forever(app(options.name, options.host), where_to)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
