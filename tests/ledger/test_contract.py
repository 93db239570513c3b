"""The ledger's contract: the same tests on the in-memory ledger and on real servers."""

import asyncio
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from authz.core.argument_cost import ArgumentCost
from authz.core.calendar_windows import SPANS, Calendar, CalendarUnit
from authz.core.decision import BearerRequest, PendingDecision, authorize
from authz.core.json_pointer import parse
from authz.core.ledger import (
    MOST_SESSIONS,
    OverLimit,
    Query,
    Revoked,
    Session,
    SessionOfAnother,
    StepUpKey,
    StepUpMissing,
    StepUpTooOld,
    Taken,
)
from authz.core.limits import (
    Limit,
    Per,
    Take,
    bucket_ids,
    digest,
    takes_of,
    unsatisfiable_takes,
)
from authz.core.policy import Rule
from authz.core.principal import Client, Person
from authz.core.second_factor import LEEWAY, Method, StepUpNeed
from authz.ledger.keys import (
    EVERYTHING,
    client_field,
    grant_field,
    person_field,
    token_field,
)
from authz.ledger.records import Revocation
from tests.ledger.queries import (
    CLIENT,
    DAY,
    GRANT,
    ISSUED,
    KEY,
    PERSON,
    SELF_NAMED,
    Contract,
    Subject,
    exceeded,
    left,
    limit,
    query,
    session,
    take,
)
from tests.support.values import NOW, policy, principal, request, rpc, server

TOTP = StepUpNeed(Method.TOTP, None)
RECENT = StepUpNeed(Method.TOTP, 300)


# --- limits -----------------------------------------------------------------------------------


def test_a_quota_is_used_up_and_no_more(contract: Contract) -> None:
    """A limit admits its quota, then refuses with a true picture of itself."""

    async def scenario(subject: Subject) -> None:
        asked = query(take(quota=3))
        answers = [await subject.ledger.take(asked) for _ in range(4)]

        assert [left(answer) for answer in answers] == [[2], [1], [0], [0]]
        assert [type(answer) for answer in answers] == [Taken, Taken, Taken, OverLimit]
        over = answers[3]
        assert isinstance(over, OverLimit)
        assert over.quotas[0].limit is asked.takes[0].limit
        assert over.retry_after == over.quotas[0].reset
        assert DAY <= over.retry_after <= DAY * 11 // 10

    contract(scenario)


@pytest.mark.attack("two-limits-one-exhausted")
def test_all_limits_are_charged_or_none(contract: Contract) -> None:
    """Where one of several limits is exhausted, none is charged, wherever it stands."""

    async def scenario(subject: Subject) -> None:
        small, large, other = take("small", quota=1), take("large", quota=9), take("o", quota=9)
        await subject.ledger.take(query(small))

        for asked in ((large, small, other), (small, large, other), (large, other, small)):
            assert isinstance(await subject.ledger.take(query(*asked)), OverLimit)
        assert left(await subject.ledger.take(query(large, other))) == [8, 8]

    contract(scenario)


def test_a_request_is_charged_its_cost(contract: Contract) -> None:
    """A costly request is refused where a cheap one still passes."""

    async def scenario(subject: Subject) -> None:
        dear = query(take(quota=5, cost=3))

        assert left(await subject.ledger.take(dear)) == [2]
        assert isinstance(await subject.ledger.take(dear), OverLimit)
        assert left(await subject.ledger.take(query(take(quota=5, cost=2)))) == [0]

    contract(scenario)


@pytest.mark.attack("cost-evaded")
def test_what_an_argument_says_is_what_is_charged(contract: Contract) -> None:
    """A call counts as its argument says, and as the most where that is no number."""
    by_count = Rule(cost=5, cost_by=ArgumentCost(parse("/count"), 1, 5))
    searching = server(Rule(limits=(limit(9),)), {"search": by_count})
    rules = policy(searching)

    def asked(count: object) -> Query:
        sent = request(rpc("tools/call", rpc_id=7, name="search", arguments={"count": count}))
        pending = authorize(BearerRequest(searching, sent, "t"), principal(), rules, NOW)
        assert isinstance(pending, PendingDecision)
        return pending.query

    async def scenario(subject: Subject) -> None:
        assert left(await subject.ledger.take(asked(2))) == [7]
        assert left(await subject.ledger.take(asked("2"))) == [2]
        assert isinstance(await subject.ledger.take(asked(3)), OverLimit)
        assert left(await subject.ledger.take(asked(2))) == [0]

    contract(scenario)


