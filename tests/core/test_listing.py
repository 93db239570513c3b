"""A list shows what may be called, nothing else, and every other byte of it stays."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.catalogue import Annotation, Catalogue, KnownTool
from authz.core.decision import BearerRequest, Deny, authorize, read
from authz.core.evaluation import could_be_allowed, evaluate
from authz.core.identity_cache import IdentityCache
from authz.core.listing import (
    LISTS,
    Definition,
    ListError,
    ListFault,
    ListMessage,
    lists_of,
    not_shown,
    visibility,
)
from authz.core.mcp import Message, MessageKind
from authz.core.policy import DeclaredClient, OperationKind, Rule
from authz.core.reason import Reason
from authz.core.second_factor import Evidence, Method, SecondFactor
from tests.support.values import NOW, call, policy, principal, request, server

TOOLS = LISTS["tools/list"]
EVERY = tuple(LISTS.values())

_RULES = st.builds(
    Rule,
    scopes=st.frozensets(st.sampled_from(["mcp:files", "mcp:files:write"])),
    groups=st.none() | st.frozensets(st.sampled_from(["staff", "admins"]), min_size=1),
    second_factor=st.none()
    | st.builds(
        SecondFactor,
        st.sampled_from(list(Method)[1:]),
        st.none() | st.just(60),
        st.sampled_from([frozenset(Evidence), frozenset({Evidence.LOGIN})]),
    ),
)
_PATTERNS = st.dictionaries(
    st.sampled_from(["*", "read_*", "read_me", "delete_*", "?"]), _RULES, max_size=3
)
_NAMES = st.sampled_from(["read_me", "read_you", "delete_all", "x", "", " x", "a\nb", "x" * 257])
_PEOPLE = st.builds(
    principal,
    subject=st.none() | st.just("john"),
    scopes=st.frozensets(st.sampled_from(["mcp:files", "mcp:files:write"])),
    groups=st.frozensets(st.sampled_from(["staff", "admins"])),
    client_id=st.sampled_from(["claude", "robot", "unknown"]),
)
_CLIENTS = (
    DeclaredClient("claude", scopes=frozenset({"mcp:files"})),
    DeclaredClient("robot", machine=True),
)
# What a new log-in or a step-up would prove.
_PROVABLE = {Reason.SECOND_FACTOR_REQUIRED, Reason.LOGIN_TOO_OLD}


@pytest.mark.attack("list-unfiltered")
@given(rule=_RULES, tools=_PATTERNS, who=_PEOPLE, name=_NAMES, named=st.booleans())
def test_visible_is_what_no_rule_refuses_to_call(
    rule: Rule, tools: dict[str, Rule], who: object, name: str, named: bool
) -> None:
    """For any rules and anybody: a tool is visible where its call is refused for nothing but a
    second factor, as far as the ledger is not asked.
    """
    of = server(rule, tools, machines=frozenset({"robot"}))
    rules = policy(of, *(_CLIENTS if named else ()))
    called = read(request(call(name)), rules)
    assert isinstance(called, BearerRequest)
    decision = authorize(called, who, rules, NOW)  # type: ignore[arg-type]  # a Principal
    refused = isinstance(decision, Deny) and decision.reason not in _PROVABLE
    assert visibility(of, who, rules)(TOOLS, name) is not refused  # type: ignore[arg-type]


@pytest.mark.parametrize("method", LISTS)
def test_each_thing_is_evaluated_by_its_own_call(method: str) -> None:
    """What has no rules is seen, whatever tools are named; who may not come sees nothing."""
    of = server(tools={"read_*": Rule()})
    rules = policy(of)
    seen = visibility(of, principal(), rules)(LISTS[method], "secret")
    assert seen is (method != "tools/list")
    assert not visibility(of, principal(audience=()), rules)(LISTS[method], "read_me")


def test_lists_are_filtered_where_something_is_named() -> None:
    """Of a server that names tools their list is; of one that names nothing, none."""
    assert lists_of(server()) == frozenset()
    assert TOOLS in lists_of(server(tools={"*": Rule()}))
    told = server(annotations={Annotation.DESTRUCTIVE: Rule(scopes=frozenset({"x"}))})
    assert lists_of(told) == {TOOLS}


def test_what_a_tool_says_of_itself_counts() -> None:
    """A rule by annotation hides what it refuses; what nobody listed is destructive."""
    of = server(annotations={Annotation.DESTRUCTIVE: Rule(scopes=frozenset({"x"}))})
    known = KnownTool(frozenset({Annotation.READ_ONLY}), frozenset())
    shows = visibility(of, principal(), policy(of), Catalogue({"read_me": known}))
    assert (shows(TOOLS, "read_me"), shows(TOOLS, "other")) == (True, False)


def test_one_evaluation_serves_all_tools_of_the_same_rules() -> None:
    """A list of a thousand tools costs a thousand look-ups, not a thousand evaluations."""
    of, cache = server(tools={"read_*": Rule()}), IdentityCache()
    who, by = principal(), policy(of)
    assert all(
        could_be_allowed(of, who, by, OperationKind.TOOL, f"read_{number}", cache=cache)
        for number in range(1000)
    )
    # The rules of each name, one selection of them and one evaluation.
    assert len(cache) == 1002


# --- a response ---------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
_ELEMENTS = st.fixed_dictionaries(
    {"name": st.sampled_from(["read_me", "delete_all", "x"])}, optional={"description": _JSON}
) | st.sampled_from([{}, {"name": 7}, 7, None, "read_me"])


@given(
    tools=st.lists(_ELEMENTS, max_size=5),
    more=st.dictionaries(st.text(alphabet="nextCursor_\u00e9", max_size=5), _JSON, max_size=2),
    indent=st.none() | st.just(2),
    ascii_only=st.booleans(),
)
def test_a_message_loses_what_is_hidden_and_nothing_else(
    tools: list[object], more: dict[str, object], indent: int | None, ascii_only: bool
) -> None:
    """For any list and any other members: the result is the message without the hidden elements,
    and the same bytes where nothing is hidden.
    """
    result = {**more, "tools": tools, "nextCursor": "é"}
    message = {"jsonrpc": "2.0", "id": 7, "result": result}
    body = json.dumps(message, indent=indent, ensure_ascii=ascii_only).encode()
    sent = ListMessage(body, EVERY)
    found = sent.filtered(lambda _, name: name == "read_me")
    kept = [each for each in tools if isinstance(each, dict) and each.get("name") == "read_me"]
    message["result"] = {**more, "tools": kept, "nextCursor": "é"}
    assert json.loads(found.body) == message
    assert list(json.loads(found.body)["result"]) == list(result)
    assert found.hidden == len(tools) - len(kept)
    assert [json.loads(each.raw) for each in sent.definitions] == tools
    if not found.hidden:
        assert found.body == body


def test_every_other_byte_stays() -> None:
    """Blanks, escapes, long numbers, unknown members and the cursor are left as they are."""
    one, two = b'{"name":"a", "x":1.50e0}', b'{ "name" : "\\u0062" }'
    body = b'{ "id":1,"result" : {"tools": [%s , %s\n,{}],"nextCursor":"\\u00e9","_meta":{}}}\n'
    sent = ListMessage(body % (one, two), [TOOLS])
    assert sent.filtered(lambda _, name: name == "b").body == (
        b'{ "id":1,"result" : {"tools": [%s],"nextCursor":"\\u00e9","_meta":{}}}\n' % two
    )
    assert sent.definitions == (
        Definition(TOOLS, "a", one), Definition(TOOLS, "b", two), Definition(TOOLS, None, b"{}"),
    )  # fmt: skip


@pytest.mark.attack("list-of-another-person")
@pytest.mark.parametrize("said", [b'"public"', b'"PUBLIC"', b"null", b'{"a":1}'])
def test_a_filtered_list_is_private(said: bytes) -> None:
    """MCP 2026-07-28: a cache may show a `public` result to anybody. Nothing else is changed, and
    nothing of a result that holds no list.
    """
    body = b'{"result":{ "cacheScope" :%s, "tools":[{"name":"a"},{"name":"b"}],"ttlMs":1}}'
    found = ListMessage(body % said, EVERY).filtered(lambda _, name: name == "a").body
    assert found == b'{"result":{ "cacheScope" :"private", "tools":[{"name":"a"}],"ttlMs":1}}'
    assert ListMessage(found, EVERY).filtered(lambda *_: True).body is found
    silent = b'{"result":{ "ttlMs":1,"tools":[{"name":"a"},{"name":"b"}]}}'
    found = ListMessage(silent, EVERY).filtered(lambda _, name: name == "a").body
    assert found == b'{"result":{"cacheScope":"private", "ttlMs":1,"tools":[{"name":"a"}]}}'
    assert ListMessage(found, EVERY).filtered(lambda *_: True).body is found
    other = b'{"result":{"contents":[],"cacheScope":%s}}' % said
    assert ListMessage(other, EVERY).filtered(lambda *_: True).body is other


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":7,"error":{"code":-32600,"message":"tools"}}',
        b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}',
        b'{"jsonrpc":"2.0","id":7,"result":{}}',
        b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text"}]}}',
        b'{"jsonrpc":"2.0","id":7,"result":"tools"}',
    ],
)
def test_what_has_no_list_passes(body: bytes) -> None:
    """Errors, notifications and other results are the same bytes."""
    assert ListMessage(body, EVERY).filtered(lambda *_: False).body == body


@pytest.mark.attack("list-unfiltered")
@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", ListFault.UNREADABLE),
        (b'{"result":{"tools":[]}', ListFault.UNREADABLE),
        (b'[{"result":{"tools":[{"name":"x"}]}}]', ListFault.UNREADABLE),
        (b'{"result":{"tools":[]},"result":{"tools":[{}]}}', ListFault.UNREADABLE),
        (b'{"result":{"tools":[],"tools":[{}]}}', ListFault.UNREADABLE),
        (b'{"result":{"tools":[{"name":"x","name":"y"}]}}', ListFault.UNREADABLE),
        (b'{"result":{"tools":[]}}{"result":{"tools":[{}]}}', ListFault.UNREADABLE),
        (b'\xef\xbb\xbf{"result":{"tools":[{}]}}', ListFault.UNREADABLE),
        ('{"result":{"tools":[{}]}}'.encode("utf-16"), ListFault.UNREADABLE),
        (b'{"result":{"tools":[NaN]}}', ListFault.UNREADABLE),
        (b'{"result":{"tools":' + b"[" * 100 + b"]" * 100 + b"}}", ListFault.UNREADABLE),
        (b'{"Result":{"tools":[{}]}}', ListFault.AMBIGUOUS),
        (b'{"result":{"Tools":[{}]}}', ListFault.AMBIGUOUS),
        (b'{"result":{"tool\\u017f":[{}]}}', ListFault.AMBIGUOUS),
        (b'{"result":{"tools\\u0000":[{}]}}', ListFault.AMBIGUOUS),
        (b'{"result":{"tools":[],"CacheScope":"public"}}', ListFault.AMBIGUOUS),
        ('{"result":{"\uff54ools":[{}]}}'.encode(), ListFault.AMBIGUOUS),
        (b'{"result":{"tools":{"0":{"name":"x"}}}}', ListFault.NO_LIST),
        (b'{"result":{"tools":null}}', ListFault.NO_LIST),
        (b'{"result":{"tools":[' + b"7," * 10_000 + b"7]}}", ListFault.TOO_LARGE),
    ],
)
def test_what_cannot_be_filtered_is_an_error(body: bytes, fault: ListFault) -> None:
    """A reader that is more lenient than this one finds no list that this one overlooked."""
    with pytest.raises(ListError) as caught:
        ListMessage(body, EVERY)
    assert caught.value.fault is fault


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_message_or_an_error(body: bytes) -> None:
    """Nothing but ListError is raised, for whatever a server sends."""
    try:
        ListMessage(body, EVERY)
    except ListError as error:
        assert error.fault in ListFault  # noqa: PT017 - either outcome is right


def test_the_message_kind_of_a_call_is_a_request() -> None:
    """What is evaluated is a request, as the call is."""
    of = server(tools={"x": Rule()})
    message = Message(MessageKind.REQUEST, "tools/call", 0, "x", None)
    assert evaluate(of, principal(), policy(of), message).refused is None


def test_an_error_takes_the_place_of_a_list() -> None:
    """It is a response to the request, with the id as it came."""
    answer = json.loads(not_shown('"a\\u00e9"', "2f1f"))
    assert (answer["id"], answer["error"]["data"]["request_id"]) == ("aé", "2f1f")
    assert "result" not in answer
