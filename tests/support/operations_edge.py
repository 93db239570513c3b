"""The real service with its audit trail in a real Valkey, behind a real Envoy, before an official
MCP server (`desk`) whose tools, prompts and resources are under rules.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import mcp_types
from cryptography.hazmat.primitives.asymmetric import ec
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler

from authz.config.endpoints import Unix
from authz.config.key_files import to_pem
from authz.envoy.render import Topology, render
from authz_demo.serving import Address, serve
from tests.support import edge
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.gateway import GATEWAY
from tests.support.service import ServiceProcess, running_issuer, running_service
from tests.support.valkey import valkey
from tests.tokens.token_factory import rsa_signer

_CONFIG: Final = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, deadline: 30s}}
front_door: {{key_file: {folder}/front-door.pem, step_up: off}}
redis: {{url: '{redis}', max_away: 5m}}
clients:
{clients}
gateway:
  url: https://mcp.example.test
  listen: 127.0.0.1:0
  http_listen: 127.0.0.1:0
  tls: {{certificate: {folder}/tls/tls.crt, key: {folder}/tls/tls.key}}
telemetry: {{log: json}}
service: {{drain_notice: 0s}}
servers:
  desk:
    upstream: http://desk:8000/desk
    limits: []
    tools:
      list_files: {{}}
      delete_file: {{when: [{{argument: /path, under: /tmp}}], audit: [/path]}}
      move_file: {{when: [{{argument: /path, under: /tmp}}]}}
      transfer:
        when: [{{argument: /amount, range: {{max: 100}}}}]
        also: [{{when: [{{argument: /amount, range: {{above: 100}}}}], scopes: [mcp:desk:large]}}]
    prompts:
      letter: {{when: [{{argument: /tone, in: [plain, warm]}}], audit: [/tone]}}
      board_*: {{groups: [board]}}
    resources:
      file:///public/*: {{}}
      note://board/*: {{groups: [board], limits: [{{per: user, rate: 1000/minute}}]}}
"""
CLIENTS: Final = (
    "sdk-2-legacy", "sdk-2-modern", "sdk-1", "typescript", "board-legacy", "board", "repeating",
)  # fmt: skip
_PATIENCE: Final = 120


def token(client_id: str, **claims: object) -> str:
    """Return a token of john for `desk`, of one client."""
    now = int(time.time())
    times = {"iat": now - 5, "nbf": now - 5, "exp": now + 600, "jti": os.urandom(8).hex()}
    said = {"aud": ["https://mcp.example.test/desk"], "scp": ["mcp:desk"], "client_id": client_id}
    return rsa_signer().token({**times, **said, **claims})


