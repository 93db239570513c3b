"""The configuration in force: the rules that each server and each of its operations meets."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.core.limits import Limit
from authz.core.policy import ALL_KINDS, OperationKind, Policy, Rule, RuleTarget, Server
from authz.core.second_factor import Method
from authz.login.console.access import AdmittedPerson, ConsoleAccess
from authz.login.console.frame import ConsoleFrame, Section
from authz.login.console.log_ins import query_of
from authz.login.web.rendering import format_duration

_MOST: Final = 300  # rules on one page
_KINDS: Final = {
    None: "every request",
    OperationKind.TOOL: "tools",
    OperationKind.ANNOTATION: "tools that the server calls",
    OperationKind.PROMPT: "prompts",
    OperationKind.RESOURCE: "resources",
}


@dataclass(frozen=True, slots=True)
class RuleWords:
    """Describe one rule.

    Attributes:
        path: where authz.yaml has it.
        kind: what it applies to.
        pattern: of these; empty for all.
        demands: what it asks, each in a few words.
    """

    path: str
    kind: str
    pattern: str
    demands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _ShownServer:
    server: Server
    rules: tuple[RuleWords, ...]


class RulePage:
    """Show the rules in force."""

    def __init__(self, frame: ConsoleFrame, policy: Policy, digest: str) -> None:
        """Take the frame, the rules, and the digest of their configuration."""
        self._frame = frame
        self._policy = policy
        self._digest = digest

    def routes(self, access: ConsoleAccess) -> list[Route]:
        """Return the routes."""
        return [Route(Section.RULES.path, access.guard(self._show), methods=["GET"])]

    async def _show(self, request: Request, person: AdmittedPerson) -> Response:
        query, left, hidden = query_of(request).casefold(), _MOST, 0
        servers = list[_ShownServer]()
        for server in self._policy.servers.values():
            described = [describe_target(each) for each in server.targets()]
            found = [
                each
                for each in described
                if not query or query in f"{server.name} {each.pattern}".casefold()
            ]
            hidden += max(0, len(found) - left)
            if found and left:
                servers.append(_ShownServer(server, tuple(found[:left])))
            left = max(0, left - len(found))
        content = {
            "servers": servers,
            "limits": [describe_limit(each) for each in self._policy.limits],
            "clients": sorted(self._policy.clients),
            "digest": self._digest,
            "query": query_of(request),
            "hidden": hidden,
        }
        return self._frame.page(request, person, Section.RULES, content)


def describe_target(target: RuleTarget[Rule]) -> RuleWords:
    """Return what a rule asks, for people."""
    path = ".".join(map(str, target.path))
    return RuleWords(path, _KINDS[target.kind], target.pattern or "", tuple(_demands(target.rule)))


def describe_limit(limit: Limit) -> str:
    """Return what a limit allows, for people."""
    per = f"{limit.per.value} {limit.claim}".strip().replace(",", " and ")
    cost = "" if limit.cost == 1 else f", {limit.cost} a request"
    shadow = ", in shadow" if limit.shadow else ""
    warns = "" if limit.warn_at is None else f", warns at {limit.warn_at} %"
    calendar = limit.calendar
    window = format_duration(limit.window) if calendar is None else f"a {calendar}"
    return f"{limit.quota} in {window} per {per}{cost}{shadow}{warns}"


def _demands(rule: Rule) -> Iterator[str]:
    if rule.scopes:
        yield f"scopes {' '.join(sorted(rule.scopes))}"
    if rule.groups is not None:
        yield f"one of the groups {', '.join(sorted(rule.groups)) or 'of nobody'}"
    factor = rule.second_factor
    if factor is not None:
        age = (
            f", {format_duration(factor.max_login_age)} old at most" if factor.max_login_age else ""
        )
        yield ("one-time code" if factor.method == Method.TOTP else "second factor") + age
    if rule.approval is not None:
        lifetime = rule.approval.lifetime
        yield (
            "each call approved"
            if lifetime is None
            else f"approved, for {format_duration(lifetime)}"
        )
    if rule.tokens != ALL_KINDS:
        yield f"tokens: {', '.join(sorted(each.value for each in rule.tokens))}"
    if rule.confirm:
        yield "every token confirmed by the issuer"
    if rule.when:
        yield f"only for some arguments ({len(rule.when)} conditions)"
    if rule.cost != 1:
        yield f"a call counts as {_describe_cost(rule)} requests"
    for limit in rule.limits:
        yield describe_limit(limit)


def _describe_cost(rule: Rule) -> str:
    by = rule.cost_by
    return f"{rule.cost}" if by is None else f"{by.least} to {by.most} ({by.pointer.text})"