def test_two_takes_on_one_bucket_are_charged_their_sum(contract: Contract) -> None:
    """A bucket that a query names twice is charged twice, or not at all."""

    async def scenario(subject: Subject) -> None:
        asked = query(take(quota=5, cost=2), take("other"), take(quota=5, cost=1))

        assert left(await subject.ledger.take(asked)) == [2, 2, 2]
        refused = await subject.ledger.take(asked)
        assert isinstance(refused, OverLimit)
        assert left(refused) == [2, 2, 2]

    contract(scenario)


def test_callers_are_told_when_little_is_left(contract: Contract) -> None:
    """From `warn_at` on, and where the limit refuses."""

    async def scenario(subject: Subject) -> None:
        careful = Take(digest("careful"), replace(limit(5), warn_at=80))
        answers = [await subject.ledger.take(query(careful)) for _ in range(6)]

        assert [each.quotas[0].is_near for each in answers if isinstance(each, Taken)] == [
            *(False, False, False, True, True)
        ]
        assert isinstance(answers[5], OverLimit)
        assert answers[5].quotas[0].is_near

    contract(scenario)


def test_without_limits_nothing_is_charged(contract: Contract) -> None:
    """A query without takes passes."""

    async def scenario(subject: Subject) -> None:
        answer = await subject.ledger.take(query())

        assert isinstance(answer, Taken)
        assert answer.quotas == ()

    contract(scenario)


def test_the_largest_numbers_count_exactly(contract: Contract) -> None:
    """A quota of 2^32 - 1 over the longest window is charged to the last unit."""

    async def scenario(subject: Subject) -> None:
        most = 2**32 - 1
        all_but_one = Take("b", Limit("t", Per.USER, most, most, cost=most - 1))
        one = Take("b", Limit("t", Per.USER, most, most))

        assert left(await subject.ledger.take(query(all_but_one))) == [1]
        assert left(await subject.ledger.take(query(one))) == [0]
        assert isinstance(await subject.ledger.take(query(one)), OverLimit)

    contract(scenario)


@pytest.mark.attack("hostile-ids")
@pytest.mark.parametrize(
    "name",
    [":", "{", "}", "*", "\n", "\r\nDEL x", "\0", "a b", "{other}", "é", "\ud800", "x" * 10_000],
    ids=ascii,
)
def test_hostile_names_keep_their_own_counts(contract: Contract, name: str) -> None:
    """Whatever a bucket, client, subject or token is spelled like, it is only itself."""

    async def scenario(subject: Subject) -> None:
        one = Limit("t", Per.USER, 1, DAY)
        here, there = (
            Query(each, Person(each, each), Client(each, each), 1, None, None, (Take(each, one),))
            for each in (name, name + "x")
        )
        await subject.ledger.revoke(person_field(Person(name, name + "x")), Revocation())
        await subject.ledger.revoke(client_field(Client(name + "x", name)), Revocation())
        await subject.ledger.revoke(token_field(name + "y"), Revocation())

        assert isinstance(await subject.ledger.take(here), Taken)
        assert isinstance(await subject.ledger.take(here), OverLimit)
        assert isinstance(await subject.ledger.take(there), Taken)
        await subject.ledger.revoke(token_field(name), Revocation())
        assert await subject.ledger.take(here) == Revoked("token")
        assert isinstance(await subject.ledger.take(there), OverLimit)

    contract(scenario)


def test_two_thousand_at_once_are_counted_one_by_one(contract: Contract) -> None:
    """However many callers ask at once, exactly the quota passes."""

    async def scenario(subject: Subject) -> None:
        asked = query(take("a", quota=100), take("b", quota=1000))
        answers = await asyncio.gather(*(subject.ledger.take(asked) for _ in range(500)))

        assert sum(isinstance(answer, Taken) for answer in answers) == 100
        assert sorted(left(each)[0] for each in answers if isinstance(each, Taken)) == list(
            range(100)
        )

    contract(scenario)


