"""What the ledger costs: single and shared trips, limits, and keys that live in Redis.

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
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial

import hiredis

from authz.core.ledger import LedgerAnswer, Query, Taken
from authz.ledger.batch import BatchedLedger
from authz.ledger.redis import RedisLedger, RedisOptions
from tests.ledger.queries import query, take
from tests.support.valkey import ValkeyServer, valkey

IN_FLIGHT = 64
PEOPLE = 500
Ask = Callable[[Query], Awaitable[LedgerAnswer]]


class Bench:
    """One server, one ledger, and what their takes cost."""

    def __init__(self, server: ValkeyServer) -> None:
        options = RedisOptions(server.url, deployment="bench", timeout=20)
        self._server = server
        self.remote = RedisLedger(options)
        self.batched = BatchedLedger(self.remote)

    def redis_cpu(self) -> float:
        found = self._server.command("INFO", "CPU")
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])

    async def cost(self, ask: Ask, limits: int, takes: int, width: int = IN_FLIGHT) -> list[float]:
        """Return seconds for one take: of our CPU, of Redis' CPU, of the wall, and its p50."""
        asked = [
            query(*(take(f"person-{n}-{limit}", quota=10**9) for limit in range(limits)))
            for n in range(PEOPLE)
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

    async def close(self) -> None:
        await self.batched.aclose()
        await self.remote.aclose()


Rows = dict[str, list[list[float]]]


async def in_turns(rounds: int, cases: dict[str, Callable[[], Awaitable[list[float]]]]) -> Rows:
    """Measure every case once in every round, after a round that does not count."""
    found: Rows = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            figures = await case()
            if number:
                found[name].append(figures)
    return found


def show(title: str, rows: Rows, baseline: str) -> None:
    """Print medians, and the median of the ratios to the baseline of the same round."""
    print(f"\n{title}; ratios to: {baseline}")
    print(f"{'':22} {'our CPU µs':>16} {'Redis CPU µs':>16} {'wall µs':>16} {'p50 µs':>16}")
    for name, figures in rows.items():
        cells = []
        for part in range(4):
            median = statistics.median(each[part] for each in figures)
            pairs = zip(figures, rows[baseline], strict=True)
            ratio = statistics.median(one[part] / other[part] for one, other in pairs)
            cells.append(f"{median * 1e6:8.1f} ({ratio:4.2f})")
        print(f"{name:22} " + " ".join(f"{cell:>16}" for cell in cells))


async def run(rounds: int, takes: int, most: int) -> None:
    with valkey() as server:
        bench = Bench(server)
        single, shared = bench.remote.take, bench.batched.take
        rows = await in_turns(
            rounds,
            {
                "single trips": lambda: bench.cost(single, 3, takes),
                "shared trips": lambda: bench.cost(shared, 3, takes),
            },
        )
        show(f"{IN_FLIGHT} in flight, three limits", rows, "single trips")
        rows = await in_turns(
            rounds,
            {
                "single trips": lambda: bench.cost(single, 3, takes // 8, 1),
                "shared trips": lambda: bench.cost(shared, 3, takes // 8, 1),
            },
        )
        show("one at a time, three limits", rows, "single trips")
        rows = await in_turns(
            rounds,
            {
                "no limit": lambda: bench.cost(shared, 0, takes),
                "1 limit": lambda: bench.cost(shared, 1, takes),
                "3 limits": lambda: bench.cost(shared, 3, takes),
                "10 limits": lambda: bench.cost(shared, 10, takes),
            },
        )
        show("limits, shared trips", rows, "1 limit")
        await bench.close()
    await growth(rounds, takes, most)


async def growth(rounds: int, takes: int, most: int) -> None:
    """Compare servers that hold ever more live keys, all running at once."""
    sizes = [size for size in (1_000, 10_000, 100_000, 1_000_000) if size <= most]
    with ExitStack() as stack:
        benches = [Bench(filled(stack.enter_context(valkey()), size)) for size in sizes]
        cases = {
            f"{size} keys": partial(one.cost, one.batched.take, 3, takes)
            for size, one in zip(sizes, benches, strict=True)
        }
        show("live keys, three limits", await in_turns(rounds, cases), f"{sizes[0]} keys")
        for one in benches:
            await one.close()


def filled(server: ValkeyServer, size: int) -> ValkeyServer:
    """Put so many buckets of other people into a server, in pipelines of a thousand."""
    state = struct.pack(">Q11I", 1, *range(11))
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(server.socket))
        for first in range(0, size, 1000):
            names = (b"{bench}:limit:%032x" % n for n in range(first, min(first + 1000, size)))
            line.sendall(
                b"".join(hiredis.pack_command(("SET", each, state, "PX", 10**8)) for each in names)
            )
            answered = 0
            while answered < 5 * min(1000, size - first):
                answered += len(line.recv(65536))
    return server


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    asyncio.run(run(*(numbers + [7, 6400, 1_000_000][len(numbers) :])))
