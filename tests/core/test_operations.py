"""Prompts, resources and arguments under rules: what a message is about decides what applies."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.conditions import Condition, Given, OneOf, Outcome, Under, Within, judge
from authz.core.decision import BearerRequest, Deny, PendingDecision, authorize, read
from authz.core.detail import Detail
from authz.core.evaluation import Match, could_be_allowed, select
from authz.core.identity_cache import IdentityCache
from authz.core.json_pointer import parse
from authz.core.limits import Limit, Per, bucket_id
from authz.core.mcp import read as read_message
from authz.core.methods import COMPLETE, LISTEN, METHODS
from authz.core.operations import (
    MAX_SUBSCRIBED,
    MAX_SUBSCRIPTIONS,
    Operation,
    UnreadableOperationError,
    operations,
)
from authz.core.policy import DeclaredClient, OperationKind, OperationRule, Rule, RuleTarget, Server
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.second_factor import Method, SecondFactor
from tests.support.values import (
    LIMIT,
    NOW,
    front_door,
    login_record,
    policy,
    principal,
    request,
    rpc,
    server,
    visitor,
)

TOOL, PROMPT, RESOURCE = OperationKind.TOOL, OperationKind.PROMPT, OperationKind.RESOURCE
WRITE = Rule(scopes=frozenset({"mcp:write"}))
UNDER = Condition(parse("/path"), Under("/data"))
SMALL = Condition(parse("/amount"), Within(most=100))
LARGE = Condition(parse("/amount"), Within(above=100))
TOTP = SecondFactor(Method.TOTP)


def rules(*pairs: tuple[str, Rule]) -> tuple[OperationRule, ...]:
    return tuple(OperationRule(pattern, rule) for pattern, rule in pairs)


NAMED = replace(
    server(),
    tools=rules(
        ("delete_file", Rule(when=(UNDER,))),
        ("transfer", Rule(when=(SMALL,))),
        ("transfer", Rule(when=(LARGE,), second_factor=TOTP)),
        ("read_*", Rule()),
    ),
    prompts=rules(("review_*", Rule()), ("secret", WRITE), ("ask", Rule(when=(SMALL,)))),
    resources=rules(("file:///public/*", Rule()), ("note://secret/*", WRITE), ("note://a", Rule())),
)


def judged(
    body: bytes,
    where: Server = NAMED,
    who: Principal | None = None,
    cache: IdentityCache | None = None,
) -> PendingDecision | Deny:
    by = policy(where)
    found = read(request(body), by)
    assert isinstance(found, BearerRequest)
    return authorize(found, principal() if who is None else who, by, NOW, cache)


def refusal(body: bytes, where: Server = NAMED) -> tuple[Reason, str] | None:
    found = judged(body, where)
    return (found.reason, found.detail) if isinstance(found, Deny) else None


def reason(body: bytes, where: Server = NAMED) -> Reason | None:
    found = refusal(body, where)
    return None if found is None else found[0]


def prompt(name: str, **arguments: object) -> bytes:
    return rpc("prompts/get", name=name, arguments=arguments)


def tool(name: str, /, **arguments: object) -> bytes:
    return rpc("tools/call", name=name, arguments=arguments)


def completion(**ref: object) -> bytes:
    return rpc(COMPLETE, ref=ref, argument={"name": "a", "value": "b"})


def listen(*uris: object, **more: object) -> bytes:
    return rpc(LISTEN, notifications={"resourceSubscriptions": list(uris)} | more)


# --- which rules apply ---------------------------------------------------------------------------


def test_every_method_of_a_client_that_names_a_thing_is_read() -> None:
    """Whatever repeats a name or URI in Mcp-Name is about a tool, prompt or resource."""
    for method in METHODS.values():
        if method.by_client and method.named in {"name", "uri"}:
            body = rpc(method.name, **{method.named: "note://a"})
            message = read_message(body, {"content-type": "application/json"}, max_body=1 << 20)
            (found,) = operations(message)
            assert found.name == "note://a"


@pytest.mark.parametrize(
    "method", ["resources/read", "resources/subscribe", "resources/unsubscribe"]
)
def test_resources_are_named_by_uri(method: str) -> None:
    """The rule of every pattern that matches applies, to reading and to subscriptions."""
    assert reason(rpc(method, uri="file:///public/a/b.txt")) is None
    assert reason(rpc(method, uri="note://secret/a")) is Reason.INSUFFICIENT_SCOPE
    assert refusal(rpc(method, uri="file:///etc/passwd")) == (
        Reason.RESOURCE_NOT_ALLOWED,
        Detail.NO_RESOURCE_RULE,
    )


@pytest.mark.attack("resources")
@pytest.mark.parametrize(
    "uri",
    [
        "file:///public/../etc/passwd", "file:///public/%2e%2e/etc/passwd",
        "file:///public/..%2Fetc",
        "file:///public/a%252f..", "FILE:///public/a", "file:///public/a#b", "file:///public//a",
        "file:///public/a\\..\\b", "file:///public/\u00e9", "note://a@secret/a",
    ],
)  # fmt: skip
def test_a_uri_in_another_spelling_is_refused_where_resources_are_named(uri: str) -> None:
    """It is not repaired, and elsewhere it is the server's own business."""
    for body in (
        rpc("resources/read", uri=uri),
        listen(uri),
        completion(type="ref/resource", uri=uri),
    ):
        assert refusal(body) == (Reason.RESOURCE_NOT_ALLOWED, Detail.LOOSE_URI)
        assert refusal(body, replace(NAMED, resources=())) is None


