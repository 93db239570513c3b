"""Events of a text/event-stream (HTML Living Standard, section 9.2), cut from its bytes.

Invariant: however the bytes are divided into chunks, the same events come out, and together they
are the stream, byte for byte (tests/core/test_event_stream.py).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# A CR before an LF ends no line by itself; of one at the end of a chunk nobody knows yet.
_BOUNDARY: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n|\Z))")
_LINE: Final = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")
_BOM: Final = b"\xef\xbb\xbf"
# U+000B, U+000C, U+001C to U+001E, U+0085, U+2028, U+2029: where `str.splitlines` divides.
_OTHER_ENDS: Final = re.compile(rb"[\x0b\x0c\x1c-\x1e]|\xc2\x85|\xe2\x80[\xa8\xa9]")
_BEFORE: Final = 3  # bytes of a boundary that may have come before: CR LF CR


class EventTooLongError(Exception):
    """Say that an event is longer than allowed."""


class EventSplitter:
    """Divide a stream into events, each with the blank line that ends it."""

    def __init__(self, longest: int) -> None:
        """Take how many bytes one event may have."""
        self._longest = longest
        self._held = bytearray()
        self._seen = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that are complete with these bytes.

        Raises:
            EventTooLongError: where one of them, or the one that has begun, is too long.
        """
        self._held += chunk
        events, start = list[bytes](), 0
        at = max(0, self._seen - _BEFORE)
        while (found := _BOUNDARY.search(self._held, at)) is not None:
            events.append(bytes(self._held[start : found.end()]))
            start = at = found.end()
        if start:
            del self._held[:start]
        self._seen = len(self._held)
        if max(self._seen, *map(len, events), 0) > self._longest:
            raise EventTooLongError
        return events

    @property
    def held(self) -> int:
        """Return how many bytes the event has that has begun."""
        return len(self._held)

    def rest(self) -> bytes:
        """Return what stands after the last complete event: some clients read it as one."""
        return bytes(self._held)


@dataclass(frozen=True, slots=True)
class _Line:
    """Hold a line of an event: what it was, its end, and its data; None of another field."""

    raw: bytes
    end: bytes
    data: bytes | None


def is_ambiguous(event: bytes) -> bool:
    """Tell whether clients that are in use could read another event, or more than one.

    Some end lines at LF alone, some drop a byte order mark on no line or on the first one only, and
    some divide text at all that Unicode calls the end of a line. In data that is legal, and what
    follows there is a part of a JSON string.
    """
    if b"\r" in event.replace(b"\r\n", b""):
        return True
    return any(
        line.raw.startswith(_BOM) or (line.data is None and _OTHER_ENDS.search(line.raw))
        for line in _lines(event)
    )


def event_data(event: bytes) -> bytes | None:
    """Return the data of an event, its lines joined by LF; None where it has none."""
    found = [line.data for line in _lines(event) if line.data is not None]
    return b"\n".join(found) if found else None


def with_data(event: bytes, data: bytes) -> bytes:
    """Return an event with other data; every line of another field stays as it is.

    Args:
        event: it has data.
        data: without CR.
    """
    written, done = list[bytes](), False
    for line in _lines(event):
        if line.data is None:
            # What ended the line before is not to become a part of one end, CRLF.
            apart = line.raw[:1] == b"\n" and bool(written) and written[-1].endswith(b"\r")
            written.append(b"\n" + line.raw if apart else line.raw)
        elif not done:
            done = True
            before = _BOM if line.raw.startswith(_BOM) else b""
            lines = [b"data: " + each for each in data.split(b"\n")]
            written.append(before + (line.end or b"\n").join(lines) + line.end)
    return b"".join(written)


def _lines(event: bytes) -> Iterator[_Line]:
    for found in _LINE.finditer(event):
        raw, text, end = found.group(0), found.group(1), found.group(2)
        if not raw:
            continue
        # A byte order mark stands before the first line only; whoever drops it reads a field.
        name, _, value = text.removeprefix(_BOM).partition(b":")
        is_data = name == b"data"
        yield _Line(raw, end, value.removeprefix(b" ") if is_data else None)
