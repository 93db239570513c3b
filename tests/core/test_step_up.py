"""How a needed step-up is told: what each kind of client can use, and never an admission."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.answers import refusal
from authz.core.decision import (
    Allow,
    BearerRequest,
    Deny,
    PendingDecision,
    authorize,
    conclude,
    read,
)
from authz.core.ledger import Mode, Revoked, StepUpMissing, StepUpTooOld, Taken
from authz.core.mcp import Envelope, Message, MessageKind
from authz.core.policy import DeclaredClient, FrontDoor, RefusalForm, Rule, StepUpFallback
from authz.core.principal import Principal
from authz.core.reason import URL_ELICITATION_REQUIRED, Reason
from authz.core.second_factor import Evidence, Method, SecondFactor, StepUpNeed
from authz.core.step_up import (
    STEP_UP_QUESTION,
    StepUpDelivery,
    StepUpPrompt,
    StepUpTicket,
    needs_session_capabilities,
    step_up_delivery,
)
from authz.envoy.codec import encode_deny
from tests.support.values import (
    ISSUER,
    NOW,
    call,
    front_door,
    login_record,
    policy,
    principal,
    request,
    server,
    visitor,
)
from tests.support.wire import answer as on_the_wire

LINK = "https://mcp.example.test/authz/step-up?ticket=eyJ.a_b-c"
RECENT = SecondFactor(Method.TOTP, 300)
PASSWORD = frozenset({"pwd", "kba"})
LEGACY = "2025-11-25"
MODERN = "2026-07-28"
CALL = Envelope(7, "tools/call")


def message(version: str | None, method: str = "tools/call", **more: object) -> Message:
    values = {"kind": MessageKind.REQUEST, "id": 7, "tool": "delete_note"} | more
    return Message(method=method, version=version, **values)  # type: ignore[arg-type]  # as told


# --- which telling ----------------------------------------------------------------------------

WORDS, CHALLENGE = StepUpDelivery.WORDS, StepUpDelivery.CHALLENGE


@pytest.mark.parametrize(
    ("sent", "declared", "expected"),
    [
        (message(MODERN, elicits_url=True), False, StepUpDelivery.INPUT_REQUIRED),
        (message(MODERN, "prompts/get", elicits_url=True), False, StepUpDelivery.INPUT_REQUIRED),
        (message(MODERN, "resources/read", elicits_url=True), False, StepUpDelivery.INPUT_REQUIRED),
        (message(MODERN, "tools/list", elicits_url=True), False, WORDS),
        (message(MODERN, elicits_url=True, is_continuation=True), False, WORDS),
        (message(MODERN), False, None),
        (message(MODERN), True, None),
        (message(LEGACY), True, StepUpDelivery.URL_ELICITATION),
        (message(LEGACY, "tools/list"), True, StepUpDelivery.URL_ELICITATION),
        (message(LEGACY), False, None),
        (message(LEGACY, "initialize", elicits_url=True), True, None),
        (message(LEGACY, "notifications/initialized", kind=MessageKind.NOTIFICATION), True, None),
        (message("2025-06-18"), True, None),
        (message(None), True, None),
        (None, True, None),
    ],
)
def test_a_client_is_told_as_it_declared(
    sent: Message | None, declared: bool, expected: StepUpDelivery | None
) -> None:
    """By what its era knows and it declared; else in words, or as the operator wants it."""
    assert step_up_delivery(sent, StepUpFallback.LINK, declared=declared) is (expected or WORDS)
    assert step_up_delivery(sent, StepUpFallback.CHALLENGE, declared=declared) is (
        expected or CHALLENGE
    )


def test_memory_is_asked_only_where_it_matters() -> None:
    """Redis is not read for messages that are told the same either way."""
    for version in (MODERN, "2025-06-18", None):
        assert not needs_session_capabilities(message(version))
    assert not needs_session_capabilities(None)
    assert not needs_session_capabilities(message(LEGACY, "initialize"))
    assert needs_session_capabilities(message(LEGACY))


# --- what is offered --------------------------------------------------------------------------


def refused(
    who: Principal, door: FrontDoor | None, rule: SecondFactor = RECENT, *, too_old: bool = False
) -> Deny:
    direct = DeclaredClient("direct", direct=True)
    rules = policy(server(tools={"delete_*": Rule(second_factor=rule)}), direct, front_door=door)
    found = read(request(call("delete_note")), rules)
    assert isinstance(found, BearerRequest)
    pending = authorize(found, who, rules, NOW)
    if isinstance(pending, Deny):
        return pending
    decision = conclude(pending, StepUpTooOld() if too_old else StepUpMissing())
    assert isinstance(decision, Deny)
    return decision


@pytest.mark.parametrize("too_old", [False, True])
def test_a_step_up_that_would_mend_it_is_offered(too_old: bool) -> None:
    """The ticket names person, grant, client, server, tool, need and moment."""
    who = visitor(login_record(client="dynamic/loopback", amr=PASSWORD))
    found = refused(who, front_door(), too_old=too_old)

    assert found.reason is (Reason.LOGIN_TOO_OLD if too_old else Reason.SECOND_FACTOR_REQUIRED)
    assert who.subject is not None
    assert found.step_up == StepUpTicket(
        ISSUER,
        who.subject,
        "grant-1",
        "dynamic/loopback",
        "john",
        "files",
        "delete_note",
        StepUpNeed(Method.TOTP, 300),
        int(NOW),
    )


def test_a_direct_client_steps_up_under_its_own_name() -> None:
    """Without a grant of the front door the client's id stands in its place."""
    ticket = refused(principal(client_id="direct"), front_door()).step_up

    assert ticket is not None
    assert (ticket.grant, ticket.client, ticket.account) == ("direct", "direct", "")


