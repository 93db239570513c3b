"""Lint clients, servers, tools and limits."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from authz.config.compile import (
    budget_of,
    calendar_of,
    conditions_of,
    limits_of,
    tests_of,
    windows_of,
)
from authz.config.lint.deployment import RESERVED
from authz.config.model import (
    DEFAULT,
    ArgumentCostConfig,
    ArgumentRuleConfig,
    Config,
    LimitConfig,
    LimitOverrideConfig,
    RangeConfig,
    RuleConfig,
    approval_of,
)
from authz.config.problems import Fault, Path, error, field_name, quoted, warning
from authz.core.exchanges import SERVER_REQUESTS
from authz.core.limits import Per
from authz.core.methods import LISTEN, METHODS
from authz.core.policy import OperationKind, RuleTarget

# Of a person in 256 groups that is 1024 counts, which Redis answers within 50 ms (its time-out).
_MOST_GROUP_WINDOWS: Final = 4
_WILD: Final = re.compile(r"[*?\[{]")


def _clients(config: Config) -> Iterator[Fault]:
    for name, client in config.named.items():
        path: Path = ("clients", name)
        if client.machine and client.assurance is not None:
            yield error(
                (*path, "assurance"),
                "a client without a person logs nobody in",
                "leave assurance out, or write machine: false",
            )
        if client.machine and client.redirect_uris:
            yield error(
                (*path, "redirect_uris"),
                "a client without a person is redirected nowhere",
                "leave redirect_uris out, or write machine: false",
            )
        if config.login_of(name) == "front_door":
            continue  # which takes any port of localhost itself
        for index, uri in enumerate(client.redirect_uris):
            if uri.startswith("http://localhost"):
                yield warning(
                    (*path, "redirect_uris", index),
                    "Authelia compares the port of localhost, which programs choose anew",
                    "write http://127.0.0.1 or http://[::1] instead",
                )


def _resources(config: Config) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    base = f"{config.gateway.url}/"
    gateway: Path = ("gateway", "url")
    for name in config.servers:
        resource, path = config.resource(name), _resource_path(config, name)
        if not resource.startswith(base):
            yield error(
                path, f"{quoted(resource)} is not under gateway.url", f"write {base}{name}", gateway
            )
        elif resource.removeprefix(base).split("/")[0] in RESERVED:
            yield error(
                path,
                f"{quoted(resource)} is an address of the gateway's own",
                "name the server otherwise, or give it another resource",
                gateway,
            )
        first = seen.setdefault(resource, name)
        if first != name:
            yield error(
                path,
                f"{quoted(resource)} is the server {first} already",
                "give every server a resource of its own",
                gateway,
                ("servers", first, "resource"),
            )


def _nested(config: Config) -> Iterator[Fault]:
    """Find servers under others: Authelia grants `resource` by path prefix, verbatim."""
    for name, server in config.servers.items():
        for other, outer in config.servers.items():
            inside = config.resource(name).startswith(f"{config.resource(other)}/")
            if inside and not server.nested and not outer.nested:
                yield error(
                    _resource_path(config, name),
                    f"it lies under the server {other}, whose clients Authelia would give tokens "
                    "for it too",
                    f"move it, for example to {config.gateway.url}/{name}-{other}, or write "
                    "nested: true",
                    ("gateway", "url"),
                    ("servers", other),
                )


def _resource_path(config: Config, name: str) -> Path:
    path: Path = ("servers", name)
    return path if config.servers[name].resource is None else (*path, "resource")


def _limits(config: Config) -> Iterator[Fault]:
    names: set[str] = set()
    yield from _limits_at(config, None, names)
    for target in config.targets():
        yield from _limits_at(config, target, names)


def _limits_at(
    config: Config, target: RuleTarget[RuleConfig] | None, names: set[str]
) -> Iterator[Fault]:
    """Check one list of limits; `names` are those of the lists before it."""
    outer: Path = () if target is None else target.path
    seen: dict[tuple[object, object, str, str | None], int] = {}
    for index, limit in enumerate(limits_of(config, target)):
        path: Path = (*outer, "limits", index)
        rates = [rate for each in _every(limit) for rate, _ in windows_of(each)]
        by_calendar = [calendar_of(limit, rate) is not None for rate in rates]
        keys = [
            (limit.per, rate, limit.counts, limit.time_zone if by else None)
            for rate, by in zip(rates, by_calendar, strict=True)
        ]
        if limit.time_zone is not None and not any(by_calendar):
            wrong = "no rate of it is for a day or a month"
            yield error((*path, "time_zone"), wrong, "write for example rate: 1000/day")
        firsts = [seen.setdefault(key, index) for key in keys]
        first = min(firsts)
        if first != index:
            wrong = f"it counts the same as limits[{first}]"
            yield error(path, wrong, "keep one of them")
        yield from _overrides(config, limit, path)
        if limit.counts == "handshakes" and target is not None and target.kind is not None:
            yield error(
                (*path, "counts"),
                f"a {_ONE[target.kind]}'s limit counts {_USES[target.kind]}, "
                "which are no handshakes",
                "leave counts out",
            )
        least = min(rate.quota for rate in rates)
        if limit.cost > least:
            yield error(
                (*path, "cost"),
                f"{limit.cost} is more than the {least} of the rate, so nothing passes",
                f"write 1 to {least}",
            )
        if limit.name in names:
            yield error(
                (*path, "name"),
                f"{quoted(limit.name)} names another limit already",
                "give every limit a name of its own",
                ("servers",),
                ("limits",),
            )
        if limit.name is not None:
            names.add(limit.name)


def _costs(config: Config) -> Iterator[Fault]:
    """Find calls that cost more than a limit ever has room for."""
    for server in config.servers:
        own, *targets = config.targets_of(server)
        shared = (*config.limits, *limits_of(config, own))
        windows = [
            (limit.cost, rate.quota)
            for limit in shared
            if limit.counts != "handshakes"
            for each in _every(limit)
            for rate, _ in windows_of(each)
        ]
        most = min((quota // cost for cost, quota in windows), default=None)
        for target in targets:
            cost, path = _cost(target.rule), _cost_path(target)
            if (least := _least_cost(target.rule)) > cost:
                wrong = f"it counts as {least} at least and {cost} at most"
                yield error(path, wrong, f"write {least} or more, or a lower min")
            if most is not None and cost > max(1, most):
                wrong = f"{cost} is more than a limit of the server has room for, so nothing passes"
                right = f"write 1 to {max(1, most)}"
                yield error(path, wrong, right, ("limits",), ("servers", server))


def _groups_counted(config: Config) -> Iterator[Fault]:
    """Find requests that a person in many groups could have charged too often for Redis."""
    for server in config.servers:
        own, *targets = config.targets_of(server)
        shared = _group_windows(config.limits) + _group_windows(limits_of(config, own))
        for target in (own, *targets):
            # A pattern may meet every other.
            met = [
                each
                for each in targets
                if each.kind is target.kind
                and (each.pattern == target.pattern or _WILD.search(each.pattern or ""))
            ]
            count = shared + sum(_group_windows(limits_of(config, each)) for each in met)
            if count > _MOST_GROUP_WINDOWS:
                yield error(
                    (*target.path, "limits"),
                    f"{count} rates per group can meet at one request, each of them counted for "
                    "every group of the person, which is more than Redis does in time",
                    f"keep {_MOST_GROUP_WINDOWS}",
                    ("limits",),
                )
                break


def _group_windows(limits: Iterable[LimitConfig]) -> int:
    counted = [limit for limit in limits if limit.per.per is Per.GROUP]
    return sum(max(len(windows_of(each)) for each in _every(limit)) for limit in counted)


def _every(limit: LimitConfig) -> tuple[LimitConfig | LimitOverrideConfig, ...]:
    return (limit, *(limit.overrides or ()))


def _overrides(config: Config, limit: LimitConfig, path: Path) -> Iterator[Fault]:
    """Check who is named, and that somebody is left for each override."""
    for number, each in enumerate(_every(limit)):
        at: Path = (*path, "overrides", number - 1) if number else path
        shortest = min(each.rate, key=lambda rate: rate.window)
        if each.burst is not None and each.burst >= shortest.quota:
            wrong = f"{each.burst} is no less than the {shortest.quota} of the rate"
            yield error((*at, "burst"), wrong, "write less, or leave it out")
        windows = [rate.window for rate in each.rate]
        if len(set(windows)) < len(windows):
            yield error((*at, "rate"), "two rates have one window", "keep the lower one")
    before = list[LimitOverrideConfig]()
    for number, override in enumerate(limit.overrides or ()):
        at = (*path, "overrides", number)
        named = override.clients or ()
        if (override.clients, override.users, override.groups) == (None, None, None):
            yield error(at, "it names nobody", "write clients, users or groups")
        for client in named:
            if client != DEFAULT and config.clients and client not in config.named:
                yield error(
                    (*at, "clients"),
                    f"{quoted(client)} is none of the clients",
                    "name one of clients, or default for those that have no name",
                    ("clients",),
                )
        if any(_covers(each, override) for each in before):
            wrong = "whoever it names is named by one before it, so it never holds"
            yield error(at, wrong, "put it first, or leave it out")
        before.append(override)


def _covers(first: LimitOverrideConfig, second: LimitOverrideConfig) -> bool:
    """Tell whether whoever the second one names is named by the first, as far as names show."""
    pairs = (
        (first.clients, second.clients),
        (first.users, second.users),
        (first.groups, second.groups),
    )
    return all(one is None or (two is not None and set(two) <= set(one)) for one, two in pairs)


def _open_requests(config: Config) -> Iterator[Fault]:
    """Find servers that one person can keep from everybody else by what is left open there."""
    lists = (limits_of(config, target) for target in (None, *config.targets()))
    # Limits that let nothing pass are an error of their own.
    can_pass = all(
        limit.cost <= rate.quota
        for limits in lists
        for limit in limits
        for each in _every(limit)
        for rate, _ in windows_of(each)
    )
    for name in config.servers:
        own = limits_of(config, next(config.targets_of(name)))
        if all(limit.shadow for limit in (*config.limits, *own)):
            yield warning(
                ("servers", name, "limits"),
                "nothing limits this server",
                "write for example [{per: [client, user], rate: 60/minute}]",
                ("limits",),
            )
            continue
        most = budget_of(config, name).most_open if can_pass else 0
        if most is not None and most <= SERVER_REQUESTS // 2:
            continue
        held = "all" if most is None or most >= SERVER_REQUESTS else f"{most:,}"
        yield warning(
            ("servers", name, "limits"),
            f"one person could hold {held} of the {SERVER_REQUESTS:,} requests that the server is "
            "given at a time",
            "add limits of short windows per user, such as {per: user, rate: 120/minute}, or lower "
            "gateway.calls_per_user and gateway.streams_per_user",
            ("limits",),
            ("gateway",),
        )


def _operations(config: Config) -> Iterator[Fault]:
    for name, server in config.servers.items():
        for kind, rules in server.operations.items():
            seen: dict[str, str] = {}
            for pattern in rules:
                first = seen.setdefault(_canonical(kind, pattern), pattern)
                if first != pattern:
                    wrong = f"it matches the same {kind.value} as {quoted(first)}"
                    path: Path = ("servers", name, kind.value, pattern)
                    yield error(path, wrong, "keep one", on_key=True)
            asks = any(rule.model_fields_set for rule in rules.values())
            if [_canonical(kind, pattern) for pattern in rules] == ["*"] and not asks:
                yield warning(
                    ("servers", name, kind.value),
                    f"it names every {_ONE[kind]} and asks nothing, as if it were left out",
                    f"name the {kind.value} that are to be offered",
                )
    for target in config.targets():
        rule, server = target.rule, config.servers[target.server]
        says_none = "second_factor" in rule.model_fields_set and rule.second_factor is None
        if target.kind is not None and says_none and server.second_factor is not None:
            yield warning(
                (*target.path, "second_factor"),
                "the server's second factor is asked all the same",
                f"leave it out here, or take it from the server and name it at its other "
                f"{target.kind.value}",
            )


_ONE: Final = {
    OperationKind.TOOL: "tool",
    OperationKind.ANNOTATION: "tool",
    OperationKind.PROMPT: "prompt",
    OperationKind.RESOURCE: "resource",
}


_USES: Final = {
    OperationKind.TOOL: "calls of the tool",
    OperationKind.ANNOTATION: "calls of the tool",
    OperationKind.PROMPT: "uses of the prompt",
    OperationKind.RESOURCE: "reads of the resource",
}


def _conditions(config: Config) -> Iterator[Fault]:
    for target in config.targets():
        if target.kind is OperationKind.PROMPT and approval_of(target.rule) is not None:
            yield error(
                (*target.path, "approve"),
                "calls of tools alone are approved",
                "leave it out, or ask for a second factor",
            )
        if target.number and not conditions_of(target):
            yield error(
                target.path,
                "a further rule for the same arguments",
                "write when: [{argument: /path, under: /data}], or what it asks at the first rule",
            )
        for index, condition in enumerate(conditions_of(target)):
            path: Path = (*target.path, "when", index)
            tests = len(list(tests_of(condition)))
            if tests != 1:
                yield error(
                    path,
                    "a condition with several tests" if tests else "a condition without a test",
                    "write one of equals, in, matches, under, range, present and absent",
                )
            if condition.range is not None:
                yield from _bounds((*path, "range"), condition.range)


def _bounds(path: Path, bounds: RangeConfig) -> Iterator[Fault]:
    lows = [each for each in (bounds.min, bounds.above) if each is not None]
    highs = [each for each in (bounds.max, bounds.below) if each is not None]
    if not lows and not highs:
        yield error(path, "a range without a bound", "write min, max, above or below")
    elif len(lows) > 1 or len(highs) > 1:
        yield error(path, "two bounds on one side", "write one of min and above, max and below")
    elif lows and highs:
        touches = bounds.min is not None and bounds.max is not None
        if lows[0] > highs[0] or (lows[0] == highs[0] and not touches):
            yield error(path, "no number lies within", "write a lower bound below the upper one")


def _escapes(config: Config) -> Iterator[Fault]:
    """Find rules for some arguments, beside one that lets all of them pass."""
    for name in config.servers:
        targets = list(config.targets_of(name))
        wide = [each for each in targets if each.pattern is not None and not conditions_of(each)]
        for target in targets:
            kind, pattern = target.kind, target.pattern
            if kind is None or pattern is None or not conditions_of(target):
                continue
            for each in wide:
                if each.kind is kind and kind.matches(pattern, str(each.pattern)):
                    yield from _escape(target, each)
                    break


def _escape(target: RuleTarget[RuleConfig], wide: RuleTarget[RuleConfig]) -> Iterator[Fault]:
    path: Path = (*target.path, "when")
    demands = _demands(target.rule)
    if not demands and _cost(target.rule) > _cost(wide.rule):
        return  # a call without the argument costs what any call costs, as it is meant
    if not demands:
        yield warning(
            path,
            f"it keeps nothing out: {field_name(wide.path)} lets every call pass",
            "write when there too, or name its tools one by one",
        )
        return
    yield warning(
        path,
        f"a call without the argument is not asked for this: {field_name(wide.path)} lets it pass",
        "write when there too, so that every call meets one of the rules",
    )


def _cost(rule: RuleConfig) -> int:
    return rule.most_cost if isinstance(rule, ArgumentRuleConfig) else 1


def _least_cost(rule: RuleConfig) -> int:
    cost = rule.cost if isinstance(rule, ArgumentRuleConfig) else 1
    return cost.min if isinstance(cost, ArgumentCostConfig) else cost


def _cost_path(target: RuleTarget[RuleConfig]) -> Path:
    rule: RuleConfig = target.rule
    by = isinstance(rule, ArgumentRuleConfig) and isinstance(rule.cost, ArgumentCostConfig)
    return (*target.path, "cost", "max") if by else (*target.path, "cost")


def _demands(rule: RuleConfig) -> bool:
    asks = rule.scopes or rule.groups or rule.second_factor or rule.tokens or rule.introspect
    return bool(asks or rule.limits) or approval_of(rule) is not None


def _methods(config: Config) -> Iterator[Fault]:
    for name, server in config.servers.items():
        for index, method in enumerate(server.methods):
            path: Path = ("servers", name, "methods", index)
            known = METHODS.get(method)
            if known is not None and not known.continues and method != LISTEN:
                yield error(
                    path,
                    f"{quoted(method)} is MCP's own, and needs no naming",
                    "name methods that MCP does not have",
                )
            elif not any(server.operations.values()) and server.pins is None:
                yield warning(
                    path,
                    "every method may be called where tools are not named",
                    "name tools, or leave methods out",
                )


def _annotations(config: Config) -> Iterator[Fault]:
    for name, server in config.servers.items():
        if server.annotations is None:
            continue
        path: Path = ("servers", name, "annotations")
        rules = server.annotations.rules
        if not rules:
            yield error(
                path, "it has no rule", "write for example destructive: {second_factor: totp}"
            )
        for annotation, rule in rules.items():
            reads = annotation == "read_only"
            if rule.model_fields_set or (reads and server.tools is not None):
                continue
            yield warning(
                (*path, annotation),
                "every tool may be called where tools are not named, and this rule asks nothing"
                if reads
                else "it asks nothing, and opens no tool that `tools` does not name",
                "write what it asks for, or leave it out",
                ("servers", name, "tools"),
            )


def _unseen_lists(config: Config) -> Iterator[Fault]:
    """Warn where the server alone is asked what it lists, and not what clients are shown."""
    for name, server in config.servers.items():
        compared = server.annotations is not None or server.pins is not None
        if compared and not server.filter_lists:
            yield warning(
                ("servers", name, "filter_lists"),
                "`annotations` and `pins` then go by what the server tells authz when asked, and "
                "a list that it shows to clients alone goes unseen",
                "leave it out, or write true",
            )


def _pins(config: Config) -> Iterator[Fault]:
    files: dict[str, str] = {}
    for name, server in config.servers.items():
        if server.pins is None:
            continue
        first = files.setdefault(server.pins.file, name)
        if first != name:
            yield error(
                ("servers", name, "pins", "file"),
                f"it is the file of the server {first} already",
                "give every server a file of its own",
                ("servers", first, "pins"),
            )


def _canonical(kind: OperationKind, pattern: str) -> str:
    """Return a pattern with its runs of wildcards in one order: `?*` and `*?` match the same."""
    if kind is OperationKind.RESOURCE:  # where `?` is none, and no two `*` stand together
        return pattern
    return re.sub(r"[*?]+", lambda run: "?" * run[0].count("?") + "*" * ("*" in run[0]), pattern)


CHECKS: Final[tuple[Callable[[Config], Iterator[Fault]], ...]] = (
    _clients,
    _resources,
    _nested,
    _limits,
    _costs,
    _groups_counted,
    _open_requests,
    _operations,
    _conditions,
    _escapes,
    _methods,
    _annotations,
    _unseen_lists,
    _pins,
)
