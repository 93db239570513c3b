"""How often one address or person may ask for what costs others something."""

import pytest

from authz.config.model import FrontDoorConfig
from authz.config.value_types import Rate
from authz.login.service.rate_limits import APPROVALS, PAGES, LoginRateLimiter, configured_rates


@pytest.mark.attack("shared-address")
def test_the_figures_are_those_of_the_configuration() -> None:
    """A limit by address has the rate that authz.yaml says; others keep their own."""
    attempts = LoginRateLimiter(lambda: 1000.0, rates={PAGES.name: Rate(3, 60)})
    waits = [attempts.count_attempt(PAGES, "192.0.2.1") for _ in range(4)]

    assert [bool(wait) for wait in waits] == [False] * 3 + [True]
    assert not attempts.count_attempt(PAGES, "192.0.2.2")
    assert not any(attempts.count_attempt(APPROVALS, "192.0.2.1") for _ in range(APPROVALS.quota))
    assert attempts.count_attempt(APPROVALS, "192.0.2.1")


@pytest.mark.attack("shared-address")
@pytest.mark.parametrize("replicas", [1, 2, 3, 7, 100])
def test_replicas_together_let_an_address_begin_no_more(replicas: int) -> None:
    """Authelia takes 30 failures a minute of an address, whichever replica brings them."""
    rates = configured_rates(FrontDoorConfig(key_file="/key"), replicas)
    each = [LoginRateLimiter(lambda: 1000.0, rates=rates) for _ in range(replicas)]
    begun = [one.count_attempt(APPROVALS, "192.0.2.1") == 0 for one in each for _ in range(40)]

    assert 1 <= sum(begun) <= max(replicas, 20)
