"""The official SDK 1.x lists tools; prints their names as JSON.

Run by an environment of its own. Arguments: URL, Host header, token.
"""

import asyncio
import json
import sys

import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client


async def main(url: str, host: str, token: str) -> None:
    headers = {"Host": host, "Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(verify=False, headers=headers, timeout=20) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        names = [tool.name for tool in (await session.list_tools()).tools]
        sys.stdout.write(json.dumps(names))


asyncio.run(main(*sys.argv[1:]))
