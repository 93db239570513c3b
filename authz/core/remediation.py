"""What each refusal means to an operator, and what there is to change.

Law: there is one row for every `Reason`, and every field that a row names is one of authz.yaml.
`<server>`, `<client>` and `<pattern>` stand for names that the reader knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from authz.core.reason import Reason

_CALLER: Final = "nothing here: the program that sends the request has to be mended"
_LOG_IN: Final = "log in again with the client (a direct one: `authz login`)"
_ENTRY: Final = "the client's entry in Authelia's identity_providers.oidc.clients"


@dataclass(frozen=True, slots=True)
class Remediation:
    """Tell an operator about one reason.

    Attributes:
        meaning: what happened.
        mend: what to do, at whose side.
        fields: the fields of authz.yaml that decide it; none where none does.
    """

    meaning: str
    fix: str
    fields: tuple[str, ...] = ()


REMEDIATIONS: Final[Mapping[Reason, Remediation]] = MappingProxyType({
    Reason.METHOD_NOT_ALLOWED: Remediation(
        "The HTTP method is none of MCP's, or it is GET or DELETE where the server takes no "
        "protocol with sessions.",
        "let the client speak a version that the server accepts, or accept an older one",
        ("servers.<server>.versions",),
    ),
    Reason.MALFORMED_REQUEST: Remediation("The HTTP request is odd; `detail` says how.", _CALLER),
    Reason.FOREIGN_ORIGIN: Remediation(
        "A web page of an origin that is not allowed sent it.",
        "add the origin, to the letter, if the page is one of yours",
        ("gateway.origins",),
    ),
    Reason.UNSUPPORTED_MEDIA_TYPE: Remediation(
        "The body is not plain application/json in UTF-8, or it is compressed.", _CALLER
    ),
    Reason.BODY_MISSING: Remediation(
        "A POST came without its whole body.",
        "where every POST ends so: Envoy's route does not buffer bodies (with_request_body); "
        "render it anew with `authz envoy-config`",
    ),
    Reason.BODY_TOO_LARGE: Remediation(
        "The message is longer than allowed.",
        "raise the limit, and render Envoy's configuration anew",
        ("gateway.max_body",),
    ),
    Reason.MALFORMED_JSON: Remediation(
        "The body is not one strict JSON document: broken, or with a member twice.", _CALLER
    ),
    Reason.JSON_TOO_DEEP: Remediation(
        "The body is JSON nested more deeply than allowed.",
        "raise the bound, if honest calls are so deep",
        ("gateway.max_json_depth",),
    ),
    Reason.JSON_TOO_COSTLY: Remediation(
        "Reading the body would take longer than allowed, by an estimate from its size and its "
        "numbers, members and lists.",
        "raise the bound, if honest calls are so large",
        ("gateway.max_json_work",),
    ),
    Reason.BATCH: Remediation("The body is a list of messages.", _CALLER),
    Reason.INVALID_MESSAGE: Remediation(
        "The body is JSON and no message of MCP; `detail` says what is odd.", _CALLER
    ),
    Reason.HEADER_MISMATCH: Remediation(
        "Mcp-Method, Mcp-Name or MCP-Protocol-Version is missing or says something else than the "
        "body: a defect of the client, or of a proxy before Envoy that drops headers.",
        _CALLER,
    ),
    Reason.VERSION_MISSING: Remediation(
        "The header says 2026-07-28, and `params._meta` names no protocol version.", _CALLER
    ),
    Reason.UNSUPPORTED_VERSION: Remediation(
        "The message is of an MCP protocol version that the server does not accept.",
        "accept the version, if the server behind speaks it",
        ("servers.<server>.versions",),
    ),
    Reason.UNKNOWN_SERVER: Remediation(
        "Envoy's route names a server that authz.yaml does not.",
        "render Envoy's configuration anew with `authz envoy-config`, and reload both",
        ("servers",),
    ),
    Reason.SESSION_OF_ANOTHER: Remediation(
        "The Mcp-Session-Id is in use by another person, machine or client. A client that went on "
        "with its session after somebody else logged in begins a new one; where many are refused "
        "so, somebody tries ids that are not theirs.",
        "nothing, as a rule; a server that gives two callers one id has to be mended",
        ("servers.<server>.session_lifetime",),
    ),
    Reason.TOKEN_MISSING: Remediation(
        "There was no bearer token. Every client begins so: it reads the challenge and logs in.",
        f"nothing, if the client then logs in; else {_LOG_IN} and try with that token",
    ),
    Reason.TOKEN_IN_QUERY: Remediation(
        "The token stood in the address, where logs and histories keep it.",
        "revoke that token, and let the client send it in the Authorization header",
    ),
    Reason.TOKEN_MALFORMED: Remediation(
        "The Authorization header holds several, oddly written or over-long credentials.", _CALLER
    ),
    Reason.TOKEN_WRONG_KIND: Remediation(
        "A refresh token, a code or an ID token was sent in place of the access token.",
        "let the client send the member access_token of the token answer",
    ),
    Reason.TOKEN_OPAQUE: Remediation(
        "The token is opaque, and the server or tool takes signed ones, or nobody is configured "
        "to ask about opaque ones.",
        f"access_token_signed_response_alg: RS256 in {_ENTRY}; or let authz ask",
        (
            "issuer.introspection",
            "servers.<server>.tokens",
            "servers.<server>.tools.<pattern>.tokens",
        ),
    ),
    Reason.TOKEN_INVALID: Remediation(
        "The token does not verify; `detail` says at what: another issuer, an unknown key, a "
        "broken signature, a claim that is not as it must be, or not active any more.",
        f"{_LOG_IN}; if that helps nothing, `authz doctor --token-file FILE` looks closer",
        ("issuer.url", "issuer.internal", "issuer.algorithms", "issuer.max_lifetime"),
    ),
    Reason.TOKEN_EXPIRED: Remediation(
        "The token was good and has expired.",
        f"refresh it, or {_LOG_IN}; how long tokens live is "
        "identity_providers.oidc.lifespans.access_token at Authelia",
    ),
    Reason.AUDIENCE_MISMATCH: Remediation(
        "The token was made for another server, or for none.",
        "the client has to send the server's URL, to the letter, as `resource`, and `audience` of "
        f"{_ENTRY} has to name it; where it does and the token is for none, Authelia forgets "
        "`resource` (4.39.21 and 4.39.22): log in by the front door, or use 4.39.20",
        ("gateway.url", "servers.<server>.resource"),
    ),
    Reason.TOKEN_REVOKED: Remediation(
        "The token, its person, its client or everything of its age was revoked here, or it is "
        "not active at the issuer any more; `detail` says which.",
        _LOG_IN,
        ("servers.<server>.introspect", "issuer.introspection.confirm_age"),
    ),
    Reason.TOKEN_SIGNED: Remediation(
        "The token is signed, and the server or tool takes opaque ones only.",
        f"leave access_token_signed_response_alg out of {_ENTRY}; or accept signed ones",
        ("servers.<server>.tokens", "servers.<server>.tools.<pattern>.tokens"),
    ),
    Reason.LOG_IN_UNKNOWN: Remediation(
        "The token is signed for one of our own clients at Authelia, and the front door has no "
        "record of its log-in: it has ended, Redis has lost it, the token did not come from the "
        "front door, or the record is another person's.",
        f"{_LOG_IN}; where many are refused so: whether Redis keeps what it is given (persistence, "
        "noeviction), and whether `authz pages` and `authz serve` share one redis.deployment",
        ("redis.url", "redis.deployment", "front_door.one_factor", "front_door.two_factor"),
    ),
    Reason.FOREIGN_CLIENT: Remediation(
        "The token is of a client of Authelia that neither came through the front door nor is "
        "named here as one that logs in at Authelia itself.",
        "let it log in at the gateway; or name it with login: direct, or as a machine, if it may "
        "come past the front door",
        ("clients.<client>.login", "clients.<client>.machine"),
    ),
    Reason.CLIENT_NOT_ALLOWED: Remediation(
        "Clients are named, and this one is not among them; or the front door does not take "
        "clients of its kind any more.",
        "name it, if it may come; of the front door: let clients register, or its host's documents "
        "be taken",
        ("clients", "front_door.registration", "front_door.metadata_hosts"),
    ),
    Reason.MACHINE_NOT_ALLOWED: Remediation(
        "The token has no person (client_credentials), and this is not open to its client; or the "
        "tool asks for a person.",
        "declare the client a machine and name it at the server; a tool with groups or a second "
        "factor stays closed to it",
        ("clients.<client>.machine", "servers.<server>.machines"),
    ),
    Reason.PERSON_NOT_ALLOWED: Remediation(
        "The person is in none of the groups that are asked for, or the token does not tell "
        "groups at all.",
        "put the person into a group at Authelia; a token that tells none needs the claims_policy "
        f"that `authz authelia-config` prints, in {_ENTRY}; then {_LOG_IN}",
        ("servers.<server>.groups", "servers.<server>.tools.<pattern>.groups"),
    ),
    Reason.TOOL_NOT_ALLOWED: Remediation(
        "The server names its tools, and no pattern matches this one.",
        "add a rule for the tool, if it may be called",
        ("servers.<server>.tools",),
    ),
    Reason.METHOD_NOT_OFFERED: Remediation(
        "The server names its tools, and the method is none that MCP clients send: it could be "
        "another way to a tool that is not offered.",
        "name the method at the server, if it leads to no tool and may be called",
        ("servers.<server>.methods", "servers.<server>.tools"),
    ),
    Reason.INSUFFICIENT_SCOPE: Remediation(
        "The token lacks a scope that is asked for, or its client may not use it.",
        f"let the client ask for it; it has to be in scopes of {_ENTRY}; then {_LOG_IN}",
        (
            "servers.<server>.scopes",
            "servers.<server>.tools.<pattern>.scopes",
            "clients.<client>.scopes",
        ),
    ),
    Reason.SECOND_FACTOR_REQUIRED: Remediation(
        "A second factor is asked for, and nothing that is accepted as evidence proves one.",
        f"authorization_policy: two_factor in {_ENTRY}, and then say so as the client's "
        "assurance; where a signed claim is asked for besides, have Authelia put it into the token",
        (
            "clients.<client>.assurance",
            "issuer.assurance_claim",
            "servers.<server>.second_factor",
            "servers.<server>.tools.<pattern>.second_factor",
        ),
    ),
    Reason.LOGIN_TOO_OLD: Remediation(
        "The second factor is proved, and the log-in is older than asked for, or its age cannot "
        "be told: a client's assurance has none.",
        f"{_LOG_IN}; or allow older log-ins",
        (
            "servers.<server>.second_factor.max_login_age",
            "servers.<server>.tools.<pattern>.second_factor.max_login_age",
        ),
    ),
    Reason.RATE_LIMITED: Remediation(
        "A limit is exhausted; nothing was charged for this request.",
        "wait, or raise the limit",
        ("limits", "servers.<server>.limits", "servers.<server>.tools.<pattern>.limits"),
    ),
    Reason.TOO_MANY_STREAMS: Remediation(
        "The person has begun as many streams of notifications at this server as one person may "
        "hold; all else goes on.",
        "wait, find out which client opens so many, or raise the number",
        ("gateway.streams_per_user", "gateway.stream_recheck"),
    ),
    Reason.TOO_MANY_REFUSALS: Remediation(
        "So many requests of this address, or of this client and person, were refused that no "
        "more are looked at for a while.",
        "look for the lines before: their reason is the one to mend; it ends by itself",
    ),
    Reason.ISSUER_UNAVAILABLE: Remediation(
        "The issuer had to be asked (a new key, an opaque token) and did not answer in time.",
        "look at the events `keys` and `introspection` of the log, and at Authelia",
        ("issuer.internal", "issuer.deadline"),
    ),
    Reason.LEDGER_UNAVAILABLE: Remediation(
        "Redis did not answer, and what was asked cannot be answered without it.",
        "look at Redis, and at the event `fault` of the log",
        ("redis.url", "redis.mode", "redis.max_away"),
    ),
    Reason.INTERNAL: Remediation(
        "A defect of ours: the request was refused because nobody could decide.",
        "look at the event `crash` of the log, and report it",
    ),
})  # fmt: skip


def named(text: str, names: Mapping[str, str]) -> str:
    """Return a text or field with the names that are known in place of `<server>` and the like."""
    for kind, name in names.items():
        text = text.replace(f"<{kind}>", name)
    return text
