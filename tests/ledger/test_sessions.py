"""Session bindings in memory are bounded per person and in total."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.ledger import Session
from authz.core.limits import digest
from authz.ledger.sessions import SessionBindings

CAPACITY = 8


def session(number: int, person: str = "p", owner: str = "o", lifetime: int = 10) -> Session:
    return Session(digest(f"{number}"), digest(person, owner), digest(person), lifetime)


def grown(sessions: SessionBindings, person: int, rounds: range) -> int:
    """Return by how many bytes memory has grown after one person's new sessions."""
    before, _ = tracemalloc.get_traced_memory()
    for each in rounds:
        sessions.use(session(each, str(person)), 0)
    return tracemalloc.get_traced_memory()[0] - before


@pytest.mark.attack("sessions-fill-memory")
def test_what_is_forgotten_takes_no_memory() -> None:
    """Clients that open a session for every call do it for as long as a worker runs: what has made
    room for newer sessions is not kept under the name of its person either.
    """
    sessions = SessionBindings(1000)
    tracemalloc.start()
    try:
        first = grown(sessions, 0, range(1000))
        others = sum(
            grown(sessions, each, range(each * 1000, (each + 1) * 1000)) for each in (1, 2, 3)
        )
    finally:
        tracemalloc.stop()
    assert len(sessions) == 1000
    assert others < first / 2


STEPS = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from("pqs"), st.sampled_from("ab"), st.integers(0, 4)),
    max_size=60,
)


@given(STEPS)
def test_of_each_person_the_newest_stay_bound(steps: list[tuple[int, str, str, int]]) -> None:
    """No more than the bound of each, none but its own makes room for it, and all of them together
    are no more than the capacity; whoever is bound is bound to who used it last.
    """
    sessions, owners, now = SessionBindings(CAPACITY, most=3), dict[str, Session](), 0
    for number, person, owner, wait in steps:
        now += wait
        one = session(number, person, owner)
        if sessions.is_of_another(one, now):
            assert owners[one.id].owner != one.owner
            continue
        sessions.use(one, now)
        owners[one.id] = one
        stranger = session(number, "r")
        assert sessions.is_of_another(stranger, now)
        bound = [
            each
            for each in owners.values()
            if sessions.is_of_another(Session(each.id, "", "", 1), now)
        ]
        assert len(sessions) <= CAPACITY
        assert all(sum(each.person == digest(p) for each in bound) <= 3 for p in "pqs")
