"""The decision, step by step: every rule that matches applies, only a whole pass is an Allow."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import authz
from authz.core.approval import Approval, strictest
from authz.core.decision import (
    Allow,
    BearerRequest,
    Deny,
    PendingDecision,
    authorize,
    conclude,
    judges_route,
    read,
)
from authz.core.ledger import Mode, OverLimit, Revoked, StepUpMissing, StepUpTooOld, Taken
from authz.core.limits import Quota
from authz.core.policy import DeclaredClient, Policy, Rule
from authz.core.reason import Reason
from authz.core.request import HttpRequest
from authz.core.second_factor import Evidence, Method, SecondFactor
from tests.support.compiled import compiled, interpreted
from tests.support.values import FILES, LIMIT, NOW, call, policy, principal, request, rpc, server

TOTP = SecondFactor(Method.TOTP)
ANY = SecondFactor(Method.ANY)


def reason_of(decision: object) -> Reason | None:
    return decision.reason if isinstance(decision, Deny) else None


def the_call(body: bytes | None = None, of: object = None) -> BearerRequest:
    found = read(request(body), policy(of))  # type: ignore[arg-type]  # a Server or None
    assert isinstance(found, BearerRequest), found
    return found


# --- read -------------------------------------------------------------------------------------


def test_a_log_in_is_asked_for_with_the_scopes_of_the_challenge() -> None:
    """Whatever ends in a new log-in names what one should have; what a scope is missing for names
    what the operation needs.
    """
    tools = {"w": Rule(scopes=frozenset({"w"})), "r": Rule(scopes=frozenset({"r"}))}
    of = server(Rule(scopes=frozenset({"a"})), tools, challenge=frozenset({"a", "w", "r"}))
    missing = read(request(authorization=None), policy(of))
    assert isinstance(missing, Deny)
    assert missing.scopes == frozenset("awr")
    called = the_call(call("w"), of)
    elsewhere = authorize(called, principal(audience=("https://other.test",)), policy(of), NOW)
    assert isinstance(elsewhere, Deny)
    assert (elsewhere.reason, elsewhere.scopes) == (Reason.AUDIENCE_MISMATCH, frozenset("awr"))
    narrow = authorize(called, principal(scopes=frozenset({"a"})), policy(of), NOW)
    assert isinstance(narrow, Deny)
    assert (narrow.reason, narrow.scopes) == (Reason.INSUFFICIENT_SCOPE, frozenset("aw"))
    has = principal(scopes=frozenset({"a", "w"}))
    pending = authorize(called, has, policy(of), NOW)
    assert isinstance(pending, PendingDecision)
    revoked = conclude(pending, Revoked("token"))
    assert isinstance(revoked, Deny)
    assert revoked.scopes == frozenset("awr")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(request(method="PUT"), Reason.METHOD_NOT_ALLOWED, id="put"),
        pytest.param(request(method="OPTIONS"), Reason.METHOD_NOT_ALLOWED, id="plain-options"),
        pytest.param(request(method="post"), Reason.METHOD_NOT_ALLOWED, id="method-case"),
        pytest.param(request(origin="https://evil.test"), Reason.FOREIGN_ORIGIN, id="origin"),
        pytest.param(request(origin="null"), Reason.FOREIGN_ORIGIN, id="origin-null"),
        pytest.param(request(origin=""), Reason.FOREIGN_ORIGIN, id="origin-empty"),
        pytest.param(
            request(path="/files?access_token=x"), Reason.TOKEN_IN_QUERY, id="token-in-query"
        ),
        pytest.param(
            request(path="/files?a=1&access%5ftoken=x"), Reason.TOKEN_IN_QUERY, id="escaped-query"
        ),
        pytest.param(request(context={}), Reason.UNKNOWN_SERVER, id="no-context"),
        pytest.param(request(context={"server": "x"}), Reason.UNKNOWN_SERVER, id="other-server"),
        pytest.param(request(authorization=None), Reason.TOKEN_MISSING, id="no-token"),
        pytest.param(request(authorization=""), Reason.TOKEN_MISSING, id="empty-authorization"),
        pytest.param(request(authorization="Basic eDp5"), Reason.TOKEN_MISSING, id="basic"),
        pytest.param(request(authorization="Bearer"), Reason.TOKEN_MALFORMED, id="bearer-alone"),
        pytest.param(request(authorization="Bearer "), Reason.TOKEN_MALFORMED, id="bearer-blank"),
        pytest.param(request(authorization="Bearer  a"), Reason.TOKEN_MALFORMED, id="two-blanks"),
        pytest.param(request(authorization="Bearer\ta"), Reason.TOKEN_MALFORMED, id="tab"),
        pytest.param(request(authorization="Bearer a,b"), Reason.TOKEN_MALFORMED, id="comma"),
        pytest.param(
            request(authorization="Bearer a,Bearer b"), Reason.TOKEN_MALFORMED, id="two-headers"
        ),
        pytest.param(
            request(authorization="Basic eDp5,Bearer b"), Reason.TOKEN_MALFORMED, id="two-schemes"
        ),
        pytest.param(request(authorization="Bearer \xff"), Reason.TOKEN_MALFORMED, id="non-ascii"),
        pytest.param(request(authorization="Bearer a="), Reason.TOKEN_MALFORMED, id="padding"),
        pytest.param(
            request(authorization="Bearer " + "a" * 8193), Reason.TOKEN_MALFORMED, id="over-long"
        ),
        pytest.param(request(b"x", "GET"), Reason.MALFORMED_REQUEST, id="get-with-body"),
        pytest.param(
            request(method="GET", content_length="5"), Reason.MALFORMED_REQUEST, id="get-length"
        ),
        pytest.param(
            request(method="DELETE", transfer_encoding="chunked"),
            Reason.MALFORMED_REQUEST,
            id="delete-chunked",
        ),
    ],
)
@pytest.mark.attack("request-shape")
def test_an_odd_request_is_refused_before_anybody_is_asked(
    sent: HttpRequest, expected: Reason
) -> None:
    """A request that no MCP client sends is refused with its own reason."""
    assert reason_of(read(sent, policy())) is expected


@given(
    st.sampled_from([None, "", "a", "b"]),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(["GET", "POST"]),
)
@pytest.mark.attack("route-of-another-upstream")
def test_rules_are_for_one_upstream(told: str | None, known: str, method: str) -> None:
    """A route that leads elsewhere than the rules are for is refused, whoever calls."""
    context = {"server": "files"} | ({} if told is None else {"upstream": told})
    sent = request(call("x") if method == "POST" else b"", method, context=context)
    rules = policy(server(upstream=known))

    found = read(sent, rules)

    assert (reason_of(found) is Reason.ROUTE_OUTDATED) is (told is not None and told != known)
    assert judges_route(rules, sent) is isinstance(found, BearerRequest)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_has_no_case(scheme: str) -> None:
    """RFC 9110, section 11.1: the scheme is case-insensitive, the token is not."""
    found = read(request(authorization=f"{scheme} AbC"), policy())

    assert isinstance(found, BearerRequest)
    assert found.token == "AbC"


def test_a_known_origin_passes() -> None:
    """An origin of the configuration is compared as a string, and passes."""
    rules = policy(origins=frozenset({"https://inspector.test"}))

    assert isinstance(read(request(origin="https://inspector.test"), rules), BearerRequest)
    assert reason_of(read(request(origin="https://Inspector.test"), rules)) is Reason.FOREIGN_ORIGIN


def test_streams_and_session_ends_need_a_server_of_the_older_era() -> None:
    """2026-07-28 has neither GET streams nor sessions to DELETE."""
    modern = policy(server(versions=frozenset({"2026-07-28"})))

    for method in ("GET", "DELETE"):
        assert isinstance(read(request(method=method), policy()), BearerRequest)
        assert reason_of(read(request(method=method), modern)) is Reason.METHOD_NOT_ALLOWED


def outcome_of(sent: HttpRequest, rules: Policy) -> Reason | None:
    """Run the two steps before the ledger."""
    found = read(sent, rules)
    if isinstance(found, BearerRequest):
        return reason_of(authorize(found, principal(), rules, NOW))
    return found.reason


def test_a_version_that_the_server_does_not_accept_is_refused() -> None:
    """A legacy message, with or without its header, needs a server that accepts the era."""
    modern = policy(server(versions=frozenset({"2026-07-28"})))
    sent = request(mcp_protocol_version="2025-11-25")

    assert outcome_of(request(), modern) is Reason.UNSUPPORTED_VERSION
    assert outcome_of(sent, modern) is Reason.UNSUPPORTED_VERSION
    assert outcome_of(sent, policy()) is None


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (None, None),
        ("2025-11-25", None),
        ("2026-07-28", Reason.UNSUPPORTED_VERSION),
        ("x", Reason.UNSUPPORTED_VERSION),
    ],
)
def test_a_stream_is_of_the_older_era(version: str | None, expected: Reason | None) -> None:
    """A GET that says another version than a session's is refused."""
    sent = request(method="GET", mcp_protocol_version=version)

    assert outcome_of(sent, policy()) is expected


