r"""JSON as a person may read it: every character seen, none that acts otherwise than it looks.

Invariant: the text shown, read as JSON, is the value that was given, and every character of it that
is printed as itself is one that a person sees (tests/login/web/test_visible_json.py). What cannot
be seen, turns text around, or looks like another letter stands as JSON's own escape (`\u202e`),
which nothing in the value can imitate: there a backslash is written as two.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
# Printable by Python's word, and yet nothing is seen of them: fillers and selectors that Unicode
# calls default-ignorable, and the blank of Braille.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# What Unicode's table of confusables (UTS #39) has for ASCII's letters and for its signs in paths,
# addresses and commands, and NFKC leaves alone; not quotes, dashes and dots that people write.
_LIKE_ASCII: Final = re.compile(
    # Latin by name: single letters, phonetic ones, small capitals.
    "[\u0184\u0185\u0196\u01bd\u01c0-\u01c3\u0237\u0241\u0242\u0251\u0261\u0262\u0269\u026a"
    "\u0274\u0280\u028f\u0294\u0299\u029c\u029f\u1d00-\u1dbf\u2c60-\u2c7f\ua722-\ua7ff\uab30-\uab6f"
    # Slashes, backslashes, colons, dots, lines, hyphens, tildes, stars, angles, double quotes.
    "\u1735\u2041\u2044\u2215\u2571\u27cb\u29f8\u3033\u31d3\u2216\u2572\u27cd\u29f5\u29f9\u31d4"
    "\u02d0\u02f8\u0589\u05c3\u16ec\u1803\u1809\u205a\u2236\u2027\u2219\u22c5\u2e31\u2e33"
    "\u2223\u23d0\u2758\u02d7\u2010\u2011\u2043\u2212\u2053\u223c\u204e\u2055\u2217"
    "\u02c2\u02c3\u276e\u276f\u02ba\u02ee\u2033]"
)
_MARKS: Final = 2  # on one letter
_BLANKS: Final = 4  # in a row: more would push what follows out of sight
# An escape of JSON, whose letters are no word's, or a word.
_WORD: Final = re.compile(r"\\(?:u[0-9a-f]{4}|.)|[^\W_]+")
# May stand in one word with Latin letters: none of theirs looks like one.
_WITH_LATIN: Final = frozenset(
    {"", "LATIN", "DIGIT", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC"}
)
_RIGHT_TO_LEFT: Final = frozenset({"R", "AL", "AN"})


@dataclass(frozen=True, slots=True)
class Piece:
    """Hold a piece of the text.

    Attributes:
        text: what is shown.
        is_string: whether it is of a string; those are isolated, so that none reorders others.
        is_escape: whether it stands for characters that are not shown as themselves.
    """

    text: str
    is_string: bool = False
    is_escape: bool = False


def visible_json(value: object) -> tuple[tuple[Piece, ...], ...]:
    """Return a value as indented JSON: runs of pieces, each run a string or what is between."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return tuple(_runs(text))


def _runs(text: str) -> Iterator[tuple[Piece, ...]]:
    end = 0
    for found in _STRING.finditer(text):
        if found.start() > end:
            yield (Piece(text[end : found.start()]),)
        yield tuple(_pieces(found.group()))
        end = found.end()
    if end < len(text):
        yield (Piece(text[end:]),)


def _pieces(string: str) -> Iterator[Piece]:
    """Yield a JSON string, its quotes included, in pieces that are shown alike."""
    hidden = _foreign_letters(string)
    shown, escaped, marks, blanks = "", "", 0, 0
    for place, character in enumerate(string):
        marks = marks + 1 if unicodedata.category(character)[0] == "M" else 0
        blanks = blanks + 1 if character == " " else 0
        crowded = marks > _MARKS or blanks > _BLANKS
        if crowded or place in hidden or not _is_seen(character):
            if shown:
                yield Piece(shown, is_string=True)
                shown = ""
            escaped += _escape(character)
            continue
        if escaped:
            yield Piece(escaped, is_string=True, is_escape=True)
            escaped = ""
        shown += character
    if escaped:
        yield Piece(escaped, is_string=True, is_escape=True)
    if shown:
        yield Piece(shown, is_string=True)


def _is_seen(character: str) -> bool:
    """Tell whether a character is seen as what it is.

    Not seen so is what looks like ASCII: its compatibility forms (full-width and mathematical
    letters), which some servers take for it, and letters and signs that no server does.
    """
    if character.isascii():
        return character.isprintable()
    if not character.isprintable() or _UNSEEN.match(character):
        return False
    if _LIKE_ASCII.match(character):
        return False
    plain = unicodedata.normalize("NFKC", character)
    return plain == character or not plain.isascii()


def _foreign_letters(string: str) -> frozenset[int]:
    """Return the places of letters that would mislead where they stand.

    Letters of another script within a word that has Latin ones (`p\u0430ypal`), and letters that
    are written from right to left beside Latin letters or digits, which would change places.
    """
    places = set[int]()
    for word in _WORD.finditer(string):
        scripts = [_script(character) for character in word.group()]
        if "LATIN" in scripts and word.group()[0] != "\\":
            foreign = (n for n, script in enumerate(scripts) if script not in _WITH_LATIN)
            places.update(word.start() + place for place in foreign)
    backward = {
        place
        for place, character in enumerate(string)
        if unicodedata.bidirectional(character) in _RIGHT_TO_LEFT
    }
    if backward and any(character.isascii() and character.isalnum() for character in string):
        places |= backward
    return frozenset(places)


def _escape(character: str) -> str:
    if character.isascii():  # of which `json` escapes the first 32 alone
        return f"\\u{ord(character):04x}"
    return json.dumps(character)[1:-1]


def _script(character: str) -> str:
    """Return the first word of a letter's name, which is its script; empty for marks."""
    if unicodedata.category(character)[0] == "M":
        return ""
    return unicodedata.name(character, "UNKNOWN").partition(" ")[0]
