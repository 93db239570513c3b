"""The models to the policy that decisions are made of.

Law: nothing is decided and nothing is checked here; a rule means the same on both sides. Limit
names are unique, and places are, so that two limits never share a bucket.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from authz.config import urls
from authz.config.budgets import Budget, budget
from authz.config.model import (
    ClientConfig,
    Config,
    LimitConfig,
    SecondFactorConfig,
    ServerConfig,
    ToolConfig,
)
from authz.config.problems import Path
from authz.config.server_metadata import challenge_scopes
from authz.config.value_types import Rate
from authz.core.limits import Limit, Per
from authz.core.methods import Counts
from authz.core.policy import (
    ALL_KINDS,
    FrontDoor,
    JsonBounds,
    KnownClient,
    Policy,
    RefusalForm,
    Rule,
    Server,
    StepUpFallback,
    TokenKind,
    ToolRule,
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
_SIGNED: Final = frozenset({"jwt"})
_BOTH: Final = frozenset({"jwt", "opaque"})
_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"


class LimitPlace(NamedTuple):
    """Hold the limits of one place.

    Attributes:
        path: where they are written, or would be.
        place: as in `core.limits.Limit`.
        limits: the limits in force there, the default ones included.
    """

    path: Path
    place: str
    limits: tuple[LimitConfig, ...]


def limit_places(config: Config) -> Iterator[LimitPlace]:
    """Yield every place that can have limits: everything, each server, each tool rule."""
    yield LimitPlace(("limits",), "", config.limits)
    for name, server in config.servers.items():
        limits = DEFAULT_LIMITS if server.limits is None else server.limits
        yield LimitPlace(("servers", name, "limits"), name, limits)
        for pattern, tool in (server.tools or {}).items():
            path = ("servers", name, "tools", pattern, "limits")
            yield LimitPlace(path, f"{name}:{pattern}", tool.limits)


def compile_policy(config: Config) -> Policy:
    """Return the policy of a configuration that has no errors."""
    introspection = config.issuer.introspection
    limits = _limits(config)
    return Policy(
        issuer=config.issuer.url,
        origins=frozenset(config.gateway.origins),
        servers=MappingProxyType({name: _server(config, name, limits) for name in config.servers}),
        clients=MappingProxyType(
            {name: _client(config, name, client) for name, client in config.named.items()}
        ),
        front_door=_front_door(config),
        limits=limits[""],
        max_body=config.gateway.max_body,
        max_stream=config.gateway.max_stream,
        stream_recheck=config.gateway.stream_recheck,
        confirm_age=0.0 if introspection is None else introspection.confirm_age,
        refusals=RefusalForm(config.gateway.refusals),
        json=JsonBounds(
            work=round(config.gateway.max_json_work * 1e9), depth=config.gateway.max_json_depth
        ),
    )


def budget_of(config: Config, name: str) -> Budget:
    """Return what bounds the exchanges of one person at a server."""
    limits = _limits(config)
    return budget(config, name, limits[""] + limits[name])


def kinds(config: Config, server: ServerConfig) -> frozenset[str]:
    """Return the kinds of tokens that a server accepts."""
    if server.tokens is not None:
        return frozenset(server.tokens)
    return _SIGNED if config.issuer.introspection is None else _BOTH


def metadata_url(resource: str) -> str:
    """Return where a resource's document is (RFC 9728, section 3.1: inserted before the path)."""
    path = urls.split(resource).path
    return resource.removesuffix(path) + _WELL_KNOWN + path


def limit_name(place: str, per: Per, rate: Rate, counts: str = "all") -> str:
    """Return the name of a limit that was given none: `files:delete_*:user:5/minute`.

    It can be a structured-field string (RFC 9651): printable ASCII, no quote, no backslash. No
    server is called `*`, and no given name holds a colon, so names never meet.
    """
    name = f"{place or '*'}:{per.value}:{rate}"
    return name if counts == "all" else f"{name}:{counts}"


def _limits(config: Config) -> dict[str, tuple[Limit, ...]]:
    return {
        where.place: tuple(_limit(where.place, limit) for limit in where.limits)
        for where in limit_places(config)
    }


def _limit(place: str, limit: LimitConfig) -> Limit:
    return Limit(
        name=limit.name or limit_name(place, limit.per, limit.rate, limit.counts),
        per=limit.per,
        quota=limit.rate.quota,
        window=limit.rate.window,
        cost=limit.cost,
        place=place,
        counts=Counts(limit.counts),
    )


def _server(config: Config, name: str, limits: Mapping[str, tuple[Limit, ...]]) -> Server:
    server = config.servers[name]
    resource = config.resource(name)
    bounds = budget(config, name, limits[""] + limits[name])
    return Server(
        name=name,
        resource=resource,
        metadata_url=metadata_url(resource),
        rule=_rule(server, limits[name], frozenset(map(TokenKind, kinds(config, server)))),
        tools=tuple(
            ToolRule(pattern, _rule(tool, limits[f"{name}:{pattern}"], _tool_kinds(tool)))
            for pattern, tool in (server.tools or {}).items()
        ),
        machines=frozenset(server.machines),
        versions=frozenset(server.versions),
        methods=frozenset(server.methods),
        signed_identity=server.identity == "signed",
        session_lifetime=int(server.session_lifetime),
        challenge=frozenset(challenge_scopes(config, name)),
        streams=bounds.streams,
        meters=bounds.meters,
    )


def _tool_kinds(tool: ToolConfig) -> frozenset[TokenKind]:
    return ALL_KINDS if tool.tokens is None else frozenset(map(TokenKind, tool.tokens))


def _rule(
    asked: ServerConfig | ToolConfig, limits: tuple[Limit, ...], tokens: frozenset[TokenKind]
) -> Rule:
    return Rule(
        scopes=frozenset(asked.scopes),
        groups=None if asked.groups is None else frozenset(asked.groups),
        second_factor=None if asked.second_factor is None else _factor(asked.second_factor),
        limits=limits,
        tokens=tokens,
        confirm=asked.introspect is not None,
    )


def _factor(asked: SecondFactorConfig) -> SecondFactor:
    age = asked.max_login_age
    return SecondFactor(
        method=_METHODS[asked.method],
        max_login_age=None if age is None else int(age),
        evidence=frozenset(map(Evidence, asked.evidence)),
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


def _client(config: Config, name: str, client: ClientConfig) -> KnownClient:
    return KnownClient(
        client_id=name,
        scopes=None if client.scopes is None else frozenset(client.scopes),
        machine=client.machine,
        assurance=_ASSURANCES[client.assurance],
        direct=config.front_door is not None
        and (client.machine or (client.login or config.login) == "direct"),
        assurance_claim=None if config.issuer.assurance_claim is None else client.assurance,
    )
