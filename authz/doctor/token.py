"""Whose a token is, for which servers it would do, and why not for the others.

Law: the verdict is that of the very code that serves: its verifier and its decision. The token
itself is in no finding.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from authz.config.load import Settings
from authz.config.problems import quoted
from authz.core import audience
from authz.core.decision import BearerRequest, Deny, authorize
from authz.core.evaluation import lacks_assurance_claim
from authz.core.ledger import UnavailableError
from authz.core.policy import KnownClient, Policy, Server
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError
from authz.doctor.diagnoses import CLIENT, DETAILS, REASONS, Diagnosis
from authz.doctor.finding import Finding, enumerated, note, ok, problem, warning
from authz.doctor.introspection import IntrospectionClient
from authz.tokens.claims import ClaimRules
from authz.tokens.introspection_result import read_introspection_result
from authz.tokens.issuer_http import IssuerError
from authz.tokens.jose import is_opaque, read_jws
from authz.tokens.jwk import KeySet
from authz.tokens.keys import SigningKeys
from authz.tokens.verifier import TokenVerifier

PART: Final = "token"


@dataclass(frozen=True, slots=True)
class TokenReport:
    """Hold what was found; `principal` is None where the token verifies nowhere."""

    findings: tuple[Finding, ...]
    principal: Principal | None = field(default=None)


class _Fixed:
    """Be the source of keys that were fetched already."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    async def fetch(self) -> KeySet:
        """Return them."""
        return self._keys


async def examine(
    text: str,
    settings: Settings,
    keys: KeySet | None,
    now: float,
    introspection: IntrospectionClient | None,
) -> TokenReport:
    """Look at one token.

    Args:
        text: as it was given; blanks and a line break around it, and the word Bearer, are cut.
        settings: authz.yaml.
        keys: the issuer's; None where they could not be had.
        now: seconds since the epoch.
        introspection: who asks Authelia about tokens; None where it is not configured.
    """
    token = text.strip().removeprefix("Bearer ").strip()
    if not token:
        fix = "give the access token on standard input, in a file, or in AUTHZ_TOKEN"
        return TokenReport((problem(PART, "empty", "there is no token", fix),))
    rules = _rules(settings)
    try:
        if is_opaque(token):
            principal = await _introspected(token, rules, now, introspection)
        elif keys is None:
            fix = "mend what is said of the issuer first"
            return TokenReport(
                (problem(PART, "no_keys", "it cannot be verified without keys", fix),)
            )
        else:
            principal = await _verified(token, settings, rules, keys, now)
    except RefusedError as refused:
        return await _refused(token, settings, rules, keys, refused)
    except (IssuerError, UnavailableError) as error:
        message = f"Authelia could not be asked about it: {error.detail}"
        fix = "see what is said of issuer.introspection"
        return TokenReport((problem(PART, "not_asked", message, fix),))
    findings = [ok(PART, "verified", f"it verifies: {_whose(principal)}")]
    door = settings.policy.front_door
    if door is not None and principal.client_id in door.clients:
        message = (
            "it is of the front door: its log-in is on record in Redis, where `authz explain` looks"
        )
        return TokenReport((*findings, note(PART, "front_door", message)), principal)
    findings += _servers(principal, settings.policy, now)
    return TokenReport(tuple(findings), principal)


def _rules(settings: Settings) -> ClaimRules:
    issuer = settings.config.issuer
    return ClaimRules(
        issuer.url, int(issuer.leeway), int(issuer.max_lifetime), issuer.assurance_claim
    )


async def _verified(
    token: str, settings: Settings, rules: ClaimRules, keys: KeySet, now: float
) -> Principal:
    signing = SigningKeys(_Fixed(keys))
    algorithms = frozenset[str](settings.config.issuer.algorithms)
    return await TokenVerifier(signing, rules, algorithms, clock=lambda: now).verify(token)


async def _introspected(
    token: str, rules: ClaimRules, now: float, introspection: IntrospectionClient | None
) -> Principal:
    if introspection is None:
        raise RefusedError(Reason.TOKEN_OPAQUE)
    answer = await introspection.ask(token)
    digest = hashlib.sha256(token.encode("ascii")).digest()
    said = read_introspection_result(answer, rules, digest, now, now)
    if said.principal is None:
        raise RefusedError(*said.refusal)
    return said.principal


async def _refused(
    token: str, settings: Settings, rules: ClaimRules, keys: KeySet | None, refused: RefusedError
) -> TokenReport:
    row = DETAILS.get(refused.detail) or REASONS.get(refused.reason)
    if row is None:
        message = f"it does not verify: {refused.detail or refused.reason.label}"
        return TokenReport((problem(PART, "invalid", message, "get a new one from Authelia"),))
    findings = [problem(PART, *row)]
    if refused.reason is Reason.TOKEN_EXPIRED and keys is not None:
        findings += await _before_it_expired(token, settings, rules, keys)
    return TokenReport(tuple(findings))


async def _before_it_expired(
    token: str, settings: Settings, rules: ClaimRules, keys: KeySet
) -> list[Finding]:
    """Look at an expired token as of its last second; all else about it was in order."""
    expires_at = read_jws(token, frozenset[str](settings.config.issuer.algorithms)).claims["exp"]
    assert isinstance(expires_at, int)
    try:
        principal = await _verified(token, settings, rules, keys, expires_at - 1)
    except RefusedError as refused:
        return [problem(PART, *REASONS[refused.reason])]
    return [
        note(PART, "was", f"until then it was good: {_whose(principal)}"),
        *_servers(principal, settings.policy, expires_at - 1),
    ]


