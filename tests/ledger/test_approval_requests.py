"""Requests for approvals in a real Redis: bounded, kept while asked, decided once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from authz.core.approval import ApprovalKey
from authz.core.ledger import ApprovalDeclined, ApprovalMissing, StepUpKey, Taken
from authz.core.limits import digest
from authz.core.principal import Person
from authz.core.second_factor import Method, StepUpNeed
from authz.ledger.approval_requests import LIFETIME, MOST, ApprovalRequests, ProvedStepUp
from authz.ledger.keys import approval_name
from authz.ledger.redis import RedisLedger
from tests.ledger.queries import (
    APPROVAL_KEY,
    DAY,
    GRANT,
    PERSON,
    approving,
    connected,
    patient,
    query,
)
from tests.support.valkey import ValkeyServer

Scenario = Callable[[RedisLedger, ApprovalRequests], Awaitable[None]]


def play(server: ValkeyServer, deployment: str, scenario: Scenario) -> None:
    """Run a scenario on an empty deployment."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            await scenario(ledger, ApprovalRequests(ledger.command, ledger._keys))

    asyncio.run(run())


async def now(ledger: RedisLedger) -> int:
    """Return Redis' clock."""
    seconds, _ = await ledger.command("TIME")
    return int(seconds)


async def decide(
    ledger: RedisLedger,
    requests: ApprovalRequests,
    request_id: str,
    *,
    approved: bool = True,
    key: ApprovalKey = APPROVAL_KEY,
    step_up: ProvedStepUp | None = None,
) -> bool:
    """Decide a request now."""
    return await requests.decide(
        key, request_id, await now(ledger), lifetime=300, approved=approved, step_up=step_up
    )


async def kept_id(requests: ApprovalRequests, name: str) -> str:
    """Return the id of a request that is there."""
    found = await requests.find(name)
    assert found is not None
    return found.id


def call(number: int, person: Person = PERSON) -> ApprovalKey:
    """Return one of many calls."""
    return replace(APPROVAL_KEY, person=person, call=digest(str(number)) * 2)


def test_a_request_is_decided_once(server: ValkeyServer, deployment: str) -> None:
    """The second click, and the second tab, change nothing; the call passes once."""

    async def scenario(ledger: RedisLedger, requests: ApprovalRequests) -> None:
        name = await requests.keep(APPROVAL_KEY, "sealed")
        assert name == approval_name(APPROVAL_KEY)
        found = await kept_id(requests, name)
        outcomes = await asyncio.gather(*(decide(ledger, requests, found) for _ in range(20)))

        assert sum(outcomes) == 1
        assert await requests.find(name) is None
        assert isinstance(await ledger.take(approving(query())), Taken)
        assert await ledger.take(approving(query())) == ApprovalMissing()
        assert not await decide(ledger, requests, found, approved=False)

    play(server, deployment, scenario)


@pytest.mark.attack("approval-replayed")
def test_a_decision_counts_for_the_request_that_was_seen(
    server: ValkeyServer, deployment: str
) -> None:
    """A click on a page of before approves no later request for the same call."""

    async def scenario(ledger: RedisLedger, requests: ApprovalRequests) -> None:
        name = await requests.keep(APPROVAL_KEY, "sealed")
        first = await kept_id(requests, name)
        assert await decide(ledger, requests, first)
        await ledger.take(approving(query()))
        await requests.keep(APPROVAL_KEY, "sealed")

        assert not await decide(ledger, requests, first)
        assert not await decide(ledger, requests, first[:-1])
        assert not await decide(ledger, requests, "")
        assert await ledger.take(approving(query())) == ApprovalMissing()

    play(server, deployment, scenario)


def test_a_repeated_call_keeps_its_request(server: ValkeyServer, deployment: str) -> None:
    """A client that asks while its person reads does not take the page away."""

    async def scenario(ledger: RedisLedger, requests: ApprovalRequests) -> None:
        name = await requests.keep(APPROVAL_KEY, "first")
        before = await kept_id(requests, name)
        await requests.keep(APPROVAL_KEY, "second")
        found = await requests.find(name)

        assert found is not None
        assert (found.id, found.sealed) == (before, "second")
        assert "second" not in repr(found)
        assert await decide(ledger, requests, before)

    play(server, deployment, scenario)


