"""Costly calls: as how many requests a call counts in the limits that it shares with others."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.argument_cost import MAX_ARGUMENT_COST, ArgumentCost
from authz.core.conditions import Condition, Given, Within
from authz.core.decision import BearerRequest, Deny, PendingDecision, authorize
from authz.core.exchanges import Meter
from authz.core.identity_cache import IdentityCache
from authz.core.json_pointer import parse
from authz.core.limits import Limit, Per, Quota, charges
from authz.core.methods import Counts
from authz.core.policy import Rule
from authz.core.reason import Reason
from tests.support.values import NOW, policy, principal, request, rpc, server

EVERY = Limit("every", Per.USER, 1000, 60)
SHARED = Limit("shared", Per.USER, 500, 60, cost=2, place="files")
OWN = Limit("own", Per.USER, 100, 60, cost=3, place="files:search")


def charged(
    tools: Mapping[str, Rule],
    method: str = "tools/call",
    limits: tuple[Limit, ...] = (SHARED,),
    **params: object,
) -> list[int]:
    """Return what a request charges of each limit."""
    one = server(Rule(limits=limits), tools)
    named: dict[str, object] = {"name": "search", "arguments": {}}
    sent = request(rpc(method, rpc_id=7, **(named | params)))
    rules = policy(one, limits=(EVERY,))
    pending = authorize(BearerRequest(one, sent, "t"), principal(), rules, NOW)
    assert isinstance(pending, PendingDecision), pending
    return [each.cost for each in charges(pending.query.takes)]


def test_a_costly_call_is_as_many_requests() -> None:
    """In the limits of its server and of every request, by their own cost; its own have theirs."""
    assert charged({"search": Rule(limits=(OWN,))}) == [1, 2, 3]
    assert charged({"search": Rule(limits=(OWN,), cost=7)}) == [7, 14, 3]


@given(costs=st.lists(st.integers(1, 50), min_size=1, max_size=4))
@pytest.mark.attack("cost-evaded")
def test_of_several_rules_the_greatest_holds(costs: list[int]) -> None:
    """One more rule never makes a call cheaper."""
    patterns = ["search", "sea*", "*", "s?arch"]
    tools = {patterns[n]: Rule(cost=cost) for n, cost in enumerate(costs)}

    assert charged(tools) == [max(costs), 2 * max(costs)]


@pytest.mark.attack("cost-evaded")
def test_a_cost_may_depend_on_an_argument() -> None:
    """A rule with a condition costs where it holds."""
    many = Condition(parse("/count"), Within(None, None, 10, None))
    tools = {"search": Rule(cost=2), "*": Rule(when=(many,), cost=20)}

    assert charged(tools, arguments={"count": 10}) == [2, 4]
    assert charged(tools, arguments={"count": 11}) == [20, 40]


def test_a_limit_that_counts_no_calls_has_no_room_for_none() -> None:
    """A call may cost more than the whole quota of a limit that is not charged by it."""
    handshakes = Limit("hello", Per.USER, 5, 60, counts=Counts.HANDSHAKES)
    tools = {"search": Rule(cost=7)}
    assert charged(tools, limits=(handshakes,)) == [7]


def test_what_asks_after_tools_costs_what_it_did() -> None:
    """Lists are no calls."""
    assert charged({"search": Rule(cost=9)}, "tools/list") == [1, 2]


@pytest.mark.attack("streams-of-one-person")
def test_how_long_a_call_lasts_is_told_by_the_cheapest() -> None:
    """Of dear calls fewer have been begun, but of cheap ones as many as there are units."""
    meter = Meter(SHARED, sustained=32, least=1.0)
    cheap = Quota(SHARED, 300, 1)
    dear = Quota(Limit("shared", Per.USER, 500, 60, cost=40, place="files"), 300, 1)

    assert meter.lasts([cheap], 3600) == meter.lasts([dear], 3600) > 1.0


@pytest.mark.attack("cost-evaded")
def test_an_argument_that_is_left_out_costs_what_a_rule_says_of_that() -> None:
    """A range says nothing of it, as everywhere in `when`."""
    many = Condition(parse("/count"), Within(None, None, 10, None))
    none = Condition(parse("/count"), Given(present=False))
    tools = {"search": Rule(), "*": Rule(when=(many,), cost=20), "s*": Rule(when=(none,), cost=30)}

    assert charged(tools, arguments={"count": 3}) == [1, 2]
    assert charged(tools, arguments={}) == [30, 60]


BY_COUNT = ArgumentCost(parse("/count"), 2, 40)
BY = {"search": Rule(cost=40, cost_by=BY_COUNT)}


@pytest.mark.parametrize(
    ("count", "cost"),
    [(1, 2), (2, 2), (3, 3), (39, 39), (40, 40), (41, 40), (2**70, 40), (0, 40), (-1, 40)],
)
@pytest.mark.attack("cost-evaded")
def test_an_argument_says_the_cost_within_bounds(count: int, cost: int) -> None:
    """A small one costs the least; zero and less, which may mean all, cost the most."""
    assert charged(BY, arguments={"count": count}) == [cost, 2 * cost]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"count": None},
        {"count": True},
        {"count": 3.0},
        {"count": "3"},
        {"count": [3]},
        {"count": {"count": 3}},
        {"count": 3, "Count": 30},
        {"count": 3, "co_unt": 30},
        {"count": 3, "c\u00f6unt": 30},
    ],
    ids=str,
)
@pytest.mark.attack("cost-evaded")
def test_what_is_no_plain_integer_costs_the_most(arguments: dict[str, object]) -> None:
    """Another kind, none, or one that parsers read in two ways: the server may do anything."""
    assert charged(BY, arguments=arguments) == [40, 80]


@pytest.mark.parametrize(
    "count",
    [b'3,"count":30', b'3,"c\\u006funt":30', b"03", b"NaN", b"9" * 5000, b"[" * 5000 + b"]" * 5000],
    ids=["twice", "twice, escaped", "leading zero", "no JSON", "endless digits", "deep"],
)
@pytest.mark.attack("cost-evaded")
def test_a_body_in_which_a_count_is_not_read_one_way_is_refused(count: bytes) -> None:
    """Before anything is counted: twice the same name, no JSON, too long or too deep."""
    one = server(Rule(limits=(SHARED,)), BY)
    body = rpc("tools/call", rpc_id=7, name="search", arguments={"count": 77777})
    sent = request(body.replace(b"77777", count))

    decided = authorize(BearerRequest(one, sent, "t"), principal(), policy(one), NOW)
    assert isinstance(decided, Deny), decided
    assert decided.reason in {Reason.MALFORMED_JSON, Reason.JSON_TOO_DEEP}


def test_an_argument_and_a_number_are_the_greater_of_both() -> None:
    """A rule beside the one with an argument sets a floor, its own limits as ever."""
    tools = {**BY, "*": Rule(limits=(OWN,), cost=9)}
    assert charged(tools, arguments={"count": 5}) == [9, 18, 3]
    assert charged(tools, arguments={"count": 11}) == [11, 22, 3]


def test_a_cost_of_another_call_is_not_remembered() -> None:
    """One cache, many counts: each call is charged by its own."""
    cache, one = IdentityCache(), server(Rule(limits=(SHARED,)), BY)
    rules, caller = policy(one), principal()
    for count in (3, 30, 3, 500, 4):
        sent = request(rpc("tools/call", rpc_id=7, name="search", arguments={"count": count}))
        pending = authorize(BearerRequest(one, sent, "t"), caller, rules, NOW, cache=cache)
        assert isinstance(pending, PendingDecision), pending
        assert [each.cost for each in charges(pending.query.takes)] == [2 * min(count, 40)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["count", "Count", "a", "\u017f"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    document=st.none() | st.dictionaries(st.sampled_from(["count", "Count", "b"]), JSON),
    bounds=st.tuples(st.integers(1, MAX_ARGUMENT_COST), st.integers(1, MAX_ARGUMENT_COST)),
)
@pytest.mark.attack("cost-evaded")
def test_a_cost_is_within_its_bounds(
    document: dict[str, object] | None, bounds: tuple[int, int]
) -> None:
    """Less than the most is only what one positive integer says, and nothing is below the least."""
    least, most = sorted(bounds)
    cost = ArgumentCost(parse("/count"), least, most).of(document)

    assert least <= cost <= most
    if cost < most:
        assert document is not None
        assert "Count" not in document
        count = document["count"]
        assert type(count) is int
        assert cost == max(least, count)


@pytest.mark.parametrize(("least", "most"), [(0, 1), (2, 1), (1, MAX_ARGUMENT_COST + 1)])
def test_bounds_that_are_none(least: int, most: int) -> None:
    """They would make a call free, or caches without an end."""
    with pytest.raises(ValueError, match="bounds of a cost"):
        ArgumentCost(parse("/count"), least, most)
