"""Strict JSON (RFC 8259, RFC 7493): one document, bounded in depth and work.

Invariant: any bytes give one value or StrictJsonError. Nothing recurses before the nesting is
known, and the work is linear in the length.
"""

import json
import re
from collections.abc import Callable, Collection
from functools import partial
from math import isinf
from typing import Final

from authz.core.detail import Detail

MAX_DEPTH: Final = 64
# What reading takes, in nanoseconds, as measured for each part of a document: a megabyte of `[],`
# takes forty times as long as one of text. It is an estimate from counts, the same on any machine.
_PER_BYTE: Final = 6
_PER_COMMA: Final = 50
_PER_POINT: Final = 280
_PER_EXPONENT: Final = 700  # a power of ten as a number of many words
_PER_RUN: Final = 200  # of twenty digits: more than a machine's word holds
_PER_CONTAINER: Final = 350
_PER_MEMBER: Final = 250
MAX_WORK: Final = 50_000_000
# The longest integer that a double can hold. Python's own limit (4,300 digits) is a setting of
# the process, and reading digits takes quadratic time.
_MAX_NUMBER: Final = 309
_BLANK: Final = " \t\n\r"  # RFC 8259, section 2; str.strip() alone would take Unicode's, too
# `(` for what opens, `)` for what closes.
_BRACKETS: Final = bytes.maketrans(b"[{]}E", b"(())e")
_NO_STRUCTURE: Final = bytes(set(range(256)) - set(b"[{]},:.eE"))
_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_RUN: Final = b"0" * 20
# With fewer in a row no integer is too long.
_MANY_DIGITS: Final = b"0" * _MAX_NUMBER
_TOO_MANY: Final = (_MANY_DIGITS + b"0", b"-" + _MANY_DIGITS)
# Not written as escapes: mypyc takes no surrogate in a literal.
_SURROGATE: Final = re.compile(f"[{chr(0xD800)}-{chr(0xDFFF)}]")
_JOINTS: Final = str.maketrans("", "", "_-")
_VISIBLE: Final = re.compile("[!-~]*")


class StrictJsonError(ValueError):
    """The bytes are not one strict JSON document; callers translate it.

    Attributes:
        detail: what is wrong.
    """

    def __init__(self, detail: Detail) -> None:
        """Keep what is wrong."""
        super().__init__(detail.value)
        self.detail = detail


class TooDeepError(StrictJsonError):
    """The document is nested more deeply than allowed."""


class TooMuchWorkError(StrictJsonError):
    """Reading the document would take longer than allowed."""


def loads(data: bytes, *, max_depth: int = MAX_DEPTH, max_work: int = MAX_WORK) -> object:
    """Read one JSON document (RFC 8259; UTF-8 without BOM, RFC 7493, sections 2.1 to 2.3).

    No member occurs twice in an object, no key holds a lone surrogate, no number is NaN, infinite
    or longer than 309 characters. The caller bounds the length of `data`.

    Args:
        data: the bytes of the document, blanks around it allowed.
        max_depth: how many objects and arrays may be nested.
        max_work: how long reading may take, estimated in nanoseconds from what it consists of.

    Raises:
        TooDeepError: where it is nested more deeply.
        TooMuchWorkError: where it would take longer.
        StrictJsonError: for everything else.
    """
    text = document_text(data, max_depth=max_depth, max_work=max_work).strip(_BLANK)
    value, end = value_reader(text)(0)
    if end != len(text):
        raise StrictJsonError(Detail.TWO_DOCUMENTS)
    return value


def document_text(data: bytes, *, max_depth: int = MAX_DEPTH, max_work: int = MAX_WORK) -> str:
    """Return the text of one document, once its bounds hold; its blanks are still around it.

    Raises:
        StrictJsonError: as `loads`, for what is seen before it is read.
    """
    opened = data.count(b"[") + data.count(b"{")
    digits = data.translate(_DIGITS)
    # Few have as much as one run, and looking for that is ten times as quick.
    long = _RUN in digits and _MANY_DIGITS in digits
    # No byte costs more than one that opens something.
    if long or opened > max_depth or len(data) * _PER_CONTAINER > max_work:
        outside = _outside_strings(data)
        _check_structure(outside, len(data), max_depth, max_work)
        # Here, not as the parser reads: calling back for every integer takes three times as long.
        if long and any(many in outside.translate(_DIGITS) for many in _TOO_MANY):
            raise StrictJsonError(Detail.LONG_NUMBER)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise StrictJsonError(Detail.NOT_UTF8) from None


def value_reader(text: str) -> Callable[[int], tuple[object, int]]:
    """Return what reads the value at an index of a text of `document_text`, and where it ends.

    It raises StrictJsonError as `loads`, for what is seen as a value is read.
    """
    return partial(piece_reader(text), text)


