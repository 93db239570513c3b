"""authz.yaml as frozen values: every field with its type, its default and its meaning.

What is wrong with one value is found here, what is wrong between values by `lint`. The descriptions
are the reference: docs/configuration.md and the JSON Schema are made of them. Defaults are written
in the file's own notation and validated like anything else.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, StrictBool, StrictInt

from authz.config import urls, value_types
from authz.config.endpoints import Tcp, Unix
from authz.config.value_types import (
    AuditOr,
    Count,
    CountedBy,
    EachCallOr,
    FrozenMap,
    InAWord,
    Listing,
    NonEmpty,
    NonEmptyMap,
    NumberOr,
    PerUser,
    Rate,
    Rates,
    Section,
    TlsVersion,
    duration,
    field,
)
from authz.core.argument_cost import MAX_ARGUMENT_COST
from authz.core.conditions import Matches
from authz.core.json_pointer import JsonPointer
from authz.core.limits import Per
from authz.core.policy import LEGACY, MODERN, OperationKind, RuleTarget, rule_targets

# "none" and the HMAC family are missing on purpose: neither proves who signed.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]

RefreshTokens = Literal["unless_declined", "on_request", "never"]

# The entry of `clients` that is no client: it narrows those which are not configured.
DEFAULT: Final = "default"

Login = Literal["direct", "front_door"]
TokenKindName = Literal["jwt", "opaque"]
SecurityEventName = Literal[
    "forged_token",
    "foreign_token",
    "session_of_another",
    "second_factor_refused",
    "approval_declined",
    "credential_replayed",
    "blocked_client",
    "revocation",
    "configuration_changed",
    "tool_changed",
]
ChallengeScopes = Literal["all", "own"]
Version = Literal["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
Scope = Annotated[str, value_types.SCOPE]
ClientId = Annotated[str, value_types.CLIENT_ID]
_EVERY_VERSION: Final = (MODERN, *reversed(LEGACY))


class SigningKeysConfig(Section):
    """How the issuer's signing keys are kept."""

    refresh: Annotated[float, duration("10s", "1d", "5m")] = field(
        "How often they are fetched anew.", "5m"
    )
    cooldown: Annotated[float, duration("1s", "1h", "30s")] = field(
        "The time between two fetches for unknown `kid`s, however many arrive; three may come "
        "before it holds, for key rotations that follow each other.",
        "30s",
    )
    max_age: Annotated[float, duration("1m", "30d", "24h")] = field(
        "How long they are trusted while the issuer cannot be reached.", "24h"
    )


class IntrospectionConfig(Section):
    """How the issuer is asked about tokens that are opaque, or may be revoked (RFC 7662)."""

    client_id: ClientId = field(
        "The client that asks: confidential, registered at the issuer for nothing else."
    )
    auth: Literal["private_key_jwt", "client_secret_basic", "client_secret_post"] = field(
        "How it proves itself. A signed assertion costs Authelia a fraction of a client secret, "
        "which is a password hash to it.",
        "private_key_jwt",
    )
    key_file: Annotated[str, value_types.KEY_FILE] | None = field(
        "The private key of `private_key_jwt`, PEM: P-256 (ES256) or RSA (RS256).", None
    )
    key_id: Annotated[str, value_types.KEY_ID] | None = field(
        "The `key_id` of its public half at the issuer; needed where that knows several.", None
    )
    secret_file: Annotated[str, value_types.SECRET_FILE] | None = field(
        "The file that holds the client secret.", None
    )
    max_age: Annotated[float, duration("1s", "5m", "30s")] = field(
        "How old an answer on an active token may be: how long a token that was revoked at the "
        "issuer still passes.",
        "30s",
    )
    negative_age: Annotated[float, duration("1s", "5m", "10s")] = field(
        "How long a token that is not active is not asked about again.", "10s"
    )
    confirm_age: Annotated[float, duration("0s", "30s", "1s")] = field(
        "The same as `max_age` where a server or tool says `introspect: always`.", "1s"
    )
    concurrency: Annotated[StrictInt, Field(ge=1, le=64)] = field(
        "How many questions at once, of each worker.", 8
    )


class IssuerConfig(Section):
    """Who signs access tokens: Authelia."""

    url: Annotated[str, urls.ISSUER] = field(
        "The issuer, exactly as tokens say it in `iss`: https, no slash at the end."
    )
    internal: Annotated[str, urls.INTERNAL] | None = field(
        "How authz and Envoy reach it, where that is another address: scheme, host and port, below "
        "which it has the path of `url`. "
        "`X-Forwarded-Proto` and `X-Forwarded-Host` are sent along.",
        None,
    )
    login: Login | None = field(
        "Where clients log in: `front_door`, at the gateway, with Authelia behind it; or "
        "`direct`, at the issuer itself. Left out: `front_door` where that section is there.",
        None,
    )
    serve: StrictBool = field(
        "Whether Envoy also serves the issuer's portal: under the issuer's own name, or, where "
        "there is one name for everything, under a path of the gateway's (`url: "
        "https://mcp.example.com/auth`). Needs `internal`.",
        False,
    )
    serve_endpoints: StrictBool | None = field(
        "Whether Envoy, where it serves the portal, passes on what programs send to the issuer's "
        "token, introspection, revocation, pushed authorization and device authorization "
        "endpoints. `true` for other applications that log in at this Authelia. Left out: all of "
        "them where a client logs in at the issuer itself, the token endpoint alone for machines, "
        "else none.",
        None,
    )
    algorithms: NonEmpty[Algorithm] = field(
        "The signature algorithms that are accepted.", ["RS256", "ES256"]
    )
    leeway: Annotated[float, duration("0s", "60s", "10s")] = field(
        "How far the issuer's clock may differ from ours.", "10s"
    )
    max_lifetime: Annotated[float, duration("1m", "30d", "12h")] = field(
        "The longest lifetime of a token, from `iat` to `exp`; longer ones are refused.", "12h"
    )
    deadline: Annotated[float, duration("100ms", "30s", "2s")] = field(
        "How long a request waits where the issuer must be asked; past it the answer is 503.",
        "2s",
    )
    keys: SigningKeysConfig = field("How the issuer's signing keys are kept.", {})
    introspection: IntrospectionConfig | None = field(
        "How the issuer is asked about tokens; left out, opaque tokens are refused.", None
    )
    assurance_claim: Annotated[str, value_types.ASSURANCE_CLAIM] | None = field(
        "The claim of a signed token that must say what its client's `assurance` says, or that "
        "does not count. It is needed besides the assurance, never instead; `authz "
        "authelia-config` prints what puts it there. Left out: the assurance alone counts.",
        None,
    )