@pytest.mark.attack("mcp-notifications")
@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
    ],
    ids=["notification", "response"],
)
def test_notifications_and_responses_need_a_server_of_the_older_era(body: bytes) -> None:
    """Without sessions there is nothing to notify or to answer."""
    modern = policy(server(versions=frozenset({"2026-07-28"})))

    assert outcome_of(request(body), policy()) is None
    assert outcome_of(request(body), modern) in {
        Reason.INVALID_MESSAGE,
        Reason.UNSUPPORTED_VERSION,
    }
    sent = request(body, mcp_protocol_version="2026-07-28", mcp_method="notifications/cancelled")
    assert outcome_of(sent, modern) in {Reason.INVALID_MESSAGE, Reason.HEADER_MISMATCH}


@pytest.mark.attack("strangers-cost-nothing")
def test_a_body_is_not_read_before_its_token_was_verified() -> None:
    """Without a token the body may be anything: it is not looked at."""
    for body in (b"", b"[]", b"{" * 1_000_000):
        assert reason_of(read(request(body, authorization=None), policy())) is Reason.TOKEN_MISSING
        assert isinstance(read(request(body), policy()), BearerRequest)


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"", Reason.BODY_MISSING), (b"[]", Reason.BATCH), (b"{", Reason.MALFORMED_JSON)],
)
def test_a_body_that_cannot_be_read_is_refused(body: bytes, expected: Reason) -> None:
    """With a good token, a message that is none is a 400 and never "no tool"."""
    assert outcome_of(request(body), policy()) is expected


