"""What many people take: a cost model of measured figures, and a simulation of it.

`measure` writes the costs of this machine to a file, in one run: a call through Envoy with all on,
a token's first use, what Redis keeps of a person who calls; log-ins and refreshes come from a file
of `bench.people`. `show` prints from such a file what so many people take in their busiest minute,
and where the first wall is; and it simulates that minute, the stations as queues, which has to give
the model's figures, and at the measured load the measured throughput.

    AUTHELIA=... python -m bench.people 20 --json people.json
    python -m bench.scale measure --people people.json docs/scale.json
    python -m bench.scale show docs/scale.json [people...]
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from authz.ledger.batch import BatchedLedger
from authz.ledger.redis import RedisLedger, RedisOptions
from bench import edge
from bench.load import Load, undisturbed
from bench.people import LOG_IN, REFRESH
from bench.scale_model import Costs, Operation, Profile, closed, demand, simulate
from bench.transports import CONFIG, METHOD, allowed, cpu_seconds, started_full, step_up, trees
from bench.web import WebLoad
from tests.ledger.queries import query, session, take
from tests.support.load import post
from tests.support.service import running_issuer
from tests.support.valkey import valkey
from tests.support.values import call, request
from tests.support.wire import check_request
from tests.tokens.token_factory import rsa_signer

IN_FLIGHT: Final = 64
OPERATIONS: Final = ("call", "first_use", "log_in", "refresh")
SIZES: Final = (1_000, 100_000, 10_000_000)
SIMULATED: Final = 60_000  # operations
TOKENS: Final = 300
CALLERS: Final = 20_000
WORKER, ENVOY, REDIS, AUTHELIA, PAGES = "worker", "Envoy", "Redis", "Authelia", "pages"
# What bench.people calls a part, by the station that it is.
PART: Final = {WORKER: "worker", ENVOY: "Envoy", REDIS: "Valkey", AUTHELIA: "Authelia"} | {
    PAGES: "pages"
}


def measured_call(rounds: int, requests: int) -> tuple[dict[str, float], float, float, float]:
    """Measure a call through Envoy, and a token's first use at the service itself.

    Returns:
        seconds of each station and of the load's process for one call; calls a second; the
        worker's seconds for a call with a token that it has not seen, of one that it has.
    """
    tree = [*trees().values()][-1]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b")))
        issuer = stack.enter_context(running_issuer())
        redis = stack.enter_context(valkey())
        behind = stack.enter_context(edge.upstream(folder))
        asyncio.run(step_up(redis.url))
        config = CONFIG.format(issuer=issuer.address, redis=redis.url, transport="auto")
        path, check = folder / "authz.yaml", folder / "c.sock"
        path.write_text(config)
        command = ["authz", "serve", "-c", str(path), "--status", "127.0.0.1:0", "--check"]
        server = stack.enter_context(started_full(command, folder, "s", check, tree))
        text = edge.of_edge(config)
        port, envoy = stack.enter_context(edge.envoy(text, str(check), behind))
        signer, now = rsa_signer(), int(time.time())

        def bearer(number: int) -> str:
            times = {"iat": now - 5 - number, "nbf": now - 5 - number, "exp": now + 86_400}
            return signer.token(times)

        assert redis.process is not None
        pids = {WORKER: server.pid, ENVOY: envoy, REDIS: redis.process.pid, "load": os.getpid()}
        load = WebLoad(("127.0.0.1", port), post(bearer(0)), IN_FLIGHT)
        undisturbed(load.run, requests // 4, IN_FLIGHT)

        def one_round() -> tuple[dict[str, float], float]:
            before = {name: cpu_seconds(pid) for name, pid in pids.items()}
            seconds = load.run(requests, IN_FLIGHT)
            spent = {
                name: (cpu_seconds(pid) - before[name]) / requests for name, pid in pids.items()
            }
            return spent, requests / seconds

        found = [undisturbed(one_round) for _ in range(rounds)]
        load.close()

        def alone(messages: Sequence[bytes]) -> float:
            loads = [Load(server.path, METHOD, each, allowed, size=1) for each in messages]
            before = server.cpu()
            for each in loads:
                each.run(1, 1)
            spent = (server.cpu() - before) / len(loads)
            for each in loads:
                each.close()
            return spent

        fresh = [
            check_request(request(call("read_file"), authorization=f"Bearer {bearer(number)}"))
            for number in range(1, TOKENS)
        ]
        first, second = alone(fresh), alone(fresh)
        spent = {name: statistics.median(each[name] for each, _ in found) for name in pids}
        return spent, statistics.median(rate for _, rate in found), first, second


async def caller_bytes() -> float:
    """Measure what Redis keeps of a person who calls: three limits and a session."""
    with valkey() as server:
        ledger = BatchedLedger(RedisLedger(RedisOptions(server.url, deployment="b", timeout=20)))

        def used() -> int:
            memory = server.command("INFO", "MEMORY")
            return int(memory["used_memory"]) - int(memory["mem_clients_normal"])

        async def come(first: int, last: int) -> None:
            for number in range(first, last):
                takes = (take(f"p-{number}-{limit}", quota=60) for limit in range(3))
                own = session(f"s-{number}", f"p-{number}")
                await ledger.take(replace(query(*takes), session=own))

        await come(0, 100)
        before = used()
        await come(100, 100 + CALLERS)
        return (used() - before) / CALLERS


def people_costs(path: Path) -> tuple[Operation, Operation, float]:
    """Return a log-in and a refresh, as bench.people measured them, and Redis' bytes of a log-in.

    Raises:
        ValueError: where no real Authelia was measured.
    """
    figures = {each["case"]: each["value"] for each in json.loads(path.read_text())}
    if f"{PART[AUTHELIA]}: {LOG_IN}" not in figures:
        raise ValueError(
            f"{path} has no figures of a real Authelia: run bench.people with AUTHELIA"
        )

    def operation(name: str, case: str) -> Operation:
        # Less than nothing is noise: what connecting and calling take is taken off.
        return Operation(
            name,
            {each: max(figures[f"{part}: {case}"] / 1000, 0.0) for each, part in PART.items()},
        )

    return operation("log_in", LOG_IN), operation("refresh", REFRESH), figures[LOG_IN]


def measure(people: Path, rounds: int, requests: int) -> Costs:
    """Measure what `Costs` holds."""
    log_in, refresh, log_in_bytes = people_costs(people)
    spent, throughput, first, second = measured_call(rounds, requests)
    stations = {ENVOY: spent[ENVOY], WORKER: spent[WORKER], REDIS: spent[REDIS]}
    return Costs(
        Operation("call", stations),
        Operation("first_use", {WORKER: max(first - second, 0.0)}),
        log_in,
        refresh,
        caller_bytes=asyncio.run(caller_bytes()),
        log_in_bytes=log_in_bytes,
        load=os.getloadavg()[0],
        throughput=throughput,
        generator=spent["load"],
        cores=os.cpu_count() or 1,
    )


def read(path: Path) -> Costs:
    """Read a file that `measure` wrote."""
    found = json.loads(path.read_text())
    for name in OPERATIONS:
        found[name] = Operation(**found[name])
    return Costs(**found)


def told(costs: Costs, sizes: Sequence[int]) -> Iterator[str]:
    """Yield lines on what so many people take, and on what the simulation says of it."""
    processes = {ENVOY: costs.call.demand[ENVOY], WORKER: costs.call.demand[WORKER]}
    processes |= {REDIS: costs.call.demand[REDIS], "load": costs.generator}
    simulated = closed(processes, costs.cores, IN_FLIGHT, 20_000)
    yield f"measured on {costs.cores} cores at a load average of {costs.load:.1f}"
    yield (
        f"64 in flight: simulated {simulated:,.0f} calls/s, measured {costs.throughput:,.0f}"
        f" (ratio {simulated / costs.throughput:.2f})"
    )
    for name in OPERATIONS:
        taken: Mapping[str, float] = getattr(costs, name).demand
        parts = ", ".join(f"{station} {1000 * each:.3f}" for station, each in taken.items())
        yield f"CPU ms of a {name.replace('_', ' ')}: {parts}"
    yield (
        f"Redis keeps {costs.caller_bytes:,.0f} bytes of a caller,"
        f" {costs.log_in_bytes:,.0f} of a log-in"
    )
    for people in sizes:
        yield ""
        yield from _of(costs, Profile(people))


def _of(costs: Costs, profile: Profile) -> Iterator[str]:
    rates, needed = profile.rates(), demand(costs, profile)
    operations = {name: getattr(costs, name) for name in rates}
    # A third more than the model needs, rounded up: queues have to stay short.
    cores = {station: int(each * 4 / 3) + 1 for station, each in needed.items()}
    seconds = max(0.2, min(600.0, SIMULATED / sum(rates.values())))
    found = simulate(operations, rates, cores, seconds)
    each_second = (f"{each:,.2f} {name.replace('_', ' ')}" for name, each in rates.items())
    yield f"{profile.people:,} people, each second: " + ", ".join(each_second)
    for station, each in needed.items():
        yield (
            f"  {station:9} {each:8.3f} cores; simulated {found.utilisation[station]:8.3f}"
            f" of {cores[station]}"
        )
    callers = profile.people * profile.at_work
    memory = profile.people * costs.log_in_bytes + callers * costs.caller_bytes
    yield f"  Redis keeps {memory / 2**20:,.0f} MiB"
    yield f"  99 of 100 calls wait at most {1000 * found.wait('call', 0.99):.2f} ms"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    taking = commands.add_parser("measure", help="measure costs, into a file")
    taking.add_argument("--people", type=Path, required=True, help="a file of bench.people")
    taking.add_argument("--rounds", type=int, default=5)
    taking.add_argument("--requests", type=int, default=4000)
    taking.add_argument("file", type=Path)
    showing = commands.add_parser("show", help="what so many people take")
    showing.add_argument("file", type=Path)
    showing.add_argument("people", nargs="*", type=int, default=SIZES)
    chosen = parser.parse_args(arguments)
    if chosen.command == "measure":
        costs = measure(chosen.people, chosen.rounds, chosen.requests)
        chosen.file.write_text(json.dumps(asdict(costs), indent=1) + "\n")
    else:
        for line in told(read(chosen.file), chosen.people):
            print(line)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    sys.exit(main(sys.argv[1:]))
