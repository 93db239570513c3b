"""A decision over HTTP: the response to the client, or changes to its request.

Invariant: every refusal is JSON-RPC, with the request's id where it is known; every 401 is a
challenge; no value that a caller chose stands in a header but percent-encoded. What HTTP allows in
these values is checked where they are encoded (authz/envoy/codec.py).
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from http import HTTPStatus
from json.encoder import encode_basestring_ascii
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from authz.core.caller import write_caller
from authz.core.decision import Allow, Deny
from authz.core.exchanges import Exchange
from authz.core.identity_cache import IdentityCache
from authz.core.limits import Limit, Quota
from authz.core.mcp import Envelope, Message
from authz.core.policy import MODERN, Policy, RefusalForm, Server
from authz.core.principal import Principal
from authz.core.reason import URL_ELICITATION_REQUIRED, Reason
from authz.core.second_factor import Method
from authz.core.step_up import (
    APPROVAL_QUESTION,
    STEP_UP_QUESTION,
    StepUpDelivery,
    StepUpPrompt,
)

# The names of Upstream.metadata, which Envoy's local replies read (envoy/render/local_replies.py):
# the JSON of the request's id, how it is reported (a Form), and its id in the log; and
# the web origin that sent the request, one of `Policy.origins`.
RPC_ID: Final = "id"
FORM: Final = "form"
REQUEST_ID: Final = "request_id"
ORIGIN: Final = "origin"
# The names of what the filter of list responses reads (server/list_filter.py): which list was asked
# for, or that a stream is resumed which may bring any; of which server; and who asked.
LIST: Final = "list"
SERVER_NAME: Final = "server"
CALLER: Final = "caller"


class Form(Enum):
    """How a failure is reported: as an error, or as a result of tools/call of either era."""

    ERROR = "error"
    RESULT = "result"
    MODERN_RESULT = "modern_result"


# The id and the media type of an error to a request whose id is not known (decision 11). At a null,
# as JSON-RPC has it, rmcp waits for ever and Go ends its session; an empty id is no request's.
NOBODY: Final = ""
NOBODY_TYPE: Final = "application/json-rpc"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A response in place of the upstream's: every denial, whatever its HTTP status.

    Attributes:
        status: the HTTP status, 200 to 599; a denial may be a 200 (an input-required result).
        headers: name and value, each name once; values in printable ASCII.
        body: UTF-8.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class UpstreamChanges:
    """Changes to an allowed request, and to its response.

    Attributes:
        set_headers: name and value for the upstream, in place of what the client sent.
        remove_headers: names that the upstream never sees; none of them is also set.
        response_headers: name and value for the client, in place of what the upstream sent.
        judged: name and value for the upstream that differ from request to request: headers
            that the client may have sent twice, and the signed identity.
        lasts: milliseconds after which the whole exchange ends; 0 for no bound.
        metadata: name and value for Envoy: what its local reply needs where it cannot reach the
            upstream, or does not pass on the response.
    """

    set_headers: tuple[tuple[str, str], ...]
    remove_headers: tuple[str, ...] = ()
    response_headers: tuple[tuple[str, str], ...] = ()
    judged: tuple[tuple[str, str], ...] = ()
    lasts: int = 0
    metadata: tuple[tuple[str, str], ...] = ()


# Identity headers for MCP servers. Each is either overwritten or removed, never left as sent.
SUBJECT: Final = "x-authz-subject"
CLIENT: Final = "x-authz-client"
ISSUER: Final = "x-authz-issuer"
SCOPES: Final = "x-authz-scopes"
GROUPS: Final = "x-authz-groups"
SERVER: Final = "x-authz-server"
# The same, signed (`authz.tokens.identity`).
ASSERTION: Final = "x-authz-identity"
# W3C Trace Context, section 3.2.
TRACEPARENT: Final = "traceparent"
# Which limits are near their end, as in RateLimit.
NEAR_LIMIT: Final = "x-authz-limit-near"
IDENTITY: Final = (SUBJECT, CLIENT, ISSUER, SCOPES, GROUPS, SERVER)

# Never for the upstream: credentials, headers by which some frameworks change the method or the
# path after it was decided about, and the client's claim of what Envoy buffered.
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

# The member of a tool result's `_meta` that holds what `error.code` and `error.data` would.
REFUSAL: Final = "authz/refusal"
# Seconds to wait where a dependency of ours is away; it comes back by itself.
_AWAY: Final = 5
_FAULTS: Final = frozenset({Reason.ISSUER_UNAVAILABLE, Reason.LEDGER_UNAVAILABLE, Reason.INTERNAL})
_CHALLENGED: Final = frozenset({"invalid_token", "insufficient_scope"})
# What a person does behind a link, and the member of an error's data that holds the link.
_LOG_IN_AGAIN: Final = ("Log in again here", "step_up_url")
_APPROVE: Final = ("Approve or decline the call here", "approval_url")
_FACTOR: Final = {Method.TOTP: "a one-time password (TOTP)", Method.ANY: "any second factor"}


def upstream(
    allow: Allow,
    policy: Policy,
    now: float,
    request_id: str = "",
    origin: str | None = None,
    *,
    cache: IdentityCache | None = None,
) -> UpstreamChanges:
    """Return the headers of an allowed request: identity set, credentials removed.

    The exchange ends when the token does. One that waits for notifications ends earlier: its
    client opens it anew, which is a new decision. Each ends the earlier the more of them one person
    has begun (`core/exchanges.py`).

    Args:
        allow: the request.
        policy: the rules.
        now: seconds since the epoch.
        request_id: of the decision log.
        origin: the web origin that sent it, which `request.check_shape` has looked at.
        cache: of this policy; None for none.
    """
    principal, message = allow.principal, allow.message
    if cache is None:
        given, removed = _identity(principal, allow.server)
    else:
        given, removed = cache.get(_identity, principal, allow.server)
    if allow.listing:
        # Nobody has to unzip what is filtered.
        removed = (
            _without_encoding(removed) if cache is None else cache.get(_without_encoding, removed)
        )
    seconds = min(principal.expires_at - now, policy.max_stream)
    if allow.exchange is Exchange.STREAM:
        seconds = min(seconds, policy.stream_recheck)
    meter = allow.server.meters.get(allow.exchange)
    if meter is not None:
        seconds = meter.lasts(allow.quotas, seconds)
    # 0 would be no bound at all for Envoy.
    lasts = max(1, int(seconds * 1000))
    told = _told_by_envoy(message, request_id, policy.refusals)
    if allow.listing:
        told = (*told, *_told_to_filter(allow, request_id, cache, after=told))
    if origin is not None:
        told = (*told, (ORIGIN, origin))
    return UpstreamChanges(
        given, removed, rate_limit(allow.quotas, cache), allow.judged, lasts, told
    )


def with_assertion(changes: UpstreamChanges, assertion: str) -> UpstreamChanges:
    """Return the headers of an allowed request with the signed identity."""
    return replace(changes, judged=(*changes.judged, (ASSERTION, assertion)))


def with_traceparent(changes: UpstreamChanges, traceparent: str) -> UpstreamChanges:
    """Return the headers of an allowed request with the trace that it belongs to."""
    return replace(changes, judged=(*changes.judged, (TRACEPARENT, traceparent)))


def _told_by_envoy(
    message: Message | None, request_id: str, form: RefusalForm
) -> tuple[tuple[str, str], ...]:
    """Return the metadata for Envoy of a request that waits for a response.

    With it Envoy reports under HTTP 200 that the server cannot be reached, so that the client's
    session outlives that; without it, by the HTTP status.
    """
    if message is None or message.id is None or form is RefusalForm.HTTP_STATUS:
        return ()
    how = Form.ERROR
    if form is RefusalForm.TOOL_RESULT and message.tool is not None:
        how = Form.MODERN_RESULT if message.version == MODERN else Form.RESULT
    return (RPC_ID, _written(message.id)), (FORM, how.value), (REQUEST_ID, request_id)


def _written(rpc_id: str | int) -> str:
    """Return an id as JSON."""
    return str(rpc_id) if isinstance(rpc_id, int) else encode_basestring_ascii(rpc_id)


def _told_to_filter(
    allow: Allow,
    request_id: str,
    cache: IdentityCache | None,
    *,
    after: tuple[tuple[str, str], ...],
) -> tuple[tuple[str, str], ...]:
    """Return what the filter of the response has to know, besides what is told already."""
    who, message = allow.principal, allow.message
    caller = write_caller(who) if cache is None else cache.get(write_caller, who)
    told = [(LIST, allow.listing), (SERVER_NAME, allow.server.name), (CALLER, caller)]
    if not after:
        told.append((REQUEST_ID, request_id))
        if message is not None and message.id is not None:
            told.append((RPC_ID, _written(message.id)))
    return tuple(told)


def _without_encoding(removed: tuple[str, ...]) -> tuple[str, ...]:
    return (*removed, "accept-encoding")


def _identity(
    principal: Principal, server: Server
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Return the headers to set and those to remove."""
    values = {
        SUBJECT: _plain(principal.subject or ""),
        CLIENT: _plain(principal.client_id),
        ISSUER: _plain(principal.issuer),
        SCOPES: " ".join(_plain(scope) for scope in sorted(told_scopes(principal, server))),
        GROUPS: ",".join(_plain(group) for group in sorted(principal.groups)),
        SERVER: _plain(server.name),
    }
    given = {name: value for name, value in values.items() if value}
    absent = tuple(name for name in IDENTITY if name not in given)
    unsigned = () if server.signed_identity else (ASSERTION,)
    return tuple(given.items()), (*REMOVED, *absent, *unsigned)