@pytest.mark.attack("shadow-limit-refuses")
def test_a_limit_in_shadow_refuses_nothing_and_hides_nothing(contract: Contract) -> None:
    """It counts what it would let pass and tells what it would refuse; the enforced limits beside
    it are charged and refuse as if it were not there, and with them it is charged or not.
    """

    async def scenario(subject: Subject) -> None:
        enforced = take("enforced", quota=3)
        shadow = Take(digest("shadow"), replace(limit(1), shadow=True))
        costly = Take(digest("costly"), replace(limit(9, cost=5), shadow=True))
        asked = query(shadow, enforced, costly)
        answers = [await subject.ledger.take(asked) for _ in range(4)]

        assert [left(answer) for answer in answers] == [[0, 2, 4], [0, 1, 4], [0, 0, 4], [0, 0, 4]]
        assert [type(answer) for answer in answers] == [Taken, Taken, Taken, OverLimit]
        told = [exceeded(answer) for answer in answers]
        assert told == [[0, 0, 0], [1, 0, 1], [1, 0, 1], [1, 1, 1]]
        over = answers[3]
        assert isinstance(over, OverLimit)
        assert over.retry_after == over.quotas[1].reset
        assert left(await subject.ledger.take(query(shadow))) == [0]

    contract(scenario)


def test_what_was_counted_in_shadow_counts_when_it_is_enforced(contract: Contract) -> None:
    """A bucket is the same with and without shadow, and a trial is no new budget."""

    async def scenario(subject: Subject) -> None:
        enforced = take(quota=1)
        shadow = replace(enforced, limit=replace(enforced.limit, shadow=True))
        assert left(await subject.ledger.take(query(shadow))) == [0]
        assert isinstance(await subject.ledger.take(query(shadow)), Taken)
        assert isinstance(await subject.ledger.take(query(enforced)), OverLimit)

    contract(scenario)


@pytest.mark.attack("shadow-limit-refuses")
def test_of_many_at_once_a_shadow_counts_exactly_its_quota(contract: Contract) -> None:
    """All pass, the quota is counted once, and all the others are told."""

    async def scenario(subject: Subject) -> None:
        shadow = Take(digest("shadow"), replace(limit(100), shadow=True))
        asked = query(shadow, take("b", quota=250))
        answers = await asyncio.gather(*(subject.ledger.take(asked) for _ in range(500)))

        taken = [each for each in answers if isinstance(each, Taken)]
        assert len(taken) == 250
        assert sum(each.quotas[0].exceeded for each in taken) == 150

    contract(scenario)


@pytest.mark.attack("limits-multiplied-by-groups")
def test_people_of_a_group_have_exactly_its_quota(contract: Contract) -> None:
    """However many are in it, with whatever other groups, and however many ask at once."""

    async def scenario(subject: Subject) -> None:
        one = Limit("g", Per.GROUP, 60, DAY)
        people = [
            replace(principal(subject=f"p{n}"), groups=frozenset({"staff", f"g{n % 3}"}))
            for n in range(9)
        ]
        asked = [
            query(*(Take(bucket, one) for bucket in bucket_ids(one, each, ""))) for each in people
        ]
        answers = await asyncio.gather(*(subject.ledger.take(asked[n % 9]) for n in range(200)))

        assert sum(isinstance(each, Taken) for each in answers) == 60

    contract(scenario)


