"""Whom a limit concerns: of it and its overrides each caller meets one, the first that fits."""

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.evaluation import evaluate
from authz.core.limits import Audience, Limit, Per, Selector
from authz.core.policy import Policy, Rule
from authz.core.principal import Principal
from tests.support.values import ISSUER, login_record, principal, server

NAMED = frozenset({"claude", "ci"})
NAMES = st.sampled_from(["claude", "ci", "other", "dynamic/claude", "https://ci"])
GROUPS = st.frozensets(st.sampled_from("ab"))


def caller(name: str, subject: str | None, groups: frozenset[str], *, by_door: bool) -> Principal:
    login = login_record(client=name) if by_door and subject is not None else None
    return principal(client_id=name, subject=subject, groups=groups, login=login)


callers = st.builds(
    caller, NAMES, st.sampled_from([None, "ada", "bob"]), GROUPS, by_door=st.booleans()
)
selectors = st.builds(
    Selector,
    clients=st.none() | st.frozensets(st.sampled_from(sorted(NAMED))),
    others=st.none() | st.just(NAMED),
    users=st.none() | st.frozensets(st.sampled_from(["ada", "bob"])),
    groups=st.none() | GROUPS,
)


def audiences(chosen: list[Selector]) -> list[Audience]:
    every = tuple(chosen)
    return [
        Audience(None, every),
        *(Audience(each, every[:number]) for number, each in enumerate(every)),
    ]


@given(chosen=st.lists(selectors, max_size=4), who=callers)
@pytest.mark.attack("override-escapes-its-limit")
def test_every_caller_meets_one_and_it_is_the_first_that_fits(
    chosen: list[Selector], who: Principal
) -> None:
    """No caller is counted by none, and none by two."""
    met = [each.includes(who) for each in audiences(chosen)]

    assert met.count(True) == 1
    fits = [each.matches(who) for each in chosen]
    assert met.index(True) == (fits.index(True) + 1 if True in fits else 0)


@pytest.mark.attack("override-escapes-its-limit")
def test_who_has_no_name_is_another_than_who_has_one() -> None:
    """`default` is every client that authz.yaml does not name, whatever it calls itself."""
    unnamed = Selector(clients=frozenset(), others=NAMED)
    door = login_record(client="dynamic/claude")

    assert not unnamed.matches(principal(client_id="claude"))
    assert unnamed.matches(principal(client_id="other"))
    assert unnamed.matches(principal(client_id="dynamic/claude", login=door))
    assert not Selector(clients=NAMED).matches(principal(client_id="dynamic/claude", login=door))


def test_all_that_is_named_has_to_fit() -> None:
    """Client, person and group together select that person, with that client, in that group."""
    one = Selector(frozenset({"ci"}), None, frozenset({"ada"}), frozenset({"ops"}))
    ada = principal(client_id="ci", subject="ada", groups=frozenset({"ops", "x"}))

    assert one.matches(ada)
    assert not one.matches(replace(ada, client_id="x"))
    assert not one.matches(replace(ada, subject="bob"))
    assert not one.matches(replace(ada, subject=None))
    assert not one.matches(replace(ada, groups=frozenset()))


@given(who=callers)
@pytest.mark.attack("override-escapes-its-limit")
def test_a_decision_charges_the_one_that_concerns_the_caller(who: Principal) -> None:
    """Others of the same limit are not charged and not told."""
    chosen = [Selector(groups=frozenset("a")), Selector(clients=NAMED)]
    limits = tuple(
        Limit(f"limit {number}", Per.USER, 10 + number, 60, audience=audience)
        for number, audience in enumerate(audiences(chosen))
    )
    one = server(Rule(limits=limits))
    policy = Policy(ISSUER, servers=MappingProxyType({"files": one}))
    found = evaluate(one, who, policy, None).limits

    assert [each.audience.includes(who) for each in found if each.audience] == [True]
