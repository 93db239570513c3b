"""Ask an MCP server for its tools, as a client of either era of the protocol.

Invariant: whatever a server answers gives a list or ToolListError, within bounds of time, pages,
bytes and tools; no redirect is followed, nothing is unpacked, and requests carry no credentials
(tests/server/test_tool_lists.py).
"""

import asyncio
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import httpx

from authz.config.model import ServerConfig
from authz.core.catalogue import DefinitionError, ToolDefinition, read_definition
from authz.core.policy import LEGACY, MODERN
from authz.core.strict_json import StrictJsonError, loads
from authz.http import bounded
from authz.http.bounded_network import BoundedTransport
from authz.server import sample

MAX_TOOLS: Final = 1024
_MAX_PAGES: Final = 64
_MAX_BYTES: Final = 4 << 20  # of one response
_MAX_TOTAL: Final = 8 << 20  # of all: reading them takes time from decisions
_MAX_EVENTS: Final = 1_000  # of one response, before the answer
_MAX_WORK: Final = 1_000_000_000
_MAX_CURSOR: Final = 4096
_SECONDS: Final = 10.0
_SESSION: Final = "mcp-session-id"
_OK: Final = 200
_ASKS_WHO: Final = frozenset({401, 403})


class ToolListError(Exception):
    """Say in fixed words why a server gave no list."""


@dataclass(frozen=True, slots=True)
class ToolList:
    """Hold what a server says of its tools.

    Attributes:
        definitions: in the order of the server.
        rejected: why others are none: fixed words, one for each.
    """

    definitions: tuple[ToolDefinition, ...]
    rejected: tuple[str, ...] = ()