def test_prompts_are_named() -> None:
    """As tools are; a completion is judged by the prompt that it is for."""
    assert reason(prompt("review_code")) is None
    assert refusal(prompt("other")) == (Reason.PROMPT_NOT_ALLOWED, Detail.NO_PROMPT_RULE)
    assert reason(prompt("secret")) is Reason.INSUFFICIENT_SCOPE
    assert reason(completion(type="ref/prompt", name="review_code")) is None
    assert reason(completion(type="ref/prompt", name="other")) is Reason.PROMPT_NOT_ALLOWED
    assert reason(completion(type="ref/prompt", name="secret")) is Reason.INSUFFICIENT_SCOPE


def test_a_completion_of_a_template_is_judged_by_its_text() -> None:
    """A template that could become any file is not below a folder."""
    assert reason(completion(type="ref/resource", uri="file:///public/{name}")) is None
    assert reason(completion(type="ref/resource", uri="file:///{+path}")) is (
        Reason.RESOURCE_NOT_ALLOWED
    )
    assert reason(completion(type="ref/resource", uri="note://secret/{id}")) is (
        Reason.INSUFFICIENT_SCOPE
    )


# A protected place within an open one.
ROOMS = replace(
    NAMED,
    prompts=(),
    resources=rules(("note://*", Rule()), ("note://secret/*", WRITE), ("file:///public/*", Rule())),
)


def filled(uri: str, argument: object, **context: object) -> bytes:
    return rpc(
        COMPLETE, ref={"type": "ref/resource", "uri": uri}, argument=argument, **context
    )  # fmt: skip