def told_scopes(principal: Principal, server: Server) -> frozenset[str]:
    """Return the scopes that are named to a server.

    At the front door a person agrees to scopes of the server alone; what its tokens have besides
    (`openid` and the like) was requested by us, and permits nothing.
    """
    if principal.login is None:
        return principal.scopes
    return principal.scopes & server.named_scopes


def _plain(value: str) -> str:
    """Percent-encode all but printable ASCII that is no separator of ours."""
    return quote(value, safe="!#$&'()*+/:;=?@[]~")


def refusal(
    deny: Deny,
    asked: Envelope | None,
    request_id: str,
    offer: StepUpPrompt | None = None,
    form: RefusalForm = RefusalForm.TOOL_RESULT,
) -> HttpAnswer:
    """Return the HTTP answer of a refusal.

    Args:
        deny: the refusal.
        asked: the JSON-RPC request; None where none could be read.
        request_id: of the decision log.
        offer: the step-up that would lift the refusal; None where none is offered.
        form: how refusals that concern the operation are reported.
    """
    how = _form(deny, asked, form)
    if offer is not None:
        return _DELIVERIES[offer.delivery](deny, asked, request_id, offer, how)
    headers = []
    challenge = _challenge(deny)
    if challenge:
        headers.append(("www-authenticate", challenge))
    if _status(deny, asked) == HTTPStatus.METHOD_NOT_ALLOWED:
        is_method = deny.reason is Reason.METHOD_NOT_ALLOWED
        headers.append(("allow", "POST, GET, DELETE" if is_method else "POST, DELETE"))
    retry_after = deny.retry_after
    if retry_after is None and deny.reason in _FAULTS:
        retry_after = _AWAY
    if retry_after is not None:
        headers.append(("retry-after", str(retry_after)))
    headers.extend(rate_limit(deny.quotas))
    message = _sentence(deny, retry_after, request_id)
    data = _data(deny, retry_after, request_id) | _versions(deny, asked)
    error = _ErrorMembers(deny.reason.row.code, message, data)
    return _worded(deny, asked, how, error, tuple(headers))


