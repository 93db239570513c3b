"""Approvals in the ledger: the same answers of Redis and of the in-process ledger."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from authz.core.approval import Approval, ApprovalKey
from authz.core.ledger import (
    ApprovalDeclined,
    ApprovalMissing,
    Ledger,
    LedgerAnswer,
    OverLimit,
    Query,
    SessionOfAnother,
    StepUpMissing,
    Taken,
)
from authz.core.limits import Take, digest
from authz.core.principal import Person
from authz.core.second_factor import LEEWAY, Method, StepUpNeed
from authz.ledger.batch import BatchedLedger
from authz.ledger.keys import EVERYTHING, grant_field, person_field
from authz.ledger.records import Revocation
from tests.ledger.queries import (
    APPROVAL_KEY,
    CLIENT,
    DAY,
    GRANT,
    PERSON,
    Contract,
    Subject,
    approving,
    connected,
    left,
    patient,
    query,
    session,
    take,
)
from tests.support.valkey import ValkeyServer

ANY = StepUpNeed(Method.ANY, None)

FOR_A_TIME = replace(APPROVAL_KEY, approval=Approval(300), call=None)


async def approve(
    subject: Subject, asked: Query, *, age: int = 0, ttl: int = DAY, approved: bool = True
) -> None:
    """Record an approval of what a query asks for."""
    assert asked.approval_key is not None
    now = int(await subject.now())
    await subject.ledger.record_approval(asked.approval_key, now - age, ttl, approved=approved)


@pytest.mark.parametrize("takes", [(), (take(),), (take("a"), take("b"))])
@pytest.mark.parametrize("with_session", [False, True])
@pytest.mark.parametrize("need", [None, ANY])
@pytest.mark.attack("approval-replayed")
def test_an_approval_of_a_call_lets_it_pass_once(
    contract: Contract, takes: tuple[Take, ...], need: StepUpNeed | None, with_session: bool
) -> None:
    """It is used up by the call that passes, with whatever else the query asks."""

    async def scenario(subject: Subject) -> None:
        asked = approving(query(*takes, need=need))
        if with_session:
            asked = replace(asked, session=session())
        if need is not None:
            key = asked.step_up_key
            assert key is not None
            await subject.ledger.record_step_up(key, Method.ANY, int(await subject.now()), DAY)
        assert await subject.ledger.take(asked) == ApprovalMissing()
        await approve(subject, asked)

        assert isinstance(await subject.ledger.take(asked), Taken)
        assert await subject.ledger.take(asked) == ApprovalMissing()

    contract(scenario)


def test_an_approval_for_a_time_is_not_used_up(contract: Contract) -> None:
    """Every call of the tool passes until its time ends, by the ledger's own clock."""

    async def scenario(subject: Subject) -> None:
        asked = approving(query(take(quota=9)), 300)
        await approve(subject, asked, age=290)
        for _ in range(3):
            assert isinstance(await subject.ledger.take(asked), Taken)

        await approve(subject, asked, age=301)
        assert await subject.ledger.take(asked) == ApprovalMissing()
        # A rule with a shorter time takes no approval of before it was shortened.
        await approve(subject, asked, age=100)
        assert await subject.ledger.take(approving(query(take()), 60)) == ApprovalMissing()

    contract(scenario)


def test_an_approval_for_a_time_is_none_of_a_call_nor_the_other_way(contract: Contract) -> None:
    """A rule that asks for each call is not met by an approval of the tool."""

    async def scenario(subject: Subject) -> None:
        once, lasting = approving(query()), approving(query(), 300)
        await approve(subject, lasting)
        assert await subject.ledger.take(once) == ApprovalMissing()
        await approve(subject, once)
        await approve(subject, lasting, age=DAY)
        assert await subject.ledger.take(lasting) == ApprovalMissing()

    contract(scenario)


@pytest.mark.attack("approval-charged-or-kept")
def test_nothing_is_used_up_unless_all_passes(contract: Contract) -> None:
    """Over a limit the approval stays, and without an approval nothing is charged."""

    async def scenario(subject: Subject) -> None:
        one = take(quota=1)
        asked = approving(query(one))
        assert await subject.ledger.take(asked) == ApprovalMissing()
        assert left(await subject.ledger.take(query(one))) == [0]
        await approve(subject, asked)
        assert isinstance(await subject.ledger.take(asked), OverLimit)

        # It is there for the call that passes.
        assert isinstance(await subject.ledger.take(approving(query(take("other")))), Taken)

    contract(scenario)


