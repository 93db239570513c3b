"""What a decision looks like to the client and to the upstream.

Law: every refusal is JSON-RPC with the request's id (MCP clients show nothing else), every 401
is a challenge, and no value that a caller chose stands in a header but percent-encoded.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from authz.core.answer import HttpAnswer, Upstream
from authz.core.decision import Allow, Deny
from authz.core.limits import Limit, Quota
from authz.core.memo import Memo
from authz.core.methods import LISTEN
from authz.core.policy import Policy, Server
from authz.core.principal import Principal
from authz.core.reason import URL_ELICITATION_REQUIRED, Reason
from authz.core.second_factor import Method
from authz.core.step_up import Offer, Telling

# Identity headers for MCP servers. Each is either overwritten or removed, never left as sent.
SUBJECT: Final = "x-authz-subject"
CLIENT: Final = "x-authz-client"
ISSUER: Final = "x-authz-issuer"
SCOPES: Final = "x-authz-scopes"
GROUPS: Final = "x-authz-groups"
SERVER: Final = "x-authz-server"
IDENTITY: Final = (SUBJECT, CLIENT, ISSUER, SCOPES, GROUPS, SERVER)

# Never for the upstream: credentials, headers by which some frameworks change the method or the
# path after it was decided about, and the client's word on what Envoy buffered.
REMOVED: Final = (
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-envoy-auth-partial-body",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
)

# Seconds to wait where a dependency of ours is away; it comes back by itself.
_AWAY: Final = 5
_FAULTS: Final = frozenset({Reason.ISSUER_UNAVAILABLE, Reason.LEDGER_UNAVAILABLE, Reason.INTERNAL})
_CHALLENGED: Final = frozenset({"invalid_token", "insufficient_scope"})
_FACTOR: Final = {Method.TOTP: "a one-time password (TOTP)", Method.ANY: "any second factor"}


def upstream(allow: Allow, policy: Policy, now: float) -> Upstream:
    """Return the headers of an allowed request: identity set, credentials removed.

    The exchange ends when the token does. One that waits for notifications ends earlier: its
    client opens it anew, and is decided about by what is true then.
    """
    principal, message = allow.principal, allow.message
    given, removed = _identity(principal, allow.server)
    seconds = min(principal.expires_at - now, policy.max_stream)
    if (message is None or message.method == LISTEN) and policy.stream_recheck < seconds:
        seconds = policy.stream_recheck
    # 0 would be no bound at all for Envoy.
    lasts = max(1, int(seconds * 1000))
    return Upstream(given, removed, rate_limit(allow.quotas), allow.judged, lasts)


def _make_identity(
    principal: Principal, server: Server
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Return the headers to set and those to remove."""
    values = {
        SUBJECT: _plain(principal.subject or ""),
        CLIENT: _plain(principal.client_id),
        ISSUER: _plain(principal.issuer),
        SCOPES: " ".join(_plain(scope) for scope in sorted(_told(principal, server))),
        GROUPS: ",".join(_plain(group) for group in sorted(principal.groups)),
        SERVER: _plain(server.name),
    }
    given = {name: value for name, value in values.items() if value}
    absent = tuple(name for name in IDENTITY if name not in given)
    return tuple(given.items()), (*REMOVED, *absent)


_identity: Final = Memo(_make_identity)


def _told(principal: Principal, server: Server) -> frozenset[str]:
    """Return the scopes that a server is told of.

    At the front door a person agrees to scopes of the server alone; what its tokens have besides
    (`openid` and the like) was asked for by us, and is nobody's permission.
    """
    if principal.log_in is None:
        return principal.scopes
    return principal.scopes & server.named_scopes


def _plain(value: str) -> str:
    """Percent-encode all but what stands for itself in a header and is no separator of ours."""
    return quote(value, safe="!#$&'()*+/:;=?@[]~")


