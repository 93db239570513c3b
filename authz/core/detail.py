"""The fixed texts that tell the cases of one `Reason` apart.

The text is what the decision log and `authz explain` show as `detail`; programs compare members.
Invariant: no text holds anything that a caller chose (tests/core/test_reason.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

AUTHELIA_CLIENT: Final = "the client's entry in Authelia's identity_providers.oidc.clients"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong with a token, for an operator (`authz doctor`).

    `<server>`, `<client>`, `<detail>` and the like stand for what the reader knows (`fill_in`).

    Attributes:
        name: a stable name, snake_case.
        message: what is wrong.
        fix: what to change, and where.
    """

    name: str
    message: str
    fix: str


class Detail(StrEnum):
    """The case, within a reason."""

    NONE = ""
    # --- the CheckRequest (authz/envoy/codec.py) --------------------------------------------
    NOT_A_CHECK_REQUEST = "not a CheckRequest"
    QUERY_OUTSIDE_PATH = "a query or fragment outside the path"
    PARTIAL_BODY = "Envoy sent a part of the body"
    NO_METHOD_OR_PATH = "no method or no path"
    PATH_NOT_ASCII = "the path is not printable ASCII"
    TWO_HEADER_MAPS = "both headers and header_map"
    TOO_MANY_HEADERS = "too many headers"
    UNKNOWN_HEADER_NAME = "a header name that HTTP does not know"
    # --- the HTTP request -------------------------------------------------------------------
    LONG_QUERY = "a query of more than 4 KiB"
    BODY_WITHOUT_POST = "a body without POST"
    UPGRADE = "an upgrade to another protocol"
    CONTENT_LENGTH = "content-length is not the body's"
    TRANSFER_ENCODING = "transfer-encoding"
    CONTENT_TYPE = "content-type"
    CONTENT_ENCODING = "content-encoding"
    SESSION_ID_MALFORMED = "mcp-session-id is over-long or not visible ASCII"
    VERSION_NOT_ASCII = "mcp-protocol-version is not printable ASCII"
    SESSIONS_NOT_ACCEPTED = "sessions are not accepted by this server"
    NO_SERVER_NAMED = "the route names no server in context_extensions"
    NO_SERVER_AT_URL = "host and path are no server's URL"
    BODY_NOT_SENT = "the data plane sent no body, or as text (docs/data-planes.md)"
    # --- the body ---------------------------------------------------------------------------
    LONG_NUMBER = "a number too long"
    LARGE_NUMBER = "a number too long or too large"
    NOT_FINITE = "NaN or Infinity"
    NOT_UTF8 = "not UTF-8"
    NOT_JSON = "not JSON"
    TWO_DOCUMENTS = "more than one document"
    DUPLICATE_MEMBER = "a member occurs twice"
    LONE_SURROGATE = "a lone surrogate in a key"
    TOO_MUCH_WORK = "too much to read"
    TOO_DEEP = "nested too deeply"
    PARAMS_AMBIGUOUS = "members of params are alike, or alike to one of MCP, or not visible ASCII"
    META_AMBIGUOUS = "members of _meta are alike, or alike to one of MCP, or not visible ASCII"
    NOT_AN_OBJECT = "not an object"
    PARAMS_NOT_AN_OBJECT = "params is not an object"
    META_NOT_AN_OBJECT = "_meta is not an object"
    NOT_JSON_RPC = "not a JSON-RPC 2.0 message"
    ID = "id"
    RESULT_OR_ERROR = "result or error is not an object"
    METHOD = "method"
    METHOD_WITHOUT_ID = "method does not fit the presence of an id"
    PARAMS_NAME = "params.name"
    PARAMS_NAME_BLANK = "params.name begins or ends with a blank"
    PARAMS_URI = "params.uri"
    PARAMS_URI_BLANK = "params.uri begins or ends with a blank"
    NO_SESSION = "a notification or response without a session"
    MODERN_RESPONSE = "a response in 2026-07-28"
    META_VERSION = "protocol version of _meta"
    MCP_METHOD = "mcp-method"
    MCP_NAME_MISSING = "mcp-name is missing"
    MCP_NAME = "mcp-name"
    MCP_PARAM = "mcp-param-*"
    # --- the session of a browser -----------------------------------------------------------
    SESSION_ENDED = "the session has ended by itself"
    NO_SESSION_COOKIE = "no cookie of a session"
    SESSION_UNKNOWN = "no such session, or somebody logged out"
    OTHER_ORIGIN = "the origin is not the page's"
    OTHER_SITE = "a page of another site sent it"
    NO_ORIGIN = "it changes something, and nothing says which page sent it"
    # --- the token's form -------------------------------------------------------------------
    OTHER_SCHEME = "credentials of another scheme"
    NOT_ONE_BEARER_TOKEN = "not one bearer token"  # noqa: S105 - words
    LONG_TOKEN = "longer than 8 KiB"  # noqa: S105 - as above
    NO_ACCESS_TOKEN = "Authelia marks it as no access token"  # noqa: S105 - as above
    NEITHER_JWS_NOR_OPAQUE = "neither a compact JWS nor an opaque token"
    NOT_THREE_SEGMENTS = "not three base64url segments"
    SEGMENT_NOT_BASE64URL = "a segment is not canonical base64url"
    SEGMENT_NOT_JSON = "a segment is not strict JSON"
    SEGMENT_NOT_AN_OBJECT = "a segment is not a JSON object"
    HEADER_STEERS = "the header steers the verifier"
    HEADER_NOT_A_STRING = "a header member is not a string"
    ALGORITHM = "alg is not allowed"
    TYP_ID_TOKEN = "typ is JWT, as of an ID token"  # noqa: S105 - as above
    TYP_NOT_AT_JWT = "typ is not at+jwt"
    TYP_NOT_JWT = "typ is not JWT"
    TYP_NOT_ASSERTION = "typ is not that of a client assertion"
    KID_MALFORMED = "kid is malformed"
    NOT_OPAQUE_LENGTH = "not as long as an opaque token"
    NOT_OPAQUE_FORM = "not as Authelia writes an access token"
    # --- its key and signature --------------------------------------------------------------
    NO_KEY = "no such key"
    KEY_WITHDRAWN = "its key was withdrawn meanwhile"
    SIGNATURE = "the signature does not verify"
    # --- its claims -------------------------------------------------------------------------
    ISSUER = "iss is not the configured issuer"
    OTHER_ISSUER = "another issuer"
    LIFETIME = "exp is not within the maximum lifetime after iat"
    FROM_THE_FUTURE = "iat or nbf is in the future"
    IAT_MALFORMED = "iat is not a number of seconds"
    EXP_MALFORMED = "exp is not a number of seconds"
    NBF_MALFORMED = "nbf is not a number of seconds"
    AUTH_TIME_MALFORMED = "auth_time is not a number of seconds"
    CLIENT_ID_MALFORMED = "client_id is missing or malformed"
    JTI_MALFORMED = "jti is malformed"
    ASSURANCE_MALFORMED = "the assurance claim is malformed"
    SUB_MALFORMED = "sub is malformed"
    AUD_NOT_A_LIST = "aud is not a list of strings"
    AUD_ENTRY_MALFORMED = "an entry of aud is malformed"
    SCOPE_NOT_A_STRING = "scope is not a string"
    SCP_NOT_A_LIST = "scp is not a short list"
    SCOPES_DISAGREE = "scp and scope disagree"
    SCOPE_MALFORMED = "a scope is malformed, or there are too many"
    GROUPS_NOT_A_LIST = "groups is not a short list"
    GROUPS_ENTRY_MALFORMED = "an entry of groups is malformed"
    AMR_NOT_A_LIST = "amr is not a short list"
    AMR_ENTRY_MALFORMED = "an entry of amr is malformed"
    EMPTY_AUDIENCE = "the token has an empty audience"
    # --- its introspection and its log-in ---------------------------------------------------
    TOKEN_TYPE = "token_type is not bearer"  # noqa: S105 - as above
    TOKEN_USE = "token_use is not access_token"  # noqa: S105 - as above
    OTHER_TOKEN = "the issuer's answer is about another token"  # noqa: S105 - as above
    NOT_ACTIVE = "not active"
    NOT_ACTIVE_ANY_MORE = "not active at the issuer"
    OPAQUE_OF_FRONT_DOOR = "an opaque token of the front door"
    NO_PERSON = "a token of ours without a person"
    NO_LOG_IN_RECORD = "no record of a log-in"
    RECORD_OF_ANOTHER = "the record is of another person"
    RECORD_OF_ANOTHER_OR_UNASKED = "the record is of another person, or unasked for"
    # --- the rules --------------------------------------------------------------------------
    NOT_DIRECT = "not named as a client that logs in directly"
    NOT_NAMED = "not named under clients"
    NOT_TAKEN = "not taken by the front door"
    NOT_OF_FRONT_DOOR = "not named as a client of the front door"
    NOT_AMONG_METHODS = "not among the methods of MCP or the server's"
    NO_TOOL_RULE = "no tool rule matches"
    NOT_APPROVED = "nobody has approved the tool"
    CHANGED_SINCE_APPROVAL = "the server says something else of it than was approved"
    NOT_LISTED_YET = "the server has not listed it yet"
    NO_PROMPT_RULE = "no prompt rule matches"
    NO_RESOURCE_RULE = "no resource rule matches"
    LOOSE_URI = "the URI has another spelling than its strict one"
    OPERATION_UNREADABLE = "it cannot be told which prompt or resources it is about"
    NO_CONDITION_HOLDS = "the conditions of no rule hold"
    ARGUMENT_NOT_JUDGED = "an argument is of another kind, or parsers could read it differently"
    IN_NO_GROUP = "in none of the groups"
    NO_MACHINE = "not named under machines"
    TOOL_ASKS_FOR_PERSON = "the tool asks for a person"
    OPERATION_ASKS_FOR_PERSON = "the prompt or resource asks for a person"
    STEP_UP_NOT_ACCEPTED = "no step-up is accepted"
    CALL_TOO_LARGE = "the call is too large to be shown"
    AMBIGUOUS_CALL = "the call has a number or text that readers could take for another"
    # --- the ledger's answer ----------------------------------------------------------------
    NO_STEP_UP = "no step-up"
    STEP_UP_TOO_OLD = "step-up too old"
    NO_APPROVAL = "no approval"
    NOT_CONFIRMED = "not confirmed"
    UNKNOWN_LEDGER_ANSWER = "the ledger's answer is unknown"


