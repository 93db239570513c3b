"""Elements are cut out of arrays; every other byte stays."""

import json
import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.detail import Detail
from authz.core.json_splice import Element, JsonText, cuts
from authz.core.strict_json import MAX_DEPTH, MAX_WORK, StrictJsonError, loads

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
_RANDOMS = st.randoms(use_true_random=False)


def written(value: object, random: Random) -> str:
    """Write a value with blanks of any kind, and characters escaped or not."""

    def blanks() -> str:
        return random.choice(["", "", " ", "\n", "\t\r"])

    def text(each: object) -> str:
        if isinstance(each, dict):
            members = (f"{blanks()}{text(key)}:{text(inner)}" for key, inner in each.items())
            found = f"{{{','.join(members)}{blanks()}}}"
        elif isinstance(each, list):
            found = f"[{','.join(map(text, each))}{blanks()}]"
        else:
            found = json.dumps(each, ensure_ascii=random.random() < 0.5)
        return blanks() + found + blanks()

    return text(value)


def read_array(text: JsonText) -> tuple[Element, ...]:
    elements, end = text.array(text.start())
    text.check_end(end)
    return elements


def json_text(data: bytes) -> JsonText:
    return JsonText(data, max_depth=MAX_DEPTH, max_work=MAX_WORK)


@given(values=st.lists(_VALUES, max_size=6), random=_RANDOMS)
def test_what_is_left_of_an_array_is_its_bytes_without_the_others(
    values: list[object], random: Random
) -> None:
    """For any document and any choice: the rest reads as the rest, and each kept element and what
    stands around the array is the same, byte for byte.
    """
    document = written(values, random).encode()
    text = json_text(document)
    elements = read_array(text)
    assert [element.value for element in elements] == values
    kept = tuple(each for each in elements if random.random() < 0.5)
    left = text.edited(cuts(elements, kept))
    assert loads(left) == [each.value for each in kept]
    after = json_text(left)
    assert [after.raw(each) for each in read_array(after)] == [text.raw(each) for each in kept]
    if elements:
        assert left.startswith(text.text[: elements[0].start].encode())
        assert left.endswith(text.text[elements[-1].end :].encode())
    if kept == elements:
        assert left == document


@given(value=st.dictionaries(st.text(max_size=4), _VALUES, max_size=4), random=_RANDOMS)
def test_an_object_is_read_as_the_strict_reader_reads_it(
    value: dict[str, object], random: Random
) -> None:
    """The members that are shown, and where their values stand, are the document's."""
    document = written(value, random).encode()
    text = json_text(document)
    seen = dict[str, object]()

    def enter(name: str, at: int) -> int | None:
        seen[name], end = text.value(at)
        return end if random.random() < 0.5 else None

    names, end = text.object(text.start(), enter)
    text.check_end(end)
    assert (seen, names) == (value, frozenset(value))


@given(
    st.binary(max_size=40)
    | st.text(alphabet='[]{}",:\\01 \n\t.', max_size=14).map(str.encode)
    | st.sampled_from([b'{"a":1,"a":2}', b'{"a":1,}', b"[1,]", b"[1 2]", b'{"a" 1}', b"{1:2}"])
)
def test_a_reader_in_pieces_refuses_what_the_strict_reader_refuses(document: bytes) -> None:
    """Of any bytes both make the same value, or neither makes one."""
    try:
        whole: object = loads(document)
    except StrictJsonError:
        whole = StrictJsonError
    found: object
    try:
        found = _in_pieces(json_text(document))
    except StrictJsonError:
        found = StrictJsonError
    assert repr(found) == repr(whole)  # NaN is refused; -0.0 is no 0.0


def _in_pieces(text: JsonText) -> object:
    start, found = text.start(), dict[str, object]()

    def enter(name: str, at: int) -> int:
        found[name], end = text.value(at)
        return end

    value: object
    if text.opens(start, "{"):
        _, end = text.object(start, enter)
        value = found
    elif text.opens(start, "["):
        elements, end = text.array(start)
        value = [each.value for each in elements]
    else:
        value, end = text.value(start)
    text.check_end(end)
    return value


@pytest.mark.parametrize("document", [b'"\\ud800"', b"\xff", b"\xef\xbb\xbf[]"])
def test_the_text_of_no_document(document: bytes) -> None:
    """A surrogate is a value; what is no UTF-8, or begins with a byte order mark, is none."""
    if document == b'"\\ud800"':
        assert re.fullmatch("[\ud800]", str(json_text(document).value(0)[0]))
        return
    with pytest.raises(StrictJsonError):
        read_array(json_text(document))


@pytest.mark.parametrize(
    "length", [n + d for n in (4096, 8192, 65536, 131072) for d in range(-3, 4)]
)
@pytest.mark.parametrize("unit", ["a", "\u00e9", "\\u00e9"])
def test_a_long_value_is_read_whole(length: int, unit: str) -> None:
    """Wherever the pieces end in which it is looked for, within an escape too."""
    string = f'"{unit * ((length - 2) // len(unit))}"'.ljust(length - 1, " ")
    document = f"[{string},[7,{string}],1]".encode()
    first, second, last = read_array(json_text(document))
    value = json.loads(string)
    assert (first.value, second.value, last.value) == (value, [7, value], 1)
    assert json_text(document).raw(second) == f"[7,{string}]".encode()


@pytest.mark.parametrize(
    ("inner", "detail"),
    [
        ('{"a":1,"a":2}', Detail.DUPLICATE_MEMBER),
        ("[1,]", Detail.NOT_JSON),
        ("[1}", Detail.NOT_JSON),
        ("NaN", Detail.NOT_FINITE),
        ('{"\\ud800":1}', Detail.LONE_SURROGATE),
    ],
)
@pytest.mark.parametrize("before", [0, 5000, 70_000])
def test_what_is_wrong_with_a_long_value_is_told(inner: str, detail: Detail, before: int) -> None:
    """As of a short one."""
    document = f'[["{"a" * before}",{inner}],"{"b" * 9000}"]'.encode()
    with pytest.raises(StrictJsonError) as caught:
        read_array(json_text(document))
    assert caught.value.detail is detail


@pytest.mark.attack("hostile-tool-list")
def test_no_single_value_takes_long() -> None:
    """While one value is read nothing else runs: its work is bounded, that of many is not."""
    part = "[" + "[]," * 10_000 + "0]"
    bounds = {"max_depth": MAX_DEPTH, "max_work": 10**9}
    every = f"[{','.join([part] * 60)}]"
    assert len(read_array(JsonText(every.encode(), **bounds))) == 60
    with pytest.raises(StrictJsonError) as caught:
        read_array(JsonText(f"[{every}]".encode(), **bounds))
    assert caught.value.detail is Detail.TOO_MUCH_WORK
    # What a string says is no structure.
    text = json.dumps(every)
    assert read_array(JsonText(f"[{text}]".encode(), **bounds))[0].value == every