@pytest.mark.parametrize(
    ("door", "rule"),
    [
        (front_door(step_up=StepUpFallback.OFF), RECENT),
        (front_door(), replace(RECENT, evidence=frozenset({Evidence.LOGIN}))),
    ],
    ids=["off", "not-accepted"],
)
def test_what_helps_nothing_is_not_offered(door: FrontDoor, rule: SecondFactor) -> None:
    """Neither where step-ups are off, nor where the rule accepts none."""
    who = visitor(login_record(client="dynamic/loopback", amr=PASSWORD))

    assert refused(who, door, rule).step_up is None
    assert refused(principal(client_id="x"), door).step_up is None


@pytest.mark.parametrize("too_old", [False, True])
def test_without_a_front_door_it_is_words_alone(too_old: bool) -> None:
    """There is no page to send anybody to: refused, with the reason and without a link."""
    found = refused(principal(client_id="direct"), None, too_old=too_old)

    reason = Reason.LOGIN_TOO_OLD if too_old else Reason.SECOND_FACTOR_REQUIRED
    assert (found.reason, found.step_up) == (reason, None)


def test_other_refusals_offer_none() -> None:
    """What is revoked is not mended by a step-up, though one is missing too."""
    rules = policy(server(Rule(second_factor=RECENT)), front_door=front_door())
    found = read(request(), rules)
    assert isinstance(found, BearerRequest)
    pending = authorize(found, visitor(login_record(client="dynamic/x", amr=PASSWORD)), rules, NOW)
    assert isinstance(pending, PendingDecision)
    assert pending.offer is not None

    decision = conclude(pending, Revoked("grant"))
    assert isinstance(decision, Deny)
    assert (decision.reason, decision.step_up) == (Reason.TOKEN_REVOKED, None)
    assert isinstance(conclude(pending, Taken((), Mode.REDIS)), Allow)


# --- what is sent -----------------------------------------------------------------------------

DENY = Deny(
    Reason.LOGIN_TOO_OLD,
    "for the log only",
    server(),
    second_factor=RECENT,
)


def body_of(how: StepUpDelivery) -> tuple[int, dict[str, str], dict[str, object]]:
    found = refusal(DENY, CALL, "req-1", StepUpPrompt(LINK, how))
    assert b"for the log only" not in found.body
    return found.status, dict(found.headers), json.loads(found.body)


def test_an_input_required_result_has_the_link_and_no_state() -> None:
    """MCP 2026-07-28: a result of 200, one question, nothing that the upstream would refuse."""
    status, headers, body = body_of(StepUpDelivery.INPUT_REQUIRED)

    assert (status, headers["content-type"], body["id"]) == (200, "application/json", 7)
    assert body["result"] == {
        "resultType": "input_required",
        "inputRequests": {
            STEP_UP_QUESTION: {
                "method": "elicitation/create",
                "params": {
                    "mode": "url",
                    "url": LINK,
                    "message": (
                        "This needs a more recent log-in. Accepted: a one-time password (TOTP). "
                        "At most 300 s after the log-in. (Request req-1)"
                    ),
                },
            }
        },
    }


