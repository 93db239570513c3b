"""FastMCP, 2.x and 4.x: it opens the person's browser and listens for the callback itself."""

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastmcp import Client
from fastmcp.client.auth import OAuth
from repl import NAME, Repl, main, text

warnings.simplefilter("ignore")


class FastMcpSession:
    """One connection of FastMCP."""

    def __init__(self, client: Client[Any]) -> None:
        self._client = client

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self._client.list_tools()]

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        seen: list[float] = []

        async def progress(done: float, _total: float | None, _message: str | None) -> None:
            seen.append(done)

        result = await self._client.call_tool(
            tool, arguments, progress_handler=progress, raise_on_error=False
        )
        return {
            "text": text(result.content),
            "is_error": result.is_error,
            "progress": len(seen),
        }


AUTH: list[OAuth] = []


@asynccontextmanager
async def client(repl: Repl) -> AsyncIterator[FastMcpSession]:
    async def asked(_message: str, _type: Any, params: Any, _context: Any) -> Any:
        if getattr(params, "mode", "form") == "url":
            await repl.ask({"visit": params.url})
            return {}
        return {"name": NAME}

    if not AUTH:
        AUTH.append(OAuth(repl.told["url"], client_name=repl.told["name"]))
    async with Client(repl.told["url"], auth=AUTH[0], elicitation_handler=asked) as connected:
        yield FastMcpSession(connected)


if __name__ == "__main__":
    main(client)
