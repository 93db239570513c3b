"""One of several workers on grpcio, as a program: `python -m authz.server.grpcio_worker`.

Law: it is the same service as `authz serve` runs alone; what to run stands in its environment.
"""

import asyncio
import os
import sys
from contextlib import suppress

from authz.server.orders import FAILED, Ordered
from authz.server.service import Service


async def _serve(ordered: Ordered) -> int:
    try:
        service = Service(
            ordered.read, os.environ, ordered.listeners, ordered.recorder(), ordered.orders.grace
        )
        ordered.obey(service)
        started = asyncio.create_task(ordered.tell_start(service))
        await service.run()
        await asyncio.wait({started}, timeout=0)
    except Exception as error:  # noqa: BLE001 - whatever it is, the starter has to know
        ordered.tell(FAILED, error)
        return 1
    ordered.bid_farewell()
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(_serve(Ordered(os.environ))))
