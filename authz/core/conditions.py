"""Conditions on the arguments of a call: `when` of a rule.

Three outcomes, combined as Kleene does: a condition holds, fails, or cannot be judged, since the
argument is of another kind than the condition judges or parsers read it differently.

Invariant: what cannot be judged is never taken for either of the others (tests/core/
test_conditions.py): the call is refused, whether the rule would have let it pass or asked for more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol
from unicodedata import normalize

import re2  # type: ignore[import-untyped]  # it has neither stubs nor py.typed

from authz.core.json_pointer import JsonPointer, NotFound
from authz.core.strict_json import has_surrogate

Scalar = str | int | float | bool
MAX_PATTERN: Final = 256  # characters of a pattern
MAX_TEXT: Final = 1024  # characters of a text that a pattern is applied to
# RFC 7493, section 2.2: beyond these, parsers read a number differently.
MAX_NUMBER: Final = 2**53 - 1
_MAX_PROGRAM: Final = 1 << 20  # bytes of a compiled pattern and its states


class Outcome(Enum):
    """Name what a condition says of the arguments of a call."""

    HOLDS = "holds"
    FAILS = "fails"
    UNREADABLE = "unreadable"


class PatternError(ValueError):
    """Say what is wrong with the text of a pattern."""


class ArgumentTest(Protocol):
    """Judge one argument: a JSON value that was read strictly, or why there is none."""

    def judge(self, found: object) -> Outcome:
        """Return what the test says; it never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Condition:
    """Test the argument that a pointer leads to."""

    pointer: JsonPointer
    test: ArgumentTest

    def judge(self, arguments: Mapping[str, object] | None) -> Outcome:
        """Return the outcome for the arguments of a call; None where they are no object."""
        if arguments is None:
            return Outcome.UNREADABLE
        return self.test.judge(self.pointer.find(arguments))


def judge(conditions: tuple[Condition, ...], arguments: Mapping[str, object] | None) -> Outcome:
    """Return whether all conditions hold: one that fails decides, else one that is unreadable."""
    outcomes = {condition.judge(arguments) for condition in conditions}
    if Outcome.FAILS in outcomes:
        return Outcome.FAILS
    return Outcome.UNREADABLE if Outcome.UNREADABLE in outcomes else Outcome.HOLDS


@dataclass(frozen=True, slots=True)
class OneOf:
    """Hold where the argument is one of some values; 1, 1.0 and 1e0 are one number, true is none.

    Args:
        values: texts, numbers up to 2^53 - 1 in size, true and false.
    """

    values: tuple[Scalar, ...]

    def judge(self, found: object) -> Outcome:
        """Compare with values of its kind; with none of its kind it is unreadable."""
        if isinstance(found, NotFound):
            return _NOTHING[found]
        kind = _kind(found)
        alike = [value for value in self.values if _kind(value) is kind]
        if kind is _Kind.OTHER or not alike:
            return Outcome.UNREADABLE
        return _outcome(found in alike)


@dataclass(frozen=True, slots=True)
class Matches:
    """Hold where the whole of a text matches a regular expression of RE2, in linear time."""

    pattern: str
    # re2's own type, which has no stubs: `.` is any character but a line feed, or any at all.
    compiled: Any = field(compare=False, repr=False)
    over_lines: Any = field(compare=False, repr=False)

    def judge(self, found: object) -> Outcome:
        """Match a text of up to `MAX_TEXT` characters.

        Where it depends on whether `.` is a line feed too, it is unreadable: who wrote `.*rm.*`
        means any text, and a caller may put a line feed anywhere.
        """
        if isinstance(found, NotFound):
            return _NOTHING[found]
        if _kind(found) is not _Kind.TEXT or not isinstance(found, str) or len(found) > MAX_TEXT:
            return Outcome.UNREADABLE
        holds = self.compiled.fullmatch(found) is not None
        if "\n" in found and (self.over_lines.fullmatch(found) is not None) is not holds:
            return Outcome.UNREADABLE
        return _outcome(holds)


