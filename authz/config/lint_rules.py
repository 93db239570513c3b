"""What is wrong between clients, servers, tools and limits.

Law: as in `lint`, whose second half this is.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from authz.config.compile import LimitPlace, budget_of, limit_places
from authz.config.model import Config
from authz.config.problems import Fault, Path, Severity, field_name, quoted
from authz.core.exchanges import SERVER_REQUESTS
from authz.core.methods import LISTEN, METHODS

# Envoy answers these itself: the well-known documents, and what MCP clients ask at the origin of
# a server that names no authorization server. `authz` is for pages.
_RESERVED: Final = frozenset({".well-known", "authorize", "authz", "register", "token", "revoke"})


def _clients(config: Config) -> Iterator[Fault]:
    for name, client in config.named.items():
        path: Path = ("clients", name)
        if client.machine and client.assurance is not None:
            yield Fault(
                (*path, "assurance"),
                "a client without a person logs nobody in",
                "leave assurance out, or write machine: false",
            )
        if client.machine and client.redirect_uris:
            yield Fault(
                (*path, "redirect_uris"),
                "a client without a person is redirected nowhere",
                "leave redirect_uris out, or write machine: false",
            )
        if config.login_of(name) == "front_door":
            continue  # which takes any port of localhost itself
        for index, uri in enumerate(client.redirect_uris):
            if uri.startswith("http://localhost"):
                yield Fault(
                    (*path, "redirect_uris", index),
                    "Authelia compares the port of localhost, which programs choose anew",
                    "write http://127.0.0.1 or http://[::1] instead",
                    Severity.WARNING,
                )


def _resources(config: Config) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    base = config.gateway.url
    for name, server in config.servers.items():
        resource = config.resource(name)
        path: Path = ("servers", name) if server.resource is None else ("servers", name, "resource")
        if not resource.startswith(f"{base}/"):
            yield Fault(
                path,
                f"{quoted(resource)} is not under gateway.url",
                f"write {base}/{name}",
                reads=(("gateway", "url"),),
            )
        elif resource.removeprefix(f"{base}/").split("/")[0] in _RESERVED:
            yield Fault(
                path,
                f"{quoted(resource)} is an address of the gateway's own",
                "name the server otherwise, or give it another resource",
                reads=(("gateway", "url"),),
            )
        if resource in seen:
            yield Fault(
                path,
                f"{quoted(resource)} is the server {seen[resource]} already",
                "give every server a resource of its own",
                reads=(("gateway", "url"), ("servers", seen[resource], "resource")),
            )
        seen.setdefault(resource, name)


def _nested(config: Config) -> Iterator[Fault]:
    """Find servers under others: Authelia grants `resource` by path prefix, verbatim."""
    for name, server in config.servers.items():
        inner = config.resource(name)
        for other, outer in config.servers.items():
            if server.nested or outer.nested or not inner.startswith(f"{config.resource(other)}/"):
                continue
            yield Fault(
                ("servers", name) if server.resource is None else ("servers", name, "resource"),
                f"it lies under the server {other}, whose clients Authelia would give tokens for "
                "it too",
                f"move it, for example to {config.gateway.url}/{name}-{other}, or write "
                "nested: true",
                reads=(("gateway", "url"), ("servers", other)),
            )


def _limits(config: Config) -> Iterator[Fault]:
    names: Counter[str] = Counter()
    for where in limit_places(config):
        yield from _limits_of(where)
        for index, limit in enumerate(where.limits):
            if limit.name is not None and names[limit.name]:
                yield Fault(
                    (*where.path, index, "name"),
                    f"{quoted(limit.name)} names another limit already",
                    "give every limit a name of its own",
                    reads=(("servers",), ("limits",)),
                )
            if limit.name is not None:
                names[limit.name] += 1


def _limits_of(where: LimitPlace) -> Iterator[Fault]:
    seen: dict[tuple[object, object, str], int] = {}
    for index, limit in enumerate(where.limits):
        path = (*where.path, index)
        first = seen.setdefault((limit.per, limit.rate, limit.counts), index)
        if first != index:
            yield Fault(
                path, f"it counts the same as number {first} of this list", "keep one of them"
            )
        if limit.counts == "handshakes" and "tools" in where.path[2:]:
            yield Fault(
                (*path, "counts"),
                "a tool's limit counts calls of the tool, which are no handshakes",
                "leave counts out",
            )
        if limit.cost > limit.rate.quota:
            yield Fault(
                (*path, "cost"),
                f"{limit.cost} is more than the {limit.rate.quota} of the rate, so nothing passes",
                f"write 1 to {limit.rate.quota}",
            )


def _unlimited(config: Config) -> Iterator[Fault]:
    for name, server in config.servers.items():
        if server.limits == () and not config.limits:
            yield Fault(
                ("servers", name, "limits"),
                "nothing limits this server",
                "write for example [{per: [client, user], rate: 60/minute}]",
                Severity.WARNING,
                reads=(("limits",),),
            )


def _budgets(config: Config) -> Iterator[Fault]:
    """Find servers that one person can keep from everybody else by what is left open there."""
    if any(
        limit.cost > limit.rate.quota for where in limit_places(config) for limit in where.limits
    ):
        return  # an error, said already
    for name, server in config.servers.items():
        most = budget_of(config, name).most_open
        if most is not None and most <= SERVER_REQUESTS // 2:
            continue
        if server.limits == () and not config.limits:
            continue  # said already
        held = "all" if most is None or most >= SERVER_REQUESTS else f"{most:,}"
        yield Fault(
            ("servers", name, "limits"),
            f"one person could hold {held} of the {SERVER_REQUESTS:,} requests that the server is "
            "given at a time",
            "add limits of short windows per user, such as {per: user, rate: 120/minute}, or lower "
            "gateway.calls_per_user and gateway.streams_per_user",
            Severity.WARNING,
            reads=(("limits",), ("gateway",)),
        )


def _tools(config: Config) -> Iterator[Fault]:
    for name, server in config.servers.items():
        tools = server.tools or {}
        seen: dict[str, str] = {}
        for pattern, tool in tools.items():
            path: Path = ("servers", name, "tools", pattern)
            first = seen.setdefault(_canonical(pattern), pattern)
            if first != pattern:
                yield Fault(
                    path, f"it matches the same tools as {quoted(first)}", "keep one", on_key=True
                )
            if "second_factor" in tool.model_fields_set and tool.second_factor is None:
                yield from _weakens_nothing(config, name, path)
        if list(map(_canonical, tools)) == ["*"] and not _asks(*tools.values()):
            yield Fault(
                ("servers", name, "tools"),
                "it names every tool and asks nothing, as if it were left out",
                "name the tools that are to be offered",
                Severity.WARNING,
            )


def _signed_identity(config: Config) -> Iterator[Fault]:
    for name, server in config.servers.items():
        if server.identity == "signed" and config.gateway.identity_key_file is None:
            yield Fault(
                ("servers", name, "identity"),
                "there is no key to sign with",
                "write gateway.identity_key_file, or identity: headers",
                reads=(("gateway",),),
            )


def _identity_key(config: Config) -> Iterator[Fault]:
    """Check that the file is nobody else's; `secret_files` looks at the keys themselves."""
    gateway = config.gateway
    ours = {
        "identity_key_file": gateway.identity_key_file,
        "identity_other_key_file": gateway.identity_other_key_file,
    }
    for name, file in ours.items():
        for path, other in _other_keys(config):
            if file is not None and file == other:
                yield shared_identity_key(name, path)
    if gateway.identity_other_key_file is not None and gateway.identity_key_file is None:
        yield Fault(
            ("gateway", "identity_other_key_file"),
            "there is no key that it would be published beside",
            "write gateway.identity_key_file, or leave it out",
        )


