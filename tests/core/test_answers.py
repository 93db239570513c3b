"""What clients and upstreams are told: challenges, JSON-RPC errors, identity headers."""

import json
import re
from dataclasses import replace

import mcp_types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.answers import IDENTITY, REFUSAL, REMOVED, HttpAnswer, rate_limit, refusal, upstream
from authz.core.decision import Allow, Deny
from authz.core.exchanges import Exchange, exchange
from authz.core.ledger import Mode
from authz.core.limits import Quota
from authz.core.mcp import Envelope, Message, MessageKind
from authz.core.policy import MODERN, RefusalForm, Rule
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.second_factor import Method, SecondFactor
from tests.support.values import LIMIT, NOW, policy, principal, server, visitor

ASKED = Envelope(1, "tools/call")
METADATA = "https://mcp.example.test/.well-known/oauth-protected-resource/files"


POLICY = policy(max_stream=3600.0, stream_recheck=900.0)
CALL = Message(MessageKind.REQUEST, "tools/call", 1, "read_file", None)


def header(answer: HttpAnswer, name: str) -> str | None:
    return dict(answer.headers).get(name)


def allow(**changes: object) -> Allow:
    return Allow(server(), None, principal(**changes), (), Mode.REDIS)


def call(
    rpc_id: str | int | None, method: str, tool: str | None, version: str | None = None
) -> Message:
    kind = MessageKind.NOTIFICATION if rpc_id is None else MessageKind.REQUEST
    return Message(kind, method, rpc_id, tool, version)


@pytest.mark.parametrize("reason", [pytest.param(r, id=r.label) for r in Reason])
def test_every_refusal_is_json_rpc_with_the_requests_id(reason: Reason) -> None:
    """MCP clients show the JSON-RPC message and need the id of what they sent."""
    answer = refusal(Deny(reason, "for the log only", server()), Envelope("seven", "ping"), "req-1")
    body = json.loads(answer.body)

    assert answer.status == reason.row.status
    assert header(answer, "content-type") == "application/json"
    assert header(answer, "cache-control") == "no-store"
    assert body["jsonrpc"] == "2.0"
    assert body["id"] == "seven"
    assert body["error"]["code"] == reason.row.code
    assert body["error"]["message"].startswith(reason.row.sentence)
    assert body["error"]["data"]["reason"] == reason.label
    assert body["error"]["data"]["request_id"] == "req-1"
    assert "for the log only" not in answer.body.decode()


def test_a_request_whose_id_is_unknown_is_answered_with_an_empty_one() -> None:
    """Decision 11: the form that Python's client shows and that neither rmcp nor Go chokes on."""
    for reason in Reason:
        answer = refusal(Deny(reason, "", server(), principal=principal()), None, "")

        assert json.loads(answer.body)["id"] == ""
        assert header(answer, "content-type") == "application/json-rpc"
        assert answer.status == (reason.row.get_status or reason.row.status)


OF_OPERATIONS = {
    Reason.CLIENT_NOT_ALLOWED, Reason.MACHINE_NOT_ALLOWED, Reason.PERSON_NOT_ALLOWED,
    Reason.TOOL_NOT_ALLOWED, Reason.SECOND_FACTOR_REQUIRED, Reason.LOGIN_TOO_OLD,
    Reason.RATE_LIMITED, Reason.TOO_MANY_STREAMS, Reason.TOO_MANY_REFUSALS,
    Reason.ISSUER_UNAVAILABLE, Reason.LEDGER_UNAVAILABLE, Reason.INTERNAL,
    Reason.METHOD_NOT_OFFERED, Reason.APPROVAL_REQUIRED, Reason.APPROVAL_DECLINED,
    Reason.APPROVAL_IMPOSSIBLE, Reason.PROMPT_NOT_ALLOWED, Reason.RESOURCE_NOT_ALLOWED,
    Reason.ARGUMENTS_NOT_ALLOWED, Reason.TOOL_CHANGED,
}  # fmt: skip


