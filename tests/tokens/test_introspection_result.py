"""What an issuer says of a token: the recorded Authelia's words, and hostile ones."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.tokens.cache import token_digest
from authz.tokens.claims import ClaimRules
from authz.tokens.introspection_result import (
    IntrospectionResult,
    IntrospectionResults,
    intersect_with,
    read_introspection_result,
)
from authz.tokens.issuer_http import IssuerError, IssuerFault
from tests.tokens.opaque import ANSWER, TOKEN, said
from tests.tokens.token_factory import ABSENT, FILES, ISSUER, NOTES, NOW, RULES, refusal, unhurried

FIXTURES: Final = Path(__file__).parents[1] / "fixtures" / "authelia"
RECORDED: Final[Mapping[str, Any]] = json.loads((FIXTURES / "introspection.json").read_text())
RECORDED_AT: Final = 1_795_380_760
JOHN: Final = "52b134ec-d812-4022-82b4-9100df7e1418"


def read(
    answer: Mapping[str, object], now: float = NOW, rules: ClaimRules = RULES
) -> IntrospectionResult:
    return read_introspection_result(answer, rules, token_digest(TOKEN), now - 0.25, now)


def reason(answer: Mapping[str, object]) -> Reason | None:
    found = read(answer)
    assert found.active
    return None if found.principal is not None else found.refusal[0]


INTROSPECTED: Final = {
    name: each["body"]
    for name, each in RECORDED.items()
    if "body" in each and "active" in each["body"]
}


@pytest.mark.parametrize(("name", "body"), INTROSPECTED.items(), ids=INTROSPECTED.keys())
def test_what_authelia_said(name: str, body: dict[str, Any]) -> None:
    """Each recorded answer is read for what it says."""
    found = read(body, RECORDED_AT)

    assert found.active is body["active"]
    if not found.active:
        assert found.principal is None
        assert found.refusal == (Reason.TOKEN_INVALID, "not active")
        return
    assert found.principal == Principal(
        issuer=ISSUER,
        subject=None if name == "client credentials" else JOHN,
        client_id=body["client_id"],
        scopes=frozenset(body["scope"].split()),
        audience=tuple(body["aud"]),
        groups=frozenset(),
        amr=None,
        auth_time=None,
        issued_at=body["iat"],
        expires_at=body["exp"],
        token_id=hashlib.sha256(TOKEN.encode()).hexdigest(),
        opaque=True,
        confirmed_at=RECORDED_AT - 0.25,
    )


@pytest.mark.parametrize(
    "active", ["true", "false", 1, 0, None, ABSENT, [], {}, [True], "True"], ids=repr
)
@pytest.mark.attack("introspection-active")
def test_active_is_true_or_false_and_nothing_else(active: object) -> None:
    """An `active` of another type is a broken issuer: nobody is let in, no log-in thrown away."""
    with pytest.raises(IssuerError) as raised:
        read(said(active=active))

    assert raised.value.fault is IssuerFault.MALFORMED


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"iss": ISSUER}, None, id="the-issuer"),
        pytest.param({"iss": f"{ISSUER}/"}, Reason.TOKEN_INVALID, id="slash"),
        pytest.param({"iss": "https://evil.example"}, Reason.TOKEN_INVALID, id="another"),
        pytest.param({"iss": None}, Reason.TOKEN_INVALID, id="null"),
        pytest.param({"iss": [ISSUER]}, Reason.TOKEN_INVALID, id="list"),
        pytest.param({"token_type": "Bearer"}, None, id="bearer"),
        pytest.param({"token_type": "DPoP"}, Reason.TOKEN_WRONG_KIND, id="bound-to-a-key"),
        pytest.param({"token_type": "ID"}, Reason.TOKEN_WRONG_KIND, id="id-token"),
        pytest.param({"token_type": None}, Reason.TOKEN_WRONG_KIND, id="type-null"),
        pytest.param({"token_use": "access_token"}, None, id="use-access"),
        pytest.param({"token_use": "refresh_token"}, Reason.TOKEN_WRONG_KIND, id="use-refresh"),
        pytest.param({"client_id": ABSENT}, Reason.TOKEN_INVALID, id="no-client"),
        pytest.param({"client_id": 7}, Reason.TOKEN_INVALID, id="client-number"),
        pytest.param({"client_id": "a\nb"}, Reason.TOKEN_INVALID, id="client-newline"),
        pytest.param({"exp": ABSENT}, Reason.TOKEN_INVALID, id="no-exp"),
        pytest.param({"exp": f"{NOW}"}, Reason.TOKEN_INVALID, id="exp-string"),
        pytest.param({"exp": NOW + 0.5}, Reason.TOKEN_INVALID, id="exp-float"),
        pytest.param({"exp": True}, Reason.TOKEN_INVALID, id="exp-true"),
        pytest.param({"exp": 10**30}, Reason.TOKEN_INVALID, id="exp-huge"),
        pytest.param({"exp": NOW + 7200}, Reason.TOKEN_INVALID, id="lives-too-long"),
        pytest.param({"exp": NOW}, Reason.TOKEN_EXPIRED, id="expired-all-the-same"),
        pytest.param({"iat": ABSENT}, Reason.TOKEN_INVALID, id="no-iat"),
        pytest.param({"iat": NOW + 31}, Reason.TOKEN_INVALID, id="from-the-future"),
        pytest.param({"nbf": NOW + 31}, Reason.TOKEN_INVALID, id="not-yet"),
        pytest.param({"aud": FILES}, None, id="aud-string"),
        pytest.param({"aud": []}, Reason.AUDIENCE_MISMATCH, id="aud-empty"),
        pytest.param({"aud": ABSENT}, Reason.TOKEN_INVALID, id="no-aud"),
        pytest.param({"aud": [FILES, 7]}, Reason.TOKEN_INVALID, id="aud-number"),
        pytest.param({"aud": [FILES] * 33}, Reason.TOKEN_INVALID, id="aud-33"),
        pytest.param({"scope": ABSENT}, None, id="no-scope"),
        pytest.param({"scope": ["mcp:tools"]}, Reason.TOKEN_INVALID, id="scope-list"),
        pytest.param({"scope": "a  b"}, Reason.TOKEN_INVALID, id="two-blanks"),
        pytest.param({"scope": "a", "scp": ["b"]}, Reason.TOKEN_INVALID, id="scopes-disagree"),
        pytest.param({"sub": ""}, Reason.TOKEN_INVALID, id="sub-empty"),
        pytest.param({"sub": "\udc00"}, Reason.TOKEN_INVALID, id="sub-surrogate"),
        pytest.param({"username": 7}, None, id="username-is-not-read"),
    ],
)
@pytest.mark.attack("introspection-claims")
def test_what_is_said_is_read_strictly(changes: dict[str, object], expected: Reason | None) -> None:
    """An active token of which something else is wrong is refused, as a signed one would be."""
    assert reason(said(**changes)) is expected


def test_a_token_without_sub_is_a_machine() -> None:
    """No `sub`, or one that names the client, is nobody's person."""
    for changes in ({"sub": ABSENT}, {"sub": "mcp-opaque"}):
        found = read(said(**changes)).principal
        assert found is not None
        assert (found.subject, found.person) == (None, None)


