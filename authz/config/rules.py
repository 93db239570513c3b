"""Clients, servers, tools and limits of authz.yaml as frozen values.

Law: as in `model`, whose second half this is.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StrictBool, StrictInt

from authz.config import scalars, urls
from authz.config.fields import (
    CountedBy,
    InAWord,
    Listing,
    NonEmpty,
    NonEmptyMap,
    Section,
    field,
)
from authz.config.scalars import Rate, Unix, duration
from authz.core.policy import LEGACY, MODERN

Login = Literal["direct", "front_door"]
TokenKind = Literal["jwt", "opaque"]
ChallengeScopes = Literal["all", "own"]
Version = Literal["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
Scope = Annotated[str, scalars.SCOPE]
ClientId = Annotated[str, scalars.CLIENT_ID]
_EVERY_VERSION: Final = (MODERN, *reversed(LEGACY))


class Client(Section):
    """What is known of a client."""

    redirect_uris: Listing[Annotated[str, urls.REDIRECT]] = field(
        "Where its log-ins end. The front door compares them exactly, the port of a loopback "
        "address aside; of a direct client Authelia's configuration is made of them.",
        [],
    )
    scopes: Listing[Scope] | None = field(
        "What it may use at most, whatever its token says; left out: what its token says.", None
    )
    login: Login | None = field("As `issuer.login`, for this client alone.", None)
    assurance: Literal["two_factor", "totp"] | None = field(
        "What its `authorization_policy` at Authelia guarantees of every log-in: a second factor, "
        "or TOTP where Authelia's other methods are off. Believed as it stands here. Not of a "
        "client of the front door, which knows the log-in itself.",
        None,
    )
    machine: StrictBool = field(
        "Whether it comes without a person (client_credentials); a server must name it under "
        "`machines`.",
        False,
    )


class Limit(Section):
    """A number of requests in a window that slides."""

    per: CountedBy = field(
        "Whose requests are counted together: `client`, `user`, `[client, user]`, `address`. "
        "A token without a person counts as its client's; clients that nobody configured, of the "
        "front door, count as one client."
    )
    rate: Annotated[Rate, scalars.RATE] = field("How many in which time; one window.")
    cost: Annotated[StrictInt, Field(ge=1, le=1_000_000_000)] = field(
        "How many units one request takes.", 1
    )
    counts: Literal["all", "operations", "handshakes"] = field(
        "Which requests are charged: `all`; `operations` (`tools/call`, `prompts/get`, "
        "`resources/read` and the like, and every unknown method); or `handshakes`, which are all "
        "others: what begins, keeps and ends a session, lists, notifications, GET and DELETE. Of a "
        "tool's limits each counts that tool's calls.",
        "all",
    )
    name: Annotated[str, scalars.LIMIT_NAME] | None = field(
        "The name that clients read in `RateLimit`; left out, it is made of the place and the "
        "rate.",
        None,
    )


class SecondFactor(Section):
    """A second factor, and how old the log-in may be."""

    method: Literal["any", "totp"] = field("Which one.", "any")
    max_login_age: Annotated[float, duration("1s", "30d", "5m")] | None = field(
        "How long ago the person last typed password or TOTP at Authelia (`auth_time`); whole "
        "seconds.",
        None,
    )
    evidence: NonEmpty[Literal["login", "step_up", "token", "client"]] = field(
        "Where the proof may come from: the log-in at the front door (`login`), a `step_up`, the "
        "`token`'s own `amr` (never from Authelia), the direct `client`'s `assurance`.",
        ["login", "step_up", "token", "client"],
    )


class Tool(Section):
    """What a tool asks for beyond its server."""

    scopes: Listing[Scope] = field("All of them are needed.", [])
    groups: NonEmpty[Annotated[str, scalars.GROUP]] | None = field(
        "The person must be in one of them.", None
    )
    second_factor: InAWord[SecondFactor | None] = field(
        "`any`, `totp`, `none` or a mapping; `none` takes nothing from the server's.", None
    )
    limits: tuple[Limit, ...] = field("Charged besides the server's, all or none.", [])
    tokens: NonEmpty[TokenKind] | None = field(
        "The kinds of tokens that are accepted, of those that the server accepts.", None
    )
    introspect: Literal["always"] | None = field("As at the server, for this tool.", None)


class Server(Section):
    """One MCP server and its rules."""

    upstream: Annotated[str, urls.UPSTREAM] = field(
        "Where Envoy finds it; its host is the Host, and its path the path, that the server sees."
    )
    socket: Annotated[Unix, scalars.UPSTREAM_SOCKET] | None = field(
        "The Unix socket that Envoy connects to, in place of the host and port of `upstream`. "
        "Envoy's user must be able to write to it.",
        None,
    )
    resource: Annotated[str, urls.RESOURCE] | None = field(
        "Its public URL, which is the audience of its tokens; left out: `gateway.url`, a slash "
        "and its name.",
        None,
    )
    nested: StrictBool = field(
        "Says on purpose that its URL lies under another server's, or another's under its: "
        "Authelia then grants clients of the outer one tokens for the inner one.",
        False,
    )
    scopes: Listing[Scope] = field("All of them are needed.", [])
    challenge_scopes: ChallengeScopes | None = field(
        "Which scopes a client is told to ask for at its log-in, by the challenge and the RFC 9728 "
        "document: `all`, its tools' too, or its `own` (where it has none, its tools' all the "
        "same). With `own` a tool's scope is first heard of in a refusal, and only some clients "
        "log in once more for it: docs/clients.md names them. Left out: `all`; where clients log "
        "in at the issuer itself, which refuses what a client may not ask for, `own` in the "
        "challenge.",
        None,
        examples=["own"],
    )
    groups: NonEmpty[Annotated[str, scalars.GROUP]] | None = field(
        "The person must be in one of them; left out: anybody.", None
    )
    machines: Listing[ClientId] = field(
        "The clients without a person that may use it; `groups` and `second_factor` of the "
        "server, not of a tool, are then not asked of them.",
        [],
    )
    second_factor: InAWord[SecondFactor | None] = field("`any`, `totp`, `none` or a mapping.", None)
    limits: tuple[Limit, ...] | None = field(
        "Charged together, all or none; left out: 60 `operations` a minute per client and user, "
        "120 per user, and 150 `handshakes` in 15 seconds per user. `[]` for none.",
        None,
        examples=[[{"per": ["client", "user"], "rate": "60/minute"}]],
    )
    tools: NonEmptyMap[Annotated[str, scalars.TOOL_PATTERN], Tool] | None = field(
        "Rules by tool name, `*` and `?` as wildcards. Every one that matches applies; where "
        "tools are named, others are refused.",
        None,
        examples=[{"read_*": {}, "delete_*": {"second_factor": "totp"}}],
    )
    identity: Literal["headers", "signed"] = field(
        "How it is told who calls: by `headers`, or `signed` besides: a token of a minute for this "
        "server alone in `x-authz-identity`, so that it need not trust its network. Needs "
        "`gateway.identity_key_file`.",
        "headers",
    )
    methods: Listing[Annotated[str, scalars.METHOD]] = field(
        "Methods besides MCP's own that may be called where tools are named, to the letter; the "
        "server's rule is all that judges them. Also `tasks/...`, and `subscriptions/listen` for "
        "tasks, which else the rules of all tools judge together.",
        [],
        examples=[["x-search/run"]],
    )
    tokens: NonEmpty[TokenKind] | None = field(
        "The kinds of tokens that are accepted: signed ones (`jwt`), `opaque` ones; left out: both "
        "where `issuer.introspection` is configured, else `jwt`.",
        None,
    )
    introspect: Literal["always"] | None = field(
        "`always`: the issuer is asked about signed tokens too, so that what was revoked there "
        "(log-ins, refreshed tokens) is refused within `issuer.introspection.confirm_age`.",
        None,
    )
    session_lifetime: Annotated[float, duration("1m", "365d", "7d")] = field(
        "How long an `Mcp-Session-Id` stays bound to the person and client that used it first, "
        "after their last use; no shorter than the server keeps sessions.",
        "7d",
    )
    versions: NonEmpty[Version] = field(
        "The MCP protocol versions that it accepts.", list(_EVERY_VERSION)
    )
