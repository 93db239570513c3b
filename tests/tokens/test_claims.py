"""From verified claims to a principal: one type per claim, nothing converted."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.core.second_factor import Method, methods
from authz.core.strict_json import loads
from authz.tokens.claims import ClaimRules, check_issuer, read_principal
from tests.tokens.token_factory import (
    ABSENT,
    CLAIMS,
    FILES,
    ISSUER,
    NOTES,
    NOW,
    RULES,
    refusal,
    unhurried,
    with_changes,
)

SUBJECT = "52b134ec-d812-4022-82b4-9100df7e1418"
# What no text may be that is shown, logged or put into a header.
BAD_TEXTS: tuple[object, ...] = (
    "", " ", " john", "john ", "jo\rhn", "jo\nhn", "john\r\nX-Admin: 1", "jo\x00hn", "jo\x7fhn",
    "jo\x85hn", "jo\u2028hn", "jo\u202ehn", "jo\u200bhn", "jo\ud800hn", "j" * 257, "j" * 10_000,
    None, 7, True, 1.5, [], ["john"], {}, {"a": "b"},
)  # fmt: skip
BAD_SECONDS: tuple[object, ...] = (
    ABSENT, None, True, False, 0, -1, 1.5, float(NOW), "", str(NOW), [], [NOW], {}, 10**30, 1 << 53,
)  # fmt: skip


def read(**changes: object) -> Principal:
    return read_principal(with_changes(CLAIMS, changes), RULES, NOW, token_id="id", key_id="kid")


def reason_of(**changes: object) -> Reason | None:
    try:
        read(**changes)
    except RefusedError as refused:
        return refused.reason
    return None


def brief(value: object) -> str:
    return "absent" if value is ABSENT else repr(value)[:40]


@pytest.mark.parametrize("value", [*BAD_TEXTS, "a", "true", "1", -1, 0, (1 << 53) - 1, 1 << 53])
@pytest.mark.attack("limits-multiplied-by-groups")
def test_a_counted_claim_is_a_value_of_one_kind_or_absent(value: object) -> None:
    """Text, whole numbers and truth values are told apart; whatever else is as good as nothing, and
    makes no token bad.
    """
    rules = replace(RULES, counted=("tenant", "absent"))
    claims = with_changes(CLAIMS, {"tenant": value})
    found = dict(read_principal(claims, rules, NOW, token_id="id", key_id="kid").claims)

    good = value not in BAD_TEXTS or isinstance(value, bool | int)
    assert ("tenant" in found) == (good and value != 1 << 53)
    if isinstance(value, str) and found:
        assert found == {"tenant": f'"{value}'}
    elif found:
        assert found == {"tenant": json.dumps(value)}
    assert not read(tenant=value).claims


def test_a_recorded_shape_becomes_a_principal() -> None:
    """The claims of an Authelia token say who, for whom, until when, and nothing of the log-in."""
    expected = Principal(
        issuer=ISSUER,
        subject=SUBJECT,
        client_id="mcp-2fa",
        scopes=frozenset({"openid", "mcp:tools"}),
        audience=(FILES, NOTES),
        groups=frozenset(),
        amr=None,
        auth_time=None,
        issued_at=NOW - 60,
        expires_at=NOW + 3600,
        token_id="id",
        key_id="kid",
    )

    assert expected == read()


@pytest.mark.parametrize(
    "iss",
    [
        f"{ISSUER}/", "https://AUTH.example.test", "HTTPS://auth.example.test", f" {ISSUER}",
        "https://auth.example.test:443", "http://auth.example.test", "https://evil.example", "",
        ABSENT, None, True, 7, [ISSUER], {"iss": ISSUER},
    ],
    ids=brief,
)  # fmt: skip
@pytest.mark.attack("iss-not-the-issuer")
def test_the_issuer_is_equal_as_a_string(iss: object) -> None:
    """RFC 9068, section 4: `iss` is the configured issuer, character by character."""
    assert Reason.TOKEN_INVALID is reason_of(iss=iss)
    with pytest.raises(RefusedError):
        check_issuer(with_changes(CLAIMS, {"iss": iss}), ISSUER)


@pytest.mark.parametrize("name", ["exp", "iat"])
@pytest.mark.parametrize("value", BAD_SECONDS, ids=brief)
@pytest.mark.attack("times-not-integers")
def test_exp_and_iat_are_whole_seconds(name: str, value: object) -> None:
    """`exp` and `iat` are there, and integers of JSON: no string, float, boolean or giant."""
    assert Reason.TOKEN_INVALID is reason_of(**{name: value})


@pytest.mark.parametrize("name", ["nbf", "auth_time"])
@pytest.mark.parametrize("value", [v for v in BAD_SECONDS if v is not ABSENT], ids=brief)
@pytest.mark.attack("times-not-integers")
def test_optional_times_are_whole_seconds_where_they_are(name: str, value: object) -> None:
    """`nbf` and `auth_time` may be absent, but not anything else than seconds."""
    assert Reason.TOKEN_INVALID is reason_of(**{name: value})


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400", "1e3", "1.0", "-0"])
@pytest.mark.attack("times-not-integers")
def test_no_spelling_of_a_float_is_a_time(literal: str) -> None:
    """What JSON can write besides an integer is refused by the parser or by the claim's type."""
    text = json.dumps({**CLAIMS, "exp": "X"}).replace('"X"', literal)

    with pytest.raises((RefusedError, ValueError)):
        read_principal(
            loads(text.encode()),  # type: ignore[arg-type]  # it is an object
            RULES,
            NOW,
            token_id="id",
            key_id="kid",
        )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"exp": NOW + 1}, None, id="a-second-left"),
        pytest.param({"exp": NOW}, Reason.TOKEN_EXPIRED, id="expires-now"),
        pytest.param({"exp": NOW - 30}, Reason.TOKEN_EXPIRED, id="no-leeway-on-exp"),
        pytest.param({"iat": NOW - 3600, "exp": NOW + 3600}, None, id="longest-lifetime"),
        pytest.param(
            {"iat": NOW - 3600, "exp": NOW + 3601}, Reason.TOKEN_INVALID, id="lifetime-too-long"
        ),
        pytest.param(
            {"iat": 1, "exp": NOW + 10}, Reason.TOKEN_INVALID, id="lifetime-of-half-a-century"
        ),
        pytest.param({"iat": NOW + 30, "nbf": ABSENT}, None, id="iat-within-leeway"),
        pytest.param({"iat": NOW + 31, "nbf": ABSENT}, Reason.TOKEN_INVALID, id="iat-in-future"),
        pytest.param({"iat": NOW + 31}, Reason.TOKEN_INVALID, id="iat-in-future-of-good-nbf"),
        pytest.param({"nbf": NOW + 30}, None, id="nbf-within-leeway"),
        pytest.param({"nbf": NOW + 31}, Reason.TOKEN_INVALID, id="nbf-in-future"),
        pytest.param({"nbf": ABSENT}, None, id="no-nbf"),
        pytest.param({"iat": NOW + 20, "exp": NOW + 20}, Reason.TOKEN_INVALID, id="exp-is-iat"),
        pytest.param({"iat": NOW + 20, "exp": NOW + 10}, Reason.TOKEN_INVALID, id="exp-before-iat"),
        pytest.param({"exp": NOW - 1, "sub": ""}, Reason.TOKEN_INVALID, id="expired-and-malformed"),
    ],
)
@pytest.mark.attack("lifetime")
def test_a_token_lives_within_its_times(
    changes: dict[str, object], expected: Reason | None
) -> None:
    """A token is good from iat/nbf (with leeway) to exp (without), and never for too long."""
    assert expected is reason_of(**changes)


