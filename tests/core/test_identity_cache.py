"""What is remembered by which objects it was made of."""

from dataclasses import replace

from authz.core.answers import upstream
from authz.core.decision import Allow
from authz.core.identity_cache import IdentityCache
from authz.core.ledger import Mode
from authz.core.limits import Limit, Per, bucket_id
from tests.support.values import policy, principal, server


def first(values: list[int]) -> int:
    return values[0]


def last(values: list[int]) -> int:
    return -values[-1]


def joined(values: list[int], text: str) -> str:
    return f"{values[0]}{text}"


def test_the_same_objects_are_not_asked_about_twice() -> None:
    """Once made, it is found; for an equal object it is made anew."""
    asked = list[object]()

    def make(value: list[int]) -> int:
        asked.append(value)
        return value[0]

    cache = IdentityCache()
    one, other = [1], [1]

    assert [cache.get(make, one), cache.get(make, one), cache.get(make, other)] == [1, 1, 1]
    assert len(asked) == 2


def test_the_number_of_an_object_is_nobody_elses() -> None:
    """Objects that come and go, at one address in memory, are told apart."""
    cache = IdentityCache(8)

    assert all(cache.get(first, [number]) == number for number in range(1000))


def test_no_more_is_held_than_may_be() -> None:
    """The oldest go first, and are made again where they come back."""
    cache = IdentityCache(3)
    held = [[number] for number in range(10)]

    assert [cache.get(first, each) for each in held] == list(range(10))
    assert len(cache) == 3
    assert cache.get(first, held[0]) == 0


def test_functions_share_nothing() -> None:
    """Two functions of one object have a result each, and a capacity each."""
    cache = IdentityCache(1)
    one = [3]

    assert (cache.get(first, one), cache.get(last, one), cache.get(first, one)) == (3, -3, 3)
    assert len(cache) == 2


def test_a_key_may_hold_a_text() -> None:
    """What callers choose is found by its text, beside the object that it is for."""
    cache = IdentityCache()
    one = [1]

    assert cache.find((id(one), "a"), joined, one, "a") == "1a"
    assert cache.find((id(one), "b"), joined, one, "b") == "1b"
    assert cache.find((id(one), "a"), joined, one, "a") == "1a"
    assert len(cache) == 2


def test_people_who_differ_in_anything_are_told_apart() -> None:
    """Identity headers and buckets are those of this very token, whoever came before."""
    limit, cache = Limit("a", Per.USER, quota=1, window=1), IdentityCache(8)
    for number in range(100):
        one = principal(subject=f"person-{number}")
        allow = Allow(server(), None, one, (), Mode.REDIS)
        same = replace(one)

        told = dict(upstream(allow, policy(), 0, cache=cache).set_headers)
        assert told["x-authz-subject"] == f"person-{number}"
        assert bucket_id(limit, one, "", cache) == bucket_id(limit, same, "")
        assert bucket_id(limit, one, "", cache) != bucket_id(
            limit, principal(subject="x"), "", cache
        )
