"""What is written in C is what redis-py would have written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Connection, ConnectionPool

from authz.ledger.connections import QuickConnection, QuickPool

ARGUMENTS = st.lists(
    st.one_of(st.binary(max_size=80), st.integers(-(2**63), 2**64), st.text(max_size=20)),
    max_size=40,
)


@given(ARGUMENTS)
def test_a_script_call_is_the_same_bytes(arguments: list[bytes | int | str]) -> None:
    """Whatever the arguments hold, line ends and NUL among them."""
    call = ("EVALSHA", *arguments)

    assert QuickConnection().pack_command(*call) == [b"".join(Connection().pack_command(*call))]


def test_other_commands_are_redis_pys() -> None:
    """A name of two words is two arguments, which only redis-py knows."""
    call = ("SCRIPT LOAD", "return 1")

    assert QuickConnection().pack_command(*call) == Connection().pack_command(*call)


@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "unix:///s"])
def test_every_scheme_has_one(url: str) -> None:
    """Whatever the URL says, the pool makes a connection of the same kind, only quicker."""
    plain = ConnectionPool.from_url(url).connection_class

    quick = QuickPool.at(url).connection_class

    assert issubclass(quick, plain)
    assert quick is not plain
