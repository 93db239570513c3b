"""The MCP server of the client matrix, made with the official SDK: it speaks both eras.

`python tests/clients/sample.py PATH` serves it on a Unix socket. Each tool is one row of the
matrix; what `forbidden`, `limited`, `wider` and `guarded` mean is said by authz.yaml alone.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel

from authz_demo.serving import Address, serve_forever

server: MCPServer[Any] = MCPServer("matrix", version="1", log_level="WARNING")


class Name(BaseModel):
    """What a person is asked for."""

    name: str


def asked() -> Elicit[Name]:
    return Elicit("What is your name?", Name)


@server.tool()
def echo(text: str) -> str:
    """Return the text."""
    return text


@server.tool()
def big(size: int) -> str:
    """Return a text of so many characters."""
    return "x" * size


@server.tool()
async def count(to: int, ctx: Context[Any, Any]) -> str:
    """Count, and report each number as progress."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to, f"number {number}")
    return f"counted to {to}"


@server.tool()
def ask(who: Annotated[ElicitationResult[Name], Resolve(asked)]) -> str:
    """Ask the person for a name."""
    if isinstance(who, AcceptedElicitation):
        return f"hello {who.data.name}"
    return who.action


@server.tool()
def forbidden() -> str:
    """Be refused by the gateway."""
    return "forbidden ran"


@server.tool()
def limited() -> str:
    """Be limited by the gateway."""
    return "limited ran"


@server.tool()
def wider() -> str:
    """Need a scope that the log-in did not ask for."""
    return "wider ran"


@server.tool()
def guarded() -> str:
    """Need a fresh second factor."""
    return "guarded ran"


if __name__ == "__main__":
    app = server.streamable_http_app(
        streamable_http_path="/mcp",
        # On a Unix socket no browser comes, so no Host header has to be refused.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    serve_forever(app, Address(uds=Path(sys.argv[1])))