class FrontDoorConfig(Section):
    """The log-in that MCP clients see, with Authelia behind it, and the step-up."""

    key_file: Annotated[str, value_types.DOOR_KEY_FILE] = field(
        "The private key of both clients at Authelia (`private_key_jwt`), PEM: P-256 or RSA."
    )
    key_id: Annotated[str, value_types.KEY_ID] | None = field(
        "The `key_id` of its public half at Authelia; needed where that knows several.", None
    )
    seal_file: Annotated[str, value_types.SEAL_FILE] | None = field(
        "The file of the keys that refresh tokens and links are sealed with, one a line, the "
        "newest first; older ones still open. Left out: made of `key_file`. A line `key_file:` and "
        "such a file in base64 opens what was sealed before.",
        None,
    )
    one_factor: ClientId = field(
        "Our client at Authelia whose log-ins may be by password alone.", "authz-one-factor"
    )
    two_factor: ClientId = field(
        "Our client at Authelia whose log-ins need a second factor.", "authz-two-factor"
    )
    registration: StrictBool = field(
        "Whether clients may register themselves (RFC 7591). Nothing is stored for them.", True
    )
    metadata_hosts: Listing[Annotated[str, value_types.HOST]] | None = field(
        "The hosts whose client id metadata documents are taken; left out: any public host's; "
        "`[]`: none.",
        None,
    )
    address_pages: Annotated[Rate, value_types.RATE] = field(
        "How many pages of the log-in one address may open. A log-in opens two or three, so that "
        "an office or a VPN with one address needs three times its log-ins of a busy minute.",
        "600/minute",
    )
    address_log_ins: Annotated[Rate, value_types.RATE] = field(
        "How many log-ins, step-ups and looks at one's own log-ins one address may begin at the "
        "issuer. Authelia itself takes 30 failed requests a minute of one address, and answers "
        "429 to all of it afterwards.",
        "20/minute",
    )
    address_documents: Annotated[Rate, value_types.RATE] = field(
        "How many client id metadata documents one address may have fetched that are not known "
        "yet.",
        "12/minute",
    )
    private_redirect_uris: Listing[Annotated[str, urls.REDIRECT]] = field(
        "Redirect URIs with a scheme of a program's own that clients which are not configured "
        "may use, each compared exactly.",
        ["cursor://anysphere.cursor-mcp/oauth/callback"],
    )
    grant_max_age: Annotated[float, duration("1h", "365d", "30d")] = field(
        "How long one consent lasts, however often it is refreshed.", "30d"
    )
    refresh_tokens: RefreshTokens = field(
        "Which log-ins give a refresh token, for which Authelia asks for consent on a page of its "
        "own. `unless_declined`: all, but of clients whose metadata lists `grant_types` without "
        "`refresh_token`. `on_request`: those that ask for the scope `offline_access`. `never`: "
        "none; people log in again after `access_token_lifetime`.",
        "unless_declined",
    )
    email_addresses: StrictBool = field(
        "Whether Authelia is asked for people's e-mail addresses (scope `email`), so that `authz "
        "revoke --user` finds people by them; kept sealed. First bring what `authz "
        "authelia-config` then writes to Authelia, which refuses every log-in else.",
        False,
    )
    access_token_lifetime: Annotated[float, duration("5m", "30d", "8h")] = field(
        "How long an access token lives where there are no refresh tokens (`refresh_tokens: "
        "never`); `authz authelia-config` writes it. At most `issuer.max_lifetime`.",
        "8h",
    )
    stale_refresh: Annotated[float, duration("30s", "7d", "24h")] = field(
        "How long a replaced refresh token still gets the newest answer of its grant, from the "
        "same client and the network of the last refresh, since several processes of one program "
        "may share a token. `30s`: for lost answers alone. Later, or from elsewhere, it ends the "
        "grant (RFC 9700, section 4.14.2).",
        "24h",
    )
    page_session: Annotated[float, duration("5m", "7d", "8h")] = field(
        "How long a log-in for one of `pages` lasts; no longer than its access token at Authelia "
        "(1 hour by default) and `page_recheck` together.",
        "8h",
    )
    page_recheck: Annotated[float, duration("1s", "7d", "10m")] = field(
        "How long what was decided about a session of one of `pages` counts: within this time its "
        "groups are asked of Authelia anew, and a WebSocket, stream or slow transfer ends, to be "
        "decided about anew. Where Authelia is away, pages stay open for half of it at least, and "
        "no longer than it.",
        "10m",
    )
    step_up: Literal["link", "challenge", "off"] = field(
        "How a client that cannot show links is told of a needed step-up: in words with the "
        "`link`, by an RFC 9470 `challenge`, which most answer with a log-in that changes "
        "nothing, or not at all: `off`.",
        "link",
    )


class TlsConfig(Section):
    """The certificate that clients see. Envoy reads both anew when one is renamed into place."""

    certificate: Annotated[str, value_types.FILE] = field("The chain, PEM, the own one first.")
    key: Annotated[str, value_types.FILE] = field("Its private key, PEM.")
    minimum: TlsVersion = field("The lowest TLS version.", "1.3")


