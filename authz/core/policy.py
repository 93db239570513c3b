"""The compiled policy: servers, rules, clients, as frozen values.

Invariant: every rule that matches applies. The rule of an operation adds to its server's and takes
nothing away; an unknown server has no policy, an unnamed tool, prompt or resource (where those of
its kind are named) has no permission.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import fnmatchcase
from itertools import groupby
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, TypeVar

from authz.core import resource_uris
from authz.core.admin_pages import AdminPage
from authz.core.approval import Approval
from authz.core.argument_cost import ArgumentCost
from authz.core.catalogue import Annotation, PinMode, Pins
from authz.core.conditions import Condition
from authz.core.exchanges import Exchange, Meter
from authz.core.json_pointer import JsonPointer
from authz.core.limits import Limit
from authz.core.principal import DYNAMIC, METADATA
from authz.core.second_factor import Method, SecondFactor
from authz.core.strict_json import MAX_DEPTH, MAX_WORK

MODERN = "2026-07-28"
# The first one is of the transport before Streamable HTTP; clients and servers that know no newer
# one negotiate it over Streamable HTTP all the same.
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
VERSIONS = frozenset({MODERN, *LEGACY})


class TokenKind(Enum):
    """Name what a token is to us: signed, or a name that only the issuer understands."""

    JWT = "jwt"
    OPAQUE = "opaque"


ALL_KINDS = frozenset(TokenKind)


@dataclass(frozen=True, slots=True)
class Rule:
    """Ask for scopes (all), groups (one of), a second factor, and count limits.

    Attributes:
        scopes: every one of them must be granted.
        groups: the person must be in one of them; None where anybody may.
        second_factor: None where none is asked.
        limits: charged together, all or none.
        tokens: the kinds of tokens that are accepted.
        confirm: whether the issuer is asked about every token, signed ones too.
        approval: what a person must approve; None where nothing. Of tools alone.
        audit: the arguments that the audit trail keeps. Of tools and prompts.
        when: what the arguments of a call must be for the rule to apply; () for any. A server's own
            rule has none.
        cost: as how many requests a call counts in the limits of its server and of every request;
            of several rules the greatest holds. Of tools and prompts.
        cost_by: the argument that says less than `cost`, which is then the most; None for none.
        whole: the rule of authz.yaml that this one is a part of; None where it is one itself. Not
            compared.
    """

    scopes: frozenset[str] = frozenset()
    groups: frozenset[str] | None = None
    second_factor: SecondFactor | None = None
    limits: tuple[Limit, ...] = ()
    tokens: frozenset[TokenKind] = ALL_KINDS
    confirm: bool = False
    approval: Approval | None = None
    audit: tuple[JsonPointer, ...] = ()
    when: tuple[Condition, ...] = ()
    cost: int = 1
    cost_by: ArgumentCost | None = None
    whole: "Rule | None" = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class OperationRule:
    """Apply a rule to the operations whose name matches a pattern (`OperationKind.matches`)."""

    pattern: str
    rule: Rule


class OperationKind(Enum):
    """Name the kinds of operations with rules of their own, by their section of a server."""

    TOOL = "tools"
    ANNOTATION = "annotations"  # tools by what the server says of them (`Annotation`)
    PROMPT = "prompts"
    RESOURCE = "resources"

    def matches(self, name: str, pattern: str) -> bool:
        """Tell whether a pattern matches a name; case matters.

        Of tools and prompts it is exact or has `*` and `?`; of resources it is a URI in which `*`
        may stand (`resource_uris`).
        """
        if self is OperationKind.RESOURCE:
            return resource_uris.matches(name, pattern)
        return fnmatchcase(name, pattern)


# What stands before the pattern in the place of a limit: of no two kinds the same.
_MARKS: Final = {
    OperationKind.TOOL: ":",
    OperationKind.ANNOTATION: ":@",
    OperationKind.PROMPT: "#prompts:",
    OperationKind.RESOURCE: "#resources:",
}

R = TypeVar("R")


class RuleTarget(NamedTuple, Generic[R]):  # mypyc compiles no generic dataclass
    """Hold one rule and what it applies to.

    Attributes:
        server: the server's name.
        rule: the rule, compiled (`Rule`) or as authz.yaml has it.
        kind, pattern: the operations of the server that it applies to; None together for the
            server's own rule, which applies to every request.
        number: which rule of the pattern it is: 0 for the first, the others stand in its `also`.
    """

    server: str
    rule: R
    kind: OperationKind | None = None
    pattern: str | None = None
    number: int = 0

    @property
    def path(self) -> tuple[str | int, ...]:
        """Return where authz.yaml has the rule."""
        if self.kind is None or self.pattern is None:
            return ("servers", self.server)
        first = ("servers", self.server, self.kind.value, self.pattern)
        return (*first, "also", self.number - 1) if self.number else first

    @property
    def place(self) -> str:
        """Return what its limits count: as `Limit.place`.

        No server's name has a `#`, no pattern of tools an `@` or `#`: no two rules have one place.
        """
        if self.kind is None or self.pattern is None:
            return self.server
        number = f"#{self.number}" if self.number else ""
        return f"{self.server}{_MARKS[self.kind]}{self.pattern}{number}"

    def matches(self, name: str) -> bool:
        """Tell whether it applies to an operation of its kind."""
        return self.kind is None or self.pattern is None or self.kind.matches(name, self.pattern)


def rule_targets(
    server: str, rule: R, operations: Mapping[OperationKind, Iterable[tuple[str, R]]]
) -> Iterator[RuleTarget[R]]:
    """Yield every rule of a server: its own, then those of operations, in the order of the file.

    Args:
        server: its name.
        rule: its own rule.
        operations: pattern and rule of each kind; several of one pattern stand together.
    """
    yield RuleTarget(server, rule)
    for kind, patterns in operations.items():
        for pattern, group in groupby(patterns, _pattern):
            for number, (_, each) in enumerate(group):
                yield RuleTarget(server, each, kind, pattern, number)


def _pattern(pair: tuple[str, R]) -> str:
    return pair[0]


@dataclass(frozen=True, slots=True)
class Server:
    """Hold one MCP server's rules.

    Attributes:
        name: as in authz.yaml and in Envoy's context_extensions.
        resource: its canonical URL (RFC 8707, RFC 9728): the audience of its tokens.
        metadata_url: where its RFC 9728 document is.
        rule: what every request to it must satisfy.
        challenge: the scopes that a client is told to ask for at its log-in; None for the rule's.
        tools, prompts, resources: rules of each kind of operation; empty where those of a kind
            are not named, and every one is as good as the server.
        annotations: rules of the tools of which the server says so in its own list; they only add,
            but a read-only tool that meets such a rule needs no name.
        pins: the approved definitions of its tools; None where they are not compared.
        filtered: the methods whose lists show a caller what it may use; empty for none.
        methods: what may be called besides the methods of MCP where operations are named.
        machines: client ids that may come without a person.
        versions: the MCP protocol versions that it accepts.
        signed_identity: whether it is told who calls by a signature, too.
        session_lifetime: seconds for which a session stays bound after its last use.
        streams: how many streams one person may begin; None where they are not counted.
        meters: by what it is known how long an exchange may last; one that is not named lasts as
            long as any.
        upstream: a digest of where its requests go, as our Envoy's route repeats it in
            context_extensions; empty where that is not known.
    """

    name: str
    resource: str
    metadata_url: str
    rule: Rule = field(default_factory=Rule)
    tools: tuple[OperationRule, ...] = ()
    machines: frozenset[str] = frozenset()
    versions: frozenset[str] = VERSIONS
    session_lifetime: int = 7 * 86_400
    methods: frozenset[str] = frozenset()
    signed_identity: bool = False
    challenge: frozenset[str] | None = None
    streams: Limit | None = None
    meters: Mapping[Exchange, Meter] = field(default_factory=lambda: MappingProxyType({}))
    annotations: Mapping[Annotation, Rule] = field(default_factory=lambda: MappingProxyType({}))
    pins: Pins | None = None
    filtered: frozenset[str] = frozenset()
    prompts: tuple[OperationRule, ...] = ()
    resources: tuple[OperationRule, ...] = ()
    upstream: str = ""

    def targets(self) -> Iterator[RuleTarget[Rule]]:
        """Yield every rule, the server's own first."""
        kinds = {
            kind: [(each.pattern, each.rule) for each in self.rules(kind)] for kind in OperationKind
        }
        return rule_targets(self.name, self.rule, kinds)

    def rules(self, kind: OperationKind) -> tuple[OperationRule, ...]:
        """Return the rules of a kind of operations, in the order of the file."""
        match kind:
            case OperationKind.TOOL:
                return self.tools
            case OperationKind.ANNOTATION:
                rules = self.annotations.items()
                return tuple(OperationRule(each.value, rule) for each, rule in rules)
            case OperationKind.PROMPT:
                return self.prompts
            case OperationKind.RESOURCE:
                return self.resources

    def names(self, kind: OperationKind) -> bool:
        """Tell whether operations of a kind are named, so that others of it are refused."""
        return bool(self.rules(kind))

    @property
    def names_operations(self) -> bool:
        """Tell whether operations of any kind are told apart, so that others are refused.

        Methods that MCP does not have are refused then: they may be another way to one.
        """
        return bool(self.tells_tools_apart or self.prompts or self.resources)

    def operations(self, kind: OperationKind) -> tuple[RuleTarget[Rule], ...]:
        """Return the rules of all operations of a kind."""
        rules = {kind: [(each.pattern, each.rule) for each in self.rules(kind)]}
        every = rule_targets(self.name, self.rule, rules)
        return tuple([target for target in every if target.kind is kind])

    def matching(self, kind: OperationKind, name: str) -> tuple[RuleTarget[Rule], ...]:
        """Return every rule whose pattern matches an operation: all of them apply."""
        return tuple(target for target in self.operations(kind) if target.matches(name))

    def rules_for(self, kind: OperationKind, name: str) -> list[Rule]:
        """Return the rules of `matching`, without where authz.yaml has them."""
        return [each.rule for each in self.rules(kind) if kind.matches(name, each.pattern)]

    @property
    def tells_tools_apart(self) -> bool:
        """Tell whether a tool may be judged otherwise than its server.

        Whatever may be another way to a tool is then refused, or meets the rules of all tools.
        """
        enforced = self.pins is not None and self.pins.mode is PinMode.ENFORCE
        return bool(self.tools or self.annotations) or enforced

    @property
    def uses_catalogue(self) -> bool:
        """Tell whether it matters what the server says of its tools."""
        return bool(self.annotations) or self.pins is not None

    @property
    def challenge_scopes(self) -> frozenset[str]:
        """Return the scopes that a challenge names to a client that has yet to log in."""
        return self.rule.scopes if self.challenge is None else self.challenge

    @property
    def named_scopes(self) -> frozenset[str]:
        """Return every scope that the server or one of its operations asks for."""
        return frozenset[str]().union(*(target.rule.scopes for target in self.targets()))

    @property
    def accepts_opaque(self) -> bool:
        """Tell whether a token may be opaque, for all that the server's own rule says."""
        return TokenKind.OPAQUE in self.rule.tokens

    @property
    def accepts_legacy(self) -> bool:
        """Tell whether the protocol of sessions (before 2026-07-28) is accepted."""
        return not self.versions.isdisjoint(LEGACY)


