"""`authz serve` under a process that waits for nobody long, as a program.

    python -P tests/support/impatient_serve.py serve -c authz.yaml --check unix:/path \
        --status 127.0.0.1:0

Several workers, or one on pyvoy. What takes ten seconds and more in the product takes three here.
"""

import asyncio
import os
import sys
from argparse import ArgumentParser
from pathlib import Path

from authz.config.addresses import worker_addresses
from authz.config.load import read, read_text
from authz.config.value_types import Unix
from authz.server import pyvoy
from authz.server.worker_control import Watchdog
from authz.server.worker_pool import PoolSettings, RestartPolicy, WorkerPool
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder

# -P: the files beside this one must not stand in for modules of pyvoy.
PROGRAM = ("-P", __file__)
WATCHDOG = Watchdog(every=0.1, most=30)
GRACE = 1.0
# With the grace more than the watch: that it ends no drain would not show otherwise.
RESTART_POLICY = RestartPolicy(first=0.05, farewell=3.0, watchdog=WATCHDOG)


def main() -> int:
    parser = ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("-c", dest="config", type=Path)
    parser.add_argument("--check")
    parser.add_argument("--status")
    asked = parser.parse_args()
    host, _, port = asked.status.rpartition(":")
    text = read_text(asked.config)
    settings = read(text, str(asked.config), os.environ)
    service = settings.config.service
    checks = [
        str(at) for at in worker_addresses(Unix(asked.check.removeprefix("unix:")), service.workers)
    ]
    recorder = Recorder(Metrics(), EventLog("json"))

    async def run() -> int:
        status = (host, int(port))
        if len(checks) == 1:
            inner = pyvoy.EmbeddedService(asked.config, checks[0], status, GRACE)
            return await pyvoy.run(inner, os.environ, recorder, WATCHDOG)
        pool_settings = PoolSettings(asked.config, checks, status, GRACE, service.transport)
        return await WorkerPool(
            pool_settings, settings, text, os.environ, recorder, restart_policy=RESTART_POLICY
        ).run()

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