@pytest.mark.parametrize(
    ("aud", "expected"),
    [
        (FILES, (FILES,)),
        ([FILES, NOTES], (FILES, NOTES)),
        ([f"{FILES}/../notes"], (f"{FILES}/../notes",)),
        ([f"{FILES}/{n}" for n in range(32)], tuple(f"{FILES}/{n}" for n in range(32))),
        ([], Reason.AUDIENCE_MISMATCH),
        *(
            (aud, Reason.TOKEN_INVALID)
            for aud in (
                ABSENT, None, "", True, 7, {"a": 1}, [""], [FILES, ""], [FILES, None], [FILES, 7],
                [[FILES]], [{"aud": FILES}], [f"{FILES}\n"], [f"{FILES}\x00"], [f" {FILES}"],
                ["\ud800"], ["a" * 1025], [FILES] * 33, [FILES] * 1000,
            )
        ),
    ],
    ids=brief,
)  # fmt: skip
@pytest.mark.attack("aud-malformed")
def test_the_audience_is_kept_verbatim(aud: object, expected: tuple[str, ...] | Reason) -> None:
    """`aud` is a string or a list of at most 32 strings, and is kept as it is."""
    actual = reason_of(aud=aud) or read(aud=aud).audience

    assert expected == actual


@pytest.mark.parametrize("value", [ABSENT, *BAD_TEXTS, "cliënt", "\u0441laude"], ids=brief)
@pytest.mark.attack("hostile-text-in-claims")
def test_the_client_is_ascii_text(value: object) -> None:
    """`client_id` is there, and short printable ASCII without blanks around it."""
    assert Reason.TOKEN_INVALID is reason_of(client_id=value)