@pytest.mark.attack("cost-evaded")
def test_of_dear_and_cheap_calls_at_once_exactly_the_quota_passes(contract: Contract) -> None:
    """In units, whoever comes first; and no more of them than the burst has room for."""

    async def scenario(subject: Subject) -> None:
        costs = [7, 1, 3]
        day = [take("units", quota=100, cost=cost) for cost in costs]
        answers = await asyncio.gather(
            *(subject.ledger.take(query(day[n % 3])) for n in range(300))
        )
        passed = [costs[n % 3] for n, each in enumerate(answers) if isinstance(each, Taken)]
        assert sum(passed) == 100

        both = query(take("rate", quota=1000), take("burst", quota=40, window=DAY // 25))
        answers = await asyncio.gather(*(subject.ledger.take(both) for _ in range(200)))
        assert sum(isinstance(each, Taken) for each in answers) == 40
        assert left(answers[-1]) == [960, 0]

    contract(scenario)


@pytest.mark.attack("calendar-quota")
def test_a_day_has_exactly_its_quota(contract: Contract) -> None:
    """However many ask at once; the next day has its own, and who waits is told when it begins."""

    async def scenario(subject: Subject) -> None:
        zone = "Europe/Berlin"
        calendar = Calendar(CalendarUnit.DAY, ZoneInfo(zone), zone)
        one = Limit("day", Per.USER, 100, SPANS[CalendarUnit.DAY], calendar=calendar)
        now = await subject.now()
        # A day that does not end while this runs.
        today = takes_of(one, principal(), "", now + DAY)
        answers = await asyncio.gather(*(subject.ledger.take(query(*today)) for _ in range(300)))

        assert sum(isinstance(each, Taken) for each in answers) == 100
        over = next(each for each in answers if isinstance(each, OverLimit))
        assert over.retry_after == over.quotas[0].reset
        assert abs(now + over.retry_after - today[0].ends / 1000) < 600
        tomorrow = takes_of(one, principal(), "", now + 2 * DAY)
        assert left(await subject.ledger.take(query(*tomorrow))) == [99]

    contract(scenario)


# --- revocations ------------------------------------------------------------------------------

TARGETS = {
    "token": token_field("token-1"),
    "person": person_field(PERSON),
    "client": client_field(CLIENT),
    "grant": grant_field(CLIENT.issuer, GRANT),
    "everything": EVERYTHING,
}
OTHERS = [
    token_field("token-2"),
    token_field(""),
    person_field(Person(PERSON.issuer, "bob")),
    person_field(Person("https://other.example", PERSON.subject)),
    person_field(Person(*CLIENT)),
    client_field(Client(CLIENT.issuer, "other")),
    client_field(Client(*PERSON)),
    client_field(Client(CLIENT.issuer, GRANT)),
    grant_field(CLIENT.issuer, "grant-2"),
    grant_field(CLIENT.issuer, ""),
    grant_field("https://other.example", GRANT),
    grant_field(*CLIENT),
]


@pytest.mark.attack("revoked-token")
def test_a_client_is_revoked_by_the_name_that_it_gives_itself_too(contract: Contract) -> None:
    """A block of one registration ends its tokens, though they count under a common name."""

    async def scenario(subject: Subject) -> None:
        await subject.ledger.revoke(client_field(SELF_NAMED), Revocation())

        assert await subject.ledger.take(query()) == Revoked("client")
        assert isinstance(
            await subject.ledger.take(replace(query(), registered_client=None)), Taken
        )

    contract(scenario)


@pytest.mark.attack("revoked-token")
@pytest.mark.parametrize("what", TARGETS)
def test_what_is_revoked_is_refused_until_it_is_lifted(contract: Contract, what: str) -> None:
    """A token, a person, a client or everything can be revoked, and that can be lifted."""

    async def scenario(subject: Subject) -> None:
        asked = query(take(quota=2))
        assert isinstance(await subject.ledger.take(asked), Taken)

        await subject.ledger.revoke(TARGETS[what], Revocation(metadata="ops | by hand | é\n"))
        assert await subject.ledger.take(asked) == Revoked(what)

        await subject.ledger.lift(TARGETS[what])
        assert left(await subject.ledger.take(asked)) == [0]

    contract(scenario)


@pytest.mark.parametrize("what", TARGETS)
@pytest.mark.parametrize(("offset", "refused"), [(-1, False), (0, True), (1, True)])
def test_a_revocation_ends_what_was_issued_until_then(
    contract: Contract, what: str, offset: int, refused: bool
) -> None:
    """Tokens issued at or before the moment are revoked, later ones are not."""

    async def scenario(subject: Subject) -> None:
        await subject.ledger.revoke(TARGETS[what], Revocation(issued_until=ISSUED + offset))

        assert (await subject.ledger.take(query()) == Revoked(what)) is refused

    contract(scenario)


def test_other_peoples_revocations_revoke_nothing(contract: Contract) -> None:
    """A revocation names one token, one person of one issuer, one client of one issuer."""

    async def scenario(subject: Subject) -> None:
        for target in OTHERS:
            await subject.ledger.revoke(target, Revocation())

        assert isinstance(await subject.ledger.take(query()), Taken)

    contract(scenario)


def test_a_token_without_a_person_has_no_person_to_revoke(contract: Contract) -> None:
    """A machine's token is revoked by its id, its client or everything."""

    async def scenario(subject: Subject) -> None:
        machine = Query("token-1", None, CLIENT, ISSUED, None, None, ())
        await subject.ledger.revoke(person_field(PERSON), Revocation())
        await subject.ledger.revoke(grant_field(CLIENT.issuer, GRANT), Revocation())
        await subject.ledger.revoke(grant_field(CLIENT.issuer, CLIENT.client_id), Revocation())
        assert isinstance(await subject.ledger.take(machine), Taken)

        await subject.ledger.revoke(client_field(CLIENT), Revocation())
        assert await subject.ledger.take(machine) == Revoked("client")

    contract(scenario)


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        pytest.param(b"*", True, id="all"),
        pytest.param(b"*||words", True, id="all-with-words"),
        pytest.param(b"%d" % ISSUED, True, id="moment-alone"),
        pytest.param(b"%d" % (ISSUED - 1), False, id="earlier-moment-alone"),
        pytest.param(b"%d|anything" % (ISSUED - 1), False, id="earlier-with-words"),
        pytest.param(b"%d|99|a|b\0c\n" % (ISSUED - 1), False, id="earlier-with-more"),
        pytest.param(b"0", False, id="zero"),
        pytest.param(b"", True, id="empty"),
        pytest.param(b"|1|", True, id="nothing-first"),
        pytest.param(b" 1", True, id="blank"),
        pytest.param(b"1 ", True, id="blank-after"),
        pytest.param(b"1\n", True, id="newline"),
        pytest.param(b"1\0", True, id="nul"),
        pytest.param(b"-1", True, id="negative"),
        pytest.param(b"+1", True, id="plus"),
        pytest.param(b"1.5", True, id="fraction"),
        pytest.param(b"1e3", True, id="exponent"),
        pytest.param(b"0x10", True, id="hexadecimal"),
        pytest.param("١".encode(), True, id="arabic-digit"),  # noqa: RUF001 - the trap itself
        pytest.param(b"1" * 15, True, id="15-digits"),
        pytest.param(b"0" * 16, True, id="16-digits"),
        pytest.param(b"9" * 400, True, id="400-digits"),
        pytest.param(b"\xff\xfe", True, id="binary"),
    ],
)
@pytest.mark.parametrize("what", ["token", "everything"])
def test_a_malformed_revocation_revokes(
    contract: Contract, what: str, value: bytes, refused: bool
) -> None:
    """What cannot be read as a moment revokes everything that the field names."""

    async def scenario(subject: Subject) -> None:
        await subject.put_revocation(TARGETS[what], value)

        assert (await subject.ledger.take(query()) == Revoked(what)) is refused
        found = (await subject.ledger.revocations())[TARGETS[what]]
        assert found.covers(ISSUED) is refused

    contract(scenario)


