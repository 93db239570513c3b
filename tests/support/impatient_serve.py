"""`authz serve` under a process that waits for nobody long, as a program.

    python -P tests/support/impatient_serve.py serve -c authz.yaml --check unix:/path \
        --status 127.0.0.1:0

Several workers, or one that is watched. What takes ten seconds and more in the product takes three
here.
"""

import asyncio
import os
import sys
from argparse import ArgumentParser
from pathlib import Path

from authz.config.addresses import worker_addresses
from authz.config.endpoints import Unix
from authz.config.load import load
from authz.process.supervisor import Backoff
from authz.server.watcher import prepare, watch
from authz.server.worker_control import Watchdog, WorkerPolicy, WorkerSettings
from authz.server.worker_pool import WorkerPool
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder

# -P: the files beside this one must not stand in for modules of libraries.
PROGRAM = ("-P", __file__)
WATCHDOG = Watchdog(interval=0.1, max_missed=30)
GRACE = 1.0
# With the grace more than the watch: that it ends no drain would not show otherwise.
POLICY = WorkerPolicy(Backoff(first=0.05), stop_timeout=3.0, watchdog=WATCHDOG)


def main() -> int:
    parser = ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("-c", dest="config", type=Path)
    parser.add_argument("--check")
    parser.add_argument("--status")
    asked = parser.parse_args()
    host, _, port = asked.status.rpartition(":")
    settings = load(asked.config, os.environ)
    service = settings.config.service
    checks = [
        str(at) for at in worker_addresses(Unix(asked.check.removeprefix("unix:")), service.workers)
    ]
    recorder = Recorder(Metrics(), EventLog("json"))

    async def run() -> int:
        worker = WorkerSettings(str(asked.config), checks[0], (host, int(port)), GRACE)
        if len(checks) == 1:
            watched, watcher = prepare(worker, "json", service.transport)
            return await watch(watched, watcher, os.environ, POLICY)
        pool = WorkerPool(
            worker, checks, settings, env=os.environ, recorder=recorder, policy=POLICY
        )
        return await pool.run()

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
