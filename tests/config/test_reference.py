"""docs/configuration.md says what the models say."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.config import reference
from authz.config.load import Settings
from authz.config.schema import json_schema

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_is_current() -> None:
    """The tables are those of the models: python -m authz.config.reference writes them."""
    page = PAGE.read_text()

    assert reference.rewrite_page(page) == page


def test_every_field_is_there() -> None:
    """Every field of every section has its row."""
    text = reference.tables()

    for section in [json_schema(), *json_schema()["$defs"].values()]:
        assert section["description"] in text
        for name in section["properties"]:
            assert f"\n| `{name}` | " in text


def test_rewrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command replaces what is between the markers and nothing else."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{reference.BEGIN}\nformer words\n{reference.END}\nafter\n")
    monkeypatch.setattr("sys.argv", ["reference", str(page)])
    reference.main()

    text = page.read_text()
    assert text.startswith(f"before\n{reference.BEGIN}\n\n### The file\n")
    assert text.endswith(f"\n{reference.END}\nafter\n")
    assert "former words" not in text


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_examples_load(block: str, settings_of: Callable[[str], Settings]) -> None:
    """Every example of the page loads."""
    assert settings_of(block).policy.servers


def test_says_what_is_printed(complaints: Callable[[str], list[str]]) -> None:
    """The problem that the page shows is one that is printed."""
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    text = BLOCKS[0].replace("https://auth", "http://auth")

    assert complaints(f"{text}    limits: [{{per: user, rate: 60/minit}}]\n") == shown.splitlines()
