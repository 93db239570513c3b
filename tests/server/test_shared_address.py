"""Opaque tokens behind one address, a stranger among them: the check with a real verifier.

Invariant: the issuer is asked in vain about few tokens of an address, and none waits for a stranger
that the issuer has once called active.
"""

import asyncio
import io
from collections.abc import Awaitable, Callable

import pytest

from authz.ledger.deadline import Deadline
from authz.ledger.memory import MemoryLedger
from authz.server.check import Check, Snapshot
from authz.server.refusal_limiter import BAD_TOKENS, RefusalLimiter
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from tests.support.values import policy, request
from tests.support.wire import WireAnswer, answer, check_request, reason_of
from tests.tokens.opaque import ANSWER, INACTIVE, IntrospectionDesk, Said, junk
from tests.tokens.token_factory import rsa_signer

ADDRESS = "192.0.2.7"


class Office:
    """One worker, and those who ask from one address."""

    def __init__(self) -> None:
        self.good: set[str] = set()
        self.desk = IntrospectionDesk(self._said, capacity=1000)
        recorder = Recorder(Metrics(), EventLog("json", io.StringIO(), clock=lambda: 0.0))
        clock = self.desk.clock
        ledger = MemoryLedger(clock)
        self.check = Check(
            Snapshot(policy(), self.desk.verifier, ledger, Deadline(5.0)),
            recorder,
            RefusalLimiter(),
            clock=clock,
        )

    def _said(self, token: str) -> Said:
        return ANSWER if token in self.good else INACTIVE

    @property
    def asked(self) -> int:
        return len(self.desk.endpoint.asked)

    async def ask(self, token: str) -> WireAnswer:
        sent = request(authorization=f"Bearer {token}", address=ADDRESS)
        return answer(await self.check(check_request(sent)))

    async def flood(self) -> None:
        """Send twice as many tokens as an address may, each made up anew."""
        for _ in range(2 * BAD_TOKENS.quota):
            await self.ask(junk())


def play(scene: Callable[[Office], Awaitable[None]]) -> None:
    async def run() -> None:
        office = Office()
        try:
            await scene(office)
        finally:
            await office.desk.introspector.aclose()
            await office.desk.bench.keys.aclose()

    asyncio.run(run())


@pytest.mark.attack("shared-address")
def test_a_token_that_was_active_before_waits_for_no_stranger() -> None:
    """Who made a pause of a minute is asked about anew, however many junk tokens came meanwhile."""

    async def scene(office: Office) -> None:
        token = junk()
        office.good = {token}
        assert (await office.ask(token)).allowed
        office.desk.clock.now += office.desk.lookups.ages.active + 30
        await office.flood()
        assert (await office.ask(junk())).status == 429
        assert (await office.ask(token)).allowed

    play(scene)


@pytest.mark.attack("shared-address")
def test_tokens_that_have_ended_are_no_bad_ones() -> None:
    """A hundred people whose tokens end at the same time are told so, and lock nobody out."""

    async def scene(office: Office) -> None:
        crowd = [junk() for _ in range(2 * BAD_TOKENS.quota)]
        office.good = set(crowd)
        assert all([(await office.ask(token)).allowed for token in crowd])
        office.good = {new := junk()}
        office.desk.clock.now += office.desk.lookups.ages.active + 1
        assert {reason_of(await office.ask(token)) for token in crowd} == {"token_invalid"}
        assert (await office.ask(new)).allowed

    play(scene)


@pytest.mark.attack("shared-address")
def test_what_is_refused_without_asking_locks_nobody_out() -> None:
    """Tokens of other issuers, ID tokens and what is no token at all cost the issuer nothing."""

    async def scene(office: Office) -> None:
        office.good = {new := junk()}
        wrong = rsa_signer().token({"iss": "https://elsewhere.example"})
        for number in range(2 * BAD_TOKENS.quota):
            refused = [f"{wrong}{number}", f"short-{number}", f"authelia_rt_{number}{'x' * 43}"]
            assert {(await office.ask(token)).status for token in refused} == {401}
        assert office.asked == 0
        assert (await office.ask(new)).allowed

    play(scene)


@pytest.mark.attack("shared-address")
def test_a_token_not_seen_before_passes_beside_a_flood_when_it_comes_again() -> None:
    """It is told to wait for a second, and does; of the stranger's few cost the issuer anything."""

    async def scene(office: Office) -> None:
        office.good = {new := junk()}
        await office.flood()
        refused = await office.ask(new)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        office.desk.clock.now += 1
        await office.flood()
        assert (await office.ask(new)).allowed
        assert office.asked <= BAD_TOKENS.quota + 2

    play(scene)
