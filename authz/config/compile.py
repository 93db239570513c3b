"""Compile authz.yaml's models to the policy that decisions are made of.

Invariant: names and places of limits are unique, so that two never share a bucket
(tests/core/test_limits_buckets.py).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo

from authz.config import urls
from authz.config.budgets import Budget, budget
from authz.config.model import (
    DEFAULT,
    ApprovalConfig,
    ArgumentCostConfig,
    ArgumentRuleConfig,
    ClientConfig,
    ConditionConfig,
    Config,
    LimitConfig,
    LimitOverrideConfig,
    PageConfig,
    RuleConfig,
    SecondFactorConfig,
    ServerConfig,
    approval_of,
)
from authz.config.server_metadata import challenge_scopes
from authz.config.value_types import Counted, Rate
from authz.core.admin_pages import AdminPage
from authz.core.approval import Approval
from authz.core.argument_cost import ArgumentCost
from authz.core.browser_session import BrowserRule
from authz.core.calendar_windows import SPANS, Calendar, CalendarUnit
from authz.core.catalogue import Annotation, PinMode, Pins
from authz.core.conditions import ArgumentTest, Condition, Given, OneOf, Under, Within
from authz.core.limits import Audience, Limit, OutagePolicy, Selector
from authz.core.listing import lists_of
from authz.core.methods import Counts
from authz.core.policy import (
    ALL_KINDS,
    DeclaredClient,
    FrontDoor,
    JsonBounds,
    OperationKind,
    OperationRule,
    Policy,
    RefusalForm,
    Rule,
    RuleTarget,
    Server,
    StepUpFallback,
    TokenKind,
)
from authz.core.second_factor import Evidence, Method, SecondFactor

DEFAULT_LIMITS: Final = (
    LimitConfig.model_validate(
        {"per": ["client", "user"], "rate": "60/minute", "counts": "operations"}
    ),
    # However many clients a person has.
    LimitConfig.model_validate({"per": ["user"], "rate": "120/minute", "counts": "operations"}),
    # Clients that begin a session for every call send five of these with each. In so short a
    # window that few are open together, of all clients of a person (decision 15).
    LimitConfig.model_validate({"per": ["user"], "rate": "150/15 seconds", "counts": "handshakes"}),
)

_METHODS: Final = {"any": Method.ANY, "totp": Method.TOTP}
_ASSURANCES: Final = {None: Method.NONE, "two_factor": Method.ANY, "totp": Method.TOTP}
_DAY: Final = 86_400
_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"


def limits_of(config: Config, target: RuleTarget[RuleConfig] | None) -> tuple[LimitConfig, ...]:
    """Return the limits in force for a rule, or with None those of every request."""
    if target is None:
        return config.limits
    limits = target.rule.limits
    return DEFAULT_LIMITS if limits is None else limits


Approved = Mapping[str, Mapping[str, str]]
_NOTHING: Final[Approved] = MappingProxyType({})


def compile_policy(config: Config, approved: Approved = _NOTHING) -> Policy:
    """Return the policy of a configuration that has no errors.

    Args:
        config: authz.yaml.
        approved: digests of the approved definitions, by server and tool.
    """
    introspection = config.issuer.introspection
    return Policy(
        issuer=config.issuer.url,
        origins=frozenset(config.gateway.origins),
        servers=MappingProxyType(
            {name: _server(config, name, approved) for name in config.servers}
        ),
        clients=MappingProxyType(
            {name: _client(config, name, client) for name, client in config.named.items()}
        ),
        front_door=_front_door(config),
        limits=_limits(config, None),
        max_body=config.gateway.max_body,
        max_list=config.gateway.max_list,
        max_stream=config.gateway.max_stream,
        stream_recheck=config.gateway.stream_recheck,
        confirm_age=0.0 if introspection is None else introspection.confirm_age,
        refusals=RefusalForm(config.gateway.refusals),
        json=JsonBounds(
            work=round(config.gateway.max_json_work * 1e9), depth=config.gateway.max_json_depth
        ),
        places=_places(config),
        pages=MappingProxyType({name: _page(config, name) for name in config.pages}),
    )


def _places(config: Config) -> Mapping[tuple[str, str], str] | None:
    """Return the servers by host and path, in the spellings that our own Envoy takes."""
    if config.service.match != "by_url":
        return None
    places = dict[tuple[str, str], str]()
    for name in config.servers:
        url = urls.split(config.resource(name))
        for authority in url.authorities:
            for path in (url.path or "/", f"{url.path}/"):
                places[authority, path] = name
    return MappingProxyType(places)


def budget_of(config: Config, name: str) -> Budget:
    """Return what bounds the exchanges of one person at a server."""
    own = next(config.targets_of(name))
    return budget(config, name, _windows(config, None) + _windows(config, own))


def metadata_url(resource: str) -> str:
    """Return where a resource's document is (RFC 9728, section 3.1: inserted before the path)."""
    path = urls.split(resource).path
    return resource.removesuffix(path) + _WELL_KNOWN + path


