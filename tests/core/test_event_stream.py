"""Events are cut from a stream alike, however it arrives, and lose no byte."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.core.event_stream import EventSplitter, EventTooLongError, event_data, with_data

_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
_LINES = st.sampled_from(
    [
        b"",
        b"data: {}",
        b"data:x",
        b"data",
        b"data:  y",
        b": ping",
        b"id: 7",
        b"event: message",
        b"z",
    ]
)
_STREAMS = st.lists(st.tuples(_LINES, _ENDS), max_size=12).map(
    lambda lines: b"".join(line + end for line, end in lines)
) | st.text(alphabet="\r\nda:t ", max_size=24).map(str.encode)


def chunks(data: st.DataObject, stream: bytes) -> list[bytes]:
    """Divide a stream anywhere."""
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


def split(pieces: list[bytes]) -> list[bytes]:
    splitter = EventSplitter(1 << 20)
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return [*events, splitter.rest()]


@given(data=st.data(), stream=_STREAMS)
@example(data=None, stream=b"data: x\r\n\rdata: y\r\n\r\n").via("a CR that ends a blank line")
def test_chunks_make_no_difference(data: st.DataObject | None, stream: bytes) -> None:
    """The same events come of every division, and joined they are the stream."""
    pieces = [bytes((byte,)) for byte in stream] if data is None else chunks(data, stream)
    assert split(pieces) == split([stream])
    assert b"".join(split(pieces)) == stream


def reference(stream: bytes) -> list[bytes]:
    """Return the data of events as the HTML standard tells to read them (section 9.2.6)."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found, data = list[bytes](), list[bytes]()
    for line in text.split(b"\n"):
        name, _, value = line.partition(b":")
        if not line:
            found += [b"\n".join(data)] if data else []
            data = []
        elif name == b"data":
            data.append(value.removeprefix(b" "))
    return found + ([b"\n".join(data)] if data else [])  # at the end, as lenient clients do


@given(stream=_STREAMS, bom=st.booleans())
def test_data_is_what_the_standard_says(stream: bytes, bom: bool) -> None:
    """Each event's data is what a client reads, the unfinished one's at the end too."""
    sent = b"\xef\xbb\xbf" + stream if bom else stream
    found = [event_data(event) for event in split([sent])]
    assert [data for data in found if data is not None] == reference(sent)


@given(stream=_STREAMS, text=st.text(alphabet='{}"ab\n ', max_size=12))
@example(stream=b"data: {}\rdata: {}\n\n", text="")
@example(stream=b"data: {}\r\nid: 1\rdata: {}\n\n", text="{}")
def test_other_data_takes_the_place_of_an_events(stream: bytes, text: str) -> None:
    """The data is the new one, and lines of other fields are the same, byte for byte."""
    for event in split([stream]):
        if event_data(event) is None:
            assert with_data(event, b"x") == event
            continue
        changed = with_data(event, text.encode())
        assert event_data(changed) == text.encode()
        assert _others(changed) == _others(event)


def _others(event: bytes) -> list[bytes]:
    lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return [line for line in lines if line.partition(b":")[0] != b"data"]


@pytest.mark.parametrize("stream", [b"data: 123456789\n\n", b"data: 123456789"])
def test_an_event_has_a_bound(stream: bytes) -> None:
    """One that is too long is an error, complete or not; many short ones are none."""
    splitter = EventSplitter(16)
    splitter.feed(b"data: 1\n\n" * 100)
    splitter.feed(b"data: 123456789")
    with pytest.raises(EventTooLongError):
        EventSplitter(8).feed(stream)