# --- authorize --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "aud",
    [
        pytest.param((), id="empty"),
        pytest.param(("https://mcp.example.test/notes",), id="other-server"),
        pytest.param((FILES + "/private",), id="longer-path"),
        pytest.param((FILES + "?x=1",), id="query"),
        pytest.param((FILES + "/../notes",), id="dot-segments"),
        pytest.param((FILES + "//",), id="two-slashes"),
        pytest.param(("https://MCP.example.test/files",), id="upper-host"),
    ],
)
@pytest.mark.attack("audience")
def test_an_audience_is_compared_as_a_string(aud: tuple[str, ...]) -> None:
    """A token whose audience is not this very server is refused, whatever it resembles."""
    denied = authorize(the_call(), principal(audience=aud), policy(), NOW)

    assert reason_of(denied) is Reason.AUDIENCE_MISMATCH


def test_where_clients_are_named_others_are_refused() -> None:
    """A client of the issuer that the operator never named may not pass."""
    rules = policy(None, DeclaredClient("other"))

    assert reason_of(authorize(the_call(), principal(), rules, NOW)) is Reason.CLIENT_NOT_ALLOWED
    assert isinstance(
        authorize(the_call(), principal(), policy(None, DeclaredClient("claude")), NOW),
        PendingDecision,
    )


