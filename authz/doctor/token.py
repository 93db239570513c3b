"""Whose a token is, for which servers it would do, and why not for the others.

The verifier and the decision are the service's own. The token itself is in no finding.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from authz.config.load import Settings
from authz.config.problems import quoted
from authz.core.decision import BearerRequest, Deny, PendingDecision, authorize
from authz.core.detail import AUTHELIA_CLIENT, Diagnosis
from authz.core.evaluation import lacks_assurance_claim
from authz.core.ledger import UnavailableError
from authz.core.policy import DeclaredClient, Policy, Server
from authz.core.principal import Principal, names_resource
from authz.core.reason import Reason, diagnose, fill_in
from authz.core.request import HttpRequest, RefusedError
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
# Two reasons have a second cause, which only the claims and authz.yaml tell apart.
_NO_GROUPS: Final = Diagnosis(
    "no_groups",
    "it names no groups, and <groups> is asked for",
    f"claims_policy with access_token: [groups] in {AUTHELIA_CLIENT} "
    "(`authz authelia-config` prints it), then log in again",
)
_SCOPE_NOT_ALLOWED: Final = Diagnosis(
    "scope_not_allowed",
    "authz.yaml lets this client use no <scopes>",
    "clients.<client>.scopes in authz.yaml",
)


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
        issuer.url,
        int(issuer.leeway),
        int(issuer.max_lifetime),
        issuer.assurance_claim,
        settings.config.counted_claims,
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
    findings = [_not_verified(refused)]
    if refused.reason is Reason.TOKEN_EXPIRED and keys is not None:
        findings += await _before_it_expired(token, settings, rules, keys)
    return TokenReport(tuple(findings))


def _not_verified(refused: RefusedError) -> Finding:
    found = diagnose(refused.reason, refused.detail)
    message = fill_in(found.message, {"detail": refused.detail or refused.reason.label})
    return problem(PART, found.name, message, found.fix)


async def _before_it_expired(
    token: str, settings: Settings, rules: ClaimRules, keys: KeySet
) -> list[Finding]:
    """Look at an expired token as of its last second; all else about it was in order."""
    expires_at = read_jws(token, frozenset[str](settings.config.issuer.algorithms)).claims["exp"]
    assert isinstance(expires_at, int)
    try:
        principal = await _verified(token, settings, rules, keys, expires_at - 1)
    except RefusedError as refused:
        return [_not_verified(refused)]
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
    if not names_resource(principal.audience, server.resource):
        return note(PART, "other_audience", f"{server.name}: it was made for another server")
    request = HttpRequest("GET", "", {}, b"", {"server": server.name}, "", "")
    decision = authorize(BearerRequest(server, request, ""), principal, policy, now)
    if not isinstance(decision, Deny) and decision.query.step_up is None:
        return ok(PART, "admitted", f"{server.name}: it would do")
    found = _diagnosis(decision, principal, policy, server)
    return problem(PART, found.name, f"{server.name}: {found.message}", found.fix)


def _diagnosis(
    decision: Deny | PendingDecision, principal: Principal, policy: Policy, server: Server
) -> Diagnosis:
    """Return what keeps a token from a server, with what only its claims tell."""
    known = policy.clients.get(principal.client_id)
    scopes = decision.scopes - principal.scopes if isinstance(decision, Deny) else frozenset()
    if isinstance(decision, PendingDecision):
        found = replace(_second_factor(principal, known), message="it would do after a step-up")
    elif decision.reason is Reason.SECOND_FACTOR_REQUIRED:
        found = _second_factor(principal, known)
    elif decision.reason is Reason.PERSON_NOT_ALLOWED and not principal.groups:
        found = _NO_GROUPS
    elif decision.reason is Reason.INSUFFICIENT_SCOPE and not scopes:
        found = _SCOPE_NOT_ALLOWED
        allowed = None if known is None else known.scopes
        scopes = decision.scopes - (allowed or frozenset())
    else:
        found = diagnose(decision.reason, decision.detail)
    names = {
        "server": server.name,
        "client": principal.client_id,
        "groups": enumerated(server.rule.groups or []),
        "scopes": enumerated(scopes),
    }
    message = fill_in(found.message, names | {"client": quoted(principal.client_id)})
    return replace(found, message=message, fix=fill_in(found.fix, names))


def _second_factor(principal: Principal, known: DeclaredClient | None) -> Diagnosis:
    found = diagnose(Reason.SECOND_FACTOR_REQUIRED, "")
    if known is None or not lacks_assurance_claim(principal, known):
        return found
    fix = (
        f"have Authelia sign {quoted(known.assurance_claim or '')} into the claim that "
        "issuer.assurance_claim names (`authz authelia-config` prints it), then log in again"
    )
    return replace(found, fix=fix)


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