# --- the issuer's word on a token that is known -----------------------------------------------


def known(**changes: object) -> Principal:
    found = read(said(**changes)).principal
    assert found is not None
    return found


def test_agreement_is_what_both_say() -> None:
    """Scopes and audience may have become fewer and the end nearer, never the other way."""
    before = known(scope="a b", aud=[FILES, NOTES], exp=NOW + 600)
    after = known(scope="b c", aud=[NOTES, "https://mcp.example.test/x"], exp=NOW + 900)

    for one, other in ((before, after), (after, before)):
        both = intersect_with(one, other)
        assert (both.scopes, both.audience) == (frozenset({"b"}), (NOTES,))
        assert both.expires_at == NOW + 600


@pytest.mark.parametrize("changes", [{"client_id": "other"}, {"sub": "bob"}, {"sub": ABSENT}])
@pytest.mark.attack("introspection-of-another")
def test_an_answer_about_somebody_else_is_refused(changes: dict[str, object]) -> None:
    """Where person or client differ, the answer is another token's."""
    assert refusal(lambda: intersect_with(known(), known(**changes))) is Reason.TOKEN_INVALID


@pytest.mark.parametrize("value", ["two_factor", "totp", "", None, ["totp"], True])
@pytest.mark.attack("marker")
def test_no_answer_is_a_marker(value: object) -> None:
    """The marker is a signed claim: what an issuer answers under its name is not even read."""
    found = read(
        said(mcp_assurance=value), rules=replace(RULES, assurance_claim="mcp_assurance")
    ).principal

    assert found is not None
    assert found.assurance_claim is None


