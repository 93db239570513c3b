"""The official SDK 1.x calls a tool three times in one session, and says what it was told.

Run by an environment of its own. Arguments: URL, Host header, access token, tool. Waits for a line
before each call, and prints a line of JSON after it.
"""

import asyncio
import json
import sys

import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client


async def main(url: str, host: str, token: str, tool: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "Host": host}
    async with (
        httpx.AsyncClient(verify=False, headers=headers, timeout=30) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        # Its notification `initialized` was sent before.
        await session.list_tools()
        print('"ready"', flush=True)
        for _call in range(3):
            await asyncio.to_thread(sys.stdin.readline)
            try:
                result = await session.call_tool(tool, {})
                said = {"error": result.isError, "text": result.content[0].text}
            except Exception as error:
                said = {"raised": f"{type(error).__name__}: {error}"}
            print(json.dumps(said), flush=True)


asyncio.run(main(*sys.argv[1:]))
