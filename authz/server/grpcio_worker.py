"""One of several workers on grpcio, as a program: `python -m authz.server.grpcio_worker`.

Law: it is the same service as `authz serve` runs alone; what to run stands in its environment.
"""

import asyncio
import os
import sys
from contextlib import suppress

from authz.server.service import Service
from authz.server.worker_ipc import FAILED, WorkerChannel


async def _serve(channel: WorkerChannel) -> int:
    try:
        service = Service(
            channel.read, os.environ, channel.listeners, channel.recorder(), channel.settings.grace
        )
        channel.listen(service)
        started = asyncio.create_task(channel.send_started(service))
        await service.run()
        await asyncio.wait({started}, timeout=0)
    except Exception as error:  # noqa: BLE001 - whatever it is, the starter has to know
        channel.send(FAILED, error)
        return 1
    channel.write_final_metrics()
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(_serve(WorkerChannel(os.environ))))