def test_revocations_come_back_as_they_were_written(contract: Contract) -> None:
    """Who, when and why are kept for people."""

    async def scenario(subject: Subject) -> None:
        written = {
            token_field("a"): Revocation(None, 5, "ops | stolen\nlaptop"),
            EVERYTHING: Revocation(17, None, ""),
        }
        for target, revocation in written.items():
            await subject.ledger.revoke(target, revocation)

        assert await subject.ledger.revocations() == written
        for target in written:
            assert await subject.ledger.lift(target)
        assert not await subject.ledger.lift(b"absent")
        assert await subject.ledger.revocations() == {}

    contract(scenario)


# --- step-ups ---------------------------------------------------------------------------------


@pytest.mark.attack("step-up-after-revocation")
@pytest.mark.parametrize("what", TARGETS)
@pytest.mark.parametrize(
    ("offset", "expected"), [(-1, StepUpMissing), (0, StepUpMissing), (1, Taken)]
)
def test_a_step_up_goes_with_the_tokens_of_its_time(
    contract: Contract, what: str, offset: int, expected: type
) -> None:
    """A new token does not find the step-up of a log-in that a revocation ended."""

    async def scenario(subject: Subject) -> None:
        now = int(await subject.now())
        asked = replace(query(take(), need=StepUpNeed(Method.TOTP, None)), issued_at=now)
        await subject.ledger.revoke(TARGETS[what], Revocation(issued_until=now - 100))
        await subject.ledger.record_step_up(KEY, Method.TOTP, now - 100 + offset, 300)

        assert isinstance(await subject.ledger.take(asked), expected)

    contract(scenario)