def refusal(
    deny: Deny, rpc_id: str | int | None, request_id: str, offer: Offer | None = None
) -> HttpAnswer:
    """Return the HTTP answer of a refusal.

    Args:
        deny: the refusal.
        rpc_id: the id of the JSON-RPC request; None where it had none that could be read.
        request_id: under which the decision log has it.
        offer: the step-up that would mend it; None where none is offered.
    """
    if offer is not None:
        return _TELLINGS[offer.telling](deny, rpc_id, request_id, offer)
    row = deny.reason.row
    headers = [("content-type", "application/json"), ("cache-control", "no-store")]
    challenge = _challenge(deny)
    if challenge:
        headers.append(("www-authenticate", challenge))
    if deny.reason is Reason.METHOD_NOT_ALLOWED:
        headers.append(("allow", "POST, GET, DELETE"))
    retry_after = deny.retry_after
    if retry_after is None and deny.reason in _FAULTS:
        retry_after = _AWAY
    if retry_after is not None:
        headers.append(("retry-after", str(retry_after)))
    headers.extend(rate_limit(deny.quotas))
    body = {
        "jsonrpc": "2.0",
        "id": rpc_id,
        "error": {
            "code": row.code,
            "message": _sentence(deny, retry_after, request_id),
            "data": _data(deny, retry_after, request_id),
        },
    }
    return HttpAnswer(row.status, tuple(headers), json.dumps(body).encode("ascii"))


def _sentence(deny: Deny, retry_after: int | None, request_id: str) -> str:
    parts = [deny.reason.row.sentence]
    if deny.reason is Reason.INSUFFICIENT_SCOPE:
        parts.append(f"Needed: {' '.join(sorted(deny.scopes))}.")
    if deny.second_factor is not None:
        parts.append(f"Accepted: {_FACTOR[deny.second_factor.method]}.")
        if deny.second_factor.max_login_age is not None:
            parts.append(f"At most {deny.second_factor.max_login_age} s after the log-in.")
    if deny.retry_after is not None:
        parts.append(f"Retry after {retry_after} s.")
    if request_id:
        parts.append(f"(Request {request_id})")
    return " ".join(parts)


def _data(deny: Deny, retry_after: int | None, request_id: str) -> dict[str, object]:
    data: dict[str, object] = {"reason": deny.reason.label, "request_id": request_id}
    if deny.reason is Reason.INSUFFICIENT_SCOPE:
        data["scopes"] = sorted(deny.scopes)
    if retry_after is not None:
        data["retry_after"] = retry_after
    return data


def _challenge(deny: Deny) -> str:
    """Return the WWW-Authenticate value, or nothing where none belongs (RFC 6750, section 3).

    A second factor that is missing is told in words, not by a challenge, unless the operator
    wants one: the official MCP client answers `insufficient_user_authentication` (RFC 9470) with
    a second log-in that changes nothing.
    """
    row = deny.reason.row
    if deny.server is None or not (row.status == 401 or row.error in _CHALLENGED):  # noqa: PLR2004 - the status of RFC 9110, section 15.5.2
        return ""
    fields = []
    # RFC 6750, section 3.1: a request without a token learns no error code.
    if row.error is not None:
        fields += [f'error="{row.error}"', f'error_description="{row.sentence}"']
    fields.append(f'resource_metadata="{deny.server.metadata_url}"')
    scopes = deny.scopes
    if deny.principal is not None and deny.reason is Reason.INSUFFICIENT_SCOPE:
        # MCP 2025-11-25, "Runtime Insufficient Scope Errors": with what is needed, what the token
        # has. Clients that ask for the challenge's scopes alone would lose it otherwise.
        scopes = scopes | (deny.principal.scopes & deny.server.named_scopes)
    if scopes:
        fields.append(f'scope="{" ".join(sorted(scopes))}"')
    return "Bearer " + ", ".join(fields)


# --- how a step-up is told ----------------------------------------------------------------------

# The name of our question among those of an input-required result. Its answer says only that the
# person was asked; the upstream, which sees it when the call passes, asked nothing by this name.
QUESTION: Final = "authz/step-up"
_PLAIN: Final = (("content-type", "application/json"), ("cache-control", "no-store"))
_Rpc = str | int | None


def _asked_for(deny: Deny, request_id: str) -> str:
    """Return the words that go with a link which the client shows by itself."""
    return _sentence(deny, None, request_id)