def limit_name(place: str, per: Counted, rate: object, counts: str = "all") -> str:
    """Return the name of a limit that was given none: `files:delete_*:user:5/minute`.

    It can be a structured-field string (RFC 9651): printable ASCII, no quote, no backslash. No
    server is called `*`, and no given name holds a colon, so names never meet.
    """
    name = f"{place or '*'}:{per}:{rate}"
    return name if counts == "all" else f"{name}:{counts}"


def _limits(config: Config, target: RuleTarget[RuleConfig] | None) -> tuple[Limit, ...]:
    return tuple(chain.from_iterable(_windows(config, target)))


def _windows(
    config: Config, target: RuleTarget[RuleConfig] | None
) -> tuple[tuple[Limit, ...], ...]:
    """Return a limit for each window, with those that stand in its place for some callers.

    An override may have fewer windows than the limit, or more: every limit stands once.
    """
    place = "" if target is None else target.place
    found = list[tuple[Limit, ...]]()
    for limit in limits_of(config, target):
        base, *overrides = [
            [_limit(place, limit, audience, rate, name) for rate, name in windows]
            for audience, windows in _audiences(config, limit)
        ]
        longest = max(len(base), *map(len, overrides)) if overrides else len(base)
        rows = [[each[n] for each in (base, *overrides) if n < len(each)] for n in range(longest)]
        found += map(tuple, rows)
    return tuple(found)


def _audiences(
    config: Config, limit: LimitConfig
) -> Iterator[tuple[Audience | None, tuple[tuple[Rate, str], ...]]]:
    """Yield the windows of a limit for everybody, then those of its overrides."""
    overrides = limit.overrides or ()
    selectors = tuple(_selector(config, each) for each in overrides)
    yield Audience(None, selectors) if selectors else None, windows_of(limit)
    for number, each in enumerate(overrides):
        yield Audience(selectors[number], selectors[:number]), windows_of(each)


