"""Refusals cost: by address for bad tokens, by client and user for valid ones."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.server.refusal_limiter import BAD_TOKENS, REFUSED, RefusalLimiter
from tests.support.values import NOW, principal


@pytest.mark.attack("flood-of-bad-tokens")
def test_an_address_that_keeps_failing_must_wait() -> None:
    """After its quota of bad tokens an address waits; another one does not."""
    refusals = RefusalLimiter()
    for number in range(BAD_TOKENS.quota):
        assert refusals.address_must_wait("192.0.2.7", str(number), NOW) is None
        refusals.bad_token("192.0.2.7", str(number), NOW)

    wait = refusals.address_must_wait("192.0.2.7", "next", NOW)

    assert wait is not None
    assert refusals.address_must_wait("192.0.2.8", "next", NOW) is None
    assert refusals.address_must_wait("192.0.2.7", "other", NOW + wait) is None


@pytest.mark.attack("shared-address")
def test_a_burst_is_not_held_against_its_address_once_it_has_ended() -> None:
    """However much was asked at once: a part of the window later there is room for one again."""
    refusals = RefusalLimiter()
    for number in range(10 * BAD_TOKENS.quota):
        refusals.bad_token("192.0.2.7", str(number), NOW)
    part = BAD_TOKENS.window / BAD_TOKENS.quota

    assert refusals.address_must_wait("192.0.2.7", "honest", NOW) == 1
    assert refusals.address_must_wait("192.0.2.7", "honest", NOW + part) is None
    refusals.bad_token("192.0.2.7", "junk", NOW + part)
    assert refusals.address_must_wait("192.0.2.7", "another", NOW + part) is not None


@pytest.mark.attack("shared-address")
def test_a_token_that_comes_again_passes_beside_a_flood_of_new_ones() -> None:
    """While a stranger takes whatever comes free, by a new token each time, one that has waited
    is asked about; it has to have waited, and those that did and are bad are bounded too.
    """
    refusals = RefusalLimiter()

    def flood(since: float) -> None:
        for number in range(2 * BAD_TOKENS.quota):
            if refusals.address_must_wait("192.0.2.7", f"{since} {number}", since) is None:
                refusals.bad_token("192.0.2.7", f"{since} {number}", since)

    flood(NOW)
    assert refusals.address_must_wait("192.0.2.7", "honest", NOW) == 1
    flood(NOW + 0.5)
    assert refusals.address_must_wait("192.0.2.7", "honest", NOW + 0.5) is not None
    flood(NOW + 1)

    assert refusals.address_must_wait("192.0.2.7", "another", NOW + 1) is not None
    assert refusals.address_must_wait("192.0.2.7", "honest", NOW + 1) is None

    passed = 0
    for number in range(2 * BAD_TOKENS.quota):  # those of the flood that were told to wait
        token = f"{NOW} {number}"
        if refusals.address_must_wait("192.0.2.7", token, NOW + 1) is None:
            refusals.bad_token("192.0.2.7", token, NOW + 1)
            passed += 1
    assert passed == BAD_TOKENS.quota


@pytest.mark.attack("shared-address")
def test_the_same_token_counts_once_in_a_window() -> None:
    """A client that repeats a token that is no good is one mistake; in the next window it is one
    more, and for another address another one.
    """
    refusals = RefusalLimiter()
    once = replace(BAD_TOKENS, quota=2)
    for _ in range(100):
        refusals.bad_token("192.0.2.7", "same", NOW, once)
    assert refusals.address_must_wait("192.0.2.7", "next", NOW, once) is None
    refusals.bad_token("192.0.2.8", "same", NOW, once)
    refusals.bad_token("192.0.2.8", "other", NOW, once)
    assert refusals.address_must_wait("192.0.2.8", "next", NOW, once) is not None
    refusals.bad_token("192.0.2.7", "same", NOW + once.window, once)
    refusals.bad_token("192.0.2.7", "other", NOW + once.window, once)
    assert refusals.address_must_wait("192.0.2.7", "next", NOW + once.window, once) is not None


@pytest.mark.attack("ipv6-rotation")
def test_addresses_of_one_network_are_one() -> None:
    """Rotating through a /64 changes nothing."""
    refusals = RefusalLimiter()
    for number in range(BAD_TOKENS.quota):
        refusals.bad_token(f"2001:db8::{number:x}", str(number), NOW)

    assert refusals.address_must_wait("2001:db8::ffff", "next", NOW) is not None
    assert refusals.address_must_wait("2001:db8:0:1::1", "next", NOW) is None


def test_a_valid_token_that_keeps_being_refused_must_wait() -> None:
    """An agent that retries what it may not do waits; its neighbour's agent does not."""
    refusals = RefusalLimiter()
    for _ in range(REFUSED.quota):
        assert refusals.principal_must_wait(principal(), NOW) is None
        refusals.refused(principal(), NOW)

    assert refusals.principal_must_wait(principal(), NOW) is not None
    assert refusals.principal_must_wait(principal(token_id="11" * 32), NOW) is not None
    assert refusals.principal_must_wait(principal(subject="bob"), NOW) is None
    assert refusals.principal_must_wait(principal(client_id="other"), NOW) is None


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=200))
@pytest.mark.attack("a-million-addresses")
def test_memory_is_bounded(addresses: list[str]) -> None:
    """However many addresses fail, no more than the cap are remembered."""
    refusals = RefusalLimiter(capacity=16)
    once = replace(BAD_TOKENS, quota=1)
    for address in addresses:
        refusals.bad_token(address, "token", NOW, once)
        refusals.address_must_wait(address, "next", NOW, once)

    assert len(refusals._counted) <= 16
    assert len(refusals._waiting) <= 16
    assert len(refusals) == min(16, len(set(addresses)))