@pytest.mark.attack("resources")
@pytest.mark.parametrize(
    ("uri", "value", "before", "allowed"),
    [
        ("note://{room}/{id}", "", {"room": "other"}, True),
        ("note://{room}/{id}", "", {"room": "secret"}, False),
        ("note://{room}/{id}", "a", {"room": "secret"}, False),
        ("note://{room}{/id}", "a", {"room": "secret"}, False),
        ("note://{+room}/{id}", "", {"room": "secret/a"}, False),
        ("note://{room}/{id}", "", {"room": "secret/a"}, False),
        ("note://{room}/{id}", "", {"room": "Secret"}, False),
        ("note://{room}/{id}", "", {"room": "\u017fecret"}, False),
        ("note://{room}/{id}", "", {"room": "x/../secret"}, False),
        ("note://{room:6}/{id}", "", {"room": "secretx"}, False),
        ("note://s{a}{b}/{id}", "", {"a": "ecr", "b": "et"}, False),
        ("file:///public/{+id}", "a/b", {}, True),
        ("file:///public/{id}", "a b", {}, True),
        ("file:///public/{+id}", "../etc/", {}, False),
        ("file:///public/{id}", "../etc", {}, False),
        ("file:///public/{id}", "..\\etc", {}, False),
        ("file:///public/{id}", "%2e%2e/etc", {}, False),
        ("file:///public/{id}", "\uff0e\uff0e/etc", {}, False),
        ("file:///public/a{?id,q}", "x", {}, True),
        ("file:///public/a{;id}", "x", {}, True),
        ("file:///public/a{#id}", "x", {}, True),
    ],
)
def test_a_completion_of_a_template_is_judged_as_its_arguments_fill_it_in(
    uri: str, value: str, before: dict[str, str], allowed: bool
) -> None:
    """A protected place is not asked after by way of a template of all places."""
    body = filled(uri, {"name": "id", "value": value}, context={"arguments": before})
    assert (reason(body, ROOMS) is None) is allowed
    assert reason(body, replace(NAMED, resources=())) is None


@pytest.mark.attack("resources")
@pytest.mark.parametrize(
    "uri", ["note://x{" + ",".join(["a"] * 3000) + "}", "note://x" + "{a}" * 2000]
)
@pytest.mark.parametrize("length", [100, 8192, 1 << 19])
def test_a_template_that_grows_is_not_filled_in(uri: str, length: int) -> None:
    """Three thousand times a megabyte would be all the memory there is: refused before."""
    body = filled(uri, {"name": "a", "value": "x" * length})
    assert reason(body, ROOMS) is Reason.RESOURCE_NOT_ALLOWED


@pytest.mark.attack("resources")
@pytest.mark.parametrize(
    ("argument", "context"),
    [
        ({"name": "id", "value": "", "Value": "secret"}, {}),
        ({"name": "id", "value": 7}, {}),
        ({"value": ""}, {}),
        ("id", {}),
        ({"name": "id", "value": "a"}, {"arguments": {"id": "b"}}),
        ({"name": "id", "value": ""}, {"arguments": {"room": ["secret"]}}),
        ({"name": "id", "value": ""}, {"arguments": {"room": "a", "Room": "secret"}}),
        ({"name": "Room", "value": "secret"}, {"arguments": {"room": "a"}}),
        ({"name": "id", "value": ""}, {"Arguments": {"room": "secret"}}),
        ({"name": "id", "value": ""}, {"arguments": []}),
        ({"name": "id", "value": ""}, []),
    ],
)
def test_arguments_of_a_completion_that_could_be_read_differently(
    argument: object, context: object
) -> None:
    """What fills a template in cannot be told: refused."""
    body = filled("note://{room}/{id}", argument, context=context)
    assert refusal(body, ROOMS) == (Reason.RESOURCE_NOT_ALLOWED, Detail.OPERATION_UNREADABLE)


@pytest.mark.attack("resources")
@pytest.mark.parametrize(
    "ref",
    [
        None, [], {}, {"type": "ref/tool", "name": "x"}, {"type": "ref/prompt"},
        {"type": "ref/resource"},
        {"type": ["ref/prompt"], "name": "review_a"}, {"type": "ref/prompt", "name": ""},
        {"type": "ref/prompt", "name": " review_a"},
        {"type": "ref/prompt", "name": "review_\u200b"},
        {"type": "ref/prompt", "name": "review_a", "Name": "secret"},
        {"type": "ref/prompt", "name": "review_a", "uri": "note://secret/a"},
        {"type": "ref/resource", "name": "review_a", "uri": "file:///public/a"},
        {"type": "ref/prompt", "Type": "ref/resource", "name": "review_a"},
        {"type": "ref/prompt", "name": "review_" + "a" * 300},
        {"Type": "ref/prompt", "name": "review_a"},
        {"type": "ref/prompt", "name": "review_a", "_name": "secret"},
        {"type": "ref/prompt", "name": "review_a", "ty-pe": "ref/resource", "uri": "file:///etc"},
    ],
)  # fmt: skip
def test_a_completion_that_does_not_say_what_it_is_for_is_refused(ref: object) -> None:
    """Where prompts or resources are named; elsewhere it is as good as the server."""
    body = rpc(COMPLETE, ref=ref, argument={})
    assert refusal(body) == (Reason.PROMPT_NOT_ALLOWED, Detail.OPERATION_UNREADABLE)
    assert reason(body, server(tools={"x": Rule()})) is None


