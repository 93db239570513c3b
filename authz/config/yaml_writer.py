"""Write plain values as YAML, with comments, for Authelia and for Envoy.

Invariant: every string is read back as that string, by readers of YAML 1.1 and of YAML 1.2, and a
comment ends with its line (tests/config/test_yaml_writer.py).
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

Path = tuple[str | int, ...]
"""Where a value stands: keys and list indexes from the top."""
Comments = Mapping[Path, tuple[str, ...]]
"""The comment lines above the value at a path."""

_WORD: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*\Z")
# What one or another reader of YAML takes for something else than a string.
_NOT_WORDS: Final = frozenset(
    {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}
)
_NO_COMMENTS: Final[Comments] = MappingProxyType({})


def to_yaml(values: Mapping[str, object], comments: Comments = _NO_COMMENTS) -> str:
    """Return YAML; the values are mappings, lists, strings, booleans, numbers and None."""
    return "".join(f"{line}\n" for line in _lines(values, comments, ()))


def comment_text(lines: Iterable[str]) -> str:
    """Return lines as comments, a line break within one of them included."""
    return "".join(f"{line}\n" for line in _comment(lines))


def _comment(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        for part in line.splitlines() or [""]:
            printable = "".join(each if each.isprintable() else "?" for each in part)
            yield f"# {printable}".rstrip()


def _lines(value: object, comments: Comments, path: Path) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, member in value.items():
            yield from _comment(comments.get((*path, key), ()))
            yield from _member(f"{_scalar(key)}:", member, comments, (*path, key))
    elif isinstance(value, list) and value:
        for index, member in enumerate(value):
            inner = (*path, index)
            yield from _comment(comments.get(inner, ()))
            first, *rest = _lines(member, comments, inner)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _member(key: str, value: object, comments: Comments, path: Path) -> Iterator[str]:
    if isinstance(value, Mapping | list) and value:
        yield key
        yield from (f"  {line}" for line in _lines(value, comments, path))
    else:
        yield f"{key} {_scalar(value)}"


def _scalar(value: object) -> str:
    """Return one value: a string in quotes unless it is a plain word."""
    if isinstance(value, str):
        plain = _WORD.match(value) and value.lower() not in _NOT_WORDS
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a google.protobuf.Value is a float, and Envoy would print it as such
    return json.dumps(value)
