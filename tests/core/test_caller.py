"""A principal comes back from its text as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.caller import CallerError, read_caller, write_caller
from authz.core.principal import LoginRecord, Principal
from tests.support.values import login_record, visitor


@given(st.builds(Principal, login=st.none() | st.builds(LoginRecord)))
def test_what_is_read_is_what_was_written(who: Principal) -> None:
    """For any principal, of the front door or not: every claim, whatever characters it has."""
    text = write_caller(who)
    assert text.isascii()
    assert text.isprintable()
    assert read_caller(text) == who


@pytest.mark.parametrize(
    "text", ["", "{}", "null", "[]", '{"login":7}', write_caller(visitor())[:-1] + ',"x":1}']
)
def test_anything_else_is_nobody(text: str) -> None:
    """What is not such a text raises, and is no principal with defaults."""
    with pytest.raises(CallerError):
        read_caller(text)


def test_a_log_in_comes_along() -> None:
    """The record is what rules about clients of the front door look at."""
    assert read_caller(write_caller(visitor())).login == login_record()
