"""How much of limits is used, on real servers, beside what the ledger itself says."""

import asyncio
import time
from dataclasses import replace
from datetime import timedelta, timezone

import pytest

from authz.core.calendar_windows import SPANS, Calendar, CalendarUnit
from authz.core.ledger import Taken
from authz.core.limits import (
    Audience,
    Limit,
    Per,
    Selector,
    Take,
    bucket_id,
    bucket_ids,
    takes_of,
)
from authz.core.policy import Policy, Rule, Server
from authz.ledger.keys import RedisKeys
from authz.ledger.limit_usage import LimitedCaller, limits_of, read_usage, reset_limit
from tests.ledger.queries import connected, patient, query
from tests.support.valkey import ValkeyServer

ISSUER = "https://auth.example.com"


def noon_day() -> Calendar:
    """Return the days of a zone in which it is noon, so that none ends while a test runs."""
    hours = int(time.time()) % 86_400 // 3600
    return Calendar(CalendarUnit.DAY, timezone(timedelta(hours=12 - hours)), "Test/Noon")


LIMITS = (
    Limit("user", Per.USER, 10, 60, place="files"),
    Limit("client", Per.CLIENT, 5, 3600),
    Limit("both", Per.CLIENT_USER, 4, 60, place="files:delete_*"),
    Limit("address", Per.ADDRESS, 4, 60),
    Limit("grant", Per.GRANT, 7, 60),
    Limit(
        "day",
        Per.USER,
        8,
        SPANS[CalendarUnit.DAY],
        calendar=noon_day(),
    ),
)
ADA = LimitedCaller("ada", "claude", "Ada", by_front_door=True, grant="g1")
CALLERS = (
    ADA,
    replace(ADA, client="https://x.example"),
    LimitedCaller("", "nightly"),
    LimitedCaller("bob", "dynamic/y.example", by_front_door=True, grant="g2"),
)


@pytest.fixture
def policy() -> Policy:
    server = Server("files", f"{ISSUER}/files", ISSUER, Rule(limits=LIMITS))
    return Policy(ISSUER, servers={"files": server})


def test_what_is_shown_is_what_a_decision_finds(
    server: ValkeyServer, deployment: str, policy: Policy
) -> None:
    """For every caller and limit the units are those that the ledger's own answer leaves out, under
    the names that the limit tells apart; a reset leaves nothing of that one, and the others alone.
    """

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            keys = RedisKeys(deployment)
            limits = limits_of(policy)
            assert Per.ADDRESS not in {each.per for each in limits}
            left = dict[str, int]()
            for caller in (*CALLERS, ADA):
                principal = caller.principal(ISSUER)
                takes = [t for each in limits for t in takes_of(each, principal, "", time.time())]
                answer = await ledger.take(query(*takes))
                assert isinstance(answer, Taken)
                for take, quota in zip(takes, answer.quotas, strict=True):
                    left[take.bucket] = quota.remaining
            used = await read_usage(ledger.command, keys, policy, ISSUER, CALLERS)
            assert {each.id: each.limit.quota - each.used for each in used} == left
            shares = [each.share for each in used]
            assert shares == sorted(shares, reverse=True)
            names = {(each.limit.name, each.person, each.client) for each in used}
            assert ("user", "Ada", "") in names
            assert ("user", "", "nightly") in names
            assert ("client", "", "clients that nobody configured") in names
            assert ("both", "Ada", "claude") in names
            assert await reset_limit(ledger.command, keys, used[0].id)
            assert not await reset_limit(ledger.command, keys, used[0].id)
            again = await read_usage(ledger.command, keys, policy, ISSUER, CALLERS)
            assert {each.id for each in again} == {each.id for each in used[1:]}

    asyncio.run(run())


def test_groups_that_rules_name_are_shown(server: ValkeyServer, deployment: str) -> None:
    """Those that overrides name, too, and those in none together; whose claims and log-ins are not
    known, not.
    """
    everybody, interns = Audience(None), Selector(groups=frozenset({"interns"}))
    limits = (
        Limit("group", Per.GROUP, 10, 60, audience=Audience(None, (interns,))),
        Limit("few", Per.GROUP, 5, 60, audience=Audience(interns)),
        Limit("tenant", Per.CLAIM, 10, 60, claim="tenant"),
        Limit("grant", Per.GRANT, 10, 60),
    )
    rule = Rule(limits=limits, groups=frozenset({"staff", "ops"}))
    policy = Policy(ISSUER, servers={"files": Server("files", f"{ISSUER}/files", ISSUER, rule)})
    nobody = replace(ADA, grant="")

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            for groups in (("staff", "other"), ("interns",), ()):
                who = replace(ADA.principal(ISSUER), groups=frozenset(groups))
                met = [each for each in limits if (each.audience or everybody).includes(who)]
                takes = [Take(b, limit) for limit in met for b in bucket_ids(limit, who, "")]
                await ledger.take(query(*takes))
            keys = RedisKeys(deployment)
            used = await read_usage(ledger.command, keys, policy, ISSUER, [nobody])
            assert sorted((each.whose, each.used) for each in used) == [
                ("group interns", 1),
                ("group staff", 1),
                ("people without groups", 1),
            ]
            assert {each.to_json()["group"] for each in used} == {"staff", "interns", ""}

    asyncio.run(run())


def test_what_is_no_bucket_is_left_out(
    server: ValkeyServer, deployment: str, policy: Policy
) -> None:
    """A value of another size or type under a bucket's name is shown as nothing."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            keys = RedisKeys(deployment)
            first, second, *_ = limits_of(policy)
            names = [
                keys.bucket(bucket_id(each, ADA.principal(ISSUER), "")) for each in (first, second)
            ]
            server.command("SET", names[0], "x" * 51)
            server.command("HSET", names[1], "a", "b")
            assert await read_usage(ledger.command, keys, policy, ISSUER, CALLERS) == ()

    asyncio.run(run())