@pytest.mark.attack("approval-flood")
def test_a_person_has_a_bounded_number(server: ValkeyServer, deployment: str) -> None:
    """The oldest makes room; another person's stay; everything expires by itself."""

    async def scenario(ledger: RedisLedger, requests: ApprovalRequests) -> None:
        bob = await requests.keep(call(0, Person(PERSON.issuer, "bob")), "of-bob")
        names = [await requests.keep(call(n), f"n{n}") for n in range(3 * MOST)]
        for _ in range(2 * MOST):  # repetitions take no room
            await requests.keep(call(3 * MOST - 1), "again")

        found = [await requests.find(name) for name in names]
        assert [each is not None for each in found] == [False] * (2 * MOST) + [True] * MOST
        assert await requests.find(bob) is not None
        for key in await ledger.command("KEYS", ledger._keys.record("approval-request*", "")[:-1]):
            assert 0 < await ledger.command("PTTL", key) <= LIFETIME * 1000

    play(server, deployment, scenario)


@pytest.mark.attack("approval-flood")
def test_a_client_makes_room_in_its_own_requests_alone(
    server: ValkeyServer, deployment: str
) -> None:
    """Whatever one grant of a person asks for, what another has asked stays."""

    async def scenario(_: RedisLedger, requests: ApprovalRequests) -> None:
        name = await requests.keep(replace(call(0), grant="honest"), "sealed")
        for number in range(2 * MOST):
            await requests.keep(replace(call(number), grant="hostile"), "sealed")
        assert await requests.find(name) is not None

    play(server, deployment, scenario)


def test_room_is_made_by_place_and_not_by_name(server: ValkeyServer, deployment: str) -> None:
    """A request that was decided and asked again keeps its newer place."""

    async def scenario(ledger: RedisLedger, requests: ApprovalRequests) -> None:
        name = await requests.keep(call(0), "x")
        assert await decide(ledger, requests, await kept_id(requests, name), key=call(0))
        for n in range(1, MOST):
            await requests.keep(call(n), "x")
        await requests.keep(call(0), "again")  # in the place of the first, its own
        await requests.keep(call(MOST), "x")

        assert await requests.find(name) is not None
        assert await requests.find(approval_name(call(1))) is None

    play(server, deployment, scenario)


def test_a_declined_call_is_told_so(server: ValkeyServer, deployment: str) -> None:
    """The word of the person is what the next call meets."""

    async def scenario(ledger: RedisLedger, requests: ApprovalRequests) -> None:
        name = await requests.keep(APPROVAL_KEY, "sealed")
        assert await decide(ledger, requests, await kept_id(requests, name), approved=False)
        assert await ledger.take(approving(query())) == ApprovalDeclined()

    play(server, deployment, scenario)


def test_a_step_up_is_recorded_with_it_or_not_at_all(server: ValkeyServer, deployment: str) -> None:
    """One log-in, one click: both in one step, and neither where the click counts no more."""

    async def scenario(ledger: RedisLedger, requests: ApprovalRequests) -> None:
        asked = approving(query(need=StepUpNeed(Method.TOTP, 300)))
        step_up_key = StepUpKey(PERSON, GRANT, "files")
        step_up = ProvedStepUp(step_up_key, Method.TOTP, await now(ledger), DAY)
        name = await requests.keep(APPROVAL_KEY, "sealed")
        assert not await decide(ledger, requests, "x" * 22, step_up=step_up)
        assert await ledger.command("GET", ledger._keys.step_up(step_up_key)) is None
        assert await decide(ledger, requests, await kept_id(requests, name), step_up=step_up)

        assert isinstance(await ledger.take(asked), Taken)
        assert await ledger.take(asked) == ApprovalMissing()

    play(server, deployment, scenario)


@pytest.mark.parametrize("value", [b"", b"x", b"id 0 sealed", b"x" * 22 + b" 0 ", b"\xff"])
def test_what_is_no_request_is_none(server: ValkeyServer, deployment: str, value: bytes) -> None:
    """Nothing that this code has not written is shown to anybody."""

    async def scenario(ledger: RedisLedger, requests: ApprovalRequests) -> None:
        await ledger.command("SET", ledger._keys.approval_request("n"), value)
        assert await requests.find("n") is None

    play(server, deployment, scenario)