def _whose(principal: Principal) -> str:
    """Say what an operator has to know of it; what the issuer wrote is quoted."""
    who = "no person" if principal.subject is None else f"person {quoted(principal.subject)}"
    until = datetime.fromtimestamp(principal.expires_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        f"{who}, client {quoted(principal.client_id)}, scopes {enumerated(principal.scopes)}, "
        f"audience {enumerated(principal.audience)}, "
        f"groups {enumerated(principal.groups)}, until {until}"
    )


def _servers(principal: Principal, policy: Policy, now: float) -> Iterator[Finding]:
    """Say of each server whether the token would do, by the decision itself."""
    findings = [_server(principal, policy, server, now) for server in policy.servers.values()]
    yield from findings
    if all(finding.diagnosis == "other_audience" for finding in findings):
        yield problem(
            PART,
            "wrong_audience",
            f"its audience {enumerated(principal.audience)} is no server of authz.yaml",
            "the client has to send the server's URL as `resource`, to the letter; "
            "Authelia's `audience` of the client has to name it so",
        )


def _server(principal: Principal, policy: Policy, server: Server, now: float) -> Finding:
    if not audience.names(principal.audience, server.resource):
        return note(PART, "other_audience", f"{server.name}: it was made for another server")
    request = HttpRequest("GET", "", {}, b"", {"server": server.name}, "", "")
    known = policy.clients.get(principal.client_id)
    decision = authorize(BearerRequest(server, request, ""), principal, policy, now)
    if not isinstance(decision, Deny):
        if decision.query.step_up is not None:
            message = f"{server.name}: it would do after a step-up"
            return problem(PART, "second_factor", message, _second_factor(principal, known))
        return ok(PART, "admitted", f"{server.name}: it would do")
    diagnosis, message, fix = _why(decision, principal, policy, server)
    return problem(PART, diagnosis, f"{server.name}: {message}", fix)


def _why(deny: Deny, principal: Principal, policy: Policy, server: Server) -> Diagnosis:
    known = policy.clients.get(principal.client_id)
    if deny.reason is Reason.INSUFFICIENT_SCOPE:
        missing = deny.scopes - principal.scopes
        if not missing:
            entry = f"clients.{principal.client_id}.scopes in authz.yaml"
            allowed = frozenset[str]() if known is None else known.scopes or frozenset()
            message = f"authz.yaml lets this client use no {enumerated(deny.scopes - allowed)}"
            return Diagnosis("scope_not_allowed", message, entry)
        fix = f"log in again and agree to it; the scope has to be in scopes of {CLIENT}"
        return Diagnosis("missing_scope", f"it lacks the scope {enumerated(missing)}", fix)
    if deny.reason is Reason.PERSON_NOT_ALLOWED:
        groups = enumerated(server.rule.groups or [])
        if not principal.groups:
            fix = (
                f"claims_policy with access_token: [groups] in {CLIENT} "
                "(`authz authelia-config` prints it), then log in again"
            )
            return Diagnosis("no_groups", f"it names no groups, and {groups} is asked for", fix)
        fix = f"put the person into the group at Authelia, or correct servers.{server.name}.groups"
        return Diagnosis("not_in_group", f"the person is in no group of {groups}", fix)
    return {
        Reason.CLIENT_NOT_ALLOWED: Diagnosis(
            "unknown_client",
            f"authz.yaml does not name the client {quoted(principal.client_id)}",
            "name it under clients",
        ),
        Reason.MACHINE_NOT_ALLOWED: Diagnosis(
            "machine",
            "a client without a person",
            f"machine: true at the client, and its name at servers.{server.name}.machines",
        ),
        Reason.SECOND_FACTOR_REQUIRED: Diagnosis(
            "second_factor", "no second factor is proved", _second_factor(principal, known)
        ),
        Reason.TOKEN_OPAQUE: REASONS[Reason.TOKEN_OPAQUE],
        Reason.TOKEN_SIGNED: Diagnosis(
            "signed", "it takes opaque tokens only", f"servers.{server.name}.tokens in authz.yaml"
        ),
    }.get(
        deny.reason,
        Diagnosis("refused", deny.reason.row.sentence, deny.detail or "see docs/reasons.md"),
    )


def _second_factor(principal: Principal, known: KnownClient | None) -> str:
    if known is not None and lacks_assurance_claim(principal, known):
        return (
            f"have Authelia sign {quoted(known.assurance_claim or '')} into the claim that "
            "issuer.assurance_claim names (`authz authelia-config` prints it), then log in again"
        )
    return (
        f"authorization_policy: two_factor in {CLIENT}, and then assurance: two_factor at "
        f"clients.{principal.client_id} in authz.yaml"
    )


def compare(principals: Iterable[Principal]) -> Iterator[Finding]:
    """Say where tokens of several clients name different people."""
    people = [each for each in principals if each.subject is not None]
    subjects = {each.subject for each in people}
    clients = {each.client_id for each in people}
    if len(subjects) > 1 and len(clients) > 1:
        yield warning(
            PART,
            "different_subjects",
            "tokens of different clients name different people: if it is one person, limits and "
            "blocks count it twice",
            "take sector_identifier_uri out of the clients at Authelia",
        )
