"""The official SDK 1.x calls a tool and then listens; prints each notification that arrives.

Run by an environment of its own. Arguments: URL, Host header, tool. Its tokens are
`token.1.x`, `token.2.x`, …: the next one where one is refused. Prints a line of JSON for the
answered call and for each notification (its type), and ends when its input does.
"""

import asyncio
import json
import sys

import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client


class RenewingAuth(httpx.Auth):
    """Send a token, and the next one where that is refused."""

    number = 1

    def auth_flow(self, request):
        request.headers["authorization"] = f"Bearer token.{self.number}.x"
        if (yield request).status_code == 401:
            self.number += 1
            request.headers["authorization"] = f"Bearer token.{self.number}.x"
            yield request


async def hear(message: object) -> None:
    print(json.dumps(type(getattr(message, "root", message)).__name__), flush=True)


async def main(url: str, host: str, tool: str) -> None:
    async with (
        httpx.AsyncClient(
            verify=False, headers={"Host": host}, auth=RenewingAuth(), timeout=120
        ) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write, message_handler=hear) as session,
    ):
        await session.initialize()
        await session.call_tool(tool, {"seconds": 0})
        print('"called"', flush=True)
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main(*sys.argv[1:]))
