"""What a person reads is the value: every character seen, and none that acts otherwise."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.login.web.visible_json import Piece, visible_json

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def pieces(value: object) -> list[Piece]:
    """Return the pieces, one after the other."""
    return [piece for run in visible_json(value) for piece in run]


def shown(value: object) -> str:
    """Return what stands on the page."""
    return "".join(piece.text for piece in pieces(value))


@given(VALUES)
def test_what_is_shown_is_the_value(value: Any) -> None:
    """The text of the page, read as JSON, is what was given: nothing is left out or added."""
    assert json.loads(shown(value)) == value


@given(VALUES)
def test_nothing_unseen_is_shown_as_itself(value: Any) -> None:
    """No control, no format character, no blank but the plain one; line breaks are the layout's."""
    for piece in pieces(value):
        assert piece.text
        assert piece.text.isascii() or not piece.is_escape
        plain = piece.text if piece.is_string else piece.text.replace("\n", "")
        assert plain.isprintable()
        for character in piece.text:
            assert unicodedata.category(character) not in {"Cf", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.attack("approval-unicode")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a\u202egpj.exe", r"a\u202egpj.exe", id="bidi-override"),
        pytest.param("a\u2066b\u2069", r"a\u2066b\u2069", id="bidi-isolate"),
        pytest.param("a\u200bb", r"a\u200bb", id="zero-width-space"),
        pytest.param("a\u2060b\ufeff", r"a\u2060b\ufeff", id="joiners"),
        pytest.param("a\u00adb", r"a\u00adb", id="soft-hyphen"),
        pytest.param("a\u00a0b\u2003c\u3000d", r"a\u00a0b\u2003c\u3000d", id="other-blanks"),
        pytest.param("a\u3164\u115fb\u2800", r"a\u3164\u115fb\u2800", id="fillers"),
        pytest.param("a\ufe0f\U000e0101", r"a\ufe0f\udb40\udd01", id="selectors"),
        pytest.param("\U000e0041\U000e0042", r"\udb40\udc41\udb40\udc42", id="tags"),
        pytest.param("a\x7f\x1bb", r"a\u007f\u001bb", id="controls"),
        pytest.param("a\nb\u2028c", r"a\nb\u2028c", id="lines"),
        pytest.param("p\u0430ypal.com", r"p\u0430ypal.com", id="cyrillic-in-latin"),
        pytest.param("gr\u03bfup", r"gr\u03bfup", id="greek-in-latin"),
        pytest.param("\uff52\uff4d", r"\uff52\uff4d", id="full-width"),
        pytest.param("p\u0251ypal", r"p\u0251ypal", id="phonetic-in-latin"),
        pytest.param("\u0261oo\u0262le", r"\u0261oo\u0262le", id="script-g"),
        pytest.param("\u1d04\u1d0f\u1d0d", r"\u1d04\u1d0f\u1d0d", id="small-capitals"),
        pytest.param("good.com\u2215x.evil.com", r"good.com\u2215x.evil.com", id="slash-in-host"),
        pytest.param("/tmp\u29f8..\u2044etc", r"/tmp\u29f8..\u2044etc", id="slashes-in-path"),
        pytest.param("file\ua789 \u2236x", r"file\ua789 \u2236x", id="colons"),
        pytest.param("a\u29f5b\u2216", r"a\u29f5b\u2216", id="backslashes"),
        pytest.param("rm \u2010rf \u22125", r"rm \u2010rf \u22125", id="hyphens"),
        pytest.param("a\u2223b\u01c3", r"a\u2223b\u01c3", id="bar-and-click"),
        pytest.param("x\u2033, \u02baamount", r"x\u2033, \u02baamount", id="double-quotes"),
        pytest.param(
            "\u201eJa\u201c \u2013 don\u2019t \u00ab\u0131\u00e7\u00bb", None, id="written"
        ),
        pytest.param("\u0254\u025b\u0259 \u014b", None, id="african-and-azerbaijani"),
        pytest.param("\U0001d41drop", r"\ud835\udc1drop", id="mathematical"),
        pytest.param("e" + "\u0301" * 4, "e\u0301\u0301" + r"\u0301\u0301", id="marks"),
        pytest.param("a" + " " * 7 + "b", "a    " + r"\u0020" * 3 + "b", id="many-blanks"),
        pytest.param("\u05d0/b/\u05d1", r"\u05d0/b/\u05d1", id="both-directions"),
        pytest.param(r"a\u202eb", r"a\\u202eb", id="a-written-escape"),
        pytest.param("\u043f\u0440\u0438\u0432\u0435\u0442\n\u0434\u0430", None, id="cyrillic"),
        pytest.param("\u65e5\u672c\u8a9ePC\u3092", None, id="japanese"),
        pytest.param("caf\u00e9 \u20ac5", None, id="latin"),
        pytest.param("\u05e9\u05dc\u05d5\u05dd", None, id="hebrew"),
        pytest.param("\U0001f600", None, id="emoji"),
    ],
)
def test_unicode_that_acts_otherwise_than_it_looks(text: str, expected: str | None) -> None:
    """It stands as an escape; what people write in their own script does not."""
    plain = json.dumps(text, ensure_ascii=False)
    found = shown(text)
    assert found == (plain if expected is None else f'"{expected}"')
    assert json.loads(found) == text
    assert any(piece.is_escape for piece in pieces(text)) is (
        expected is not None and text != r"a\u202eb"
    )


@pytest.mark.attack("approval-page-injected")
def test_a_string_cannot_look_like_the_layout() -> None:
    """Quotes and line breaks of a value are escaped, so that no value begins a member."""
    text = '",\n  "amount": 1,\n  "x": "'
    assert shown({"note": text, "amount": 900}).count('\n  "amount"') == 1
    runs = visible_json({"note": text})
    assert [run[0].is_string for run in runs] == [False, True, False, True, False]
