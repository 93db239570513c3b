"""The service embedded in Envoy: the ASGI application that pyvoy loads, and its life."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import httpx

from authz.server.asgi import AsgiTransport, Receive, Scope, Send, refuse
from authz.server.framing import UNAVAILABLE
from authz.server.grpc_calls import Calls
from authz.server.pyvoy import DRAIN
from authz.server.service import Service
from authz.server.worker_ipc import WorkerChannel

# Seconds between two looks whether Envoy listens; and how many looks.
_LOOK: Final = 0.01
_LOOKS: Final = 1000
# Seconds after the last answer, for Envoy to write it.
_WRITE: Final = 0.1


class _Transport(AsgiTransport):
    """Serve in the Envoy around this process."""

    name = "pyvoy"

    def __init__(self, calls: Calls, admin: str) -> None:
        super().__init__(calls)
        self._admin = admin
        self._address = ""

    def listen(self, address: str) -> int:
        """Keep the address, which Envoy binds; its port, or 0 for a socket file."""
        self._address = address
        return 0 if address.startswith("unix:") else int(address.rpartition(":")[2])

    async def start(self) -> None:
        """Return when Envoy listens: it binds after the application has started.

        Raises:
            OSError: where it does not.
        """
        for _ in range(_LOOKS):
            with suppress(OSError):
                await _connect(self._address)
                return
            await asyncio.sleep(_LOOK)
        raise OSError(f"cannot listen on {self._address}")

    async def stop(self, grace: float) -> None:
        """Tell callers to go elsewhere, stop listening, and answer what is in flight."""
        transport = httpx.AsyncHTTPTransport(uds=self._admin)
        async with httpx.AsyncClient(transport=transport) as client:
            await client.post("http://admin/drain_listeners?graceful")
        await asyncio.sleep(DRAIN)
        await self.idle(grace)
        await asyncio.sleep(_WRITE)


async def _connect(address: str) -> None:
    if address.startswith("unix:"):
        _, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.close()


class EmbeddedApp:
    """The ASGI application: start the service with Envoy, and end Envoy with the service."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """Read the worker's settings; nothing is built yet."""
        self._channel = WorkerChannel(env)
        self._transport: _Transport | None = None
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the server's life (ASGI lifespan)."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._transport is None:
            await refuse(send, UNAVAILABLE)
        else:
            await self._transport(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        failed = ""
        try:
            service = self._channel.build(self._make_transport)
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to know
            self._channel.send_failure(error)
            failed = type(error).__name__
        if failed:
            await send({"type": "lifespan.startup.failed", "message": failed})
            return
        self._channel.listen(service)
        # Envoy listens only after the answer below, so this goes on beside it.
        self._task = asyncio.create_task(self._run(service))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._channel.stop_listening()
        await send({"type": "lifespan.shutdown.complete"})

    def _make_transport(self, calls: Calls) -> _Transport:
        self._transport = _Transport(calls, self._channel.settings.admin)
        return self._transport

    async def _run(self, service: Service) -> None:
        try:
            await self._channel.run(service)
        finally:
            # Envoy's own way to end; nothing is in flight any more.
            os.kill(os.getpid(), signal.SIGTERM)
