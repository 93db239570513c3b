"""What one person may hold open: the law of the meters against every way to use them up."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.answers import refusal, upstream
from authz.core.decision import (
    Allow,
    BearerRequest,
    Deny,
    PendingDecision,
    authorize,
    conclude,
    read,
)
from authz.core.exchanges import Exchange, Meter, exchange
from authz.core.ledger import LedgerAnswer, Mode, OverLimit, Taken
from authz.core.limits import Limit, Per, Quota, Take, WindowState, bucket_id, take
from authz.core.methods import LISTEN, METHODS, Counts, Role
from authz.core.policy import MODERN, RefusalForm, Rule
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import HttpRequest
from tests.support.values import NOW, policy, principal, request, rpc, server

STREAMS = Limit("files:streams", Per.USER, 3, 901, place="files", counts=Counts.STREAMS)
CALLS = Limit("files:user:120/minute:operations", Per.USER, 120, 60, counts=Counts.OPERATIONS)
METER = Meter(CALLS, sustained=32, least=60.0)
RULES = policy(server(Rule(limits=(CALLS,)), streams=STREAMS, meters={Exchange.CALL: METER}))

meters = st.builds(
    lambda quota, window, sustained, least, cost: Meter(
        Limit("m", Per.USER, quota * cost, window, cost=cost), sustained, least
    ),
    st.integers(1, 12),
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(1, 3),
)


def listen() -> HttpRequest:
    """Make the request that waits for notifications in 2026-07-28."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    }
    body = rpc(LISTEN, _meta=meta, notifications={"toolsListChanged": True})
    return request(body, mcp_protocol_version=MODERN, mcp_method=LISTEN)


def pending(sent: HttpRequest, who: Principal | None = None) -> PendingDecision:
    asked = read(sent, RULES)
    assert isinstance(asked, BearerRequest)
    found = authorize(asked, principal() if who is None else who, RULES, NOW)
    assert isinstance(found, PendingDecision)
    return found


def charged(sent: HttpRequest) -> list[Limit]:
    return [each.limit for each in pending(sent).query.takes]


@given(
    meters,
    st.integers(1, 300),
    st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 5, 30]), st.integers(1, 20)), max_size=120),
)
@pytest.mark.attack("streams-of-one-person")
def test_no_more_are_open_than_the_meter_says(
    meter: Meter, longest: int, begun: list[tuple[int, int]]
) -> None:
    """However bursts and pauses follow each other, and whatever the real limiter lets pass."""
    states: dict[str, WindowState] = {}
    now, ends = 1_800_000_000_000, list[float]()
    most = meter.most_open(longest)
    for pause, times in begun:
        now += pause * 1000
        for _ in range(times):
            changed, outcome = take(states, [Take("b", meter.limit)], now)
            states.update(changed)
            if outcome.retry_after:
                break
            ends.append(now / 1000 + meter.lasts(outcome.quotas, longest))
        assert sum(end > now / 1000 for end in ends) <= most


