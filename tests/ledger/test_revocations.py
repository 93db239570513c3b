"""Revoking, listing and lifting, on the in-memory ledger and on real servers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.config.load import read
from authz.config.problems import ConfigError
from authz.core.ledger import Mode, Revoked, StepUpMissing, Taken, UnavailableError
from authz.core.principal import Client, Person
from authz.core.second_factor import Method, StepUpNeed
from authz.ledger import revocations
from authz.ledger.keys import RedisKeys, person_field
from authz.ledger.memory import MemoryLedger
from authz.ledger.records import Revocation, stricter
from authz.ledger.redis import RedisOptions
from authz.ledger.resilient import OutageOptions, ResilientLedger
from authz.ledger.revocations import (
    CLOCK_MARGIN,
    MAX_LIFETIME,
    NotLiftedError,
    RevocationEntry,
    RevocationNote,
    RevocationStore,
    RevocationTarget,
    encode_metadata,
    lift,
    prune,
    read_entry,
    revoke,
)
from authz.ledger.revocations import list_revocations as listed
from tests.ledger.queries import (
    CLIENT,
    KEY,
    PERSON,
    START,
    Contract,
    Subject,
    connected,
    patient,
    query,
    take,
)
from tests.support.valkey import ValkeyServer

NOW = 1_800_000_000
OPS = RevocationNote(NOW, "ops", "laptop stolen")
TARGETS = {
    "token": revocations.token_target("token-1"),
    "person": revocations.person_target(PERSON),
    "client": revocations.client_target(CLIENT),
    "everything": revocations.everything_target(),
}


@pytest.mark.parametrize("what", TARGETS)
def test_what_is_taken_back_is_refused_and_listed(contract: Contract, what: str) -> None:
    """A revocation counts at once, and the list tells whose it is, who made it and why."""

    async def scenario(subject: Subject) -> None:
        made = await revoke(subject.ledger, TARGETS[what], None, None, OPS)

        assert await subject.ledger.take(query()) == Revoked(what)
        (shown,) = await listed(subject.ledger, NOW)
        assert shown == made
        assert (shown.kind, shown.note) == (what, OPS)
        assert shown.target == TARGETS[what]

    contract(scenario)


@pytest.mark.parametrize("what", ["person", "client"])
def test_a_lifted_person_begins_anew(contract: Contract, what: str) -> None:
    """New tokens pass; old ones and the step-ups of their time do not come back."""

    async def scenario(subject: Subject) -> None:
        now = int(await subject.now())
        await revoke(subject.ledger, TARGETS[what], None, None, OPS)
        await subject.ledger.record_step_up(KEY, Method.TOTP, now - 60, 300)
        ((_, left),) = await lift(
            subject.ledger, [TARGETS[what].field.decode()], now, OPS, restore=False
        )

        assert left is not None
        assert left.target == TARGETS[what]
        old, new = (replace(query(take()), issued_at=now + offset) for offset in (0, 1))
        assert await subject.ledger.take(old) == Revoked(what)
        assert isinstance(await subject.ledger.take(new), Taken)
        need = StepUpNeed(Method.TOTP, None)
        assert (
            await subject.ledger.take(replace(new, step_up=need, step_up_key=KEY))
            == StepUpMissing()
        )

    contract(scenario)


def test_lifting_twice_does_not_bring_old_tokens_back(contract: Contract) -> None:
    """What a lift leaves behind is removed by name only."""

    async def scenario(subject: Subject) -> None:
        name = TARGETS["person"].field.decode()
        await revoke(subject.ledger, TARGETS["person"], None, None, OPS)
        await lift(subject.ledger, [name], NOW, OPS, restore=False)

        with pytest.raises(NotLiftedError, match="--restore"):
            await lift(subject.ledger, [name], NOW + 1, OPS, restore=False)
        assert await subject.ledger.take(query()) == Revoked("person")
        await lift(subject.ledger, [name], NOW, OPS, restore=True)
        assert isinstance(await subject.ledger.take(query()), Taken)

    contract(scenario)


class _ChangedMeanwhile:
    """A store in which somebody revokes more as soon as the revocations were read."""

    def __init__(self, store: RevocationStore, target: RevocationTarget) -> None:
        self._store = store
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def revocations(self) -> Mapping[bytes, Revocation]:
        found = await self._store.revocations()
        await revoke(self._store, self._target, None, None, replace(OPS, reason="again"))
        return found


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.attack("lift-over-a-new-revocation")
def test_a_revocation_that_was_changed_meanwhile_is_not_lifted(
    contract: Contract, *, restore: bool
) -> None:
    """Who lifts one revocation does not lift another that took its place."""

    async def scenario(subject: Subject) -> None:
        target = TARGETS["everything"]
        await revoke(subject.ledger, target, None, None, OPS)
        before = (await subject.ledger.revocations())[target.field]
        await subject.ledger.revoke(target.field, replace(before, until=NOW + 9_000_000))
        store: Any = _ChangedMeanwhile(subject.ledger, target)

        with pytest.raises(NotLiftedError, match="changed meanwhile"):
            await lift(store, [target.field.decode()], NOW, OPS, restore=restore)
        (left,) = (await subject.ledger.revocations()).values()
        assert (left.issued_until, left.until) == (None, None)

    contract(scenario)


def test_a_second_revocation_weakens_nothing(contract: Contract) -> None:
    """Who asks for less than there is changes nothing; who asks for more gets it."""

    async def scenario(subject: Subject) -> None:
        target = TARGETS["person"]
        first = await revoke(subject.ledger, target, 100, 100 + MAX_LIFETIME, OPS)
        assert (
            await revoke(subject.ledger, target, 50, 50 + MAX_LIFETIME, RevocationNote(1, "x", "y"))
            == first
        )

        wider = await revoke(subject.ledger, target, None, None, RevocationNote(2, "x", "y"))
        assert wider.revocation.issued_until is None
        assert wider.note.by == "x"
        again = await revoke(subject.ledger, target, 100, 100 + MAX_LIFETIME, OPS)
        assert (again.revocation.issued_until, again.revocation.until) == (None, None)
        assert await subject.ledger.take(query()) == Revoked("person")

    contract(scenario)


@pytest.mark.attack("revoked at the same moment by two operators")
def test_of_operators_at_once_nobody_weakens_anothers_revocation(contract: Contract) -> None:
    """The strictest of concurrent revocations stands, and each operator sees at least its own."""

    async def scenario(subject: Subject) -> None:
        asked = (None, *range(100, 115))
        made = await asyncio.gather(
            *(revoke(subject.ledger, TARGETS["person"], moment, None, OPS) for moment in asked)
        )

        for moment, entry in zip(asked, made, strict=True):
            stands = entry.revocation.issued_until
            assert stands is None or (moment is not None and stands >= moment)
        (stored,) = (await subject.ledger.revocations()).values()
        assert stored.issued_until is None

    contract(scenario)


@pytest.mark.attack("revoked at the same moment by two operators")
def test_a_write_between_reading_and_writing_is_seen(server: ValkeyServer, deployment: str) -> None:
    """An update is compare-and-set: it begins again with what another writer has stored."""
    key, field = RedisKeys(deployment).revocations, TARGETS["person"].field
    seen: list[int | None] = []

    async def update(values: Iterator[bytes]) -> Revocation:
        def change(before: Revocation | None) -> Revocation:
            seen.append(None if before is None else before.issued_until)
            for value in values:
                server.command("HSET", key, field, value)
                break
            return stricter(before, Revocation(60))

        async with connected(patient(server, deployment)) as ledger:
            return await ledger.update(field, change)

    # The second value cannot be decoded and encoded again without a change.
    assert asyncio.run(update(iter([b"50||", b"55|odd|\xff"]))) == Revocation(60)
    assert seen == [None, 50, 55]
    assert server.command("HGET", key, field).startswith(b"60|")
    server.command("DEL", key)
    with pytest.raises(UnavailableError, match="again and again"):
        asyncio.run(update(cycle([b"1||", b"2||"])))


def test_what_nobody_needs_any_more_goes(contract: Contract) -> None:
    """An expired token's record is removed, a day late: no clock that is off brings it back."""

    async def scenario(subject: Subject) -> None:
        await revoke(subject.ledger, TARGETS["token"], None, NOW, OPS)
        await revoke(subject.ledger, TARGETS["person"], None, None, OPS)

        assert len(await listed(subject.ledger, NOW + CLOCK_MARGIN)) == 2
        assert [each.kind for each in await listed(subject.ledger, NOW + CLOCK_MARGIN + 1)] == [
            "person"
        ]
        assert list(await subject.ledger.revocations()) == [TARGETS["person"].field]

    contract(scenario)


