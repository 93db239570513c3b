"""Notes of `authz check-config`: what a file means that it does not say.

Nothing here is wrong: an office, a VPN or a hosted assistant shares one figure among all its
people, and whoever runs a gateway for such people should know it before they do; and what a server
does not name passes.
"""

from collections.abc import Iterator
from typing import Final

from authz.config.model import Config, LimitConfig, LimitOverrideConfig
from authz.config.problems import Path, field_name, listed
from authz.config.value_types import Rate
from authz.core.limits import Per
from authz.core.policy import OperationKind

_CROWD: Final = 500
# Pages of a log-in: the one that asks for consent, its click, and the way back.
_PAGES: Final = 3
_MINUTE: Final = 60
# What authz cannot see of the other configuration: docs/data-planes.md has the rest.
_UNFILTERED: Final = (
    "filters no lists: clients see all tools, and annotations and pins go by what authz itself is "
    "told by the servers"
)
_LOST: Final = {
    "envoy": (),
    "envoy_gateway": (
        _UNFILTERED,
        "must send bodies as bytes (EnvoyPatchPolicy), else every POST is refused",
        "lets everything through while authz is away where it has failOpen: true",
    ),
    "agentgateway": (
        _UNFILTERED,
        "must send whole bodies as bytes (includeRequestBody), else every POST is refused",
        "lets everything through while authz is away where it has failureMode: allow",
        "repeats an Allow without limits and revocations where extAuthz has a cache",
        "ends no stream: max_stream, stream_recheck and calls_per_user of gateway do not hold",
        "tells the address of the connection: behind a proxy all share the limits per address",
    ),
}


def notes(config: Config) -> Iterator[str]:
    """Yield one sentence for each, with the setting that it comes from."""
    gateway = config.gateway
    plane = config.service.data_plane
    for lost in _LOST[plane]:
        yield f"service.data_plane: {plane} {lost} (docs/data-planes.md)"
    yield (
        "gateway.address_calls: all people behind one address (an office, a hosted assistant) "
        f"have {gateway.address_calls} calls together, and {gateway.address_bodies} with 10,000 "
        "bytes or more (gateway.address_bodies)"
    )
    if config.issuer.introspection is not None:
        yield (
            f"gateway.address_bad_tokens: after {gateway.address_bad_tokens} opaque tokens of one "
            "address that are no good, one that a worker does not know yet may have to come twice"
        )
    if config.front_door is not None and config.logs_in:
        rate = _log_ins(config)
        yield (
            f"front_door.address_log_ins: {rate.quota} people behind one address may log in at "
            f"once, and {_CROWD} take {_how_long(rate)}; tokens are used and refreshed without it"
        )
    for name, server in config.servers.items():
        if server.annotations is not None:
            yield (
                f"servers.{name}.annotations: the server's own word for its tools; a tool that it "
                "has not listed yet counts as destructive and open_world"
            )
        if server.pins is not None and server.pins.mode == "enforce":
            yield (
                f"servers.{name}.pins: a tool is refused until its definition is approved "
                f"(`authz tools {name} --pin`, then reload) and the server has listed it"
            )
    yield from _unnamed(config)
    lists = (config.limits, *(target.rule.limits or () for target in config.targets()))
    if any(limit.shadow for limits in lists for limit in limits):
        yield "limits with shadow: true count and refuse nothing"
    yield from _overridden(config)
    kinds = {limit.per.per for limits in lists for limit in limits}
    if Per.GRANT in kinds:
        yield (
            "limits with per: grant: each log-in that a person consents to counts by itself; "
            "per: user bounds a person"
        )
    if Per.ADDRESS in kinds:
        yield (
            "limits with per: address: all people behind one address share them; per: user and "
            "per: [client, user] count each person alone"
        )


def _overridden(config: Config) -> Iterator[str]:
    """Yield a sentence for each limit with overrides: who meets which."""
    places: list[tuple[Path, tuple[LimitConfig, ...]]] = [((), config.limits)]
    places += [(each.path, each.rule.limits or ()) for each in config.targets()]
    for path, limits in places:
        for number, limit in enumerate(limits):
            if limit.overrides is None:
                continue
            told = [f"{_named(each)} {_rates(each)}" for each in limit.overrides]
            name = field_name((*path, "limits", number))
            yield (
                f"{name} (per {limit.per}): {'; '.join(told)}; all others {_rates(limit)}; "
                "the first that fits holds"
            )
            if any(each.users is not None for each in limit.overrides):
                yield f"{name}: a person is named by the `sub` of the token, not by the user name"
            if any(each.groups is not None for each in limit.overrides):
                yield f"{name}: a token that names no groups meets none of those for groups"


def _named(override: LimitOverrideConfig) -> str:
    kinds = {"clients": override.clients, "users": override.users, "groups": override.groups}
    return " and ".join(
        f"{kind} {listed(names, 'or')}" for kind, names in kinds.items() if names is not None
    )


def _rates(limit: LimitConfig | LimitOverrideConfig) -> str:
    burst = "" if limit.burst is None else f", {limit.burst} at once"
    return f"{listed(map(str, limit.rate), 'and')}{burst}"


def _unnamed(config: Config) -> Iterator[str]:
    """Yield a sentence for each server that names some kinds of operations and not others."""
    for name, server in config.servers.items():
        kinds = (OperationKind.TOOL, OperationKind.PROMPT, OperationKind.RESOURCE)
        named = [kind.value for kind in kinds if server.operations[kind]]
        others = [kind.value for kind in kinds if not server.operations[kind]]
        if named and others:
            yield (
                f"servers.{name}: its {listed(named, 'and')} are named and its "
                f"{listed(others, 'and')} are not, so every one of these is as good as the server"
            )


def _log_ins(config: Config) -> Rate:
    """Return the scarcest of log-ins, of the pages and of the passwords that they need."""
    assert config.front_door is not None
    pages = config.front_door.address_pages
    rates = [
        config.front_door.address_log_ins,
        Rate(max(1, pages.quota // _PAGES), pages.window),
    ]
    if config.issuer.serve:
        rates.append(config.gateway.address_passwords)
    return min(rates, key=lambda rate: rate.quota / rate.window)


def _how_long(rate: Rate) -> str:
    """Return how long the last of a crowd waits that comes at once, in words."""
    seconds = max(0, _CROWD - rate.quota) * rate.window / rate.quota
    if not seconds:
        return "no longer"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} seconds"
    if seconds < 2 * _MINUTE * _MINUTE:
        return f"{seconds / _MINUTE:.0f} minutes"
    return f"{seconds / _MINUTE / _MINUTE:.0f} hours"
