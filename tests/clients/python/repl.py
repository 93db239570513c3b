"""What every Python client of the matrix shares: commands and results are lines of JSON.

A client runs in a task of its own, as an application would run it: where its task group ends, that
is reported as the result of the call that met it, and of each call afterwards.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

NAME = "Ada"


class ReplSession(Protocol):
    """What a client can do."""

    async def tools(self) -> list[str]:
        """List the names of the tools."""

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a tool; return `text`, `is_error` and `progress`."""


class Repl:
    """Hold one client, and the lines between it and the harness."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._commands: asyncio.Queue[Any] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._ended = "not connected"

    def say(self, line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)

    async def ask(self, line: dict[str, Any]) -> str:
        """Ask the person something; return the answer."""
        self.say(line)
        return await self._lines.get()

    async def log_in(self, url: str) -> dict[str, str]:
        """Let the person log in; return what came back to the redirect URI."""
        came = await self.ask({"open": url})
        return {name: values[0] for name, values in parse_qs(urlsplit(came).query).items()}

    async def run(
        self, client: Callable[["Repl"], AbstractAsyncContextManager[ReplSession]]
    ) -> None:
        loop = asyncio.get_running_loop()

        def read() -> None:
            for line in sys.stdin:
                loop.call_soon_threadsafe(self._lines.put_nowait, line.strip())
            loop.call_soon_threadsafe(self._lines.put_nowait, "")

        threading.Thread(target=read, daemon=True).start()
        while line := await self._lines.get():
            command = json.loads(line)
            if command["do"] == "connect":
                if self._task is not None:
                    self._task.cancel()
                    await asyncio.wait([self._task])
                self._commands = asyncio.Queue()
                self._task = asyncio.create_task(self._session(client))
            self.say({"result": await self._submit(command)})

    async def _submit(self, command: dict[str, Any]) -> dict[str, Any]:
        if self._task is None:
            return {"error": self._ended}
        done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._commands.put_nowait((command, done))
        await asyncio.wait([self._task, done], return_when=asyncio.FIRST_COMPLETED)
        return done.result() if done.done() else {"error": self._ended, "ended": True}

    async def _session(
        self, client: Callable[["Repl"], AbstractAsyncContextManager[ReplSession]]
    ) -> None:
        try:
            async with client(self) as session:
                while True:
                    command, done = await self._commands.get()
                    done.set_result(await self._do(session, command))
        except BaseException as error:
            self._ended = words(error)

    async def _do(self, session: ReplSession, command: dict[str, Any]) -> dict[str, Any]:
        try:
            if command["do"] == "connect":
                return {"ok": True}
            if command["do"] == "list":
                return {"tools": await session.tools()}
            return await session.call(command["tool"], command["arguments"])
        except Exception as error:
            return {"error": words(error), "code": getattr(error_data(error), "code", None)}


def error_data(error: BaseException) -> Any:
    """Return the JSON-RPC error in an exception of either SDK."""
    return getattr(error, "error", None)


def words(error: BaseException) -> str:
    """Return what an application shows of an exception."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(words(part) for part in error.exceptions)
    return f"{type(error).__name__}: {error}"


def text(content: Any) -> str:
    """Return the text of a result's content."""
    return "".join(getattr(part, "text", "") for part in content)


def main(client: Callable[[Repl], AbstractAsyncContextManager[ReplSession]]) -> None:
    """Run one client until the harness closes its input."""
    asyncio.run(Repl(json.loads(sys.argv[1])).run(client))
