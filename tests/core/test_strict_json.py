"""Strict JSON: one document and one reading of it, or an error in fixed words."""

import gc
import json
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authz.core import strict_json
from authz.core.strict_json import (
    MAX_DEPTH,
    StrictJsonError,
    TooDeepError,
    TooMuchWorkError,
    has_surrogate,
    loads,
    unmistakable,
)

SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text() | st.just(0.5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
# Text that a scan for brackets must not be misled by.
TRICKY = st.text(alphabet='[]{}"\\:,u0 \n', max_size=30)
NESTED = st.recursive(
    TRICKY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TRICKY, inner, max_size=3),
)
# A busy machine is no failure.
ANY_TIME = settings(deadline=None)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"a":NaN}', id="nan"),
        pytest.param(b"[Infinity]", id="infinity"),
        pytest.param(b"[-Infinity]", id="minus-infinity"),
        pytest.param(b'{"a":1}x', id="trailing-bytes"),
        pytest.param(b'{"a":1}\x00', id="trailing-nul"),
        pytest.param(b'{"a":1}\xc2\xa0', id="trailing-unicode-blank"),
        pytest.param(b'{"a":1}\x0b', id="trailing-vertical-tab"),
        pytest.param(b'{"a":1}{"a":1}', id="two-documents"),
        pytest.param(b'{"a":1}\n{"a":1}', id="two-lines"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="bom"),
        pytest.param('{"a":1}'.encode("utf-16"), id="utf-16"),
        pytest.param('{"a":1}'.encode("utf-16-le"), id="utf-16-without-bom"),
        pytest.param('{"a":1}'.encode("utf-32-be"), id="utf-32"),
        pytest.param(b'{"a":"\xff"}', id="not-utf-8"),
        pytest.param(b'{"a":"\xc0\xaf"}', id="overlong-utf-8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="surrogate-in-utf-8"),
        pytest.param(b'{"\\ud800":1}', id="lone-surrogate-in-a-key"),
        pytest.param(b'{"a":[{"x\\udfff":1}]}', id="lone-surrogate-in-a-deep-key"),
        pytest.param(b'{"a":1,"a":1}', id="member-twice"),
        pytest.param(b'{"a":1,"\\u0061":2}', id="member-twice-escaped"),
        pytest.param(b'{"x":[{"y":{"a":1,"b":2,"a":3}}]}', id="member-twice-deep"),
        pytest.param(b"1" * 5_000, id="5000-digits"),
        pytest.param(b"[-" + b"9" * 400 + b"]", id="400-digits"),
        pytest.param(b"0." + b"1" * 5_000, id="5000-decimals"),
        pytest.param(b"[1e999]", id="too-large-for-a-double"),
        pytest.param(b"[01]", id="leading-zero"),
        pytest.param(b"[+1]", id="plus"),
        pytest.param(b"[1.]", id="no-decimals"),
        pytest.param(b"[0x10]", id="hexadecimal"),
        pytest.param("[\u0661]".encode(), id="arabic-digit"),
        pytest.param(b"['a']", id="single-quotes"),
        pytest.param(b"[1,]", id="trailing-comma"),
        pytest.param(b"{a:1}", id="bare-key"),
        pytest.param(b'["\t"]', id="control-in-a-string"),
        pytest.param(b'["\\x41"]', id="unknown-escape"),
        pytest.param(b'["a', id="unterminated"),
        pytest.param(b"/**/1", id="comment"),
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="blank"),
        pytest.param(b"[" * 100_000, id="100000-deep"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="100000-objects-deep"),
    ],
)
def test_refuses(data: bytes) -> None:
    """What is not one document of strict JSON is an error, in words without the document."""
    with pytest.raises(StrictJsonError) as caught:
        loads(data)

    assert str(caught.value) in {
        "nested too deeply", "too much to read", "not UTF-8", "not JSON", "more than one document",
        "a member occurs twice", "a lone surrogate in a key", "a number too long",
        "a number too long or too large", "NaN or Infinity",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b' \t\r\n{"a":[1,-2.5e3,null]} \n', {"a": [1, -2500.0, None]}, id="blanks"),
        pytest.param(b'{"a":1,"A":2}', {"a": 1, "A": 2}, id="case-is-the-callers-business"),
        pytest.param(b'["\\ud83d\\ude00"]', ["\U0001f600"], id="a-surrogate-pair"),
        pytest.param(b'["\\ud83d"]', ["\ud83d"], id="a-lone-surrogate-in-a-value"),
        pytest.param(b'{"a\\u0062":1}', {"ab": 1}, id="an-escaped-key"),
        pytest.param(b"1" + b"0" * 308, 10**308, id="309-digits"),
        pytest.param(b'"' + b"[" * 1_000 + b'"', "[" * 1_000, id="brackets-in-a-string"),
        pytest.param(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None, id="as-deep-as-allowed"),
    ],
)  # fmt: skip
def test_reads(data: bytes, expected: object) -> None:
    """Strict is not narrow: all that RFC 8259 and RFC 7493 agree on is read."""
    value = loads(data)

    assert value == (json.loads(data) if expected is None else expected)