def matches(pattern: str) -> Matches:
    """Return the test of a pattern (RE2's syntax: no look-around, no back references).

    Raises:
        PatternError: where it is none, or too long or too large.
    """
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"longer than {MAX_PATTERN} characters")
    try:
        return Matches(pattern, *(_compiled(pattern, over_lines=each) for each in (False, True)))
    except (re2.error, UnicodeEncodeError) as error:
        raise PatternError("not a regular expression of RE2") from error


def _compiled(pattern: str, *, over_lines: bool) -> Any:
    options = re2.Options()
    options.max_mem = _MAX_PROGRAM
    options.log_errors = False
    options.never_capture = True
    options.dot_nl = over_lines
    return re2.compile(pattern, options)


@dataclass(frozen=True, slots=True)
class Under:
    """Hold where a text is the path of a folder or of something below it (POSIX).

    Args:
        folder: its absolute path, as `is_strict_path` takes it, without a slash at the end; "" for
            the root.
    """

    folder: str

    def judge(self, found: object) -> Outcome:
        """Compare a path that reads alike everywhere; one with dot segments is unreadable."""
        if isinstance(found, NotFound):
            return _NOTHING[found]
        if not isinstance(found, str) or not is_strict_path(found):
            return Outcome.UNREADABLE
        return _outcome(found == self.folder or found.startswith(f"{self.folder}/"))


def is_strict_path(text: str) -> bool:
    """Tell whether a text is an absolute path that no system reads as another one.

    No segment is empty (but the last one) or ends with a dot or blank, which some systems leave
    out; nothing is escaped, no character is a control, a backslash, or another spelling of a dot or
    slash (NFKC).
    """
    if not text.startswith("/") or not text.isprintable() or "\\" in text or "%" in text:
        return False
    plain = text if text.isascii() else normalize("NFKC", text)
    if plain.count("/") != text.count("/") or "\\" in plain or "%" in plain:
        return False
    names = plain.removesuffix("/").split("/")[1:]
    return all(name and name[-1] not in ". " for name in names)


@dataclass(frozen=True, slots=True)
class Within:
    """Hold where a number lies between bounds; None where there is no such bound.

    Args:
        least, most: bounds that are within.
        above, below: bounds that are not.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def judge(self, found: object) -> Outcome:
        """Compare a number exactly; true and texts of digits are none."""
        if isinstance(found, NotFound):
            return _NOTHING[found]
        if _kind(found) is not _Kind.NUMBER or not isinstance(found, int | float):
            return Outcome.UNREADABLE
        return _outcome(
            (self.least is None or found >= self.least)
            and (self.most is None or found <= self.most)
            and (self.above is None or found > self.above)
            and (self.below is None or found < self.below)
        )


@dataclass(frozen=True, slots=True)
class Given:
    """Hold where an argument is there, whatever it is, or where it is not; null is there."""

    present: bool

    def judge(self, found: object) -> Outcome:
        """Tell a member that is there from none; one that another is alike to is unreadable."""
        if found is NotFound.ABSENT:
            return _outcome(not self.present)
        return Outcome.UNREADABLE if isinstance(found, NotFound) else _outcome(self.present)


class _Kind(Enum):
    """Name the kinds of values that are compared with one another."""

    TEXT = "text"
    NUMBER = "number"
    TRUTH = "truth"
    OTHER = "other"


# A condition on what is not there fails: it says nothing of a default that a server takes.
_NOTHING: Final[Mapping[NotFound, Outcome]] = {
    NotFound.ABSENT: Outcome.FAILS,
    NotFound.UNREACHABLE: Outcome.UNREADABLE,
    NotFound.ALIKE: Outcome.UNREADABLE,
}


def _kind(value: object) -> _Kind:
    if isinstance(value, str):
        # Parsers cut a text at NUL, and replace half a character.
        return _Kind.OTHER if "\x00" in value or has_surrogate(value) else _Kind.TEXT
    if isinstance(value, bool):  # which is an int to Python
        return _Kind.TRUTH
    if isinstance(value, int | float) and -MAX_NUMBER <= value <= MAX_NUMBER:
        return _Kind.NUMBER
    return _Kind.OTHER


def _outcome(holds: bool) -> Outcome:
    return Outcome.HOLDS if holds else Outcome.FAILS
