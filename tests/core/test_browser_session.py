"""What a log-in in a browser opens."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.browser_session import BrowserLogin, BrowserRule, check_login
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.core.second_factor import ALL_EVIDENCE, Evidence, Method, SecondFactor

NOW = 1_800_000_000
JOHN = BrowserLogin(
    "s-john", "john", frozenset({"admins"}), Method.TOTP, NOW - 60, NOW - 60, NOW + 3600
)
TOTP = SecondFactor(Method.TOTP)

methods = st.sampled_from([Method.NONE, Method.ANY, Method.OTP, Method.TOTP])
groups = st.frozensets(st.sampled_from(["admins", "staff", ""]), max_size=3)
factors = st.builds(
    SecondFactor,
    st.sampled_from([Method.ANY, Method.TOTP]),
    st.none() | st.integers(1, 7200),
    st.sampled_from([ALL_EVIDENCE, frozenset({Evidence.LOGIN}), frozenset({Evidence.STEP_UP})]),
)
rules = st.builds(BrowserRule, st.none() | groups, st.none() | factors)
logins = st.builds(
    BrowserLogin,
    subject=st.just("s"),
    account=st.just("a"),
    groups=groups,
    method=methods,
    auth_time=st.integers(NOW - 8000, NOW + 120),
    began=st.just(NOW - 10),
    until=st.integers(NOW - 5, NOW + 5),
)


def refused(rule: BrowserRule, login: BrowserLogin) -> Reason | None:
    try:
        check_login(rule, login, NOW)
    except RefusedError as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("rule", "login", "reason"),
    [
        (BrowserRule(), JOHN, None),
        (BrowserRule(frozenset({"admins", "staff"}), TOTP), JOHN, None),
        (BrowserRule(), replace(JOHN, until=NOW), Reason.SESSION_MISSING),
        (BrowserRule(frozenset({"staff"})), JOHN, Reason.PERSON_NOT_ALLOWED),
        (BrowserRule(frozenset()), JOHN, Reason.PERSON_NOT_ALLOWED),
        (
            BrowserRule(None, TOTP),
            replace(JOHN, method=Method.ANY),
            Reason.SECOND_FACTOR_REQUIRED,
        ),
        (BrowserRule(None, replace(TOTP, max_login_age=59)), JOHN, Reason.LOGIN_TOO_OLD),
        (BrowserRule(None, replace(TOTP, max_login_age=60)), JOHN, None),
        (
            BrowserRule(None, replace(TOTP, evidence=frozenset({Evidence.TOKEN}))),
            JOHN,
            Reason.SECOND_FACTOR_REQUIRED,
        ),
    ],
)
def test_cases(rule: BrowserRule, login: BrowserLogin, reason: Reason | None) -> None:
    """Each demand has its reason; what is fulfilled passes."""
    assert refused(rule, login) is reason


@given(rules, logins)
def test_whoever_passes_fulfils_every_demand(rule: BrowserRule, login: BrowserLogin) -> None:
    """Nobody passes without a live session, a group and the methods that are asked for."""
    if refused(rule, login) is not None:
        return
    assert login.until > NOW
    assert rule.groups is None or rule.groups & login.groups
    if rule.second_factor is not None:
        assert Evidence.LOGIN in rule.second_factor.evidence
        assert login.method & rule.second_factor.method == rule.second_factor.method
        age = rule.second_factor.max_login_age
        assert age is None or login.auth_time >= NOW - age


@given(rules, groups, factors, logins)
def test_one_more_demand_lets_nobody_more_through(
    rule: BrowserRule, asked: frozenset[str], factor: SecondFactor, login: BrowserLogin
) -> None:
    """Where fewer demands refuse, more do."""
    fewer = (replace(rule, groups=None), replace(rule, second_factor=None))
    if any(refused(each, login) is not None for each in fewer):
        assert refused(rule, login) is not None
    if refused(BrowserRule(), login) is not None:
        assert refused(BrowserRule(asked, factor), login) is not None