def test_the_order_of_the_answers(contract: Contract) -> None:
    """Session, step-up, approval, limits: the first that is missing is told."""

    async def scenario(subject: Subject) -> None:
        now = int(await subject.now())
        one = take(quota=1)
        await subject.ledger.take(replace(query(one), session=session()))
        asked = replace(approving(query(one, need=ANY)), session=session(owner="bob"))
        assert await subject.ledger.take(asked) == SessionOfAnother()
        asked = replace(asked, session=session())
        assert await subject.ledger.take(asked) == StepUpMissing()
        assert asked.step_up_key is not None
        await subject.ledger.record_step_up(asked.step_up_key, Method.ANY, now, DAY)
        assert await subject.ledger.take(asked) == ApprovalMissing()
        await approve(subject, asked)
        assert isinstance(await subject.ledger.take(asked), OverLimit)

    contract(scenario)


@pytest.mark.parametrize("lifetime", [None, 300])
def test_a_person_who_declined_is_not_asked_at_once(
    contract: Contract, lifetime: int | None
) -> None:
    """What was declined is told so until the record expires; it is not used up by asking."""

    async def scenario(subject: Subject) -> None:
        asked = approving(query(take()), lifetime)
        await approve(subject, asked, approved=False)
        for _ in range(2):
            assert await subject.ledger.take(asked) == ApprovalDeclined()

    contract(scenario)


@pytest.mark.attack("approval-of-another")
@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(APPROVAL_KEY, call=digest("another")), id="arguments"),
        pytest.param(replace(APPROVAL_KEY, tool="delete_files"), id="tool"),
        pytest.param(replace(APPROVAL_KEY, server="notes"), id="server"),
        pytest.param(replace(APPROVAL_KEY, grant="grant-2"), id="grant"),
        pytest.param(replace(APPROVAL_KEY, person=Person(PERSON.issuer, "bob")), id="person"),
        pytest.param(replace(APPROVAL_KEY, person=Person("https://o", "ada")), id="issuer"),
        pytest.param(
            replace(APPROVAL_KEY, server="filesd", tool="elete_file"), id="moved-boundary"
        ),
    ],
)
def test_an_approval_helps_nothing_else(contract: Contract, other: ApprovalKey) -> None:
    """Each of person, grant, server, tool and call is part of what was approved."""

    async def scenario(subject: Subject) -> None:
        await approve(subject, approving(query()))
        assert await subject.ledger.take(approving(query(), key=other)) == ApprovalMissing()
        await approve(subject, approving(query(), 300))
        for_tool = await subject.ledger.take(approving(query(), 300, other))
        assert isinstance(for_tool, Taken) is (other.call != APPROVAL_KEY.call)

    contract(scenario)


@pytest.mark.attack("approval-of-another")
@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(FOR_A_TIME, approval=Approval(86_400)), id="longer"),
        pytest.param(replace(FOR_A_TIME, approval=Approval(60)), id="shorter"),
        pytest.param(replace(FOR_A_TIME, need=StepUpNeed(Method.TOTP, None)), id="method"),
        pytest.param(replace(FOR_A_TIME, need=StepUpNeed(Method.NONE, 300)), id="age"),
        pytest.param(replace(FOR_A_TIME, need=StepUpNeed(Method.NONE, 0)), id="no-age-at-all"),
    ],
)
def test_an_approval_of_something_else_that_was_asked_helps_nothing(
    contract: Contract, other: ApprovalKey
) -> None:
    """Of one tool, a large call may ask for more than a small one: each is approved by itself."""

    async def scenario(subject: Subject) -> None:
        small = replace(query(), approval_key=FOR_A_TIME)
        large = replace(query(), approval_key=other)
        await approve(subject, small)
        assert isinstance(await subject.ledger.take(small), Taken)
        assert await subject.ledger.take(large) == ApprovalMissing()

    contract(scenario)