@pytest.mark.parametrize(
    ("need", "proved", "expected"),
    [
        pytest.param(Method.TOTP, Method.TOTP, Taken, id="totp"),
        pytest.param(Method.ANY, Method.TOTP, Taken, id="totp-for-any"),
        pytest.param(Method.ANY, Method.ANY, Taken, id="any"),
        pytest.param(Method.TOTP, Method.ANY, StepUpMissing, id="any-for-totp"),
        pytest.param(Method.TOTP, Method.OTP, StepUpMissing, id="otp-for-totp"),
        pytest.param(Method.ANY, Method.NONE, StepUpMissing, id="password"),
    ],
)
def test_a_step_up_proves_its_method_only(
    contract: Contract, need: Method, proved: Method, expected: type
) -> None:
    """A record satisfies a need where it has every method that is asked for."""

    async def scenario(subject: Subject) -> None:
        now = int(await subject.now())
        asked = query(take(), need=StepUpNeed(need, 300))
        assert await subject.ledger.take(asked) == StepUpMissing()
        await subject.ledger.record_step_up(KEY, proved, now, DAY)

        assert isinstance(await subject.ledger.take(asked), expected)

    contract(scenario)


@pytest.mark.parametrize(
    ("age", "need", "expected"),
    [
        pytest.param(290, RECENT, Taken, id="young"),
        pytest.param(301, RECENT, StepUpTooOld, id="old"),
        pytest.param(10 * DAY, TOTP, Taken, id="age-does-not-matter"),
        pytest.param(-(LEEWAY - 10), RECENT, Taken, id="within-leeway"),
        pytest.param(-(LEEWAY + 10), RECENT, StepUpMissing, id="from-the-future"),
        pytest.param(-DAY, TOTP, Taken, id="from-the-future-age-does-not-matter"),
    ],
)
def test_a_step_up_is_as_old_as_its_log_in(
    contract: Contract, age: int, need: StepUpNeed, expected: type
) -> None:
    """The age counts from auth_time, by the ledger's own clock; the future is not believed."""

    async def scenario(subject: Subject) -> None:
        now = int(await subject.now())
        await subject.ledger.record_step_up(KEY, Method.TOTP, now - age, DAY)

        assert isinstance(await subject.ledger.take(query(take(), need=need)), expected)

    contract(scenario)


@pytest.mark.attack("step-up-of-another")
@pytest.mark.parametrize(
    "other",
    [
        pytest.param(StepUpKey(PERSON, "grant-2", "files"), id="grant"),
        pytest.param(StepUpKey(PERSON, "grant-1", "notes"), id="server"),
        pytest.param(StepUpKey(Person(PERSON.issuer, "bob"), "grant-1", "files"), id="person"),
        pytest.param(StepUpKey(Person("https://o", "ada"), "grant-1", "files"), id="issuer"),
        pytest.param(StepUpKey(PERSON, "grant-1f", "iles"), id="moved-boundary"),
    ],
)
def test_a_step_up_helps_nobody_else(contract: Contract, other: StepUpKey) -> None:
    """One grant's step-up for a server helps no other grant, server or person."""

    async def scenario(subject: Subject) -> None:
        now = int(await subject.now())
        await subject.ledger.record_step_up(KEY, Method.TOTP, now, DAY)

        assert isinstance(await subject.ledger.take(query(need=RECENT)), Taken)
        assert await subject.ledger.take(query(need=RECENT, key=other)) == StepUpMissing()

    contract(scenario)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(value, id=ascii(value)[:20])
        for value in (
            b"", b" ", b"3", b"1 ", b" 3", b"1  3", b"1 3 ", b" 1 3", b"1 3\n", b"-1 3", b"1 -3",
            b"1.0 3", b"1e9 3", b"0x1 3", b"1 3.0", b"1 8", b"1 33", b"1 0x3", b"1|3", b"1\t3",
            b"nan 3", b"inf 3", b"1" * 16 + b" 3", b"9" * 400 + b" 3", b"\xff", b"1 3\0",
            "1 ٣".encode(),
        )
    ],
)  # fmt: skip
def test_a_malformed_step_up_proves_nothing(contract: Contract, value: bytes) -> None:
    """What cannot be read as a moment and methods is no record."""

    async def scenario(subject: Subject) -> None:
        await subject.put_step_up(KEY, value)

        assert await subject.ledger.take(query(need=TOTP)) == StepUpMissing()

    contract(scenario)


