"""Plain values to YAML text.

Law: the same values are the same text, and Envoy reads every string as a string. Its YAML reader
takes `yes`, `on` and `0x1f` for other things, so all but plain words are quoted.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

_WORD: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*\Z")
_NOT_WORDS: Final = frozenset(
    {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}
)


def yaml(values: Mapping[str, object], header: str) -> str:
    """Return YAML with a comment above it; a number without fraction is written without one."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    return comment + "".join(f"{line}\n" for line in _lines(values))


def _lines(value: object) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, member in value.items():
            yield from _member(f"{_scalar(key)}:", member)
    elif isinstance(value, list) and value:
        for member in value:
            first, *rest = _lines(member)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _member(key: str, value: object) -> Iterator[str]:
    if isinstance(value, Mapping | list) and value:
        yield key
        yield from (f"  {line}" for line in _lines(value))
    else:
        yield f"{key} {_scalar(value)}"


def _scalar(value: object) -> str:
    if isinstance(value, str):
        plain = _WORD.match(value) and value.lower() not in _NOT_WORDS
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)