@pytest.mark.attack("other-issuer")
def test_nothing_is_inherited_from_another_issuer() -> None:
    """The same client id and subject at another issuer are other people."""
    denied = authorize(the_call(), principal(issuer="https://other.test"), policy(), NOW)

    assert reason_of(denied) is Reason.TOKEN_INVALID


def test_where_tools_are_named_others_are_refused() -> None:
    """An unnamed tool has no permission; a server without tool rules offers all."""
    ruled = server(tools={"read_*": Rule()})

    assert (
        reason_of(authorize(the_call(call("drop"), ruled), principal(), policy(ruled), NOW))
        is Reason.TOOL_NOT_ALLOWED
    )
    assert isinstance(
        authorize(the_call(call("read_x"), ruled), principal(), policy(ruled), NOW), PendingDecision
    )
    assert isinstance(
        authorize(the_call(call("drop")), principal(), policy(), NOW), PendingDecision
    )


@pytest.mark.parametrize("order", [("*", "delete_*"), ("delete_*", "*")])
@pytest.mark.attack("weak-pattern-beside-a-strict-one")
def test_a_weaker_pattern_weakens_nothing(order: tuple[str, str]) -> None:
    """Every rule whose pattern matches applies, in whatever order they stand."""
    rules = {"*": Rule(), "delete_*": Rule(scopes=frozenset({"mcp:files:write"}))}
    ruled = server(tools={pattern: rules[pattern] for pattern in order})

    denied = authorize(the_call(call("delete_x"), ruled), principal(), policy(ruled), NOW)

    assert reason_of(denied) is Reason.INSUFFICIENT_SCOPE


def test_a_scope_refusal_names_every_scope_of_the_operation() -> None:
    """The challenge asks for all scopes at once, the server's and the tool's."""
    ruled = server(
        Rule(scopes=frozenset({"mcp:files"})),
        {"delete_*": Rule(scopes=frozenset({"mcp:files:write"}))},
    )

    denied = authorize(the_call(call("delete_x"), ruled), principal(), policy(ruled), NOW)

    assert isinstance(denied, Deny)
    assert denied.reason is Reason.INSUFFICIENT_SCOPE
    assert denied.scopes == {"mcp:files", "mcp:files:write"}


def test_a_client_declared_with_fewer_scopes_uses_no_more() -> None:
    """What the issuer granted beyond the declaration is worth nothing here."""
    ruled = server(Rule(scopes=frozenset({"mcp:files"})))
    narrow = policy(ruled, DeclaredClient("claude", scopes=frozenset({"mcp:notes"})))

    denied = authorize(the_call(None, ruled), principal(), narrow, NOW)

    assert reason_of(denied) is Reason.INSUFFICIENT_SCOPE


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (frozenset[str](), Reason.PERSON_NOT_ALLOWED),
        (frozenset({"dev"}), Reason.PERSON_NOT_ALLOWED),
        (frozenset({"Staff"}), Reason.PERSON_NOT_ALLOWED),
        (frozenset({"dev", "staff"}), None),
    ],
)
def test_a_person_must_be_in_one_of_the_groups(
    groups: frozenset[str], expected: Reason | None
) -> None:
    """One of the groups is enough; group names have case."""
    ruled = server(Rule(groups=frozenset({"staff", "admins"})))

    found = authorize(the_call(None, ruled), principal(groups=groups), policy(ruled), NOW)

    assert reason_of(found) is expected


# --- machines ---------------------------------------------------------------------------------

BACKUP = DeclaredClient("backup", machine=True)


