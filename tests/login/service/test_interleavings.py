"""Whatever order the steps of many come in, and wherever a process dies: nothing is mixed up."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from copy import copy
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from authz.core.ledger import UnavailableError
from authz.core.principal import Person
from authz.ledger.keys import RedisKeys, grant_field
from authz.login.protocol.issued import token_response
from authz.login.protocol.values import OAuthError
from authz.login.store.blocklist import BlocklistEntry
from authz.login.store.grants import GrantStore
from authz.login.store.known_clients import block
from authz.login.store.revocation_outbox import RevocationOutbox
from tests.login.service.flow_kit import VERIFIER, Flow, Killed, flow, parameters
from tests.support.examples import examples
from tests.support.valkey import ValkeyServer
from tests.support.values import ISSUER

FEW = settings(examples(50), suppress_health_check=[HealthCheck.function_scoped_fixture])


HOME = "192.0.2.7"
ELSEWHERE = "198.51.100.9"
ORDERS = st.integers(0, 2**32).map(Random)


async def exchange(found: Flow, code: str, client_id: str = "one") -> Any:
    form = parameters(code=code, client_id=client_id, code_verifier=VERIFIER)
    return token_response(await found.exchange().exchange(form), found.clock())


async def refresh(found: Flow, token: str, client_id: str = "one", address: str = HOME) -> Any:
    async def pause(_: float) -> None:
        await found.schedule.step()

    form = parameters(refresh_token=token, client_id=client_id)
    issued = await found.refresh(pause=pause, polls=40).refresh(form, address)
    return token_response(issued, found.clock())


def revoke(found: Flow, token: str, client_id: str = "one") -> Awaitable[None]:
    form = parameters(token=token, client_id=client_id)
    return found.revocation().revoke(form)


def run(store: ValkeyServer, scene: Callable[[Flow], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with flow(store) as found:
            await scene(found)

    asyncio.run(whole())


def good(results: dict[str, Any]) -> list[Any]:
    """The answers; whatever else there is has to be a refusal, an outage or the death."""
    for each in results.values():
        if isinstance(each, BaseException):
            assert isinstance(each, OAuthError | UnavailableError | Killed), repr(each)
    return [each for each in results.values() if isinstance(each, dict)]


@FEW
@given(order=ORDERS)
@pytest.mark.attack("two people and two clients at once never mixed")
def test_two_people_and_two_clients_are_never_mixed(store: ValkeyServer, order: Random) -> None:
    """Each client gets the tokens of the person who consented to it, and records say so."""

    async def scene(found: Flow) -> None:
        pairs = [(client, person) for client in ("one", "two") for person in ("john", "bob")]
        codes = {pair: await found.code(*pair) for pair in pairs}
        thief = order.choice(pairs)
        work = {f"{pair}": exchange(found, code, pair[0]) for pair, code in codes.items()}
        stolen = await found.code(*thief)
        work["thief"] = exchange(found, stolen, "two" if thief[0] == "one" else "one")
        results = await found.schedule.run(work, order.randrange)
        assert isinstance(results.pop("thief"), OAuthError)
        work = {}
        for pair in pairs:
            answer = results[f"{pair}"]
            work[f"{pair}"] = refresh(found, answer["refresh_token"], pair[0])
            other = "two" if pair[0] == "one" else "one"
            work[f"{pair} stolen"] = refresh(found, answer["refresh_token"], other)
        renewed = await found.schedule.run(work, order.randrange)
        grants = set()
        for pair in pairs:
            assert isinstance(renewed[f"{pair} stolen"], OAuthError)
            for answer in (results[f"{pair}"], renewed[f"{pair}"]):
                log_in = await found.records.get(answer["access_token"])
                assert log_in is not None
                assert (log_in.client_id, log_in.subject) == pair
                grants.add(log_in.grant)
        assert len(grants) == len(pairs)

    run(store, scene)


@FEW
@given(order=ORDERS, kill=st.integers(-1, 25), count=st.integers(2, 4))
@example(order=Random(5000), kill=7, count=2)
def test_a_code_is_traded_in_once(
    store: ValkeyServer, order: Random, kill: int, count: int
) -> None:
    """However many come with it and wherever one dies, and two uses leave nothing alive."""

    async def scene(found: Flow) -> None:
        code = await found.code(grant="g" * 32)
        work = {f"{number}": exchange(found, code) for number in range(count)}
        results = await found.schedule.run(work, order.randrange, kill)
        answers = good(results)
        assert len(answers) <= 1
        assert len({answer["access_token"] for answer in answers}) <= 1
        # The dead may have been the one who would have ended it: the next one does.
        with pytest.raises(OAuthError):
            await exchange(found, code)
        assert await found.grants.of("john") == ()
        for answer in answers:
            # The revocation refuses the token, in the step that ends its grant. The record goes a
            # step later: who dies in between leaves it until it ends by itself.
            assert grant_field(ISSUER, "g" * 32) in await found.ledger.revocations()
            if not any(isinstance(each, Killed) for each in results.values()):
                assert await found.records.get(answer["access_token"]) is None
            with pytest.raises(OAuthError):
                await refresh(found, answer["refresh_token"])

    run(store, scene)


@FEW
@given(order=ORDERS, kill=st.integers(-1, 30), count=st.integers(2, 4))
def test_refreshes_at_once_are_one_at_authelia(
    store: ValkeyServer, order: Random, kill: int, count: int
) -> None:
    """One call, one answer for all; whoever dies meanwhile locks nobody out for ever."""

    async def scene(found: Flow) -> None:
        first = await exchange(found, await found.code())
        work = {f"{number}": refresh(found, first["refresh_token"]) for number in range(count)}
        results = await found.schedule.run(work, order.randrange, kill)
        answers = good(results)
        assert found.authelia.refreshed in ([], ["rt-0"])
        assert len({answer["refresh_token"] for answer in answers}) <= 1
        if kill < 0:  # others may have lost patience
            assert answers
        for key in found.keys("refreshing"):
            assert 0 < found.valkey.command("TTL", key) <= 30
        for answer in answers:
            assert await found.records.get(answer["access_token"]) is not None
            assert (await refresh(found, answer["refresh_token"]))["refresh_token"]

    run(store, scene)


@FEW
@given(order=ORDERS, kill=st.integers(-1, 30))
def test_what_is_revoked_while_it_is_refreshed_stays_so(
    store: ValkeyServer, order: Random, kill: int
) -> None:
    """Nothing that a refresh gives outlives the revocation, whoever was first."""

    async def scene(found: Flow) -> None:
        first = await exchange(found, await found.code(grant="g" * 32))
        work = {
            "refresh": refresh(found, first["refresh_token"]),
            "again": refresh(found, first["refresh_token"]),
            "revoke": revoke(found, first["refresh_token"]),
        }
        results = await found.schedule.run(work, order.randrange, kill)
        good({name: each for name, each in results.items() if name != "revoke"})
        if results["revoke"] is not None:
            await revoke(found, first["refresh_token"])
        assert await found.grants.of("john") == ()
        assert grant_field(ISSUER, "g" * 32) in await found.ledger.revocations()
        for answer in good(results):
            with pytest.raises(OAuthError):
                await refresh(found, answer["refresh_token"])

    run(store, scene)


@FEW
@given(order=ORDERS, kill=st.integers(-1, 40), past=st.booleans())
@pytest.mark.attack("a client that is blocked while it refreshes")
def test_what_is_blocked_while_it_is_refreshed_stays_so(
    store: ValkeyServer, order: Random, kill: int, past: bool
) -> None:
    """Whatever a refresh gives is revoked, also where the grant's age ends meanwhile."""

    async def scene(found: Flow) -> None:
        first = await exchange(found, await found.code(grant="g" * 32))
        one = BlocklistEntry("one", 7, "me", "why")
        operators = later(found, 31 * 86_400 if past else 0)
        work = {
            "refresh": refresh(found, first["refresh_token"]),
            "again": refresh(found, first["refresh_token"]),
            "block": block(operators, found.blocks, one),
        }
        results = await found.schedule.run(work, order.randrange, kill)
        blocked = results.pop("block")
        good(results)
        if not isinstance(blocked, int):
            await block(operators, found.blocks, one)
        assert await found.grants.of("john") == ()
        assert grant_field(ISSUER, "g" * 32) in await found.ledger.revocations()
        for answer in (first, *good(results)):
            with pytest.raises(OAuthError):
                await refresh(found, answer["refresh_token"])

    run(store, scene)


