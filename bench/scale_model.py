"""A cost model of many people, and a simulation of it: pure, and told by no clock.

A station is what does a part of the work: the worker, Envoy, Redis, Authelia, the pages. The model
is the utilisation law (cores are rate times demand); the simulation has each station as servers
with one queue, which shows waits, and has to give the same utilisation (tests/test_scale_model.py).
"""

import heapq
import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Operation:
    """What one operation takes of each station, in seconds of processor time, in this order."""

    name: str
    demand: Mapping[str, float]


@dataclass(frozen=True)
class Costs:
    """Measured costs.

    Attributes:
        call, first_use, log_in, refresh: a call, what a token's first use adds to it, and the rest.
        caller_bytes: what Redis keeps of a person who calls: three limits and a session.
        log_in_bytes: and of a log-in.
        load: the load average while it was measured.
        throughput: calls a second, 64 in flight.
        generator: what the load's own process spent on a call, in seconds.
        cores: of the machine.
    """

    call: Operation
    first_use: Operation
    log_in: Operation
    refresh: Operation
    caller_bytes: float
    log_in_bytes: float
    load: float
    throughput: float
    generator: float
    cores: int


@dataclass(frozen=True)
class Profile:
    """What people do in their busiest minute.

    Attributes:
        people: who have logged in.
        at_work: the share of them whose assistant works at that time.
        calls: calls a second of each.
        token_life: seconds after which each refreshes its token.
        log_in_days: how often a person logs in, in working days.
        rush: the share of a day's log-ins that come in the busiest hour.
        workers: among which a person's calls are spread, each with a cache of its own.
    """

    people: int
    at_work: float = 0.1
    calls: float = 0.1
    token_life: float = 3600
    log_in_days: float = 5
    rush: float = 0.25
    workers: int = 1

    def rates(self) -> dict[str, float]:
        """Return operations a second, by their names in `Costs`."""
        working = self.people * self.at_work
        refreshes = working / self.token_life
        log_ins = self.people / self.log_in_days * self.rush / 3600
        return {
            "call": working * self.calls,
            "first_use": (refreshes + log_ins) * self.workers,
            "log_in": log_ins,
            "refresh": refreshes,
        }


def demand(costs: Costs, profile: Profile) -> dict[str, float]:
    """Return the cores that each station needs: by the utilisation law, rate times demand."""
    found = dict[str, float]()
    for name, rate in profile.rates().items():
        operation: Operation = getattr(costs, name)
        for station, seconds in operation.demand.items():
            found[station] = found.get(station, 0.0) + rate * seconds
    return found


@dataclass
class Station:
    """Servers that take work in the order in which it comes.

    Attributes:
        free: when each of them is free again.
        busy: seconds that they have worked.
    """

    free: list[float]
    busy: float = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """Return when work that comes now is done."""
        begin = max(now, self.free[0])
        heapq.heapreplace(self.free, begin + seconds)
        self.busy += seconds
        return begin + seconds


@dataclass
class Simulated:
    """What a simulation gave.

    Attributes:
        seconds: how long it was, of its own time.
        operations: how many ended.
        waits: seconds in queues of a share of them, by operation.
        utilisation: busy cores, by station.
    """

    seconds: float
    operations: int = 0
    waits: dict[str, list[float]] = field(default_factory=dict)
    utilisation: dict[str, float] = field(default_factory=dict)

    def wait(self, name: str, share: float) -> float:
        """Return the wait that this share of an operation's do not exceed."""
        waits = sorted(self.waits[name])
        return waits[min(int(share * len(waits)), len(waits) - 1)]


def arrivals(rates: Mapping[str, float], seconds: float, seed: int) -> Iterator[tuple[float, str]]:
    """Yield operations as a Poisson process, in the order of their moments."""
    dice, now, total = random.Random(seed), 0.0, sum(rates.values())
    names, weights = [*rates], [*rates.values()]
    while (now := now + dice.expovariate(total)) < seconds:
        yield now, dice.choices(names, weights)[0]


def simulate(
    operations: Mapping[str, Operation],
    rates: Mapping[str, float],
    cores: Mapping[str, int],
    seconds: float,
    seed: int = 1,
) -> Simulated:
    """Simulate operations that come by themselves, whatever the answers take.

    Args:
        operations: by name.
        rates: a second, by name.
        cores: of each station.
        seconds: of the simulation's own time.
        seed: of its dice.
    """
    stations = {name: Station([0.0] * number) for name, number in cores.items()}
    found = Simulated(seconds, waits={name: [] for name in rates})
    # Work that waits for its next station: one moment after the other.
    agenda = list[tuple[float, int, str, int, float]]()
    comes = arrivals(rates, seconds, seed)
    following, number = next(comes, None), 0
    while agenda or following is not None:
        if following is not None and (not agenda or following[0] <= agenda[0][0]):
            now, name = following
            heapq.heappush(agenda, (now, number, name, 0, 0.0))
            following, number = next(comes, None), number + 1
            continue
        now, own, name, stage, waited = heapq.heappop(agenda)
        steps = [*operations[name].demand.items()]
        if stage == len(steps):
            found.operations += 1
            found.waits[name].append(waited)
            continue
        station, takes = steps[stage]
        done = stations[station].serve(now, takes)
        heapq.heappush(agenda, (done, own, name, stage + 1, waited + done - now - takes))
    found.utilisation = {name: each.busy / seconds for name, each in stations.items()}
    return found


def closed(processes: Mapping[str, float], cores: int, in_flight: int, operations: int) -> float:
    """Simulate so many in flight on cores that all processes share; return operations a second.

    A process does one thing at a time: an operation waits for each process in turn, and the process
    for a core.
    """
    steps = [*processes.items()]
    queues = {name: deque[int]() for name in processes}
    ready, working, idle = deque[str](), list[tuple[float, str, int]](), cores
    stages, ended, now = [0] * in_flight, 0, 0.0

    def join(number: int) -> None:
        """Queue an operation at its next process, which wants a core if it rests."""
        name = steps[stages[number]][0]
        queues[name].append(number)
        if len(queues[name]) == 1:
            ready.append(name)

    for number in range(in_flight):
        join(number)
    while ended < operations:
        while ready and idle:
            name = ready.popleft()
            idle -= 1
            heapq.heappush(working, (now + processes[name], name, queues[name][0]))
        now, name, number = heapq.heappop(working)
        idle += 1
        queues[name].popleft()
        if queues[name]:
            ready.append(name)
        stages[number] += 1
        if stages[number] == len(steps):
            stages[number], ended = 0, ended + 1
        join(number)
    return ended / now
