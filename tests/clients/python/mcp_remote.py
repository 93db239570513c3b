"""mcp-remote: a client of standard input and output for applications that speak no HTTP.

The application is the official Python SDK 2.x; it starts mcp-remote as its server.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
from mcp import Client, StdioServerParameters
from mcp2 import session_of
from repl import NAME, Repl, main
from sdk import SdkSession


@asynccontextmanager
async def client(repl: Repl) -> AsyncIterator[SdkSession]:
    async def asked(_context: Any, params: Any) -> types.ElicitResult:
        if getattr(params, "mode", "form") == "url":
            await repl.ask({"visit": params.url})
            return types.ElicitResult(action="accept")
        return types.ElicitResult(action="accept", content={"name": NAME})

    port = repl.told["redirect_uri"].rpartition(":")[2].partition("/")[0]
    arguments = [os.environ["MCP_REMOTE"], repl.told["url"], port]
    server = StdioServerParameters(command="node", args=arguments, env=dict(os.environ))
    async with Client(server, mode="legacy", elicitation_callback=asked) as connected:
        yield session_of(connected)


if __name__ == "__main__":
    main(client)
