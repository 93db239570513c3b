"""Where tools are named, methods are an allow-list; a tool's work is judged by all tools."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.approval import Approval
from authz.core.decision import BearerRequest, Deny, PendingDecision, authorize, read
from authz.core.limits import Limit
from authz.core.methods import LISTEN, METHODS, NOTIFICATIONS, TOOLS_CALL
from authz.core.policy import DeclaredClient, Policy, Rule, Server, TokenKind
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.second_factor import Evidence, Method, SecondFactor
from tests.support.values import LIMIT, NOW, call, policy, principal, request, rpc, server

NAMED = server(tools={"read_*": Rule(), "delete_*": Rule(scopes=frozenset({"mcp:write"}))})
PLAIN = server()
CONTINUED = sorted(name for name, each in METHODS.items() if each.continues)
# Every other method of MCP that clients send as a request.
OTHERS = sorted(
    name
    for name, each in METHODS.items()
    if each.by_client and not each.continues and not each.is_notification and name != TOOLS_CALL
)
UNKNOWN = ["tools/invoke", "tools/run", "x-custom/run", "tasks/resume", "call", "task/result"]
FROM_SERVERS = sorted(name for name, each in METHODS.items() if not each.by_client)


def judged(body: bytes, where: Server, who: Principal | None = None) -> PendingDecision | Deny:
    rules = policy(where)
    found = read(request(body), rules)
    assert isinstance(found, BearerRequest)
    return authorize(found, principal() if who is None else who, rules, NOW)


def reason(body: bytes, where: Server, who: Principal | None = None) -> Reason | None:
    found = judged(body, where, who)
    return found.reason if isinstance(found, Deny) else None


def sent(method: str) -> bytes:
    named = METHODS[method].named if method in METHODS else None
    return rpc(method, **({} if named is None else {named: "thing"}))


def notification(name: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": NOTIFICATIONS + name}).encode()


@pytest.mark.attack("unknown-method")
@pytest.mark.parametrize("method", [*UNKNOWN, *FROM_SERVERS])
def test_where_tools_are_named_other_methods_are_refused(method: str) -> None:
    """A method that MCP clients do not send may be another way to a tool."""
    assert reason(sent(method), NAMED) is Reason.METHOD_NOT_OFFERED
    assert reason(sent(method), PLAIN) is None
    assert reason(sent(method), replace(NAMED, methods=frozenset({method}))) is None


@pytest.mark.attack("unknown-method")
@pytest.mark.parametrize("name", ["custom", "tools/run", "message", "elicitation/complete"])
def test_so_are_other_notifications(name: str) -> None:
    """What has no answer can do as much as what has one."""
    named = replace(NAMED, methods=frozenset({NOTIFICATIONS + name}))

    assert reason(notification(name), NAMED) is Reason.METHOD_NOT_OFFERED
    assert reason(notification(name), PLAIN) is None
    assert reason(notification(name), named) is None


@pytest.mark.parametrize("method", OTHERS)
def test_the_methods_of_mcp_go_on(method: str) -> None:
    """What MCP clients send and is about no tool is judged by the server's rule."""
    assert reason(sent(method), NAMED) is None


@pytest.mark.parametrize("name", ["initialized", "cancelled", "progress", "roots/list_changed"])
def test_its_notifications_go_on(name: str) -> None:
    """So are the notifications of clients, and responses to servers."""
    assert reason(notification(name), NAMED) is None
    assert reason(b'{"jsonrpc":"2.0","id":1,"result":{}}', NAMED) is None


@pytest.mark.attack("tasks-of-a-protected-tool")
@pytest.mark.parametrize("method", CONTINUED)
def test_a_tools_work_asks_for_what_every_tool_asks(method: str) -> None:
    """Nobody here knows of which tool a task is, so the strictest of them counts."""
    found = judged(sent(method), NAMED)

    assert isinstance(found, Deny)
    assert found.reason is Reason.INSUFFICIENT_SCOPE
    assert found.scopes == {"mcp:write"}
    both = principal(scopes=frozenset({"mcp:files", "mcp:write"}))
    assert reason(sent(method), NAMED, both) is None
    assert reason(sent(method), PLAIN) is None
    # The operator's word: the server behind looks to it itself.
    assert reason(sent(method), replace(NAMED, methods=frozenset({method}))) is None


CHANGES = {
    "toolsListChanged": True,
    "promptsListChanged": False,
    "resourcesListChanged": True,
    "resourceSubscriptions": ["file:///a"],
}


def test_listening_for_changes_is_about_no_tool() -> None:
    """What MCP itself tells of to who listens holds no result of a tool."""
    assert reason(rpc(LISTEN, notifications=CHANGES), NAMED) is None
    assert reason(rpc(LISTEN), NAMED) is None


@pytest.mark.attack("tasks-of-a-protected-tool")
@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"notifications": {"taskIds": ["t1"]}}, id="tasks"),
        pytest.param({"notifications": {**CHANGES, "taskIds": []}}, id="tasks-beside-changes"),
        pytest.param({"notifications": {"TASKIDS": ["t1"]}}, id="in-another-case"),
        pytest.param({"notifications": {"all": True}}, id="what-nobody-knows"),
        pytest.param({"notifications": ["taskIds"]}, id="no-object"),
        pytest.param({"notifications": CHANGES, "taskIds": ["t1"]}, id="beside-the-filter"),
    ],
)
def test_listening_for_tasks_asks_for_what_every_tool_asks(params: dict[str, object]) -> None:
    """Who listens for a task is sent it whole, with its result, as tasks/get would answer."""
    found = judged(rpc(LISTEN, **params), NAMED)

    assert isinstance(found, Deny)
    assert found.reason is Reason.INSUFFICIENT_SCOPE
    assert found.scopes == {"mcp:write"}
    both = principal(scopes=frozenset({"mcp:files", "mcp:write"}))
    assert reason(rpc(LISTEN, **params), NAMED, both) is None
    assert reason(rpc(LISTEN, **params), PLAIN) is None
    assert reason(rpc(LISTEN, **params), replace(NAMED, methods=frozenset({LISTEN}))) is None


