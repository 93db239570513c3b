"""What tracing costs a whole check without a ledger: off, sampled at 1 %, and all kept.

Figures are CPU time, since a shared machine takes away the rest. Each round is a new process: where
one has its code and values in memory is worth 3 %. In it the cases take turns of some
milliseconds, whose order changes; "off again" is built as "off" is, and says what such a
comparison can tell apart. Real spans go to a receiver in another process meanwhile.

median µs: of the turns, of the thread that decides. least µs: the quickest turn. and sending: the
median, with what the exporter's thread needs for each check.
"""

import argparse
import asyncio
import io
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

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
from bench.result import Found, as_json, compare, show_spread
from bench.token_cache import POLICY, NoLedger
from tests.support.otlp_receiver import http_receiver
from tests.support.values import call, request
from tests.support.wire import check_request
from tests.tokens.token_factory import ISSUER, TokenBench, rsa_signer

ROUNDS: Final = 12
TURNS: Final = 40  # of each case in a round
BATCH: Final = 100  # checks in a turn, of which one is sampled
OFF, AGAIN, SAMPLED, ALL = "off", "off again", "1 %", "all kept"
SAMPLES: Final[Mapping[str, float | None]] = {OFF: None, AGAIN: None, SAMPLED: 0.01, ALL: 1.0}
# What takes turns, and apart from it what keeps its exporter so busy that it disturbs others.
QUIET, BUSY = (OFF, AGAIN, SAMPLED), (ALL,)
# Checks after which the exporter's thread is measured: about a message of traces.
SENDING: Final[Mapping[str, int]] = {OFF: 0, AGAIN: 0, SAMPLED: 6_400, ALL: 256}
PAUSE: Final = 1.5  # seconds, with the exporter's own pause
DRAIN: Final = 5.0  # seconds, for what is queued
FIGURES: Final = ("median µs", "least µs", "and sending")
PATIENCE: Final = 600.0

Row = dict[str, list[float]]


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


class Cases:
    """Hold a check for each case, each with a recorder of its own, in an order to be chosen."""

    def __init__(self, verifier: TokenVerifier, address: str, names: Sequence[str]) -> None:
        self.checks: dict[str, Check] = {}
        self._exporters: list[OtlpExporter] = []
        for name in names:
            recorder = Recorder(Metrics(), EventLog("json", io.StringIO()))
            sample = SAMPLES[name]
            if sample is not None:
                recorder.tracer = self._tracer(sample, address, recorder)
            snapshot = Snapshot(POLICY, verifier, NoLedger(), Deadline(5.0))
            self.checks[name] = Check(snapshot, recorder, RefusalLimiter())

    def _tracer(self, sample: float, address: str, recorder: Recorder) -> Tracer:
        options = ExportOptions((("service.name", "authz"),))
        exporter = OtlpExporter(lambda: HttpSender(address, ()), options, recorder)
        exporter.start()
        self._exporters.append(exporter)
        # Slow ones are none here: on a loaded machine they would be as many as it pleases.
        kept = KeepOptions(sample=sample, slower_than=None, at_most=1e9)
        # As many in each turn, for what `random.random` costs.
        chance = cycle([0.0] + [0.5] * (BATCH - 1)).__next__
        return Tracer(kept, exporter.spans, exporter.too_many, chance=chance)

    def close(self) -> None:
        for exporter in self._exporters:
            exporter.close(5)


async def turn(check: Check, raw: bytes, number: int) -> float:
    """Return the microseconds of CPU of one check, of this thread."""
    began = time.thread_time()
    for _ in range(number):
        await check(raw)
    return (time.thread_time() - began) / number * 1e6


async def sent(check: Check, raw: bytes, number: int) -> float:
    """Return the microseconds of CPU that other threads need for one check."""
    if not number:
        return 0.0
    await asyncio.sleep(DRAIN)  # what the turns left is not of these checks
    before = time.process_time() - time.thread_time()
    await turn(check, raw, number)
    await asyncio.sleep(PAUSE)
    return (time.process_time() - time.thread_time() - before) / number * 1e6


async def measure(address: str, number: int) -> Row:
    """Return the figures of each case, of this process."""
    verifier = TokenVerifier(TokenBench().keys, ClaimRules(ISSUER, leeway=30, max_lifetime=7200))
    now = int(time.time())
    token = rsa_signer().token({"iat": now, "nbf": now, "exp": now + 3600})
    await verifier.verify(token)
    raw = check_request(request(call("read_file"), authorization=f"Bearer {token}"))
    names = list(SAMPLES)
    first = number % len(names)
    cases = Cases(verifier, address, names[first:] + names[:first])
    tune_gc()  # as the service does, once it is built
    rows: Row = {}
    for group in (QUIET, BUSY):
        turns: dict[str, list[float]] = {name: [] for name in group}
        for _ in range(2):
            for name in group:
                await turn(cases.checks[name], raw, BATCH)
        for each in range(TURNS):
            place = (each + number) % len(group)
            order = group[place:] + group[:place]
            for name in order if each % 2 else reversed(order):
                turns[name].append(await turn(cases.checks[name], raw, BATCH))
        for name, found in turns.items():
            middle = statistics.median(found)
            sending = await sent(cases.checks[name], raw, SENDING[name])
            rows[name] = [middle, min(found), middle + sending]
    cases.close()
    return rows


def measure_here(address: str, number: int, pipe: Connection) -> None:
    pipe.send(asyncio.run(measure(address, number)))


def measure_apart(address: str, number: int) -> Row:
    """Return the figures of one round, which is a new process."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=measure_here, args=(address, number, theirs)
    )
    process.start()
    theirs.close()  # so that a process that dies is the end of the pipe
    try:
        if not ours.poll(PATIENCE):
            raise TimeoutError(f"round {number} takes longer than {PATIENCE:.0f} s")
        row: Row = ours.recv()
    finally:
        process.join(10)
        process.kill()
    return row


def run(rounds: int) -> list[Found]:
    """Measure against a receiver of its own; say after each round what it found."""
    rows: dict[str, list[list[float]]] = {name: [] for name in SAMPLES}
    print(f"compiled: {is_compiled()}", file=sys.stderr)
    with collector() as address:
        for number in range(rounds):
            row = measure_apart(address, number)
            for name, figures in row.items():
                rows[name].append(figures)
            ratios = ", ".join(f"{name} {row[name][0] / row[OFF][0]:.3f}" for name in SAMPLES)
            load = os.getloadavg()[0]
            print(f"round {number + 1} of {rounds}: {ratios}; load {load:.1f}", file=sys.stderr)
    return compare("otlp", FIGURES, rows, OFF)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.otlp",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples (a round takes some ten seconds):
  python -m bench.otlp                                  the sources
  make compiled && cd build/compiled && AUTHZ_COMPILED=required \\
    ../../.venv/bin/python -m bench.otlp 30 --json FILE the compiled decision""",
    )
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 1:
        parser.error("at least one round")
    found = run(chosen.rounds)
    show_spread(found)
    if chosen.json is not None:
        chosen.json.write_text(as_json(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
