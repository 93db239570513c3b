"""Lint clients, servers, tools and limits."""

import re
from collections.abc import Callable, Iterator
from typing import Final

from authz.config.compile import budget_of, limits_of
from authz.config.model import Config, RuleConfig
from authz.config.problems import Fault, Path, error, quoted, warning
from authz.core.exchanges import SERVER_REQUESTS
from authz.core.methods import LISTEN, METHODS
from authz.core.policy import RuleTarget

# Envoy answers these itself: the well-known documents, and what MCP clients ask at the origin of
# a server that names no authorization server. `authz` is for pages.
_RESERVED: Final = frozenset({".well-known", "authorize", "authz", "register", "token", "revoke"})


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
        elif resource.removeprefix(base).split("/")[0] in _RESERVED:
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
    seen: dict[tuple[object, object, str], int] = {}
    for index, limit in enumerate(limits_of(config, target)):
        path: Path = (*outer, "limits", index)
        first = seen.setdefault((limit.per, limit.rate, limit.counts), index)
        if first != index:
            wrong = f"it counts the same as number {first} of this list"
            yield error(path, wrong, "keep one of them")
        if limit.counts == "handshakes" and target is not None and target.kind is not None:
            yield error(
                (*path, "counts"),
                "a tool's limit counts calls of the tool, which are no handshakes",
                "leave counts out",
            )
        if limit.cost > limit.rate.quota:
            yield error(
                (*path, "cost"),
                f"{limit.cost} is more than the {limit.rate.quota} of the rate, so nothing passes",
                f"write 1 to {limit.rate.quota}",
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


def _open_requests(config: Config) -> Iterator[Fault]:
    """Find servers that one person can keep from everybody else by what is left open there."""
    lists = (limits_of(config, target) for target in (None, *config.targets()))
    # Limits that let nothing pass are an error of their own.
    can_pass = all(limit.cost <= limit.rate.quota for limits in lists for limit in limits)
    for name, server in config.servers.items():
        if server.limits == () and not config.limits:
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


def _tools(config: Config) -> Iterator[Fault]:
    for name, server in config.servers.items():
        seen: dict[str, str] = {}
        tools = server.tools or {}
        for pattern, tool in tools.items():
            path: Path = ("servers", name, "tools", pattern)
            first = seen.setdefault(_canonical(pattern), pattern)
            if first != pattern:
                wrong = f"it matches the same tools as {quoted(first)}"
                yield error(path, wrong, "keep one", on_key=True)
            says_none = "second_factor" in tool.model_fields_set and tool.second_factor is None
            if says_none and server.second_factor is not None:
                yield warning(
                    (*path, "second_factor"),
                    "the server's second factor is asked all the same",
                    "leave it out here, or take it from the server and name it at its other tools",
                )
        asks = any(tool.model_fields_set for tool in tools.values())
        if list(map(_canonical, tools)) == ["*"] and not asks:
            yield warning(
                ("servers", name, "tools"),
                "it names every tool and asks nothing, as if it were left out",
                "name the tools that are to be offered",
            )


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
            elif server.tools is None and server.annotations is None and server.pins is None:
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


def _canonical(pattern: str) -> str:
    """Return a pattern with its runs of wildcards in one order: `?*` and `*?` match the same."""
    return re.sub(r"[*?]+", lambda run: "?" * run[0].count("?") + "*" * ("*" in run[0]), pattern)


CHECKS: Final[tuple[Callable[[Config], Iterator[Fault]], ...]] = (
    _clients,
    _resources,
    _nested,
    _limits,
    _open_requests,
    _tools,
    _methods,
    _annotations,
    _pins,
)
