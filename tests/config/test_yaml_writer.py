"""Values as YAML, read back by another reader."""

import string
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from authz.config.yaml_writer import Path, comment_text, to_yaml

_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]))
_WORDS = st.sampled_from(
    ["yes", "NO", "on", "null", "~", "1", "0x1f", "1e3", "- a", "a: b", "#", "", "%REQ(X)%"]
)
_NUMBERS = st.integers(-(2**53), 2**53)
_SCALARS = st.one_of(_TEXTS, _WORDS, st.none(), st.booleans(), _NUMBERS)
_KEYS = st.one_of(_TEXTS, _WORDS, st.text(string.printable.strip(), min_size=1))
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_KEYS, inner, max_size=4)),
    max_leaves=16,
)


@pytest.mark.parametrize("version", [(1, 1), (1, 2)])
@given(st.dictionaries(_KEYS, _VALUES, min_size=1, max_size=4), st.text())
def test_what_is_written_is_read_back(
    version: tuple[int, int], values: Mapping[str, object], words: str
) -> None:
    """Text stays text and nesting stays nesting, whatever a value or a comment holds."""
    comments: dict[Path, tuple[str, ...]] = {(key,): (words,) for key in values}
    reader = YAML(typ="safe", pure=True)
    reader.version = version

    assert reader.load(to_yaml(values, comments)) == values


@given(st.text())
def test_a_comment_ends_with_its_line(words: str) -> None:
    """No line break within a comment begins a line of its own."""
    lines = comment_text([words]).splitlines(keepends=True)

    assert lines
    assert all(line.startswith("#") and line.endswith("\n") for line in lines)


@pytest.mark.parametrize(
    "word", ["yes", "No", "on", "OFF", "null", "~", "1e3", "0x1f", "y", "12:30"]
)
def test_words_that_mean_something_else_are_quoted(word: str) -> None:
    """Envoy's reader takes `yes` for true where no quotes are."""
    assert to_yaml({"name": word}) == f'name: "{word}"\n'


def test_a_whole_number_has_no_fraction() -> None:
    """A google.protobuf.Value is a float; Envoy would print it as such."""
    assert to_yaml({"code": -31000.0, "half": 0.5}) == "code: -31000\nhalf: 0.5\n"