def windows_of(limit: LimitConfig | LimitOverrideConfig) -> tuple[tuple[Rate, str], ...]:
    """Return the windows of a limit, and what is added to its name for each but the first."""
    windows = [(rate, f":{rate}" if number else "") for number, rate in enumerate(limit.rate)]
    if limit.burst is not None:
        shortest = min(limit.rate, key=lambda rate: rate.window)
        window = -(-limit.burst * shortest.window // shortest.quota)
        windows.append((Rate(limit.burst, max(1, window)), ":burst"))
    return tuple(windows)


def calendar_of(limit: LimitConfig, rate: Rate) -> Calendar | None:
    """Return the calendar by which a window of a limit is counted; None where it slides."""
    if limit.time_zone is None or not (rate.monthly or rate.window == _DAY):
        return None
    unit = CalendarUnit.MONTH if rate.monthly else CalendarUnit.DAY
    return Calendar(unit, ZoneInfo(limit.time_zone), limit.time_zone)


def _selector(config: Config, override: LimitOverrideConfig) -> Selector:
    clients = override.clients
    others = clients is not None and DEFAULT in clients
    return Selector(
        clients=None if clients is None else frozenset(clients) - {DEFAULT},
        others=frozenset(config.named) if others else None,
        users=None if override.users is None else frozenset(override.users),
        groups=None if override.groups is None else frozenset(override.groups),
    )


def _limit(
    place: str, limit: LimitConfig, audience: Audience | None, rate: Rate, name: str
) -> Limit:
    calendar = calendar_of(limit, rate)
    length = str(rate) if calendar is None else f"{rate.quota}/{calendar}"
    made = limit_name(place, limit.per, length, limit.counts)
    is_burst = name == ":burst"
    return Limit(
        name=limit.name + name if limit.name else made + (name if is_burst else ""),
        per=limit.per.per,
        claim=limit.per.claim,
        audience=audience,
        calendar=calendar,
        quota=rate.quota,
        window=rate.window if calendar is None else SPANS[calendar.unit],
        cost=limit.cost,
        place=place,
        counts=Counts(limit.counts),
        shadow=limit.shadow,
        outage=None if limit.outage is None else OutagePolicy(limit.outage),
        warn_at=limit.warn_at,
    )


def _server(config: Config, name: str, approved: Approved) -> Server:
    server, bounds = config.servers[name], budget_of(config, name)
    resource = config.resource(name)
    own, *operations = config.targets_of(name)
    rules = {kind: _operations(config, operations, kind) for kind in OperationKind}
    compiled = Server(
        name=name,
        resource=resource,
        metadata_url=metadata_url(resource),
        rule=_rule(config, own),
        tools=rules[OperationKind.TOOL],
        prompts=rules[OperationKind.PROMPT],
        resources=rules[OperationKind.RESOURCE],
        machines=frozenset(server.machines),
        versions=frozenset(server.versions),
        methods=frozenset(server.methods),
        signed_identity=server.identity == "signed",
        session_lifetime=int(server.session_lifetime),
        challenge=frozenset(challenge_scopes(config, name)),
        streams=bounds.streams,
        meters=bounds.meters,
        annotations=MappingProxyType(
            {Annotation(each.pattern): each.rule for each in rules[OperationKind.ANNOTATION]}
        ),
        pins=None
        if server.pins is None
        else Pins(PinMode(server.pins.mode), MappingProxyType(dict(approved.get(name, {})))),
        upstream=upstream_digest(server),
    )
    return replace(compiled, filtered=_filtered(config, compiled))


def _page(config: Config, name: str) -> AdminPage:
    page = config.pages[name]
    return AdminPage(
        name=name,
        origin=config.page_url(name).removesuffix(page.path or ""),
        path=page.path or "",
        rule=BrowserRule(
            groups=None if page.groups is None else frozenset(page.groups),
            second_factor=None if page.second_factor is None else _factor(page.second_factor),
            groups_max_age=0.0 if config.front_door is None else config.front_door.page_recheck,
        ),
        upstream=upstream_digest(page),
    )


def upstream_digest(server: ServerConfig | PageConfig) -> str:
    """Return a short name of where requests go: another one for another place."""
    place = json.dumps([server.upstream, None if server.socket is None else str(server.socket)])
    return hashlib.sha256(place.encode()).hexdigest()[:16]


def _filtered(config: Config, server: Server) -> frozenset[str]:
    if not config.servers[server.name].filter_lists:
        return frozenset()
    return frozenset(listed.method for listed in lists_of(server))


def _operations(
    config: Config, targets: list[RuleTarget[RuleConfig]], kind: OperationKind
) -> tuple[OperationRule, ...]:
    return tuple(
        OperationRule(target.pattern, _rule(config, target))
        for target in targets
        if target.kind is kind and target.pattern is not None
    )


def _rule(config: Config, target: RuleTarget[RuleConfig]) -> Rule:
    rule = target.rule
    tokens = config.token_kinds(target.server) if target.kind is None else rule.tokens
    return Rule(
        scopes=frozenset(rule.scopes),
        groups=None if rule.groups is None else frozenset(rule.groups),
        second_factor=None if rule.second_factor is None else _factor(rule.second_factor),
        limits=_limits(config, target),
        tokens=ALL_KINDS if tokens is None else frozenset(map(TokenKind, tokens)),
        confirm=rule.introspect is not None,
        approval=_approval(approval_of(rule)),
        audit=tuple(rule.audit) if isinstance(rule, ArgumentRuleConfig) else (),
        when=tuple(map(_condition, conditions_of(target))),
        cost=rule.most_cost if isinstance(rule, ArgumentRuleConfig) else 1,
        cost_by=_cost_by(rule),
    )


def _cost_by(rule: RuleConfig) -> ArgumentCost | None:
    cost = rule.cost if isinstance(rule, ArgumentRuleConfig) else 1
    if not isinstance(cost, ArgumentCostConfig):
        return None
    return ArgumentCost(cost.argument, cost.min, cost.max)


def _approval(approve: ApprovalConfig | None) -> Approval | None:
    if approve is None:
        return None
    return Approval(None if approve.lifetime is None else int(approve.lifetime))


def conditions_of(target: RuleTarget[RuleConfig]) -> tuple[ConditionConfig, ...]:
    """Return the conditions of a rule; () where it applies to any arguments."""
    rule = target.rule
    return (rule.when or ()) if isinstance(rule, ArgumentRuleConfig) else ()


def _condition(condition: ConditionConfig) -> Condition:
    return Condition(condition.argument, next(tests_of(condition)))


def tests_of(condition: ConditionConfig) -> Iterator[ArgumentTest]:
    """Yield the tests of a condition; one where it has no errors."""
    if condition.equals is not None:
        yield OneOf((condition.equals,))
    if condition.one_of is not None:
        yield OneOf(condition.one_of)
    if condition.matches is not None:
        yield condition.matches
    if condition.under is not None:
        yield Under(condition.under.removesuffix("/"))
    if condition.range is not None:
        bounds = condition.range
        yield Within(bounds.min, bounds.max, bounds.above, bounds.below)
    if condition.present:
        yield Given(present=True)
    if condition.absent:
        yield Given(present=False)


def _factor(factor: SecondFactorConfig) -> SecondFactor:
    age = factor.max_login_age
    return SecondFactor(
        method=_METHODS[factor.method],
        max_login_age=None if age is None else int(age),
        evidence=frozenset(map(Evidence, factor.evidence)),
    )


def _front_door(config: Config) -> FrontDoor | None:
    door = config.front_door
    if door is None:
        return None
    default = config.default_client
    scopes = None if default is None else default.scopes
    hosts = door.metadata_hosts
    return FrontDoor(
        clients=frozenset({door.one_factor, door.two_factor}),
        registration=door.registration,
        metadata_hosts=None if hosts is None else frozenset(hosts),
        scopes=None if scopes is None else frozenset(scopes),
        step_up=StepUpFallback(door.step_up),
    )


def _client(config: Config, name: str, client: ClientConfig) -> DeclaredClient:
    return DeclaredClient(
        client_id=name,
        scopes=None if client.scopes is None else frozenset(client.scopes),
        machine=client.machine,
        assurance=_ASSURANCES[client.assurance],
        direct=config.front_door is not None
        and (client.machine or (client.login or config.login) == "direct"),
        assurance_claim=None if config.issuer.assurance_claim is None else client.assurance,
    )
