"""A worker that is a process of its own: `python -m authz.server.worker_program ngh2|grpcio`."""

import asyncio
import os
import sys
from contextlib import suppress
from importlib import import_module

from authz.server.service import MakeTransport
from authz.server.worker_ipc import WorkerChannel


def _grpcio() -> MakeTransport:
    from authz.server.grpc import GrpcTransport  # noqa: PLC0415 - only where it is asked for

    return GrpcTransport


def _ngh2() -> MakeTransport:
    from authz.server.http2_transport import Http2Transport  # noqa: PLC0415 - as above

    return Http2Transport


_TRANSPORTS = {"grpcio": _grpcio, "ngh2": _ngh2}


async def _serve(channel: WorkerChannel, name: str) -> int:
    try:
        service = channel.build(_TRANSPORTS[name]())
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to know
        channel.send_failure(error)
        return 1
    channel.listen(service)
    return 0 if await channel.run(service) else 1


def _run(name: str) -> int:
    channel = WorkerChannel(os.environ)
    if name == "ngh2":
        # asyncio's own loop takes half as much CPU again; grpcio needs that one.
        with suppress(ImportError):
            return import_module("uvloop").run(_serve(channel, name))  # type: ignore[no-any-return]
    return asyncio.run(_serve(channel, name))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(_run(sys.argv[1]))