class GatewayConfig(Section):
    """The one address that MCP clients know: Envoy's."""

    url: Annotated[str, urls.GATEWAY] = field(
        "The public URL: https, no path. Servers lie under it."
    )
    listen: Annotated[Tcp, value_types.LISTEN] = field("Where Envoy listens.", "0.0.0.0:8443")
    tls: TlsConfig | None = field(
        "Left out only where something in front of Envoy ends TLS; a warning says so.", None
    )
    http_listen: Annotated[Tcp, value_types.LISTEN] | None = field(
        "Where Envoy listens for plain HTTP, to redirect to HTTPS.", None
    )
    origins: Listing[Annotated[str, urls.ORIGIN]] = field(
        "The web origins whose pages may call; an `Origin` outside of them is refused.", []
    )
    identity_key_file: Annotated[str, value_types.IDENTITY_KEY_FILE] | None = field(
        "The private key that signs who calls for servers with `identity: signed`, PEM: P-256 or "
        "RSA; `authz identity-keys` makes it and prints its public half for them.",
        None,
    )
    identity_other_key_file: Annotated[str, value_types.IDENTITY_KEY_FILE] | None = field(
        "A second key that is published beside it and signs nothing: the next one, so that servers "
        "know it before it signs, or the last one, until what it signed has ended (a minute).",
        None,
    )
    trusted_hops: Annotated[StrictInt, Field(ge=0, le=10)] = field(
        "How many proxies in front of Envoy are ours, so that their `X-Forwarded-For` counts. They "
        "have to write addresses without ports: of `192.0.2.1:443` Envoy takes the proxy's own "
        "address, and everybody behind it counts as one.",
        0,
    )
    max_body: Annotated[int, value_types.SIZE] = field("The longest MCP message.", "1MiB")
    max_list: Annotated[int, value_types.SIZE] = field(
        "The longest list of an MCP server that is filtered (`filter_lists`), or event of its "
        "stream; in place of a longer one the client gets an error. authz holds it until it is "
        "whole.",
        "8MiB",
    )
    max_json_work: Annotated[float, duration("1ms", "2s", "50ms")] = field(
        "How long reading one message may take, estimated the same on any machine: 6 ns a byte, "
        "50 a comma, 280 a point of a number, 700 an exponent, 200 for every 20 digits in a row, "
        "350 an object or array, 250 a member. Others wait meanwhile.",
        "50ms",
    )
    max_json_depth: Annotated[StrictInt, Field(ge=8, le=256)] = field(
        "How many objects and arrays of a message may be nested.", 64
    )
    refusals: Literal["tool_result", "json_rpc", "http_status"] = field(
        "How a client with a valid token is told that its operation is refused: with HTTP 200, of "
        "`tools/call` as a result with `isError` that the model reads (`tool_result`), or always "
        "as a JSON-RPC error (`json_rpc`); or by the HTTP status (`http_status`), which ends the "
        "sessions of widely used clients. OAuth challenges and malformed requests keep their "
        "status.",
        "tool_result",
    )
    max_stream: Annotated[float, duration("1s", "7d", "1h")] = field(
        "The longest life of one response, streams included. It ends earlier where the token that "
        "allowed it expires.",
        "1h",
    )
    stream_recheck: Annotated[float, duration("1s", "7d", "15m")] = field(
        "The longest life of a stream that waits for a server's notifications (GET, or "
        "`subscriptions/listen`); its client then opens it anew. A revocation, a block and a new "
        "rule reach open streams within this time. It ends no tool call.",
        "15m",
    )
    streams_per_user: PerUser = field(
        "How many streams of notifications one person may have at one server: so many may begin "
        "within `stream_recheck` (of which 15 minutes count at most). The excess is told 405, by "
        "which MCP means that there is no stream; the session goes on.",
        96,
    )
    calls_per_user: PerUser = field(
        "How many calls one person may keep a server busy with at a steady rate. A call lasts at "
        "most this number divided by the rate at which its person has begun calls: with 64 an "
        "hour at one a minute, six minutes at ten, never less than a minute. A third of the "
        "number goes to lists and handshakes, which last 15 seconds at least.",
        64,
    )
    max_connections: Count = field("Connections at once, from all clients.", 10_000)
    max_concurrent_streams: Count = field("HTTP/2 streams at once on one connection.", 100)
    address_rate: Annotated[Rate, value_types.RATE] = field(
        "What one address may send without a bearer token before Envoy answers 429 by itself, not "
        "on the well-known documents. Token requests and revocations of the front door, its pages, "
        "and all other requests are counted apart, up to this rate each.",
        "100/second",
    )
    address_calls: Annotated[Rate, value_types.RATE] = field(
        "What one address may send to MCP servers with a bearer token, good or not: Envoy does not "
        "know tokens. It bounds what one address costs authz; who is known is bounded by `limits`. "
        "All people behind one address share it.",
        "500/second",
    )
    address_bodies: Annotated[Rate, value_types.RATE] = field(
        "How many requests with a bearer token and a body of 10,000 bytes or more, or of unknown "
        "length, one address may begin; such requests to the front door are counted apart. An "
        "address holds this number and `request_timeout` times this rate of `max_body` each in "
        "Envoy's memory.",
        "240/minute",
    )
    address_passwords: Annotated[Rate, value_types.RATE] = field(
        "How many passwords one address may try at the issuer's log-in page before Envoy answers "
        "429 by itself, right ones too. It counts where Envoy serves that page (`issuer.serve`).",
        "30/minute",
    )
    address_bad_tokens: Annotated[Rate, value_types.RATE] = field(
        "About how many unknown tokens one worker asks the issuer about in vain for one address, "
        "each counted once, before others wait (429). It never holds up a token that a known key "
        "has signed, nor an opaque one that this worker has found active; one that is not known "
        "yet passes when it comes again, unless the stranger repeats its own too.",
        "60/minute",
    )
    request_timeout: Annotated[float, duration("1s", "5m", "15s")] = field(
        "How long a request may take to arrive whole; answers may take longer.", "15s"
    )


class RedisTlsConfig(Section):
    """The files of TLS with Redis; they are read for every new connection."""

    ca_file: Annotated[str, value_types.AUTHORITY_FILE] | None = field(
        "Certificates (PEM) that are trusted for it in place of the system's.", None
    )
    certificate: Annotated[str, value_types.FILE] | None = field(
        "Our own certificate, PEM, where it asks for one.", None
    )
    key: Annotated[str, value_types.FILE] | None = field("Its private key, PEM.", None)
    server_name: Annotated[str, value_types.HOST] | None = field(
        "The name that its certificate is for; left out, the host of each connection. Sentinels "
        "and clusters name nodes by their addresses, unless they are told names.",
        None,
    )


class RedisSentinelConfig(Section):
    """How sentinels are asked, which have users of their own."""

    username: Annotated[str, value_types.USER_NAME] | None = field("Their ACL user.", None)
    password_file: Annotated[str, value_types.SECRET_FILE] | None = field(
        "The file that holds their password.", None
    )
    tls: StrictBool | None = field(
        "Whether they are reached by TLS; left out, as the nodes are. Where the nodes alone have "
        "TLS, `redis.tls.server_name` is needed: else a forged answer could name any host.",
        None,
    )