def piece_reader(text: str) -> Callable[[str, int], tuple[object, int]]:
    """Return what reads values of a text in pieces of it, as `value_reader`.

    Of a value that the piece cuts off it says NOT_JSON, and of a cut number it reads a part.
    """
    # A lone surrogate can only be written as an escape: its bytes are no UTF-8.
    return partial(_read_value, _DECODERS["\\u" in text])


def check_work(text: str, max_work: int) -> None:
    """Refuse a text that takes too long to read in one go, wherever it begins and ends.

    Args:
        text: a piece of a document; strings that it cuts may count as structure.
        max_work: as of `loads`.

    Raises:
        TooMuchWorkError: where it would take longer.
    """
    data = text.encode()
    for outside in (data, _outside_strings(data)):
        structure = outside.translate(_BRACKETS, delete=_NO_STRUCTURE)
        if _estimate(structure, outside, len(data)) <= max_work:
            return
    raise TooMuchWorkError(Detail.TOO_MUCH_WORK)


def _read_value(decoder: json.JSONDecoder, text: str, at: int) -> tuple[object, int]:
    try:
        return decoder.raw_decode(text, at)
    except StrictJsonError:
        raise
    except (ValueError, RecursionError):
        raise StrictJsonError(Detail.NOT_JSON) from None


def unmistakable(keys: Collection[str]) -> bool:
    """Tell whether no parser could take one of the keys for another.

    True where all are visible ASCII and differ by more than their case. Parsers in use match
    members without regard to case or by Unicode folding (a long s for `s`, full-width letters)
    and cut them at NUL; where nothing but ASCII is let in, no folding needs to be imitated.
    """
    return _VISIBLE.fullmatch("".join(keys)) is not None and (
        len({key.lower() for key in keys}) == len(keys)
    )


def folded(key: str) -> str:
    """Return what the keys have in common that some parser takes for this one, all in ASCII.

    Parsers match names without regard to case (Go), to joints (Go's `nocase`), and by aliases
    (`task_id` for `taskId`: models of Python that take the names of their fields, too).
    """
    return key.translate(_JOINTS).lower()


def has_surrogate(text: str) -> bool:
    """Tell whether a string holds a lone surrogate, which no encoder can write."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def _outside_strings(data: bytes) -> bytes:
    # Without escaped backslashes, then without escaped quotes, the quotes that are left begin and
    # end strings, and every second piece is outside. A backslash out there misleads nobody: it
    # is no JSON, so a parser stops at it. A regular expression is slower and easily quadratic.
    return b"".join(data.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])


def _check_structure(outside: bytes, length: int, max_depth: int, max_work: int) -> None:
    """Refuse too much work and too deep a nesting, before a parser meets them.

    Args:
        outside: the document without what stands in its strings.
        length: how long the document is.
        max_depth: as of `loads`.
        max_work: as of `loads`.

    Raises:
        TooMuchWorkError, TooDeepError: for either.
    """
    structure = outside.translate(_BRACKETS, delete=_NO_STRUCTURE)
    work = _estimate(structure, outside, length)
    if work > max_work:
        raise TooMuchWorkError(Detail.TOO_MUCH_WORK)
    depth = 0
    for opened in structure.translate(None, b",:.e").split(b")"):
        depth += len(opened)
        if depth > max_depth:
            raise TooDeepError(Detail.TOO_DEEP)
        depth -= 1


def _estimate(structure: bytes, outside: bytes, length: int) -> int:
    """Return what reading takes in nanoseconds, by the structural characters outside of strings."""
    exponents = structure.count(b"e")
    if exponents:
        exponents -= outside.count(b"true") + outside.count(b"false")
    return (
        length * _PER_BYTE
        + structure.count(b"(") * _PER_CONTAINER
        + structure.count(b":") * _PER_MEMBER
        + structure.count(b",") * _PER_COMMA
        + structure.count(b".") * _PER_POINT
        + exponents * _PER_EXPONENT
        + outside.translate(_DIGITS).count(_RUN) * _PER_RUN
    )


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StrictJsonError(Detail.DUPLICATE_MEMBER)
    return members


def _members_of_escaped(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = _members(pairs)
    if has_surrogate("".join(members)):
        raise StrictJsonError(Detail.LONE_SURROGATE)
    return members


def _number(text: str) -> float:
    if len(text) > _MAX_NUMBER or isinf(number := float(text)):
        raise StrictJsonError(Detail.LARGE_NUMBER)
    return number


def _constant(_: str) -> object:
    raise StrictJsonError(Detail.NOT_FINITE)


# By whether there are escapes of the kind that makes surrogates.
_DECODERS: Final = {
    escaped: json.JSONDecoder(
        object_pairs_hook=_members_of_escaped if escaped else _members,
        parse_float=_number,
        parse_constant=_constant,
    )
    for escaped in (False, True)
}
