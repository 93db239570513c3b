"""The whole of what authz.yaml implies for Authelia 4.39, as values, YAML or JSON.

It is complete for `identity_providers.oidc` but for the keys that only Authelia may have; these,
and what no field of authz.yaml implies, stand in comments. No secret is read for it.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from typing import Final

from authz.authelia import assurance_claim
from authz.authelia.clients import (
    GROUPS,
    POLICY,
    AutheliaClient,
    asks_groups,
    direct_clients,
    reads_groups,
)
from authz.authelia.comments import configuration_comments
from authz.authelia.front_door import ACCOUNT, FRONT_DOOR, claims_policy, lifespans, our_clients
from authz.config.key_files import PublicKey
from authz.config.model import Config, RuleConfig
from authz.config.yaml_writer import Comments, Path, comment_text, to_yaml

VERSION: Final = "4.39"
_OIDC: Final = ("identity_providers", "oidc")
# OpenID Connect Core, section 5.4, and Authelia's own: these it defines itself.
_STANDARD: Final = frozenset(
    {"openid", "profile", "email", "address", "phone", "groups", "offline_access", "offline"}
)
_HEAD: Final = (
    f"What authz.yaml implies for Authelia {VERSION}; made by `authz authelia-config`.",
    "Keep it in a file of its own and start Authelia with both:",
    "  authelia --config configuration.yml,authz.yml",
    "Authelia merges maps by their keys, and takes a list (`clients`) from the last file alone.",
    'Where yours has clients, too, docs/authelia.md says what to do ("Clients of your own").',
)
_CLIENTS: Final = (
    "requested_audience_mode is left at its default, `explicit`: a token is for what its client",
    "names as `resource`, as MCP clients since 2025-06-18 do. For one that names none, `implicit`",
    "puts the client's whole audience into every token.",
)
_CORS: Final = ("For clients that run in a page of gateway.origins.",)
_LIFESPANS: Final = ("front_door.refresh_tokens: never. Nobody can refresh these tokens.",)
_SCOPES: Final = ("Authelia warns about scopes that it does not know.",)
# Seen with 4.39.20: with other characters in its name, a scope is no key that it expects.
_DEFINABLE: Final = re.compile(r"[A-Za-z0-9._:/*-]+\Z")
_ONLY_TOTP: Final = ("A client says assurance: totp. It is true only while TOTP is all there is.",)


@dataclass(frozen=True, slots=True)
class Implied:
    """Hold what is implied.

    Attributes:
        values: in Authelia's keys.
        notes: comment lines by path.
        comments: comment lines for the end: what belongs in Authelia's own file.
    """

    values: Mapping[str, object]
    notes: Comments
    comments: tuple[str, ...]

    def yaml(self) -> str:
        """Return YAML with its comments."""
        body = to_yaml(self.values, self.notes)
        return f"{comment_text(_HEAD)}---\n{body}\n{comment_text(self.comments)}"

    def json(self) -> str:
        """Return the values as JSON, for scripts."""
        return json.dumps(self.values, indent=2, ensure_ascii=False) + "\n"


def implied(
    config: Config, key: PublicKey | None = None, door_key: PublicKey | None = None
) -> Implied:
    """Return what a configuration implies.

    Args:
        config: authz.yaml.
        key: the public half of `issuer.introspection.key_file`; None where it was not read.
        door_key: the same of `front_door.key_file`.
    """
    clients = [*our_clients(config, door_key), *direct_clients(config, key)]
    oidc: dict[str, object] = {}
    notes: dict[Path, tuple[str, ...]] = {(*_OIDC, "clients"): _CLIENTS}
    if config.gateway.origins and any(client.values.get("public") for client in clients):
        oidc["cors"] = {
            "endpoints": ["token", "revocation"],
            "allowed_origins": list(config.gateway.origins),
        }
        notes[*_OIDC, "cors"] = _CORS
    used = {client.values.get("claims_policy") for client in clients}
    policies = {
        FRONT_DOOR: claims_policy(config),
        POLICY: {"access_token": [GROUPS], **assurance_claim.custom_claims(config)},
        **assurance_claim.policies(config),
    }
    if named := {name: policy for name, policy in policies.items() if name in used}:
        oidc["claims_policies"] = named
        notes[*_OIDC, "claims_policies"] = tuple(_about_claims(config, used))
    if scopes := _scopes(config, clients):
        oidc["scopes"] = scopes
        notes[*_OIDC, "scopes"] = _SCOPES
    if found := lifespans(config):
        oidc["lifespans"] = found
        notes[*_OIDC, "lifespans"] = _LIFESPANS
    oidc["clients"] = [dict(client.values) for client in clients]
    for index, client in enumerate(clients):
        for member, lines in client.notes.items():
            at = (*_OIDC, "clients", index)
            notes[(*at, member) if member else at] = lines
    values: dict[str, object] = {"identity_providers": {"oidc": oidc}}
    if constants := assurance_claim.definitions(config):
        values["definitions"] = {"user_attributes": constants}
        notes["definitions",] = assurance_claim.ABOUT
    if any(client.assurance == "totp" for client in config.clients.values()):
        values |= {"webauthn": {"disable": True}, "duo_api": {"disable": True}}
        notes["webauthn",] = _ONLY_TOTP
    return Implied(values, notes, tuple(configuration_comments(config)))


def _scopes(config: Config, clients: list[AutheliaClient]) -> dict[str, object]:
    """Return the definition of every scope that a client may have and Authelia does not define.

    A scope of a server that asks for groups brings them along: clients ask for the scopes that a
    challenge names, and `groups` is none of them. So does one whose rule an assurance may answer.
    """
    brought = _brought(config)
    named: dict[str, object] = {}
    for client in clients:
        scopes = client.values["scopes"]
        assert isinstance(scopes, list)
        for scope in scopes:
            if _definable(scope):
                named[scope] = {"claims": brought.get(scope, [])}
    return named


def _brought(config: Config) -> Mapping[str, list[str]]:
    """Return the claims that scopes bring, by scope."""
    claim = assurance_claim.claim_of(config)
    brought: dict[str, list[str]] = {}
    for name in config.servers:
        for scope in chain.from_iterable(_bringing_groups(config, name)):
            brought.setdefault(scope, []).append(GROUPS)
        for scope in chain.from_iterable(_bringing_claim(config, name)) if claim else ():
            brought.setdefault(scope, []).append(str(claim))
    return {scope: list(dict.fromkeys(claims)) for scope, claims in brought.items()}


def _definable(scope: str) -> bool:
    return scope not in _STANDARD and _DEFINABLE.match(scope) is not None


def _bringing_groups(config: Config, server: str) -> list[tuple[str, ...]]:
    """Return for each rule that asks for groups the scopes that bring them."""
    return _bringing(config, server, lambda rule: reads_groups(config, rule))


def _bringing_claim(config: Config, server: str) -> list[tuple[str, ...]]:
    """Return for each rule that an assurance may answer the scopes that bring the claim.

    A client asks for what a challenge names, and so the claim needs nothing of it.
    """
    return _bringing(config, server, assurance_claim.answers)


def _bringing(
    config: Config, server: str, applies: Callable[[RuleConfig], bool]
) -> list[tuple[str, ...]]:
    own = config.servers[server].scopes
    targets = config.targets_of(server)
    return [own or target.rule.scopes for target in targets if applies(target.rule)]


def _about_claims(config: Config, used: AbstractSet[object]) -> Iterator[str]:
    if FRONT_DOOR in used:
        yield f"{ACCOUNT} is put into ID tokens, so that a page says whose account it is about."
    if asks_groups(config, config.servers):
        yield from _about_groups(config, direct=not used.isdisjoint(_direct_policies(config)))
    claim = assurance_claim.claim_of(config)
    if claim is not None:
        yield from _about_claim(config, claim)


def _direct_policies(config: Config) -> frozenset[str]:
    return frozenset({POLICY, *assurance_claim.policies(config)})


def _about_claim(config: Config, claim: str) -> Iterator[str]:
    yield f"{claim} is put into signed access tokens of clients with an assurance,"
    yield "where a scope that brings it was granted; the other policies only know of it."
    for name in config.servers:
        if not all(any(map(_definable, scopes)) for scopes in _bringing_claim(config, name)):
            yield f"The server {name} asks for a second factor where no scope can bring the claim:"
            yield f"write one into servers.{name}.scopes, for example mcp:{name}."


def _about_groups(config: Config, *, direct: bool) -> Iterator[str]:
    yield "groups is put into signed access tokens where a scope that brings it was granted."
    if not direct:
        return  # the front door asks for `groups` itself
    for name in config.servers:
        rules = _bringing_groups(config, name)
        if rules and not any(map(_DEFINABLE.match, chain.from_iterable(rules))):
            yield f"The server {name} asks for groups, and none of its scopes can bring them:"
            yield f"write `groups` into servers.{name}.scopes, so that clients ask for it."