# --- sessions ---------------------------------------------------------------------------------

NEED_ANY = StepUpNeed(Method.ANY, None)


def using(one: Session, *takes: Take, need: StepUpNeed | None = None) -> Query:
    return replace(query(*takes, need=need), session=one)


@pytest.mark.attack("session-of-another")
@pytest.mark.parametrize("takes", [(), (take("a", quota=99), take("b", quota=99))], ids=len)
@pytest.mark.parametrize("need", [None, NEED_ANY], ids=["plain", "step-up"])
def test_a_session_is_its_first_users(
    contract: Contract, takes: tuple[Take, ...], need: StepUpNeed | None
) -> None:
    """Whoever uses a session first keeps it; nobody else's use passes, charges or takes it over."""

    async def scenario(subject: Subject) -> None:
        await subject.ledger.record_step_up(KEY, Method.ANY, ISSUED, DAY)
        mine, theirs = session(), session(owner="bob")
        assert isinstance(await subject.ledger.take(using(mine, *takes, need=need)), Taken)

        for other in (theirs, session(client="cursor"), session(owner="claude", client="ada")):
            answer = await subject.ledger.take(using(other, *takes, need=need))
            assert answer == SessionOfAnother()
        again = await subject.ledger.take(using(mine, *takes, need=need))
        assert left(again) == [97] * len(takes)
        fresh = using(session("another", "bob"), *takes, need=need)
        assert isinstance(await subject.ledger.take(fresh), Taken)
        assert isinstance(await subject.ledger.take(query(*takes, need=need)), Taken)

    contract(scenario)


@pytest.mark.attack("session-of-another")
def test_only_an_admitted_request_binds_a_session(contract: Contract) -> None:
    """What is revoked, lacks a step-up or is over a limit leaves a session to its owner."""

    async def scenario(subject: Subject) -> None:
        small, bobs = take("small", quota=1), session(owner="bob")
        await subject.ledger.take(query(small))
        assert isinstance(await subject.ledger.take(using(bobs, small)), OverLimit)
        assert await subject.ledger.take(using(bobs, need=TOTP)) == StepUpMissing()
        await subject.ledger.revoke(EVERYTHING, Revocation())
        assert await subject.ledger.take(using(bobs)) == Revoked("everything")
        await subject.ledger.lift(EVERYTHING)

        assert isinstance(await subject.ledger.take(using(session())), Taken)
        assert await subject.ledger.take(using(bobs)) == SessionOfAnother()

    contract(scenario)


def test_a_session_of_another_is_told_before_step_ups_and_limits(contract: Contract) -> None:
    """A foreign session tells a caller nothing of limits and leads to no step-up."""

    async def scenario(subject: Subject) -> None:
        small = take("small", quota=1)
        await subject.ledger.take(using(session(), small))

        answer = await subject.ledger.take(using(session(owner="bob"), small, need=TOTP))
        assert answer == SessionOfAnother()

    contract(scenario)


def test_a_binding_that_has_ended_is_anybodys(contract: Contract) -> None:
    """After its lifetime without use a session binds whoever comes next."""

    async def scenario(subject: Subject) -> None:
        await subject.ledger.take(using(session()))
        await subject.end_session(session())

        assert isinstance(await subject.ledger.take(using(session(owner="bob"))), Taken)
        assert await subject.ledger.take(using(session())) == SessionOfAnother()

    contract(scenario)


