"""The catalogue of refusals: one row holds all that is reported and sent for a reason.

A new refusal is one row here, or one `Detail` of an existing reason (docs/reasons.md is generated
from this table). In `fix`, `fields` and diagnoses `<server>`, `<client>` and `<pattern>` stand for
names that the caller of `fill_in` knows.

Invariant: every field that a row names is one of authz.yaml (tests/core/test_reason.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from authz.core.detail import AUTHELIA_CLIENT, DIAGNOSES, Diagnosis

_CALLER: Final = "nothing here: the program that sends the request has to be mended"
_LOG_IN: Final = "log in again with the client (a direct one: `authz login`)"

# JSON-RPC keeps -32768..-32000 for itself and MCP, so codes of ours lie above it.
_OWN: Final = -31000

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
HEADER_MISMATCH: Final = -32020  # MCP 2026-07-28
INVALID_PARAMS: Final = -32602
UNSUPPORTED_PROTOCOL_VERSION: Final = -32022  # MCP 2026-07-28
URL_ELICITATION_REQUIRED: Final = -32042  # MCP 2025-11-25; in place of a row's own, never in one


@dataclass(frozen=True, slots=True)
class RefusalRow:
    """Define what one reason means to each audience.

    Attributes:
        label: the metric label, the log field and the test id; snake_case, stable.
        status: the HTTP status of the refusal.
        error: the RFC 6750 / RFC 9470 error code of the challenge; None where there is none.
        code: the JSON-RPC error code of the body.
        sentence: what a person reads, what to do next included.
        meaning: what happened, for the operator.
        fix: what the operator can do, and where.
        fields: the fields of authz.yaml that decide it; none where none does.
        diagnosis: of `authz doctor` for a token that is refused so; None where the sentence is
            enough.
        of_operation: whether it concerns the operation alone, so that the session goes on: such a
            refusal of an authenticated request is a JSON-RPC response with HTTP 200
            (docs/decisions/0011).
        get_status: the HTTP status of the refusal of a GET, where it is another one; else 0.
    """

    label: str
    status: int
    error: str | None
    code: int
    sentence: str
    meaning: str
    fix: str
    fields: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None
    of_operation: bool = False
    get_status: int = 0


class Reason(Enum):
    """Name why a request was refused."""

    # --- the shape of the request -----------------------------------------------------------
    METHOD_NOT_ALLOWED = RefusalRow(
        "method_not_allowed",
        405,
        None,
        _OWN - 1,
        "MCP is spoken with POST, GET and DELETE only.",
        meaning=(
            "The HTTP method is none of MCP's, or it is GET or DELETE where the server takes no "
            "protocol with sessions."
        ),
        fix="let the client speak a version that the server accepts, or accept an older one",
        fields=("servers.<server>.versions",),
    )
    MALFORMED_REQUEST = RefusalRow(
        "malformed_request",
        400,
        None,
        INVALID_REQUEST,
        "The HTTP request is malformed.",
        meaning="The HTTP request is odd; `detail` says how.",
        fix=_CALLER,
    )
    FOREIGN_ORIGIN = RefusalRow(
        "foreign_origin",
        403,
        None,
        _OWN - 2,
        "Requests from this web origin are not accepted. "
        "The operator can add it to gateway.origins.",
        meaning="A web page of an origin that is not allowed sent it.",
        fix="add the origin, to the letter, if the page is one of yours",
        fields=("gateway.origins",),
    )
    UNSUPPORTED_MEDIA_TYPE = RefusalRow(
        "unsupported_media_type",
        415,
        None,
        _OWN - 3,
        "The body must be uncompressed application/json in UTF-8.",
        meaning="The body is not plain application/json in UTF-8, or it is compressed.",
        fix=_CALLER,
    )
    BODY_MISSING = RefusalRow(
        "body_missing",
        400,
        None,
        INVALID_REQUEST,
        "A POST to an MCP server needs its complete JSON-RPC message as body.",
        meaning="A POST came without its whole body.",
        fix=(
            "where every POST ends so: Envoy's route does not buffer bodies (with_request_body); "
            "render it anew with `authz envoy-config`"
        ),
    )
    BODY_TOO_LARGE = RefusalRow(
        "body_too_large",
        413,
        None,
        INVALID_REQUEST,
        "The message is larger than this gateway accepts.",
        meaning="The message is longer than allowed.",
        fix="raise the limit, and render Envoy's configuration anew",
        fields=("gateway.max_body",),
    )
    MALFORMED_JSON = RefusalRow(
        "malformed_json",
        400,
        None,
        PARSE_ERROR,
        "The body is not one strict JSON document.",
        meaning="The body is not one strict JSON document: broken, or with a member twice.",
        fix=_CALLER,
    )
    JSON_TOO_DEEP = RefusalRow(
        "json_too_deep",
        400,
        None,
        INVALID_REQUEST,
        "The message is nested more deeply than this gateway reads. "
        "The operator can raise gateway.max_json_depth.",
        meaning="The body is JSON nested more deeply than allowed.",
        fix="raise the bound, if honest calls are so deep",
        fields=("gateway.max_json_depth",),
    )
    JSON_TOO_COSTLY = RefusalRow(
        "json_too_costly",
        413,
        None,
        INVALID_REQUEST,
        "The message has more numbers, members and lists than this gateway reads at once. "
        "The operator can raise gateway.max_json_work.",
        meaning=(
            "Reading the body would take longer than allowed, by an estimate from its size and its "
            "numbers, members and lists."
        ),
        fix="raise the bound, if honest calls are so large",
        fields=("gateway.max_json_work",),
    )
    BATCH = RefusalRow(
        "batch",
        400,
        None,
        INVALID_REQUEST,
        "JSON-RPC batches are not accepted; send one message per request.",
        meaning="The body is a list of messages.",
        fix=_CALLER,
    )
    INVALID_MESSAGE = RefusalRow(
        "invalid_message",
        400,
        None,
        INVALID_REQUEST,
        "The body is not a valid JSON-RPC message of MCP.",
        meaning="The body is JSON and no message of MCP; `detail` says what is odd.",
        fix=_CALLER,
    )
    HEADER_MISMATCH = RefusalRow(
        "header_mismatch",
        400,
        None,
        HEADER_MISMATCH,
        "The MCP headers are missing or do not say what the body says.",
        meaning=(
            "Mcp-Method, Mcp-Name or MCP-Protocol-Version is missing or says something else than "
            "the body: a defect of the client, or of a proxy before Envoy that drops headers. "
            "Where a rule has `when`, the same of Mcp-Param-* and the arguments."
        ),
        fix=_CALLER,
    )
    VERSION_MISSING = RefusalRow(
        "version_missing",
        400,
        None,
        INVALID_PARAMS,
        "A request of MCP 2026-07-28 needs its protocol version in params._meta.",
        meaning="The header says 2026-07-28, and `params._meta` names no protocol version.",
        fix=_CALLER,
    )
    UNSUPPORTED_VERSION = RefusalRow(
        "unsupported_version",
        400,
        None,
        UNSUPPORTED_PROTOCOL_VERSION,
        "This server does not accept that MCP protocol version.",
        meaning="The message is of an MCP protocol version that the server does not accept.",
        fix="accept the version, if the server behind speaks it",
        fields=("servers.<server>.versions",),
    )
    # --- the server -------------------------------------------------------------------------
    UNKNOWN_SERVER = RefusalRow(
        "unknown_server",
        404,
        None,
        _OWN - 10,
        "There is no MCP server at this address.",
        meaning="Envoy's route names a server that authz.yaml does not.",
        fix="render Envoy's configuration anew with `authz envoy-config`, and reload both",
        fields=("servers",),
    )
    # To the client its session is not there: MCP, "Session Management", has 404 for that, and
    # the client begins a new one.
    SESSION_OF_ANOTHER = RefusalRow(
        "session_of_another",
        404,
        None,
        _OWN - 11,
        "This session is not yours. Start a new one (initialize).",
        meaning=(
            "The Mcp-Session-Id is in use by another person, machine or client. A client that went "
            "on with its session after somebody else logged in begins a new one; where many are "
            "refused so, somebody tries ids that are not theirs."
        ),
        fix="nothing, as a rule; a server that gives two callers one id has to be mended",
        fields=("servers.<server>.session_lifetime",),
    )
    # The rules are for one upstream: those of another one must not open it, or close it to those
    # whom they admit (decision 23).
    ROUTE_OUTDATED = RefusalRow(
        "route_outdated",
        503,
        None,
        _OWN - 12,
        "The address behind this server is being changed. Try again in a moment.",
        meaning=(
            "Envoy's route leads to another upstream than authz.yaml names for the server: one of "
            "both has not followed a change yet, and these rules are not for that upstream."
        ),
        fix=(
            "wait a moment after a reload; where it stays so, write Envoy's configuration anew "
            "with `authz envoy-config`, and see with `authz doctor` what Envoy refused"
        ),
        fields=("servers.<server>.upstream",),
    )
    # --- the session of a browser -----------------------------------------------------------
    SESSION_MISSING = RefusalRow(
        "session_missing",
        401,
        None,
        _OWN - 13,
        "Log in first: open this address in a browser.",
        meaning=(
            "The browser has no session for this page, or it has ended. Whoever opens the page is "
            "sent to log in."
        ),
        fix="nothing: people log in; programs have no way in, whatever token they send",
        fields=("front_door.page_session", "front_door.page_recheck"),
    )
    SESSION_REVOKED = RefusalRow(
        "session_revoked",
        401,
        None,
        _OWN - 14,
        "Your log-in was ended here. Log in again.",
        meaning="The person, or everything of the session's age, was revoked here.",
        fix="`authz revoke --list` shows by what; log in again where that is allowed",
    )
    UNKNOWN_PAGE = RefusalRow(
        "unknown_page",
        404,
        None,
        _OWN - 15,
        "There is no such page at this address.",
        meaning="Envoy's route names a page that authz.yaml does not, or a path that is not its.",
        fix="render Envoy's configuration anew with `authz envoy-config`, and reload both",
        fields=("pages",),
    )
    CROSS_SITE = RefusalRow(
        "cross_site",
        403,
        None,
        _OWN - 4,
        "This came from a page of another site.",
        meaning=(
            "A browser sent it with a person's session, for a page of another origin: a form, a "
            "script, a frame or a WebSocket. `detail` says what told."
        ),
        fix="nothing: open the page itself; a proxy in between must not drop Origin",
    )
    # --- the token --------------------------------------------------------------------------
    TOKEN_MISSING = RefusalRow(
        "token_missing",
        401,
        None,
        _OWN - 20,
        "Log in first: this server needs an access token.",
        meaning=(
            "There was no bearer token. Every client begins so: it reads the challenge and logs in."
        ),
        fix=f"nothing, if the client then logs in; else {_LOG_IN} and try with that token",
    )
    TOKEN_IN_QUERY = RefusalRow(
        "token_in_query",
        401,
        "invalid_token",
        _OWN - 21,
        "Send the access token in the Authorization header, never in the address.",
        meaning="The token stood in the address, where logs and histories keep it.",
        fix="revoke that token, and let the client send it in the Authorization header",
    )
    TOKEN_MALFORMED = RefusalRow(
        "token_malformed",
        401,
        "invalid_token",
        _OWN - 22,
        "The Authorization header does not hold one well-formed bearer token.",
        meaning="The Authorization header holds several, oddly written or over-long credentials.",
        fix=_CALLER,
    )
    TOKEN_WRONG_KIND = RefusalRow(
        "token_wrong_kind",
        401,
        "invalid_token",
        _OWN - 23,
        "That is not an access token. Send the access token, "
        "not the refresh token, the code or the ID token.",
        meaning="A refresh token, a code or an ID token was sent in place of the access token.",
        fix="let the client send the member access_token of the token answer",
        diagnosis=Diagnosis(
            "wrong_kind",
            "it is no access token",
            "give the member access_token of the token answer, not refresh_token, id_token or the "
            "code",
        ),
    )
    TOKEN_OPAQUE = RefusalRow(
        "token_opaque",
        401,
        "invalid_token",
        _OWN - 24,
        "Opaque access tokens are not accepted here. The operator can let Authelia sign them: "
        "access_token_signed_response_alg: RS256 for this client.",
        meaning=(
            "The token is opaque, and the server or tool takes signed ones, or nobody is "
            "configured to ask about opaque ones."
        ),
        fix=f"access_token_signed_response_alg: RS256 in {AUTHELIA_CLIENT}; or let authz ask",
        fields=(
            "issuer.introspection",
            "servers.<server>.tokens",
            "servers.<server>.tools.<pattern>.tokens",
        ),
        diagnosis=Diagnosis(
            "opaque",
            "it is opaque, where a signed one is expected",
            f"access_token_signed_response_alg: RS256 in {AUTHELIA_CLIENT}, then log in again; "
            "or issuer.introspection in authz.yaml",
        ),
    )
    TOKEN_INVALID = RefusalRow(
        "token_invalid",
        401,
        "invalid_token",
        _OWN - 25,
        "The access token is not valid. Log in again.",
        meaning=(
            "The token does not verify; `detail` says at what: another issuer, an unknown key, a "
            "broken signature, a claim that is not as it must be, or not active any more."
        ),
        fix=f"{_LOG_IN}; if that helps nothing, `authz doctor --token-file FILE` looks closer",
        fields=("issuer.url", "issuer.internal", "issuer.algorithms", "issuer.max_lifetime"),
        diagnosis=Diagnosis(
            "invalid",
            "it does not verify: <detail>",
            "get a new one from Authelia",
        ),
    )
    TOKEN_EXPIRED = RefusalRow(
        "token_expired",
        401,
        "invalid_token",
        _OWN - 26,
        "The access token has expired. Refresh it or log in again.",
        meaning="The token was good and has expired.",
        fix=(
            f"refresh it, or {_LOG_IN}; how long tokens live is "
            "identity_providers.oidc.lifespans.access_token at Authelia"
        ),
        diagnosis=Diagnosis(
            "expired",
            "it has expired",
            "refresh it, or log in again",
        ),
    )
    AUDIENCE_MISMATCH = RefusalRow(
        "audience_mismatch",
        401,
        "invalid_token",
        _OWN - 27,
        "The access token was not made for this server. Log in again for it.",
        meaning="The token was made for another server, or for none.",
        fix=(
            "the client has to send the server's URL, to the letter, as `resource`, and `audience` "
            f"of {AUTHELIA_CLIENT} has to name it; where it does and the token is for none, "
            "Authelia forgets `resource` (4.39.21 and 4.39.22): log in by the front door, or use "
            "4.39.20"
        ),
        fields=("gateway.url", "servers.<server>.resource"),
        diagnosis=Diagnosis(
            "empty_audience",
            "its audience is empty: the client named no `resource`, or Authelia forgot it "
            "(4.39.21 and 4.39.22 do)",
            "the client has to send `resource`; where it cannot, requested_audience_mode: "
            f"implicit in {AUTHELIA_CLIENT}. Where it does: let it log in by the front door, or "
            "use Authelia 4.39.20",
        ),
    )
    TOKEN_REVOKED = RefusalRow(
        "token_revoked",
        401,
        "invalid_token",
        _OWN - 28,
        "The access token was revoked. Log in again.",
        meaning=(
            "The token, its person, its client or everything of its age was revoked here, or it is "
            "not active at the issuer any more; `detail` says which."
        ),
        fix=_LOG_IN,
        fields=("servers.<server>.introspect", "issuer.introspection.confirm_age"),
        diagnosis=Diagnosis(
            "revoked",
            "it was revoked",
            "log in again",
        ),
    )
    TOKEN_SIGNED = RefusalRow(
        "token_signed",
        401,
        "invalid_token",
        _OWN - 29,
        "Only opaque access tokens are accepted here. The operator can leave "
        "access_token_signed_response_alg out for this client.",
        meaning="The token is signed, and the server or tool takes opaque ones only.",
        fix=(
            f"leave access_token_signed_response_alg out of {AUTHELIA_CLIENT}; or accept signed "
            "ones"
        ),
        fields=("servers.<server>.tokens", "servers.<server>.tools.<pattern>.tokens"),
        diagnosis=Diagnosis(
            "signed",
            "it takes opaque tokens only",
            "servers.<server>.tokens in authz.yaml",
        ),
    )
    LOG_IN_UNKNOWN = RefusalRow(
        "log_in_unknown",
        401,
        "invalid_token",
        _OWN - 35,
        "The log-in behind this access token is not known here any more. Log in again.",
        meaning=(
            "The token is signed for one of our own clients at Authelia, and the front door has no "
            "record of its log-in: it has ended, Redis has lost it, the token did not come from "
            "the front door, or the record is another person's."
        ),
        fix=(
            f"{_LOG_IN}; where many are refused so: whether Redis keeps what it is given "
            "(persistence, noeviction), and whether `authz pages` and `authz serve` share one "
            "redis.deployment"
        ),
        fields=("redis.url", "redis.deployment", "front_door.one_factor", "front_door.two_factor"),
    )
    FOREIGN_CLIENT = RefusalRow(
        "foreign_client",
        401,
        "invalid_token",
        _OWN - 36,
        "The access token is of a client that does not log in here. Log in through this gateway. "
        "The operator can name the client under clients, with login: direct.",
        meaning=(
            "The token is of a client of Authelia that neither came through the front door nor is "
            "named here as one that logs in at Authelia itself."
        ),
        fix=(
            "let it log in at the gateway; or name it with login: direct, or as a machine, if it "
            "may come past the front door"
        ),
        fields=("clients.<client>.login", "clients.<client>.machine"),
    )
    # --- people, clients, scopes ------------------------------------------------------------
    CLIENT_NOT_ALLOWED = RefusalRow(
        "client_not_allowed",
        403,
        None,
        _OWN - 30,
        "This client may not use this server. The operator can name it under clients.",
        of_operation=True,
        meaning=(
            "Clients are named, and this one is not among them; or the front door does not take "
            "clients of its kind any more."
        ),
        fix=(
            "name it, if it may come; of the front door: let clients register, or its host's "
            "documents be taken"
        ),
        fields=("clients", "front_door.registration", "front_door.metadata_hosts"),
        diagnosis=Diagnosis(
            "unknown_client",
            "authz.yaml does not name the client <client>",
            "name it under clients",
        ),
    )
    MACHINE_NOT_ALLOWED = RefusalRow(
        "machine_not_allowed",
        403,
        None,
        _OWN - 31,
        "A client without a person may not do this.",
        of_operation=True,
        meaning=(
            "The token has no person (client_credentials), and this is not open to its client; or "
            "the tool asks for a person."
        ),
        fix=(
            "declare the client a machine and name it at the server; a tool with groups or a "
            "second factor stays closed to it"
        ),
        fields=("clients.<client>.machine", "servers.<server>.machines"),
        diagnosis=Diagnosis(
            "machine",
            "a client without a person",
            "machine: true at the client, and its name at servers.<server>.machines",
        ),
    )
    PERSON_NOT_ALLOWED = RefusalRow(
        "person_not_allowed",
        403,
        None,
        _OWN - 32,
        "You are not in a group that may do this.",
        of_operation=True,
        meaning=(
            "The person is in none of the groups that are asked for, or the token does not tell "
            "groups at all."
        ),
        fix=(
            "put the person into a group at Authelia; a token that tells none needs the "
            f"claims_policy that `authz authelia-config` prints, in {AUTHELIA_CLIENT}; then "
            f"{_LOG_IN}"
        ),
        fields=(
            "servers.<server>.groups",
            "servers.<server>.tools.<pattern>.groups",
            "pages.<page>.groups",
        ),
        diagnosis=Diagnosis(
            "not_in_group",
            "the person is in no group of <groups>",
            "put the person into the group at Authelia, or correct servers.<server>.groups",
        ),
    )
    TOOL_NOT_ALLOWED = RefusalRow(
        "tool_not_allowed",
        403,
        None,
        _OWN - 33,
        "This tool is not offered through this gateway.",
        of_operation=True,
        meaning="The server names its tools, and no pattern matches this one.",
        fix="add a rule for the tool, if it may be called",
        fields=("servers.<server>.tools",),
    )
    TOOL_CHANGED = RefusalRow(
        "tool_changed",
        403,
        None,
        _OWN - 38,
        "What the server says of this tool is not what was approved. List the tools and try again "
        "in a minute; if that does not help, ask the operator.",
        of_operation=True,
        meaning=(
            "The tool's definition (name, description, schema, annotations) is not the approved "
            "one, or the server has not listed it yet; `detail` says which."
        ),
        fix=(
            "look at what has changed: `authz tools <server> --diff`; approve it: `authz tools "
            "<server> --pin`, then reload. A tool that is not listed yet counts once somebody has "
            "listed the server's tools"
        ),
        fields=("servers.<server>.pins",),
    )
    PROMPT_NOT_ALLOWED = RefusalRow(
        "prompt_not_allowed",
        403,
        None,
        _OWN - 37,
        "This prompt is not offered through this gateway.",
        of_operation=True,
        meaning=(
            "The server names its prompts, and no pattern matches this one; or a completion does "
            "not say what it is about."
        ),
        fix="add a rule for the prompt, if it may be used",
        fields=("servers.<server>.prompts",),
    )
    RESOURCE_NOT_ALLOWED = RefusalRow(
        "resource_not_allowed",
        403,
        None,
        _OWN - 39,
        "This resource is not offered through this gateway.",
        of_operation=True,
        meaning=(
            "The server names its resources, and no pattern matches this URI; or the URI is not "
            "in its one strict spelling, in which patterns are compared."
        ),
        fix="add a rule for the resource, if it may be read",
        fields=("servers.<server>.resources",),
    )
    ARGUMENTS_NOT_ALLOWED = RefusalRow(
        "arguments_not_allowed",
        403,
        None,
        _OWN - 45,
        "This may not be called with these arguments through this gateway.",
        of_operation=True,
        meaning=(
            "Rules name the tool or prompt, and the conditions of none hold for these arguments; "
            "or a condition cannot be judged, since an argument is of another kind than it judges "
            "or could be read differently by the server."
        ),
        fix="ask `authz explain` which condition fails; add a rule for such arguments, if they may",
        fields=(
            "servers.<server>.tools.<pattern>.when",
            "servers.<server>.prompts.<pattern>.when",
        ),
    )
    METHOD_NOT_OFFERED = RefusalRow(
        "method_not_offered",
        403,
        None,
        METHOD_NOT_FOUND,
        "This method is not offered through this gateway.",
        of_operation=True,
        meaning=(
            "The server names its tools, and the method is none that MCP clients send: it could be "
            "another way to a tool that is not offered."
        ),
        fix="name the method at the server, if it leads to no tool and may be called",
        fields=("servers.<server>.methods", "servers.<server>.tools"),
    )
    INSUFFICIENT_SCOPE = RefusalRow(
        "insufficient_scope",
        403,
        "insufficient_scope",
        _OWN - 34,
        "The access token lacks a scope that this needs. Log in again and agree to it.",
        meaning="The token lacks a scope that is asked for, or its client may not use it.",
        fix=(
            "let the client ask for it, and its person not leave it out; it has to be in scopes "
            f"of {AUTHELIA_CLIENT}; then {_LOG_IN}"
        ),
        fields=(
            "servers.<server>.scopes",
            "servers.<server>.tools.<pattern>.scopes",
            "clients.<client>.scopes",
        ),
        diagnosis=Diagnosis(
            "missing_scope",
            "it lacks the scope <scopes>",
            f"log in again and agree to it; the scope has to be in scopes of {AUTHELIA_CLIENT}",
        ),
    )
    # --- the second factor ------------------------------------------------------------------
    SECOND_FACTOR_REQUIRED = RefusalRow(
        "second_factor_required",
        403,
        "insufficient_user_authentication",
        _OWN - 40,
        "This needs a log-in with a second factor.",
        of_operation=True,
        meaning=(
            "A second factor is asked for, and nothing that is accepted as evidence proves one."
        ),
        fix=(
            f"authorization_policy: two_factor in {AUTHELIA_CLIENT}, and then say so as the "
            "client's assurance; where a signed claim is asked for besides, have Authelia put it "
            "into the token"
        ),
        fields=(
            "clients.<client>.assurance",
            "issuer.assurance_claim",
            "servers.<server>.second_factor",
            "servers.<server>.tools.<pattern>.second_factor",
            "pages.<page>.second_factor",
        ),
        diagnosis=Diagnosis(
            "second_factor",
            "no second factor is proved",
            f"authorization_policy: two_factor in {AUTHELIA_CLIENT}, and then assurance: "
            "two_factor at clients.<client> in authz.yaml",
        ),
    )
    LOGIN_TOO_OLD = RefusalRow(
        "login_too_old",
        403,
        "insufficient_user_authentication",
        _OWN - 41,
        "This needs a more recent log-in.",
        of_operation=True,
        meaning=(
            "The second factor is proved, and the log-in is older than asked for, or its age "
            "cannot be told: a client's assurance has none."
        ),
        fix=f"{_LOG_IN}; or allow older log-ins",
        fields=(
            "servers.<server>.second_factor.max_login_age",
            "servers.<server>.tools.<pattern>.second_factor.max_login_age",
            "pages.<page>.second_factor.max_login_age",
        ),
    )
    # --- approvals --------------------------------------------------------------------------
    APPROVAL_REQUIRED = RefusalRow(
        "approval_required",
        403,
        None,
        _OWN - 42,
        "This call waits for the approval of the person that it is made for.",
        of_operation=True,
        meaning=(
            "The tool's rule asks for an approval, and there is none for this person, grant, "
            "server, tool and call, or it was used."
        ),
        fix=(
            "nothing: the person follows the link and approves, and the client repeats the call; "
            "where there is no link, the front door or its step_up is off"
        ),
        fields=("servers.<server>.tools.<pattern>.approve", "front_door.step_up"),
    )
    APPROVAL_DECLINED = RefusalRow(
        "approval_declined",
        403,
        None,
        _OWN - 43,
        "The person declined this call. Do not repeat it unless the person asks for it.",
        of_operation=True,
        meaning="The person was asked for an approval a moment ago, and declined.",
        fix="nothing: that is the person's word; after two minutes the call is offered again",
        fields=("servers.<server>.tools.<pattern>.approve",),
    )
    APPROVAL_IMPOSSIBLE = RefusalRow(
        "approval_impossible",
        403,
        None,
        _OWN - 44,
        "This call needs the approval of a person and cannot be shown to one. Make a smaller or "
        "plainer call: at most 16 KiB, no numbers beyond double precision, no broken Unicode.",
        of_operation=True,
        meaning=(
            "The tool's rule asks for an approval of each call, and this one cannot be shown to a "
            "person whole and unmistakably; `detail` says why."
        ),
        fix=f"{_CALLER}, or approve the tool for a time",
        fields=("servers.<server>.tools.<pattern>.approve",),
    )
    # --- limits -----------------------------------------------------------------------------
    RATE_LIMITED = RefusalRow(
        "rate_limited",
        429,
        None,
        _OWN - 50,
        "Too many requests. Wait as long as Retry-After says.",
        of_operation=True,
        meaning="A limit is exhausted; nothing was charged for this request.",
        fix="wait, or raise the limit",
        fields=("limits", "servers.<server>.limits", "servers.<server>.tools.<pattern>.limits"),
    )
    TOO_MANY_REFUSALS = RefusalRow(
        "too_many_refusals",
        429,
        None,
        _OWN - 51,
        "Too many refused requests. Wait as long as Retry-After says.",
        of_operation=True,
        meaning=(
            "So many requests of this address, or of this client and person, were refused that no "
            "more are looked at for a while."
        ),
        fix="look for the lines before: their reason is the one to mend; it ends by itself",
    )
    # A GET is told 405, by which MCP means that there is no stream to be had ("Listening for
    # Messages from the Server"): its session goes on in every official client.
    TOO_MANY_STREAMS = RefusalRow(
        "too_many_streams",
        429,
        None,
        _OWN - 52,
        "You have opened as many streams to this server as one person may. The session goes on "
        "without.",
        of_operation=True,
        get_status=405,
        meaning=(
            "The person has begun as many streams of notifications at this server as one person "
            "may hold; all else goes on."
        ),
        fix="wait, find out which client opens so many, or raise the number",
        fields=("gateway.streams_per_user", "gateway.stream_recheck"),
    )
    # --- faults of ours ---------------------------------------------------------------------
    ISSUER_UNAVAILABLE = RefusalRow(
        "issuer_unavailable",
        503,
        None,
        _OWN - 60,
        "The log-in service cannot be asked at the moment. Try again shortly.",
        of_operation=True,
        meaning=(
            "The issuer had to be asked (a new key, an opaque token) and did not answer in time."
        ),
        fix="look at the events `keys` and `introspection` of the log, and at Authelia",
        fields=("issuer.internal", "issuer.deadline"),
    )
    LEDGER_UNAVAILABLE = RefusalRow(
        "ledger_unavailable",
        503,
        None,
        _OWN - 61,
        "Limits and log-ins cannot be checked at the moment. Try again shortly.",
        of_operation=True,
        meaning="Redis did not answer, and what was asked cannot be answered without it.",
        fix="look at Redis, and at the event `fault` of the log",
        fields=("redis.url", "redis.mode", "redis.max_away"),
    )
    INTERNAL = RefusalRow(
        "internal",
        503,
        None,
        _OWN - 62,
        "The gateway could not decide. Try again shortly.",
        of_operation=True,
        meaning="A defect of ours: the request was refused because nobody could decide.",
        fix="look at the event `crash` of the log, and report it",
    )

    @property
    def row(self) -> RefusalRow:
        """Return the row of this reason."""
        row: RefusalRow = self.value
        return row

    @property
    def label(self) -> str:
        """Return the stable name for metrics, logs and tests."""
        return self.row.label


def diagnose(reason: Reason, detail: str) -> Diagnosis:
    """Return the diagnosis of a token that was refused, as specific as the detail is."""
    found = DIAGNOSES.get(detail) or reason.row.diagnosis
    return found or Diagnosis("refused", reason.row.sentence, detail or "see docs/reasons.md")


def fill_in(text: str, names: Mapping[str, str]) -> str:
    """Return a text or field with known names in place of `<server>` and the like."""
    for kind, name in names.items():
        text = text.replace(f"<{kind}>", name)
    return text
