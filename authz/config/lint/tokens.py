"""Lint the kinds of tokens that servers accept, and how the issuer is asked about them."""

from collections.abc import Callable, Iterator
from typing import Final

from authz.config.model import Config
from authz.config.problems import Fault, Path, error, listed, warning

_SECTION: Final[Path] = ("issuer", "introspection")
_CONFIGURE: Final = (
    "write issuer.introspection: {client_id: authz, key_file: /run/secrets/introspection.pem}"
)


def _credentials(config: Config) -> Iterator[Fault]:
    """Check that there is what the way to authenticate needs, and nothing else."""
    introspection = config.issuer.introspection
    if introspection is None:
        return
    signs = introspection.auth == "private_key_jwt"
    needed, file = ("key_file", "introspection.pem") if signs else ("secret_file", "introspection")
    if getattr(introspection, needed) is None:
        yield error(
            (*_SECTION, needed),
            f"auth: {introspection.auth} needs it",
            f"write {needed}: /run/secrets/{file}",
            (*_SECTION, "auth"),
        )
    for name in ("secret_file",) if signs else ("key_file", "key_id"):
        if getattr(introspection, name) is not None:
            other = "client_secret_basic" if signs else "private_key_jwt"
            yield error(
                (*_SECTION, name),
                f"auth: {introspection.auth} has no use for it",
                f"leave it out, or write auth: {other}",
                (*_SECTION, "auth"),
            )


def _ages(config: Config) -> Iterator[Fault]:
    introspection = config.issuer.introspection
    if introspection is not None and introspection.confirm_age > introspection.max_age:
        yield error(
            (*_SECTION, "confirm_age"),
            "where tokens are always introspected, answers would be older than elsewhere",
            "write less than max_age",
            (*_SECTION, "max_age"),
        )


def _introspection(config: Config) -> Iterator[Fault]:
    """Find rules that need introspection where there is none, and introspection without use."""
    if config.issuer.introspection is None:
        for target in config.targets():
            if "opaque" in (target.rule.tokens or ()):
                yield error(
                    (*target.path, "tokens"),
                    "only the issuer understands an opaque token, and it is not asked",
                    f"{_CONFIGURE}, or leave opaque out",
                    _SECTION,
                )
            if target.rule.introspect is not None:
                yield error(
                    (*target.path, "introspect"),
                    "the issuer is not asked about tokens",
                    f"{_CONFIGURE}, or leave it out",
                    _SECTION,
                )
    elif not any("opaque" in config.token_kinds(name) for name in config.servers) and not any(
        target.rule.introspect for target in config.targets()
    ):
        yield warning(
            _SECTION,
            "no server accepts opaque tokens, and none introspects the others",
            "leave it out, or write introspect: always at a server",
            ("servers",),
        )


def _kinds(config: Config) -> Iterator[Fault]:
    """Find tools that take other tokens than their server, and groups where no token has them."""
    for target in config.targets():
        accepted, rule = config.token_kinds(target.server), target.rule
        reads: tuple[Path, ...] = (("servers", target.server), _SECTION)
        if rule.tokens is not None and accepted.isdisjoint(rule.tokens):
            yield error(
                (*target.path, "tokens"),
                f"the server accepts {listed(sorted(accepted))} only, so this can never be met",
                f"write tokens: [{', '.join(sorted(accepted))}], or leave it out",
                *reads,
            )
        if rule.groups is not None and accepted.intersection(rule.tokens or accepted) == {"opaque"}:
            yield warning(
                (*target.path, "groups"),
                "Authelia tells the groups of signed tokens only",
                "accept jwt here, or expect refusals only",
                *reads,
            )


def _unused_assurance_claim(config: Config) -> Iterator[Fault]:
    if config.issuer.assurance_claim is not None and not any(
        client.assurance is not None for client in config.direct.values()
    ):
        yield warning(
            ("issuer", "assurance_claim"),
            "no direct client has an assurance, and without one the claim proves nothing",
            "leave it out, or write assurance: two_factor at a client of login: direct",
            ("clients",),
        )


CHECKS: Final[tuple[Callable[[Config], Iterator[Fault]], ...]] = (
    _credentials,
    _ages,
    _introspection,
    _kinds,
    _unused_assurance_claim,
)
