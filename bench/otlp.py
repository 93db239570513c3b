"""What tracing costs a whole Check: off, at 1 %, and all kept, in turns in one run.

Real spans go to a receiver in another process meanwhile, so that the thread that sends them is in
the figure of CPU. Refusals and slow ones would be kept besides; none is here.

    python -m bench.otlp [rounds]
"""

import asyncio
import io
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from authz.ledger.deadline import Deadline
from authz.server.check import Check, Snapshot
from authz.server.refusal_limiter import RefusalLimiter
from authz.server.service import is_compiled, tune_gc
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.otlp.exporter import ExportOptions, OtlpExporter
from authz.telemetry.otlp.senders import HttpSender
from authz.telemetry.recorder import Recorder
from authz.telemetry.traces import KeepOptions, Tracer
from authz.tokens.claims import ClaimRules
from authz.tokens.verifier import TokenVerifier
from bench.result import Found, compare, show
from bench.token_cache import POLICY, NoLedger
from tests.support.otlp_receiver import http_receiver
from tests.support.values import call, request
from tests.support.wire import check_request
from tests.tokens.token_factory import ISSUER, TokenBench, rsa_signer

# Each round is the quickest of so many turns: on a shared machine, the one that was left alone.
TURNS = 6
BATCH = 100
SENDING = 500
OFF = "off"
SAMPLES = {OFF: None, "1 %": 0.01, "all": 1.0}


def receive(pipe: Connection) -> None:
    with http_receiver() as receiver:
        pipe.send(receiver.address)
        pipe.recv()


@contextmanager
def collector() -> Iterator[str]:
    """Run a receiver in another process; give its address."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=receive, args=(theirs,))
    process.start()
    try:
        yield ours.recv()
        ours.send(None)
    finally:
        process.join(10)
        process.kill()


async def sent(check: Check, raw: bytes) -> float:
    """Return the microseconds a decision that the thread which sends takes of the processor."""
    others = time.process_time() - time.thread_time()
    for _ in range(SENDING):
        await check(raw)
    await asyncio.sleep(1.2)  # the thread's own pause, and some more
    return (time.process_time() - time.thread_time() - others) / SENDING * 1e6


async def run(rounds: int, address: str) -> list[Found]:
    tune_gc()  # as the service does
    verifier = TokenVerifier(TokenBench().keys, ClaimRules(ISSUER, leeway=30, max_lifetime=7200))
    now = int(time.time())
    token = rsa_signer().token({"iat": now, "nbf": now, "exp": now + 3600})
    await verifier.verify(token)
    raw = check_request(request(call("read_file"), authorization=f"Bearer {token}"))
    checks, exporters = {}, []
    for name, sample in SAMPLES.items():
        recorder = Recorder(Metrics(), EventLog("json", io.StringIO()))
        if sample is not None:
            options = ExportOptions((("service.name", "authz"),))
            exporter = OtlpExporter(lambda: HttpSender(address, ()), options, recorder)
            exporter.start()
            exporters.append(exporter)
            kept = KeepOptions(sample=sample, slower_than=None, at_most=1e9)
            recorder.tracer = Tracer(kept, exporter.spans, exporter.too_many)
        snapshot = Snapshot(POLICY, verifier, NoLedger(), Deadline(5.0))
        checks[name] = Check(snapshot, recorder, RefusalLimiter())
    rows: dict[str, list[list[float]]] = {name: [] for name in checks}
    for number in range(rounds + 1):
        best = dict.fromkeys(checks, float("inf"))
        for turn in range(TURNS):
            order = list(checks.items())
            for name, check in order if turn % 2 else reversed(order):
                began = time.thread_time()
                for _ in range(BATCH):
                    await check(raw)
                best[name] = min(best[name], time.thread_time() - began)
        sending = {name: await sent(check, raw) for name, check in checks.items()}
        if number:  # the first round does not count
            for name, seconds in best.items():
                answer = seconds / BATCH * 1e6
                rows[name].append([answer, answer + sending[name]])
    for exporter in exporters:
        exporter.close(5)
    return compare("otlp", ["answer µs", "and sending"], rows, OFF)


def main(rounds: int) -> list[Found]:
    """Measure against a receiver of its own."""
    with collector() as address:
        found = asyncio.run(run(rounds, address))
    load = os.getloadavg()[0]
    print(f"compiled: {is_compiled()}; load of this machine: {load:.1f}")
    return found


if __name__ == "__main__":
    show(main(int(sys.argv[1]) if sys.argv[1:] else 20))