@FEW
@given(order=ORDERS, ends=st.sets(st.sampled_from(["block", "person", "revoke"]), min_size=1))
@pytest.mark.attack("a log-in that is ended while it is refreshed, told, or ended by others")
def test_what_ends_here_ends_at_authelia_and_nothing_else_does(
    store: ValkeyServer, order: Random, ends: set[str]
) -> None:
    """However refreshes, ends and what tells of them meet: of it nothing lives, others all do."""

    async def scene(found: Flow) -> None:
        grants, authelia = found.grants, found.authelia
        first = await exchange(found, await found.code(grant="g" * 32))
        for subject in ("bob", "john"):
            await exchange(found, await found.code("two", subject), "two")
        others = authelia.alive.keys() - {"rt-0"}
        untold = RevocationOutbox(
            grants._command,
            RedisKeys(found.deployment),
            ISSUER,
            sealer=found.sealer,
            upstream=authelia,
            log=found.log,
            clock=time.monotonic,
        )
        john = Person(ISSUER, "john")
        how: dict[str, Callable[[], Awaitable[object]]] = {
            "block": lambda: block(grants, found.blocks, BlocklistEntry("one", 7, "me", "why")),
            "person": lambda: found.own_grants().end(john, "g" * 32),
            "revoke": lambda: revoke(found, first["refresh_token"]),
        }
        work: dict[str, Awaitable[Any]] = {name: how[name]() for name in sorted(ends)}
        for number in range(2):
            work[f"refresh {number}"] = refresh(found, first["refresh_token"])
            work[f"tell {number}"] = untold.revoke_all()
        results = await found.schedule.run(work, order.randrange)
        good({name: each for name, each in results.items() if name.startswith("refresh")})
        assert not any(isinstance(results[name], BaseException) for name in ends)
        await untold.revoke_all()
        assert authelia.alive.keys() == others
        assert others.isdisjoint(authelia.revoked)
        assert {grant_field(ISSUER, "g" * 32)} == set(await found.ledger.revocations())

    run(store, scene)