@dataclass(frozen=True, slots=True)
class DeclaredClient:
    """Hold what the operator declares of a client.

    Attributes:
        client_id: as the issuer signs it, or as the front door names it.
        scopes: what it may use at most, whatever the token says; None where undeclared.
        machine: whether it may come without a person at all.
        assurance: what the issuer guarantees of the log-ins of its people; Method.NONE as a rule.
        direct: whether it gets its tokens from the issuer itself, and never at the front door:
            a client of `login: direct`, or a machine. Looked at where there is a front door.
        assurance_claim: the value of a token's assurance claim without which the assurance does not
            count for it; None where none is required.
    """

    client_id: str
    scopes: frozenset[str] | None = None
    machine: bool = False
    assurance: Method = Method.NONE
    direct: bool = False
    assurance_claim: str | None = None


class StepUpFallback(Enum):
    """Name how a client that shows no links is told of a needed step-up."""

    LINK = "link"
    CHALLENGE = "challenge"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """Hold what decisions need to know of the front door.

    Attributes:
        clients: our own client ids at the issuer: a token that is signed for one of them is of
            the front door, or of nobody.
        registration: whether clients that registered themselves may come.
        metadata_hosts: the hosts whose client id metadata documents are taken; None for any.
        scopes: what clients that nobody configured may use at most; None for what they were given.
        step_up: how a client is told of a needed step-up.
    """

    clients: frozenset[str]
    registration: bool = True
    metadata_hosts: frozenset[str] | None = None
    scopes: frozenset[str] | None = None
    step_up: StepUpFallback = StepUpFallback.LINK

    def admits(self, name: str, document_host: str) -> bool:
        """Tell whether a client that nobody configured may come.

        How it came decides, not where its log-in ends: one with a metadata document is named after
        another place where its log-in ends at one.

        Args:
            name: what rules call it.
            document_host: the host of its metadata document; empty where it has none, and in a
                record of before that was kept, where the name tells.
        """
        kind = METADATA if name.startswith(METADATA) else DYNAMIC
        place = name.removeprefix(kind)
        if not place or place == name:
            return False
        host = document_host or (place if kind == METADATA else "")
        if not host:
            return self.registration
        return self.metadata_hosts is None or host in self.metadata_hosts


