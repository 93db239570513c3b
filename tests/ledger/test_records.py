"""Records as text: they read as they were written, and a malformed one denies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.ledger import Query, Revoked, StepUpMissing, StepUpTooOld
from authz.core.principal import Client
from authz.core.second_factor import (
    Evidence,
    Method,
    Proof,
    SecondFactor,
    StepUpNeed,
    satisfies,
)
from authz.ledger.records import (
    Revocation,
    encode_step_up,
    read_revocation,
    revoked,
    step_up_missing,
)

moments = st.none() | st.integers(0, 10**15 - 1)


@given(issued_until=moments, until=moments, metadata=st.text())
def test_a_revocation_is_read_as_it_was_written(
    issued_until: int | None, until: int | None, metadata: str
) -> None:
    """Words hold anything, the separator too; only lone surrogates are escaped."""
    metadata = metadata.encode("utf-8", "replace").decode()
    one = Revocation(issued_until, until, metadata)

    assert read_revocation(one.encode()) == one


@given(value=st.binary())
def test_any_bytes_are_a_revocation(value: bytes) -> None:
    """Nothing that stands in the field is no revocation."""
    found = read_revocation(value)

    assert found.covers(0) or found.issued_until is not None


def test_metadata_that_cannot_be_encoded_are_escaped() -> None:
    """A lone surrogate in a remark does not stop a revocation."""
    assert read_revocation(Revocation(metadata="\ud800").encode()).metadata == "\\ud800"


@given(value=st.binary(), now=st.integers(0, 2**43))
def test_any_bytes_are_a_step_up_or_none(value: bytes, now: int) -> None:
    """No record, however odd, raises."""
    answer = step_up_missing(value, StepUpNeed(Method.ANY, 300), now)

    assert answer in (None, StepUpMissing(), StepUpTooOld())


@given(
    proved=st.sampled_from(list(Method)),
    asked=st.sampled_from([Method.ANY, Method.TOTP]),
    auth_time=st.integers(0, 4000),
    greatest=st.none() | st.integers(0, 1000),
    now=st.integers(0, 4000),
)
def test_a_record_satisfies_as_any_other_proof_does(
    proved: Method, asked: Method, auth_time: int, greatest: int | None, now: int
) -> None:
    """A step-up record passes exactly where the table of second factors says so."""
    lacking = step_up_missing(
        encode_step_up(proved, auth_time), StepUpNeed(asked, greatest), now * 1000
    )
    proof = Proof(Evidence.STEP_UP, proved, auth_time)

    assert (lacking is None) == satisfies(SecondFactor(asked, greatest), proof, now)


@pytest.mark.parametrize("auth_time", [-1, 10**15])
def test_a_step_up_that_cannot_be_read_back_is_not_written(auth_time: int) -> None:
    """auth_time is in seconds since the epoch."""
    with pytest.raises(ValueError, match="auth_time"):
        encode_step_up(Method.TOTP, auth_time)


def test_the_nearest_revocation_is_told() -> None:
    """Of several revocations the one that names the least is told."""
    both = {b"everything": Revocation(), b"token:t": Revocation()}
    asked = Query("t", None, Client("i", "c"), 1, None, None, ())

    assert revoked(both, asked) == Revoked("token")
    assert revoked({}, asked) is None
    assert revoked({b"token:u": Revocation()}, asked) is None