class RedisConfig(Section):
    """Where limits, revocations and step-ups are kept."""

    url: Annotated[str, urls.REDIS] | None = field(
        "redis://, rediss:// (TLS) or unix://, without a password; "
        "`redis+sentinel://host:port,host:port/service` where sentinels name the primary, "
        "`redis+cluster://host:port,host:port` for a cluster, of which some nodes are named; "
        "`rediss+sentinel://` and `rediss+cluster://` with TLS. "
        "Left out, they are kept in the process, or by the server that `authz up` brings.",
        None,
    )
    username: Annotated[str, value_types.USER_NAME] | None = field("The ACL user.", None)
    password_file: Annotated[str, value_types.SECRET_FILE] | None = field(
        "The file that holds the password. The environment variable AUTHZ_REDIS_PASSWORD does "
        "the same.",
        None,
    )
    tls: RedisTlsConfig = field("The files of `rediss://`.", {})
    sentinel: RedisSentinelConfig = field("How sentinels are asked.", {})
    mode: Literal["local", "deny", "allow"] = field(
        "What limits do while Redis is away: each worker counts for itself (`local`), nothing "
        "passes (`deny`), or nothing is counted (`allow`).",
        "local",
    )
    replicas: Annotated[StrictInt, Field(ge=1, le=1000)] = field(
        "How many `authz serve` share this Redis: while it is away each counts up to its part of "
        "every quota, which its workers share.",
        1,
    )
    max_away: Annotated[float, duration("0s", "1d", "5m")] = field(
        "How long `mode` holds; after it everything is refused until Redis is back.", "5m"
    )
    deployment: Annotated[str, value_types.DEPLOYMENT] = field(
        "The name in the hash tag of every key: deployments that share a Redis differ in it.",
        "authz",
    )


class OtlpKeepConfig(Section):
    """Which traces are kept besides the sample, once it is known what became of them."""

    refusals: StrictBool = field("Every refusal.", True)
    slower_than: Annotated[float, duration("1ms", "1h", "100ms")] | None = field(
        "Every decision, and page of the log-in, that took this long.", "100ms"
    )


class OtlpConfig(Section):
    """What is sent to an OpenTelemetry collector (docs/opentelemetry.md)."""

    endpoint: Annotated[str, urls.OTLP] = field(
        "The collector. With `http/protobuf`, `/v1/traces` and the like are put behind it."
    )
    protocol: Literal["http/protobuf", "grpc"] = field("What it speaks there.", "http/protobuf")
    headers_file: Annotated[str, value_types.HEADERS_FILE] | None = field(
        "The file of the headers that it asks for, as keys of a provider: a line `name: value` "
        "each.",
        None,
    )
    traces: StrictBool = field("Whether it gets traces.", True)
    metrics: StrictBool = field(
        "Whether it gets what `/metrics` shows; not needed where Prometheus reads that.", False
    )
    logs: StrictBool = field("Whether it gets every line of the log.", False)
    sample: value_types.Share = field(
        "The share of traces that is kept where Envoy has not decided about them, 0 to 1. The "
        "flag of a client's own `traceparent` counts for nothing.",
        0.01,
    )
    keep: OtlpKeepConfig = field("Which traces are kept besides.", {})
    at_most: Annotated[Rate, value_types.RATE] = field(
        "How many traces one process sends, refusals and others apart; what is beyond is counted "
        "in `authz_otlp_dropped_total`.",
        "100/second",
    )
    interval: Annotated[float, duration("1s", "1h", "60s")] = field(
        "How often metrics are sent.", "60s"
    )
    propagate: StrictBool = field(
        "Whether MCP servers get a `traceparent` that names our span, in place of the client's. "
        "Where Envoy traces, it says its own.",
        False,
    )
    envoy: StrictBool = field(
        "Whether `authz envoy-config` has Envoy send spans of its own, `sample` of all. A client's "
        "`traceparent` then ends at Envoy: strangers would decide what it keeps.",
        False,
    )


class TelemetryConfig(Section):
    """What is told about decisions."""

    metrics: Annotated[Tcp, value_types.METRICS] = field(
        "Where /metrics, /healthz and /readyz are served.", "127.0.0.1:9464"
    )
    pages_metrics: Annotated[Tcp, value_types.METRICS] | None = field(
        "The same for `authz pages`; left out, it serves none.", None
    )
    log: Literal["auto", "json", "text"] = field(
        "One JSON line per decision, or lines for people; `auto`: text on a terminal.", "auto"
    )
    otlp: OtlpConfig | None = field(
        "Traces, metrics and logs for an OpenTelemetry collector; left out, none. Needs the extra "
        "`otlp`, and a restart where it changes.",
        None,
    )


class NotifyTargetConfig(Section):
    """One service that tells people of security events (docs/security-events.md)."""

    form: Literal["ntfy", "gotify", "slack", "json"] = field(
        "What it understands; `slack` is also Mattermost's, `json` an ECS document."
    )
    url: Annotated[str, urls.NOTIFY] | None = field(
        "The topic of `ntfy`, the server of `gotify`, or what `json` is posted to. https, but for "
        "a host of a private network.",
        None,
    )
    url_file: Annotated[str, value_types.SECRET_FILE] | None = field(
        "The file that holds the URL, in its place; of `slack` always.", None
    )
    token_file: Annotated[str, value_types.SECRET_FILE] | None = field(
        "The file that holds the access token (`ntfy`, `json`: a bearer token) or the token of the "
        "application (`gotify`).",
        None,
    )
    signing_key_file: Annotated[str, value_types.SECRET_FILE] | None = field(
        "The file with the key that signs `json`, as Standard Webhooks has it: `whsec_` and "
        "base64.",
        None,
    )
    ca_file: Annotated[str, value_types.FILE] | None = field(
        "Certificates (PEM) that are trusted for it in place of the system's.", None
    )
    events: NonEmpty[SecurityEventName] | None = field(
        "The events that it is told; left out: all.",
        None,
        examples=[["credential_replayed", "tool_changed"]],
    )
    people: StrictBool = field(
        "Whether messages name the person (the subject) and the address.", False
    )


