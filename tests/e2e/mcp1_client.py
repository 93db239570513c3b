"""The official SDK 1.x as a client, run by an environment of its own (`.venv-mcp1`).

Arguments: URL, port of 127.0.0.1, CA file, access token, tool, its arguments. Prints one JSON
line. With `log-in` in the token's place it logs in by itself: it prints a line with the URL for its
person to open, and reads the line with the URL where that ended.
"""

import asyncio
import json
import ssl
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl


class LoopbackCallback(httpx.AsyncHTTPTransport):
    """Send everything to one port of this machine, under the name it was meant for."""

    def __init__(self, name: str, port: int, authority: str) -> None:
        super().__init__(verify=ssl.create_default_context(cafile=authority))
        self._name, self._port = name, port

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        extensions = {**request.extensions, "sni_hostname": self._name}
        return await super().handle_async_request(
            httpx.Request(
                request.method,
                request.url.copy_with(host="127.0.0.1", port=self._port),
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
        )


class MemoryTokens:
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


def log_in(url: str) -> OAuthClientProvider:
    async def opens(address: str) -> None:
        print(json.dumps({"open": address}), flush=True)

    async def comes_back() -> tuple[str, str | None]:
        line = await asyncio.to_thread(sys.stdin.readline)
        answer = parse_qs(urlsplit(line.strip()).query)
        return answer["code"][0], answer.get("state", [None])[0]

    metadata = OAuthClientMetadata(
        client_name="SDK 1.x",
        redirect_uris=[AnyUrl("http://localhost:43210/callback")],
        token_endpoint_auth_method="none",
    )
    return OAuthClientProvider(url, metadata, MemoryTokens(), opens, comes_back)


async def main(url: str, port: str, authority: str, token: str, *calls: str) -> dict[str, Any]:
    tool, arguments = (*calls, "{}")[:2]
    transport = LoopbackCallback(str(urlsplit(url).hostname), int(port), authority)
    auth = log_in(url) if token == "log-in" else None
    headers = {"Authorization": f"Bearer {token}"} if token and auth is None else {}
    async with (
        httpx.AsyncClient(transport=transport, headers=headers, auth=auth, timeout=30) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        began = await session.initialize()
        tools = [each.name for each in (await session.list_tools()).tools]
        result = await session.call_tool(tool, json.loads(arguments))
        return {
            "version": began.protocolVersion,
            "tools": tools,
            "error": result.isError,
            "told": result.structuredContent,
            "text": "".join(getattr(each, "text", "") for each in result.content),
        }


def leaves(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [text for each in error.exceptions for text in leaves(each)]
    return [f"{type(error).__name__}: {error}"]


try:
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
except BaseException as error:
    print(json.dumps({"failed": leaves(error)}))
