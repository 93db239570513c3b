"""Costly calls: as how many requests a call counts in the limits that it shares with others."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.conditions import Condition, Given, Within
from authz.core.decision import BearerRequest, PendingDecision, authorize
from authz.core.exchanges import Meter
from authz.core.json_pointer import parse
from authz.core.limits import Limit, Per, Quota, charges
from authz.core.methods import Counts
from authz.core.policy import Rule
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
