"""What is remembered by which objects it was made of."""

from dataclasses import replace

from authz.core.answers import upstream
from authz.core.decision import Allow
from authz.core.ledger import Mode
from authz.core.limits import Limit, Per, bucket_id
from authz.core.memo import Memo
from tests.support.values import policy, principal, server


def test_the_same_objects_are_not_asked_about_twice() -> None:
    """Once made, it is found; for an equal object it is made anew."""
    asked = list[object]()

    def make(value: list[int]) -> int:
        asked.append(value)
        return value[0]

    memo = Memo(make)
    one, other = [1], [1]

    assert [memo(one), memo(one), memo(other)] == [1, 1, 1]
    assert len(asked) == 2


def test_the_number_of_an_object_is_nobody_elses() -> None:
    """Objects that come and go, at one address in memory, are told apart."""
    memo = Memo(lambda value: value[0], capacity=8)

    assert all(memo([number]) == number for number in range(1000))


def test_no_more_is_held_than_may_be() -> None:
    """The oldest go first, and are made again where they come back."""
    memo = Memo(lambda value: value[0], capacity=3)
    held = [[number] for number in range(10)]

    assert [memo(each) for each in held] == list(range(10))
    assert len(memo) == 3
    assert memo(held[0]) == 0


def test_people_who_differ_in_anything_are_told_apart() -> None:
    """Identity headers and buckets are those of this very token, whoever came before."""
    limit = Limit("a", Per.USER, quota=1, window=1)
    for number in range(100):
        one = principal(subject=f"person-{number}")
        allow = Allow(server(), None, one, (), Mode.REDIS)
        same = replace(one)

        assert (
            dict(upstream(allow, policy(), 0).set_headers)["x-authz-subject"] == f"person-{number}"
        )
        assert bucket_id(limit, one, "") == bucket_id(limit, same, "")
        assert bucket_id(limit, one, "") != bucket_id(limit, principal(subject="x"), "")