@pytest.mark.parametrize("reason", [pytest.param(r, id=r.label) for r in Reason])
def test_a_refused_tool_call_of_a_valid_token_is_a_result(reason: Reason) -> None:
    """What concerns the operation alone is HTTP 200 and words for the model; the rest a status."""
    deny = Deny(reason, "", server(), principal=principal())
    answer = refusal(deny, Envelope(7, "tools/call"), "req-1")
    body = json.loads(answer.body)

    assert (answer.status == 200) is (reason in OF_OPERATIONS)
    if reason not in OF_OPERATIONS:
        assert (answer.status, body["error"]["code"]) == (reason.row.status, reason.row.code)
        return
    assert (body["id"], body["result"]["isError"]) == (7, True)
    assert body["result"]["content"][0]["type"] == "text"
    assert body["result"]["content"][0]["text"].startswith(reason.row.sentence)
    told = body["result"]["_meta"][REFUSAL]
    assert (told["code"], told["reason"], told["request_id"]) == (
        reason.row.code,
        reason.label,
        "req-1",
    )
    assert "resultType" not in body["result"]


def test_a_result_of_the_modern_era_says_that_it_is_complete() -> None:
    """MCP 2026-07-28 asks every result for its type, and the official type takes ours."""
    deny = Deny(Reason.TOOL_NOT_ALLOWED, "", server(), principal=principal())
    asked = Envelope(7, "tools/call", modern=True)
    result = json.loads(refusal(deny, asked, "").body)["result"]

    assert result["resultType"] == "complete"
    assert mcp_types.CallToolResult.model_validate(result).is_error


@pytest.mark.parametrize(
    ("form", "method", "who", "status"),
    [
        (RefusalForm.TOOL_RESULT, "prompts/get", principal(), 200),
        (RefusalForm.JSON_RPC, "tools/call", principal(), 200),
        (RefusalForm.HTTP_STATUS, "tools/call", principal(), 429),
        (RefusalForm.TOOL_RESULT, "tools/call", None, 429),
    ],
)
def test_a_refusal_is_an_error_where_no_result_fits(
    form: RefusalForm, method: str, who: Principal | None, status: int
) -> None:
    """An error under 200 for other methods, the status where asked for or nobody is known."""
    quotas = (Quota(LIMIT, 0, 12),)
    deny = Deny(Reason.RATE_LIMITED, "", server(), principal=who, quotas=quotas, retry_after=12)

    answer = refusal(deny, Envelope("a", method), "", form=form)
    body = json.loads(answer.body)

    assert (answer.status, body["id"]) == (status, "a")
    assert body["error"]["code"] == Reason.RATE_LIMITED.row.code
    assert header(answer, "retry-after") == "12"
    assert header(answer, "ratelimit") == '"files:user:60/minute";r=0;t=12'


@pytest.mark.parametrize("reason", [pytest.param(r, id=r.label) for r in Reason])
def test_every_401_is_a_challenge(reason: Reason) -> None:
    """RFC 9110, section 15.5.2: a 401 carries WWW-Authenticate; RFC 9728 names the metadata."""
    challenge = header(refusal(Deny(reason, "", server()), ASKED, ""), "www-authenticate")

    expected = reason.row.status == 401 or reason is Reason.INSUFFICIENT_SCOPE
    assert (challenge is not None) is expected
    if challenge is not None:
        assert challenge.startswith("Bearer ")
        assert f'resource_metadata="{METADATA}"' in challenge


def test_who_sent_no_token_learns_no_error_code() -> None:
    """RFC 6750, section 3.1: no error code for a request without authentication."""
    deny = Deny(Reason.TOKEN_MISSING, "", server(), scopes=frozenset({"b", "a"}))

    challenge = header(refusal(deny, ASKED, ""), "www-authenticate")

    assert challenge == f'Bearer resource_metadata="{METADATA}", scope="a b"'


def test_a_missing_scope_is_told_with_all_of_them() -> None:
    """RFC 6750, section 3.1: insufficient_scope names the scopes that the operation needs."""
    deny = Deny(Reason.INSUFFICIENT_SCOPE, "", server(), scopes=frozenset({"b", "a"}))

    answer = refusal(deny, ASKED, "")

    challenge = header(answer, "www-authenticate") or ""
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="a b"' in challenge
    assert json.loads(answer.body)["error"]["data"]["scopes"] == ["a", "b"]


