"""Lint the front door, the clients that log in there, and our clients behind it."""

from collections.abc import Callable, Iterator
from typing import Final

from authz.config.model import ClientConfig, Config, approval_of
from authz.config.problems import Fault, Path, error, listed, quoted, warning
from authz.config.pydantic_errors import closest
from authz.config.server_metadata import challenge_scopes

_SECTION: Final[Path] = ("front_door",)
_KEPT: Final = ("https://", "http://", "dynamic/")
_OURS: Final = ("one_factor", "two_factor")
_CONFIGURE: Final = "write front_door: {key_file: /run/secrets/front-door.pem}"
_NO_SECTION: Final = ("there is no front_door section", f"{_CONFIGURE}, or login: direct")


def _missing(config: Config) -> Iterator[Fault]:
    if config.front_door is not None:
        return
    if config.issuer.login == "front_door":
        yield error(
            ("issuer", "login"),
            *_NO_SECTION,
            _SECTION,
        )
    for name, client in config.clients.items():
        if client.login == "front_door":
            yield error(
                ("clients", name, "login"),
                *_NO_SECTION,
                _SECTION,
            )


def _unused(config: Config) -> Iterator[Fault]:
    front_door = config.front_door
    if front_door is None or config.logs_in or front_door.step_up != "off" or config.pages:
        return
    yield warning(
        _SECTION,
        "nobody logs in there, and there are no step-ups",
        "leave login: direct or step_up: off out",
        ("issuer", "login"),
        ("clients",),
    )


def _our_ids(config: Config) -> Iterator[Fault]:
    """Check that each of our clients at Authelia is one of its own: policy and use differ."""
    front_door, introspection = config.front_door, config.issuer.introspection
    if front_door is None:
        return
    if front_door.one_factor == front_door.two_factor:
        yield error(
            (*_SECTION, "two_factor"),
            "it is the client of one_factor too, and Authelia has one policy for a client",
            "name two clients",
            (*_SECTION, "one_factor"),
        )
    for name in _OURS:
        if introspection is not None and getattr(front_door, name) == introspection.client_id:
            yield error(
                (*_SECTION, name),
                "it is the client of issuer.introspection, which can do nothing else",
                "name another client",
                ("issuer", "introspection", "client_id"),
            )


def _names(config: Config) -> Iterator[Fault]:
    """Check that no configured client can be mistaken for another's name, or for ours."""
    front_door = config.front_door
    for name in config.clients:
        for prefix in _KEPT:
            if name.startswith(prefix):
                yield error(
                    ("clients", name),
                    f"names that begin with {prefix} are kept for clients that are not configured",
                    "call the client otherwise",
                    on_key=True,
                )
        for ours in _OURS:
            if front_door is not None and name == getattr(front_door, ours):
                yield error(
                    ("clients", name),
                    f"this is our own client at Authelia (front_door.{ours})",
                    "call one of them otherwise",
                    (*_SECTION, ours),
                    on_key=True,
                )


def _default(config: Config) -> Iterator[Fault]:
    path: Path = ("clients", "default")
    default = config.default_client
    if default is None:
        return
    if config.front_door is None or config.login == "direct":
        yield error(
            path,
            "this name is kept for clients that are not named",
            "call the client otherwise",
            on_key=True,
        )
        return
    for field in sorted(default.model_fields_set - {"scopes"}):
        yield error(
            (*path, field),
            "it narrows the scopes of clients that are not named, and nothing else",
            "leave it out, or name the client that it is for",
        )


def _clients(config: Config) -> Iterator[Fault]:
    if config.front_door is None:
        return
    for name, client in config.named.items():
        path: Path = ("clients", name)
        if client.machine and client.login == "front_door":
            yield error(
                (*path, "login"),
                "a client without a person logs nobody in",
                "leave login out, or write machine: false",
            )
        elif config.login_of(name) == "front_door":
            yield from _client(path, client)


def _client(path: Path, client: ClientConfig) -> Iterator[Fault]:
    if not client.redirect_uris:
        yield error(
            path,
            "it logs in at the front door and has no redirect_uris",
            "write redirect_uris: [https://claude.ai/api/mcp/auth_callback], or login: direct",
            ("issuer", "login"),
            _SECTION,
        )
    if client.assurance is not None:
        yield error(
            (*path, "assurance"),
            "it counts for direct clients only; the front door knows the log-in itself",
            "leave assurance out, or write login: direct",
            ("issuer", "login"),
            _SECTION,
        )