def test_a_url_elicitation_error_has_one_elicitation() -> None:
    """MCP 2025-11-25: error -32042 under HTTP 200, its id neither the ticket nor used twice."""
    status, _, body = body_of(StepUpDelivery.URL_ELICITATION)
    error = body["error"]
    assert isinstance(error, dict)
    (elicitation,) = error["data"]["elicitations"]

    assert (status, error["code"], body["id"]) == (200, URL_ELICITATION_REQUIRED, 7)
    assert error["data"]["reason"] == "login_too_old"
    assert {**elicitation, "elicitationId": ""} == {
        "mode": "url",
        "elicitationId": "",
        "url": LINK,
        "message": (
            "This needs a more recent log-in. Accepted: a one-time password (TOTP). "
            "At most 300 s after the log-in. (Request req-1)"
        ),
    }
    # Python SDK 1.30 declares URL elicitation by itself, and shows the message alone.
    assert LINK in error["message"].split()
    assert len(elicitation["elicitationId"]) == 32
    assert elicitation["elicitationId"] not in LINK
    other = json.loads(
        refusal(DENY, CALL, "", StepUpPrompt(LINK + "x", StepUpDelivery.URL_ELICITATION)).body
    )
    assert (
        other["error"]["data"]["elicitations"][0]["elicitationId"] != (elicitation["elicitationId"])
    )


def test_words_have_the_link_for_people_and_programs() -> None:
    """403 with the link in the message, blanks around it, and by itself in the data."""
    status, headers, body = body_of(StepUpDelivery.WORDS)
    error = body["error"]
    assert isinstance(error, dict)

    assert status == 403
    assert "www-authenticate" not in headers
    assert error["code"] == Reason.LOGIN_TOO_OLD.row.code
    assert LINK in error["message"].split()
    assert error["data"] == {
        "reason": "login_too_old",
        "request_id": "req-1",
        "step_up_url": LINK,
    }


def test_a_challenge_is_that_of_rfc_9470() -> None:
    """401, the error code, the age; no `acr_values`; and the link for who reads the body."""
    status, headers, body = body_of(StepUpDelivery.CHALLENGE)
    error = body["error"]
    assert isinstance(error, dict)

    assert status == 401
    assert headers["www-authenticate"] == (
        'Bearer error="insufficient_user_authentication", '
        'error_description="This needs a more recent log-in.", max_age="300", '
        'resource_metadata="https://mcp.example.test/.well-known/oauth-protected-resource/files"'
    )
    assert error["data"]["step_up_url"] == LINK
    ageless = replace(DENY, second_factor=SecondFactor(Method.TOTP))
    found = refusal(ageless, CALL, "", StepUpPrompt(LINK, StepUpDelivery.CHALLENGE))
    assert "max_age" not in dict(found.headers)["www-authenticate"]


@given(
    how=st.sampled_from(StepUpDelivery),
    reason=st.sampled_from([Reason.SECOND_FACTOR_REQUIRED, Reason.LOGIN_TOO_OLD]),
    asked=st.none()
    | st.builds(Envelope, st.integers() | st.text(), st.sampled_from(["tools/call", "ping"])),
    told=st.tuples(st.sampled_from(RefusalForm), st.sampled_from([None, principal()])),
    factor=st.builds(
        SecondFactor,
        st.sampled_from([Method.ANY, Method.TOTP]),
        st.none() | st.integers(1, 10**6),
    ),
)
@pytest.mark.attack("denial-with-status-200")
def test_however_it_is_told_it_is_a_denial(
    how: StepUpDelivery,
    reason: Reason,
    asked: Envelope | None,
    told: tuple[RefusalForm, Principal | None],
    factor: SecondFactor,
) -> None:
    """Envoy lets nothing through: not even an HTTP 200 is an OK of gRPC."""
    form, who = told
    deny = Deny(reason, "", server(), principal=who, second_factor=factor)
    sent = refusal(deny, asked, "req", StepUpPrompt(LINK, how), form)

    found = on_the_wire(encode_deny(sent, reason.label))

    assert not found.allowed
    assert found.status == sent.status
    assert json.loads(found.body)["id"] == ("" if asked is None else asked.id)