def test_every_subscription_of_a_listener_is_judged() -> None:
    """One that no rule lets pass refuses all; all rules of all of them apply."""
    assert reason(listen()) is None
    assert reason(listen("note://a", "file:///public/a")) is None
    assert reason(listen("note://a", "note://secret/a")) is Reason.INSUFFICIENT_SCOPE
    assert reason(listen("note://a", "file:///etc/a")) is Reason.RESOURCE_NOT_ALLOWED
    assert reason(rpc(LISTEN, notifications={"toolsListChanged": True})) is None


@pytest.mark.attack("resources")
@pytest.mark.parametrize(
    "params",
    [
        {"notifications": {"resourceSubscriptions": "note://a"}},
        {"notifications": {"resourceSubscriptions": {"uri": "file:///etc"}}},
        {"notifications": {"resourceSubscriptions": [["file:///etc"]]}},
        {"notifications": {"ResourceSubscriptions": ["file:///etc"]}},
        {"notifications": {"resourcesubscriptions": ["file:///etc"]}},
        {"notifications": {"resourceSubscription\u017f": ["file:///etc"]}},
        {"notifications": {"resourceTemplates": ["file:///{+x}"]}},
        {"notifications": ["file:///etc"]},
        {"Notifications": {"resourceSubscriptions": ["file:///etc"]}},
        {"notifications": {"resourceSubscriptions": ["note://a"] * (MAX_SUBSCRIPTIONS + 1)}},
        {"notifications": {"resourceSubscriptions": ["note://a/" + "a" * 8000] * 3}},
    ],
)  # fmt: skip
def test_a_listener_that_could_name_resources_otherwise_is_refused(
    params: dict[str, object],
) -> None:
    """Whatever another parser could take for subscriptions is read here, or refused."""
    body = rpc(LISTEN, **params)
    found = reason(body, replace(NAMED, tools=()))
    unread = "Notifications" in params  # is refused before anybody looks for resources
    expected = Reason.MALFORMED_JSON if unread else Reason.RESOURCE_NOT_ALLOWED
    assert found is expected
    # So it is where the operator lets tasks be listened for by the server's rule alone.
    declared = replace(NAMED, methods=frozenset({LISTEN}))
    assert reason(body, declared) is expected
    assert MAX_SUBSCRIBED < 3 * 8000


def test_a_listener_for_tasks_meets_the_rules_of_tools_and_of_its_resources() -> None:
    """Neither takes the other's place."""
    body = listen("note://a", taskIds=["1"])
    where = replace(NAMED, tools=rules(("x", WRITE)))
    assert reason(body, where) is Reason.INSUFFICIENT_SCOPE
    assert reason(body, replace(where, methods=frozenset({LISTEN}))) is None
    assert reason(listen("note://b", taskIds=["1"]), where) is Reason.RESOURCE_NOT_ALLOWED


@pytest.mark.attack("unknown-method")
@pytest.mark.parametrize("kind", ["prompts", "resources"])
def test_where_anything_is_named_unknown_methods_are_refused(kind: str) -> None:
    """They may be another way to a prompt or resource."""
    where = replace(server(), **{kind: rules(("note:x", Rule()))})  # type: ignore[arg-type]
    assert reason(rpc("resources/fetch", uri="file:///etc"), where) is Reason.METHOD_NOT_OFFERED
    assert reason(rpc("tools/list"), where) is None
    # Kinds that are not named are as good as the server.
    assert reason(tool("any"), where) is None
    assert reason(rpc("tasks/get", taskId="1"), where) is None