def test_a_missing_scope_is_told_with_what_the_token_has() -> None:
    """MCP 2025-11-25: a client that asks for the scopes of the challenge keeps what it has at this
    server, and is told of nothing that it has elsewhere.
    """
    of = server(Rule(scopes=frozenset({"a"})), {"r": Rule(scopes=frozenset({"r"}))})
    who = principal(scopes=frozenset({"a", "r", "openid", "elsewhere"}))
    deny = Deny(Reason.INSUFFICIENT_SCOPE, "", of, None, who, scopes=frozenset({"a", "w"}))

    answer = refusal(deny, ASKED, "")

    assert 'scope="a r w"' in (header(answer, "www-authenticate") or "")
    assert json.loads(answer.body)["error"]["data"]["scopes"] == ["a", "w"]


def test_a_missing_second_factor_is_told_in_words() -> None:
    """A challenge would send the official client into a second log-in that changes nothing."""
    deny = Deny(Reason.LOGIN_TOO_OLD, "", server(), second_factor=SecondFactor(Method.TOTP, 300))

    answer = refusal(deny, ASKED, "")

    assert header(answer, "www-authenticate") is None
    message = json.loads(answer.body)["error"]["message"]
    assert "one-time password" in message
    assert "300 s" in message


def test_a_limit_is_told_in_fields_and_words() -> None:
    """Retry-After, RateLimit and RateLimit-Policy say the same as the sentence."""
    deny = Deny(Reason.RATE_LIMITED, "", server(), quotas=(Quota(LIMIT, 0, 12),), retry_after=12)

    answer = refusal(deny, ASKED, "")

    assert header(answer, "retry-after") == "12"
    assert header(answer, "ratelimit-policy") == '"files:user:60/minute";q=60;w=60'
    assert header(answer, "ratelimit") == '"files:user:60/minute";r=0;t=12'
    assert "12 s" in json.loads(answer.body)["error"]["message"]


def test_without_limits_there_are_no_fields() -> None:
    """An empty list is no structured field value (RFC 9651, section 3.1)."""
    assert rate_limit(()) == ()


def test_of_several_groups_the_scarcest_is_told() -> None:
    """A limit that has charged several buckets is one member of the list (RFC 9651)."""
    quotas = Quota(LIMIT, 7, 3), Quota(LIMIT, 1, 12), Quota(LIMIT, 9, 1)

    assert rate_limit(quotas) == rate_limit((Quota(LIMIT, 1, 12),))


def test_a_limit_in_shadow_is_not_told() -> None:
    """A client would wait for what refuses nothing."""
    trial = Quota(replace(LIMIT, name="trial", shadow=True), 0, 12, exceeded=True)

    assert rate_limit((trial,)) == ()
    assert rate_limit((trial, Quota(LIMIT, 1, 12))) == rate_limit((Quota(LIMIT, 1, 12),))


def test_a_limit_near_its_end_is_told_apart() -> None:
    """Those past their `warn_at` stand in a header of their own; where there is none, none."""
    careful = replace(LIMIT, name="careful", warn_at=80)
    near, far = Quota(careful, 12, 31), Quota(LIMIT, 1, 12)

    told = dict(rate_limit((near, far)))

    assert told["x-authz-limit-near"] == '"careful";r=12;t=31'
    assert told["ratelimit"] == f'"careful";r=12;t=31, "{LIMIT.name}";r=1;t=12'
    assert "x-authz-limit-near" not in dict(rate_limit((Quota(careful, 13, 31), far)))
    assert rate_limit((replace(near, limit=replace(careful, shadow=True)),)) == ()


@pytest.mark.parametrize(
    "reason", [Reason.ISSUER_UNAVAILABLE, Reason.LEDGER_UNAVAILABLE, Reason.INTERNAL]
)
def test_a_fault_of_ours_says_when_to_come_back(reason: Reason) -> None:
    """A 503 carries Retry-After: a 401 would throw a good log-in away."""
    assert header(refusal(Deny(reason, "", server()), ASKED, ""), "retry-after") is not None


