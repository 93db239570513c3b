"""Whether rules can be met.

Law: a rule that nobody could ever meet is an error: the server would refuse everybody, and the
file would look right. A rule that only something outside of this file could meet is a warning.
"""

from collections.abc import Callable, Iterator
from typing import Final

from authz.config.compile import kinds
from authz.config.model import ClientConfig, Config, SecondFactorConfig
from authz.config.problems import Fault, Path, Severity, listed, quoted
from authz.config.pydantic_errors import closest

_ANSWERS: Final = {"any": frozenset({"two_factor", "totp"}), "totp": frozenset({"totp"})}
_READS_CLIENTS: Final[tuple[Path, ...]] = (("clients",),)


def _machines(config: Config) -> Iterator[Fault]:
    for name, server in config.servers.items():
        for index, machine in enumerate(server.machines):
            path: Path = ("servers", name, "machines", index)
            client = config.named.get(machine)
            if client is None:
                meant = closest(machine, config.named)
                right = f"write {meant}" if meant else "name it under clients, with machine: true"
                yield Fault(
                    path, f"there is no client {quoted(machine)}", right, reads=_READS_CLIENTS
                )
            elif not client.machine:
                yield Fault(
                    path,
                    f"the client {quoted(machine)} does not come without a person",
                    f"write machine: true at clients.{machine}, or leave it out here",
                    reads=_READS_CLIENTS,
                )


def _idle_machines(config: Config) -> Iterator[Fault]:
    used = {machine for server in config.servers.values() for machine in server.machines}
    for name, client in config.named.items():
        if client.machine and name not in used:
            yield Fault(
                ("clients", name),
                "no server lets this machine in",
                f"write machines: [{name}] at a server",
                Severity.WARNING,
                reads=(("servers",),),
            )


def _candidates(config: Config, server: str) -> list[ClientConfig]:
    """Return what is known of the clients that may use a server at all."""
    machines = config.servers[server].machines
    known = [
        client for name, client in config.named.items() if not client.machine or name in machines
    ]
    return known if config.strangers is None else [*known, config.strangers]


def _deserted(config: Config) -> Iterator[Fault]:
    for name in config.servers:
        if config.named and not _candidates(config, name):
            yield Fault(
                ("servers", name),
                "no client may use this server: where clients are named, others are refused",
                "name a client with people under clients, or write machines here",
                reads=_READS_CLIENTS,
            )


def _scopes(config: Config) -> Iterator[Fault]:
    for name, server in config.servers.items():
        path: Path = ("servers", name)
        yield from _scopes_at(config, name, (*path, "scopes"), server.scopes, ())
        for pattern, tool in (server.tools or {}).items():
            inner = (*path, "tools", pattern, "scopes")
            yield from _scopes_at(config, name, inner, tool.scopes, server.scopes)


def _scopes_at(
    config: Config, server: str, path: Path, scopes: tuple[str, ...], outer: tuple[str, ...]
) -> Iterator[Fault]:
    """Check the scopes of one rule: each had by a client, all had by one."""
    for index, scope in enumerate(scopes):
        if scope == "offline_access":
            yield Fault(
                (*path, index),
                "offline_access is about refresh tokens and is no permission",
                "leave it out",
            )
    clients = _candidates(config, server)
    if not clients or any(client.scopes is None for client in clients):
        return
    had = {scope for client in clients for scope in client.scopes or ()}
    missing = [index for index, scope in enumerate(scopes) if scope not in had]
    for index in missing:
        meant = closest(scopes[index], had)
        right = f"write {meant}, or" if meant else "write a scope that one has, or"
        yield Fault(
            (*path, index),
            f"no client of this server has the scope {quoted(scopes[index])}",
            f"{right} give it to a client under clients",
            reads=_READS_CLIENTS,
        )
    needed = {*scopes, *outer}
    if not missing and scopes and needed <= had and not _one_has(clients, needed):
        yield Fault(
            path,
            f"no one client has {listed(sorted(needed), 'and')}, all of which are needed",
            "give them to one client under clients",
            reads=(*_READS_CLIENTS, ("servers", server, "scopes")),
        )


def _one_has(clients: list[ClientConfig], needed: set[str]) -> bool:
    return any(needed <= set(client.scopes or ()) for client in clients)


