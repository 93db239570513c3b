"""What Envoy's response code details and flags mean, for answers that Envoy made by itself.

Source: Envoy's `StreamInfo::ResponseCodeDetails`, the codecs' details, and %RESPONSE_FLAGS% (access
log, command operators).
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ResponseCause:
    """Describe why Envoy answered by itself, or did not answer.

    Attributes:
        name: short, for programs.
        meaning: one or two sentences.
        fix: what to do.
        details: how %RESPONSE_CODE_DETAILS% begins, each of them.
        flags: of %RESPONSE_FLAGS%, each of them alone is enough.
    """

    name: str
    meaning: str
    fix: str
    details: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()


_REACH: Final = (
    "look whether the server runs and `servers.<server>.upstream` is its address; `authz doctor` "
    "asks it"
)
DENIED: Final = ResponseCause(
    "denied_by_authz", "authz refused the request; Envoy passed its answer on.",
    "look for the decision with the same request id in the log of `authz serve`",
    details=("ext_authz_denied",),
)  # fmt: skip
PASSED_ON: Final = ResponseCause(
    "passed_on", "The answer is not Envoy's: whatever stands behind the route gave it.",
    "look into the log of that server; for the log-in, of `authz pages` or Authelia",
    details=("via_upstream",),
)  # fmt: skip
FIXED: Final = ResponseCause(
    "fixed_answer", "A fixed answer of the gateway's own configuration: a document, a redirect, a "
    "page, or an endpoint that is closed on purpose.",
    "nothing, unless the client should have asked for another address",
    details=("direct_response", "cors_response"),
)  # fmt: skip
# The filter that answers in a server's place gives no details.
REFUSED_ANSWER: Final = ResponseCause(
    "server_answer_refused", "The server answered with a redirect, or asked for credentials of its "
    "own, which no client of the gateway can follow.",
    "look whether `servers.<server>.upstream` has the server's exact path, and whether the server "
    "does its own authentication; turn that off there",
)  # fmt: skip
UNKNOWN: Final = ResponseCause(
    "unknown", "Envoy ended the request by itself, for a cause that this version has no words for.",
    "Envoy's documentation of response code details and response flags names it",
)  # fmt: skip
# The first that fits. Details before flags: they are more specific.
CAUSES: Final = (
    DENIED,
    PASSED_ON,
    FIXED,
    REFUSED_ANSWER,
    ResponseCause(
        "no_route", "The gateway has no route for this host and path.",
        "use the server's URL as `authz client-config` prints it, with host and port of "
        "`gateway.url`, which a proxy in front has to pass on; a server that was just added needs "
        "its route in Envoy",
        ("route_not_found",), frozenset({"NR"}),
    ),
    ResponseCause(
        "http_version", "The client spoke HTTP/1.0 or older.",
        "a client or a proxy in front has to speak HTTP/1.1 or HTTP/2", ("low_version",),
    ),
    ResponseCause(
        "headers_timeout", "The headers of the request did not arrive within five seconds.",
        "look at the network between client and gateway", ("request_header_timeout",),
    ),
    ResponseCause(
        "request_timeout", "The body of the request did not arrive in time.",
        "look at the network between client and gateway, or raise `gateway.request_timeout`",
        ("request_overall_timeout",),
    ),
    ResponseCause(
        "idle_timeout", "Nothing was sent in either direction for too long.",
        "look why client or server fell silent", ("stream_idle_timeout",), frozenset({"SI"}),
    ),
    ResponseCause(
        "stream_maximum", "The request or stream lasted as long as one may.",
        "clients open a new stream by themselves; `gateway.max_stream` says how long one may last",
        ("max_duration_timeout", "duration_timeout", "upstream_max_stream_duration_reached"),
        frozenset({"DT", "UMSDR"}),
    ),
    ResponseCause(
        "body_too_large", "The body of the request is larger than `gateway.max_body`.",
        "send less, or raise `gateway.max_body`", ("request_payload_too_large",),
    ),
    ResponseCause(
        "answer_too_large", "The answer of the server is larger than what the gateway may hold.",
        "let the server list less at once (pagination)", ("response_payload_too_large",),
    ),
    ResponseCause(
        "headers_too_large", "The headers are larger than 32 KiB, or more than a hundred.",
        "mostly cookies, or a token with many claims: send less",
        (
            "http1.headers_too_large", "http1.too_many_headers", "http2.too_many_headers",
            "http2.header_list_size_too_large", "http2.cookies_total_bytes_too_large",
        ),
    ),
    ResponseCause(
        "rate_limited_at_the_edge",
        "One address sent more than it may, and Envoy refused it before authz was asked.",
        "wait, or raise `gateway.address_rate` (no token), `gateway.address_calls` (with one) or "
        "`gateway.address_passwords` (Authelia's portal); many people behind one address share it",
        ("local_rate_limited",), frozenset({"RL"}),
    ),
    ResponseCause(
        "overloaded", "Envoy has not enough memory or connections left, and refuses work.",
        "give Envoy's container more memory; look who sends so much in its access log",
        ("overload",), frozenset({"OM", "DO"}),
    ),
    ResponseCause(
        "list_filter", "authz was to leave out of a list what the caller may not use, and did not "
        "answer in time, or at all; nothing of the list was shown.",
        "look for `list_not_shown` with the same request id in the log of `authz serve`",
        ("ext_proc",),
    ),
    ResponseCause(
        "malformed_path", "The path is none that the gateway takes: it has an encoded slash, or "
        "cannot be normalised.",
        "use the server's URL as `authz client-config` prints it",
        ("path_normalization_failed", "missing_path_rejected", "absolute_path_rejected"),
    ),
    ResponseCause(
        "no_host", "The request names no host.", "a client or a proxy in front has to send one",
        ("missing_host_header",),
    ),
    ResponseCause(
        "underscore", "The name of a header has an underscore, which servers take for a hyphen.",
        "let the client, or the proxy in front, send no such header",
        ("http1.unexpected_underscore", "http2.unexpected_underscore"),
    ),
    ResponseCause(
        "upgrade_refused", "The request asks for another protocol, such as WebSocket.",
        "MCP needs none: look at the client's transport setting", ("upgrade_failed",),
    ),
    ResponseCause(
        "server_certificate_refused",
        "Envoy does not trust the certificate of the server: another authority signed it, it is "
        "for another name, or it has ended.",
        "`authz doctor` says which; a private authority's own certificate belongs into the file "
        "that `servers.<server>.upstream_ca` names",
        # BoringSSL's number of CERTIFICATE_VERIFY_FAILED.
        (
            "upstream_reset_before_response_started{remote_connection_failure|TLS_error:|268435581:",
        ),
    ),
    ResponseCause(
        "server_connection_failed",
        "No connection to the server could be made: nobody listens there, or TLS failed.",
        _REACH, (
            "upstream_reset_before_response_started{connection_failure",
            "upstream_reset_before_response_started{remote_connection_failure",
            "upstream_reset_before_response_started{local_connection_failure",
        ), frozenset({"UF"}),
    ),
    ResponseCause(
        "server_overflow", "As many requests as may be are under way to the server.",
        "the server is too slow or stands still; look at it, and at `servers.<server>`",
        ("upstream_reset_before_response_started{overflow",), frozenset({"UO"}),
    ),
    ResponseCause(
        "server_timeout", "The server did not begin to answer in time.",
        "look why it is slow", ("response_timeout", "upstream_per_try_timeout"), frozenset({"UT"}),
    ),
    ResponseCause(
        "server_spoke_no_http", "What the server answered is no valid HTTP.",
        "look whether `servers.<server>.upstream` names the right port, and http or https",
        ("upstream_reset_before_response_started{protocol_error",), frozenset({"UPE"}),
    ),
    ResponseCause(
        "server_closed", "The server closed the connection before its answer was whole.",
        "look into the server's log: it crashed or restarted; its keep-alive may be too short",
        ("upstream_reset_before_response_started", "upstream_reset_after_response_started"),
        frozenset({"UC", "UR"}),
    ),
    ResponseCause(
        "server_missing", "Envoy knows no address of the server that answers.", _REACH,
        ("no_healthy_upstream", "cluster_not_found"), frozenset({"UH", "NC", "DF"}),
    ),
    ResponseCause(
        "client_gone", "The client closed the connection before the answer was whole.",
        "look into the client: it gave up, or a proxy in front has a shorter time-out",
        ("downstream_remote_disconnect", "http2.remote_reset", "http2.remote_refuse"),
        frozenset({"DC", "DR"}),
    ),
    ResponseCause(
        "gateway_closed", "Envoy closed the connection: it stops, or took a new configuration.",
        "the client connects again by itself", ("downstream_local_disconnect",),
    ),
    ResponseCause(
        "malformed_request", "The request is no valid HTTP.",
        "look at the client, or the proxy in front of the gateway", ("http1.", "http2."),
        frozenset({"DPE", "IH"}),
    ),
    ResponseCause(
        "authz_unavailable", "authz did not answer whether the request is allowed, or Envoy could "
        "not reach it. Without an answer nothing passes.",
        "look whether `authz serve` runs and is ready (`/readyz`), and into its log",
        ("ext_authz_error",), frozenset({"UAEX"}),
    ),
)  # fmt: skip


def cause_of(details: str, flags: str) -> ResponseCause:
    """Return what details and flags of one line of the access log say."""
    if not details:
        return REFUSED_ANSWER
    for cause in CAUSES:
        if any(details.startswith(each) for each in cause.details):
            return cause
    said = frozenset(flags.split(","))
    return next((cause for cause in CAUSES if cause.flags & said), UNKNOWN)