@dataclass(frozen=True, slots=True)
class JsonBounds:
    """Bound what a message costs to read.

    Attributes:
        work: nanoseconds that reading may take, as `strict_json` estimates them.
        depth: how many objects and arrays may be nested.
    """

    work: int = MAX_WORK
    depth: int = MAX_DEPTH


class RefusalForm(Enum):
    """Name how an authenticated request is told that its operation is refused (decision 11)."""

    TOOL_RESULT = "tool_result"  # HTTP 200: of tools/call a result with isError, else an error
    JSON_RPC = "json_rpc"  # HTTP 200: a JSON-RPC error
    HTTP_STATUS = "http_status"  # a JSON-RPC error under the HTTP status of its reason


@dataclass(frozen=True, slots=True)
class Policy:
    """Hold all that decisions are made of.

    Attributes:
        issuer: the issuer that clients and assurances belong to, as in `iss`.
        origins: the web origins that may call (the Origin header, verbatim).
        servers: by name.
        clients: by client id; where any is named, others are refused. With a front door a client
            that is not named may come through it, and no other way.
        front_door: None where every client logs in at the issuer.
        limits: charged on every request, whatever the server.
        max_body: the longest body in bytes.
        max_list: the longest list of a server, or event of its stream, that is filtered, in bytes.
        confirm_age: how old, in seconds, the issuer's word may be where a rule asks to confirm.
        max_stream: seconds that the exchange of an allowed request lasts at most.
        stream_recheck: the same for a stream that waits for a server's notifications.
        refusals: how refusals that concern the operation are told.
        json: what a message may be as a JSON document.
        places: the server's name by host (lower case, with a port where it is not the scheme's)
            and path (whole, as sent), for requests whose route names none; None where the route
            alone says it.
        pages: web interfaces for people, by name.
    """

    issuer: str
    origins: frozenset[str] = frozenset()
    servers: Mapping[str, Server] = field(default_factory=lambda: MappingProxyType({}))
    clients: Mapping[str, DeclaredClient] = field(default_factory=lambda: MappingProxyType({}))
    front_door: FrontDoor | None = None
    limits: tuple[Limit, ...] = ()
    max_body: int = 1 << 20
    max_list: int = 8 << 20
    confirm_age: float = 0.0
    max_stream: float = 3600.0
    stream_recheck: float = 900.0
    refusals: RefusalForm = RefusalForm.TOOL_RESULT
    json: JsonBounds = JsonBounds()
    places: Mapping[tuple[str, str], str] | None = None
    pages: Mapping[str, AdminPage] = field(default_factory=lambda: MappingProxyType({}))

    def targets(self) -> Iterator[RuleTarget[Rule]]:
        """Yield every rule of every server."""
        for server in self.servers.values():
            yield from server.targets()


def before_moves(old: Policy, new: Policy) -> Policy | None:
    """Return the policy for requests over the routes of servers that only moved.

    It holds these servers alone, each at its former upstream. A server whose rules changed, too, is
    not among them: neither its old rules nor its new ones are for the former upstream.

    Returns:
        None where there is no such server, or where the policies differ in more than servers.
    """
    if replace(new, servers=old.servers) != old:
        return None
    former = {
        name: old.servers[name]
        for name, server in new.servers.items()
        if name in old.servers and server.upstream != old.servers[name].upstream
    }
    only_moved = {
        name: server
        for name, server in former.items()
        if replace(new.servers[name], upstream=server.upstream) == server
    }
    return replace(new, servers=MappingProxyType(only_moved)) if only_moved else None
