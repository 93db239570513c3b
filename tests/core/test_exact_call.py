"""The exact call: one text for one call, another text for any other, and no text where none is."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.detail import Detail
from authz.core.exact_call import LONGEST, ExactCall, exact_call
from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError
from authz.core.step_up import APPROVAL_QUESTION, QUESTIONS, STEP_UP_QUESTION

ARGUMENTS = {"path": "/tmp/a", "depth": 3, "ratio": 0.5, "force": True, "by": None, "x": ["é", {}]}


def called(
    arguments: object = ARGUMENTS,
    *,
    path: str = "/files",
    headers: dict[str, str] | None = None,
    rpc_id: object = 1,
    **params: object,
) -> HttpRequest:
    """Return the request of a call, its body as `json` writes it."""
    members = {"name": "delete", "arguments": arguments, **params}
    body = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": members})
    return raw(body, path=path, headers=headers)


def raw(body: str, *, path: str = "/files", headers: dict[str, str] | None = None) -> HttpRequest:
    """Return a request with a body."""
    given = {"mcp-protocol-version": "2025-11-25"} if headers is None else headers
    return HttpRequest("POST", path, given, body.encode(), {"server": "files"}, "", "")


def with_arguments(text: str) -> HttpRequest:
    """Return the request of a call whose arguments are written so."""
    return raw(
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete","arguments":'
        + text
        + "}}"
    )


def exact(request: HttpRequest) -> ExactCall:
    """Return the exact call of a request."""
    return exact_call(request, QUESTIONS)


def detail(request: HttpRequest) -> Detail:
    """Return why a call cannot be approved."""
    with pytest.raises(RefusedError) as caught:
        exact(request)
    assert caught.value.reason is Reason.APPROVAL_IMPOSSIBLE
    return caught.value.detail


INTEGERS = st.integers(-(2**53 - 1), 2**53 - 1)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | INTEGERS
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), VALUES)


def same(one: object, other: object) -> bool:
    """Tell whether a Python server reads the same in both: the pickiest of readers."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return one == other


