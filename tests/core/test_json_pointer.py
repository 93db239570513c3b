"""JSON Pointers: RFC 6901's own examples, and nothing found that parsers could read differently."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from authz.core.json_pointer import (
    MAX_LENGTH,
    MAX_TOKENS,
    JsonPointerError,
    NotFound,
    parse,
    write,
)

NAMES = st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(0.5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=15,
)
# RFC 6901, section 5, in the pieces that no other member of the document makes ambiguous.
EXAMPLES = [
    ({"foo": ["bar", "baz"]}, "/foo", ["bar", "baz"]),
    ({"foo": ["bar", "baz"]}, "/foo/0", "bar"),
    ({"a/b": 1}, "/a~1b", 1),
    ({"c%d": 2}, "/c%d", 2),
    ({"e^f": 3}, "/e^f", 3),
    ({"g|h": 4}, "/g|h", 4),
    ({"i\\j": 5}, "/i\\j", 5),
    ({'k"l': 6}, '/k"l', 6),
    ({"m~n": 8}, "/m~0n", 8),
    ({"~1": 9}, "/~01", 9),
    ({"": 0}, "/", 0),
    ({"a": None}, "/a", None),
]


@pytest.mark.parametrize(("document", "text", "value"), EXAMPLES)
def test_it_finds_what_the_standard_says(document: object, text: str, value: object) -> None:
    """RFC 6901, section 5; the empty pointer is the whole document."""
    assert parse(text).find(document) == value
    assert parse("").find(document) is document


@pytest.mark.parametrize(
    "text",
    [
        "a",
        " /a",
        "a/b",
        "#/a",
        "/a~",
        "/a~2",
        "/~",
        "/a\n",
        "/a\x00",
        "/a\u200b",
        "/" + "a" * MAX_LENGTH,
        "/a" * (MAX_TOKENS + 1),
        "/\ud800",
    ],
)
def test_what_is_no_pointer_is_refused(text: str) -> None:
    """No prefix, fragment, stray tilde, invisible character or boundless text is a pointer."""
    with pytest.raises(JsonPointerError):
        parse(text)


@given(st.lists(NAMES, max_size=MAX_TOKENS).map(tuple))
def test_what_is_written_is_read_back(tokens: tuple[str, ...]) -> None:
    """Any names make one pointer, and that pointer has these names."""
    assert parse(write(tokens)).tokens == tokens


@given(VALUES, st.data())
def test_every_unmistakable_value_is_found(document: object, data: st.DataObject) -> None:
    """A walk through a document, written as a pointer, leads to the same value."""
    value, tokens = document, list[str]()
    while isinstance(value, dict | list) and value and data.draw(st.booleans()):
        if isinstance(value, dict):
            keys = ["".join(key.lower().replace("_", "").split("-")) for key in value]
            assume(len(set(keys)) == len(keys))
            token = data.draw(st.sampled_from(sorted(value)))
            value = value[token]
        else:
            index = data.draw(st.integers(0, len(value) - 1))
            token, value = str(index), value[index]
        tokens.append(token)
    assume(len(tokens) <= MAX_TOKENS)
    assert parse(write(tuple(tokens))).find(document) is value


@given(VALUES, st.lists(NAMES, max_size=4).map(tuple))
def test_any_pointer_at_any_document_gives_a_value_of_it_or_not_found(
    document: object, tokens: tuple[str, ...]
) -> None:
    """It never raises."""
    parse(write(tokens)).find(document)


@pytest.mark.parametrize(
    ("document", "text", "why"),
    [
        ({}, "/a", NotFound.ABSENT),
        ({"a": {}}, "/a/b", NotFound.ABSENT),
        ({"a": [1]}, "/a/1", NotFound.ABSENT),
        ({"a": "text"}, "/a/b", NotFound.UNREACHABLE),
        ({"a": None}, "/a/b", NotFound.UNREACHABLE),
        ({"a": [1]}, "/a/00", NotFound.UNREACHABLE),
        ({"a": [1]}, "/a/-", NotFound.UNREACHABLE),
        ({"a": [1]}, "/a/-1", NotFound.UNREACHABLE),
        ({"a": [1]}, "/a/\u0660", NotFound.UNREACHABLE),
        ({"a": [1]}, "/a/1e0", NotFound.UNREACHABLE),
        ([], "/" + "9" * 100, NotFound.UNREACHABLE),
        ({"path": "/tmp/a", "Path": "/etc"}, "/path", NotFound.ALIKE),
        ({"Path": "/etc"}, "/path", NotFound.ALIKE),
        ({"file_path": 1, "filePath": 2}, "/file_path", NotFound.ALIKE),
        ({"file-path": 2}, "/file_path", NotFound.ALIKE),
        ({"path": 1, "p\u0430th": 2}, "/path", NotFound.ALIKE),
        ({"path": 1, "path\u0000": 2}, "/path", NotFound.ALIKE),
        ({"path": 1, "path ": 2}, "/path", NotFound.ALIKE),
        ({"pa\u017fs": 2}, "/pass", NotFound.ALIKE),
        ({"a": {"B": 1, "b": 2}}, "/a/b", NotFound.ALIKE),
    ],
)
def test_what_is_not_found_says_why(document: object, text: str, why: NotFound) -> None:
    """A member that some parser takes for the one that is named is neither that nor absent."""
    assert parse(text).find(document) is why
