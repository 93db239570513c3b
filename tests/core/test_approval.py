"""What rules together ask for: the strictest approval."""

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