@pytest.mark.attack("bounded-memory")
def test_a_person_binds_a_bounded_number_of_sessions(contract: Contract) -> None:
    """Of one person the newest stay bound; whatever it invents, nobody else's session goes."""

    async def scenario(subject: Subject) -> None:
        # A session that ada has bound before, and that is bob's by now: the first of either.
        await subject.ledger.take(using(session("0")))
        await subject.end_session(session("0"))
        await subject.ledger.take(using(session("0", "bob")))
        await subject.ledger.take(using(session("kept", "bob")))

        for first in range(1, MOST_SESSIONS + 2, 64):
            invented = range(first, min(first + 64, MOST_SESSIONS + 2))
            asked = [subject.ledger.take(using(session(str(number)))) for number in invented]
            assert all(isinstance(each, Taken) for each in await asyncio.gather(*asked))

        async def free(name: str) -> bool:
            asked = using(session(name, "eve"))
            # Together with what is never charged: it looks and does not bind.
            answer = await subject.ledger.take(replace(asked, takes=unsatisfiable_takes()))
            return not isinstance(answer, SessionOfAnother)

        assert not await free("kept")
        assert not await free("0")
        assert [await free(str(n)) for n in (1, 2, 3, MOST_SESSIONS + 1)] == [
            True, False, False, False,
        ]  # fmt: skip

    contract(scenario)


@pytest.mark.attack("bounded-memory")
def test_a_session_that_was_bound_anew_counts_from_then(contract: Contract) -> None:
    """Of one that ended and came back nothing old is left that would end it before its turn."""

    async def scenario(subject: Subject) -> None:
        async def bind(*names: str) -> None:
            asked = [subject.ledger.take(using(session(name))) for name in names]
            assert all(isinstance(each, Taken) for each in await asyncio.gather(*asked))

        async def is_bound(name: str) -> bool:
            asked = replace(using(session(name, "eve")), takes=unsatisfiable_takes())
            return isinstance(await subject.ledger.take(asked), SessionOfAnother)

        await bind("back")
        await subject.end_session(session("back"))
        await bind("first", "second")
        await bind("back")
        newer = [str(number) for number in range(MOST_SESSIONS - 1)]
        for first in range(0, len(newer), 64):
            await bind(*newer[first : first + 64])
        # As many as may be were bound since: it is the oldest of them.
        assert await is_bound("back")
        assert not await is_bound("first")
        await bind("last")
        assert not await is_bound("back")
        assert await is_bound(newer[0])

    contract(scenario)


@pytest.mark.attack("session-of-another")
def test_a_binding_is_compared_whole(contract: Contract) -> None:
    """Two owners whose names begin alike are two."""

    async def scenario(subject: Subject) -> None:
        await subject.ledger.take(using(session(owner="bob")))
        for stranger in ("bo", "bobby", "ada"):
            assert await subject.ledger.take(using(session(owner=stranger))) == SessionOfAnother()
        assert isinstance(await subject.ledger.take(using(session(owner="bob"))), Taken)

    contract(scenario)


# --- the order --------------------------------------------------------------------------------


def test_the_first_thing_that_is_wrong_is_told_and_nothing_is_charged(contract: Contract) -> None:
    """Revoked comes before step-ups, step-ups before limits, and only all of them charge."""

    async def scenario(subject: Subject) -> None:
        now = int(await subject.now())
        small = take("small", quota=1)
        asked = query(take("large", quota=9), small, need=RECENT)
        await subject.ledger.take(query(small))
        await subject.ledger.revoke(EVERYTHING, Revocation())

        assert await subject.ledger.take(asked) == Revoked("everything")
        await subject.ledger.lift(EVERYTHING)
        assert await subject.ledger.take(asked) == StepUpMissing()
        await subject.ledger.record_step_up(KEY, Method.TOTP, now - 400, DAY)
        assert await subject.ledger.take(asked) == StepUpTooOld()
        await subject.ledger.record_step_up(KEY, Method.TOTP, now, DAY)
        over = await subject.ledger.take(asked)
        assert isinstance(over, OverLimit)
        assert left(over) == [9, 0]

    contract(scenario)


def test_a_need_without_a_record_to_look_for_cannot_be_asked() -> None:
    """A step-up need that names no record must not pass for no need."""
    for key, need in ((None, RECENT), (KEY, None)):
        with pytest.raises(ValueError, match="come together"):
            Query("t", PERSON, CLIENT, ISSUED, key, need, ())