@pytest.mark.parametrize("value", BAD_TEXTS, ids=brief)
@pytest.mark.attack("hostile-text-in-claims")
def test_the_subject_is_printable_text(value: object) -> None:
    """`sub` is short printable text where it is there at all; null is not absence."""
    assert Reason.TOKEN_INVALID is reason_of(sub=value)


@pytest.mark.parametrize("value", BAD_TEXTS, ids=brief)
def test_the_tokens_own_name_is_text_where_it_is(value: object) -> None:
    """`jti` is a string or absent (RFC 7519, section 4.1.7), though nothing rests on it."""
    assert Reason.TOKEN_INVALID is reason_of(jti=value)
    assert reason_of(jti=ABSENT) is None


@pytest.mark.parametrize("name", ["groups", "amr"])
@pytest.mark.parametrize("value", BAD_TEXTS, ids=brief)
@pytest.mark.attack("hostile-text-in-claims")
def test_groups_and_methods_are_lists_of_printable_text(name: str, value: object) -> None:
    """One malformed entry refuses the token, whatever the others are."""
    assert Reason.TOKEN_INVALID is reason_of(**{name: ["staff", value]})


@pytest.mark.parametrize("name", ["groups", "amr", "scp"])
@pytest.mark.parametrize(
    "value",
    ["otp", "", {}, {"otp": True}, 7, True, [["otp", "mfa"]], [None], ["a"] * 257],
    ids=brief,
)
@pytest.mark.attack("amr-shape")
def test_lists_are_lists(name: str, value: object) -> None:
    """A string, an object or a nested list never stands for a list of strings."""
    assert Reason.TOKEN_INVALID is reason_of(**{name: value})


@pytest.mark.parametrize("value", [ABSENT, None], ids=brief)
def test_a_list_that_was_never_made_is_absent(value: object) -> None:
    """Go writes a missing list as null: it grants nothing, and refuses nobody."""
    principal = read(groups=value, amr=value, scp=value)

    assert (principal.groups, principal.amr, principal.scopes) == (frozenset(), None, frozenset())


def test_groups_methods_and_log_in_time_are_read() -> None:
    """What other issuers put into access tokens is kept."""
    principal = read(groups=["admins", "Größe"], amr=["pwd", "otp", "mfa"], auth_time=NOW - 90)

    assert principal.groups == {"admins", "Größe"}
    assert principal.amr == frozenset({"pwd", "otp", "mfa"})
    assert principal.auth_time == NOW - 90
    assert methods(principal.amr or ()) == Method.TOTP


@pytest.mark.parametrize("amr", [[], ["OTP", "MFA"], ["otp mfa"], ["pwd", "kba"]], ids=brief)
@pytest.mark.attack("amr-shape")
def test_no_other_spelling_proves_a_second_factor(amr: list[str]) -> None:
    """`amr` values are compared letter by letter."""
    assert methods(read(amr=amr).amr or ()) == Method.NONE