def _form(deny: Deny, asked: Envelope | None, form: RefusalForm) -> RefusalForm:
    """Return how this refusal is reported.

    HTTP 200 is for authenticated callers of whom one operation alone is refused: all others get
    the status that OAuth and MCP define.
    """
    if asked is None or deny.principal is None or not deny.reason.row.of_operation:
        return RefusalForm.HTTP_STATUS
    if form is RefusalForm.TOOL_RESULT and not asked.calls_tool:
        return RefusalForm.JSON_RPC
    return form


@dataclass(frozen=True, slots=True)
class _ErrorMembers:
    """The members of a JSON-RPC error."""

    code: int
    message: str
    data: dict[str, object]


def _worded(
    deny: Deny,
    asked: Envelope | None,
    how: RefusalForm,
    error: _ErrorMembers,
    headers: tuple[tuple[str, str], ...] = (),
) -> HttpAnswer:
    """Return a refusal as a tool's result, or as a JSON-RPC error."""
    if how is RefusalForm.TOOL_RESULT:
        content = [{"type": "text", "text": error.message}]
        meta = {REFUSAL: {"code": error.code, **error.data}}
        result: dict[str, object] = {"content": content, "isError": True, "_meta": meta}
        if asked is not None and asked.modern:
            result["resultType"] = "complete"
        return _json(200, asked, {"result": result}, headers)
    status = _status(deny, asked) if how is RefusalForm.HTTP_STATUS else 200
    return _failed(status, asked, error, headers)


