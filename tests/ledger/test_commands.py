"""Commands encoded by hiredis and composed of parts equal those of redis-py."""

from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Connection

from authz.ledger.commands import command, evalsha, pack

ARGUMENTS = st.lists(
    st.one_of(st.binary(max_size=80), st.integers(-(2**63), 2**64), st.text(max_size=20)),
    max_size=40,
)
Arguments = list[bytes | int | str]


def theirs(*call: bytes | int | str) -> bytes:
    return b"".join(Connection().pack_command(*call))


@given(st.sampled_from(["HSET", "SCRIPT LOAD", "CONFIG SET"]), ARGUMENTS)
def test_a_command_is_the_same_bytes(name: str, arguments: Arguments) -> None:
    """Whatever the arguments hold, line ends and NUL among them; a name may be of two words."""
    assert command(name, *arguments) == theirs(name, *arguments)


@given(st.lists(ARGUMENTS, max_size=4), st.lists(ARGUMENTS, max_size=4))
def test_a_script_call_is_the_same_bytes(keys: list[Arguments], arguments: list[Arguments]) -> None:
    """However its keys and arguments are cut into parts."""
    every = [one for part in keys for one in part]
    rest = [one for part in arguments for one in part]
    expected = theirs("EVALSHA", "a" * 40, len(every), *every, *rest)

    assert evalsha("a" * 40, list(map(pack, keys)), list(map(pack, arguments))) == expected
