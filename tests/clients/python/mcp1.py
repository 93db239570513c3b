"""The official Python SDK, 1.x line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from mcp import ClientSession, types
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl
from repl import NAME, Repl, main, text


class Storage:
    """Keep what the SDK gives us, in memory."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


STORAGE = Storage()


def provider(repl: Repl) -> OAuthClientProvider:
    """Return the SDK's OAuth, which keeps its tokens as long as the process runs."""
    came: dict[str, str] = {}

    async def opens(address: str) -> None:
        came.clear()
        came.update(await repl.log_in(address))

    async def comes_back() -> tuple[str, str | None]:
        if "error" in came:
            raise RuntimeError(f"{came['error']}: {came.get('error_description', '')}")
        return came["code"], came.get("state")

    metadata = OAuthClientMetadata(
        client_name=repl.told["name"],
        redirect_uris=[AnyUrl(repl.told["redirect_uri"])],
        token_endpoint_auth_method="none",
    )
    return OAuthClientProvider(repl.told["url"], metadata, STORAGE, opens, comes_back)


class Session:
    """One session of the SDK."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self._session.list_tools()).tools]

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        seen: list[float] = []

        async def progress(done: float, _total: float | None, _message: str | None) -> None:
            seen.append(done)

        result = await self._session.call_tool(tool, arguments, progress_callback=progress)
        return {
            "text": text(result.content),
            "is_error": result.isError,
            "progress": len(seen),
        }


@asynccontextmanager
async def client(repl: Repl) -> AsyncIterator[Session]:
    async def asked(_context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        if getattr(params, "mode", "form") == "url":
            await repl.ask({"visit": params.url})
            return types.ElicitResult(action="accept")
        return types.ElicitResult(action="accept", content={"name": NAME})

    async with (
        httpx.AsyncClient(auth=provider(repl), timeout=30, follow_redirects=True) as http,
        streamable_http_client(repl.told["url"], http_client=http) as (read, write, _),
        ClientSession(read, write, elicitation_callback=asked) as session,
    ):
        await session.initialize()
        yield Session(session)


if __name__ == "__main__":
    main(client)
