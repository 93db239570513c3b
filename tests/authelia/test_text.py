"""Values as YAML, read back by another reader."""

import string
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from authz.authelia.text import Path, comment, yaml

_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]))
_WORDS = st.sampled_from(
    ["yes", "NO", "on", "null", "~", "1", "0x1f", "1e3", "- a", "a: b", "#", ""]
)
_SCALARS = st.one_of(_TEXTS, _WORDS, st.booleans(), st.integers(-(2**31), 2**31))
_KEYS = st.one_of(_WORDS, st.text(string.printable.strip(), min_size=1))
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_KEYS, inner, max_size=4)),
    max_leaves=12,
)


@given(st.dictionaries(_KEYS, _VALUES, min_size=1), st.text())
def test_what_is_written_is_read_back(values: Mapping[str, object], words: str) -> None:
    """Whatever a value or a comment holds, another reader finds the values and nothing else."""
    notes: dict[Path, tuple[str, ...]] = {(key,): (words,) for key in values}

    assert YAML(typ="safe").load(yaml(values, notes)) == values


@given(st.text())
def test_a_comment_ends_with_its_line(words: str) -> None:
    """No line break within a comment begins a line of its own."""
    lines = list(comment([words]))

    assert lines
    assert all(line.startswith("#") and len(line.splitlines()) == 1 for line in lines)
