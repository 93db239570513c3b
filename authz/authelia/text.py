"""Plain values to YAML with comments.

Law: the same values are the same text; every string is read back as that very string; whatever
stands in a comment, it ends with its line.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

Path = tuple[str | int, ...]
"""Where a value stands: keys and list indexes from the top."""
Notes = Mapping[Path, tuple[str, ...]]
"""The comment lines above the value at a path."""

_WORD: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*\Z")
# What one or another reader of YAML takes for something else than a string.
_NOT_WORDS: Final = frozenset(
    {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}
)


def yaml(values: Mapping[str, object], notes: Notes) -> str:
    """Return YAML; the values are mappings, lists, strings, booleans and integers."""
    return "".join(f"{line}\n" for line in _lines(values, notes, ()))


def comment(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines as comments, a line break within one of them included."""
    for line in lines:
        for part in line.splitlines() or [""]:
            shown = "".join(each if each.isprintable() else "?" for each in part)
            yield f"# {shown}".rstrip()


def _lines(value: object, notes: Notes, path: Path) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, member in value.items():
            yield from comment(notes.get((*path, key), ()))
            yield from _member(f"{scalar(key)}:", member, notes, (*path, key))
    elif isinstance(value, list) and value:
        for index, member in enumerate(value):
            inner = (*path, index)
            yield from comment(notes.get(inner, ()))
            first, *rest = _lines(member, notes, inner)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield scalar(value)


def _member(key: str, value: object, notes: Notes, path: Path) -> Iterator[str]:
    if isinstance(value, Mapping | list) and value:
        yield key
        yield from (f"  {line}" for line in _lines(value, notes, path))
    else:
        yield f"{key} {scalar(value)}"


def scalar(value: object) -> str:
    """Return one value: a string in quotes unless it is a plain word."""
    if isinstance(value, str):
        plain = _WORD.match(value) and value.lower() not in _NOT_WORDS
        return value if plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)