@pytest.mark.parametrize(
    ("ruled", "expected"),
    [
        pytest.param(server(), Reason.MACHINE_NOT_ALLOWED, id="not-named"),
        pytest.param(server(machines=frozenset({"backup"})), None, id="named"),
        pytest.param(
            server(
                Rule(groups=frozenset({"staff"}), second_factor=TOTP), None, frozenset({"backup"})
            ),
            None,
            id="in-place-of-the-servers-people",
        ),
        pytest.param(
            server(None, {"read_x": Rule(groups=frozenset({"a"}))}, frozenset({"backup"})),
            Reason.MACHINE_NOT_ALLOWED,
            id="never-in-place-of-a-tools-groups",
        ),
        pytest.param(
            server(None, {"*": Rule(), "read_*": Rule(second_factor=ANY)}, frozenset({"backup"})),
            Reason.MACHINE_NOT_ALLOWED,
            id="never-in-place-of-a-tools-factor",
        ),
    ],
)
def test_a_machine_passes_only_where_it_is_named(ruled: object, expected: Reason | None) -> None:
    """A token without a person needs its client named, and a tool that asks for no people."""
    token = principal(subject=None, client_id="backup")

    found = authorize(the_call(call("read_x"), ruled), token, policy(ruled, BACKUP), NOW)  # type: ignore[arg-type]  # a Server

    assert reason_of(found) is expected


@pytest.mark.attack("machine-with-assurance")
def test_a_machine_inherits_no_assurance() -> None:
    """A client_credentials token of a client with assurance passed nobody's second factor."""
    ruled = server(Rule(second_factor=ANY))
    assured = DeclaredClient("claude", assurance=Method.TOTP)

    denied = authorize(the_call(None, ruled), principal(subject=None), policy(ruled, assured), NOW)

    assert reason_of(denied) is Reason.MACHINE_NOT_ALLOWED


# --- second factor ----------------------------------------------------------------------------


def need(found: object) -> tuple[Method, int | None] | None:
    assert isinstance(found, PendingDecision), found
    step_up = found.query.step_up
    return None if step_up is None else (step_up.method, step_up.max_login_age)


def test_without_evidence_the_ledger_is_asked_for_a_step_up() -> None:
    """Authelia's token says nothing of TOTP: only a record can answer."""
    ruled = server(Rule(second_factor=TOTP))

    found = authorize(the_call(None, ruled), principal(), policy(ruled), NOW)

    assert need(found) == (Method.TOTP, None)
    assert isinstance(found, PendingDecision)
    assert found.query.step_up_key is not None
    assert found.query.step_up_key.grant == "claude"
    assert found.query.step_up_key.server == "files"


@pytest.mark.parametrize(
    ("amr", "rule", "answered"),
    [
        ({"pwd", "kba", "otp", "mfa"}, TOTP, True),
        ({"pwd", "kba", "otp", "mfa"}, ANY, True),
        ({"pwd", "kba", "pop", "hwk", "mfa"}, TOTP, False),
        ({"pwd", "kba", "pop", "hwk", "mfa"}, ANY, True),
        ({"pwd", "kba"}, ANY, False),
        ({"otp"}, TOTP, False),
        ({"OTP", "MFA"}, ANY, False),
        (set(), ANY, False),
    ],
)
@pytest.mark.attack("amr")
def test_amr_answers_only_what_it_names(amr: set[str], rule: SecondFactor, answered: bool) -> None:
    """`mfa` is any second factor, `otp` beside it is TOTP, and case matters."""
    ruled = server(Rule(second_factor=rule))

    found = authorize(the_call(None, ruled), principal(amr=frozenset(amr)), policy(ruled), NOW)

    assert (need(found) is None) is answered


@pytest.mark.parametrize(
    ("assurance", "rule", "answered"),
    [
        (Method.ANY, ANY, True),
        (Method.ANY, TOTP, False),
        (Method.TOTP, TOTP, True),
        (Method.TOTP, SecondFactor(Method.TOTP, max_login_age=300), False),
        (Method.NONE, ANY, False),
    ],
)
def test_a_declaration_answers_without_an_age(
    assurance: Method, rule: SecondFactor, answered: bool
) -> None:
    """What the operator declares of a client proves the method and no moment."""
    ruled = server(Rule(second_factor=rule))
    known = DeclaredClient("claude", assurance=assurance)

    found = authorize(the_call(None, ruled), principal(), policy(ruled, known), NOW)

    assert (need(found) is None) is answered


