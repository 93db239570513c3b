"""Kinds of tokens, and tokens that the issuer must confirm: rules that only ever refuse more."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.decision import (
    Allow,
    BearerRequest,
    Deny,
    PendingDecision,
    authorize,
    conclude,
    confirmed,
    read,
)
from authz.core.ledger import Mode, Taken
from authz.core.policy import ALL_KINDS, DeclaredClient, Policy, Rule, TokenKind
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.second_factor import Evidence, Method, SecondFactor
from tests.support.values import NOW, call, policy, principal, request, rpc, server

JWT, OPAQUE = frozenset({TokenKind.JWT}), frozenset({TokenKind.OPAQUE})
TAKEN = Taken((), Mode.REDIS)


def authorized(who: Principal, rules: Policy, tool: str | None = None) -> PendingDecision | Deny:
    found = read(request(rpc() if tool is None else call(tool)), rules)
    assert isinstance(found, BearerRequest)
    return authorize(found, who, rules, NOW)


def reason_of(found: object) -> Reason | None:
    return found.reason if isinstance(found, Deny) else None


def pending(found: PendingDecision | Deny) -> PendingDecision:
    assert isinstance(found, PendingDecision), found
    return found


# --- kinds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "opaque", "expected"),
    [
        (ALL_KINDS, False, None),
        (ALL_KINDS, True, None),
        (JWT, False, None),
        (JWT, True, Reason.TOKEN_OPAQUE),
        (OPAQUE, False, Reason.TOKEN_SIGNED),
        (OPAQUE, True, None),
    ],
)
@pytest.mark.attack("token-kind")
def test_a_server_takes_the_kinds_that_it_names(
    kinds: frozenset[TokenKind], opaque: bool, expected: Reason | None
) -> None:
    """A token of another kind is a 401 that says which kind is wanted."""
    found = authorized(principal(opaque=opaque), policy(server(Rule(tokens=kinds))))

    assert reason_of(found) is expected
    assert expected is None or expected.row.status == 401


@pytest.mark.parametrize("opaque", [False, True])
def test_a_tool_may_take_fewer_kinds(opaque: bool) -> None:
    """Every rule that matches applies: a tool's takes away, and gives nothing back."""
    rules = policy(
        server(
            Rule(tokens=JWT),
            {"*": Rule(), "delete_*": Rule(tokens=OPAQUE), "read_*": Rule(tokens=ALL_KINDS)},
        )
    )
    who = principal(opaque=opaque)

    assert reason_of(authorized(who, rules, "delete_it")) in {
        Reason.TOKEN_OPAQUE,
        Reason.TOKEN_SIGNED,
    }
    assert reason_of(authorized(who, rules, "read_it")) is (Reason.TOKEN_OPAQUE if opaque else None)


# --- confirmed --------------------------------------------------------------------------------

ALWAYS = Rule(confirm=True)


def test_without_such_a_rule_nobody_is_asked() -> None:
    """A signature is enough where no rule says more."""
    assert pending(authorized(principal(), policy())).confirm_since is None


@pytest.mark.parametrize(
    ("confirmed_at", "since"),
    [
        (None, NOW - 1),
        (NOW - 1.5, NOW - 1),
        (NOW - 1, None),
        (NOW, None),
        (NOW + 0.5, None),  # asked while this request was under way
    ],
)
def test_an_answer_is_new_enough_or_asked_for(
    confirmed_at: float | None, since: float | None
) -> None:
    """The issuer's word may be as old as the policy says, and no older."""
    rules = policy(server(ALWAYS), confirm_age=1.0)
    found = authorized(principal(confirmed_at=confirmed_at), rules)

    assert pending(found).confirm_since == since


def test_a_tool_may_ask_for_it_alone() -> None:
    """One rule that asks is enough, the server's or a tool's, whatever the others say."""
    rules = policy(server(tools={"*": Rule(), "delete_*": ALWAYS}))

    assert pending(authorized(principal(), rules, "read_it")).confirm_since is None
    assert pending(authorized(principal(), rules, "delete_it")).confirm_since == NOW


