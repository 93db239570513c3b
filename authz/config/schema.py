"""The JSON Schema of authz.yaml (draft 2020-12), made from the models.

Invariant: what the schema rejects, the models reject (tests/config/test_schema.py). The models
reject more: an editor that is content promises nothing.
"""

import json
from functools import cache
from typing import Any

from authz.config.model import Config
from authz.config.problems import Path

Schema = dict[str, Any]


@cache
def json_schema() -> Schema:
    """Return the schema; not to be changed by callers."""
    inner = _tidy(Config.model_json_schema())
    assert isinstance(inner, dict)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "authz.yaml",
        **inner,
    }


def schema_text() -> str:
    """Return the schema as `authz schema` prints it."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _tidy(node: object) -> object:
    """Return pydantic's schema without titles and without null, and with mappings closed.

    A choice of one is written as a choice.

    A line without a value is refused, so no value is null. The pattern of a mapping's keys is
    moved where keys that do not match it are refused.
    """
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy: Schema = {
        key: _tidy(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and value is None)
    }
    for pattern, inner in tidy.pop("patternProperties", {}).items():
        tidy["propertyNames"] = {**tidy["propertyNames"], "pattern": pattern}
        tidy["additionalProperties"] = inner
    if "const" in tidy:
        tidy["enum"] = [tidy.pop("const")]
    if "oneOf" in tidy:
        tidy["anyOf"] = tidy.pop("oneOf")
    choices = tidy.get("anyOf")
    if isinstance(choices, list):
        left = [choice for choice in choices if choice != {"type": "null"}]
        if len(left) == 1:
            del tidy["anyOf"]
            return {**left[0], **tidy}
        tidy["anyOf"] = left
    return tidy


def schema_at(path: Path) -> Schema:
    """Return the schema of the value at a path, {} where the schema knows nothing of it."""
    node = resolved(json_schema())
    for part in path:
        inner = node.get("items") if isinstance(part, int) else _member(node, part)
        if not isinstance(inner, dict):
            return {}
        node = resolved(inner)
    return node


def resolved(node: Schema) -> Schema:
    """Return a schema with its reference followed and, of alternatives, the mapping's members."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        outer = {key: value for key, value in node.items() if key != "$ref"}
        return {**json_schema()["$defs"][name], **outer}
    for choice in node.get("anyOf", ()):
        inner = resolved(choice)
        if "properties" in inner:
            return {**inner, **node}
    return node


def _member(node: Schema, name: str) -> object:
    return node.get("properties", {}).get(name, node.get("additionalProperties"))


def example(node: Schema) -> object:
    """Return a right value: the schema's own, a choice, or what a section must have."""
    node = resolved(node)
    if "examples" in node:
        return node["examples"][0]
    if "enum" in node:
        return node["enum"][0]
    members = node.get("properties", {})
    return {name: example(members[name]) for name in node.get("required", ())}
