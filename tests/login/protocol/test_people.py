"""Which person an operator means: never another one, whatever people call themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.login.protocol.people import (
    AmbiguousPersonError,
    KnownPerson,
    UnknownPersonError,
    find_person,
)

ADA = KnownPerson("d1", "7190-ada", "ada", "ada@example.com", 5)
BOB = KnownPerson("d2", "8200-bob", "bob", "", 6, former=frozenset({"rob"}))
OLD = KnownPerson("d3", "", "eve", "", 7)
EVERYBODY = [ADA, BOB, OLD]


@pytest.mark.parametrize(
    ("name", "person"),
    [
        ("7190-ada", ADA),
        ("ada", ADA),
        ("ada@example.com", ADA),
        ("bob", BOB),
        ("eve", OLD),
        ("person:d3", OLD),
    ],
)
def test_who_is_meant(name: str, person: KnownPerson) -> None:
    """The subject, the user name and the e-mail address name somebody."""
    assert find_person(name, EVERYBODY) == person


@pytest.mark.parametrize("name", ["Ada", "ad", "ada@example.org", "d1", "person:", "", " ada"])
def test_nothing_else_names_anybody(name: str) -> None:
    """Letter case, beginnings and look-alikes count: who is nearly so is only suggested."""
    with pytest.raises(UnknownPersonError):
        find_person(name, EVERYBODY)


def test_what_is_like_it_is_suggested() -> None:
    """A person may have mistyped a name."""
    with pytest.raises(UnknownPersonError) as caught:
        find_person("adda", EVERYBODY)
    assert caught.value.near[0] == "ada"


def test_a_name_of_before_names_nobody() -> None:
    """It may be another's by now; who had it is told."""
    with pytest.raises(AmbiguousPersonError) as caught:
        find_person("rob", EVERYBODY)
    assert caught.value.candidates == (BOB,)
    new = KnownPerson("d4", "9-rob", "rob", "", 9)
    with pytest.raises(AmbiguousPersonError) as caught:
        find_person("rob", [*EVERYBODY, new])
    assert set(caught.value.candidates) == {BOB, new}


@pytest.mark.attack("named-like-another")
def test_who_takes_the_name_or_address_of_another_gets_nobody_revoked() -> None:
    """It is refused with both; the subject names its own person all the same."""
    for thief in (
        KnownPerson("d4", "9-eve", "ada", "", 9),
        KnownPerson("d4", "9-eve", "eve2", "ada", 9),
        KnownPerson("d4", "9-eve", "eve2", "ada@example.com", 9),
        KnownPerson("d4", "9-eve", "7190-ada", "person:d1", 9),
    ):
        people = [thief, *EVERYBODY]
        for shared in thief.names & ADA.names:
            with pytest.raises(AmbiguousPersonError) as caught:
                find_person(shared, people)
            assert set(caught.value.candidates) == {thief, ADA}
        assert find_person("7190-ada", people) == ADA
        assert find_person("person:d1", people) == ADA


_WORDS = st.sampled_from(["a", "b", "c", "d", ""])
_PEOPLE = st.lists(
    st.builds(
        KnownPerson,
        name=st.sampled_from(["n1", "n2", "n3", "n4"]),
        subject=_WORDS,
        account=_WORDS,
        email=_WORDS,
        last=st.just(1),
        former=st.frozensets(_WORDS, max_size=2),
    ),
    max_size=4,
    unique_by=(lambda person: person.name, lambda person: person.subject or person.name),
)


@given(people=_PEOPLE, name=st.sampled_from(["a", "b", "c", "d"]))
def test_whoever_is_found_alone_has_that_name(people: list[KnownPerson], name: str) -> None:
    """Who is found has it as subject, or nobody else in what is known has or had it; and the
    order of people does not count.
    """
    having = {each for each in people if name in each.names | each.former}
    whose = [each for each in people if each.subject == name]
    if whose:
        assert [find_person(name, people)] == whose
    elif not having:
        with pytest.raises(UnknownPersonError):
            find_person(name, people)
    elif len(having) == 1 and name in (one := next(iter(having))).names:
        assert find_person(name, people) == find_person(name, people[::-1]) == one
    else:
        with pytest.raises(AmbiguousPersonError) as caught:
            find_person(name, people)
        assert set(caught.value.candidates) == having