def _other_keys(config: Config) -> Iterator[tuple[Path, str | None]]:
    if config.front_door is not None:
        yield ("front_door", "key_file"), config.front_door.key_file
        yield ("front_door", "seal_file"), config.front_door.seal_file
    if config.issuer.introspection is not None:
        yield ("issuer", "introspection", "key_file"), config.issuer.introspection.key_file
    if config.gateway.tls is not None:
        yield ("gateway", "tls", "key"), config.gateway.tls.key


def shared_identity_key(name: str, other: Path) -> Fault:
    """Return what is said of a key that signs who calls and something else besides.

    Whoever takes the one signature could be shown the other.
    """
    return Fault(
        ("gateway", name),
        f"the key of {field_name(other)} is to sign who calls, too",
        "write another file; `authz identity-keys --make-key` makes it",
        reads=(other,),
    )


def _methods(config: Config) -> Iterator[Fault]:
    for name, server in config.servers.items():
        for index, method in enumerate(server.methods):
            path: Path = ("servers", name, "methods", index)
            known = METHODS.get(method)
            if known is not None and not known.continues and method != LISTEN:
                yield Fault(
                    path,
                    f"{quoted(method)} is MCP's own, and needs no naming",
                    "name methods that MCP does not have",
                )
            elif server.tools is None:
                yield Fault(
                    path,
                    "every method may be called where tools are not named",
                    "name tools, or leave methods out",
                    Severity.WARNING,
                )


def _weakens_nothing(config: Config, name: str, path: Path) -> Iterator[Fault]:
    if config.servers[name].second_factor is not None:
        yield Fault(
            (*path, "second_factor"),
            "the server's second factor is asked all the same",
            "leave it out here, or take it from the server and name it at its other tools",
            Severity.WARNING,
        )


def _asks(*tools: object) -> bool:
    return any(getattr(tool, "model_fields_set", ()) for tool in tools)


def _canonical(pattern: str) -> str:
    """Return a pattern with its runs of wildcards in one order: `?*` and `*?` match the same."""
    return re.sub(r"[*?]+", lambda run: "?" * run[0].count("?") + "*" * ("*" in run[0]), pattern)


CHECKS: Final[tuple[Callable[[Config], Iterator[Fault]], ...]] = (
    _clients,
    _resources,
    _nested,
    _limits,
    _unlimited,
    _budgets,
    _tools,
    _methods,
    _signed_identity,
    _identity_key,
)