def test_sentences_fit_into_a_quoted_string() -> None:
    """RFC 6750, section 3: error_description holds neither quotes nor backslashes."""
    for reason in Reason:
        assert re.fullmatch(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+", reason.row.sentence), reason
        assert re.fullmatch(r"[a-z_]+", reason.label), reason


def test_labels_are_unique_and_codes_are_no_standard_ones() -> None:
    """Each reason is one label; codes of ours lie outside JSON-RPC's and MCP's range."""
    assert len({reason.label for reason in Reason}) == len(Reason)
    standard = {-32700, -32600, -32601, -32020, -32022, -32602}
    for reason in Reason:
        code = reason.row.code
        assert code in standard or not -32768 <= code <= -32000, reason


# --- the upstream -----------------------------------------------------------------------------


def test_the_upstream_learns_who_asks_and_never_by_what() -> None:
    """Identity is set, credentials and method overrides are removed."""
    sent = upstream(allow(groups=frozenset({"staff", "a,b"})), POLICY, 0)
    given_headers = dict(sent.set_headers)

    assert given_headers["x-authz-subject"] == "52b134ec-d812-4022-82b4-9100df7e1418"
    assert given_headers["x-authz-client"] == "claude"
    assert given_headers["x-authz-scopes"] == "mcp:files"
    assert given_headers["x-authz-groups"] == "a%2Cb,staff"
    assert set(REMOVED) <= set(sent.remove_headers)
    assert {"authorization", "cookie"} <= set(REMOVED)


@pytest.mark.attack("spoofed-identity")
def test_an_identity_header_is_set_or_removed_never_left() -> None:
    """What a client sends under one of our names never reaches the upstream."""
    for token in (allow(), allow(subject=None), allow(scopes=frozenset())):
        sent = upstream(token, POLICY, 0)
        named = {name for name, _ in sent.set_headers}

        assert named | set(sent.remove_headers) >= set(IDENTITY)
        assert named.isdisjoint(sent.remove_headers)


@given(st.text(), st.text(), st.frozensets(st.text(), max_size=3))
@pytest.mark.attack("header-split")
def test_no_value_splits_a_header(subject: str, client_id: str, names: frozenset[str]) -> None:
    """Whatever a claim holds, the header is printable ASCII without separators of ours."""
    try:
        sent = upstream(
            allow(subject=subject, client_id=client_id, groups=names, scopes=names), POLICY, 0
        )
    except UnicodeEncodeError:
        return  # a lone surrogate: the check turns it into a refusal
    for name, value in sent.set_headers:
        assert re.fullmatch(r"[\x20-\x7e]*", value), name
    groups = dict(sent.set_headers).get("x-authz-groups", "")
    assert groups.count(",") == max(0, len(names) - 1) or "" in names


@pytest.mark.attack("stream-outlives-token")
@given(
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.sampled_from(Exchange),
)
def test_no_exchange_outlives_its_token(
    left: int, longest: int, recheck: int, kind: Exchange
) -> None:
    """It ends with the token or the configured maximum; a listening one when it is judged anew."""
    token = principal(expires_at=int(NOW) + left)
    rules = policy(max_stream=float(longest), stream_recheck=float(recheck))
    allowed = Allow(server(), None, token, (), Mode.REDIS, exchange=kind)
    lasts = upstream(allowed, rules, NOW).lasts
    ends = (left, longest, recheck) if kind is Exchange.STREAM else (left, longest)

    assert lasts == min(ends) * 1000


@pytest.mark.parametrize(
    ("method", "seconds"),
    [("subscriptions/listen", 900), ("tools/call", 3600), ("resources/read", 3600), ("", 3600)],
)
def test_only_what_waits_for_notifications_is_judged_anew(method: str, seconds: int) -> None:
    """A tool call that is under way goes on until its token expires."""
    message = replace(CALL, method=method, tool=None)
    kind = exchange("POST", method)
    token = principal(expires_at=int(NOW) + 10**6)
    allowed = Allow(server(), message, token, (), Mode.REDIS, exchange=kind)

    assert upstream(allowed, POLICY, NOW).lasts == seconds * 1000


def test_the_deny_record_is_frozen() -> None:
    """A refusal cannot be turned into something else after it was made."""
    deny = Deny(Reason.INTERNAL)

    with pytest.raises(AttributeError):
        deny.reason = Reason.RATE_LIMITED  # type: ignore[misc]
    assert replace(deny, detail="x").reason is Reason.INTERNAL


def test_a_server_is_told_the_scopes_that_were_consented_to() -> None:
    """What the front door asked for besides stays inside; a direct client's are its own."""
    scopes = frozenset({"mcp:files", "mcp:files:write", "openid", "offline_access", "profile"})
    where = server(
        Rule(scopes=frozenset({"mcp:files"})),
        {"delete_*": Rule(scopes=frozenset({"mcp:files:write"}))},
    )
    told = {
        name: dict(
            upstream(Allow(where, None, who(scopes=scopes), (), Mode.REDIS), POLICY, 0).set_headers
        )["x-authz-scopes"]
        for name, who in (("door", visitor), ("direct", principal))
    }

    assert told["door"] == "mcp:files mcp:files:write"
    assert told["direct"].split() == sorted(scopes)


@pytest.mark.parametrize(
    ("message", "form", "expected"),
    [
        (call(7, "tools/call", "x"), RefusalForm.TOOL_RESULT, ("7", "result")),
        (call('a"é', "tools/call", "x"), RefusalForm.TOOL_RESULT, ('"a\\"\\u00e9"', "result")),
        (call(7, "tools/call", "x", MODERN), RefusalForm.TOOL_RESULT, ("7", "modern_result")),
        (call(7, "tools/list", None), RefusalForm.TOOL_RESULT, ("7", "error")),
        (call(7, "tools/call", "x"), RefusalForm.JSON_RPC, ("7", "error")),
        (call(7, "tools/call", "x"), RefusalForm.HTTP_STATUS, None),
        (call(None, "notifications/cancelled", None), RefusalForm.TOOL_RESULT, None),
        (None, RefusalForm.TOOL_RESULT, None),
    ],
)
def test_envoy_learns_to_whom_it_would_answer(
    message: Message | None, form: RefusalForm, expected: tuple[str, str] | None
) -> None:
    """The JSON of the id and how a failure is told; nothing where a status is wanted or no id."""
    rules = policy(refusals=form)
    told = dict(upstream(replace(allow(), message=message), rules, NOW, "r-1").metadata)

    if expected is None:
        assert told == {}
    else:
        assert told == {"id": expected[0], "form": expected[1], "request_id": "r-1"}


@pytest.mark.parametrize("form", RefusalForm)
def test_envoy_learns_which_page_asked(form: RefusalForm) -> None:
    """Whatever it would answer, the page has to read it; of what no page sent nothing is said."""
    allowed, rules = replace(allow(), message=call(7, "tools/call", "x")), policy(refusals=form)
    page = "https://inspector.example.com"

    assert dict(upstream(allowed, rules, NOW, "r-1", page).metadata)["origin"] == page
    assert "origin" not in dict(upstream(allowed, rules, NOW, "r-1").metadata)


def test_an_unsupported_version_is_told_with_what_is_supported() -> None:
    """MCP 2026-07-28, UnsupportedProtocolVersionError: the server's versions, and the asked one."""
    of = server(versions=frozenset({"2025-06-18", "2025-11-25"}))
    deny = Deny(Reason.UNSUPPORTED_VERSION, "", of)
    told = json.loads(refusal(deny, Envelope(1, "ping", version="2099-01-01"), "").body)["error"]

    assert told["code"] == -32022
    assert told["data"]["supported"] == ["2025-11-25", "2025-06-18"]
    assert told["data"]["requested"] == "2099-01-01"
    nobody = json.loads(refusal(deny, None, "").body)["error"]["data"]
    assert "requested" not in nobody
    assert nobody["supported"]
