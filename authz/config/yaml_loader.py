"""Load YAML text as plain values, with the position of each.

Invariant: the result is mappings, lists and scalars of YAML 1.2's core schema, nested at most DEPTH
deep (tests/config/test_yaml_loader.py). Anchors, aliases, tags and merge keys are refused: an alias
can blow up a small file, a tag can name a type, and both hide what a reader sees.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from authz.config.problems import Fault, Path, quoted

DEPTH: Final = 20
SIZE: Final = 1 << 18

# YAML 1.2.2, section 10.3.2. Digits beyond 18 are no count of anything: they become a float,
# since int() of some thousand digits raises.
_NULL: Final = re.compile(r"(?:~|null|Null|NULL|)\Z")
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}\Z")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: Final[dict[str, object]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


class Position(NamedTuple):
    """Name a place in the text; both count from 1."""

    line: int
    column: int


TOP: Final = Position(1, 1)
_REFUSED: Final = "(refused key)"
_EMPTY: Final = "write a value, {} for an empty mapping, or leave the line out"


@dataclass(frozen=True, slots=True)
class Tree:
    """Hold a document.

    Attributes:
        data: dict, list, str, int, float, bool or None.
        values: the place of each value; of a mapping or list that has a key, the key's.
        keys: the place of each key.
        faults: what was refused on the way, each with its place; the values there are None.
    """

    data: object
    values: dict[Path, Position]
    keys: dict[Path, Position]
    faults: list[tuple[Fault, Position]]

    def place(self, fault: Fault) -> Position:
        """Return where a fault is: its own place, or that of the nearest thing around it."""
        if fault.on_key and fault.path in self.keys:
            return self.keys[fault.path]
        for length in range(len(fault.path), -1, -1):
            place = self.values.get(fault.path[:length])
            if place is not None:
                return place
        return TOP


class UnreadableError(Exception):
    """Say that the text is no YAML document that could be read on.

    Attributes:
        place: where reading ended.
        wrong, right: as in `Fault`.
    """

    def __init__(self, place: Position, wrong: str, right: str) -> None:
        """Keep place and words."""
        super().__init__(wrong)
        self.place = place
        self.wrong = wrong
        self.right = right


def read_tree(text: str) -> Tree:
    """Read one YAML document.

    Raises:
        UnreadableError: for a syntax error, a second document or too much depth.
    """
    builder = _Builder(text)
    data = builder.document()
    return Tree(data, builder.values, builder.keys, builder.faults)


def _events(text: str) -> Iterator[Any]:
    """Yield the parser's events, its errors translated."""
    last = TOP
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            last = _place(event)
            yield event
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = last if mark is None else Position(mark.line + 1, mark.column + 1)
        words = error.problem or error.context or "it cannot be read"
        raise UnreadableError(place, f"not YAML: {words}", "repair the syntax") from None
    except YAMLError as error:
        before = text[: getattr(error, "position", 0)]
        place = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        words = "not YAML: a character that it does not allow"
        raise UnreadableError(place, words, "remove the character") from None
    # The scanner lets these through for odd escapes, directives and versions.
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError):
        words = "not YAML that can be read, from here on"
        raise UnreadableError(last, words, "write it in plain YAML") from None


class _Builder:
    """Build values from events; what is refused becomes None and a fault."""

    def __init__(self, text: str) -> None:
        self._events = _events(text)
        self.values: dict[Path, Position] = {}
        self.keys: dict[Path, Position] = {}
        self.faults: list[tuple[Fault, Position]] = []

    def document(self) -> object:
        """Return the one document's value; None where there is none."""
        data: object = None
        seen = False
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if seen:
                    raise UnreadableError(
                        _place(event), "a second YAML document", "keep one document in the file"
                    )
                seen = True
                data = self._value(next(self._events), (), None)
        return data

    def _value(self, event: Any, path: Path, key: Position | None) -> object:
        """Return the value that an event begins."""
        place = _place(event)
        if key is not None and not (isinstance(event, ScalarEvent) and event.value):
            # A mapping or list is found at its key; so is nothing, which has no place of its own.
            place = key
        self.values[path] = place
        decorated = _decoration(event)
        if decorated is not None:
            self._refuse(path, place, f"{decorated} is not read here", "write the value out")
        if isinstance(event, AliasEvent):
            return None
        if isinstance(event, ScalarEvent):
            return None if decorated is not None else self._scalar(event, path)
        if len(path) >= DEPTH:
            raise UnreadableError(place, "nested too deeply", f"nest at most {DEPTH} levels")
        value = self._items(path) if isinstance(event, SequenceStartEvent) else self._pairs(path)
        return None if decorated is not None else value

    def _scalar(self, event: Any, path: Path) -> object:
        value = plain(event.value) if event.style is None else event.value
        if value is None and path:
            self._refuse(path, self.values[path], "nothing stands here", _EMPTY)
        return value

    def _items(self, path: Path) -> list[object]:
        items: list[object] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(self._value(event, (*path, len(items)), None))
        return items

    def _pairs(self, path: Path) -> dict[str, object]:
        pairs: dict[str, object] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, path, pairs)
            known = len(self.faults)
            inner = (*path, _REFUSED if key is None else key)
            value = self._value(next(self._events), inner, _place(event))
            if key is None:
                del self.faults[known:]  # the key's own fault is enough
                continue
            self.keys[inner] = _place(event)
            pairs[key] = value
        return pairs

    def _key(self, event: Any, path: Path, pairs: dict[str, object]) -> str | None:
        """Return a key's text, whatever type it looks like, or None for one that is refused."""
        if not isinstance(event, ScalarEvent | AliasEvent):
            self._value(event, (*path, _REFUSED), None)
        wrong = _wrong_key(event)
        if wrong is None and event.value in pairs:
            first = self.keys[(*path, event.value)].line
            wrong = f"{quoted(event.value)} is written twice, first in line {first}"
        if wrong is None:
            return str(event.value)
        fault = Fault(path, wrong, "write every key once and plainly", on_key=True)
        self.faults.append((fault, _place(event)))
        return None

    def _refuse(self, path: Path, place: Position, wrong: str, right: str) -> None:
        self.faults.append((Fault(path, wrong, right), place))


def _decoration(event: Any) -> str | None:
    """Name what makes a node more than itself, without its name: it may be a pasted password."""
    if isinstance(event, AliasEvent):
        return "an alias (*)"
    if event.anchor is not None:
        return "an anchor (&)"
    return None if event.ctag is None else "a tag (!)"


def _wrong_key(event: Any) -> str | None:
    decorated = _decoration(event)
    if decorated is not None:
        return f"a key with {decorated} is not read here"
    if not isinstance(event, ScalarEvent):
        return "a key that is no text is not read here"
    # YAML 1.1's merge key pulls in what stands elsewhere.
    return "a merge key (<<) is not read here" if event.value == "<<" else None


def _place(event: Any) -> Position:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


def plain(text: str) -> object:
    """Return an unquoted scalar by the core schema; dates stay text, as MCP's versions are."""
    if _NULL.match(text):
        return None
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text)
    return float(text) if _FLOAT.match(text) else text