class Overtaken:
    """A store in which somebody takes a target back between a reading and what follows it."""

    def __init__(self, inner: Any, field: bytes, revocation: Revocation) -> None:
        self._inner, self._field, self._revocation = inner, field, revocation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def revocations(self) -> Mapping[bytes, Revocation]:
        found: Mapping[bytes, Revocation] = await self._inner.revocations()
        await self._inner.revoke(self._field, self._revocation)
        return found


@pytest.mark.attack("revoked anew while the last revocation of the same is cleared away")
@pytest.mark.parametrize("clears", [prune, listed])
def test_what_is_revoked_meanwhile_is_not_cleared_away(
    contract: Contract, clears: Callable[[Any, float], Awaitable[object]]
) -> None:
    """What nobody needs any more goes as it was read; a newer record of the same target stays."""

    async def scenario(subject: Subject) -> None:
        field = TARGETS["person"].field
        await subject.ledger.revoke(field, Revocation(NOW - MAX_LIFETIME, NOW - CLOCK_MARGIN - 1))
        newer = Revocation(None, None, "taken back")
        await clears(Overtaken(subject.ledger, field, newer), NOW)
        assert await subject.ledger.revocations() == {field: newer}

    contract(scenario)


def test_ids_may_be_cut_and_are_lifted_together_or_not_at_all(contract: Contract) -> None:
    """One that names none or several lifts nothing of the others."""

    async def scenario(subject: Subject) -> None:
        for name in ("aaaa1", "aaaa2", "bbbb1"):
            await revoke(subject.ledger, revocations.token_target(name), None, None, OPS)
        for wrong in ("token:aaaa", "token:cccc", "token:bbb", "token:", "", "everything", "\x1b"):
            with pytest.raises(NotLiftedError):
                await lift(subject.ledger, ["token:bbbb", wrong], NOW, OPS, restore=False)
        assert len(await subject.ledger.revocations()) == 3

        await lift(subject.ledger, ["token:bbbb", "token:aaaa2"], NOW, OPS, restore=False)
        assert list(await subject.ledger.revocations()) == [b"token:aaaa1"]

    contract(scenario)


