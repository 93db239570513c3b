"""What is wrong between the kinds of tokens that servers accept and how the issuer is asked.

Law: as in `lint`, a part of which this is.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from authz.config.compile import kinds
from authz.config.model import Config, ServerConfig, ToolConfig
from authz.config.problems import Fault, Path, Severity, listed

_SECTION: Final[Path] = ("issuer", "introspection")
_CONFIGURE: Final = (
    "write issuer.introspection: {client_id: authz, key_file: /run/secrets/introspection.pem}"
)


class _Place(NamedTuple):
    path: Path
    rule: ServerConfig | ToolConfig
    server: ServerConfig


def _places(config: Config) -> Iterator[_Place]:
    for name, server in config.servers.items():
        path: Path = ("servers", name)
        yield _Place(path, server, server)
        for pattern, tool in (server.tools or {}).items():
            yield _Place((*path, "tools", pattern), tool, server)


def _credentials(config: Config) -> Iterator[Fault]:
    """Check that there is what the way to authenticate needs, and nothing else."""
    introspection = config.issuer.introspection
    if introspection is None:
        return
    signs = introspection.auth == "private_key_jwt"
    needed, file = ("key_file", "introspection.pem") if signs else ("secret_file", "introspection")
    if getattr(introspection, needed) is None:
        yield Fault(
            (*_SECTION, needed),
            f"auth: {introspection.auth} needs it",
            f"write {needed}: /run/secrets/{file}",
            reads=((*_SECTION, "auth"),),
        )
    for name in ("secret_file",) if signs else ("key_file", "key_id"):
        if getattr(introspection, name) is not None:
            other = "client_secret_basic" if signs else "private_key_jwt"
            yield Fault(
                (*_SECTION, name),
                f"auth: {introspection.auth} has no use for it",
                f"leave it out, or write auth: {other}",
                reads=((*_SECTION, "auth"),),
            )


def _ages(config: Config) -> Iterator[Fault]:
    introspection = config.issuer.introspection
    if introspection is not None and introspection.confirm_age > introspection.max_age:
        yield Fault(
            (*_SECTION, "confirm_age"),
            "where tokens are always introspected, answers would be older than elsewhere",
            "write less than max_age",
            reads=((*_SECTION, "max_age"),),
        )


def _nobody_to_ask(config: Config) -> Iterator[Fault]:
    if config.issuer.introspection is not None:
        return
    for path, rule, _ in _places(config):
        if "opaque" in (rule.tokens or ()):
            yield Fault(
                (*path, "tokens"),
                "only the issuer understands an opaque token, and it is not asked",
                f"{_CONFIGURE}, or leave opaque out",
                reads=(_SECTION,),
            )
        if rule.introspect is not None:
            yield Fault(
                (*path, "introspect"),
                "the issuer is not asked about tokens",
                f"{_CONFIGURE}, or leave it out",
                reads=(_SECTION,),
            )


def _asked_in_vain(config: Config) -> Iterator[Fault]:
    if config.issuer.introspection is None:
        return
    servers = config.servers.values()
    opaque = any("opaque" in kinds(config, server) for server in servers)
    if not opaque and not any(place.rule.introspect for place in _places(config)):
        yield Fault(
            _SECTION,
            "no server accepts opaque tokens, and none introspects the others",
            "leave it out, or write introspect: always at a server",
            Severity.WARNING,
            reads=(("servers",),),
        )


def _no_kind_left(config: Config) -> Iterator[Fault]:
    """Find tools that take other tokens than their server lets through."""
    for path, rule, server in _places(config):
        accepted = kinds(config, server)
        if rule.tokens is not None and accepted.isdisjoint(rule.tokens):
            yield Fault(
                (*path, "tokens"),
                f"the server accepts {listed(sorted(accepted))} only, so this can never be met",
                f"write tokens: [{', '.join(sorted(accepted))}], or leave it out",
                reads=(path[:2], _SECTION),
            )


def _groups_of_opaque(config: Config) -> Iterator[Fault]:
    for path, rule, server in _places(config):
        left = kinds(config, server).intersection(rule.tokens or ("jwt", "opaque"))
        if left == {"opaque"} and rule.groups is not None:
            yield Fault(
                (*path, "groups"),
                "Authelia tells the groups of signed tokens only",
                "accept jwt here, or expect refusals only",
                Severity.WARNING,
                reads=(path[:2], _SECTION),
            )


def _marker_of_nobody(config: Config) -> Iterator[Fault]:
    path: Path = ("issuer", "assurance_claim")
    if config.issuer.assurance_claim is not None and not any(
        client.assurance is not None for client in config.direct.values()
    ):
        yield Fault(
            path,
            "no direct client has an assurance, and without one the claim proves nothing",
            "leave it out, or write assurance: two_factor at a client of login: direct",
            Severity.WARNING,
            reads=(("clients",),),
        )


CHECKS: Final[tuple[Callable[[Config], Iterator[Fault]], ...]] = (
    _credentials,
    _ages,
    _nobody_to_ask,
    _asked_in_vain,
    _no_kind_left,
    _groups_of_opaque,
    _marker_of_nobody,
)
