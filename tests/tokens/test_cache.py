"""The memory of verified tokens: bounded, honest about expiry, emptied of withdrawn keys."""

import pytest

from authz.core.principal import Principal
from authz.tokens.cache import PrincipalCache
from authz.tokens.claims import read_principal
from tests.tokens.token_factory import CLAIMS, NOW, RULES


def principal(expires_at: int = NOW + 3600) -> Principal:
    return read_principal({**CLAIMS, "exp": expires_at}, RULES, NOW, token_id="id", key_id="kid")


def test_a_principal_is_returned_until_it_expires() -> None:
    """The last second is the one before `exp`; then the entry is gone."""
    cache, kept = PrincipalCache(10), principal(NOW + 10)
    cache.put(b"a", kept, "k")

    assert cache.get(b"a", NOW + 9.999) is kept
    assert cache.get(b"b", NOW) is None
    assert cache.get(b"a", NOW + 10) is None
    assert len(cache) == 0


def test_the_least_recently_used_go_first() -> None:
    """No more than the capacity is held, and what is in use stays."""
    cache = PrincipalCache(2)
    cache.put(b"a", principal(), "k")
    cache.put(b"b", principal(), "k")
    cache.get(b"a", NOW)
    cache.put(b"c", principal(), "k")

    assert cache.get(b"b", NOW) is None
    assert cache.get(b"a", NOW) is not None
    assert cache.get(b"c", NOW) is not None


def test_a_hundred_thousand_tokens_leave_no_more_than_the_capacity() -> None:
    """Memory does not grow with the number of tokens."""
    cache, kept = PrincipalCache(100), principal()
    for number in range(100_000):
        cache.put(number.to_bytes(4), kept, "k")

    assert len(cache) == 100


def test_a_token_that_comes_again_is_held_once() -> None:
    """Two requests with one new token at once leave one entry."""
    cache = PrincipalCache(10)
    cache.put(b"a", principal(), "old")
    cache.put(b"a", principal(), "new")
    cache.forget_keys({"old"})

    assert cache.get(b"a", NOW) is not None
    assert len(cache) == 1


def test_tokens_of_withdrawn_keys_are_forgotten_and_no_others() -> None:
    """What a key vouched for goes with it."""
    cache = PrincipalCache(10)
    cache.put(b"a", principal(), "gone")
    cache.put(b"b", principal(), "stays")
    cache.forget_keys({"gone"})

    assert cache.get(b"a", NOW) is None
    assert cache.get(b"b", NOW) is not None


def test_a_cache_holds_something() -> None:
    """A capacity below one is a mistake."""
    with pytest.raises(ValueError, match="at least one"):
        PrincipalCache(0)