def _status(deny: Deny, asked: Envelope | None) -> int:
    row = deny.reason.row
    is_get = deny.message is None and asked is None
    return row.get_status if is_get and row.get_status else row.status


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


def _versions(deny: Deny, asked: Envelope | None) -> dict[str, object]:
    """Return the data of an UnsupportedProtocolVersionError (MCP 2026-07-28)."""
    if deny.reason is not Reason.UNSUPPORTED_VERSION or deny.server is None:
        return {}
    supported = {"supported": sorted(deny.server.versions, reverse=True)}
    if asked is None or not asked.version:
        return dict(supported)
    return {**supported, "requested": asked.version}


def _challenge(deny: Deny) -> str:
    """Return the WWW-Authenticate value, or nothing where none belongs (RFC 6750, section 3).

    A second factor that is missing is described in the body, without a challenge, unless the
    operator wants one: the official MCP client answers `insufficient_user_authentication`
    (RFC 9470) with a second log-in that changes nothing.
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


# --- how a step-up or an approval is offered ----------------------------------------------------


def _asked_for(deny: Deny, request_id: str) -> str:
    """Return the text beside a link which the client shows by itself."""
    return _sentence(deny, None, request_id)


def _input_required(
    deny: Deny, asked: Envelope | None, request_id: str, offer: StepUpPrompt, _: RefusalForm
) -> HttpAnswer:
    """Ask for input (MCP 2026-07-28): the client shows the link, and sends the request again.

    There is no `requestState`: the client would send it on to the upstream, which refuses what it
    has not made.
    """
    name = APPROVAL_QUESTION if offer.approves else STEP_UP_QUESTION
    params = {"mode": "url", "message": _asked_for(deny, request_id), "url": offer.link}
    question = {"method": "elicitation/create", "params": params}
    result = {"resultType": "input_required", "inputRequests": {name: question}}
    return _json(200, asked, {"result": result})


def _url_elicitation(
    deny: Deny, asked: Envelope | None, request_id: str, offer: StepUpPrompt, _: RefusalForm
) -> HttpAnswer:
    """Answer error -32042 (MCP 2025-11-25, "URL Elicitation Required Error").

    The error's own message has the link, too: clients that declared URL elicitation without being
    able to show one (Python SDK 1.30 does for them) show the message and nothing else.
    """
    elicitation = {
        "mode": "url",
        # Unique, as the link is; and not the ticket itself, which is secret.
        "elicitationId": hashlib.sha256(offer.link.encode()).hexdigest()[:32],
        "url": offer.link,
        "message": _asked_for(deny, request_id),
    }
    data = {**_data(deny, None, request_id), "elicitations": [elicitation]}
    message = _with_link(deny, request_id, offer).message
    return _failed(200, asked, _ErrorMembers(URL_ELICITATION_REQUIRED, message, data))


def _in_words(
    deny: Deny, asked: Envelope | None, request_id: str, offer: StepUpPrompt, how: RefusalForm
) -> HttpAnswer:
    return _worded(deny, asked, how, _with_link(deny, request_id, offer))


def _challenged(
    deny: Deny, asked: Envelope | None, request_id: str, offer: StepUpPrompt, _: RefusalForm
) -> HttpAnswer:
    """Challenge (RFC 9470, section 3); without `acr_values`, which Authelia does not know."""
    row = deny.reason.row
    fields = [f'error="{row.error}"', f'error_description="{row.sentence}"']
    factor = deny.second_factor
    if factor is not None and factor.max_login_age is not None:
        fields.append(f'max_age="{factor.max_login_age}"')
    if deny.server is not None:
        fields.append(f'resource_metadata="{deny.server.metadata_url}"')
    challenge = ("www-authenticate", "Bearer " + ", ".join(fields))
    return _failed(401, asked, _with_link(deny, request_id, offer), (challenge,))


def _with_link(deny: Deny, request_id: str, offer: StepUpPrompt) -> _ErrorMembers:
    """Return an error that has the link in both message and data."""
    what, member = _APPROVE if offer.approves else _LOG_IN_AGAIN
    message = f"{_sentence(deny, None, '')} {what}, then repeat the request: {offer.link}"
    if request_id:
        message += f" (Request {request_id})"
    data = {**_data(deny, None, request_id), member: offer.link}
    return _ErrorMembers(deny.reason.row.code, message, data)


def _failed(
    status: int,
    asked: Envelope | None,
    error: _ErrorMembers,
    headers: tuple[tuple[str, str], ...] = (),
) -> HttpAnswer:
    members = {"code": error.code, "message": error.message, "data": error.data}
    return _json(status, asked, {"error": members}, headers)


def _json(
    status: int,
    asked: Envelope | None,
    outcome: dict[str, object],
    headers: tuple[tuple[str, str], ...] = (),
) -> HttpAnswer:
    """Return a JSON-RPC response; without a request, one with the id that stands for none."""
    rpc_id, media = (NOBODY, NOBODY_TYPE) if asked is None else (asked.id, "application/json")
    body = json.dumps({"jsonrpc": "2.0", "id": rpc_id, **outcome}).encode("ascii")
    plain = (("content-type", media), ("cache-control", "no-store"))
    return HttpAnswer(status, (*plain, *headers), body)


_Deliver = Callable[[Deny, Envelope | None, str, StepUpPrompt, RefusalForm], HttpAnswer]
_DELIVERIES: Final[Mapping[StepUpDelivery, _Deliver]] = MappingProxyType(
    {
        StepUpDelivery.INPUT_REQUIRED: _input_required,
        StepUpDelivery.URL_ELICITATION: _url_elicitation,
        StepUpDelivery.CHALLENGE: _challenged,
        StepUpDelivery.WORDS: _in_words,
    }
)


# --- limits -------------------------------------------------------------------------------------


def rate_limit(
    quotas: tuple[Quota, ...], cache: IdentityCache | None = None
) -> tuple[tuple[str, str], ...]:
    """Return RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10).

    A limit in shadow is not told: clients would wait for what refuses nothing. Of a limit that
    counts each group of a person the one with the least left is told. Limits that are near their
    end (`Quota.is_near`) stand in a header of their own, too, written as in RateLimit.
    """
    told = dict[str, Quota]()
    for quota in quotas:
        name = quota.limit.name
        if not quota.limit.shadow and (name not in told or quota.remaining < told[name].remaining):
            told[name] = quota
    if not told:
        return ()
    limits = [quota.limit for quota in told.values()]
    policy = _policies(*limits) if cache is None else cache.get(_policies, *limits)
    fields = ("ratelimit-policy", policy), ("ratelimit", _state([*told.values()]))
    near = [quota for quota in told.values() if quota.is_near]
    return (*fields, (NEAR_LIMIT, _state(near))) if near else fields


def _state(quotas: list[Quota]) -> str:
    return ", ".join([f'"{q.limit.name}";r={q.remaining};t={q.reset}' for q in quotas])


def _policies(*limits: Limit) -> str:
    # A day or a month has no one length (and `w` is optional); `t` tells when it ends.
    return ", ".join(
        [
            f'"{each.name}";q={each.quota};w={each.window}'
            if each.calendar is None
            else f'"{each.name}";q={each.quota}'
            for each in limits
        ]
    )