@pytest.mark.attack("marker")
@given(
    st.sampled_from(Method),
    st.sampled_from([None, "two_factor", "totp"]),
    st.sampled_from([None, "two_factor", "totp", "TOTP", "two_factor ", "none"]),
    st.booleans(),
    st.sampled_from([ANY, TOTP]),
)
def test_a_marker_is_needed_besides_a_declaration_and_never_instead(
    declared: Method,
    asked: str | None,
    assurance_claim: str | None,
    opaque: bool,
    rule: SecondFactor,
) -> None:
    """A declaration counts where none is asked for, or the signed marker is its very word.

    Without a declaration the marker proves nothing, and an opaque token has none that is signed.
    """
    ruled = server(Rule(second_factor=rule))
    known = DeclaredClient("claude", assurance=declared, assurance_claim=asked)
    token = principal(assurance_claim=assurance_claim, opaque=opaque)

    found = authorize(the_call(None, ruled), token, policy(ruled, known), NOW)

    borne_out = asked is None or (assurance_claim == asked and not opaque)
    assert (need(found) is None) is (borne_out and declared & rule.method == rule.method)


@pytest.mark.attack("marker")
@pytest.mark.parametrize(
    ("of", "clients"),
    [
        pytest.param("claude", (), id="no client is named"),
        pytest.param("claude", (DeclaredClient("claude"),), id="nothing is declared of it"),
        pytest.param(
            "claude", (DeclaredClient("claude", assurance_claim="totp"),), id="but a marker"
        ),
        pytest.param(
            "claude",
            (
                DeclaredClient("claude"),
                DeclaredClient("other", assurance=Method.TOTP, assurance_claim="totp"),
            ),
            id="another's declaration",
        ),
    ],
)
def test_a_marker_alone_proves_nothing(of: str, clients: tuple[DeclaredClient, ...]) -> None:
    """Whatever a token says of itself under the claim's name, it is for the operator to declare."""
    ruled = server(Rule(second_factor=ANY))
    token = principal(client_id=of, assurance_claim="totp")

    found = authorize(the_call(None, ruled), token, policy(ruled, *clients), NOW)

    assert need(found) == (Method.ANY, None)


@pytest.mark.attack("marker")
def test_a_marker_makes_no_person_of_a_machine() -> None:
    """A client_credentials token with the marker of its declared client is refused as before."""
    ruled = server(Rule(second_factor=ANY))
    assured = DeclaredClient("claude", assurance=Method.TOTP, assurance_claim="totp")
    token = principal(subject=None, assurance_claim="totp")

    denied = authorize(the_call(None, ruled), token, policy(ruled, assured), NOW)

    assert reason_of(denied) is Reason.MACHINE_NOT_ALLOWED


@pytest.mark.parametrize(
    ("auth_time", "expected"),
    [
        (int(NOW) - 299, None),
        (int(NOW) - 301, Reason.LOGIN_TOO_OLD),
        (int(NOW) + 61, Reason.LOGIN_TOO_OLD),
        (None, Reason.LOGIN_TOO_OLD),
    ],
)
def test_an_old_log_in_is_too_old(auth_time: int | None, expected: Reason | None) -> None:
    """The age counts from auth_time; a log-in of the future or of no time proves nothing recent."""
    evidence = frozenset({Evidence.TOKEN})
    ruled = server(Rule(second_factor=SecondFactor(Method.TOTP, 300, evidence)))
    token = principal(amr=frozenset({"otp", "mfa"}), auth_time=auth_time)

    assert reason_of(authorize(the_call(None, ruled), token, policy(ruled), NOW)) is expected


def test_evidence_that_a_rule_does_not_accept_is_none() -> None:
    """A rule that accepts only a declaration is not met by a token's amr, nor by a step-up."""
    ruled = server(Rule(second_factor=SecondFactor(Method.ANY, None, frozenset({Evidence.CLIENT}))))
    token = principal(amr=frozenset({"otp", "mfa"}))

    denied = authorize(the_call(None, ruled), token, policy(ruled), NOW)

    assert reason_of(denied) is Reason.SECOND_FACTOR_REQUIRED


