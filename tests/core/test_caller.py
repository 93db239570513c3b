"""A principal comes back from its text as it was."""

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.caller import CallerError, read_caller, write_caller
from authz.core.principal import LoginRecord, Principal
from tests.support.values import login_record, visitor

TEXT, MOMENT = st.text(), st.integers()
TEXTS = st.frozensets(TEXT, max_size=3)
# Every field by name: compiled, the classes do not keep the types of their fields.
LOGIN_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "client": TEXT,
    "client_id": TEXT,
    "grant": TEXT,
    "subject": TEXT,
    "amr": TEXTS,
    "auth_time": MOMENT,
    "account": TEXT,
    "redirect_uri": TEXT,
    "ends_at": TEXT,
    "document_host": TEXT,
}
PRINCIPAL_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "issuer": TEXT,
    "subject": st.none() | TEXT,
    "client_id": TEXT,
    "scopes": TEXTS,
    "audience": st.lists(TEXT, max_size=3).map(tuple),
    "groups": TEXTS,
    "amr": st.none() | TEXTS,
    "auth_time": st.none() | MOMENT,
    "issued_at": MOMENT,
    "expires_at": MOMENT,
    "token_id": TEXT,
    "key_id": TEXT,
    "opaque": st.booleans(),
    "confirmed_at": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "login": st.none() | st.builds(LoginRecord, **LOGIN_FIELDS),
    "token_client_id": TEXT,
    "assurance_claim": st.none() | TEXT,
    "claims": st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
}


def test_the_strategy_has_every_field() -> None:
    """A field that is added to a principal is looked at here, too."""
    assert [each.name for each in fields(Principal)] == list(PRINCIPAL_FIELDS)
    assert [each.name for each in fields(LoginRecord)] == list(LOGIN_FIELDS)


@given(st.builds(Principal, **PRINCIPAL_FIELDS))
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


def test_a_worker_of_before_wrote_no_claims() -> None:
    """A request of then, and its response of now, are one person's."""
    text = write_caller(visitor())
    assert ',"claims":[]' in text
    assert read_caller(text.replace(',"claims":[]', "")) == visitor()


def test_a_log_in_comes_along() -> None:
    """The record is what rules about clients of the front door look at."""
    assert read_caller(write_caller(visitor())).login == login_record()