_OTHER_AUTHELIA: Final = (
    "log in again; if that helps nothing, issuer.internal leads to another Authelia"
)
# Details of tokens whose diagnosis is more specific than that of the reason.
DIAGNOSES: Final[Mapping[str, Diagnosis]] = MappingProxyType({
    Detail.ISSUER: Diagnosis(
        "other_issuer",
        "its issuer is not issuer.url",
        "write issuer.url in authz.yaml as the token says it, if it is your Authelia's",
    ),
    Detail.NO_KEY: Diagnosis(
        "unknown_kid", "its key is not, or no more, in the issuer's key set", _OTHER_AUTHELIA
    ),
    Detail.ALGORITHM: Diagnosis(
        "algorithm",
        "its algorithm is none of issuer.algorithms",
        f"access_token_signed_response_alg in {AUTHELIA_CLIENT}, or issuer.algorithms in "
        "authz.yaml",
    ),
    Detail.FROM_THE_FUTURE: Diagnosis(
        "from_the_future",
        "it was issued in the future: the clocks differ by more than issuer.leeway",
        "set both clocks by NTP",
    ),
    Detail.LIFETIME: Diagnosis(
        "lives_too_long",
        "it lives longer than issuer.max_lifetime",
        "identity_providers.oidc.lifespans.access_token at Authelia, or issuer.max_lifetime",
    ),
    Detail.SIGNATURE: Diagnosis(
        "signature",
        "its signature does not verify: it was altered, or signed by somebody else",
        _OTHER_AUTHELIA,
    ),
    Detail.NOT_ACTIVE: Diagnosis(
        "inactive",
        "Authelia says that it is not active: expired, refreshed since, or revoked",
        "log in again",
    ),
})  # fmt: skip