def test_one_step_up_must_meet_every_rule() -> None:
    """What the ledger is asked is the union of the methods and the strictest age."""
    ruled = server(
        Rule(second_factor=ANY),
        {
            "*": Rule(second_factor=SecondFactor(Method.TOTP, 3600)),
            "delete_*": Rule(second_factor=SecondFactor(Method.ANY, 300)),
        },
    )

    found = authorize(the_call(call("delete_x"), ruled), principal(), policy(ruled), NOW)

    assert need(found) == (Method.TOTP, 300)


def test_every_limit_of_every_place_is_taken_together() -> None:
    """Limits on everything, on the server and on each matching tool rule are one take."""
    one, two, three = (
        LIMIT.__class__(name, LIMIT.per, 5, 60, place=name) for name in ("a", "b", "c")
    )
    ruled = server(Rule(limits=(two,)), {"*": Rule(limits=(three,)), "x": Rule()})
    found = authorize(the_call(call("x"), ruled), principal(), policy(ruled, limits=(one,)), NOW)

    assert isinstance(found, PendingDecision)
    assert [take.limit.name for take in found.query.takes] == ["a", "b", "c"]
    assert len({take.bucket for take in found.query.takes}) == 3


# --- conclude ---------------------------------------------------------------------------------


def pending() -> PendingDecision:
    ruled = server(Rule(second_factor=TOTP))
    found = authorize(the_call(None, ruled), principal(), policy(ruled), NOW)
    assert isinstance(found, PendingDecision)
    return found


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Revoked("token"), Reason.TOKEN_REVOKED),
        (StepUpMissing(), Reason.SECOND_FACTOR_REQUIRED),
        (StepUpTooOld(), Reason.LOGIN_TOO_OLD),
        (OverLimit((Quota(LIMIT, 0, 3),), 3), Reason.RATE_LIMITED),
        pytest.param(None, Reason.INTERNAL, marks=interpreted),
        pytest.param(True, Reason.INTERNAL, marks=interpreted),
        pytest.param(PendingDecision, Reason.INTERNAL, marks=interpreted),
    ],
)
def test_only_taken_is_an_allow(answer: object, expected: Reason) -> None:
    """Every other answer of the ledger, one that does not exist included, is a refusal."""
    found = conclude(pending(), answer)  # type: ignore[arg-type]  # hostile on purpose

    assert reason_of(found) is expected


def test_a_proof_that_is_only_too_old_is_told_as_such() -> None:
    """Whoever had the second factor at the log-in is asked for a newer one, not for another."""
    ruled = server(Rule(second_factor=SecondFactor(Method.TOTP, 60)))
    for age, method, expected in (
        (61, {"otp", "mfa"}, Reason.LOGIN_TOO_OLD),
        (61, {"mfa"}, Reason.SECOND_FACTOR_REQUIRED),
    ):
        who = principal(amr=frozenset(method), auth_time=int(NOW) - age)
        found = authorize(the_call(None, ruled), who, policy(ruled), NOW)
        assert isinstance(found, PendingDecision)
        assert reason_of(conclude(found, StepUpMissing())) is expected


@compiled
@pytest.mark.parametrize("answer", [None, True, PendingDecision])
def test_what_is_no_answer_of_the_ledger_stops_the_compiled_decision(answer: object) -> None:
    """The compiler's own look at types comes first; the check makes a refusal of it."""
    with pytest.raises(TypeError, match="object expected"):
        conclude(pending(), answer)  # type: ignore[arg-type]  # hostile on purpose


def test_taken_is_an_allow() -> None:
    """A pending call whose limits were charged is let through with its quotas."""
    quotas = (Quota(LIMIT, 59, 6),)

    found = conclude(pending(), Taken(quotas, Mode.REDIS))

    assert isinstance(found, Allow)
    assert (found.quotas, found.mode) == (quotas, Mode.REDIS)


