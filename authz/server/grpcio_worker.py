"""One of several workers on grpcio, as a program: `python -m authz.server.grpcio_worker`."""

import asyncio
import os
import sys
from contextlib import suppress

from authz.server.grpc import GrpcTransport
from authz.server.worker_ipc import WorkerChannel


async def _serve(channel: WorkerChannel) -> int:
    try:
        service = channel.build(GrpcTransport)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to know
        channel.send_failure(error)
        return 1
    channel.listen(service)
    return 0 if await channel.run(service) else 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(_serve(WorkerChannel(os.environ))))