@given(meters, st.integers(1, 10**6))
def test_who_begins_more_has_each_last_no_longer(meter: Meter, longest: int) -> None:
    """And nobody's ends before what is usual for it."""
    limit = meter.limit
    lasts = [
        meter.lasts([Quota(limit, limit.quota - used * limit.cost, 1)], longest)
        for used in range(1, limit.quota // limit.cost + 1)
    ]

    assert lasts == sorted(lasts, reverse=True)
    assert all(min(meter.least, longest) <= each <= longest for each in lasts)


def test_what_nobody_counted_lasts_as_long_as_one_of_many() -> None:
    """Without a count of them the shortest is what is known to be safe."""
    assert METER.lasts([], 3600) == 60
    assert METER.lasts([Quota(CALLS, 120, 0)], 3600) == 1920  # Redis is away, and nothing counts


@pytest.mark.parametrize("method", sorted(METHODS))
def test_what_an_exchange_stays_open_for(method: str) -> None:
    """What listens is a stream, what does something a call, and all else an answer."""
    operation = METHODS[method].role is Role.OPERATION
    expected = Exchange.CALL if operation else Exchange.ANSWER

    assert exchange("POST", method) is (Exchange.STREAM if method == LISTEN else expected)


def test_what_has_no_message_is_a_stream_or_an_answer() -> None:
    """A GET waits for notifications; the end of a session waits for nothing."""
    assert exchange("GET", None) is Exchange.STREAM
    assert exchange("DELETE", None) is exchange("POST", "") is Exchange.ANSWER
    assert exchange("POST", "acme/run") is Exchange.CALL


def test_streams_alone_are_charged_as_streams() -> None:
    """Nothing else pays for what bounds them."""
    assert charged(request(method="GET")) == [STREAMS]
    assert charged(listen()) == [CALLS, STREAMS]
    assert charged(request(method="DELETE")) == charged(request()) == []
    assert charged(request(rpc("tools/call", name="x"))) == [CALLS]


@pytest.mark.attack("streams-of-one-person")
def test_two_clients_of_a_person_have_one_number_of_streams() -> None:
    """Another name is no second number; another person and another server have their own."""
    mine = bucket_id(STREAMS, principal(), "192.0.2.1")

    assert bucket_id(STREAMS, principal(client_id="other"), "192.0.2.2") == mine
    assert bucket_id(STREAMS, principal(subject="jane"), "192.0.2.1") != mine
    assert bucket_id(replace(STREAMS, place="notes"), principal(), "192.0.2.1") != mine


def over(sent: HttpRequest) -> Deny:
    asked = pending(sent)
    quotas = tuple(Quota(each.limit, each.limit.quota, 0) for each in asked.query.takes)
    full = tuple(
        replace(q, remaining=0, exceeded=True) if q.limit is STREAMS else q for q in quotas
    )
    refused = conclude(asked, OverLimit(full, 12))
    assert isinstance(refused, Deny)
    return refused


def test_a_get_is_told_that_there_is_no_stream() -> None:
    """405 is MCP's own word for it, at which clients go on without."""
    deny = over(request(method="GET"))
    answer = refusal(deny, None, "req-1")

    assert (deny.reason, answer.status) == (Reason.TOO_MANY_STREAMS, 405)
    assert dict(answer.headers)["allow"] == "POST, DELETE"
    assert dict(answer.headers)["retry-after"] == "12"


def test_who_listens_is_told_by_an_error() -> None:
    """Not by 405, which a client of 2026-07-28 takes for a server of another transport."""
    deny = over(listen())
    assert deny.message is not None

    answer = refusal(deny, deny.message.envelope, "")
    by_status = refusal(deny, deny.message.envelope, "", form=RefusalForm.HTTP_STATUS)

    assert (deny.reason, answer.status, by_status.status) == (Reason.TOO_MANY_STREAMS, 200, 429)


@pytest.mark.parametrize("left", [(0, 3), (0, 1)])
def test_another_limit_that_is_exhausted_is_told_as_before(left: tuple[int, int]) -> None:
    """The reason names what is used up."""
    asked = pending(listen())
    quotas = tuple(Quota(each.limit, n, 9) for each, n in zip(asked.query.takes, left, strict=True))

    refused = conclude(asked, OverLimit(quotas, 9))

    assert isinstance(refused, Deny)
    assert refused.reason is Reason.RATE_LIMITED


def lasts(sent: HttpRequest, answer: LedgerAnswer) -> int:
    allowed = conclude(pending(sent, principal(expires_at=int(NOW) + 10**6)), answer)
    assert isinstance(allowed, Allow)
    return upstream(allowed, RULES, NOW).lasts


@pytest.mark.attack("streams-of-one-person")
@pytest.mark.parametrize(("used", "seconds"), [(1, 1920), (10, 192), (32, 60), (120, 60)])
def test_the_calls_of_who_calls_often_end_earlier(used: int, seconds: int) -> None:
    """Half an hour for the one of a minute; a minute each for a hundred."""
    taken = Taken((Quota(CALLS, 120 - used, 30),), Mode.REDIS)

    assert lasts(request(rpc("tools/call", name="x")), taken) == seconds * 1000


def test_a_stream_lives_until_it_is_judged_anew() -> None:
    """How many there are changes nothing for those that are open."""
    assert lasts(request(method="GET"), Taken((Quota(STREAMS, 0, 1),), Mode.REDIS)) == 900_000
    assert lasts(request(method="DELETE"), Taken((), Mode.REDIS)) == 3_600_000
