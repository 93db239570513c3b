"""How many exchanges one person may hold open at a server, by its limits and `gateway`.

Invariant: decisions are made by the same figures as `check-config` reports
(tests/config/test_budgets.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import Final

from authz.config.model import Config
from authz.core.exchanges import Exchange, Meter
from authz.core.limits import Limit, Per
from authz.core.methods import Counts

# How long an exchange may last, however many its person begins: what is usual for each.
_LEAST_CALL: Final = 60.0
_LEAST_ANSWER: Final = 15.0
# Streams that are let live longer (`gateway.stream_recheck`) are counted in windows of this length
# all the same, or a client that comes back often would be refused for as long.
_LONGEST_WINDOW: Final = 900
# What may be open at a steady rate is this part of what may be begun, of streams, and of what calls
# may hold, of answers: who begins few has them live long.
_STEADY_STREAMS: Final = 4
_STEADY_ANSWERS: Final = 3


@dataclass(frozen=True, slots=True)
class Budget:
    """Hold what bounds one person at one server.

    Attributes:
        streams: how many streams the person may begin.
        meters: how long each exchange may last.
        most_open: how many are open at a time at most; None where nothing bounds them.
    """

    streams: Limit
    meters: Mapping[Exchange, Meter]
    most_open: int | None


def budget(config: Config, name: str, limits: Iterable[tuple[Limit, ...]]) -> Budget:
    """Return the budget of a person at a server.

    Args:
        config: the configuration.
        name: the server's.
        limits: what is charged on every request to it, whatever its tool: each limit with those
            that stand in its place for some callers.
    """
    gateway, limits = config.gateway, tuple(filter(_counts_all, limits))
    streams = _streams(config, name)
    steady = gateway.streams_per_user, gateway.calls_per_user
    stream = Meter(streams, max(1, steady[0] // _STEADY_STREAMS), float(_LONGEST_WINDOW))
    found: dict[Exchange, tuple[Meter, int | None]] = {
        Exchange.STREAM: (stream, stream.most_open(gateway.stream_recheck))
    }
    call = _choose(config, limits, Counts.OPERATIONS, steady[1], _LEAST_CALL)
    answers = max(1, steady[1] // _STEADY_ANSWERS)
    answer = _choose(config, limits, Counts.HANDSHAKES, answers, _LEAST_ANSWER)
    if call is not None:
        found[Exchange.CALL] = call
    if answer is not None:
        found[Exchange.ANSWER] = answer
    bounds = [bound for _, bound in found.values() if bound is not None]
    return Budget(
        streams,
        MappingProxyType({kind: meter for kind, (meter, _) in found.items()}),
        sum(bounds) if len(bounds) == len(Exchange) else None,
    )


def _counts_all(limits: tuple[Limit, ...]) -> bool:
    """Tell whether everybody is counted by a limit, or by one that stands in its place."""
    audience = limits[0].audience
    return audience is None or (
        audience.selector is None and len(limits) == 1 + len(audience.before)
    )


def _streams(config: Config, name: str) -> Limit:
    gateway = config.gateway
    # A second longer than a stream lives: Envoy ends it a moment after it was charged.
    window = ceil(min(gateway.stream_recheck, _LONGEST_WINDOW)) + 1
    quota = gateway.streams_per_user
    # Names of limits that are written hold no colon, or more of them.
    return Limit(f"{name}:streams", Per.USER, quota, window, place=name, counts=Counts.STREAMS)


def _choose(
    config: Config,
    limits: tuple[tuple[Limit, ...], ...],
    counts: Counts,
    sustained: int,
    least: float,
) -> tuple[Meter, int | None] | None:
    """Return the meter by which the fewest are open, and how many; None where no limit counts.

    A limit that counts a person's clients each for itself bounds them together where it is known
    how many there are.
    """
    longest, clients = config.gateway.max_stream, _clients(config)
    found: list[tuple[Meter, int | None]] = []
    for limit, *variants in limits:
        if limit.counts not in {Counts.ALL, counts} or limit.per not in {Per.USER, Per.CLIENT_USER}:
            continue
        # A day's quota may be spent before midnight, and the next day's after it.
        by_calendar = any(each.calendar is not None for each in (limit, *variants))
        if limit.shadow or by_calendar:
            continue
        meter = Meter(limit, sustained, least, tuple(variants))
        times = 1 if limit.per is Per.USER else clients
        found.append((meter, None if times is None else times * meter.most_open(longest)))
    return min(found, key=_by_bound, default=None)


def _by_bound(found: tuple[Meter, int | None]) -> tuple[bool, int]:
    _, bound = found
    return bound is None, bound or 0


def _clients(config: Config) -> int | None:
    """Return how many clients one person may come with; None where nobody named them.

    All clients of the front door that nobody configured are one.
    """
    if config.front_door is not None:
        return len(config.named) + 1
    return len(config.named) or None
