"""The LangChain adapters: every call of a tool opens a session of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.client import MultiServerMCPClient
from mcp import types
from mcp1 import log_in
from repl import NAME, Repl, main


class LangchainSession:
    """The tools of one server, as an agent has them."""

    def __init__(self, client: MultiServerMCPClient, seen: list[float]) -> None:
        self._client = client
        self._seen = seen
        self._tools: dict[str, Any] = {}

    async def tools(self) -> list[str]:
        self._tools = {tool.name: tool for tool in await self._client.get_tools()}
        return list(self._tools)

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if tool not in self._tools:
            await self.tools()
        if tool not in self._tools:
            # What an agent does not see it cannot call; the adapters' own session can.
            async with self._client.session("it") as session:
                found = await session.call_tool(tool, arguments)
            return {"text": "".join(getattr(part, "text", "") for part in found.content)}
        self._seen.clear()
        call = {"name": tool, "args": arguments, "id": "1", "type": "tool_call"}
        message = await self._tools[tool].ainvoke(call)
        parts = message.content if isinstance(message.content, list) else [message.content]
        shown = "".join(part if isinstance(part, str) else part.get("text", "") for part in parts)
        return {
            "text": shown,
            "is_error": message.status == "error",
            "progress": len(self._seen),
        }


@asynccontextmanager
async def client(repl: Repl) -> AsyncIterator[LangchainSession]:
    seen: list[float] = []

    async def progress(done: float, _total: Any, _message: Any, _context: Any) -> None:
        seen.append(done)

    async def asked(_context: Any, params: Any, _callback: Any) -> types.ElicitResult:
        if getattr(params, "mode", "form") == "url":
            await repl.ask({"visit": params.url})
            return types.ElicitResult(action="accept")
        return types.ElicitResult(action="accept", content={"name": NAME})

    adapters = MultiServerMCPClient(
        {
            "it": {
                "transport": "streamable_http",
                "url": repl.told["url"],
                "auth": log_in(repl),
            }
        },
        callbacks=Callbacks(on_progress=progress, on_elicitation=asked),
    )
    session = LangchainSession(adapters, seen)
    await session.tools()
    yield session


if __name__ == "__main__":
    main(client)
