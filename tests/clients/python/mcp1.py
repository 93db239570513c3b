"""The official Python SDK, 1.x line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from mcp import ClientSession, types
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from repl import Repl, main
from sdk import SdkSession, elicited, provider


def log_in(repl: Repl) -> OAuthClientProvider:
    """Return the SDK's OAuth, as this line wants to be told what came back."""
    return provider(repl, lambda came: (came["code"], came.get("state")))


@asynccontextmanager
async def client(repl: Repl) -> AsyncIterator[SdkSession]:
    async def asked(_context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        return await elicited(repl, params, types.ElicitResult)

    auth = log_in(repl)
    async with (
        httpx.AsyncClient(auth=auth, timeout=30, follow_redirects=True) as http,
        streamable_http_client(repl.told["url"], http_client=http) as (read, write, _),
        ClientSession(read, write, elicitation_callback=asked) as session,
    ):
        await session.initialize()
        yield SdkSession(session, lambda result: result.isError)


if __name__ == "__main__":
    main(client)