def test_what_asks_after_a_thing_is_not_charged_as_its_use() -> None:
    """A limit of a prompt or resource counts uses; the server's counts everything."""
    own = Limit("own", Per.USER, quota=1, window=60, place="files#prompts:p")
    limited = Rule(limits=(own,))
    where = replace(
        server(Rule(limits=(LIMIT,))),
        prompts=rules(("p", limited)),
        resources=rules(("note://a", limited)),
    )
    charged = {
        name: _limits(judged(body, where))
        for name, body in {
            "get": prompt("p"), "read": rpc("resources/read", uri="note://a"),
            "complete": completion(type="ref/prompt", name="p"), "listen": listen("note://a"),
            "subscribe": rpc("resources/subscribe", uri="note://a"),
        }.items()
    }  # fmt: skip
    assert charged["get"] == charged["read"] == (LIMIT, own)
    assert charged["complete"] == charged["listen"] == charged["subscribe"] == (LIMIT,)


def _limits(found: PendingDecision | Deny) -> tuple[Limit, ...]:
    assert isinstance(found, PendingDecision)
    return tuple(take.limit for take in found.query.takes)


@pytest.mark.attack("arguments")
@pytest.mark.parametrize("member", ["Arguments", "ARGUMENTS", "_arguments"])
def test_arguments_under_another_name_are_not_absent(member: str) -> None:
    """What a server reads as arguments neither misses a rule that asks for more nor is given."""
    where = replace(
        server(),
        tools=rules(
            ("pay", Rule()),
            ("pay", Rule(when=(LARGE,), groups=frozenset({"treasury"}))),
            ("drop", Rule(when=(Condition(parse("/force"), Given(False)),))),
        ),
    )
    assert reason(tool("pay", amount=1000), where) is Reason.PERSON_NOT_ALLOWED
    assert reason(tool("drop", force=True), where) is Reason.ARGUMENTS_NOT_ALLOWED
    assert reason(tool("drop"), where) is None
    for name, arguments in (("pay", {"amount": 1000}), ("drop", {"force": True})):
        body = rpc("tools/call", name=name, **{member: arguments})
        assert reason(body, where) is Reason.MALFORMED_JSON


def test_a_machine_needs_a_rule_without_people() -> None:
    """As with tools: groups of a prompt or resource are asked of it, and it has none."""
    where = replace(
        NAMED,
        machines=frozenset({"claude"}),
        prompts=rules(("p", Rule(groups=frozenset({"staff"})))),
    )
    by = replace(policy(where), clients={"claude": DeclaredClient("claude", machine=True)})
    found = read(request(prompt("p")), by)
    assert isinstance(found, BearerRequest)
    refused = authorize(found, principal(subject=None), by, NOW)
    assert isinstance(refused, Deny)
    assert refused.detail == Detail.OPERATION_ASKS_FOR_PERSON


# --- places of limits ----------------------------------------------------------------------------

PATTERNS = st.text(alphabet="a:#/*", min_size=1, max_size=4)


PLACES = st.tuples(
    st.sampled_from(OperationKind),
    PATTERNS.map(lambda text: text.replace("#", "")),
    st.integers(0, 2),
)


@given(st.lists(PLACES, min_size=2, max_size=2, unique=True))
def test_no_two_rules_count_in_one_place(
    two: list[tuple[OperationKind, str, int]],
) -> None:
    """A tool, a prompt and a resource of one pattern have buckets of their own."""
    places = {RuleTarget("files", Rule(), *each).place for each in two if each[1]}
    assert len(places) == len([each for each in two if each[1]])
    buckets = {bucket_id(replace(LIMIT, place=each), principal(), "") for each in places}
    assert len(buckets) == len(places)


