"""Conditions on arguments: what cannot be judged is neither true nor false."""

import posixpath
from decimal import Decimal
from itertools import product
from unicodedata import normalize
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.core.conditions import (
    MAX_NUMBER,
    MAX_PATTERN,
    MAX_TEXT,
    ArgumentTest,
    Condition,
    Given,
    OneOf,
    Outcome,
    PatternError,
    Under,
    Within,
    is_strict_path,
    judge,
    matches,
)
from authz.core.json_pointer import NotFound, parse
from authz.core.strict_json import loads

HOLDS, FAILS, UNREADABLE = Outcome.HOLDS, Outcome.FAILS, Outcome.UNREADABLE
NUMBERS = st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.text(max_size=5) | st.booleans() | NUMBERS
VALUES = st.recursive(
    SCALARS | st.none() | st.sampled_from(NotFound),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PIECES = st.sampled_from(
    ["/", "tmp", "etc", ".", "..", "...", " ", ".. ", "%2e", "%2F", "\\", "\uff0e", "\u2215",
    "a", "\x00", "~"]
)  # fmt: skip
PATHS = st.lists(PIECES, max_size=8).map("".join)


class Fixed:
    """A test with one outcome."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def judge(self, found: object) -> Outcome:
        return self.outcome


def as_kleene(outcomes: tuple[Outcome, ...]) -> Outcome:
    order = {FAILS: 0, UNREADABLE: 1, HOLDS: 2}
    return min(outcomes, key=order.__getitem__, default=HOLDS)


@pytest.mark.parametrize(
    "outcomes", [each for count in range(4) for each in product(Outcome, repeat=count)]
)
def test_conditions_are_joined_as_kleene_does(outcomes: tuple[Outcome, ...]) -> None:
    """One that fails decides, in any place; else one that cannot be judged."""
    conditions = tuple(Condition(parse("/a"), Fixed(each)) for each in outcomes)
    assert judge(conditions, {"a": 1}) is as_kleene(outcomes)


TESTS = [
    OneOf(("a", 1, True)),
    matches(".*"),
    Under(""),
    Within(least=0),
    Given(present=True),
    Given(present=False),
]


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.attack("arguments")
def test_arguments_that_are_no_object_are_unreadable(test: ArgumentTest) -> None:
    """Nothing holds of them and nothing fails, not even that a member is absent."""
    assert Condition(parse("/a"), test).judge(None) is UNREADABLE


@given(st.sampled_from(TESTS), VALUES)
def test_any_value_has_an_outcome(test: ArgumentTest, value: object) -> None:
    """No test raises, and each but `Given` refuses what is of no kind that it knows."""
    outcome = test.judge(value)
    if isinstance(value, list | dict | None) and not isinstance(test, Given):
        assert outcome is UNREADABLE
    if value is NotFound.ALIKE or value is NotFound.UNREACHABLE:
        assert outcome is UNREADABLE


@given(st.lists(SCALARS, min_size=1, max_size=4).map(tuple), SCALARS)
def test_one_of_compares_values_of_one_kind(
    values: tuple[str | int | float | bool, ...], found: str | float
) -> None:
    """It holds for the same text, truth value or number; a kind that is not named is unreadable."""

    def kind(value: object) -> type:
        return type(value) if isinstance(value, str | bool) else float

    safe = [each for each in (*values, found) if not isinstance(each, str) or "\x00" not in each]
    sized = all(isinstance(each, str | bool) or abs(each) <= MAX_NUMBER for each in safe)
    outcome = OneOf(values).judge(found)
    same = [each for each in values if kind(each) is kind(found) and each == found]
    if outcome is HOLDS:
        assert same
    elif outcome is FAILS:
        assert not same
        assert any(kind(each) is kind(found) for each in values)
    elif sized and len(safe) == len(values) + 1:
        assert not any(kind(each) is kind(found) for each in values)


@pytest.mark.parametrize(
    ("written", "outcome"),
    [
        (b"100", HOLDS), (b"100.0", HOLDS), (b"1e2", HOLDS), (b"1E+2", HOLDS), (b"10000e-2", HOLDS),
        (b"101", FAILS), (b"true", UNREADABLE), (b'"100"', UNREADABLE), (b"[100]", UNREADABLE),
        (b"null", UNREADABLE), (b"9007199254740993", UNREADABLE), (b"1e300", UNREADABLE),
    ],
)  # fmt: skip
@pytest.mark.attack("arguments")
def test_a_number_is_the_number_and_nothing_that_reads_like_one(
    written: bytes, outcome: Outcome
) -> None:
    """Spellings of one number are one; truth values, texts and what doubles round are refused."""
    assert OneOf((100,)).judge(loads(written)) is outcome
    assert Within(least=100, most=100).judge(loads(written)) is outcome


BOUNDS = st.none() | st.integers(-5, 5) | st.sampled_from([0.1, -0.5, 4.25])


@given(BOUNDS, BOUNDS, BOUNDS, BOUNDS, st.integers(-6, 6) | st.floats(-6, 6))
def test_a_range_is_exact(
    least: float | None, most: float | None, above: float | None, below: float | None, found: float
) -> None:
    """As arithmetic of decimals has it, bounds with and without."""
    number = Decimal(found)
    within = (
        (least is None or number >= Decimal(least))
        and (most is None or number <= Decimal(most))
        and (above is None or number > Decimal(above))
        and (below is None or number < Decimal(below))
    )
    assert (Within(least, most, above, below).judge(found) is HOLDS) is within


@pytest.mark.parametrize("text", ["a\n", "\na", "ab\x00", "b", "aa\n", ""])
@pytest.mark.attack("arguments")
def test_a_pattern_is_for_the_whole_text(text: str) -> None:
    """No line, no part and nothing behind a NUL satisfies it."""
    assert matches("a+").judge(text) is not HOLDS
    assert matches("a+").judge("aaa") is HOLDS


@pytest.mark.parametrize("text", ["ls;\nrm -rf /", "rm\n", "\nrm", "a\r\nrm b"])
@pytest.mark.attack("arguments")
def test_a_line_feed_takes_nothing_out_of_a_patterns_reach(text: str) -> None:
    """`.` stops at a line feed in RE2: a demand on `.*rm.*` must not be escaped by one."""
    assert matches(".*rm.*").judge(text) is UNREADABLE
    assert matches("(?s).*rm.*").judge(text) is HOLDS
    assert matches("(?-s:.*rm.*)").judge(text) is FAILS
    assert matches("[^;]*").judge("a\nb") is HOLDS
    assert matches("[a-z ]*").judge("a\nb") is FAILS


@pytest.mark.parametrize("text", ["\ud800", "a\x00", "a" * (MAX_TEXT + 1)])
def test_a_text_that_no_pattern_can_be_applied_to_is_unreadable(text: str) -> None:
    """Half a character, a NUL and a long text."""
    assert matches("(?s).*").judge(text) is UNREADABLE


@pytest.mark.parametrize(
    "pattern", ["(", r"(a)\1", "a(?=b)", "(?P<x>", "a" * (MAX_PATTERN + 1), "((a{100}){100}){100}"]
)
def test_what_takes_more_than_linear_time_is_no_pattern(pattern: str) -> None:
    """RE2 has no back reference, no look-around, and no program beyond a size."""
    with pytest.raises(PatternError):
        matches(pattern)


def readings(path: str) -> set[str]:
    """Return the paths that servers in use make of one."""
    spelt = {path, unquote(path), unquote(unquote(path)), path.replace("\\", "/")}
    spelt |= {normalize("NFKC", each) for each in spelt}
    spelt |= {"/".join(each.rstrip(". ") or each for each in text.split("/")) for text in spelt}
    return {posixpath.normpath(each.partition("\x00")[0] or "/") for each in spelt}


def below(path: str, folder: str) -> bool:
    return path in {folder, f"/{folder}"} or path.removeprefix("/").startswith(f"{folder[1:]}/")


@given(PATHS)
@example("/tmp./a")
@example("/tmp /a")
@pytest.mark.attack("arguments")
def test_under_a_folder_is_under_it_for_every_reader(path: str) -> None:
    """What holds leads below the folder however it is read; what fails never does."""
    outcome = Under("/tmp").judge(path)
    if outcome is HOLDS:
        assert all(below(each, "/tmp") for each in readings(path))
    elif outcome is FAILS:
        assert not any(below(each, "/tmp") for each in readings(path))


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("/tmp", HOLDS), ("/tmp/", HOLDS), ("/tmp/a", HOLDS), ("/tmp/a/", HOLDS), ("/tmp/.a",
        HOLDS),
        ("/tmp/\u00e9", HOLDS), ("/tmpx", FAILS), ("/", FAILS), ("/etc/tmp", FAILS), ("/TMP/a",
        FAILS),
        ("/tmp/../etc", UNREADABLE), ("/tmp/./a", UNREADABLE), ("/tmp//a", UNREADABLE),
        ("//tmp/a", UNREADABLE), ("tmp/a", UNREADABLE), ("", UNREADABLE), ("/tmp/..", UNREADABLE),
        ("/tmp/%2e%2e/a", UNREADABLE), ("/tmp/..\\a", UNREADABLE), ("/tmp/\uff0e\uff0e/a",
        UNREADABLE),
        ("/tmp/.. /a", UNREADABLE), ("/tmp/\u2025/a", UNREADABLE), ("/tmp/a\x00", UNREADABLE),
        ("/tmp./a", UNREADABLE), ("/tmp /a", UNREADABLE), ("/tmp/a.", UNREADABLE),
        ("/tmp/. a", HOLDS),
        ("/tmp/\u200b../a", UNREADABLE), ("/tmp/\ud800", UNREADABLE), (["/tmp/a"], UNREADABLE),
    ],
)  # fmt: skip
@pytest.mark.attack("arguments")
def test_paths(path: object, outcome: Outcome) -> None:
    """A traversal is refused, not resolved: whether a rule allows below or asks for more there."""
    assert Under("/tmp").judge(path) is outcome


def test_the_root_holds_every_strict_path() -> None:
    """The empty folder is the root."""
    assert Under("").judge("/etc/passwd") is HOLDS
    assert Under("").judge("/") is HOLDS
    assert not is_strict_path("x")


@pytest.mark.parametrize(
    ("arguments", "present", "absent"),
    [
        ({}, FAILS, HOLDS),
        ({"a": None}, HOLDS, FAILS),
        ({"a": 0}, HOLDS, FAILS),
        ({"A": 0}, UNREADABLE, UNREADABLE),
    ],
)
def test_what_is_there(arguments: dict[str, object], present: Outcome, absent: Outcome) -> None:
    """Null is there; a member in another case is neither there nor absent."""
    pointer = parse("/a")
    assert Condition(pointer, Given(present=True)).judge(arguments) is present
    assert Condition(pointer, Given(present=False)).judge(arguments) is absent