@given(OBJECTS, OBJECTS)
def test_calls_have_one_text_exactly_where_readers_read_the_same(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Two calls with equal digests are the same call, to the type of every number."""
    assert (exact(called(one)).digest == exact(called(other)).digest) is same(one, other)


@given(OBJECTS)
def test_spelling_makes_no_other_call(arguments: dict[str, Any]) -> None:
    """Blanks, the order of members and escapes differ between two spellings of one call."""
    shuffled = dict(reversed(arguments.items()))
    plain = json.dumps(shuffled, ensure_ascii=False, indent=3)

    assert exact(with_arguments(plain)) == exact(
        called(arguments, headers={"mcp-protocol-version": "2025-11-25"})
    )


@given(OBJECTS)
def test_the_text_holds_the_whole_call(arguments: dict[str, Any]) -> None:
    """What is shown is all that is approved: the text reads back as what was sent."""
    read = json.loads(exact(called(arguments)).text)
    assert read["params"]["name"] == "delete"
    assert same(read["params"]["arguments"], arguments)
    assert read["version"] == "2025-11-25"


def test_what_differs_between_a_call_and_its_repetition_makes_no_other_call() -> None:
    """The id, the progress token, the trace, the session and answers to our own questions."""
    first = called(_meta={"progressToken": 1, "traceparent": "00-a", "a/b": 1})
    again = called(
        rpc_id="another",
        _meta={"progressToken": "x", "tracestate": "c=d", "a/b": 1},
        inputResponses={
            STEP_UP_QUESTION: {"action": "accept"},
            APPROVAL_QUESTION: {"action": "decline"},
        },
        headers={"mcp-protocol-version": "2025-11-25", "mcp-session-id": "s", "x-other": "y"},
    )
    assert exact(first) == exact(again)
    assert exact(called(_meta={"progressToken": 1})) == exact(called())


@pytest.mark.attack("approval-swapped")
@pytest.mark.parametrize(
    "other",
    [
        pytest.param(called({**ARGUMENTS, "path": "/tmp/b"}), id="argument"),
        pytest.param(called({**ARGUMENTS, "depth": 3.0}), id="type-of-number"),
        pytest.param(called({**ARGUMENTS, "force": 1}), id="number-for-boolean"),
        pytest.param(called({**ARGUMENTS, "path": "/tmp/\u0430"}), id="look-alike"),
        pytest.param(called({**ARGUMENTS, "path": "/tmp/a\u200b"}), id="zero-width"),
        pytest.param(called({**ARGUMENTS, "x": ["e\u0301", {}]}), id="other-normal-form"),
        pytest.param(called({**ARGUMENTS, "Path": "/etc"}), id="twin-in-another-case"),
        pytest.param(called(list(ARGUMENTS)), id="no-object"),
        pytest.param(called(task={"ttl": 60000}), id="task"),
        pytest.param(called(_meta={"example.com/dry-run": False}), id="meta"),
        pytest.param(called(_meta={"baggage": "mode=force"}), id="baggage"),
        pytest.param(called(inputResponses={"confirm": {"action": "accept"}}), id="answer"),
        pytest.param(called(inputResponses={}, requestState="s"), id="state"),
        pytest.param(called(inputResponses="x"), id="answers-of-another-shape"),
        pytest.param(called(extra=1), id="member-of-params"),
        pytest.param(called(name="delete_all"), id="tool"),
        pytest.param(called(path="/files?mode=force"), id="query"),
        pytest.param(called(headers={}), id="no-version"),
        pytest.param(
            called(headers={"mcp-protocol-version": "2025-11-25", "mcp-param-path": "/etc"}),
            id="parameter-header",
        ),
    ],
)
def test_whatever_may_change_what_the_server_does_makes_another_call(other: HttpRequest) -> None:
    """An approval of the one is none of the other."""
    assert exact(other).digest != exact(called()).digest


@pytest.mark.attack("approval-ambiguous")
@pytest.mark.parametrize(
    "text",
    [
        '{"a":9007199254740993}', '{"a":-9007199254740992}', f'{{"a":{"1" * 300}}}', '{"a":-0}',
        '{"a":0.1000000000000000055}', '{"a":1e-400}', '{"a":1.00000000000000000001}',
        '{"a":9007199254740993.0}', '{"a":"\\ud800"}', '{"a":["\\udc00x"]}',
        f'{{"a":0.{"0" * 60}1}}', '{"a":1e99999999}', '{"a":1e-99999999999999999999}',
        '{"a":0e99999999999999999999}',
    ],
)  # fmt: skip
def test_what_readers_could_take_for_another_call_is_refused(text: str) -> None:
    """Numbers that no double holds as written, and lone surrogates."""
    try:
        found = detail(with_arguments(text))
    except OverflowError:  # pragma: no cover - would be a defect
        pytest.fail("arithmetic on a number of the caller's")
    assert found is Detail.AMBIGUOUS_CALL


@pytest.mark.parametrize("text", ['{"a":1e2}', '{"a":1.50}', '{"a":0.1}', '{"a":1e300}'])
def test_a_number_may_be_spelt_otherwise(text: str) -> None:
    """What every reader reads alike is one call, however it is written."""
    value = json.loads(text)
    assert exact(with_arguments(text)) == exact(called(value))


@pytest.mark.attack("approval-too-large")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"text": "x" * LONGEST}, id="long"),
        pytest.param({"text": "é" * (LONGEST // 2)}, id="long-in-bytes"),
        pytest.param({"text": ["x"] * LONGEST}, id="many"),
        pytest.param({"text": "\x00" * (LONGEST // 5)}, id="escapes"),
        pytest.param(json.loads("[" * 16 + "]" * 16), id="deep"),
        pytest.param(json.loads('{"a":' * 40 + "1" + "}" * 40), id="deeper"),
    ],
)
def test_what_nobody_can_read_is_refused(arguments: object) -> None:
    """It is never cut: all that is approved is shown."""
    assert detail(called(arguments)) is Detail.CALL_TOO_LARGE


def test_a_large_body_is_not_read_a_second_time() -> None:
    """Blanks around a small call cost nothing: the length alone refuses."""
    assert detail(with_arguments("{}" + " " * 9 * LONGEST)) is Detail.CALL_TOO_LARGE


def test_a_call_is_not_shown_by_accident() -> None:
    """A log line that formats the value has no argument."""
    assert "tmp" not in repr(exact(called()))