def test_places_of_tools_are_what_they_were() -> None:
    """Redis keeps counts by them."""
    assert RuleTarget("files", Rule(), TOOL, "read_*").place == "files:read_*"
    assert RuleTarget("files", Rule()).place == "files"


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (tool("delete_file", path="/data/a"), None),
        (tool("delete_file", path="/etc/a"), Detail.NO_CONDITION_HOLDS),
        (tool("delete_file"), Detail.NO_CONDITION_HOLDS),
        (rpc("tools/call", name="delete_file"), Detail.NO_CONDITION_HOLDS),
        (tool("delete_file", path="/data/../etc/a"), Detail.ARGUMENT_NOT_JUDGED),
        (tool("delete_file", path=["/data/a"]), Detail.ARGUMENT_NOT_JUDGED),
        (tool("delete_file", path="/data/a", Path="/etc/a"), Detail.ARGUMENT_NOT_JUDGED),
        (tool("delete_file", Path="/data/a"), Detail.ARGUMENT_NOT_JUDGED),
        (rpc("tools/call", name="delete_file", arguments=None), Detail.ARGUMENT_NOT_JUDGED),
        (rpc("tools/call", name="delete_file", arguments="/data"), Detail.ARGUMENT_NOT_JUDGED),
        (tool("transfer", amount=100), None),
        (tool("transfer", amount=100.0), None),
        (tool("transfer", amount="100"), Detail.ARGUMENT_NOT_JUDGED),
        (tool("transfer", amount=True), Detail.ARGUMENT_NOT_JUDGED),
        (tool("transfer", amount=None), Detail.ARGUMENT_NOT_JUDGED),
        (tool("transfer", amount=10**20), Detail.ARGUMENT_NOT_JUDGED),
        (tool("transfer"), Detail.NO_CONDITION_HOLDS),
        (prompt("ask", amount=5), None),
        (prompt("ask", amount=500), Detail.NO_CONDITION_HOLDS),
    ],
)
@pytest.mark.attack("arguments")
def test_a_call_passes_where_a_rule_for_its_arguments_does(
    body: bytes, refused: Detail | None
) -> None:
    """What is missing meets no rule, what cannot be judged is refused: with or without a cache."""
    cache = IdentityCache()
    for _ in range(2):
        found = judged(body, cache=cache)
        if refused is None:
            assert isinstance(found, PendingDecision)
        else:
            assert isinstance(found, Deny)
            assert (found.reason, found.detail) == (Reason.ARGUMENTS_NOT_ALLOWED, refused)
    assert refusal(body) == (refused and (Reason.ARGUMENTS_NOT_ALLOWED, refused))


def test_an_amount_above_needs_what_its_rule_asks() -> None:
    """The rule that applies is the one for these arguments, and its demands are asked."""
    small, large = judged(tool("transfer", amount=100)), judged(tool("transfer", amount=100.01))
    assert isinstance(small, PendingDecision)
    assert small.query.step_up is None
    assert isinstance(large, PendingDecision)
    assert large.query.step_up is not None


def test_a_task_meets_the_rules_of_all_tools_whatever_their_conditions() -> None:
    """Nobody here knows the arguments of the call that began it."""
    found = judged(rpc("tasks/get", taskId="1"))
    assert isinstance(found, PendingDecision)
    assert found.query.step_up is not None


@pytest.mark.attack("arguments")
def test_a_rule_that_asks_for_more_is_not_escaped_by_another_kind() -> None:
    """Beside a rule for every call, an argument that cannot be judged refuses all the same."""
    where = replace(
        server(), tools=rules(("t", Rule()), ("t", Rule(when=(LARGE,), second_factor=TOTP)))
    )
    assert reason(tool("t", amount=1), where) is None
    assert reason(tool("t", amount="101"), where) is Reason.ARGUMENTS_NOT_ALLOWED
    assert reason(tool("t", amount=[101]), where) is Reason.ARGUMENTS_NOT_ALLOWED


