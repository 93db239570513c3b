"""Files of approved tools are read as they were written, and nothing in them hides."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.config.load import load
from authz.config.pins import PinFile, approve, parse_pins, write_pins
from authz.config.problems import ConfigError, WrongValueError
from authz.core.catalogue import PinMode, ToolDefinition, read_definition, stand_in
from tests.core.test_catalogue import JSON

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def tool(name: str = "tool", **members: object) -> ToolDefinition:
    return read_definition({"name": name, **members})


@example({"authz:unreadable": {"authz:unreadable": True}}, "authz:unreadable")
@given(st.dictionaries(TEXT.filter(bool), JSON, max_size=3), TEXT)
def test_what_was_approved_is_read_again(members: dict[str, object], by: str) -> None:
    """Whatever stands in it; the file is printable ASCII."""
    definitions = [tool(name, inputSchema=each) for name, each in members.items()]
    pins = approve(PinFile("files"), definitions, "2026-11-30T05:00:00Z", by)
    text = write_pins(pins)

    assert text.replace("\n", "").isprintable()
    assert text.isascii()
    assert parse_pins(text.encode()) == pins


@pytest.mark.attack("tool-definition-shape")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"server": "files", "approved": {}, "tools": []}',
        b'{"server": 5, "approved": {}, "tools": {}}',
        b'{"server": "files", "approved": {}, "tools": {"a": {"name": "b"}}}',
        b'{"server": "files", "approved": {}, "tools": {"a": {}}}',
        b'{"server": "files", "approved": {}, "tools": {"a": {"name": "a"}, "a": {"name": "a"}}}',
        b" " * (5 << 20),
        json.dumps(
            {"server": "files", "approved": {}, "tools": {"a": stand_in("a").value}}
        ).encode(),
    ],
)
def test_what_is_no_list_of_approved_tools_is_refused(data: bytes) -> None:
    """A broken file approves nothing; a stand-in of what could not be kept cannot be approved."""
    with pytest.raises(WrongValueError):
        parse_pins(data)


@given(st.binary())
def test_any_bytes_are_a_file_or_none(data: bytes) -> None:
    """Nothing else is raised."""
    with pytest.raises(WrongValueError):
        parse_pins(data)


@pytest.fixture
def configured(smallest: str, tmp_path: Path) -> Callable[[str], Path]:
    """Return what writes authz.yaml with pins of `files`, and the given text as their file."""

    def write(text: str) -> Path:
        pins = tmp_path / "files.json"
        if text:
            pins.write_text(text)
        config = tmp_path / "authz.yaml"
        without = smallest.replace(
            "  tls: {certificate: /run/secrets/tls.crt, key: /run/secrets/tls.key}\n", ""
        )
        config.write_text(f"{without}    pins: {{file: {pins}}}\n")
        return config

    return write


def test_a_configuration_has_what_its_file_approves(configured: Callable[[str], Path]) -> None:
    """It is read with every load; a missing file approves nothing, and is told."""
    one = tool()
    good = write_pins(approve(PinFile("files"), [one], "", ""))

    pins = load(configured(good), {}).policy.servers["files"].pins
    assert pins is not None
    assert (pins.mode, dict(pins.digests)) == (PinMode.ENFORCE, {"tool": one.digest})
    without = load(configured(good).with_name("authz.yaml"), {}, secrets=False)
    assert without.policy.servers["files"].pins is not None


def test_a_missing_file_approves_nothing(configured: Callable[[str], Path]) -> None:
    """Everything is refused then, and `check-config` says what to run."""
    settings = load(configured(""), {})

    pins = settings.policy.servers["files"].pins
    assert pins is not None
    assert not pins.digests
    assert any("authz tools files --pin" in str(each) for each in settings.warnings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no strict JSON"),
        (write_pins(PinFile("notes")), 'of the server \\"notes\\"'),
    ],
)
def test_a_wrong_file_is_an_error(configured: Callable[[str], Path], text: str, words: str) -> None:
    """The configuration that is in force stays so."""
    with pytest.raises(ConfigError) as found:
        load(configured(text), {})
    assert any(words.replace("\\", "") in str(each) for each in found.value.problems)
