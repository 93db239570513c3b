"""YAML to plain values: what is read, and what is refused rather than obeyed."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.config.problems import Fault
from authz.config.yaml_loader import DEPTH, Position, UnreadableError, read_tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("0o17", "0o17"),
        ("012", 12),
        ("-3", -3),
        ("1.3", 1.3),
        ("1e3", 1000.0),
        ("'1'", "1"),
        ("2026-07-28", "2026-07-28"),
        ("12:30:00", "12:30:00"),
        ("1_000", "1_000"),
        (".inf", math.inf),
        ("9" * 5000, math.inf),
    ],
)
def test_scalars(text: str, value: object) -> None:
    """Scalars are read by YAML 1.2's core schema; dates and `yes` stay text."""
    assert read_tree(f"a: {text}").data == {"a": value}


def test_nan() -> None:
    """Not-a-number is read as what it is, so that it can be refused as what it is."""
    data = read_tree("a: .nan").data

    assert isinstance(data, dict)
    assert math.isnan(data["a"])


def test_keys_are_text() -> None:
    """A key is its text, whatever it looks like."""
    assert read_tree("{1: a, true: b, 1.0: c, null: d}").data == {
        "1": "a",
        "true": "b",
        "1.0": "c",
        "null": "d",
    }


def test_places() -> None:
    """Values know their line and column, collections those of their key."""
    tree = read_tree("a:\n  - b: c\n    d: [1,\n      2]\n")

    assert tree.values[("a",)] == Position(1, 1)
    assert tree.values[("a", 0, "b")] == Position(2, 8)
    assert tree.values[("a", 0, "d")] == Position(3, 5)
    assert tree.values[("a", 0, "d", 1)] == Position(4, 7)
    assert tree.place(Fault(("a", 0, "d"), "", "", on_key=True)) == Position(3, 5)
    assert tree.place(Fault(("a", 0, "gone", "deep"), "", "")) == Position(2, 5)


@pytest.mark.parametrize(
    "text", ["a: &x [1]", "a: !t [1]", "a: *x", "a: &x 1", "a: !!str 1", "a:", "a: ~", "a: null"]
)
def test_refused_values(text: str) -> None:
    """Anchors, aliases, tags and nothing are refused, and stand for None."""
    tree = read_tree(text)

    assert tree.data == {"a": None}
    assert [fault.path for fault, _ in tree.faults] == [("a",)]


@pytest.mark.parametrize(
    "text", ["<<: {b: 1}", "? [x]\n: 1", "? {x: y}\n: *z", "!t k: 1", "&x k: 1", "*x : 1", "c: 2"]
)
def test_refused_keys(text: str) -> None:
    """A merge key, a key that is no plain text or one that is there already adds nothing."""
    tree = read_tree(f"c: 1\n{text}\n")

    assert tree.data == {"c": 1}
    assert [(fault.path, fault.on_key, place.line) for fault, place in tree.faults] == [
        ((), True, 2)
    ]


def test_quoted_double_less_than_is_refused_too() -> None:
    """A quoted `<<` is no merge key elsewhere, but nobody can have meant a name by it."""
    assert read_tree("'<<': 1").data == {}


@pytest.mark.attack("alias-bomb")
def test_alias_bomb() -> None:
    """A billion laughs cost nothing: no alias is followed."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]

    assert set(read_tree("\n".join(lines)).data.values()) == {None}  # type: ignore[attr-defined]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_depth(opening: str) -> None:
    """A hundred thousand brackets are refused at the depth that is allowed."""
    with pytest.raises(UnreadableError) as caught:
        read_tree(opening * 100_000)

    assert "nested too deeply" in caught.value.wrong or "not YAML" in caught.value.wrong


def test_depth_that_is_allowed() -> None:
    """What is nested as deep as allowed is read."""
    assert read_tree("[" * DEPTH + "]" * DEPTH).data is not None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1", Position(1, 6)),
        ("a: 1\n\tb: 2", Position(2, 1)),
        ("a: 1\n---\nb: 1", Position(2, 1)),
        ("a: 1\nb: \x07", Position(2, 4)),
        ('a: 1\nb: "\\Uffffffff"', Position(2, 1)),
        ("%YAML 9.9\n---\na: 1", Position(1, 1)),
    ],
)
def test_syntax(text: str, place: Position) -> None:
    """A syntax error has a line."""
    with pytest.raises(UnreadableError) as caught:
        read_tree(text)

    assert caught.value.place == place


NAMES = st.text("abc", min_size=1, max_size=4)
DATA = st.recursive(
    st.booleans() | st.integers(-(10**17), 10**17) | st.text("ab 1:-#'\"", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(DATA)
def test_json_is_read_as_json(data: object) -> None:
    """What is JSON is read as JSON reads it."""
    assert read_tree(json.dumps({"a": data})).data == {"a": data}