class AuditConfig(Section):
    """The audit trail: what was decided about operations, kept beyond the log (docs/audit.md)."""

    to: Literal["redis", "off"] = field(
        "Where it goes: to the Redis of `redis` (or of `authz up`), or nowhere (`off`). Without "
        "any Redis there is none.",
        "redis",
    )
    keep: Annotated[float, duration("1d", "3650d", "90d")] = field(
        "How long a record is kept.", "90d"
    )
    most: Annotated[StrictInt, Field(ge=1000, le=100_000_000)] = field(
        "How many records are kept: the oldest go first. A record takes about half a kilobyte of "
        "Redis' memory (docs/capacity.md).",
        100_000,
    )


class ConsoleConfig(Section):
    """The operators' console at `/authz/admin`, which shows and changes everything."""

    groups: NonEmpty[Annotated[str, value_types.GROUP]] = field(
        "The person must be in one of them, by what the issuer says at each request.",
        examples=[["admins"]],
    )
    second_factor: Literal["any", "totp"] = field(
        "The second factor that the log-in must have proved.", "totp"
    )
    session: Annotated[float, duration("5m", "1h", "30m")] = field(
        "How long one log-in lasts there, whatever is done meanwhile.", "30m"
    )


class ServiceConfig(Section):
    """The process that decides."""

    check: Annotated[Tcp | Unix, value_types.SOCKET] = field(
        "Where Envoy asks: `unix:` and a path on one machine, else an address that only Envoy "
        "reaches.",
        "unix:/run/authz/check.sock",
    )
    pages: Annotated[Tcp | Unix, value_types.SOCKET] = field(
        "Where `authz pages` serves the front door and the step-up; only Envoy needs to reach it.",
        "unix:/run/authz/pages.sock",
    )
    workers: Annotated[StrictInt, Field(ge=1, le=64)] = field("How many processes.", 1)
    drain_notice: Annotated[float, duration("0s", "60s", "3s")] = field(
        "How long a service that was told to stop goes on answering, saying NOT_SERVING, so that "
        "Envoy's health checks (every second, twice) send its requests elsewhere first.",
        "3s",
    )
    transport: Literal["auto", "ngh2", "pyvoy", "grpcio"] = field(
        "What carries Check: `ngh2` (the extra `fast`), `pyvoy` (an Envoy around the service; the "
        "extra `pyvoy`, Linux with glibc), `grpcio` (anywhere; much dearer per request), or "
        "`auto`: the first of them that is installed, another where it does not start.",
        "auto",
    )
    watch_config: StrictBool = field(
        "Whether a change of authz.yaml, or of a file that it names (keys, passwords, pins), is "
        "taken by itself: checked first, as a whole, within seconds. `false`: at SIGHUP alone.",
        True,
    )
    data_plane: Literal["envoy", "envoy_gateway", "agentgateway"] = field(
        "What asks: the Envoy of `authz envoy-config`, or another data plane, configured by hand "
        "as docs/data-planes.md has it, which says what each of them loses.",
        "envoy",
    )
    match: Literal["context", "by_url"] = field(
        "How the server of a request is known: by its route, which names it in "
        "`context_extensions` (`context`), or where a route names none by host and path, to the "
        "letter those of its public URL (`by_url`; not with our own Envoy).",
        "context",
    )


class ClientConfig(Section):
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


class LimitOverrideConfig(Section):
    """A rate in place of the limit's own, for the callers that all of this names."""

    clients: NonEmpty[ClientId] | None = field(
        "One of these clients, by their names under `clients`; `default` is every client that has "
        "none.",
        None,
    )
    users: NonEmpty[Annotated[str, value_types.SUBJECT]] | None = field(
        "One of these persons, by the `sub` of their tokens (`authz limits --json` shows it).", None
    )
    groups: NonEmpty[Annotated[str, value_types.GROUP]] | None = field(
        "Who is in one of these groups.", None
    )
    rate: Rates = field("How many in which time.")
    burst: Annotated[StrictInt, Field(ge=1, le=1_000_000_000)] | None = field(
        "As the limit's; left out, none.", None
    )


class LimitConfig(Section):
    """A number of requests in a window that slides."""

    per: CountedBy = field(
        "Whose requests are counted together: `client`, `user`, `[client, user]`, `address`, "
        "`grant` (one log-in with one client), `group` (each group of the person), `{claim: NAME}` "
        "(those with one value of that claim of the token). A token without a person counts as its "
        "client's; clients that nobody configured, of the front door, count as one client."
    )
    rate: Rates = field("How many in which time; of a list all windows hold.")
    burst: Annotated[StrictInt, Field(ge=1, le=1_000_000_000)] | None = field(
        "How many of them at once: no more within the time in which the rate, of several the one "
        "with the shortest window, gives that many.",
        None,
    )
    overrides: NonEmpty[LimitOverrideConfig] | None = field(
        "Other rates for some callers; the first that names the caller holds.", None
    )
    time_zone: Annotated[str, value_types.TIME_ZONE] | None = field(
        "Where days and months begin: with it `/day` and `/month` count from midnight there, and "
        "do not slide; left out, they are 24 hours and 30 days that slide.",
        None,
    )
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
    name: Annotated[str, value_types.LIMIT_NAME] | None = field(
        "The name that clients read in `RateLimit`; left out, it is made of the place and the "
        "rate.",
        None,
    )
    shadow: StrictBool = field(
        "Refuse nothing: count what it would let pass, and tell what it would refuse in the log "
        "(`shadow`) and in `authz_shadow_refusals_total`. Clients are not told of it.",
        False,
    )
    outage: Literal["local", "deny", "allow"] | None = field(
        "What it does while Redis is away, in place of `redis.mode`. A request passes where no "
        "limit of it says `deny`, and none that counts locally is used up.",
        None,
    )
    warn_at: Annotated[StrictInt, Field(ge=1, le=100)] | None = field(
        "The percentage of its units from which on answers have the header `X-Authz-Limit-Near`, "
        "the log `near`, and `authz_near_limit_total` counts.",
        None,
        examples=[80],
    )

    @property
    def reads_groups(self) -> bool:
        """Tell whether it has to be known which groups the caller is in."""
        return self.per.per is Per.GROUP or any(
            each.groups is not None for each in self.overrides or ()
        )


class SecondFactorConfig(Section):
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


class ApprovalConfig(Section):
    """How long an approval of a tool holds; left out, each call is approved by itself."""

    lifetime: Annotated[float, duration("1m", "24h", "10m")] | None = field(
        "How long the tool may be called once its person has approved it, whatever the arguments: "
        "with this grant, at this server.",
        None,
        alias="for",
    )