@pytest.mark.attack("approval-after-revocation")
@pytest.mark.parametrize(
    "target", [EVERYTHING, person_field(PERSON), grant_field(CLIENT.issuer, GRANT)]
)
@pytest.mark.parametrize(("offset", "passes"), [(-1, False), (0, False), (1, True)])
def test_an_approval_goes_with_the_tokens_of_its_time(
    contract: Contract, target: bytes, offset: int, passes: bool
) -> None:
    """A revocation voids what was approved until then, for new tokens too."""

    async def scenario(subject: Subject) -> None:
        now = int(await subject.now())
        asked = replace(approving(query()), issued_at=now)
        await subject.ledger.revoke(target, Revocation(issued_until=now - 100))
        await approve(subject, asked, age=100 - offset)

        assert isinstance(await subject.ledger.take(asked), Taken) is passes

    contract(scenario)


@pytest.mark.parametrize(("age", "passes"), [(-(LEEWAY - 10), True), (-(LEEWAY + 10), False)])
def test_an_approval_of_the_future_is_none(contract: Contract, age: int, passes: bool) -> None:
    """Clocks may differ by the leeway."""

    async def scenario(subject: Subject) -> None:
        asked = approving(query())
        await approve(subject, asked, age=age)
        assert isinstance(await subject.ledger.take(asked), Taken) is passes

    contract(scenario)


@pytest.mark.parametrize("lifetime", [None, 300])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(value, id=ascii(value)[:20])
        for value in (
            b"", b"a", b"a ", b"x 1800000000", b"A 1800000000", b" a 1800000000", b"a  1800000000",
            b"a 1800000000\n", b"a 1800000000 ", b"a -1", b"a 1e9", b"a 0x1", b"a 1.0", b"aa 1",
            b"a nan", b"a " + b"9" * 16, b"a " + b"9" * 400, b"\xff", b"a 1800000000\0",
            "a ١".encode(),  # noqa: RUF001 - the trap itself
        )
    ],
)  # fmt: skip
def test_a_malformed_record_approves_nothing(
    contract: Contract, value: bytes, lifetime: int | None
) -> None:
    """What no code of ours has written is no approval."""

    async def scenario(subject: Subject) -> None:
        asked = approving(query(), lifetime)
        assert asked.approval_key is not None
        await subject.put_approval(asked.approval_key, value)
        assert await subject.ledger.take(asked) == ApprovalMissing()

    contract(scenario)


def test_a_need_without_its_key_is_no_query() -> None:
    """None of these could be taken for a query that needs no approval."""
    key = APPROVAL_KEY
    for wrong in (
        replace(key, call=None),
        replace(key, approval=Approval(300)),
    ):
        with pytest.raises(ValueError, match="approval"):
            replace(query(), approval_key=wrong)


@pytest.mark.attack("approval-raced")
def test_of_two_thousand_calls_at_once_an_approval_lets_one_pass(
    server: ValkeyServer, deployment: str
) -> None:
    """In batches over several connections, exactly one of all who have the same call passes."""

    async def run() -> None:
        options = patient(server, deployment)
        async with connected(options) as first, connected(options) as second:
            ledgers: list[Ledger] = [BatchedLedger(first), BatchedLedger(second), first, second]
            asked = approving(query(take(quota=1_000_000)))
            assert asked.approval_key is not None
            seconds, _ = await first.command("TIME")
            await first.record_approval(asked.approval_key, int(seconds), DAY, approved=True)

            answers: list[LedgerAnswer] = await asyncio.gather(
                *(ledgers[n % 4].take(asked) for n in range(2000))
            )

            found = Counter(type(each) for each in answers)
            assert found == {Taken: 1, ApprovalMissing: 1999}
            assert await first.command("EXISTS", first._keys.approval(asked.approval_key)) == 0

    asyncio.run(run())


def test_an_approval_of_a_wrong_type_is_none(server: ValkeyServer, deployment: str) -> None:
    """Redis answers such a key as if there were none, and the ledger goes on."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            await ledger.command("HSET", ledger._keys.approval(APPROVAL_KEY), "a", "1")
            assert await ledger.take(approving(query(take()))) == ApprovalMissing()

    asyncio.run(run())
