"""One message from one body, or a status; and never a frame around nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.server.framing import (
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    FrameError,
    frame,
    read_message,
)


@given(st.binary(min_size=1, max_size=300))
def test_what_is_written_is_read(message: bytes) -> None:
    """A frame holds its message and nothing else."""
    assert read_message(frame(message), 300) == message


@pytest.mark.attack("empty-check-response")
def test_nothing_is_not_framed() -> None:
    """An empty CheckResponse with the status OK lets Envoy's request pass: it cannot be written."""
    with pytest.raises(ValueError, match="empty"):
        frame(b"")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", INTERNAL, id="nothing"),
        pytest.param(b"\0\0\0\0", INTERNAL, id="a part of the prefix"),
        pytest.param(b"\0\0\0\0\3ab", INTERNAL, id="a part of the message"),
        pytest.param(b"\0\0\0\0\1ab", INTERNAL, id="trailing bytes"),
        pytest.param(frame(b"a") + frame(b"b"), INTERNAL, id="two messages"),
        pytest.param(b"\1\0\0\0\1a", UNIMPLEMENTED, id="compressed"),
        pytest.param(b"\xff\0\0\0\1a", UNIMPLEMENTED, id="odd flag"),
        pytest.param(b"\0\xff\xff\xff\xff", RESOURCE_EXHAUSTED, id="4 GiB"),
        pytest.param(frame(b"12345678901"), RESOURCE_EXHAUSTED, id="one too long"),
    ],
)
def test_what_is_not_one_message_has_a_status(body: bytes, status: int) -> None:
    """A frame that is broken, compressed or too long is never a message."""
    with pytest.raises(FrameError) as found:
        read_message(body, 10)

    assert found.value.status == status


@given(st.binary(max_size=40))
def test_any_body_is_a_message_or_a_status(body: bytes) -> None:
    """Whatever is sent, nothing else is raised, and what is read fills the body."""
    try:
        message = read_message(body, 20)
    except FrameError:
        return
    assert len(message) == len(body) - 5