@ANY_TIME
@given(VALUES)
def test_reads_what_the_stdlib_reads(value: object) -> None:
    """A document without twins and extremes means the same here as in the standard library."""
    for ascii_only in (True, False):
        data = json.dumps(value, ensure_ascii=ascii_only).encode()

        assert loads(data) == value


@ANY_TIME
@given(NESTED, st.integers(0, 6))
@example(["\\"], 0)
@example(['\\"[[[['], 1)
@example([{"[": ['\\\\"']}], 2)
@example(["\\", [[]]], 2)
@example(['\\"', [[]]], 2)
def test_depth_is_exact(value: object, allowed: int) -> None:
    """A document is too deep where its objects and arrays nest deeper, whatever its strings say."""
    data = json.dumps(value).encode()

    if depth(value) <= allowed:
        assert loads(data, max_depth=allowed) == value
    else:
        with pytest.raises(StrictJsonError, match=r"nested too deeply|too much to read"):
            loads(data, max_depth=allowed)


@ANY_TIME
@given(st.binary() | st.text(alphabet='[]{}"\\:,u0-1eENa \n\x00', max_size=60).map(str.encode))
def test_any_bytes(data: bytes) -> None:
    """Whatever the bytes, there is a value or a StrictJsonError, and the value is the stdlib's."""
    try:
        value = loads(data)
    except StrictJsonError:
        return

    assert value == json.loads(data)


def test_depth_is_known_before_a_parser_recurses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No parser is started on a document that nests too deeply: not even its stack is touched."""
    monkeypatch.setattr(strict_json, "_DECODERS", {})

    # Each prefix would hide the brackets from a scan that misreads where its string ends.
    for prefix in (b"", b'["\\\\",', b'["\\"",', b'["\\\\\\"",', b'{"\\\\":"\\"",":":'):
        for opened in (b"[", b'{"a":', b'[{"\\"":', b'["\\\\",'):
            with pytest.raises(StrictJsonError, match=r"nested too deeply|too much to read"):
                loads(prefix + opened * 100_000)


def test_a_generous_depth_is_no_recursion_error() -> None:
    """Where a caller allows more than Python can nest, that is no RecursionError either."""
    with pytest.raises(StrictJsonError):
        loads(b"[" * 100_000, max_depth=1_000_000)


def test_digits_are_bounded_without_python() -> None:
    """The bound on digits is ours: a process that lifted Python's own is as safe."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        with pytest.raises(StrictJsonError, match="too long"):
            loads(b"1" * 1_000_000)
    finally:
        sys.set_int_max_str_digits(before)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(("name", "Name"), id="case"),
        pytest.param(("uri", "URI"), id="upper"),
        pytest.param(("params", "param\u017f"), id="long-s"),
        pytest.param(("tas\u212aId",), id="kelvin-sign-alone"),
        pytest.param(("name", "ｎａｍｅ"), id="full-width"),  # noqa: RUF001 - the attack
        pytest.param(("name", "n\u00ad" + "ame"), id="soft-hyphen"),
        pytest.param(("name", "na\u200dme"), id="zero-width-joiner"),
        pytest.param(("name", "name\x00"), id="nul"),
        pytest.param(("name", "name "), id="blank"),
        pytest.param(("name\n",), id="newline"),
        pytest.param(("name", "n\u0430me"), id="cyrillic"),
    ],
)
def test_keys_that_are_alike(keys: tuple[str, ...]) -> None:
    """Keys that some parser could take for another are found, in whatever way they are alike."""
    assert not unmistakable(keys)


def test_keys_that_are_not_alike() -> None:
    """Keys of MCP and JOSE pass."""
    assert unmistakable(())
    assert unmistakable(("name", "arguments", "_meta", "io.modelcontextprotocol/clientInfo"))


def test_surrogates() -> None:
    """A lone surrogate is found, a character beyond the basic plane is none."""
    assert has_surrogate("a\ud800")
    assert not has_surrogate("a\U0001f600é")


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("digits", [308, 309, 310, 5000])
@pytest.mark.parametrize("around", ["%s", "[1,%s]", '{"a":[%s,"%s"]}'])
def test_integers_are_as_long_as_a_double_may_be(sign: str, digits: int, around: str) -> None:
    """309 characters, a sign among them, and no more; however they are read."""
    number = sign + "1" * digits
    data = around.replace("%s", number).encode()

    if len(number) <= 309:
        assert loads(data) == json.loads(data)
    else:
        with pytest.raises(StrictJsonError):
            loads(data)