@pytest.mark.parametrize("assurance_claim", [None, "two_factor"])
@pytest.mark.attack("marker")
def test_a_confirmation_neither_takes_nor_gives_a_marker(assurance_claim: str | None) -> None:
    """No answer repeats the marker, so a confirmed token says what it said when it was signed."""
    signed = replace(known(), opaque=False, assurance_claim=assurance_claim)

    assert intersect_with(signed, known()).assurance_claim == assurance_claim
    assert (
        intersect_with(signed, replace(known(), assurance_claim="totp")).assurance_claim
        == assurance_claim
    )


# --- what is remembered -----------------------------------------------------------------------


def test_the_newest_statement_is_kept_within_the_capacity() -> None:
    """The least recently used go first; a statement takes the place of the one before."""
    shelf = IntrospectionResults(2)
    for name, at in ((b"a", 1.0), (b"b", 2.0), (b"a", 3.0), (b"c", 4.0)):
        shelf.put(name, IntrospectionResult(at, active=False))

    assert len(shelf) == 2
    assert b"b" not in shelf
    found = shelf.get(b"a", 3.0, 5.0)
    assert found is not None
    assert found.asked_at == 3.0
    shelf.forget(b"a")
    assert b"a" not in shelf


def test_a_statement_is_of_its_time() -> None:
    """One that is too old is not used, nor one of the future after a clock stepped back."""
    shelf = IntrospectionResults(2)
    shelf.put(b"a", IntrospectionResult(10.0, active=False))

    assert shelf.get(b"a", 10.0, 10.0) is not None
    assert shelf.get(b"a", 10.1, 11.0) is None
    assert shelf.get(b"a", 5.0, 9.9) is None


def test_a_shelf_without_room_is_refused() -> None:
    """Nothing can be remembered nowhere."""
    with pytest.raises(ValueError, match="at least one"):
        IntrospectionResults(0)


# --- anything at all --------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES: Final = (*ANSWER, "iss", "jti", "nbf", "scp", "groups", "amr", "auth_time", "token_type")
REFUSALS: Final = {
    Reason.TOKEN_INVALID,
    Reason.TOKEN_EXPIRED,
    Reason.TOKEN_WRONG_KIND,
    Reason.AUDIENCE_MISMATCH,
}


@unhurried
@given(changes=st.dictionaries(st.sampled_from(NAMES), values | st.just(ABSENT), max_size=4))
@pytest.mark.attack("fuzz-introspection")
def test_any_answer_is_read_or_refused(changes: dict[str, object]) -> None:
    """Whatever an issuer answers is a principal of its own, a refusal, or a fault; nothing else."""
    answer = said(**changes)
    if not isinstance(answer.get("active"), bool):
        with pytest.raises(IssuerError):
            read(answer)
        return
    found = read(answer)
    if found.principal is None:
        assert found.refusal[0] in REFUSALS
        return
    assert answer["active"] is True
    assert found.principal.issuer == ISSUER
    assert found.principal.opaque
    assert NOW < found.principal.expires_at <= found.principal.issued_at + RULES.max_lifetime
    assert isinstance(answer["client_id"], str)


@unhurried
@given(answer=st.dictionaries(st.text(max_size=10) | st.sampled_from(NAMES), values, max_size=8))
@pytest.mark.attack("fuzz-introspection")
def test_nothing_that_lacks_active_true_lets_anybody_in(answer: dict[str, object]) -> None:
    """Only `true` itself is true."""
    try:
        found = read(answer)
    except IssuerError:
        return
    assert found.principal is None or answer["active"] is True
