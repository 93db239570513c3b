"""Values to YAML.

Law: what is read again is what was written, by readers of YAML 1.2 and of YAML 1.1.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from authz.envoy.render.text import yaml

TEXT = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]))
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT | st.just("%REQ(X)%")
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("version", [(1, 1), (1, 2)])
@given(values=st.dictionaries(TEXT, VALUES, min_size=1, max_size=4))
def test_what_is_read_again_is_what_was_written(
    version: tuple[int, int], values: dict[str, object]
) -> None:
    """Text stays text and nesting stays nesting, whatever they hold."""
    reader = YAML(typ="safe", pure=True)
    reader.version = version

    assert reader.load(yaml(values, "A comment.\n\nAnd more.")) == values


@pytest.mark.parametrize(
    "word", ["yes", "No", "on", "OFF", "null", "~", "1e3", "0x1f", "y", "12:30"]
)
def test_words_that_mean_something_else_are_quoted(word: str) -> None:
    """Envoy's reader takes `yes` for true where no quotes are."""
    assert yaml({"name": word}, "") == f'name: "{word}"\n'


def test_a_whole_number_has_no_fraction() -> None:
    """A google.protobuf.Value is a float; Envoy would print it as such."""
    assert yaml({"code": -31000.0, "half": 0.5}, "") == "code: -31000\nhalf: 0.5\n"
