"""Headers that repeat arguments are compared with the body, where rules look at arguments."""

from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import (
    X_MCP_HEADER_KEY,
    encode_header_value,
    mcp_param_headers,
    validate_mcp_param_headers,
)

from authz.core.conditions import Condition, Under
from authz.core.decision import Allow, BearerRequest, Deny, authorize, conclude, read
from authz.core.detail import Detail
from authz.core.json_pointer import parse
from authz.core.ledger import Mode, Taken
from authz.core.parameter_headers import repeat_arguments
from authz.core.policy import OperationRule, Rule
from authz.core.reason import Reason
from tests.support.values import NOW, policy, principal, request, rpc, server

UNDER = Condition(parse("/path"), Under("/data"))
GUARDED = replace(
    server(),
    tools=(
        OperationRule("delete_file", Rule(when=(UNDER,))),
        OperationRule("read_file", Rule()),
    ),
    prompts=(OperationRule("letter", Rule(when=(UNDER,))),),
)


def decided(
    tool: str, arguments: object, method: str = "tools/call", **headers: str
) -> Allow | Deny:
    rules = policy(GUARDED)
    sent: dict[str, Any] = {f"mcp_param_{name}": value for name, value in headers.items()}
    found = read(request(rpc(method, name=tool, arguments=arguments), **sent), rules)
    assert isinstance(found, BearerRequest)
    pending = authorize(found, principal(), rules, NOW)
    return pending if isinstance(pending, Deny) else conclude(pending, Taken((), Mode.REDIS))


@pytest.mark.attack("argument-in-a-header")
@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        pytest.param({"path": "/data/a"}, {"path": "/etc/a"}, id="another-value"),
        pytest.param({"path": "/data/a", "note": "/etc/a"}, {"path": "/etc/a"}, id="decoy"),
        pytest.param({"path": "/data/a"}, {"folder": "/etc/a"}, id="name-of-no-argument"),
        pytest.param({"path": "/data/a"}, {"force": "true"}, id="argument-that-is-not-there"),
        pytest.param({"path": "/data/a", "to": {"path": "/etc"}}, {"path": "/data/a"}, id="two"),
        pytest.param({"path": "/data/a", "to": {"path": "/etc"}}, {"path": "/etc"}, id="inner"),
        pytest.param({"path": "/data/a", "n": None}, {"n": "null"}, id="null"),
        pytest.param({"path": "/data/a", "n": [1]}, {"n": "1"}, id="list"),
        pytest.param({"path": "/data/a", "n": True}, {"n": "1"}, id="truth-value-as-number"),
        pytest.param({"path": "/data/a", "n": 1}, {"n": "true"}, id="number-as-truth-value"),
        pytest.param({"path": "/data/a", "n": 1}, {"n": "0x1"}, id="hexadecimal"),
        pytest.param({"path": "/data/a"}, {"path": "=?base64?L2RhdGEvYQ?="}, id="loose-base64"),
        pytest.param({"path": "/data/a"}, {"path": "/data/a,/etc/a"}, id="twice"),
        pytest.param({"path": "/data/a"}, {"path": "/data/a", "p_ath": "/etc"}, id="alike"),
        pytest.param({"path": "/data/a"}, {"path": ""}, id="empty"),
    ],
)
def test_a_header_unlike_the_body_is_refused(
    arguments: dict[str, object], headers: dict[str, str]
) -> None:
    """A server that acts on the header, or a proxy that routes by it, does not escape `when`."""
    for name, method in (("delete_file", "tools/call"), ("letter", "prompts/get")):
        assert isinstance(decided(name, arguments, method), Allow)
        found = decided(name, arguments, method, **headers)
        assert isinstance(found, Deny)
        assert (found.reason, found.detail) == (Reason.HEADER_MISMATCH, Detail.MCP_PARAM)


@pytest.mark.parametrize("arguments", [["/data/a"], "/data/a"])
def test_arguments_that_are_no_object_are_repeated_by_no_header(arguments: object) -> None:
    """Whatever it says."""
    assert isinstance(decided("delete_file", arguments, path="/data/a"), Deny)


def test_a_header_that_repeats_the_body_passes() -> None:
    """Plain, escaped, and numbers as either language writes them."""
    arguments = {"path": "/data/é", "n": 42, "half": 0.5, "yes": True, "in": {"file-name": "b c"}}
    escaped = encode_header_value("/data/é")
    assert escaped.startswith("=?base64?")
    found = decided(
        "delete_file", arguments, path=escaped, n="42.0", half="5e-1", yes="true", filename="b c"
    )
    assert isinstance(found, Allow)


def test_without_a_condition_nothing_is_compared() -> None:
    """It is the server's to compare them (MCP)."""
    assert isinstance(decided("read_file", {"path": "/data/a"}, path="/etc"), Allow)


@pytest.mark.attack("doubled-header")
def test_a_value_with_a_comma_is_sent_on_as_it_was_judged() -> None:
    """Two headers that repeat one argument together reach the server as that one value."""
    found = decided("delete_file", {"path": "/data/a,/etc/b"}, path="/data/a,/etc/b")
    assert isinstance(found, Allow)
    assert found.judged == (("mcp-param-path", "/data/a,/etc/b"),)
    found = decided("delete_file", {"path": "/data/a"}, path="/data/a")
    assert isinstance(found, Allow)
    assert found.judged == ()


NAMES = st.sampled_from(["path", "Path", "file-path", "filePath", "n"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["1", "true", "a,b", "=?base64?YQ==?=", " a", "1.0"])
)
ARGUMENTS = st.dictionaries(
    NAMES, SCALARS | st.dictionaries(NAMES, SCALARS, max_size=3), max_size=4
)
TYPES = st.sampled_from(["string", "integer", "boolean"])


def schema(way: tuple[str, ...], token: str, kind: str) -> dict[str, Any]:
    """Return a tool's schema that lets a header repeat the argument at the end of a way."""
    found: dict[str, Any] = {"type": kind, X_MCP_HEADER_KEY: token}
    for name in reversed(way):
        found = {"type": "object", "properties": {name: found}}
    return found


@given(ARGUMENTS, st.lists(NAMES, min_size=1, max_size=2), SCALARS, TYPES, st.booleans())
def test_what_passes_the_official_server_takes_for_the_body(
    arguments: dict[str, Any], way: list[str], other: object, kind: str, is_other: bool
) -> None:
    """Whichever argument of its name a header repeats by the schema."""
    name, there = way[-1], cast("object", arguments)
    for each in way:
        there = there.get(each) if isinstance(there, dict) else None
    value = other if is_other else there
    sent = mcp_param_headers({(name,): name}, {name: value})
    if not sent:
        return
    headers = {key.lower(): each for key, each in sent.items()}
    if not repeat_arguments(headers, arguments):
        return
    if there is not None:
        # Whole numbers are compared as such where the schema says so.
        is_whole = isinstance(there, int | float) and there == int(there)
        of = schema(tuple(way), name, "integer" if is_whole else kind)
        assert validate_mcp_param_headers(of, arguments, headers) is None


@given(st.dictionaries(NAMES, SCALARS, max_size=1))
def test_what_the_official_client_repeats_passes(arguments: dict[str, Any]) -> None:
    """But for numbers that languages write or read differently."""
    sent = mcp_param_headers({(name,): name for name in arguments}, arguments)
    headers = {key.lower(): each for key, each in sent.items()}
    large = any(
        isinstance(each, int | float) and not isinstance(each, bool) and abs(each) > 2**53 - 1
        for each in arguments.values()
    )
    assert repeat_arguments(headers, arguments) or large