@FEW
@given(
    order=ORDERS,
    kill=st.integers(-1, 40),
    spent=st.booleans(),
    ends=st.sampled_from(["nothing", "revoke", "person", "block"]),
)
# One process refreshes between two looks of another (each ended the grant of all).
@example(order=Random(5), kill=-1, spent=True, ends="nothing")
@example(order=Random(28), kill=-1, spent=True, ends="nothing")
@pytest.mark.attack("stale copies of a refresh token, at once with its successor and its end")
def test_stale_copies_get_what_the_newest_gives_and_nothing_after_an_end(
    store: ValkeyServer, order: Random, kill: int, spent: bool, ends: str
) -> None:
    """One family whatever the order; a token that was replaced is never sent to Authelia."""

    async def scene(found: Flow) -> None:
        grants, authelia = found.grants, found.authelia
        first = await exchange(found, await found.code(grant="g" * 32))
        second = await refresh(found, first["refresh_token"])
        forget_lost_answers(found)
        # At the end of the newest access token a stale copy has its successor refreshed.
        if spent:
            found.clock = lambda: time.time() + 3590
            authelia.lifetime *= 2  # what is given from now on is not at its end
        how: dict[str, Callable[[], Awaitable[object]]] = {
            "revoke": lambda: revoke(found, second["refresh_token"]),
            "person": lambda: found.own_grants().end(Person(ISSUER, "john"), "g" * 32),
            "block": lambda: block(grants, found.blocks, BlocklistEntry("one", 7, "me", "why")),
        }
        work: dict[str, Awaitable[Any]] = {
            "stale 1": refresh(found, first["refresh_token"]),
            "stale 2": refresh(found, first["refresh_token"]),
            "newest": refresh(found, second["refresh_token"]),
        }
        if ends != "nothing":
            work["end"] = how[ends]()
        results = await found.schedule.run(work, order.randrange, kill)
        ended = results.pop("end", None)
        answers = good(results)
        assert len(authelia.refreshed) == len(set(authelia.refreshed))
        assert len({each["refresh_token"] for each in answers}) <= 2
        for each in answers:
            log_in = await found.records.get(each["access_token"])
            assert log_in is None or log_in.grant == "g" * 32
        if ends == "nothing":
            if kill < 0:
                assert len(answers) == 3
                assert len(await grants.of("john")) == 1
            return
        if isinstance(ended, BaseException):
            await how[ends]()
        assert await grants.of("john") == ()
        assert found.keys("latest") == []
        for each in (first, second, *answers):
            with pytest.raises(OAuthError):
                await refresh(found, each["refresh_token"])

    run(store, scene)


def forget_lost_answers(found: Flow) -> None:
    """As after 30 seconds."""
    for key in found.keys("refreshed"):
        found.valkey.command("DEL", key)


def later(found: Flow, seconds: int) -> GrantStore:
    """The grants as a command sees them whose clock says so many seconds more."""
    grants = copy(found.grants)
    grants._clock = lambda: time.time() + seconds
    return grants
