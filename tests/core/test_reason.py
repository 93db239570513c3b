"""The catalogue of refusals is whole, and what it names is there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from authz.config.model import (
    ClientConfig,
    Config,
    FrontDoorConfig,
    IntrospectionConfig,
    PageConfig,
    SecondFactorConfig,
    ServerConfig,
    ToolConfig,
)
from authz.core.detail import DIAGNOSES, Detail
from authz.core.reason import Reason, diagnose, fill_in

_PACKAGE = Path(__file__).parents[2] / "authz"
_CATALOGUES = {"detail.py", "reason.py"}
_SOURCES = "\n".join(
    path.read_text("utf-8")
    for path in _PACKAGE.rglob("*.py")
    if path.name not in _CATALOGUES and "pb" not in path.parts
)
_NAMED = frozenset(re.findall(r"\bReason\.([A-Z0-9_]+)\b", _SOURCES))
# Two words of English, as no code, header or field has them.
_ENGLISH = re.compile(r"[a-z]{2,} [a-z]{2,}", re.IGNORECASE)
# What another program prints, which has no other sign.
_OF_OTHERS = {
    *("ct count over", "No such file", "ERR AUTH"),
    *("ERR No such master", "ERR unknown command"),
}
# What stands under a name that the operator chose, and in place of a word.
UNDER: dict[str, type[BaseModel]] = {
    "<server>": ServerConfig,
    "<client>": ClientConfig,
    "<pattern>": ToolConfig,
    "<page>": PageConfig,
}
OPTIONAL: dict[str, type[BaseModel]] = {
    "second_factor": SecondFactorConfig,
    "introspection": IntrospectionConfig,
    "front_door": FrontDoorConfig,
}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_full_row(reason: Reason) -> None:
    """Whatever is refused has a status, a sentence, a meaning, a fix and a diagnosis."""
    row = reason.row
    assert 400 <= row.status < 600
    assert row.label == reason.name.lower()
    for text in (row.sentence, row.meaning, row.fix):
        assert text == text.strip() != ""
    diagnosis = diagnose(reason, "")
    assert diagnosis.name.isidentifier()
    assert diagnosis.message
    assert diagnosis.fix


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_used(reason: Reason) -> None:
    """A reason is more than a row: something in authz/ refuses with it."""
    assert reason.name in _NAMED


def test_codes_of_ours_are_distinct() -> None:
    """A JSON-RPC code that is not MCP's or JSON-RPC's own is that of one reason."""
    own = [each.row.code for each in Reason if not -32768 <= each.row.code <= -32000]
    assert len(set(own)) == len(own)


@pytest.mark.parametrize("detail", [each for each in Detail if each])
def test_every_detail_has_a_text_and_a_place(detail: Detail) -> None:
    """A detail is printable ASCII, names nothing that a caller chose, and is used in authz/."""
    assert re.fullmatch(r"[ -~]{2,80}", detail)
    assert f"Detail.{detail.name}" in _SOURCES


def test_details_that_say_more_have_a_diagnosis_of_their_own() -> None:
    """It is found by the detail, whatever the reason, and has a name of its own."""
    own = {diagnose(Reason.TOKEN_INVALID, each).name: each for each in DIAGNOSES}
    assert len(own) == len(DIAGNOSES)
    assert set(DIAGNOSES) <= set(Detail)


@pytest.mark.parametrize(
    "field", sorted({field for reason in Reason for field in reason.row.fields})
)
def test_every_field_is_one_of_the_configuration(field: str) -> None:
    """Nobody is sent to look for a field that is not there."""
    model: type[BaseModel] | None = Config
    for part in field.split("."):
        if part in UNDER:
            model = UNDER[part]
            continue
        assert model is not None
        assert part in model.model_fields
        inner = model.model_fields[part].annotation
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
        model = model or OPTIONAL.get(part)


def test_names_take_the_place_of_their_kind() -> None:
    """A field is told as it stands in this operator's file."""
    assert fill_in("servers.<server>.groups", {"server": "files"}) == "servers.files.groups"


def compared(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield what programs tell cases apart by: operands, prefixes, keys, patterns."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left, _, comparators):
                yield from (left, *comparators)
                for each in comparators:
                    if isinstance(each, ast.Tuple | ast.List | ast.Set):
                        yield from each.elts
            case ast.Call(ast.Attribute(_, "startswith" | "endswith" | "get" | "find"), args):
                yield from args[:1]
            case ast.Dict(keys):
                yield from (key for key in keys if key is not None)
            case ast.MatchValue(value):
                yield value


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [each for each in sorted(_PACKAGE.rglob("*.py")) if "pb" not in each.parts], ids=str
)
def test_no_module_compares_english_text(path: Path) -> None:
    """Errors are told apart by members of enums: a text can be mended without a thought."""
    found = [
        each.value
        for each in compared(ast.parse(path.read_text("utf-8")))
        if isinstance(each, ast.Constant)
        and isinstance(each.value, str)
        and _ENGLISH.search(each.value)
        and each.value not in _OF_OTHERS
    ]
    assert not found