def _second_factors(config: Config) -> Iterator[Fault]:
    for name, server in config.servers.items():
        path: Path = ("servers", name)
        accepted = kinds(config, server)
        factor = server.second_factor
        yield from _factor_at(config, (*path, "second_factor"), factor, accepted)
        for pattern, tool in (server.tools or {}).items():
            inner = (*path, "tools", pattern, "second_factor")
            left = accepted.intersection(tool.tokens or accepted)
            yield from _factor_at(config, inner, tool.second_factor, left)


def _factor_at(
    config: Config, path: Path, rule: SecondFactorConfig | None, tokens: frozenset[str]
) -> Iterator[Fault]:
    """Check one rule: whether anything that it accepts could come, with these kinds of tokens."""
    if rule is None:
        return
    answers = _ANSWERS[rule.method]
    declared = any(client.assurance in answers for client in config.named.values())
    # A marker is a signed claim: no declaration counts where every token is opaque.
    marked = config.issuer.assurance_claim is None or "jwt" in tokens
    unmarked = declared and not marked and "client" in rule.evidence
    steps_up = config.front_door is not None and config.front_door.step_up != "off"
    could = {
        "login": config.logs_in,
        "step_up": steps_up,
        "client": declared and marked and rule.max_login_age is None,
    }
    if any(could.get(evidence) for evidence in rule.evidence):
        if unmarked:
            yield Fault(path, *_UNMARKED, Severity.WARNING, reads=_READS_MARKER)
        if rule.max_login_age is not None and "step_up" in rule.evidence and not steps_up:
            yield Fault(
                (*path, "max_login_age"), *_NO_NEWER, Severity.WARNING, reads=_READS_FRONT_DOOR
            )
        return
    left = {"token", "step_up"}.intersection(rule.evidence)
    if left:
        outside = _NOBODY if config.front_door is None else _OFF
        reads = (*_READS_CLIENTS, *_READS_FRONT_DOOR)
        if unmarked:
            outside, reads = _UNMARKED, _READS_MARKER
        yield Fault(path, *outside, Severity.WARNING, reads=reads)
    elif "client" not in rule.evidence:
        yield Fault((*path, "evidence"), *_NO_LOGIN)
    elif rule.max_login_age is not None:
        yield Fault((*path, "max_login_age"), *_NO_AGE)
    elif unmarked:
        yield Fault((*path, "evidence"), *_UNMARKED, reads=_READS_MARKER)
    else:
        yield Fault(
            (*path, "evidence"),
            f"no client has an assurance that answers {rule.method}",
            f"write assurance: {listed(sorted(answers, reverse=True))} at a client",
            reads=_READS_CLIENTS,
        )


_READS_FRONT_DOOR: Final[tuple[Path, ...]] = (("front_door",), ("issuer", "login"))
_READS_MARKER: Final[tuple[Path, ...]] = (
    ("issuer", "assurance_claim"),
    ("issuer", "introspection"),
    ("servers",),
)
_UNMARKED: Final = (
    "only opaque tokens are accepted here, and none has the signed issuer.assurance_claim",
    "accept jwt here, or leave client out of the evidence",
)
_NOBODY: Final = (
    "no client's assurance answers it, Authelia's tokens never do, and there is no front door",
    "write front_door, or an assurance at a client without max_login_age, or expect refusals only",
)
_OFF: Final = (
    "no client's assurance answers it, Authelia's tokens never do, and no log-in or step-up could",
    "leave login: direct or step_up: off out, or add login and step_up here",
)
_NO_NEWER: Final = (
    "step-ups are off, so past this age a client must log in anew and is not told so",
    "write front_door.step_up: link, or leave max_login_age out",
)
_NO_LOGIN: Final = (
    "log-ins are seen by the front door only, where no client logs in",
    "write front_door, or add client, step_up or token",
)
_NO_AGE: Final = (
    "a client's assurance has no age, so this can never be met",
    "leave max_login_age out, or add step_up to the evidence",
)

CHECKS: Final[tuple[Callable[[Config], Iterator[Fault]], ...]] = (
    _machines,
    _idle_machines,
    _deserted,
    _scopes,
    _second_factors,
)