class RangeConfig(Section):
    """Bounds of a number; at least one."""

    min: value_types.NumberValue | None = field("It, or more.", None)
    max: value_types.NumberValue | None = field("It, or less.", None)
    above: value_types.NumberValue | None = field("More than it.", None)
    below: value_types.NumberValue | None = field("Less than it.", None)


class ConditionConfig(Section):
    """A condition on one argument: `argument` and one test.

    What a test cannot judge is refused, whatever other rules say: an argument of another kind than
    the test's, or one that programs could read differently.
    """

    argument: Annotated[JsonPointer, value_types.POINTER] = field(
        "Which one: a JSON Pointer (RFC 6901) into the call's `arguments`."
    )
    equals: value_types.ScalarValue | None = field(
        "It is this, to the letter; 1, 1.0 and 1e0 are one number.", None
    )
    one_of: NonEmpty[value_types.ScalarValue] | None = field(
        "It is one of these.", None, alias="in", examples=[["public", "internal"]]
    )
    matches: Annotated[Matches, value_types.EXPRESSION] | None = field(
        "It is a text of up to 1,024 characters, and the whole of it matches (RE2's syntax: "
        "https://github.com/google/re2/wiki/Syntax).",
        None,
    )
    under: Annotated[str, value_types.FOLDER] | None = field(
        "It is the absolute path of this folder or of something below it, written so that every "
        "system reads it alike: `/data/../etc` and the like are refused.",
        None,
    )
    range: RangeConfig | None = field("It is a number within these bounds.", None)
    present: Literal[True] | None = field("It is there, whatever it is.", None)
    absent: Literal[True] | None = field("It is not there.", None)


class OperationConfig(Section):
    """What a resource asks for beyond its server."""

    scopes: Listing[Scope] = field("All of them are needed.", [])
    groups: NonEmpty[Annotated[str, value_types.GROUP]] | None = field(
        "The person must be in one of them.", None
    )
    second_factor: InAWord[SecondFactorConfig | None] = field(
        "`any`, `totp`, `none` or a mapping; `none` takes nothing from the server's.", None
    )
    limits: tuple[LimitConfig, ...] = field("Charged besides the server's, all or none.", [])
    tokens: NonEmpty[TokenKindName] | None = field(
        "The kinds of tokens that are accepted, of those that the server accepts.", None
    )
    introspect: Literal["always"] | None = field("As at the server, for this alone.", None)


class ArgumentCostConfig(Section):
    """As how many requests a call counts, by one of its arguments.

    A whole number from 1 counts as it is, within the bounds; whatever else, or none, as `max`.
    """

    argument: Annotated[JsonPointer, value_types.POINTER] = field(
        "Which one: a JSON Pointer (RFC 6901) into the call's `arguments`."
    )
    min: Annotated[StrictInt, Field(ge=1, le=MAX_ARGUMENT_COST)] = field(
        "As how many a call counts at least.", 1
    )
    max: Annotated[StrictInt, Field(ge=1, le=MAX_ARGUMENT_COST)] = field(
        "As how many it counts at most: above it, the server must not do more.",
        examples=[100],
    )


class ArgumentRuleConfig(OperationConfig):
    """A further rule for the same tools or prompts, for some arguments."""

    when: NonEmpty[ConditionConfig] | None = field(
        "The rule applies where all of these hold. A call for which no rule applies is refused.",
        None,
        examples=[[{"argument": "/path", "under": "/data"}]],
    )
    approve: EachCallOr[ApprovalConfig | None] = field(
        "A person approves what is called, on a page that shows it: `each_call` by itself, or the "
        "tool for a time (`{for: 10m}`). Of tools only. Needs `front_door`; machines are refused.",
        None,
    )
    audit: Listing[Annotated[JsonPointer, value_types.POINTER]] = field(
        "Which arguments the audit trail keeps, by JSON Pointer (RFC 6901) into the call's "
        "`arguments`: texts up to 256 characters, numbers and truth values; of an object or array "
        "only its kind. What callers send may be secret: docs/audit.md.",
        [],
        examples=[["/path", "/amount"]],
    )
    cost: NumberOr[Annotated[StrictInt, Field(ge=1, le=1_000_000)], ArgumentCostConfig] = field(
        "As how many requests a call counts in the limits of its server and of every request, or "
        "the argument that says so; of several rules that apply the greatest holds.",
        1,
    )

    @property
    def most_cost(self) -> int:
        """Return as how many requests a call counts at most."""
        return self.cost.max if isinstance(self.cost, ArgumentCostConfig) else self.cost


class AnnotationsConfig(Section):
    """Rules of tools by what the server's own list says of them (MCP's `annotations`)."""

    read_only: ArgumentRuleConfig | None = field(
        "Tools with `readOnlyHint: true`. Where `tools` are named, these need no name.", None
    )
    destructive: ArgumentRuleConfig | None = field(
        "Tools that are not read-only, unless the server says `destructiveHint: false`.", None
    )
    open_world: ArgumentRuleConfig | None = field(
        "Tools that reach out to others, unless the server says `openWorldHint: false`.", None
    )

    @property
    def rules(self) -> Mapping[str, ArgumentRuleConfig]:
        """Return the rules that are written, by annotation."""
        found = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: rule for name, rule in found if rule is not None}


class PinsConfig(Section):
    """Definitions of tools that somebody has approved."""

    file: Annotated[str, value_types.PINS_FILE] = field(
        "The file that `authz tools SERVER --pin` writes; a change of it is taken like "
        "one of authz.yaml. One that is missing approves nothing."
    )
    mode: Literal["enforce", "report"] = field(
        "What happens to a tool whose definition is not the approved one: it is hidden and refused "
        "(`enforce`), or let through and told in log and metrics (`report`).",
        "enforce",
    )


class ToolConfig(ArgumentRuleConfig):
    """What a tool or prompt asks for beyond its server."""

    also: tuple[ArgumentRuleConfig, ...] = field(
        "Further rules for the same, each with `when`. Every one that applies counts.",
        [],
        examples=[[{"when": [{"argument": "/amount", "range": {"above": 100}}]}]],
    )