CONDITIONS = st.sampled_from([
    (), (SMALL,), (LARGE,), (UNDER,), (Condition(parse("/kind"), OneOf(("a", True))), SMALL),
])  # fmt: skip
RULES = st.builds(
    Rule,
    scopes=st.sampled_from([frozenset(), frozenset({"mcp:files"}), frozenset({"mcp:write"})]),
    limits=st.sampled_from([(), (LIMIT,)]),
    when=CONDITIONS,
)
PATTERN = st.sampled_from(["t", "t*", "u", "*"])
ARGUMENTS = st.dictionaries(
    st.sampled_from(["amount", "path", "kind", "Amount"]),
    st.sampled_from([1, 500, "1", "/data/a", "/data/../b", "a", True, None]),
)
NAMING = st.lists(st.tuples(PATTERN, RULES), max_size=4)


@given(
    NAMING,
    st.sampled_from(["t", "tt", "u"]),
    ARGUMENTS,
    st.sampled_from(["tools/call", "prompts/get"]),
)
def test_the_rules_that_hold_apply_and_no_others(
    named: list[tuple[str, Rule]], name: str, arguments: Mapping[str, object], method: str
) -> None:
    """By the definition: every rule that matches and holds; refused where one is unreadable."""
    kind = {"tools/call": "tools", "prompts/get": "prompts"}[method]
    where = replace(server(), **{kind: rules(*named)})  # type: ignore[arg-type]
    body = rpc(method, name=name, arguments=dict(arguments))
    message = read_message(body, {"content-type": "application/json"}, max_body=1 << 20)
    found = select(where, message, None)
    of = OperationKind(kind)
    matching = [each.rule for each in where.matching(of, name)]
    outcomes = [judge(rule.when, message.arguments) for rule in matching]
    holding = [
        rule for rule, outcome in zip(matching, outcomes, strict=True) if outcome is Outcome.HOLDS
    ]

    if named and Outcome.UNREADABLE in outcomes:
        assert found.match is Match.ARGUMENT
    elif named and not matching:
        assert found.match is Match.NO_RULE
    elif named and not holding:
        assert found.match is Match.NO_CONDITION
    else:
        assert found.match is Match.MATCHED
        assert found.rules == (where.rule, *holding)
    refused = judged(body, where)
    if found.match is not Match.MATCHED:
        assert isinstance(refused, Deny)
    elif isinstance(refused, PendingDecision):
        # What passes could be listed.
        assert could_be_allowed(where, principal(), policy(where), of, name)
    if isinstance(refused, PendingDecision):
        assert frozenset().union(*(rule.scopes for rule in holding)) <= principal().scopes


@given(NAMING, RULES, st.sampled_from(["t", "tt", "u"]), ARGUMENTS)
def test_one_more_rule_for_some_arguments_lets_no_more_through_where_one_is_without(
    named: list[tuple[str, Rule]], more: Rule, name: str, arguments: Mapping[str, object]
) -> None:
    """Beside a rule without conditions any other one can only refuse."""
    before = replace(server(), tools=rules(("*", Rule()), *named))
    after = replace(server(), tools=rules(("*", Rule()), *named, ("*", more)))
    body = rpc("tools/call", name=name, arguments=dict(arguments))
    if reason(body, before) is not None:
        assert reason(body, after) is not None


@given(
    st.lists(
        st.tuples(st.sampled_from(["transfer", "delete_file", "read_x", "no"]), ARGUMENTS),
        max_size=30,
    )
)
def test_evaluations_are_no_more_than_sets_of_rules(
    calls: list[tuple[str, Mapping[str, object]]],
) -> None:
    """However many arguments callers choose, what is cached is bounded by the policy."""
    cache, who, by = IdentityCache(), principal(), policy(NAMED)
    for name, arguments in calls:
        found = read(request(tool(name, **arguments)), by)
        assert isinstance(found, BearerRequest)
        authorize(found, who, by, NOW, cache)
    # For each of four names its rules; for each set of rules and outcome a selection and an
    # evaluation, for some a query and buckets.
    assert len(cache) < 60


