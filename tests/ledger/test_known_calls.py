"""Cached calls: the same query gives the same bytes, another one never does."""

from dataclasses import fields, replace
from typing import Any

import pytest

from authz.core.approval import Approval
from authz.core.ledger import Query, Session
from authz.core.principal import Client, Person
from authz.core.second_factor import Method, StepUpNeed
from authz.ledger.keys import RedisKeys
from authz.ledger.script import KnownCalls, TakeCall
from tests.ledger.queries import APPROVAL_KEY, KEY, query, take

NEED = StepUpNeed(Method.TOTP, 300)
FOR_TOOL = replace(APPROVAL_KEY, approval=Approval(300), call=None)
ONE = replace(query(take("a"), take("b", quota=7), need=NEED), approval_key=FOR_TOOL)
OTHERS: dict[str, Any] = {
    "token_id": "another",
    "person": Person("https://auth.example.com", "bob"),
    "client": Client("https://auth.example.com", "cursor"),
    "issued_at": ONE.issued_at + 1,
    "step_up_key": replace(KEY, server="notes"),
    "step_up": StepUpNeed(Method.ANY, 300),
    "grant": "another grant",
    "registered_client": Client("https://auth.example.com", "https://cursor.example/client.json"),
    "session": Session("0" * 32, "1" * 32, "2" * 32, 60),
    "takes": (take("a"), take("b", quota=8)),
    "approval_key": replace(FOR_TOOL, tool="another"),
    "approval": Approval(301),
}
# Members that a query has only together with another.
BESIDE: dict[str, Any] = {
    "approval": {"approval_key": replace(FOR_TOOL, approval=Approval(301))},
}


def said(call: TakeCall) -> bytes:
    return call.command


def test_the_same_question_is_written_once() -> None:
    """Another query of the same values is answered by the call that is there."""
    known = KnownCalls(RedisKeys("test"))

    assert known(ONE) is known(replace(ONE))
    assert said(known(ONE)) == said(TakeCall(RedisKeys("test"), ONE))


@pytest.mark.parametrize("field", [each.name for each in fields(Query)])
def test_a_question_that_differs_in_anything_is_another(field: str) -> None:
    """Every member of a query tells it apart; a new member needs a line here."""
    known = KnownCalls(RedisKeys("test"))
    other = replace(ONE, **{field: OTHERS[field]}, **BESIDE.get(field, {}))

    assert known(ONE) is not known(other)
    assert said(known(other)) == said(TakeCall(RedisKeys("test"), other))


@pytest.mark.parametrize("changes", [{"cost": 2}, {"quota": 8}, {"window": 60}])
def test_a_limit_that_differs_is_another_question(changes: dict[str, int]) -> None:
    """Also where the bucket is the same: after a reload, for one."""
    known = KnownCalls(RedisKeys("test"))
    before, after = query(take("a")), query(take("a", **changes))

    known(before)

    assert said(known(after)) == said(TakeCall(RedisKeys("test"), after)) != said(known(before))


def test_no_more_is_held_than_may_be() -> None:
    """The oldest go first; limits that come and go at one address are told apart."""
    known = KnownCalls(RedisKeys("test"), capacity=4)

    for number in range(200):
        one = query(take("a", quota=number + 1))
        assert said(known(one)) == said(TakeCall(RedisKeys("test"), one))
    assert len(known) == 4