MIB = 1 << 20
PARTS = {
    "objects": b"{},", "arrays": b"[],", "integers": b"1,", "floats": b"0.1,", "exponents": b"1e9,",
    "nested": b"[" * 62 + b"]" * 62 + b",", "members": b'{"a":1},', "words": b"true,",
    "nested-objects": b'{"a":' * 62 + b"1" + b"}" * 62 + b",", "strings": b'"",',
    "quotes": b'"\\"",',
    "escapes": b'"\\u00e9",', "long-integers": b"1" * 309 + b",",
    "small-exponents": b"1e-300,", "long-mantissas": b"1." + b"2345678901" * 5 + b"e-300,",
    "longest-floats": b"0." + b"1" * 307 + b",",
}  # fmt: skip
# A run of digits as long as no integer may be, where it is allowed.
MANY_DIGITS = b'"' + b"1" * 310 + b'",'


def of(part: bytes, count: int, before: bytes = b"") -> bytes:
    return b"[" + before + part * count + b"1]"


@pytest.mark.slow
@pytest.mark.attack("mcp-json-work")
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_megabyte_of_anything_takes_bounded_time(part: bytes) -> None:
    """Refused or read, the largest message that is admitted costs a few honest megabytes at most.

    The honest one is of floating-point numbers, read by the standard library in the same run:
    seconds alone would say how busy the machine is. Measured on a quiet one: twice as much to read
    the worst that is admitted, ten times as much without the bound.
    """
    most = (MIB - 3) // len(part)
    # The most of them that is admitted. At depth 0 that is all that is looked at.
    fits = bisect_left(range(1, most + 1), 1, key=lambda count: not admitted(of(part, count)))
    assert fits
    honest = json.dumps([i / 7 for i in range(50_000)]).encode()

    def read(data: bytes) -> None:
        with suppress(TooMuchWorkError):
            loads(data)

    for data in (of(part, fits), of(part, most)):
        # The best of five, as far as they are needed.
        assert any(seconds(read, data) / seconds(json.loads, honest) < 5 for _ in range(5))


def admitted(data: bytes) -> bool:
    """Tell whether it is not too much work: that is judged before the depth."""
    with pytest.raises((TooMuchWorkError, TooDeepError)) as refused:
        loads(data, max_depth=0)
    return refused.type is TooDeepError


def seconds(read: Callable[[bytes], object], data: bytes) -> float:
    """Return what reading costs, without the collector: it walks all that pytest holds."""
    gc.disable()
    try:
        began = time.process_time()
        read(data)
        return time.process_time() - began
    finally:
        gc.enable()


def test_no_integer_is_called_back_for() -> None:
    """Where a long run of digits stands somewhere, each integer costs what it costs elsewhere.

    A call of Python's for each took three times as long as reading it, and nothing counted it.
    """
    calls: list[int] = []

    def count(_frame: object, event: str, _argument: object) -> None:
        if event == "call":
            calls[-1] += 1

    for before in (b'"0",', MANY_DIGITS):
        calls.append(0)
        sys.setprofile(count)
        try:
            loads(of(b"1,", 1_000, before))
        finally:
            sys.setprofile(None)

    assert max(calls) < 100


@pytest.mark.parametrize(
    ("cheap", "dear"),
    [
        pytest.param(b"1.5,", b"1e3,", id="an-exponent-more-than-a-point"),
        pytest.param(b"1.5,", b"1." + b"5" * 60 + b",", id="digits-more-than-none"),
        pytest.param(b"1." + b"5" * 60 + b",", b"1." + b"5" * 120 + b",", id="by-their-number"),
        pytest.param(b"15,", b"1" * 100 + b",", id="of-integers-too"),
    ],
)
def test_digits_and_exponents_are_counted(cheap: bytes, dear: bytes) -> None:
    """A number is charged for its exponent and its digits, beyond its bytes and its comma."""
    least = {part: work_of(of(part, 1_000)) - 1_000 * 6 * len(part) for part in (cheap, dear)}

    assert least[dear] > 1.3 * least[cheap]


def work_of(data: bytes) -> int:
    """Return what a document is charged: the least that is enough."""
    low, high = 0, 10**9
    while low < high:
        middle = (low + high) // 2
        try:
            loads(data, max_work=middle)
            high = middle
        except TooMuchWorkError:
            low = middle + 1
    return low


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([[i / 7 for i in range(1536)] for _ in range(20)], id="vectors"),
        pytest.param([i / 7 for i in range(50_000)], id="a-megabyte-of-floats"),
        pytest.param([{"id": i, "name": "abc", "x": 1.5} for i in range(25_000)], id="records"),
        pytest.param(list(range(140_000)), id="integers"),
    ],
)
def test_honest_bulk_is_read(value: object) -> None:
    """What a tool is sent in earnest fits, up to a megabyte of it."""
    data = json.dumps(value).encode()

    assert 500_000 < len(data) <= MIB
    assert loads(data) == value


def test_the_bound_is_one_of_work() -> None:
    """More is read where more is allowed, and strings cost no more than their bytes."""
    data = of(b"{},", 300_000)

    with pytest.raises(TooMuchWorkError):
        loads(data)
    assert loads(data, max_work=10**9)
    assert loads(json.dumps("{[:,.e" * 100_000).encode())
    with pytest.raises(TooDeepError):
        loads(b"[" * 65 + b"]" * 65)
