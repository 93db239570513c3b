"""What a log-in in a browser opens."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.browser_session import (
    BrowserRule,
    BrowserSession,
    GroupAge,
    admit,
    group_age,
    session_query,
)
from authz.core.ledger import (
    ApprovalMissing,
    LedgerAnswer,
    Mode,
    OverLimit,
    Revoked,
    SessionOfAnother,
    StepUpMissing,
    Taken,
    UnavailableError,
)
from authz.core.principal import Client, Person
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.core.second_factor import ALL_EVIDENCE, Evidence, Method, SecondFactor

NOW = 1_800_000_000
JOHN = BrowserSession(
    "s-john", "john", frozenset({"admins"}), Method.TOTP, NOW - 60, NOW - 60, NOW + 3600,
    NOW - 60, "a-token", NOW + 3600, True,
)  # fmt: skip
TOTP = SecondFactor(Method.TOTP)

methods = st.sampled_from([Method.NONE, Method.ANY, Method.OTP, Method.TOTP])
groups = st.frozensets(st.sampled_from(["admins", "staff", ""]), max_size=3)
factors = st.builds(
    SecondFactor,
    st.sampled_from([Method.ANY, Method.TOTP]),
    st.none() | st.integers(1, 7200),
    st.sampled_from([ALL_EVIDENCE, frozenset({Evidence.LOGIN}), frozenset({Evidence.STEP_UP})]),
)
ages = st.sampled_from([0.0, 600.0])
rules = st.builds(BrowserRule, st.none() | groups, st.none() | factors, ages)
logins = st.builds(
    BrowserSession,
    subject=st.just("s"),
    account=st.just("a"),
    groups=groups,
    method=methods,
    auth_time=st.integers(NOW - 8000, NOW + 120),
    began=st.integers(NOW - 10, NOW + 120),
    until=st.integers(NOW - 5, NOW + 5),
    groups_at=st.integers(NOW - 900, NOW + 120),
    token=st.just("a-token"),
    token_until=st.just(NOW + 3600),
    two_factor=st.booleans(),
)


TAKEN = Taken((), Mode.REDIS)
answers = st.sampled_from(
    [TAKEN, Revoked("person"), SessionOfAnother(), StepUpMissing(), ApprovalMissing(),
     OverLimit((), 1)]
)  # fmt: skip


def refused(
    rule: BrowserRule, login: BrowserSession, answer: LedgerAnswer = TAKEN, now: float = NOW
) -> Reason | None:
    try:
        admit(rule, login, answer, now)
    except RefusedError as error:
        return error.reason
    except UnavailableError:
        return Reason.ISSUER_UNAVAILABLE
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
def test_cases(rule: BrowserRule, login: BrowserSession, reason: Reason | None) -> None:
    """Each demand has its reason; what is fulfilled passes."""
    assert refused(replace(rule, groups_max_age=600), login) is reason


@pytest.mark.attack("page-revoked")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (TAKEN, None),
        (Revoked("person"), Reason.SESSION_REVOKED),
        (SessionOfAnother(), Reason.INTERNAL),
        (StepUpMissing(), Reason.INTERNAL),
        (ApprovalMissing(), Reason.INTERNAL),
        (OverLimit((), 1), Reason.INTERNAL),
    ],
)
def test_every_other_answer_of_the_ledger_refuses(
    answer: LedgerAnswer, reason: Reason | None
) -> None:
    """What the ledger was not asked is no permission."""
    assert refused(BrowserRule(groups_max_age=600), JOHN, answer) is reason


@pytest.mark.attack("page-revoked")
def test_a_revocation_reaches_sessions_of_earlier_log_ins() -> None:
    """It names the person, or all browsers; a new session of an old log-in is as old as that."""
    query = session_query(replace(JOHN, auth_time=NOW - 4000), "https://auth.example.com", "n")
    assert query.person == Person("https://auth.example.com", "s-john")
    assert query.client == Client("https://auth.example.com", "authz-pages")
    assert query.issued_at == NOW - 4000
    assert session_query(replace(JOHN, auth_time=NOW), "i", "n").issued_at == JOHN.began
    assert (query.takes, query.step_up, query.session) == ((), None, None)


@pytest.mark.attack("page-rules")
@pytest.mark.parametrize(
    ("longest", "age", "found"),
    [
        (600.0, 0, GroupAge.FRESH), (600.0, 299, GroupAge.FRESH), (600.0, 300, GroupAge.AGING),
        (600.0, 599, GroupAge.AGING), (600.0, 600, GroupAge.STALE), (0.0, 0, GroupAge.STALE),
        (600.0, -60, GroupAge.FRESH), (600.0, -61, GroupAge.STALE), (0.0, -61, GroupAge.STALE),
    ],
)  # fmt: skip
def test_groups_count_for_a_while(longest: float, age: int, found: GroupAge) -> None:
    """They are confirmed from half of it on; a clock that was put back makes nothing fresh."""
    rule = BrowserRule(groups_max_age=longest)
    assert group_age(rule, JOHN, JOHN.groups_at + age) is found


@pytest.mark.attack("page-rules")
@pytest.mark.parametrize(
    ("longest", "age", "passes"),
    [(600, 610, True), (600, 611, False), (600, -61, False), (0, 10, True), (0, 11, False)],
)
def test_groups_that_nobody_confirmed_admit_nobody(longest: int, age: int, *, passes: bool) -> None:
    """Whoever asks the issuer has a few seconds to end the request; nothing makes up for it."""
    login = replace(JOHN, groups_at=NOW - age, began=NOW - 5)
    found = refused(BrowserRule(groups_max_age=longest), login)
    assert found is (None if passes else Reason.ISSUER_UNAVAILABLE)


@pytest.mark.attack("page-rules")
def test_a_clock_that_was_put_back_opens_nothing() -> None:
    """A session of the future is none, and nothing outlives its end by it."""
    rule = BrowserRule(groups_max_age=600)
    assert refused(rule, JOHN, now=JOHN.began - 60) is None
    assert refused(rule, JOHN, now=JOHN.began - 61) is Reason.SESSION_MISSING
    assert rule.ends(NOW, 28_800, NOW + 3600) == NOW + 4200
    assert rule.ends(NOW, 60, NOW + 3600) == NOW + 60


@given(rules, logins, answers)
def test_whoever_passes_fulfils_every_demand(
    rule: BrowserRule, login: BrowserSession, answer: LedgerAnswer
) -> None:
    """Nobody passes without a live session that nothing revokes, a group that was confirmed lately
    and the methods that are asked for.
    """
    if refused(rule, login, answer) is not None:
        return
    assert answer is TAKEN
    assert login.began <= NOW + 60
    assert -60 <= NOW - login.groups_at <= rule.groups_max_age + 10
    assert login.until > NOW
    assert rule.groups is None or rule.groups & login.groups
    if rule.second_factor is not None:
        assert Evidence.LOGIN in rule.second_factor.evidence
        assert login.method & rule.second_factor.method == rule.second_factor.method
        age = rule.second_factor.max_login_age
        assert age is None or login.auth_time >= NOW - age


@given(rules, groups, factors, logins)
def test_one_more_demand_lets_nobody_more_through(
    rule: BrowserRule, asked: frozenset[str], factor: SecondFactor, login: BrowserSession
) -> None:
    """Where fewer demands refuse, more do."""
    fewer = (
        replace(rule, groups=None),
        replace(rule, second_factor=None),
        replace(rule, groups_max_age=600.0),
    )
    if any(refused(each, login) is not None for each in fewer):
        assert refused(rule, login) is not None
    if refused(BrowserRule(), login) is not None:
        assert refused(BrowserRule(asked, factor), login) is not None
