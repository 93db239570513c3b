"""The one table of refusals.

Law: whatever is refused is refused for one of these reasons, and everything that depends on the
reason (HTTP status, OAuth error, JSON-RPC code, metric label, sentence) is read from its row here.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

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
    """State what one reason means to each audience.

    Attributes:
        label: the metric label, the log field and the test id; snake_case, stable.
        status: the HTTP status of the refusal.
        error: the RFC 6750 / RFC 9470 error code of the challenge; None where there is none.
        code: the JSON-RPC error code of the body.
        sentence: what a person reads, what to do next included.
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
    )
    MALFORMED_REQUEST = RefusalRow(
        "malformed_request",
        400,
        None,
        INVALID_REQUEST,
        "The HTTP request is malformed.",
    )
    FOREIGN_ORIGIN = RefusalRow(
        "foreign_origin",
        403,
        None,
        _OWN - 2,
        "Requests from this web origin are not accepted. "
        "The operator can add it to gateway.origins.",
    )
    UNSUPPORTED_MEDIA_TYPE = RefusalRow(
        "unsupported_media_type",
        415,
        None,
        _OWN - 3,
        "The body must be uncompressed application/json in UTF-8.",
    )
    BODY_MISSING = RefusalRow(
        "body_missing",
        400,
        None,
        INVALID_REQUEST,
        "A POST to an MCP server needs its complete JSON-RPC message as body.",
    )
    BODY_TOO_LARGE = RefusalRow(
        "body_too_large",
        413,
        None,
        INVALID_REQUEST,
        "The message is larger than this gateway accepts.",
    )
    MALFORMED_JSON = RefusalRow(
        "malformed_json",
        400,
        None,
        PARSE_ERROR,
        "The body is not one strict JSON document.",
    )
    JSON_TOO_DEEP = RefusalRow(
        "json_too_deep",
        400,
        None,
        INVALID_REQUEST,
        "The message is nested more deeply than this gateway reads. "
        "The operator can raise gateway.max_json_depth.",
    )
    JSON_TOO_COSTLY = RefusalRow(
        "json_too_costly",
        413,
        None,
        INVALID_REQUEST,
        "The message has more numbers, members and lists than this gateway reads at once. "
        "The operator can raise gateway.max_json_work.",
    )
    BATCH = RefusalRow(
        "batch",
        400,
        None,
        INVALID_REQUEST,
        "JSON-RPC batches are not accepted; send one message per request.",
    )
    INVALID_MESSAGE = RefusalRow(
        "invalid_message",
        400,
        None,
        INVALID_REQUEST,
        "The body is not a valid JSON-RPC message of MCP.",
    )
    HEADER_MISMATCH = RefusalRow(
        "header_mismatch",
        400,
        None,
        HEADER_MISMATCH,
        "The MCP headers are missing or do not say what the body says.",
    )
    VERSION_MISSING = RefusalRow(
        "version_missing",
        400,
        None,
        INVALID_PARAMS,
        "A request of MCP 2026-07-28 needs its protocol version in params._meta.",
    )
    UNSUPPORTED_VERSION = RefusalRow(
        "unsupported_version",
        400,
        None,
        UNSUPPORTED_PROTOCOL_VERSION,
        "This server does not accept that MCP protocol version.",
    )
    # --- the server -------------------------------------------------------------------------
    UNKNOWN_SERVER = RefusalRow(
        "unknown_server",
        404,
        None,
        _OWN - 10,
        "There is no MCP server at this address.",
    )
    # To the client its session is not there: MCP, "Session Management", has 404 for that, and
    # the client begins a new one.
    SESSION_OF_ANOTHER = RefusalRow(
        "session_of_another",
        404,
        None,
        _OWN - 11,
        "This session is not yours. Start a new one (initialize).",
    )
    # --- the token --------------------------------------------------------------------------
    TOKEN_MISSING = RefusalRow(
        "token_missing",
        401,
        None,
        _OWN - 20,
        "Log in first: this server needs an access token.",
    )
    TOKEN_IN_QUERY = RefusalRow(
        "token_in_query",
        401,
        "invalid_token",
        _OWN - 21,
        "Send the access token in the Authorization header, never in the address.",
    )
    TOKEN_MALFORMED = RefusalRow(
        "token_malformed",
        401,
        "invalid_token",
        _OWN - 22,
        "The Authorization header does not hold one well-formed bearer token.",
    )
    TOKEN_WRONG_KIND = RefusalRow(
        "token_wrong_kind",
        401,
        "invalid_token",
        _OWN - 23,
        "That is not an access token. Send the access token, "
        "not the refresh token, the code or the ID token.",
    )
    TOKEN_OPAQUE = RefusalRow(
        "token_opaque",
        401,
        "invalid_token",
        _OWN - 24,
        "Opaque access tokens are not accepted here. The operator can let Authelia sign them: "
        "access_token_signed_response_alg: RS256 for this client.",
    )
    TOKEN_INVALID = RefusalRow(
        "token_invalid",
        401,
        "invalid_token",
        _OWN - 25,
        "The access token is not valid. Log in again.",
    )
    TOKEN_EXPIRED = RefusalRow(
        "token_expired",
        401,
        "invalid_token",
        _OWN - 26,
        "The access token has expired. Refresh it or log in again.",
    )
    AUDIENCE_MISMATCH = RefusalRow(
        "audience_mismatch",
        401,
        "invalid_token",
        _OWN - 27,
        "The access token was not made for this server. Log in again for it.",
    )
    TOKEN_REVOKED = RefusalRow(
        "token_revoked",
        401,
        "invalid_token",
        _OWN - 28,
        "The access token was revoked. Log in again.",
    )
    TOKEN_SIGNED = RefusalRow(
        "token_signed",
        401,
        "invalid_token",
        _OWN - 29,
        "Only opaque access tokens are accepted here. The operator can leave "
        "access_token_signed_response_alg out for this client.",
    )
    LOG_IN_UNKNOWN = RefusalRow(
        "log_in_unknown",
        401,
        "invalid_token",
        _OWN - 35,
        "The log-in behind this access token is not known here any more. Log in again.",
    )
    FOREIGN_CLIENT = RefusalRow(
        "foreign_client",
        401,
        "invalid_token",
        _OWN - 36,
        "The access token is of a client that does not log in here. Log in through this gateway. "
        "The operator can name the client under clients, with login: direct.",
    )
    # --- people, clients, scopes ------------------------------------------------------------
    CLIENT_NOT_ALLOWED = RefusalRow(
        "client_not_allowed",
        403,
        None,
        _OWN - 30,
        "This client may not use this server. The operator can name it under clients.",
        of_operation=True,
    )
    MACHINE_NOT_ALLOWED = RefusalRow(
        "machine_not_allowed",
        403,
        None,
        _OWN - 31,
        "A client without a person may not do this.",
        of_operation=True,
    )
    PERSON_NOT_ALLOWED = RefusalRow(
        "person_not_allowed",
        403,
        None,
        _OWN - 32,
        "You are not in a group that may do this.",
        of_operation=True,
    )
    TOOL_NOT_ALLOWED = RefusalRow(
        "tool_not_allowed",
        403,
        None,
        _OWN - 33,
        "This tool is not offered through this gateway.",
        of_operation=True,
    )
    METHOD_NOT_OFFERED = RefusalRow(
        "method_not_offered",
        403,
        None,
        METHOD_NOT_FOUND,
        "This method is not offered through this gateway.",
        of_operation=True,
    )
    INSUFFICIENT_SCOPE = RefusalRow(
        "insufficient_scope",
        403,
        "insufficient_scope",
        _OWN - 34,
        "The access token lacks a scope that this needs. Log in again and agree to it.",
    )
    # --- the second factor ------------------------------------------------------------------
    SECOND_FACTOR_REQUIRED = RefusalRow(
        "second_factor_required",
        403,
        "insufficient_user_authentication",
        _OWN - 40,
        "This needs a log-in with a second factor.",
        of_operation=True,
    )
    LOGIN_TOO_OLD = RefusalRow(
        "login_too_old",
        403,
        "insufficient_user_authentication",
        _OWN - 41,
        "This needs a more recent log-in.",
        of_operation=True,
    )
    # --- limits -----------------------------------------------------------------------------
    RATE_LIMITED = RefusalRow(
        "rate_limited",
        429,
        None,
        _OWN - 50,
        "Too many requests. Wait as long as Retry-After says.",
        of_operation=True,
    )
    TOO_MANY_REFUSALS = RefusalRow(
        "too_many_refusals",
        429,
        None,
        _OWN - 51,
        "Too many refused requests. Wait as long as Retry-After says.",
        of_operation=True,
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
    )
    # --- faults of ours ---------------------------------------------------------------------
    ISSUER_UNAVAILABLE = RefusalRow(
        "issuer_unavailable",
        503,
        None,
        _OWN - 60,
        "The log-in service cannot be asked at the moment. Try again shortly.",
        of_operation=True,
    )
    LEDGER_UNAVAILABLE = RefusalRow(
        "ledger_unavailable",
        503,
        None,
        _OWN - 61,
        "Limits and log-ins cannot be checked at the moment. Try again shortly.",
        of_operation=True,
    )
    INTERNAL = RefusalRow(
        "internal",
        503,
        None,
        _OWN - 62,
        "The gateway could not decide. Try again shortly.",
        of_operation=True,
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
