"""The official SDK 1.x as an agent that shows links, run by an environment of its own.

Arguments: URL, Host header, access token, tool. Calls the tool, prints what it is told, waits for
a line on standard input (the person has stepped up), calls again, prints that.
"""

import asyncio
import json
import sys
from typing import Any

import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import McpError, UrlElicitationRequiredError
from mcp.types import ElicitResult


async def shows_links(*_: Any) -> ElicitResult:
    """Declare that there is a person (SDK: elicitation_callback)."""
    return ElicitResult(action="accept")


async def main(url: str, host: str, token: str, tool: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "Host": host}
    async with (
        httpx.AsyncClient(verify=False, headers=headers, timeout=30) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write, elicitation_callback=shows_links) as session,
    ):
        began = await session.initialize()
        try:
            await session.call_tool(tool, {})
        except McpError as error:
            asked = UrlElicitationRequiredError.from_error(error.error)
            say({"version": began.protocolVersion, "url": asked.elicitations[0].url})
        await asyncio.to_thread(sys.stdin.readline)
        say({"error": (await session.call_tool(tool, {})).isError})


def say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


asyncio.run(main(*sys.argv[1:]))
