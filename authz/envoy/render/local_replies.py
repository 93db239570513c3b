"""Local replies (Envoy's own errors) as JSON-RPC, and the access log.

What authz or a route answered passes untouched; what Envoy itself answers on an MCP path is
JSON-RPC that MCP clients show to people. Nothing is logged that could hold a secret: no query, no
header but the host and the request id.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import Final

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLog,
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    ExtensionFilter,
    HeaderFilter,
    MetadataFilter,
    OrFilter,
    ResponseFlagFilter,
    StatusCodeFilter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValueOption,
    RuntimeUInt32,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.access_loggers.stream.v3 import StdoutAccessLog
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.envoy.type.matcher.v3 import (
    MetadataMatcher,
    MetadataMatcherPathSegment,
    RegexMatcher,
    StringMatcher,
    ValueMatcher,
)
from envoy_data_plane.google.protobuf import Struct

from authz.config.urls import Url
from authz.core.answers import FORM, NOBODY, NOBODY_TYPE, ORIGIN, REFUSAL, REQUEST_ID, RPC_ID, Form
from authz.core.listing import NOT_SHOWN, NOT_SHOWN_CODE, NOT_SHOWN_SENTENCE
from authz.core.reason import Reason
from authz.envoy.render.messages import TRUSTED_ADDRESS, overwrite
from authz.envoy.render.proto_json import pack
from authz.envoy.render.response_headers import cors_headers
from authz.envoy.render.settings import IssuerPortal

_JSON: Final = "application/json"
# Of the answer: what Envoy answers before it has the headers of a request (an underscore in a name,
# HTTP/1.0, no HTTP) would have none else. The same is in its body and in the access log.
_ANSWER_ID: Final = "%RESP(X-REQUEST-ID)%"
_EITHER_ID: Final = "%COALESCE({})%".format(
    json.dumps(
        {"operators": [{"command": each, "param": "X-REQUEST-ID"} for each in ("REQ", "RESP")]}
    )
)
# One field, not two: "add if absent" looks before "overwrite" has written, and both would be there.
_OWN_ID: Final = "%COALESCE({})%".format(
    json.dumps({"operators": [{"command": "REQ", "param": "X-REQUEST-ID"}, "UNIQUE_ID"]})
)
_NAMED: Final = [overwrite("x-request-id", _OWN_ID)]
# Seconds; as long as authz itself tells clients to wait for something of ours that is away.
_AWAY: Final = "5"

# Envoy's names for answers that are not its own errors (%RESPONSE_CODE_DETAILS%). A failing
# ext_authz call is `ext_authz_error`, so its 503 is not among them.
_EXT_AUTHZ: Final = "envoy.filters.http.ext_authz"
_FAULT: Final = 500
_SAID_ON_PURPOSE: Final = (
    "response.code_details in ['ext_authz_denied', 'direct_response', 'cors_response']"
)


@dataclass(frozen=True, slots=True)
class Reply:
    """State one of Envoy's own answers as MCP clients need it.

    Attributes:
        status: Envoy's status, which stays.
        label: `data.reason`.
        code: the JSON-RPC code.
        sentence: what a person reads.
        retry_after: seconds; None where waiting changes nothing or Envoy says it already.
        flag: Envoy's response flag that it is for; None for any.
        details: how %RESPONSE_CODE_DETAILS% begins where it is said, whatever failure it was; None
            for any.
    """

    status: int
    label: str
    code: int
    sentence: str
    retry_after: str | None = None
    flag: str | None = None
    details: str | None = None


def _as_authz(reason: Reason, retry_after: str | None = None, flag: str | None = None) -> Reply:
    row = reason.row
    return Reply(row.status, row.label, row.code, row.sentence, retry_after, flag)


# A response of the server that response_headers.py or Envoy's codec refused.
_REFUSED: Final = Reply(
    502,
    "server_answer_refused",
    -31075,
    "The MCP server answered in a way that this gateway does not pass on: with a redirect, a "
    "demand for credentials of its own, or no valid HTTP.",
)
# authz answered for a list that it is not shown, not in time, or not at all (list_filter.py).
_NOT_SHOWN: Final = Reply(
    500, NOT_SHOWN, NOT_SHOWN_CODE, NOT_SHOWN_SENTENCE, details="ext_proc_error"
)
# The first that matches is said. Where authz has a row for the same thing, it is that row.
REPLIES: Final = (
    _NOT_SHOWN,
    _as_authz(Reason.MALFORMED_REQUEST),
    _as_authz(Reason.UNKNOWN_SERVER),
    _as_authz(Reason.BODY_TOO_LARGE),
    _as_authz(Reason.RATE_LIMITED),
    _as_authz(Reason.INTERNAL, _AWAY, "UAEX"),
    Reply(408, "request_timeout", -31070, "The request did not arrive in time."),
    Reply(
        426, "http_version", -31076,
        "This gateway speaks HTTP/2 and HTTP/1.1, and no older version.",
    ),
    Reply(431, "headers_too_large", -31071, "The headers are larger than this gateway accepts."),
    _REFUSED,
    Reply(
        503, "server_unavailable", -31072,
        "The MCP server cannot be reached at the moment. Try again shortly.", _AWAY,
    ),
    Reply(504, "server_timeout", -31073, "The MCP server did not answer in time."),
)  # fmt: skip
_NO_LOG_IN: Final = "The log-in cannot be reached at the moment. Try again shortly."
# With or without a query; the pages' routes rewrite nothing, so this is what the client asked for.
_PEOPLE: Final = r"/authorize(\?.*)?|/authz/.*"
_PROGRAMS: Final = r"/(token|revoke|register)(\?.*)?"
HTTPS_ONLY: Final = Reply(
    403,
    "https_only",
    -31074,
    "This gateway speaks HTTPS only. Use its https:// address; a token that was sent here has "
    "been sent unprotected.",
)
OTHERWISE: Final = Reply(500, "gateway_error", -31079, "The gateway could not pass this on.")


def local_replies(
    portal: IssuerPortal | None, front_door: Url | None, *, pages: bool = False
) -> LocalReplyConfig:
    """Return how Envoy words its own answers (HttpConnectionManager.local_reply_config).

    Args:
        portal: pages for people, who are told in plain text.
        front_door: the origin under which the front door is; None where there is none.
        pages: whether there may be admin pages.
    """
    mappers = [ResponseMapper(filter=_on_purpose(), body_format_override=_AS_IT_IS)]
    if pages:
        of_page = _expression("xds.route_name.startsWith('admin:')")
        mappers.append(
            ResponseMapper(filter=of_page, body_format_override=_FOR_PEOPLE, headers_to_add=_NAMED)
        )
    if portal is not None:
        there = _host_is(portal.url)
        if portal.shares_origin:
            there = _all(there, _path_is(f"{re.escape(portal.url.path)}(?:[/?].*)?"))
        full = _all(there, _status(503))
        later = [overwrite("retry-after", _AWAY), *_NAMED]
        mappers += [
            ResponseMapper(filter=full, body_format_override=_FOR_PEOPLE, headers_to_add=later),
            ResponseMapper(filter=there, body_format_override=_FOR_PEOPLE, headers_to_add=_NAMED),
        ]
    if front_door is not None:
        mappers += _front_door(front_door)
    to_requests = [
        _to_request(reply, form)
        for reply in (*REPLIES, OTHERWISE)
        if reply.status >= _FAULT and reply.flag is None
        for form in Form
    ]
    instead = [
        mapper
        for reply in (_NOT_SHOWN, _REFUSED)
        for mapper in (*(_to_request(reply, form) for form in Form), _to_nobody(reply))
    ]
    mappers += [*map(_readable, instead), *to_requests, *map(_to_nobody, REPLIES), _otherwise()]
    return LocalReplyConfig(mappers=mappers)


def _to_nobody(reply: Reply) -> ResponseMapper:
    """Return how a request is answered whose id is not known."""
    return ResponseMapper(
        filter=_when(reply),
        body_format_override=_json_rpc(reply),
        headers_to_add=[*_retry_after(reply), *_NAMED],
    )


def _readable(mapper: ResponseMapper) -> ResponseMapper:
    """Return the same for web pages, which read no answer without the fields of CORS.

    Envoy's cors filter sees no answer that replaces a server's, and the Origin header is gone by
    then: authz said which of `gateway.origins` it was.
    """
    assert mapper.filter is not None
    of_page = _told(ORIGIN, ValueMatcher(present_match=True))
    headers = [*mapper.headers_to_add, *cors_headers(_metadata(ORIGIN))]
    return replace(mapper, filter=_all(mapper.filter, of_page), headers_to_add=headers)


def _to_request(reply: Reply, form: Form) -> ResponseMapper:
    """Return how a request that authz has let through is told that its server failed.

    authz said to which request (`core.answers.UpstreamChanges.metadata`). A status would end the
    sessions of widely used clients (docs/decisions/0011); details and flags of the access log still
    tell.
    """
    failed = _status(_FAULT, ComparisonFilterOp.GE) if reply is OTHERWISE else _when(reply)
    return ResponseMapper(
        filter=_all(failed, _form_is(form)),
        status_code=200,
        body_format_override=SubstitutionFormatString(
            text_format_source=DataSource(inline_string=_response(reply, form)),
            content_type=_JSON,
        ),
        headers_to_add=_retry_after(reply),
    )


def _response(reply: Reply, form: Form) -> str:
    """Return the text of a JSON-RPC response, in which Envoy fills in the id.

    It is text and no `json_format`: that would round long numbers.
    """
    data = {"reason": reply.label, "request_id": _metadata(REQUEST_ID)}
    outcome: dict[str, object]
    if form is Form.ERROR:
        outcome = {"error": {"code": reply.code, "message": reply.sentence, "data": data}}
    else:
        content = {"type": "text", "text": f"{reply.sentence} (Request {_metadata(REQUEST_ID)})"}
        meta = {REFUSAL: {"code": reply.code, **data}}
        result: dict[str, object] = {"content": [content], "isError": True, "_meta": meta}
        if form is Form.MODERN_RESULT:
            result["resultType"] = "complete"
        outcome = {"result": result}
    written = json.dumps({"jsonrpc": "2.0", "id": None, **outcome})
    return written.replace('"id": null', f'"id": {_metadata(RPC_ID)}', 1)


def _metadata(name: str) -> str:
    return f"%DYNAMIC_METADATA({_EXT_AUTHZ}:{name})%"


def _form_is(form: Form) -> AccessLogFilter:
    return _told(FORM, ValueMatcher(string_match=StringMatcher(exact=form.value)))


def _told(name: str, value: ValueMatcher) -> AccessLogFilter:
    """Return what matches requests of which authz has told Envoy something."""
    path = [MetadataMatcherPathSegment(key=name)]
    matcher = MetadataMatcher(filter=_EXT_AUTHZ, path=path, value=value)
    return AccessLogFilter(
        metadata_filter=MetadataFilter(matcher=matcher, match_if_key_not_found=False)
    )


def _front_door(url: Url) -> list[ResponseMapper]:
    """Return how the front door's paths are answered where the pages are not there to do it.

    People read a sentence, and programs RFC 6749's error (section 5.2): a JSON-RPC error means
    nothing to an OAuth client.
    """
    people = _all(_host_is(url), _path_is(_PEOPLE))
    programs = _all(_host_is(url), _path_is(_PROGRAMS))
    away, later = _status(500, ComparisonFilterOp.GE), [overwrite("retry-after", _AWAY)]
    too_many = Reason.RATE_LIMITED.row
    rows: tuple[tuple[AccessLogFilter, SubstitutionFormatString, list[HeaderValueOption]], ...] = (
        (_all(people, away), _FOR_PEOPLE, later),
        (people, _FOR_PEOPLE, []),
        (_all(programs, away), _oauth("temporarily_unavailable", _NO_LOG_IN), later),
        (
            _all(programs, _status(too_many.status)),
            _oauth("temporarily_unavailable", too_many.sentence),
            [],
        ),
        (programs, _oauth("invalid_request", OTHERWISE.sentence), []),
    )
    return [
        ResponseMapper(filter=when, body_format_override=body, headers_to_add=[*headers, *_NAMED])
        for when, body, headers in rows
    ]


def plain_replies() -> LocalReplyConfig:
    """Return one wording for whatever Envoy answers where no MCP server is."""
    on_purpose = ResponseMapper(filter=_on_purpose(), body_format_override=_AS_IT_IS)
    return LocalReplyConfig(mappers=[on_purpose, _otherwise()])


def _otherwise() -> ResponseMapper:
    return ResponseMapper(
        filter=_status(0, ComparisonFilterOp.GE),
        body_format_override=_json_rpc(OTHERWISE),
        headers_to_add=_NAMED,
    )


def json_rpc_error(reply: Reply, request_id: str | None) -> dict[str, object]:
    """Return the body of an error to a request whose id is not known (docs/decisions/0011)."""
    data = {"reason": reply.label, "request_id": request_id}
    error = {"code": reply.code, "message": reply.sentence, "data": data}
    return {"jsonrpc": "2.0", "id": NOBODY, "error": error}


def _json_rpc(reply: Reply) -> SubstitutionFormatString:
    body = Struct.from_dict(json_rpc_error(reply, _ANSWER_ID))
    return SubstitutionFormatString(json_format=body, content_type=NOBODY_TYPE)


def _text(text: str) -> SubstitutionFormatString:
    return SubstitutionFormatString(text_format_source=DataSource(inline_string=text))


_AS_IT_IS: Final = _text("%LOCAL_REPLY_BODY%")
_FOR_PEOPLE: Final = _text(
    "This page cannot be shown at the moment (%RESPONSE_CODE%). Try again shortly.\n"
    f"Request: {_ANSWER_ID}\n"
)


def _oauth(error: str, sentence: str) -> SubstitutionFormatString:
    body = Struct.from_dict({"error": error, "error_description": sentence})
    return SubstitutionFormatString(json_format=body, content_type=_JSON)


def _retry_after(reply: Reply) -> list[HeaderValueOption]:
    return [] if reply.retry_after is None else [overwrite("retry-after", reply.retry_after)]


def _on_purpose() -> AccessLogFilter:
    return _expression(_SAID_ON_PURPOSE)


def _expression(expression: str) -> AccessLogFilter:
    config = pack(ExpressionFilter(expression=expression))
    name = "envoy.access_loggers.extension_filters.cel"
    return AccessLogFilter(extension_filter=ExtensionFilter(name=name, typed_config=config))


def _host_is(url: Url) -> AccessLogFilter:
    filters = [
        AccessLogFilter(
            header_filter=HeaderFilter(
                header=HeaderMatcher(
                    name=":authority",
                    string_match=StringMatcher(exact=spelling, ignore_case=True),
                )
            )
        )
        for spelling in url.authorities
    ]
    return filters[0] if len(filters) == 1 else _any(*filters)


def _path_is(regex: str) -> AccessLogFilter:
    matcher = StringMatcher(safe_regex=RegexMatcher(regex=regex))
    header = HeaderMatcher(name=":path", string_match=matcher)
    return AccessLogFilter(header_filter=HeaderFilter(header=header))


def _status(number: int, op: ComparisonFilterOp = ComparisonFilterOp.EQ) -> AccessLogFilter:
    # The key names a runtime value that nobody sets; Envoy demands one.
    status = RuntimeUInt32(default_value=number, runtime_key="gateway.local_reply")
    return AccessLogFilter(
        status_code_filter=StatusCodeFilter(comparison=ComparisonFilter(op=op, value=status))
    )


def _all(*filters: AccessLogFilter) -> AccessLogFilter:
    return AccessLogFilter(and_filter=AndFilter(filters=list(filters)))


def _any(*filters: AccessLogFilter) -> AccessLogFilter:
    return AccessLogFilter(or_filter=OrFilter(filters=list(filters)))


def _when(reply: Reply) -> AccessLogFilter:
    if reply.details is not None:
        return _expression(f"response.code_details.startsWith('{reply.details}')")
    if reply.flag is None:
        return _status(reply.status)
    by_flag = AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=[reply.flag]))
    return _all(_status(reply.status), by_flag)


# X-Forwarded-Host is what the route says, X-Envoy-Original-Path what the client asked for before
# the route rewrote it; without a route, or a rewrite, the request's own are the right ones.
_FIELDS: Final = {
    "time": "%START_TIME%",
    "address": TRUSTED_ADDRESS,
    "method": "%REQ(:METHOD):32%",
    "host": "%REQ(X-FORWARDED-HOST?:AUTHORITY):256%",
    "path": "%PATH(NQ:ORIG_OR_PATH):512%",
    "route": "%ROUTE_NAME%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "reason": _metadata("reason"),
    "duration_ms": "%DURATION%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "protocol": "%PROTOCOL%",
    "tls": "%DOWNSTREAM_TLS_VERSION%",
    "request_id": _EITHER_ID,
}


def access_log() -> AccessLog:
    """Return one JSON line a request on the standard output."""
    config = StdoutAccessLog(
        log_format=SubstitutionFormatString(json_format=Struct.from_dict(dict(_FIELDS)))
    )
    return AccessLog(name="envoy.access_loggers.stdout", typed_config=pack(config))
