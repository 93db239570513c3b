"""The MCP Inspector on the command line: each command is a process of its own."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from repl import Repl, main


class InspectorError(Exception):
    """Hold what a command said when it failed."""


class InspectorSession:
    """Run one command after the other; what it keeps is in its home."""

    def __init__(self, repl: Repl) -> None:
        self._repl = repl

    async def run(self, *arguments: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            os.environ["NODE"],
            os.environ["INSPECTOR"],
            "--cli",
            self._repl.told["url"],
            *("--transport", "http", "--quiet", "--format", "json", "--protocol-era", "auto"),
            *("--callback-url", self._repl.told["redirect_uri"]),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, said = await process.communicate()
        # A result that is an error is printed all the same, and its exit status is 5.
        if process.returncode and not out.strip():
            error = said.decode("utf-8").strip()
            raise InspectorError(f"exit {process.returncode}: {error[-1500:]}")
        found: dict[str, Any] = json.loads(out)
        return found.get("result", found)

    async def tools(self) -> list[str]:
        return [tool["name"] for tool in (await self.run("--method", "tools/list"))["tools"]]

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        given = ("--tool-name", tool, "--tool-args-json", json.dumps(arguments))
        result = await self.run("--method", "tools/call", *given)
        shown = "".join(part.get("text", "") for part in result["content"])
        return {"text": shown, "is_error": result.get("isError", False), "progress": 0}


@asynccontextmanager
async def client(repl: Repl) -> AsyncIterator[InspectorSession]:
    session = InspectorSession(repl)
    await session.tools()
    yield session


if __name__ == "__main__":
    main(client)
