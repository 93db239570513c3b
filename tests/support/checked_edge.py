"""The real check behind a real Envoy, with one MCP server of the test's own behind both."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from authz.config.endpoints import Tcp, Unix
from authz.config.load import Settings
from authz.envoy.render import Topology, render
from authz.server.check import Check
from authz.server.grpc import GrpcTransport
from authz.server.grpc_calls import Calls
from authz.server.health import Health
from tests.support import edge
from tests.support.envoy import running_envoy
from tests.support.gateway import GATEWAY

_SETTINGS: Final = """\
issuer: {{url: https://auth.example.test, internal: http://issuer:9091}}
gateway:
  url: https://mcp.example.test
  listen: 127.0.0.1:0
  http_listen: 127.0.0.1:0
  tls: {{certificate: {folder}/tls/tls.crt, key: {folder}/tls/tls.key}}
servers:
  files: {{upstream: http://files:8000/files, tools: {{"*": {{}}}}}}
"""


@asynccontextmanager
async def checked_edge(check: Check, port: int) -> AsyncIterator[str]:
    """Run Envoy and the check in front of the MCP server at a port; give the server's URL."""
    async with AsyncExitStack() as stack:
        # Short: the path of a Unix socket has 108 bytes at most.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="e")))
        (folder / "tls").mkdir()
        edge.certificate(folder / "tls", 1, GATEWAY, swap=False)
        transport = GrpcTransport(Calls(check, Health(), max_body=1 << 20))
        transport.listen(f"unix:{folder}/check")
        await transport.start()
        stack.push_async_callback(transport.stop, 0)
        where = Topology(
            authz=(Unix(f"{folder}/check"),),
            admin=f"{folder}/admin",
            folder=str(folder),
            upstreams={"files": Tcp("127.0.0.1", port)},
            issuer=Tcp("127.0.0.1", port),
        )
        settings = edge.patient_settings(_SETTINGS.format(folder=folder))
        _follow(check, settings)
        rendered = render(settings, where)
        running = running_envoy(rendered, folder, folder / "admin")
        envoy = await asyncio.to_thread(running.__enter__)
        stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
        yield f"https://127.0.0.1:{envoy.port('gateway')}/files"


def _follow(check: Check, settings: Settings) -> None:
    """Have the check's rules be for the upstream to which Envoy's route leads."""
    upstream = settings.policy.servers["files"].upstream
    policy = check.snapshot.policy
    files = replace(policy.servers["files"], upstream=upstream)
    servers = {**policy.servers, "files": files}
    check.snapshot = replace(check.snapshot, policy=replace(policy, servers=servers))