class DeskServer:
    """An official low-level server of both eras that says what reached it.

    Attributes:
        ran: method and name of each operation that came, in order.
    """

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        listening = ListenHandler(InMemorySubscriptionBus())

        async def tools(*_: Any) -> mcp_types.ListToolsResult:
            names = ("list_files", "delete_file", "transfer", "shutdown")
            schema = {"type": "object"}
            found = [mcp_types.Tool(name=name, input_schema=schema) for name in names]
            # A client of 2026-07-28 repeats this argument in a header.
            path = {"type": "string", "x-mcp-header": "Path"}
            repeated = {"type": "object", "properties": {"path": path}}
            found.append(mcp_types.Tool(name="move_file", input_schema=repeated))
            return mcp_types.ListToolsResult(tools=found)

        async def call(_: Any, params: mcp_types.CallToolRequestParams) -> mcp_types.CallToolResult:
            self.ran.append(("tools/call", params.name))
            return mcp_types.CallToolResult(content=[mcp_types.TextContent(text="done")])

        async def prompts(*_: Any) -> mcp_types.ListPromptsResult:
            names = ("letter", "board_minutes", "secret")
            return mcp_types.ListPromptsResult(
                prompts=[mcp_types.Prompt(name=name) for name in names]
            )

        async def get(
            _: Any, params: mcp_types.GetPromptRequestParams
        ) -> mcp_types.GetPromptResult:
            self.ran.append(("prompts/get", params.name))
            said = mcp_types.TextContent(text="Write a letter.")
            return mcp_types.GetPromptResult(
                messages=[mcp_types.PromptMessage(role="user", content=said)]
            )

        async def resources(*_: Any) -> mcp_types.ListResourcesResult:
            return mcp_types.ListResourcesResult(resources=[])

        async def read(
            _: Any, params: mcp_types.ReadResourceRequestParams
        ) -> mcp_types.ReadResourceResult:
            self.ran.append(("resources/read", str(params.uri)))
            text = mcp_types.TextResourceContents(uri=params.uri, text="text")
            return mcp_types.ReadResourceResult(contents=[text])

        async def subscribe(
            _: Any, params: mcp_types.SubscribeRequestParams
        ) -> mcp_types.EmptyResult:
            self.ran.append(("resources/subscribe", str(params.uri)))
            return mcp_types.EmptyResult()

        async def listen(
            context: Any, params: mcp_types.SubscriptionsListenRequestParams
        ) -> mcp_types.SubscriptionsListenResult:
            uris = params.notifications.resource_subscriptions or []
            self.ran.append(("subscriptions/listen", ", ".join(map(str, uris))))
            return await listening(context, params)

        async def complete(
            _: Any, params: mcp_types.CompleteRequestParams
        ) -> mcp_types.CompleteResult:
            ref = params.ref
            name = ref.name if isinstance(ref, mcp_types.PromptReference) else str(ref.uri)
            self.ran.append(("completion/complete", name))
            return mcp_types.CompleteResult(completion=mcp_types.Completion(values=["plain"]))

        self._server: Server[Any] = Server(
            "desk",
            on_list_tools=tools,
            on_call_tool=call,
            on_list_prompts=prompts,
            on_get_prompt=get,
            on_list_resources=resources,
            on_read_resource=read,
            on_subscribe_resource=subscribe,
            on_subscriptions_listen=listen,
            on_completion=complete,
        )

    @contextmanager
    def running(self, socket: Path) -> Iterator[None]:
        """Serve on a Unix socket, in a loop of its own."""
        ready, stop = threading.Event(), asyncio.Event()
        runner = asyncio.Runner()
        loop = runner.get_loop()

        async def run() -> None:
            app = self._server.streamable_http_app(streamable_http_path="/desk", host="desk")
            async with serve(app, Address(uds=socket)):
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=runner.run, args=(run(),))
        thread.start()
        try:
            assert ready.wait(_PATIENCE)
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            runner.close()


@dataclass(frozen=True, slots=True)
class OperationsEdge:
    """Hold the running parts."""

    envoy: RunningEnvoy
    service: ServiceProcess
    desk: DeskServer
    folder: Path = field(repr=False)

    @property
    def port(self) -> int:
        """Return the port of the gateway on 127.0.0.1."""
        return self.envoy.port("gateway")

    def audit(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Type `authz audit`."""
        command = [sys.executable, "-m", "authz", "audit", *words, "-c", str(self.service.config)]
        env = {"PATH": os.environ["PATH"]}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env=env
        )


@contextmanager
def running_operations_edge() -> Iterator[OperationsEdge]:
    """Run all of it; ports are the system's choice."""
    with ExitStack() as stack:
        # Short: the path of a Unix socket has 108 bytes at most.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="o")))
        for inner in ("tls", "service"):
            (folder / inner).mkdir()
        edge.certificate(folder / "tls", 1, GATEWAY, swap=False)
        key = folder / "front-door.pem"
        key.touch(0o600)
        key.write_text(to_pem(ec.generate_private_key(ec.SECP256R1())))
        issuer = stack.enter_context(running_issuer())
        redis = stack.enter_context(valkey())
        desk = DeskServer()
        stack.enter_context(desk.running(folder / "desk"))
        clients = "\n".join(f"  {name}: {{login: direct}}" for name in CLIENTS)
        config = _CONFIG.format(
            issuer=issuer.address, folder=folder, redis=redis.url, clients=clients
        )
        service = stack.enter_context(
            running_service(folder / "service", config, {"PATH": os.environ["PATH"]})
        )
        service.wait_ready()
        where = Topology(
            authz=(Unix(f"{folder}/service/check.sock"),),
            admin=f"{folder}/admin",
            folder=str(folder),
            upstreams={"desk": Unix(f"{folder}/desk")},
            pages=(Unix(f"{folder}/pages"),),
        )
        rendered = render(edge.patient_settings(config), where)
        envoy = stack.enter_context(running_envoy(rendered, folder, folder / "admin"))
        yield OperationsEdge(envoy, service, desk, folder)