@pytest.mark.parametrize("amr", ["otp", "mfa otp", [["otp", "mfa"]], [{"otp": 1}]], ids=brief)
@pytest.mark.attack("amr-shape")
def test_a_misshapen_amr_never_gets_as_far_as_a_rule(amr: object) -> None:
    """A string is a sequence of letters and a nested list a list: neither is taken for methods."""
    assert Reason.TOKEN_INVALID is reason_of(amr=amr)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"scp": ["a", "b"]}, {"a", "b"}, id="list"),
        pytest.param({"scp": []}, set(), id="empty-list"),
        pytest.param({"scp": ABSENT, "scope": "a b"}, {"a", "b"}, id="string"),
        pytest.param({"scp": ABSENT, "scope": ""}, set(), id="empty-string"),
        pytest.param({"scp": ABSENT}, set(), id="neither"),
        pytest.param({"scp": ["b", "a"], "scope": "a b"}, {"a", "b"}, id="agree"),
        pytest.param({"scp": ["a"], "scope": "a b"}, None, id="string-says-more"),
        pytest.param({"scp": ["a", "b"], "scope": "a"}, None, id="list-says-more"),
        pytest.param({"scp": [], "scope": "a"}, None, id="empty-list-against-string"),
        pytest.param({"scp": ["a"], "scope": ""}, None, id="list-against-empty-string"),
        pytest.param({"scp": ["a"], "scope": None}, None, id="scope-null"),
        pytest.param({"scope": ["openid", "mcp:tools"]}, None, id="scope-as-list"),
        pytest.param({"scp": "a b"}, None, id="scp-as-string"),
        pytest.param({"scp": ["a b"]}, None, id="blank-in-a-scope"),
        pytest.param({"scp": ["a", ""]}, None, id="empty-scope"),
        pytest.param({"scp": ["a", 'b"c']}, None, id="quote"),
        pytest.param({"scp": ["a\\b"]}, None, id="backslash"),
        pytest.param({"scp": ["a\n"]}, None, id="newline"),
        pytest.param({"scp": ["a\r\nX: y"]}, None, id="header-split"),
        pytest.param({"scp": ["ä"]}, None, id="not-ascii"),
        pytest.param({"scp": ["\ud800"]}, None, id="lone-surrogate"),
        pytest.param({"scp": ["a" * 257]}, None, id="long"),
        pytest.param({"scp": ["a", 7]}, None, id="number"),
        pytest.param({"scp": ["a", ["b"]]}, None, id="nested"),
        pytest.param({"scp": ABSENT, "scope": "a  b"}, None, id="two-blanks"),
        pytest.param({"scp": ABSENT, "scope": " a"}, None, id="blank-before"),
        pytest.param({"scp": ABSENT, "scope": "a\tb"}, None, id="tab"),
        pytest.param({"scp": ABSENT, "scope": "a " * 300 + "a"}, None, id="too-many"),
        pytest.param({"scp": ABSENT, "scope": True}, None, id="boolean"),
    ],
)
@pytest.mark.attack("scopes-malformed")
def test_scopes_are_tokens_of_rfc_6749(
    changes: dict[str, object], expected: set[str] | None
) -> None:
    """`scp` is a list, `scope` a string; each scope is well-formed; where both are, they agree."""
    actual = Reason.TOKEN_INVALID if expected is None else expected

    assert actual == (reason_of(**changes) or read(**changes).scopes)


@pytest.mark.attack("machine-is-nobody")
def test_a_token_without_sub_is_a_machines() -> None:
    """A client_credentials token of Authelia has no `sub`: there is no person."""
    assert read(sub=ABSENT).person is None


@pytest.mark.attack("machine-is-nobody")
def test_a_client_named_as_subject_is_no_person() -> None:
    """RFC 9068, section 2.2: a token without a person may name its client in `sub`."""
    assert read(sub="mcp-2fa").person is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@unhurried
@given(
    st.dictionaries(st.sampled_from([*CLAIMS, "scope", "groups", "amr", "auth_time"]), json_values)
)
def test_any_claims_are_a_principal_or_refused(changes: dict[str, object]) -> None:
    """No value of any claim raises anything but RefusedError, and times hold in what is
    accepted.
    """
    try:
        principal = read(**changes)
    except RefusedError:
        return

    assert principal.expires_at > NOW
    assert principal.issuer == ISSUER
    assert principal.audience
    assert principal.client_id.isascii()
    json.dumps([principal.subject, sorted(principal.groups)]).encode()
    str(principal.subject).encode()


# --- the marker ---------------------------------------------------------------------------------

MARKED = replace(RULES, assurance_claim="mcp_assurance")


def marker_of(value: object, rules: ClaimRules = MARKED) -> str | None:
    claims = with_changes(CLAIMS, {"mcp_assurance": value})
    return read_principal(claims, rules, NOW, token_id="id", key_id="kid").assurance_claim


@pytest.mark.parametrize("value", ["two_factor", "totp", "TOTP", "none", "a b", "é"])
def test_a_marker_is_what_the_claim_says(value: str) -> None:
    """The claim is handed on letter by letter; what it proves is for the decision to say."""
    assert marker_of(value) == value


def test_no_marker_where_there_is_none_or_none_is_looked_at() -> None:
    """A token without the claim is like any other, and so is one whose claim nobody asked for."""
    assert marker_of(ABSENT) is None
    assert marker_of("totp", RULES) is None
    assert marker_of(["totp"], RULES) is None


@pytest.mark.parametrize("value", BAD_TEXTS, ids=brief)
@pytest.mark.attack("marker")
def test_a_marker_that_is_no_text_is_refused(value: object) -> None:
    """A list, a boolean, null or malformed text under the claim's name is no token of ours."""
    with pytest.raises(RefusedError) as raised:
        marker_of(value)

    assert raised.value.reason is Reason.TOKEN_INVALID
    assert raised.value.detail == "the assurance claim is malformed"


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(), st.lists, max_leaves=4))
@pytest.mark.attack("marker")
def test_nothing_becomes_a_marker_that_is_not_that_very_text(value: object) -> None:
    """Whatever stands there: the same text comes out, or the token is refused."""
    assert refusal(lambda: marker_of(value)) in {None, Reason.TOKEN_INVALID}
    with suppress(RefusedError):
        assert marker_of(value) == value