class ServerConfig(Section):
    """One MCP server and its rules."""

    upstream: Annotated[str, urls.UPSTREAM] = field(
        "Where Envoy finds it; its host is the Host, and its path the path, that the server sees."
    )
    socket: Annotated[Unix, value_types.UPSTREAM_SOCKET] | None = field(
        "The Unix socket that Envoy connects to, in place of the host and port of `upstream`. "
        "Envoy's user must be able to write to it.",
        None,
    )
    upstream_ca: Annotated[str, value_types.AUTHORITY_FILE] | None = field(
        "The private authority of an `upstream` with https: one certificate or several, PEM, "
        "which Envoy, `authz doctor` and `authz tools` then trust alone for it. Left out: the "
        "authorities of the system.",
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
        "Which scopes a client is told to ask for at its log-in: `all`, its tools' too, or its "
        "`own` (where it has none, its tools' all the same), with which only some clients ask for "
        "a tool's scope later: docs/clients.md names them. Left out: `all`; where clients log in "
        "at the issuer itself, `own` in the challenge.",
        None,
        examples=["own"],
    )
    groups: NonEmpty[Annotated[str, value_types.GROUP]] | None = field(
        "The person must be in one of them; left out: anybody.", None
    )
    machines: Listing[ClientId] = field(
        "The clients without a person that may use it; `groups` and `second_factor` of the "
        "server, not of a tool, are then not asked of them.",
        [],
    )
    second_factor: InAWord[SecondFactorConfig | None] = field(
        "`any`, `totp`, `none` or a mapping.", None
    )
    limits: tuple[LimitConfig, ...] | None = field(
        "Charged together, all or none; left out: 60 `operations` a minute per client and user, "
        "120 per user, and 150 `handshakes` in 15 seconds per user. `[]` for none.",
        None,
        examples=[[{"per": ["client", "user"], "rate": "60/minute"}]],
    )
    tools: NonEmptyMap[Annotated[str, value_types.TOOL_PATTERN], ToolConfig] | None = field(
        "Rules by tool name, `*` and `?` as wildcards. Every one that matches applies; where "
        "tools are named, others are refused.",
        None,
        examples=[{"read_*": {}, "delete_*": {"second_factor": "totp"}}],
    )
    annotations: AnnotationsConfig | None = field(
        "Rules by what the server's own list says of a tool, beside those by name. A tool that it "
        "has not listed yet counts as `destructive` and `open_world`.",
        None,
        examples=[{"destructive": {"second_factor": "totp"}, "read_only": {}}],
    )
    pins: PinsConfig | None = field(
        "Compares what the server says of its tools (name, description, schema, annotations) with "
        "what was approved; left out: nothing is compared.",
        None,
        examples=[{"file": "/etc/authz/pins/files.json"}],
    )
    filter_lists: StrictBool = field(
        "Whether `tools/list` and the like show a caller only what no rule refuses it. A missing "
        "second factor hides nothing, and a call is decided about as ever. Lists of what has no "
        "rules of its own pass as they are.",
        True,
    )
    prompts: NonEmptyMap[Annotated[str, value_types.PROMPT_PATTERN], ToolConfig] | None = field(
        "Rules by prompt name, as for tools; where prompts are named, others are refused. A "
        "completion is judged by the prompt or resource that it is for.",
        None,
        examples=[{"review_*": {}}],
    )
    resources: NonEmptyMap[Annotated[str, value_types.RESOURCE_PATTERN], OperationConfig] | None = (
        field(
            "Rules by URI, `*` for any run of characters, slashes too. Every one that matches "
            "applies; where resources are named, others are refused, and so is a URI in a "
            "spelling that programs could read as another one.",
            None,
            examples=[{"file:///public/*": {}}],
        )
    )
    identity: Literal["headers", "signed"] = field(
        "How it is told who calls: by `headers`, or `signed` besides: a token of a minute for this "
        "server alone in `x-authz-identity`, so that it need not trust its network. Needs "
        "`gateway.identity_key_file`.",
        "headers",
    )
    methods: Listing[Annotated[str, value_types.METHOD]] = field(
        "Methods besides MCP's own that may be called where tools, prompts or resources are named, "
        "to the letter; the server's rule is all that judges them. Also `tasks/...`, and "
        "`subscriptions/listen` for tasks, which else the rules of all tools judge together.",
        [],
        examples=[["x-search/run"]],
    )
    tokens: NonEmpty[TokenKindName] | None = field(
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

    @property
    def operations(self) -> Mapping[OperationKind, Mapping[str, OperationConfig]]:
        """Return the rules of operations, by kind and pattern; each rule of `also` beside."""
        return {
            OperationKind.TOOL: self.tools or {},
            OperationKind.ANNOTATION: {} if self.annotations is None else self.annotations.rules,
            OperationKind.PROMPT: self.prompts or {},
            OperationKind.RESOURCE: self.resources or {},
        }


class PageConfig(Section):
    """A web interface for people, which Envoy serves to whoever has logged in for it."""

    host: Annotated[str, value_types.HOST] = field(
        "Its name, for it alone or for several pages with a `path` each; never that of the "
        "gateway or the issuer. Scheme and port are those of `gateway.url`."
    )
    path: Annotated[str, value_types.PAGE_PATH] | None = field(
        "What its paths begin with; they reach it as they are. Left out: the whole host.", None
    )
    upstream: Annotated[str, urls.PAGE] = field(
        "Where Envoy finds it. It is sent the public name as Host."
    )
    socket: Annotated[Unix, value_types.UPSTREAM_SOCKET] | None = field(
        "The Unix socket that Envoy connects to, in place of the host and port of `upstream`.",
        None,
    )
    groups: NonEmpty[Annotated[str, value_types.GROUP]] | None = field(
        "The person must be in one of them; left out: whoever can log in.", None
    )
    second_factor: InAWord[SecondFactorConfig | None] = field(
        "`any`, `totp`, `none` or a mapping; the log-in is what proves it.", None
    )


RuleConfig = ServerConfig | OperationConfig


def approval_of(rule: RuleConfig) -> ApprovalConfig | None:
    """Return the approval that a rule asks for; None where none is."""
    return rule.approve if isinstance(rule, ArgumentRuleConfig) else None


def _every(rule: OperationConfig) -> Iterator[RuleConfig]:
    """Yield a pattern's rule, and the further ones for the same pattern."""
    yield rule
    if isinstance(rule, ToolConfig):
        yield from rule.also


class Config(Section):
    """The configuration of authz: issuer, gateway and servers; everything else has a default."""

    issuer: IssuerConfig = field("Who signs access tokens.")
    gateway: GatewayConfig = field("The address that clients know.")
    front_door: FrontDoorConfig | None = field(
        "The log-in that MCP clients see; left out, clients log in at the issuer and there are "
        "no step-ups.",
        None,
    )
    redis: RedisConfig = field("Where limits, revocations and step-ups are kept.", {})
    clients: FrozenMap[ClientId, ClientConfig] = field(
        "What is known of clients, by client id. Where any is named, others are refused, unless "
        "they come by the front door; `default` says which `scopes` these may have at most.",
        {},
        examples=[{"claude": {"scopes": ["mcp:files"]}}],
    )
    servers: NonEmptyMap[Annotated[str, value_types.SERVER_NAME], ServerConfig] = field(
        "The MCP servers, by name.",
        examples=[{"files": {"upstream": "http://files:8000/mcp"}}],
    )
    pages: FrozenMap[Annotated[str, value_types.SERVER_NAME], PageConfig] = field(
        "Web interfaces for people (Grafana, Prometheus, …) behind the same log-in, by name. "
        "Needs `front_door`.",
        {},
        examples=[
            {
                "grafana": {
                    "host": "grafana.example.com",
                    "upstream": "http://grafana:3000",
                    "groups": ["admins"],
                    "second_factor": "totp",
                }
            }
        ],
    )
    scopes: FrozenMap[Scope, Annotated[str, value_types.SENTENCE]] = field(
        "What scopes mean, a few words for each: the consent page shows them to the person, with "
        "the tools that the scope opens.",
        {},
        examples=[{"mcp:files": "read your files"}],
    )
    limits: tuple[LimitConfig, ...] = field("Charged on every request, whatever the server.", [])
    telemetry: TelemetryConfig = field("What is told about decisions.", {})
    notify: FrozenMap[Annotated[str, value_types.TARGET_NAME], NotifyTargetConfig] = field(
        "Services that tell people of security events at once, by a name of yours; eight at most.",
        {},
        examples=[{"phone": {"form": "ntfy", "url": "https://ntfy.example.com/authz"}}],
    )
    audit: AuditOr[AuditConfig] = field("What is kept of decisions; `off` for `{to: off}`.", {})
    console: ConsoleConfig | None = field(
        "The console for operators (docs/console.md); left out, there is none.",
        None,
        examples=[{"groups": ["admins"]}],
    )
    service: ServiceConfig = field("The process that decides.", {})

    @property
    def login(self) -> Login:
        """Return where clients log in unless their own entry says otherwise."""
        return self.issuer.login or ("direct" if self.front_door is None else "front_door")

    @property
    def default_client(self) -> ClientConfig | None:
        """Return what narrows clients that come by the front door and are not configured."""
        return self.clients.get(DEFAULT)

    @property
    def named(self) -> Mapping[str, ClientConfig]:
        """Return the clients that are configured, `default` not among them."""
        return {name: client for name, client in self.clients.items() if name != DEFAULT}

    def login_of(self, name: str) -> Login:
        """Return where a configured client logs in; one without a person never by the door."""
        client = self.clients[name]
        return "direct" if client.machine else client.login or self.login

    @property
    def direct(self) -> Mapping[str, ClientConfig]:
        """Return the configured clients that log people in at the issuer itself."""
        return {
            name: client
            for name, client in self.named.items()
            if not client.machine and self.login_of(name) == "direct"
        }

    @property
    def strangers(self) -> ClientConfig | None:
        """Return what is known of clients that are not configured; None where no door takes any."""
        door = self.front_door
        if door is None or self.login == "direct":
            return None
        if not door.registration and door.metadata_hosts == ():
            return None
        return self.default_client or ClientConfig.model_validate({})

    @property
    def logs_in(self) -> bool:
        """Tell whether anybody logs in at the front door."""
        if self.front_door is None:
            return False
        return self.login == "front_door" or any(
            self.login_of(name) == "front_door" for name in self.named
        )

    @property
    def shares_origin(self) -> bool:
        """Tell whether Envoy serves the issuer's portal on the gateway's own origin."""
        issuer, gateway = urls.split(self.issuer.url), urls.split(self.gateway.url)
        return self.issuer.serve and (issuer.host, issuer.port) == (gateway.host, gateway.port)

    @property
    def asks_approvals(self) -> bool:
        """Tell whether a tool asks that people approve its calls."""
        return any(approval_of(target.rule) is not None for target in self.targets())

    @property
    def counted_claims(self) -> tuple[str, ...]:
        """Return the claims that limits count by, each once."""
        lists = (self.limits, *(target.rule.limits or () for target in self.targets()))
        names = [limit.per.claim for limits in lists for limit in limits if limit.per.claim]
        return tuple(sorted(set(names)))

    def resource(self, name: str) -> str:
        """Return a server's public URL: the audience of its tokens, compared as a string."""
        return self.servers[name].resource or f"{self.gateway.url}/{name}"

    def page_url(self, name: str) -> str:
        """Return the URL of a page: its host with the gateway's scheme and port, and its path."""
        page, gateway = self.pages[name], urls.split(self.gateway.url)
        origin = gateway._replace(host=page.host, path="")
        return f"{origin.scheme}://{origin.authority}{page.path or ''}"

    def targets_of(self, server: str) -> Iterator[RuleTarget[RuleConfig]]:
        """Yield every rule of a server: its own, then those of its operations."""
        found = self.servers[server]
        rule: RuleConfig = found
        patterns = {
            kind: [(pattern, each) for pattern, first in rules.items() for each in _every(first)]
            for kind, rules in found.operations.items()
        }
        return rule_targets(server, rule, patterns)

    def targets(self) -> Iterator[RuleTarget[RuleConfig]]:
        """Yield every rule of every server."""
        for name in self.servers:
            yield from self.targets_of(name)

    def token_kinds(self, server: str) -> frozenset[str]:
        """Return the kinds of tokens that a server accepts."""
        default = ("jwt",) if self.issuer.introspection is None else ("jwt", "opaque")
        return frozenset(self.servers[server].tokens or default)

    def scopes_of(self, *servers: str) -> list[str]:
        """Return the scopes that servers and their operations ask for, in the file's order."""
        targets = (target for name in servers for target in self.targets_of(name))
        return list(dict.fromkeys(scope for target in targets for scope in target.rule.scopes))
