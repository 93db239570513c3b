"""The official SDK 1.x does operations in one session; prints how each one ended, as JSON.

A list ends with its names. An HTTP error ends the session; its status is the last that is printed.
Run by an environment of its own. Arguments: URL, Host header, token, the member of a refused tool's
`_meta`, and as JSON a list of method, name and arguments.
"""

import asyncio
import json
import sys

import httpx
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import PromptReference, ResourceTemplateReference
from pydantic import AnyUrl


async def do(session: ClientSession, refusal: str, method: str, name: str, arguments: dict) -> str:
    argument = {"name": "tone", "value": "p"}
    try:
        match method:
            case "tools/list":
                return " ".join(sorted(each.name for each in (await session.list_tools()).tools))
            case "tools/call":
                result = await session.call_tool(name, arguments)
                return (result.meta or {}).get(refusal, {"reason": "allowed"})["reason"]
            case "prompts/get":
                await session.get_prompt(name, arguments)
            case "resources/read":
                await session.read_resource(AnyUrl(name))
            case "resources/subscribe":
                await session.subscribe_resource(AnyUrl(name))
            case _ if ":" in name:
                ref = ResourceTemplateReference(type="ref/resource", uri=name)
                await session.complete(ref, argument)
            case _:
                await session.complete(PromptReference(type="ref/prompt", name=name), argument)
    except McpError as error:
        return error.error.data["reason"]
    return "allowed"


async def main(url: str, host: str, token: str, refusal: str, told: str) -> None:
    headers = {"Host": host, "Authorization": f"Bearer {token}"}
    ended = []
    try:
        async with (
            httpx.AsyncClient(verify=False, headers=headers, timeout=120) as http,
            streamable_http_client(url, http_client=http) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            for each in json.loads(told):
                ended.append(await do(session, refusal, *each))  # noqa: PERF401 - an error leaves some
    except* httpx.HTTPStatusError as group:
        ended += [str(error.response.status_code) for error in group.exceptions]
    sys.stdout.write(json.dumps(ended))


asyncio.run(main(*sys.argv[1:]))
