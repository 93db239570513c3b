"""Cut elements out of arrays of a strict JSON document, and leave every other byte as it is.

Invariant: what is read is what `strict_json.loads` reads; with nothing cut out the result is the
document, byte for byte, and with something cut out it is the document without these elements
(tests/core/test_json_splice.py).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from authz.core.detail import Detail
from authz.core.strict_json import (
    StrictJsonError,
    check_work,
    document_text,
    piece_reader,
)

# Characters of the first piece in which a value is looked for, and those from which on it is asked
# first what reading costs.
_PIECE: Final = 4096
_LONG: Final = 64 * 1024
# Nanoseconds, as `strict_json` estimates them, for one value: nothing else runs meanwhile.
_MAX_VALUE_WORK: Final = 100_000_000
_BLANKS: Final = re.compile(r"[ \t\n\r]*")  # RFC 8259, section 2

# Reads the value of a member that begins at an index, and returns where it ends; None leaves the
# value to be read as any other.
Enter = Callable[[str, int], int | None]


# Where a range begins and ends, and what takes its place.
Edit = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Element:
    """Hold one element of an array.

    Attributes:
        value: as Python's json reads it.
        start, end: where it stands in the text.
    """

    value: Any  # mypyc finds no `object` for the member of a dataclass
    start: int
    end: int


class JsonText:
    """Read one strict JSON document in pieces that know where they stand."""

    def __init__(self, data: bytes, *, max_depth: int, max_work: int) -> None:
        """Decode the document and look at its bounds.

        Raises:
            StrictJsonError: as `strict_json.loads`, for what it sees before it reads.
        """
        self.text: Final = document_text(data, max_depth=max_depth, max_work=max_work)
        self._read: Final = piece_reader(self.text)

    def start(self) -> int:
        """Return where the document's value begins."""
        return self._blanks(0)

    def check_end(self, end: int) -> None:
        """Refuse anything but blanks after the value.

        Raises:
            StrictJsonError: where there is more.
        """
        if self._blanks(end) != len(self.text):
            raise StrictJsonError(Detail.TWO_DOCUMENTS)

    def opens(self, at: int, bracket: str) -> bool:
        """Tell whether a value begins with a bracket."""
        return self.text.startswith(bracket, at)

    def value(self, at: int) -> tuple[object, int]:
        """Return the value at an index, and where it ends.

        It is read in one go, in which the interpreter does nothing else, so it is looked for in
        pieces that grow.

        Raises:
            StrictJsonError: where it is no strict JSON, or where reading it alone takes too long.
        """
        length = _PIECE
        while at + length < len(self.text):
            piece = self.text[at : at + length]
            self._check(piece)
            try:
                found, end = self._read(piece, 0)
            except StrictJsonError as error:
                if error.detail is not Detail.NOT_JSON:
                    raise
            else:
                if end < length:  # else a number may go on
                    return found, at + end
            length *= 2
        self._check(self.text[at:])
        return self._read(self.text, at)

    @staticmethod
    def _check(piece: str) -> None:
        if len(piece) >= _LONG:
            check_work(piece, _MAX_VALUE_WORK)

    def object(self, at: int, enter: Enter) -> tuple[frozenset[str], int]:
        """Read an object, and return the names of its members and where it ends.

        Raises:
            StrictJsonError: as `value`; also for a member that occurs twice.
        """
        names = set[str]()
        at = self._blanks(at + 1)
        if self.opens(at, "}"):
            return frozenset(), at + 1
        while True:
            if not self.opens(at, '"'):
                raise StrictJsonError(Detail.NOT_JSON)
            name, at = self.value(at)
            if name in names:
                raise StrictJsonError(Detail.DUPLICATE_MEMBER)
            assert isinstance(name, str)
            names.add(name)
            at = self._blanks(at)
            if not self.opens(at, ":"):
                raise StrictJsonError(Detail.NOT_JSON)
            at = self._blanks(at + 1)
            end = enter(name, at)
            at = self._blanks(self.value(at)[1] if end is None else end)
            if self.opens(at, "}"):
                return frozenset(names), at + 1
            at = self._comma(at)

    def array(self, at: int) -> tuple[tuple[Element, ...], int]:
        """Read an array, and return its elements and where it ends.

        Raises:
            StrictJsonError: as `value`.
        """
        found = list[Element]()
        at = self._blanks(at + 1)
        if self.opens(at, "]"):
            return (), at + 1
        while True:
            value, end = self.value(at)
            found.append(Element(value, at, end))
            at = self._blanks(end)
            if self.opens(at, "]"):
                return tuple(found), at + 1
            at = self._comma(at)

    def raw(self, element: Element) -> bytes:
        """Return the bytes of an element."""
        return self.text[element.start : element.end].encode()

    def edited(self, edits: Iterable[Edit]) -> bytes:
        """Return the document with some ranges replaced, which are in order and do not overlap."""
        pieces, at = list[str](), 0
        for start, end, text in edits:
            pieces += (self.text[at:start], text)
            at = end
        pieces.append(self.text[at:])
        return "".join(pieces).encode()

    def _comma(self, at: int) -> int:
        if not self.opens(at, ","):
            raise StrictJsonError(Detail.NOT_JSON)
        return self._blanks(at + 1)

    def _blanks(self, at: int) -> int:
        found = _BLANKS.match(self.text, at)
        assert found is not None
        return found.end()


def cuts(elements: tuple[Element, ...], kept: tuple[Element, ...]) -> list[Edit]:
    """Return the edits of a document after which an array holds the kept elements alone.

    Each kept element but the first keeps the comma and the blanks that stood before it.

    Args:
        elements: of the array, in order.
        kept: some of them, in order.
    """
    if len(kept) == len(elements):
        return []
    if not kept:
        return [(elements[0].start, elements[-1].end, "")]
    first = kept[0].start
    ranges = [(elements[0].start, first, "")] if elements[0].start != first else []
    keep, before = {each.start for each in kept}, elements[0]
    for element in elements:
        if element.start > first and element.start not in keep:
            ranges.append((before.end, element.end, ""))
        before = element
    return ranges
