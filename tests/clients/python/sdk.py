"""What both lines of the official Python SDK are given, whichever is installed beside this file.

The same files run in two environments: whatever the lines name differently is an argument here.
"""

from collections.abc import Callable
from typing import Any, Protocol

from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl
from repl import NAME, Repl, text


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


def provider(repl: Repl, answer: Callable[[dict[str, str]], Any]) -> OAuthClientProvider:
    """Return the SDK's OAuth, which keeps its tokens as long as the process runs.

    Args:
        repl: the person.
        answer: makes of what came back to the redirect URI what this line wants to be told.
    """
    came: dict[str, str] = {}

    async def opens(address: str) -> None:
        came.clear()
        came.update(await repl.log_in(address))

    async def comes_back() -> Any:
        if "error" in came:
            raise RuntimeError(f"{came['error']}: {came.get('error_description', '')}")
        return answer(came)

    metadata = OAuthClientMetadata(
        client_name=repl.told["name"],
        redirect_uris=[AnyUrl(repl.told["redirect_uri"])],
        token_endpoint_auth_method="none",
    )
    return OAuthClientProvider(repl.told["url"], metadata, STORAGE, opens, comes_back)


async def elicited(repl: Repl, params: Any, result: Callable[..., Any]) -> Any:
    """Answer a question of the server, or of the gateway, with the line's `ElicitResult`."""
    if getattr(params, "mode", "form") == "url":
        await repl.ask({"visit": params.url})
        return result(action="accept")
    return result(action="accept", content={"name": NAME})


class SdkCaller(Protocol):
    """What both lines call alike."""

    async def list_tools(self) -> Any: ...

    async def call_tool(self, name: str, arguments: dict[str, Any], **options: Any) -> Any: ...


class SdkSession:
    """One session of the SDK."""

    def __init__(self, caller: SdkCaller, is_error: Callable[[Any], bool]) -> None:
        self._caller = caller
        self._is_error = is_error

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self._caller.list_tools()).tools]

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        seen: list[float] = []

        async def progress(done: float, _total: float | None, _message: str | None) -> None:
            seen.append(done)

        result = await self._caller.call_tool(tool, arguments, progress_callback=progress)
        return {
            "text": text(result.content),
            "is_error": self._is_error(result),
            "progress": len(seen),
        }