@pytest.mark.attack("resources")
def test_long_uris_are_not_cached() -> None:
    """Callers choose them, and there are many."""
    cache, who, by = IdentityCache(), principal(), policy(NAMED)
    for number in range(50):
        found = read(request(rpc("resources/read", uri=f"file:///public/{number}/{'a' * 300}")), by)
        assert isinstance(found, BearerRequest)
        authorize(found, who, by, NOW, cache)
    assert len(cache) < 10


# --- what a list shows ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "shown"),
    [
        (TOOL, "delete_file", True), (TOOL, "transfer", True), (TOOL, "no", False),
        (PROMPT, "review_a", True), (PROMPT, "secret", False), (PROMPT, "no", False),
        (RESOURCE, "note://a", True), (RESOURCE, "note://secret/a", False),
        (RESOURCE, "file:///public/{name}", True), (RESOURCE, "file:///public/../a", False),
        (RESOURCE, "file:///{+path}", False),
    ],
)  # fmt: skip
def test_a_list_shows_what_some_call_could_use(
    kind: OperationKind, name: str, *, shown: bool
) -> None:
    """Whatever its arguments; a missing step-up hides nothing, a missing scope does."""
    for cache in (None, IdentityCache()):
        by = policy(NAMED)
        assert could_be_allowed(NAMED, principal(), by, kind, name, cache=cache) is shown


def test_operations_say_what_they_are() -> None:
    """A use has its arguments judged; what asks after a thing has not."""
    body = json.loads(completion(type="ref/prompt", name="p"))
    message = read_message(
        json.dumps(body).encode(), {"content-type": "application/json"}, max_body=1 << 20
    )
    assert operations(message) == (Operation(PROMPT, "p", acts=False),)
    with pytest.raises(UnreadableOperationError):
        operations(replace(message, params={}))


def test_a_step_up_is_offered_for_what_was_refused() -> None:
    """The page says the prompt or the resource, of which a long URI is cut."""
    asked = Rule(second_factor=TOTP)
    where = replace(server(), prompts=rules(("p", asked)), resources=rules(("file:///*", asked)))
    by = replace(policy(where, DeclaredClient("claude")), front_door=front_door())
    for body, said in (
        (prompt("p"), ("p", "")),
        (rpc("resources/read", uri="file:///" + "a" * 900), ("", "file:///" + "a" * 248)),
    ):
        found = read(request(body), by)
        assert isinstance(found, BearerRequest)
        pending = authorize(found, visitor(login_record(amr=frozenset({"pwd"}))), by, NOW)
        assert isinstance(pending, PendingDecision)
        assert pending.offer is not None
        assert (pending.offer.tool, pending.offer.prompt, pending.offer.resource) == (None, *said)


def test_rules_of_other_kinds_cost_nothing() -> None:
    """However many tools are named, a subscription to many resources calls no more functions."""
    uris = [f"db://a/{number}" for number in range(100)]
    body = rpc(
        "subscriptions/listen",
        _meta={"io.modelcontextprotocol/protocolVersion": "2026-07-28"},
        notifications={"resourceSubscriptions": uris},
    )
    headers = {
        "content-type": "application/json",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "subscriptions/listen",
    }
    message = read_message(body, headers, max_body=1 << 20)

    def calls(tools: int) -> int:
        named = rules(*((f"t{number}", Rule()) for number in range(tools)))
        where = replace(server(), tools=named, resources=rules(("db://a/*", Rule())))
        counted = 0

        def count(frame: FrameType, event: str, __: object) -> None:
            nonlocal counted  # what a garbage collection calls is not of authz
            counted += event == "call" and "/authz/core/" in frame.f_code.co_filename

        sys.setprofile(count)
        try:
            found = select(where, message, None)
        finally:
            sys.setprofile(None)
        assert found.match is Match.MATCHED
        return counted

    calls(1)  # compiles what is compiled once
    assert calls(50) == calls(1)
