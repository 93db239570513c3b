"""The official Python SDK, 2.x line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult
from repl import Repl, main
from sdk import SdkSession, elicited, provider


def answer(came: dict[str, str]) -> AuthorizationCodeResult:
    """Return what came back, with `iss`, which this line checks."""
    return AuthorizationCodeResult(code=came["code"], state=came.get("state"), iss=came.get("iss"))


def session_of(connected: Client) -> SdkSession:
    """Return a session that reads results as this line names them."""
    return SdkSession(connected, lambda result: result.is_error)


@asynccontextmanager
async def client(repl: Repl) -> AsyncIterator[SdkSession]:
    async def asked(_context: Any, params: Any) -> types.ElicitResult:
        return await elicited(repl, params, types.ElicitResult)

    async with (
        httpx2.AsyncClient(auth=provider(repl, answer), timeout=30, follow_redirects=True) as http,
        Client(
            streamable_http_client(repl.told["url"], http_client=http),
            mode=repl.told.get("mode", "auto"),
            elicitation_callback=asked,
        ) as connected,
    ):
        yield session_of(connected)


if __name__ == "__main__":
    main(client)
