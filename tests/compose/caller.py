"""A caller with a token, and one without: single calls, and a load with all that it met."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from authz_demo.client import LoginHandler, MemoryTokenStorage, connect, provider
from authz_demo.loopback import LoopbackTransport
from authz_demo.reporter import headers, message, reason_of
from tests.compose.deployment import ComposeDeployment
from tests.support.load import LoadAnswer

CLIENT: Final = "a program on a desk"
CALLBACK: Final = "http://127.0.0.1:43210/callback"
_TIMEOUT: Final = 60.0
_EXPLAINED: Final = 20  # answers


async def log_in(
    deployment: ComposeDeployment, server: str, mode: str
) -> tuple[dict[str, Any], str]:
    """Let the official client log in, with TOTP; return what `whoami` says, and its token."""
    told, storage = await log_in_to_stay(deployment, server, mode)
    assert storage.tokens is not None
    return told, storage.tokens.access_token


async def log_in_to_stay(
    deployment: ComposeDeployment, server: str, mode: str
) -> tuple[dict[str, Any], MemoryTokenStorage]:
    """Do the same; return what `whoami` says, and all that the client keeps."""
    url = f"{deployment.gateway}/{server}"
    storage = MemoryTokenStorage(None)  # it knows the URL and nothing else: it registers itself
    async with deployment.network.browser() as browser:
        login = LoginHandler(deployment.person, browser)
        made = provider(url, CLIENT, CALLBACK, login, storage)
        async with connect(deployment.network, url, made, mode) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            assert "whoami" in tools
            result = await client.call_tool("whoami", {})
    assert len(login.opened) == 1
    assert not result.is_error
    return dict(result.structured_content or {}), storage


async def refresh(deployment: ComposeDeployment, storage: MemoryTokenStorage) -> httpx.Response:
    """Ask for new tokens, as a client does whose access token has expired."""
    assert storage.tokens is not None
    assert storage.client_info is not None
    form = {"grant_type": "refresh_token", "refresh_token": storage.tokens.refresh_token}
    form["client_id"] = storage.client_info.client_id
    async with _client(deployment) as http:
        return await http.post(f"{deployment.gateway}/token", data=form)


@dataclass(slots=True)
class CallerLoad:
    """Call a server again and again, with a token and without.

    Attributes:
        met: how often each answer came to the caller with the token: a status, or an error's name.
        strangers: the same for the one without.
        slowest: seconds of the longest answer with 200.
        failures: the answers other than 200 with the token, and other than 401 without.
    """

    deployment: ComposeDeployment
    token: str
    met: Counter[str] = field(default_factory=Counter)
    strangers: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    failures: list[LoadAnswer] = field(default_factory=list)

    def explain(self) -> str:
        """Say of each failure what its answer and the logs of all services say of it."""
        logs = self.deployment.compose("logs", "--no-color", check=False).splitlines()
        lines = [f"{dict(self.met)}, without a token {dict(self.strangers)}"]
        for each in self.failures[:_EXPLAINED]:
            lines.append(f"{each.status} request {each.request_id or 'without an id'}: {each.text}")
            if each.request_id:
                lines += (f"  {line}" for line in logs if each.request_id in line)
        return "\n".join(lines)

    async def run(self, until: asyncio.Event) -> None:
        """Call until told to stop."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(self._calls(until, self.token, self.met))
            tasks.create_task(self._calls(until, None, self.strangers))

    async def _calls(self, until: asyncio.Event, token: str | None, met: Counter[str]) -> None:
        async with _client(self.deployment) as http:
            while not until.is_set():
                loop = asyncio.get_running_loop()
                began = loop.time()
                try:
                    answer = await call(http, self.deployment, "notes", token)
                    # A refusal may have the status 200 (docs/decisions/0011).
                    reason = reason_of(answer) if answer.status_code == httpx.codes.OK else ""
                    met[reason or str(answer.status_code)] += 1
                    if answer.status_code == httpx.codes.OK and not reason:
                        self.slowest = max(self.slowest, loop.time() - began)
                    elif token is not None or answer.status_code != httpx.codes.UNAUTHORIZED:
                        request_id = answer.headers.get("x-request-id", "")
                        told = LoadAnswer(answer.status_code, request_id, answer.text)
                        self.failures.append(told)
                except httpx.TransportError as error:
                    met[_name(error)] += 1
                    self.failures.append(LoadAnswer(0, "", repr(error)))
                await asyncio.sleep(0.02)


def _name(error: httpx.TransportError) -> str:
    return "time-out" if isinstance(error, httpx.TimeoutException) else "no connection"


def _client(deployment: ComposeDeployment) -> httpx.AsyncClient:
    transport = LoopbackTransport(deployment.network)
    return httpx.AsyncClient(transport=transport, trust_env=False, timeout=_TIMEOUT)


async def call(
    http: httpx.AsyncClient, deployment: ComposeDeployment, server: str, token: str | None
) -> httpx.Response:
    """Call the tool `whoami`."""
    body = message("tools/call", {"name": "whoami", "arguments": {}})
    sent = headers(body) if token is None else headers(body, token)
    return await http.post(f"{deployment.gateway}/{server}", json=body, headers=sent)


async def once(deployment: ComposeDeployment, server: str, token: str | None) -> httpx.Response:
    """Call once."""
    async with _client(deployment) as http:
        return await call(http, deployment, server, token)
