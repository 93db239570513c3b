"""Refusals cannot push other records out of the trail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.audit.refusals import PERIOD, RefusalCounter, RefusedGroup

ADA = RefusedGroup("files", "insufficient_scope", "ada", "claude")


@pytest.mark.attack("audit-flood")
def test_strangers_are_counted_and_never_told() -> None:
    """A million refusals of strangers are one record for each server and reason."""
    counter = RefusalCounter()
    for number in range(1000):
        for reason in ("token_missing", "token_invalid"):
            assert not counter.gets_own_record(RefusedGroup("files", reason), number / 100)

    assert [(each.group.reason, each.count) for each in counter.flush()] == [
        ("token_missing", 1000),
        ("token_invalid", 1000),
    ]
    assert list(counter.flush()) == []


@pytest.mark.attack("audit-flood")
def test_a_person_is_told_thirty_times_a_minute_and_counted_then() -> None:
    """What is not told is counted, under the person's own name; the next minute tells again."""
    counter = RefusalCounter()
    told = [counter.gets_own_record(ADA, 1.0) for _ in range(100)]

    assert told == [True] * 30 + [False] * 70
    (count,) = counter.flush()
    assert (count.group, count.count) == (ADA, 70)
    assert dict(count.fields)["count"] == "70"
    assert counter.gets_own_record(ADA, 1.0 + PERIOD)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc")), max_size=300))
def test_no_refusal_is_told_twice_or_forgotten(sent: list[tuple[int, str]]) -> None:
    """Every refusal is a record of its own or one of a count."""
    counter = RefusalCounter()
    groups = [
        RefusedGroup("files", reason, f"p{who}" if who else "", "c" if who else "")
        for who, reason in sent
    ]
    told = sum(counter.gets_own_record(each, 0.0) for each in groups)

    assert told + sum(each.count for each in counter.flush()) == len(sent)


@pytest.mark.attack("audit-flood")
def test_as_many_people_as_one_likes_cost_bounded_memory_and_records() -> None:
    """Whoever makes up people gets a bounded number of records."""
    counter = RefusalCounter()
    told = sum(
        counter.gets_own_record(RefusedGroup("files", "r", f"p{number}", "c"), 0.0)
        for number in range(20_000)
    )
    counts = list(counter.flush())

    assert told <= 4096
    assert len(counts) <= 1025
    assert told + sum(each.count for each in counts) == 20_000
