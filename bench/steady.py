"""What a decision costs at a steady load: CPU and switches of each thread, for each request.

The service on each transport in each tree, the load and a Redis on this machine; requests are
sent at given moments, the cases in turns. A switch is a voluntary context switch: a thread waited
and was woken. What a thread does while nobody asks is measured first, and taken off.

    python -m bench.steady [--rate N] [--seconds N] [--rounds N] [--transport NAME]... [TREE...]

With several transports (by default what `auto` takes) or trees (checkouts), ratios are to the first
case.
"""

import argparse
import asyncio
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.load import Load, undisturbed
from bench.transports import CONFIG, METHOD, ROOT, allowed, started_full, step_up, token
from tests.support.service import running_issuer
from tests.support.valkey import valkey
from tests.support.values import call, request
from tests.support.wire import check_request

# Microseconds of CPU, and switches, by the name of a thread.
Spent = Counter[tuple[str, str]]


def spent(processes: dict[str, int]) -> Spent:
    """Return what each thread of some processes has spent; threads of one name are summed."""
    found = Spent()
    for name, pid in processes.items():
        main = str(pid)
        for task in Path(f"/proc/{pid}/task").iterdir():
            thread = (task / "comm").read_text().strip()
            kind = f"{name} {'main' if task.name == main else thread}"
            status = (task / "status").read_text()
            switches = re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)
            found[kind, "us"] += int((task / "schedstat").read_text().split()[0]) // 1000
            found[kind, "switches"] += int(switches[0])
    return found


def measure(
    load: Load, message: bytes, processes: dict[str, int], rate: float, seconds: float
) -> Spent:
    """Return what one request costs, times a thousand."""
    calls = int(rate * seconds)
    before = spent(processes)
    time.sleep(seconds)
    idle = spent(processes)
    moments = [number / rate for number in range(calls)]
    load.paced([message] * calls, moments, time.perf_counter() + 0.05)
    after = spent(processes)
    cost = Spent()
    for key in after:
        cost[key] = round(((after[key] - idle[key]) - (idle[key] - before[key])) / calls * 1000)
    return cost


def run(
    services: Sequence[tuple[Path, str]], rate: float, seconds: float, rounds: int
) -> list[dict[tuple[str, str], list[int]]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        issuer = stack.enter_context(running_issuer())
        cases: list[tuple[Load, dict[str, int]]] = []
        message = check_request(request(call("read_file"), authorization=f"Bearer {token()}"))
        for number, (tree, transport) in enumerate(services):
            redis = stack.enter_context(valkey())
            asyncio.run(step_up(redis.url))
            path, socket = folder / f"{number}.yaml", folder / f"{number}.sock"
            text = CONFIG.format(issuer=issuer.address, redis=redis.url, transport=transport)
            path.write_text(text)
            command = ["authz", "serve", "-c", str(path), "--status", "127.0.0.1:0", "--check"]
            server = stack.enter_context(started_full(command, folder, f"{number}", socket, tree))
            load = Load(server.path, METHOD, message, allowed)
            stack.callback(load.close)
            assert redis.process is not None
            cases.append((load, {"worker": server.pid, "redis": redis.process.pid}))
            undisturbed(load.run, 500, 8)
        found: list[dict[tuple[str, str], list[int]]] = [{} for _ in services]
        for _ in range(rounds):
            for (load, processes), costs in zip(cases, found, strict=True):
                for key, cost in undisturbed(
                    measure, load, message, processes, rate, seconds
                ).items():
                    costs.setdefault(key, []).append(cost)
        return found


def show(found: list[dict[tuple[str, str], list[int]]]) -> None:
    """Print medians a thread and tree, and their sums."""
    threads = sorted({thread for costs in found for thread, _ in costs})
    print(f"{'':34}" + f"{'CPU µs, switches a request':>34}" * len(found))
    totals = [[0.0, 0.0] for _ in found]
    for thread in threads:
        cells = []
        for number, costs in enumerate(found):
            pair = [
                statistics.median(costs.get((thread, k), [0])) / 1000 for k in ("us", "switches")
            ]
            totals[number] = [a + b for a, b in zip(totals[number], pair, strict=True)]
            cells.append(f"{pair[0]:24.1f} {pair[1]:9.2f}")
        if any(float(cell.split()[0]) >= 1 for cell in cells):
            print(f"{thread:34}" + "".join(cells))
    print(f"{'all':34}" + "".join(f"{cpu:24.1f} {turns:9.2f}" for cpu, turns in totals))
    if len(found) > 1:
        first = totals[0]
        ratios = [f"{cpu / first[0]:24.2f} {turns / first[1]:9.2f}" for cpu, turns in totals]
        print(f"{'ratio':34}" + "".join(ratios))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.steady", description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transport", action="append", metavar="NAME")
    parser.add_argument("trees", nargs="*", type=Path, default=[ROOT])
    chosen = parser.parse_args(arguments)
    services = [
        (tree.resolve(), transport)
        for tree in chosen.trees
        for transport in chosen.transport or ["auto"]
    ]
    show(run(services, chosen.rate, chosen.seconds, chosen.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
