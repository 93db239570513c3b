"""Plain values to models: nothing hides, nothing is said that could be false."""

import pytest
from pydantic import BaseModel, ValidationError

from authz.config.problems import Fault
from authz.config.pydantic_errors import closest, explain, flow
from authz.config.validate import validate
from authz.config.yaml_loader import read_tree

RIGHT: dict[str, object] = {
    "issuer": {"url": "https://auth.example.com"},
    "gateway": {"url": "https://mcp.example.com"},
    "servers": {"files": {"upstream": "http://files"}},
}


def test_right() -> None:
    """What is right has no faults, nothing broken, and is left as it was."""
    before = repr(RIGHT)
    validated = validate(RIGHT)

    assert validated.config is not None
    assert (validated.faults, validated.broken) == ((), ())
    assert repr(RIGHT) == before


def test_what_must_be_there_is_stood_in_for() -> None:
    """A broken required field leaves enough to ask the rules between values about the rest."""
    validated = validate({**RIGHT, "issuer": {"url": 3}})

    assert validated.config is not None
    assert validated.broken == (("issuer", "url"),)
    assert [fault.path for fault in validated.faults] == [("issuer", "url")]


def test_lists_are_taken_out_whole() -> None:
    """Indexes of other findings stay true."""
    limits = [{"per": "user", "rate": "x"}, {"per": "user", "rate": "1/day"}]
    validated = validate({**RIGHT, "limits": limits})

    assert validated.broken == (("limits",),)
    assert validated.config is not None
    assert validated.config.limits == ()


def test_unread_values_are_not_missing() -> None:
    """What was refused while reading is not told as missing, nor is what stood in it."""
    tree = read_tree("servers: {files: {upstream: !x y}, other: &x {upstream: }}")
    unread = [fault.path for fault, _ in tree.faults]
    validated = validate({**RIGHT, **tree.data}, unread)  # type: ignore[dict-item]

    assert validated.faults == ()
    assert validated.config is not None
    assert list(validated.config.servers) == ["files"]


@pytest.mark.parametrize("data", [None, [], "x", 1])
def test_nothing_left(data: object) -> None:
    """A document that is no mapping has one fault."""
    validated = validate(data)

    assert validated.config is None
    assert len(validated.faults) == 1


def test_trust() -> None:
    """A finding is trusted where neither its place nor what it read is broken."""
    validated = validate({**RIGHT, "issuer": {"url": 3}})

    assert validated.trusts(Fault(("gateway",), "", ""))
    assert not validated.trusts(Fault(("issuer",), "", ""))
    assert not validated.trusts(Fault(("issuer", "url", "x"), "", ""))
    assert not validated.trusts(Fault(("gateway",), "", "", reads=(("issuer", "url"),)))


def test_kinds_without_a_row() -> None:
    """An error of a kind that has no row of its own is still told."""

    class Other(BaseModel):
        text: str

    with pytest.raises(ValidationError) as caught:
        Other.model_validate({"text": 1})
    (fault,) = explain(caught.value)

    assert fault.path == ("text",)
    assert fault.right == "see docs/configuration.md for what is accepted"


def test_closest() -> None:
    """A near word is found, a far one is not invented."""
    assert closest("upstrem", ["upstream", "url"]) == "upstream"
    assert closest("colour", ["upstream", "url"]) is None


def test_flow() -> None:
    """Values are shown as YAML that reads as the same values."""
    value = {"a": ["x y", "*", "5m", True, 1, "1.3", "true"], "b": {}}

    assert read_tree(flow(value)).data == value
