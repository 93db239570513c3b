"""Codex without a model: its app server logs in, lists and calls as it does for its own windows."""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from repl import NAME, Repl, main

SERVER = "it"


class CodexError(Exception):
    """Hold what Codex said."""


class AppServer:
    """Speak JSON-RPC with `codex app-server`."""

    def __init__(self, repl: Repl, process: asyncio.subprocess.Process) -> None:
        self.repl = repl
        self.progress = 0
        self._process = process
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._notified: dict[str, asyncio.Future[dict[str, Any]]] = {}

    def notified(self, method: str) -> "asyncio.Future[dict[str, Any]]":
        """Return what the next notification of a method will say."""
        future = asyncio.get_running_loop().create_future()
        self._notified[method] = future
        return future

    async def ask(self, method: str, params: Any) -> dict[str, Any]:
        number = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._send({"id": number, "method": method, "params": params})
        answer = await future
        if "error" in answer:
            raise CodexError(answer["error"]["message"])
        result: dict[str, Any] = answer["result"]
        return result

    def say(self, method: str) -> None:
        self._send({"method": method})

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if "method" in said and "id" in said:
                await self._asked(said)
            elif "method" in said:
                self.progress += said["method"] == "item/mcpToolCall/progress"
                future = self._notified.pop(said["method"], None)
                if future is not None:
                    future.set_result(said["params"])
            elif said.get("id") in self._waiting:
                self._waiting.pop(said["id"]).set_result(said)

    async def _asked(self, said: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"action": "decline"}
        if said["method"] == "mcpServer/elicitation/request":
            answer = {"action": "accept", "content": {"name": NAME}}
            if said["params"].get("mode") == "url":
                await self.repl.ask({"visit": said["params"]["url"]})
                answer = {"action": "accept"}
        self._send({"id": said["id"], "result": answer})

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")


class CodexSession:
    """One thread of Codex."""

    def __init__(self, app: AppServer, thread: str) -> None:
        self._app = app
        self._thread = thread

    async def tools(self) -> list[str]:
        asked = {"serverName": SERVER, "threadId": self._thread}
        for server in (await self._app.ask("mcpServerStatus/list", asked))["data"]:
            if server["name"] == SERVER:
                return list(server["tools"])
        return []

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._app.progress = 0
        asked = {
            "server": SERVER,
            "threadId": self._thread,
            "tool": tool,
            "arguments": arguments,
        }
        result = await self._app.ask("mcpServer/tool/call", asked)
        shown = "".join(part.get("text", "") for part in result["content"])
        return {
            "text": shown,
            "is_error": bool(result.get("isError")),
            "progress": self._app.progress,
        }


def show(url: str) -> None:
    """Open the person's browser, as the window around the app server does."""
    with Path(os.environ["AUTHZ_OPENED"]).open("a") as opened:
        opened.write(f"{url}\n")


@asynccontextmanager
async def client(repl: Repl) -> AsyncIterator[CodexSession]:
    home = Path(os.environ["HOME"]) / ".codex"
    home.mkdir(exist_ok=True)
    # No model is asked, and nothing goes further than this machine.
    (home / "config.toml").write_text(
        'mcp_oauth_credentials_store = "file"\nmodel_provider = "none"\n'
        "check_for_update_on_startup = false\n[analytics]\nenabled = false\n"
        '[model_providers.none]\nname = "none"\nbase_url = "http://127.0.0.1:9/v1"\n'
        f'[mcp_servers.{SERVER}]\nurl = "{repl.told["url"]}"\n'
    )
    process = await asyncio.create_subprocess_exec(
        os.environ["CODEX"],
        "app-server",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    app = AppServer(repl, process)
    reading = asyncio.create_task(app.read())
    try:
        info = {"name": "matrix", "title": repl.told["name"], "version": "1"}
        await app.ask("initialize", {"clientInfo": info})
        app.say("initialized")
        if not (home / "logged-in").exists():
            completed = app.notified("mcpServer/oauthLogin/completed")
            # Its own metadata document cannot be fetched where there is no way out.
            asked = {"name": SERVER, "clientRegistration": "dcr"}
            url = (await app.ask("mcpServer/oauth/login", asked))["authorizationUrl"]
            show(url)
            done = await completed
            if not done["success"]:
                raise CodexError(str(done.get("error")))
            (home / "logged-in").touch()
        thread = await app.ask("thread/start", {"ephemeral": True})
        yield CodexSession(app, thread["thread"]["id"])
    finally:
        process.kill()
        reading.cancel()
        await process.wait()


if __name__ == "__main__":
    main(client)