def test_allow_is_built_in_one_place() -> None:
    """No source file but the decision constructs an Allow, and the decision does so once."""
    root = Path(authz.__file__).parent
    built = [
        (path.name, node.lineno)
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name | ast.Attribute)
        and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr) == "Allow"
    ]

    assert [name for name, _ in built] == ["decision.py"]


# --- properties -------------------------------------------------------------------------------

SCOPES = st.frozensets(st.sampled_from(["a", "b", "c", "d"]))
METHODS = st.sampled_from([Method.ANY, Method.OTP, Method.TOTP])
FACTORS = st.none() | st.builds(
    SecondFactor,
    METHODS,
    st.none() | st.integers(1, 1000),
    st.frozensets(st.sampled_from(Evidence)),
)
RULES = st.builds(
    Rule,
    scopes=SCOPES,
    groups=st.none() | st.frozensets(st.sampled_from(["x", "y"]), min_size=1),
    second_factor=FACTORS,
    approval=st.none() | st.builds(Approval, st.none() | st.integers(1, 1000)),
)
PRINCIPALS = st.builds(
    principal,
    subject=st.none() | st.just("john"),
    scopes=SCOPES,
    groups=st.frozensets(st.sampled_from(["x", "y"])),
    amr=st.none() | st.frozensets(st.sampled_from(["pwd", "otp", "mfa", "pop"])),
    auth_time=st.none() | st.integers(int(NOW) - 2000, int(NOW) + 100),
)


@given(
    RULES,
    st.dictionaries(st.sampled_from(["*", "t*", "tool", "u"]), RULES, max_size=4),
    RULES,
    PRINCIPALS,
    st.booleans(),
)
def test_another_rule_never_lets_more_through(
    rule: Rule, tools: dict[str, Rule], extra: Rule, token: object, machine: bool
) -> None:
    """Adding a rule beside those that match can turn a pass into a refusal, never the reverse."""
    machines = frozenset({"claude"}) if machine else frozenset[str]()
    known = DeclaredClient("claude", machine=machine)
    before = server(rule, {"tool": Rule(), **tools}, machines)
    after = server(rule, {"tool": Rule(), **tools, "*o*": extra}, machines)

    def outcome(ruled: object) -> PendingDecision | Deny:
        return authorize(the_call(call("tool"), ruled), token, policy(ruled, known), NOW)  # type: ignore[arg-type]  # a Server, a Principal

    first, second = outcome(before), outcome(after)

    if isinstance(first, Deny):
        assert isinstance(second, Deny)
    elif isinstance(second, PendingDecision) and first.query.step_up is not None:
        assert second.query.step_up is not None
        assert (
            second.query.step_up.method & first.query.step_up.method == first.query.step_up.method
        )
    if isinstance(second, PendingDecision) and isinstance(first, PendingDecision):
        asked = (one.query.approval for one in (first, second) if one.query.approval is not None)
        assert second.query.approval == strictest(asked)


@given(RULES, PRINCIPALS)
def test_a_pass_means_that_every_scope_and_group_was_there(rule: Rule, token: object) -> None:
    """Whoever reaches the ledger has the scopes, and is a person in the groups."""
    ruled = server(rule)
    found = authorize(the_call(None, ruled), token, policy(ruled), NOW)  # type: ignore[arg-type]  # a Principal

    if isinstance(found, PendingDecision):
        assert rule.scopes <= found.principal.scopes
        assert found.principal.subject is not None
        assert rule.groups is None or rule.groups & found.principal.groups


@given(st.text(), st.dictionaries(st.text(), st.text()), st.binary(), st.text())
def test_reading_never_raises(method: str, headers: dict[str, str], body: bytes, path: str) -> None:
    """Whatever arrives is a Call or a Deny."""
    sent = HttpRequest(method, path, headers, body, {"server": "files"}, "", "")

    assert isinstance(read(sent, policy()), BearerRequest | Deny)


def test_the_rpc_helper_is_valid() -> None:
    """The body that these tests send passes the strict reader."""
    assert outcome_of(request(rpc("ping")), policy()) is None
