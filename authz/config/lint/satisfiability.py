"""Lint whether rules can be met.

A rule that nobody could ever meet is an error: the server would refuse everybody, and the file
would look right. A rule that only something outside of this file could meet is a warning.
"""

from collections.abc import Callable, Iterator
from typing import Final

from authz.config.model import ClientConfig, Config, SecondFactorConfig
from authz.config.problems import Fault, Path, error, listed, quoted, warning
from authz.config.pydantic_errors import closest

_ANSWERS: Final = {"any": frozenset({"two_factor", "totp"}), "totp": frozenset({"totp"})}
_CLIENTS: Final[Path] = ("clients",)


def _machines(config: Config) -> Iterator[Fault]:
    for name, server in config.servers.items():
        for index, machine in enumerate(server.machines):
            path: Path = ("servers", name, "machines", index)
            client = config.named.get(machine)
            if client is None:
                meant = closest(machine, config.named)
                right = f"write {meant}" if meant else "name it under clients, with machine: true"
                yield error(path, f"there is no client {quoted(machine)}", right, _CLIENTS)
            elif not client.machine:
                yield error(
                    path,
                    f"the client {quoted(machine)} does not come without a person",
                    f"write machine: true at clients.{machine}, or leave it out here",
                    _CLIENTS,
                )


def _idle_machines(config: Config) -> Iterator[Fault]:
    used = {machine for server in config.servers.values() for machine in server.machines}
    for name, client in config.named.items():
        if client.machine and name not in used:
            yield warning(
                ("clients", name),
                "no server lets this machine in",
                f"write machines: [{name}] at a server",
                ("servers",),
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
            yield error(
                ("servers", name),
                "no client may use this server: where clients are named, others are refused",
                "name a client with people under clients, or write machines here",
                _CLIENTS,
            )


def _scopes(config: Config) -> Iterator[Fault]:
    """Check the scopes of each rule: each had by a client, all had by one."""
    for target in config.targets():
        path: Path = (*target.path, "scopes")
        scopes, own = target.rule.scopes, config.servers[target.server].scopes
        for index, scope in enumerate(scopes):
            if scope == "offline_access":
                yield error(
                    (*path, index),
                    "offline_access is about refresh tokens and is no permission",
                    "leave it out",
                )
        clients = _candidates(config, target.server)
        if not clients or any(client.scopes is None for client in clients):
            continue
        had = {scope for client in clients for scope in client.scopes or ()}
        missing = [index for index, scope in enumerate(scopes) if scope not in had]
        for index in missing:
            meant = closest(scopes[index], had)
            right = f"write {meant}, or" if meant else "write a scope that one has, or"
            yield error(
                (*path, index),
                f"no client of this server has the scope {quoted(scopes[index])}",
                f"{right} give it to a client under clients",
                _CLIENTS,
            )
        needed = {*scopes, *own}
        if not missing and scopes and needed <= had and not _one_has(clients, needed):
            yield error(
                path,
                f"no one client has {listed(sorted(needed), 'and')}, all of which are needed",
                "give them to one client under clients",
                _CLIENTS,
                ("servers", target.server, "scopes"),
            )


def _one_has(clients: list[ClientConfig], needed: set[str]) -> bool:
    return any(needed <= set(client.scopes or ()) for client in clients)


def _second_factors(config: Config) -> Iterator[Fault]:
    for target in config.targets():
        if target.rule.second_factor is not None:
            accepted = config.token_kinds(target.server)
            tokens = accepted.intersection(target.rule.tokens or accepted)
            path: Path = (*target.path, "second_factor")
            yield from _second_factor(config, path, target.rule.second_factor, tokens)


def _second_factor(
    config: Config, path: Path, factor: SecondFactorConfig, tokens: frozenset[str]
) -> Iterator[Fault]:
    """Check whether anything that a rule accepts could come, with these kinds of tokens."""
    answers = _ANSWERS[factor.method]
    declared = any(client.assurance in answers for client in config.named.values())
    # The claim is a signed one: no declaration counts where every token is opaque.
    claimed = config.issuer.assurance_claim is None or "jwt" in tokens
    opaque_only = declared and not claimed and "client" in factor.evidence
    steps_up = config.front_door is not None and config.front_door.step_up != "off"
    possible = {
        "login": config.logs_in,
        "step_up": steps_up,
        "client": declared and claimed and factor.max_login_age is None,
    }
    if any(possible.get(evidence) for evidence in factor.evidence):
        if opaque_only:
            yield warning(path, *_OPAQUE_ONLY, *_READS_CLAIM)
        if factor.max_login_age is not None and "step_up" in factor.evidence and not steps_up:
            yield warning((*path, "max_login_age"), *_NO_NEWER, *_READS_FRONT_DOOR)
    elif not {"token", "step_up"}.isdisjoint(factor.evidence):
        if opaque_only:
            yield warning(path, *_OPAQUE_ONLY, *_READS_CLAIM)
        else:
            outside = _NOBODY if config.front_door is None else _OFF
            yield warning(path, *outside, _CLIENTS, *_READS_FRONT_DOOR)
    elif "client" not in factor.evidence:
        yield error((*path, "evidence"), *_NO_LOGIN)
    elif factor.max_login_age is not None:
        yield error((*path, "max_login_age"), *_NO_AGE)
    elif opaque_only:
        yield error((*path, "evidence"), *_OPAQUE_ONLY, *_READS_CLAIM)
    else:
        yield error(
            (*path, "evidence"),
            f"no client has an assurance that answers {factor.method}",
            f"write assurance: {listed(sorted(answers, reverse=True))} at a client",
            _CLIENTS,
        )


_READS_FRONT_DOOR: Final[tuple[Path, ...]] = (("front_door",), ("issuer", "login"))
_READS_CLAIM: Final[tuple[Path, ...]] = (
    ("issuer", "assurance_claim"),
    ("issuer", "introspection"),
    ("servers",),
)
_OPAQUE_ONLY: Final = (
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