@pytest.mark.attack("introspection-revoked")
def test_nobody_is_allowed_before_the_issuer_was_asked() -> None:
    """An edge that forgot to ask gets a refusal: no Allow is made of an unconfirmed call."""
    waiting = pending(authorized(principal(), policy(server(ALWAYS))))

    assert reason_of(conclude(waiting, TAKEN)) is Reason.INTERNAL


def test_a_confirmed_call_is_judged_again_and_allowed() -> None:
    """With the issuer's word the same call passes."""
    rules = policy(server(ALWAYS))
    waiting = pending(authorized(principal(), rules))

    found = confirmed(waiting, principal(confirmed_at=NOW + 0.1), rules, NOW)

    assert isinstance(conclude(pending(found), TAKEN), Allow)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scopes": frozenset[str]()}, Reason.INSUFFICIENT_SCOPE),
        ({"audience": ()}, Reason.AUDIENCE_MISMATCH),
        ({"issuer": "https://evil.example"}, Reason.TOKEN_INVALID),
    ],
)
@pytest.mark.attack("introspection-revoked")
def test_what_the_issuer_took_away_counts(changes: dict[str, object], expected: Reason) -> None:
    """Every rule is applied again to what the issuer has confirmed."""
    rules = policy(server(Rule(scopes=frozenset({"mcp:files"}), confirm=True)))
    waiting = pending(authorized(principal(), rules))

    found = confirmed(waiting, principal(confirmed_at=NOW, **changes), rules, NOW)

    assert reason_of(found) is expected


@pytest.mark.parametrize("assurance_claim", [None, "two_factor", "totp"])
@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.attack("marker")
def test_a_marker_counts_for_as_much_once_it_is_confirmed(
    assurance_claim: str | None, opaque: bool
) -> None:
    """The issuer's word makes no marker of none, nor none of one that was signed."""
    known = DeclaredClient("claude", assurance=Method.ANY, assurance_claim="two_factor")
    factor = SecondFactor(Method.ANY, None, frozenset({Evidence.CLIENT}))
    rules = policy(server(Rule(second_factor=factor, confirm=True)), known)
    who = principal(assurance_claim=assurance_claim, opaque=opaque)
    found = authorized(who, rules)

    assert isinstance(found, PendingDecision) is (assurance_claim == "two_factor" and not opaque)
    if isinstance(found, PendingDecision):
        after = confirmed(found, replace(who, confirmed_at=NOW), rules, NOW)
        assert pending(after).query == found.query
    else:
        assert reason_of(authorized(replace(who, confirmed_at=NOW), rules)) is found.reason


def test_the_message_is_read_once() -> None:
    """What was read of a body before the issuer was asked is what is decided about after."""
    rules = policy(server(tools={"delete_*": ALWAYS}))
    waiting = pending(authorized(principal(), rules, "delete_it"))
    blind = replace(waiting, call=replace(waiting.call, request=request(b"")))

    found = pending(confirmed(blind, principal(confirmed_at=NOW), rules, NOW))

    assert found.message is waiting.message
    assert found.confirm_since is None


# --- never more -------------------------------------------------------------------------------

kinds = st.frozensets(st.sampled_from(TokenKind))


@given(
    base=st.builds(Rule, tokens=kinds, confirm=st.booleans()),
    tool=st.builds(Rule, tokens=kinds, confirm=st.booleans()),
    opaque=st.booleans(),
    confirmed_at=st.none() | st.floats(NOW - 10, NOW + 10),
    age=st.floats(0, 5),
)
@pytest.mark.attack("token-kind")
def test_a_rule_only_ever_refuses_more(
    base: Rule, tool: Rule, opaque: bool, confirmed_at: float | None, age: float
) -> None:
    """Whatever kinds and confirmations rules ask for, who passes would pass without them too."""
    who = principal(opaque=opaque, confirmed_at=confirmed_at)
    strict = policy(server(base, {"*": tool}), confirm_age=age)
    found = authorized(who, strict, "delete_it")

    assert isinstance(
        authorized(who, policy(server(tools={"*": Rule()})), "delete_it"), PendingDecision
    )
    if isinstance(found, PendingDecision):
        kind = TokenKind.OPAQUE if opaque else TokenKind.JWT
        assert kind in base.tokens & tool.tokens
        if found.confirm_since is None and (base.confirm or tool.confirm):
            assert confirmed_at is not None
            assert confirmed_at >= NOW - age
