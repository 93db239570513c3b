"""Merge the Prometheus expositions of several workers into one.

Invariant: no counter goes back because a worker has ended: its counts stay in the sum
(tests/telemetry/test_expositions.py). Each gauge has a rule by which workers are merged.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.utils import floatToGoString

_HELP: Final = "# HELP "
_TYPE: Final = "# TYPE "
# Summed, but for `_created` (the earliest).
_GROWING: Final = frozenset({"counter", "histogram"})
_CREATED: Final = "_created"

Rule = Callable[[Iterable[float]], float]


def _oldest(ages: Iterable[float]) -> float:
    """Return the greatest age; -1 stands for never, which is older than any."""
    every = list(ages)
    return -1.0 if min(every) < 0 else max(every)


# Every gauge of `Metrics`.
GAUGES: Final[Mapping[str, Rule]] = {
    "authz_signing_keys_age_seconds": _oldest,
    # 1 where any worker is in that mode.
    "authz_limiter_mode": max,
    "authz_checks_in_flight": sum,
    # 1 for every digest that some worker runs, and for every cause that holds somewhere.
    "authz_config_info": max,
    "authz_config_not_in_force": max,
    "authz_log_lines_lost": sum,
    # All see the same Redis.
    "authz_revocations_waiting": max,
    "authz_certificate_expiry_timestamp_seconds": min,
}
# Gauges that the process above the workers sets itself.
_OF_POOL: Final = frozenset({"authz_config_not_in_force"})
# Gauges that only grow, and persist like counters.
_PERSISTED: Final = frozenset({"authz_log_lines_lost"})


@dataclass(slots=True)
class Family:
    """Hold one metric: its two comments, its type, and its values by name and labels."""

    kind: str
    head: list[str] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)


Exposition = dict[str, Family]


def parse(text: str) -> Exposition:
    """Read what `prometheus_client.generate_latest` writes: sorted labels, no timestamps.

    Raises:
        ValueError: where it is something else.
    """
    found: Exposition = {}
    family = Family("untyped")
    heads = list[str]()
    # Not splitlines: it also ends a line at characters that a label may hold.
    for line in text.split("\n"):
        if line.startswith(_HELP):
            heads = [line]
        elif line.startswith(_TYPE):
            _, _, name, kind = line.split(" ")
            family = found.setdefault(name, Family(kind, [*heads, line]))
        elif line:
            name, _, value = line.rpartition(" ")
            family.values[name] = float(value)
    return found


def persisted(exposition: Exposition) -> Exposition:
    """Return the families that stay in the sum after a worker has ended."""
    return {
        name: family
        for name, family in exposition.items()
        if family.kind in _GROWING or name.endswith(_CREATED) or name in _PERSISTED
    }


def of_pool(exposition: Exposition) -> Exposition:
    """Return the families of the process above the workers that are shown beside theirs."""
    own = {name: family for name, family in exposition.items() if name in _OF_POOL}
    return persisted(exposition) | own


def merge(expositions: Iterable[Exposition]) -> Exposition:
    """Return several expositions merged into one."""
    total: Exposition = {}
    values: dict[str, dict[str, list[float]]] = {}
    for exposition in expositions:
        for name, family in exposition.items():
            total.setdefault(name, Family(family.kind, family.head))
            each = values.setdefault(name, {})
            for sample, value in family.values.items():
                each.setdefault(sample, []).append(value)
    for name, family in total.items():
        rule = _rule(name)
        family.values = {sample: rule(found) for sample, found in values[name].items()}
    return total


def _rule(name: str) -> Rule:
    return min if name.endswith(_CREATED) else GAUGES.get(name, sum)


def render(exposition: Exposition) -> str:
    """Return the text for Prometheus."""
    lines = list[str]()
    for family in exposition.values():
        lines += family.head
        lines += (f"{sample} {_number(value)}" for sample, value in family.values.items())
    return "\n".join(lines) + "\n" if lines else ""


def _number(value: float) -> str:
    """Return a value as prometheus-client writes it."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