def _private_redirects(config: Config) -> Iterator[Fault]:
    uris = () if config.front_door is None else config.front_door.private_redirect_uris
    for index, uri in enumerate(uris):
        if uri.startswith(("http:", "https:")):
            yield error(
                (*_SECTION, "private_redirect_uris", index),
                f"{quoted(uri)} has no scheme of a program's own",
                "leave it out: https and loopback addresses need no entry here",
            )


def _lifetime(config: Config) -> Iterator[Fault]:
    """Check that the tokens which `authz authelia-config` asks for are taken."""
    door = config.front_door
    if door is None or door.refresh_tokens != "never":
        return
    if door.access_token_lifetime > config.issuer.max_lifetime:
        yield error(
            (*_SECTION, "access_token_lifetime"),
            "it is longer than issuer.max_lifetime: every token would be refused",
            "write a shorter one, or raise issuer.max_lifetime",
            ("issuer", "max_lifetime"),
            (*_SECTION, "refresh_tokens"),
        )


def _opaque(config: Config) -> Iterator[Fault]:
    """Find servers that take other tokens than the front door has: one kind, for all of them."""
    opaque = [name for name, server in config.servers.items() if server.tokens == ("opaque",)]
    if not config.logs_in or len(opaque) == len(config.servers):
        return
    for name in opaque:
        yield warning(
            ("servers", name, "tokens"),
            "the front door hands out signed tokens, as other servers accept them",
            "accept jwt here too, or opaque alone everywhere",
            ("servers",),
            _SECTION,
            ("issuer", "login"),
        )


def _hidden_scopes(config: Config) -> Iterator[Fault]:
    """Find scopes of tools that no log-in names: some clients never ask for more than that.

    The consent page comes before anybody knows who the person is, so it cannot offer what that
    person was refused: the client has to ask for it.
    """
    for name, server in config.servers.items() if config.logs_in else ():
        hidden = set(config.scopes_of(name)) - set(challenge_scopes(config, name))
        if server.challenge_scopes == "own" and hidden:
            names = listed(sorted(hidden), "and")
            yield warning(
                ("servers", name, "challenge_scopes"),
                f"only a client that logs in anew after a refusal gets {names}",
                "leave it out, or see in docs/clients.md which clients do",
                ("issuer", "login"),
                ("front_door",),
                ("servers", name, "tools"),
            )


def _scope_words(config: Config) -> Iterator[Fault]:
    """Find sentences that no consent page shows."""
    named = config.scopes_of(*config.servers)
    for scope in config.scopes:
        if not config.logs_in:
            yield warning(
                ("scopes", scope),
                "no page shows it: nobody logs in at the front door",
                f"{_CONFIGURE}, or leave it out",
                ("front_door",),
                ("issuer", "login"),
            )
        elif scope not in named:
            meant = closest(scope, named)
            yield warning(
                ("scopes", scope),
                "no server and no operation asks for this scope",
                f"write {meant}, or leave it out" if meant else "leave it out",
                ("servers",),
            )


def _approvals(config: Config) -> Iterator[Fault]:
    """Find approvals that nobody could give, and machines that a tool refuses for want of one."""
    door = config.front_door
    for target in config.targets():
        if approval_of(target.rule) is None:
            continue
        path: Path = (*target.path, "approve")
        if door is None:
            yield error(
                path,
                "nobody can be asked: there is no front_door section",
                f"{_CONFIGURE}, or leave approve out",
                _SECTION,
            )
        elif door.step_up == "off":
            yield error(
                path,
                "nobody is asked where front_door.step_up is off",
                "write front_door.step_up: link, or leave approve out",
                (*_SECTION, "step_up"),
            )
        if config.servers[target.server].machines:
            yield warning(
                path,
                "it refuses the server's machines: nobody approves for them",
                "name other tools for machines, or leave approve out",
                ("servers", target.server, "machines"),
            )


def _console(config: Config) -> Iterator[Fault]:
    """Find a console that nobody could log in at."""
    if config.console is not None and config.front_door is None:
        yield error(
            ("console",),
            "nobody can log in there: there is no front_door section",
            f"{_CONFIGURE}, or leave console out",
            _SECTION,
        )


CHECKS: Final[tuple[Callable[[Config], Iterator[Fault]], ...]] = (
    _missing,
    _unused,
    _our_ids,
    _names,
    _default,
    _clients,
    _private_redirects,
    _lifetime,
    _opaque,
    _hidden_scopes,
    _scope_words,
    _approvals,
    _console,
)