@pytest.mark.attack("tasks-of-a-protected-tool")
@pytest.mark.parametrize("limits", [(), (LIMIT,)])
@pytest.mark.parametrize("method", [*CONTINUED, LISTEN])
def test_no_machine_follows_the_work_that_a_person_approves(
    method: str, limits: tuple[Limit, ...]
) -> None:
    """It is refused as its call is; a person, who has approved the call, is not asked again."""
    where = replace(
        server(tools={"pay": Rule(limits=limits, approval=Approval())}),
        machines=frozenset({"backup"}),
    )
    body = rpc(LISTEN, notifications={"taskIds": ["t"]}) if method == LISTEN else sent(method)
    robot = principal(subject=None, client_id="backup")
    rules = policy(where, DeclaredClient("backup", machine=True), DeclaredClient("claude"))
    for each in (rpc(TOOLS_CALL, name="pay"), body):
        found = read(request(each), rules)
        assert isinstance(found, BearerRequest)
        refused = authorize(found, robot, rules, NOW)
        assert isinstance(refused, Deny)
        assert refused.reason is Reason.MACHINE_NOT_ALLOWED
    mine = judged(body, where)
    assert isinstance(mine, PendingDecision)
    assert mine.query.approval is None
    assert not mine.query.takes


def test_asking_after_a_task_charges_no_limit_of_a_tool() -> None:
    """A client polls; what it polls for was charged when it began."""
    where = server(Rule(limits=(LIMIT,)), {"x": Rule(limits=(replace(LIMIT, name="t"),))})
    found = judged(sent("tasks/get"), where)

    assert isinstance(found, PendingDecision)
    assert [take.limit for take in found.query.takes] == [LIMIT]


RULES = st.builds(
    Rule,
    scopes=st.sets(st.sampled_from(["mcp:files", "mcp:write"])).map(frozenset),
    groups=st.none() | st.sampled_from([frozenset({"a"}), frozenset({"b"}), frozenset({"a", "b"})]),
    second_factor=st.none()
    | st.builds(
        SecondFactor,
        st.sampled_from([Method.ANY, Method.TOTP]),
        st.none() | st.sampled_from([60, 3600]),
        st.sets(st.sampled_from(Evidence), min_size=1).map(frozenset),
    ),
    tokens=st.sampled_from([frozenset(TokenKind), frozenset({TokenKind.JWT})]),
    confirm=st.booleans(),
)
PEOPLE = st.builds(
    principal,
    subject=st.none() | st.just("john"),
    scopes=st.sets(st.sampled_from(["mcp:files", "mcp:write"])).map(frozenset),
    groups=st.sets(st.sampled_from(["a", "b"])).map(frozenset),
    amr=st.none() | st.just(frozenset({"pwd", "mfa"})) | st.just(frozenset({"pwd", "otp", "mfa"})),
    auth_time=st.none() | st.just(int(NOW) - 600),
    opaque=st.booleans(),
)


@given(
    rule=RULES,
    tools=st.dictionaries(st.sampled_from(["read_x", "delete_x", "*_x", "?*"]), RULES, min_size=1),
    who=PEOPLE,
    method=st.sampled_from(CONTINUED),
)
@pytest.mark.attack("tasks-of-a-protected-tool")
def test_a_tools_work_never_passes_where_some_tool_would_not(
    rule: Rule, tools: dict[str, Rule], who: Principal, method: str
) -> None:
    """Whoever may ask after any task may call every tool that is named, with no more proof."""
    where = server(rule, tools)
    found = judged(sent(method), where, who)
    if isinstance(found, Deny):
        return
    for tool in ("read_x", "delete_x"):
        one = judged(call(tool), where, who)
        if isinstance(one, Deny):
            assert one.reason is Reason.TOOL_NOT_ALLOWED
            continue
        assert one.confirm_since is None or found.confirm_since is not None
        need, asked = one.query.step_up, found.query.step_up
        if need is not None:
            assert asked is not None
            assert asked.method & need.method == need.method
            if need.max_login_age is not None:
                assert asked.max_login_age is not None
                assert asked.max_login_age <= need.max_login_age


@given(
    method=st.from_regex(r"[a-z]{1,8}(/[a-z_]{1,8}){0,2}", fullmatch=True)
    | st.sampled_from([*METHODS, *UNKNOWN]),
    named=st.sets(st.sampled_from(UNKNOWN)).map(frozenset),
)
def test_no_method_passes_that_no_table_names(method: str, named: frozenset[str]) -> None:
    """With tools named, a request passes only by MCP's table or the server's own list."""
    if method in METHODS and METHODS[method].is_notification:
        return
    passed = reason(sent(method), replace(NAMED, methods=named)) is None

    known = METHODS.get(method)
    by_table = known is not None and known.by_client and not known.continues
    if passed:
        assert method != TOOLS_CALL
        assert by_table or method in named


def test_a_policy_without_tools_is_as_before() -> None:
    """Where tools are not named every tool is as good as the server, and so is every method."""
    rules: Policy = policy(PLAIN)
    assert not rules.servers["files"].tools
    assert all(reason(sent(method), PLAIN) is None for method in (*UNKNOWN, *CONTINUED))
