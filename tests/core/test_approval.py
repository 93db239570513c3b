"""What rules together ask for: the strictest approval."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.approval import Approval, strictest

APPROVALS = st.builds(Approval, st.none() | st.integers(1, 100))


@given(st.lists(APPROVALS))
def test_the_strictest_counts(asked: list[Approval]) -> None:
    """Each call before any time, a shorter time before a longer one, nothing for nothing."""
    found = strictest(asked)
    assert (found is None) is (not asked)
    if found is not None:
        assert found in asked
        assert found.each_call is any(each.each_call for each in asked)
        if found.lifetime is not None:
            assert all(found.lifetime <= each.lifetime for each in asked if each.lifetime)


@pytest.mark.parametrize("lifetime", [0, -1])
def test_an_approval_holds_for_a_time(lifetime: int) -> None:
    """None of no time is made, about which two ledgers could differ."""
    with pytest.raises(ValueError, match="a second at least"):
        Approval(lifetime)