def _input_required(deny: Deny, rpc_id: _Rpc, request_id: str, offer: Offer) -> HttpAnswer:
    """Ask for input (MCP 2026-07-28): the client shows the link, and sends the request again.

    There is no `requestState`: the client would send it on to the upstream, which refuses what it
    has not made.
    """
    params = {"mode": "url", "message": _asked_for(deny, request_id), "url": offer.link}
    question = {"method": "elicitation/create", "params": params}
    result = {"resultType": "input_required", "inputRequests": {QUESTION: question}}
    return _json(200, {"jsonrpc": "2.0", "id": rpc_id, "result": result})


def _url_elicitation(deny: Deny, rpc_id: _Rpc, request_id: str, offer: Offer) -> HttpAnswer:
    """Answer error -32042 (MCP 2025-11-25, "URL Elicitation Required Error")."""
    message = _asked_for(deny, request_id)
    elicitation = {
        "mode": "url",
        # Unique, as the link is; and not the ticket itself, which is nobody's to read.
        "elicitationId": hashlib.sha256(offer.link.encode()).hexdigest()[:32],
        "url": offer.link,
        "message": message,
    }
    data = {**_data(deny, None, request_id), "elicitations": [elicitation]}
    return _error(200, URL_ELICITATION_REQUIRED, message, data, rpc_id)


def _in_words(deny: Deny, rpc_id: _Rpc, request_id: str, offer: Offer) -> HttpAnswer:
    message, data = _with_link(deny, request_id, offer)
    row = deny.reason.row
    return _error(row.status, row.code, message, data, rpc_id)


def _challenged(deny: Deny, rpc_id: _Rpc, request_id: str, offer: Offer) -> HttpAnswer:
    """Challenge (RFC 9470, section 3); without `acr_values`, which Authelia does not know."""
    row = deny.reason.row
    fields = [f'error="{row.error}"', f'error_description="{row.sentence}"']
    asked = deny.second_factor
    if asked is not None and asked.max_login_age is not None:
        fields.append(f'max_age="{asked.max_login_age}"')
    if deny.server is not None:
        fields.append(f'resource_metadata="{deny.server.metadata_url}"')
    challenge = ("www-authenticate", "Bearer " + ", ".join(fields))
    message, data = _with_link(deny, request_id, offer)
    return _error(401, row.code, message, data, rpc_id, challenge=challenge)


def _with_link(deny: Deny, request_id: str, offer: Offer) -> tuple[str, dict[str, object]]:
    """Return message and data of an error that has the link, for whoever reads either."""
    message = (
        f"{_sentence(deny, None, '')} Log in again here, then repeat the request: {offer.link}"
    )
    if request_id:
        message += f" (Request {request_id})"
    return message, {**_data(deny, None, request_id), "step_up_url": offer.link}


def _error(
    status: int,
    code: int,
    message: str,
    data: dict[str, object],
    rpc_id: _Rpc,
    *,
    challenge: tuple[str, str] | None = None,
) -> HttpAnswer:
    error = {"code": code, "message": message, "data": data}
    answer = _json(status, {"jsonrpc": "2.0", "id": rpc_id, "error": error})
    if challenge is None:
        return answer
    return HttpAnswer(status, (*answer.headers, challenge), answer.body)


def _json(status: int, body: dict[str, object]) -> HttpAnswer:
    return HttpAnswer(status, _PLAIN, json.dumps(body).encode("ascii"))


_Tell = Callable[[Deny, _Rpc, str, Offer], HttpAnswer]
_TELLINGS: Final[Mapping[Telling, _Tell]] = MappingProxyType(
    {
        Telling.INPUT_REQUIRED: _input_required,
        Telling.URL_ELICITATION: _url_elicitation,
        Telling.CHALLENGE: _challenged,
        Telling.WORDS: _in_words,
    }
)


# --- limits -------------------------------------------------------------------------------------


def rate_limit(quotas: tuple[Quota, ...]) -> tuple[tuple[str, str], ...]:
    """Return RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10)."""
    if not quotas:
        return ()
    policy = _policies(*[quota.limit for quota in quotas])
    state = ", ".join([f'"{q.limit.name}";r={q.remaining};t={q.reset}' for q in quotas])
    return (("ratelimit-policy", policy), ("ratelimit", state))


def _make_policies(*limits: Limit) -> str:
    return ", ".join([f'"{each.name}";q={each.quota};w={each.window}' for each in limits])


_policies: Final = Memo(_make_policies)
