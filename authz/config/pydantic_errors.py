"""Translate pydantic's errors into faults: what is wrong, what would be right.

Text that stands where a section or a list belongs is not repeated, for it may be a pasted password.
"""

import json
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError

from authz.config.problems import Fault, Path, WrongValueError, field_name, listed, shown
from authz.config.schema import example, schema_at
from authz.config.value_types import ALTERNATIVES
from authz.config.yaml_loader import plain

Error = Any  # pydantic_core.ErrorDetails, whose `ctx` differs by `type`
Words = tuple[str, str]

_SECRET: Final = re.compile(r"passw|secret|token|credential", re.IGNORECASE)
_SAFE: Final = re.compile(r"[A-Za-z0-9/](?:[A-Za-z0-9_./:-]*[A-Za-z0-9_/-])?\Z")


def explain(error: ValidationError) -> list[Fault]:
    """Return a fault for each of pydantic's errors."""
    faults = [_fault(detail) for detail in error.errors(include_url=False)]
    # A list whose only item is wrong counts as empty: that is said once, of the item.
    inner = {fault.path[:end] for fault in faults for end in range(len(fault.path))}
    return [fault for fault in faults if not (fault.wrong == _EMPTY and fault.path in inner)]


def closest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that was probably meant, or None."""
    return next(iter(get_close_matches(word, list(choices), n=1, cutoff=0.6)), None)


def flow(value: object) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    bare = isinstance(value, str) and _SAFE.match(value) and plain(value) == value
    return str(value) if bare else json.dumps(value)


def _fault(detail: Error) -> Fault:
    on_key = detail["loc"][-1:] == ("[key]",)
    place: Path = detail["loc"][:-1] if on_key else detail["loc"]
    path: Path = tuple(part for part in place if part not in ALTERNATIVES)
    words = _ROWS.get(detail["type"], _other)
    wrong, right = words(detail, path)
    return Fault(path, wrong, right, on_key=on_key or detail["type"] == "extra_forbidden")


def _missing(_: Error, path: Path) -> Words:
    return "is missing", f"write {path[-1]}: {flow(example(schema_at(path)))}"


def _unknown(_: Error, path: Path) -> Words:
    name = str(path[-1])
    fields = list(schema_at(path[:-1]).get("properties", {}))
    meant = closest(name, fields)
    if _SECRET.search(name) and meant != "tokens":
        return "there is no such field", f"keep secrets out of this file: {_secret_places(path)}"
    return "there is no such field", f"write {meant or listed(fields)}"


def _secret_places(path: Path) -> str:
    """Return where secrets may come from, those of this section where it has any."""
    fields = schema_at(path[:-1]).get("properties", {})
    files = [field_name((*path[:-1], name)) for name in fields if name.endswith("_file")]
    if path[0] == "redis" or not files:
        files = ["redis.password_file", "AUTHZ_REDIS_PASSWORD"]
    return listed(files)


def _not_a_mapping(detail: Error, path: Path) -> Words:
    if not path and detail["input"] is None:
        return "the file is empty", "begin with issuer, gateway and servers"
    fields = list(schema_at(path).get("properties", {}))
    wrong = f"{_kind(detail['input'])} stands where a mapping belongs"
    if fields:
        return wrong, f"write a mapping with {listed(fields, 'and')}"
    return wrong, f"write for example {flow(example(schema_at(path)))}"


def _not_a_list(detail: Error, path: Path) -> Words:
    wrong = f"{_kind(detail['input'])} stands where a list belongs"
    return wrong, f"write a list, for example {flow([example(schema_at((*path, 0)))])}"


def _no_choice(detail: Error, _: Path) -> Words:
    choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
    value = detail["input"]
    meant = closest(value, choices) if isinstance(value, str) else None
    return f"{shown(value)} is not accepted here", f"write {meant or listed(choices)}"


def _empty(_: Error, path: Path) -> Words:
    if path[-1] in schema_at(path[:-1]).get("required", ()):
        return _EMPTY, "name at least one"
    return _EMPTY, "name at least one, or leave the line out"


def _own(detail: Error, _: Path) -> Words:
    error = detail["ctx"]["error"]
    assert isinstance(error, WrongValueError)
    return error.wrong, error.right


def _other(_: Error, __: Path) -> Words:
    return "this cannot be read", "see docs/configuration.md for what is accepted"


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "text"
    return "a number" if isinstance(value, float) or type(value) is int else shown(value)


_EMPTY: Final = "names nothing"

_ROWS: Final[dict[str, Callable[[Error, Path], Words]]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "model_type": _not_a_mapping,
    "mapping_type": _not_a_mapping,
    "dict_type": _not_a_mapping,
    "tuple_type": _not_a_list,
    "literal_error": _no_choice,
    "value_error": _own,
    "too_short": _empty,
    "bool_type": lambda detail, _: (
        f"{shown(detail['input'])} is neither true nor false",
        "write true or false",
    ),
    "int_type": lambda detail, _: (
        f"{shown(detail['input'])} is not a whole number",
        "write for example 1",
    ),
    "greater_than_equal": lambda detail, _: (
        f"{shown(detail['input'])} is too small",
        f"write {detail['ctx']['ge']} or more",
    ),
    "less_than_equal": lambda detail, _: (
        f"{shown(detail['input'])} is too large",
        f"write {detail['ctx']['le']} or less",
    ),
}