def test_a_name_that_its_field_does_not_prove_is_not_shown() -> None:
    """A record cannot say that it is somebody else's."""
    bob = Revocation(metadata=encode_metadata(revocations.person_target(Person("i", "bob")), OPS))

    assert read_entry(person_field(Person("i", "ada")), bob).target.name == ""
    assert read_entry(person_field(Person("i", "bob")), bob).target.name == "bob"


@given(field=st.binary(max_size=80), words=st.text(max_size=400))
def test_any_record_is_shown_and_printable(field: bytes, words: str) -> None:
    """Whatever stands in Redis neither raises nor steers a terminal."""
    entry = read_entry(field, Revocation(metadata=words))

    shown = (entry.target.name, entry.note.by, entry.note.reason)
    assert all(text.isprintable() for text in shown)
    assert entry.id.isascii()


@example(name="x" * 2048, by="", why="")  # the longest id of a registered client
@given(name=st.text(min_size=1, max_size=256), by=st.text(max_size=64), why=st.text(max_size=200))
def test_words_come_back_as_they_were_written(name: str, by: str, why: str) -> None:
    """Separators, quotes and any letters are no trouble; the record stays small."""
    target = revocations.client_target(Client("https://auth.example.com", name))
    revocation = Revocation(metadata=encode_metadata(target, RevocationNote(NOW, by, why)))
    entry: RevocationEntry = read_entry(target.field, revocation)

    assert len(revocation.encode()) < 8192
    if all(text.isprintable() for text in (name, by, why)):
        assert (entry.target, entry.note) == (target, RevocationNote(NOW, by, why))


def test_no_token_may_live_longer_than_a_record() -> None:
    """What `issuer.max_lifetime` may be set to is what records are kept for."""
    text = (
        "issuer: {url: 'https://auth.example.com', max_lifetime: %s}\n"
        "gateway: {url: 'https://mcp.example.com', tls: {certificate: /c, key: /k}}\n"
        "servers: {files: {upstream: 'http://files:8000/mcp'}}\n"
    )

    assert (
        read(text % "30d", "authz.yaml", {}, secrets=False).config.issuer.max_lifetime
        == MAX_LIFETIME
    )
    with pytest.raises(ConfigError):
        read(text % "31d", "authz.yaml", {}, secrets=False)


@pytest.mark.attack("revoked-token")
def test_every_worker_refuses_at_once_and_while_redis_is_away(fragile: ValkeyServer) -> None:
    """The next request of any worker is refused; and with Redis gone, by the copy it has read."""

    async def scenario() -> None:
        options = RedisOptions(fragile.url, timeout=20)
        async with connected(options) as operator, connected(options) as a, connected(options) as b:
            workers = [
                ResilientLedger(
                    each, each, MemoryLedger(lambda: START), OutageOptions(), lambda: 0.0
                )
                for each in (a, b)
            ]
            for worker in workers:
                await worker.refresh()
                assert isinstance(await worker.take(query()), Taken)

            await revoke(operator, TARGETS["person"], None, None, OPS)
            assert [await each.take(query()) for each in workers] == [Revoked("person")] * 2

            for worker in workers:
                await worker.refresh()  # which every worker does every 5 seconds
            fragile.kill()
            assert [await each.take(query()) for each in workers] == [Revoked("person")] * 2
            stranger = replace(query(), person=Person("i", "bob"))
            answers = [await each.take(stranger) for each in workers]
            assert answers == [Taken((), Mode.LOCAL)] * 2

    asyncio.run(scenario())
