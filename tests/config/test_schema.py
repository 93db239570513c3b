"""The JSON Schema: what an editor says is true."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from authz.config import schema
from authz.config.schema import Schema, json_schema, resolved, schema_at, schema_text
from authz.config.validate import validate
from authz.config.yaml_loader import read_tree

VALIDATOR = Draft202012Validator(json_schema())


def data_of(text: str) -> Any:
    return read_tree(text).data


def accepted(data: object) -> bool:
    return bool(VALIDATOR.is_valid(data))


def test_is_a_schema() -> None:
    """It is valid itself, and prints as JSON."""
    Draft202012Validator.check_schema(json_schema())

    assert json.loads(schema_text()) == json_schema()


def test_examples(smallest: str, example: str) -> None:
    """The smallest file, the design's example and the design's own word for the log-in pass."""
    assert accepted(data_of(smallest))
    assert accepted(data_of(example))
    assert accepted(data_of(example.replace("login: direct", "login: front_door")))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("issuer:", "isuer:"),
        ("serve: true", "serv: true"),
        ("serve: true", "serve: yes"),
        ("serve: true", "assurance_claim: 'mcp assurance'"),
        ("assurance: two_factor", "assurance: 2fa"),
        ("rate: 60/minute}]\n  files", "rate: 60/minit}]\n  files"),
        ("per: user, rate: 1000/day", "per: person, rate: 1000/day"),
        ("max_login_age: 5m", "max_login_age: 5"),
        ("second_factor: any", "second_factor: otp"),
        ("method: totp", "methods: totp"),
        ("groups: [staff]", "groups: staff"),
        ("groups: [staff]", "groups:"),
        ("groups: [staff]", "groups: []"),
        ("  notes:\n", "  My Notes:\n"),
        ("delete_*:", "'delete [it]':"),
        ("login: direct, scopes", "login: none, scopes"),
        ("key: /run/secrets/tls.key", "key: tls.key"),
        ("upstream: http://files:8000/mcp", "upstream: files:8000/mcp"),
        ("url: https://auth", "url: http://auth"),
    ],
)
def test_misspellings(right: str, wrong: str, example: str) -> None:
    """An editor underlines what is misspelt."""
    assert example.count(right) == 1

    assert not accepted(data_of(example.replace(right, wrong)))


def sections() -> list[Schema]:
    return [json_schema(), *json_schema()["$defs"].values()]


def test_every_field_is_described() -> None:
    """Every section and field says what it is."""
    for section in sections():
        assert section["description"]
        for member in section["properties"].values():
            assert resolved(member)["description"]


def test_every_default_and_example_is_right() -> None:
    """A default passes its own schema, and what must be written has an example that does."""
    for section in sections():
        for name, member in section["properties"].items():
            inner = VALIDATOR.evolve(schema={**member, "$defs": json_schema()["$defs"]})
            assert "default" not in member or inner.is_valid(member["default"])
            assert all(inner.is_valid(value) for value in member.get("examples", ()))
            assert name not in section.get("required", ()) or inner.is_valid(schema.example(member))


def test_null_is_nowhere() -> None:
    """A line without a value is refused, so the schema knows no null."""
    assert '"null"' not in schema_text()
    assert ": null" not in schema_text()


def test_schema_at() -> None:
    """Fields are found through lists, mappings and alternatives."""
    path = ("servers", "x", "tools", "*", "second_factor", "evidence", 0)

    assert schema_at(path)["enum"] == ["login", "step_up", "token", "client"]
    assert schema_at(("nothing", "there", 0)) == {}


# --- the schema against the models -----------------------------------------------------------

VALUES: st.SearchStrategy[object] = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 1.3, 1.0, 1e30, 99, [], {}, "", "x", "any", "totp", "none"),
        *("5m", "10s", "1d", "60/minute", "60/minit", "1MiB", "0.0.0.0:80", "unix:/a/b", "*"),
        *("https://a.example.com", "http://a", "https://a.example.com/b", "redis://a", "/a/b"),
        *("direct", "front_door", "login", "client", "2026-07-28", "1.3", "RS256", "two_factor"),
        *([1], ["x"], ["x", "x"], ["client", "user"], ["client", "client"], {"x": {}}, {"x": 1}),
        *([{"per": "user", "rate": "1/day"}], {"per": "user"}, {"upstream": "http://a"}),
        *({"method": "any"}, {"max_login_age": "1s", "evidence": ["token"]}, [[]], [{}]),
    ]
)
KEYS = st.sampled_from(["x", "scopes", "limits", "tools", "url", "nested", "A b", "per", "default"])


def places(data: Any) -> list[tuple[Any, Any]]:
    """Return every container with one of its keys or indexes."""
    keys = list(data) if isinstance(data, dict) else range(len(data))
    found = [(data, key) for key in keys]
    for key in keys:
        if isinstance(data[key], dict | list):
            found += places(data[key])
    return found


@st.composite
def documents(draw: st.DrawFn, text: str) -> Any:
    """Return a right document with up to three things changed, removed or added."""
    data = deepcopy(data_of(text))
    for _ in range(draw(st.integers(0, 3))):
        container, key = draw(st.sampled_from(places(data) or [({}, None)]))
        match draw(st.sampled_from(["change", "remove", "add"])):
            case "change":
                container[key] = deepcopy(draw(VALUES))
            case "remove":
                container.pop(key, None) if isinstance(container, dict) else container.pop(key)
            case "add" if isinstance(container, dict):
                container[draw(KEYS)] = deepcopy(draw(VALUES))
            case _:
                container.append(deepcopy(draw(VALUES)))
    return data


@given(data=st.data())
def test_what_the_schema_rejects_the_models_reject(data: st.DataObject, example: str) -> None:
    """The schema is never stricter than the models: an editor that complains is right."""
    document = data.draw(documents(example))
    tree = read_tree(json.dumps(document, ensure_ascii=False))
    right = not tree.faults and not validate(tree.data).faults

    assert accepted(document) or not right