async def list_tools(
    server: ServerConfig,
    *,
    seconds: float = _SECONDS,
    verify: ssl.SSLContext | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> ToolList:
    """Return the tools of a server, in the newest protocol that both speak.

    Args:
        server: its entry in authz.yaml.
        seconds: how long all of it may take.
        verify: which authorities to trust (config/upstream_authorities.py); None for the system's
            and SSL_CERT_FILE.
        transport: reaches the server; None for its address or socket.

    Raises:
        ToolListError: where there is no list to be had.
    """
    try:
        async with asyncio.timeout(seconds):
            async with _client(transport or await _transport(server, verify)) as client:
                return await _McpClient(client, server).tools()
    except TimeoutError:
        raise ToolListError("it does not answer in time") from None
    except httpx.RemoteProtocolError:
        raise ToolListError("what it answers is no HTTP, or has no end") from None
    except (httpx.HTTPError, httpx.InvalidURL):
        raise ToolListError("it cannot be reached") from None
    except bounded.UnexpectedStatusError as error:
        who = " (it asks who calls)" if error.status in _ASKS_WHO else ""
        raise ToolListError(f"it answers with HTTP status {error.status}{who}") from None
    except bounded.BoundedReadError as error:
        raise ToolListError(f"its answer is {error}") from None


async def _transport(
    server: ServerConfig, verify: ssl.SSLContext | None
) -> httpx.AsyncBaseTransport:
    # In a thread: reading the system's authorities takes long.
    secure = server.upstream.startswith("https:")
    trust = verify
    if secure and trust is None:
        trust = await asyncio.to_thread(ssl.create_default_context)
    uds = None if server.socket is None else server.socket.path
    return BoundedTransport(2 * _MAX_TOTAL, trust, uds)


def _client(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=transport,
        headers={"accept-encoding": "identity"},
        timeout=_SECONDS,
        trust_env=False,
    )


class _McpClient:
    """Speak with one server."""

    def __init__(self, client: httpx.AsyncClient, server: ServerConfig) -> None:
        self._client = client
        self._url = server.upstream
        self._versions = frozenset(server.versions)
        self._session: dict[str, str] = {}
        self._left = _MAX_TOTAL

    async def tools(self) -> ToolList:
        """Return the list, in the newest protocol first."""
        legacy = self._versions - {MODERN}
        if MODERN in self._versions:
            try:
                return await self._pages(MODERN)
            except (ToolListError, bounded.BoundedReadError):
                if not legacy:
                    raise
        version = await self._initialize(max(legacy))
        try:
            return await self._pages(version)
        finally:
            await self._end()

    async def _initialize(self, version: str) -> str:
        """Begin a session and return its version."""
        headers, body = sample.message({version}, "initialize")
        body["params"] = {
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": sample.CLIENT_INFO,
        }
        headers.pop("mcp-protocol-version")  # it is being negotiated
        found, answer = await self._ask(headers, body)
        session = answer.headers.get(_SESSION)
        if session is not None:
            self._session[_SESSION] = session
        chosen = found.get("protocolVersion")
        if chosen not in LEGACY:
            raise ToolListError("it speaks no version of MCP that is known here")
        version = str(chosen)
        headers, body = sample.message({version}, "notifications/initialized")
        del body["id"]
        request = self._request(headers, body)
        await bounded.send(self._client, request, _MAX_BYTES, frozenset({_OK, 202, 204}))
        return version

    async def _end(self) -> None:
        """End the session, where there is one; a server may refuse that."""
        if self._session:
            with suppress(httpx.HTTPError, bounded.BoundedReadError):
                request = self._client.build_request("DELETE", self._url, headers=self._session)
                await bounded.send(self._client, request, _MAX_BYTES)

    async def _pages(self, version: str) -> ToolList:
        found = ToolList(())
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            headers, body = sample.message({version}, "tools/list", cursor=cursor)
            result, _answer = await self._ask(headers, body)
            found = await asyncio.to_thread(_more, found, result.get("tools"))
            following = result.get("nextCursor")
            if following is None:
                return found
            if not isinstance(following, str) or len(following) > _MAX_CURSOR:
                raise ToolListError("its list has a cursor that is no text, or too long")
            cursor = following
        raise ToolListError(f"its list has more than {_MAX_PAGES} pages")

    async def _ask(
        self, headers: Mapping[str, str], body: Mapping[str, object]
    ) -> tuple[Mapping[str, object], bounded.BoundedResponse]:
        """Return the result of a request, and the response that it came with."""
        request = self._request(headers, body)
        answer = await bounded.send(self._client, request, _MAX_BYTES, frozenset({_OK}))
        self._left -= len(answer.body)
        if self._left < 0:
            raise ToolListError(f"its answers are longer than {_MAX_TOTAL >> 10} KiB together")
        # In a thread: it may be megabytes, and no check waits for them.
        return await asyncio.to_thread(_result, answer, body["id"]), answer

    def _request(self, headers: Mapping[str, str], body: Mapping[str, object]) -> httpx.Request:
        content = json.dumps(body).encode("ascii")
        return self._client.build_request(
            "POST", self._url, headers={**headers, **self._session}, content=content
        )


def _result(answer: bounded.BoundedResponse, request_id: object) -> Mapping[str, object]:
    media = bounded.media_type(answer.headers.get("content-type", ""))
    found = _events(answer.body) if media == "text/event-stream" else iter([answer.body])
    for count, data in enumerate(found):
        if count == _MAX_EVENTS:
            raise ToolListError(f"its stream has more than {_MAX_EVENTS} events before the answer")
        message = _message(data)
        if message.get("id") != request_id or "method" in message:
            continue  # a notification, or a question of the server's
        result = message.get("result")
        if isinstance(result, dict):
            return result
        raise ToolListError("it answers with an error")
    raise ToolListError("it answers something else")


def _more(found: ToolList, tools: object) -> ToolList:
    """Add a page to a list."""
    if not isinstance(tools, list):
        raise ToolListError("its list is no array")
    definitions, rejected = list(found.definitions), list(found.rejected)
    for tool in tools:
        try:
            definitions.append(read_definition(tool))
        except DefinitionError as error:
            rejected.append(str(error))
        if len(definitions) + len(rejected) > MAX_TOOLS:
            raise ToolListError(f"it lists more than {MAX_TOOLS} tools")
    return ToolList(tuple(definitions), tuple(rejected))


def _message(data: bytes) -> Mapping[str, object]:
    try:
        message = loads(data, max_work=_MAX_WORK)
    except StrictJsonError as error:
        raise ToolListError(f"its answer is no strict JSON: {error.detail.value}") from None
    if not isinstance(message, dict):
        raise ToolListError("its answer is no JSON-RPC message")
    return message


def _events(body: bytes) -> Iterator[bytes]:
    """Yield the data of each event of a stream (WHATWG HTML, section 9.2.6)."""
    data = list[bytes]()
    for line in [*body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), b""]:
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif not line and data:
            if any(data):  # an event may begin a stream with no data at all
                yield b"\n".join(data)
            data = []
