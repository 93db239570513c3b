"""When a session of a browser counts, wherever it is asked: its groups above all."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest

from authz.core.browser_session import BrowserRule, BrowserSession
from authz.core.ledger import UnavailableError
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.core.second_factor import Method, SecondFactor
from authz.ledger.browser_sessions import SessionRecords
from authz.ledger.keys import RedisKeys
from authz.ledger.memory import MemoryLedger
from authz.ledger.records import Revocation
from authz.server.browser_sessions import BrowserSessions
from authz.tokens.bulkhead import Bulkhead
from authz.tokens.sealing import Sealer
from authz.tokens.userinfo import TokenEndedError
from tests.support.admin_page import Directory, RecordStore

ORIGIN, OTHER = "https://grafana.example.com", "https://mcp.example.com"
NOW = 1_800_000_000
RULE = BrowserRule(frozenset({"admins"}), SecondFactor(Method.TOTP), 600.0)
EACH_REQUEST = replace(RULE, groups_max_age=0.0)
JOHN = BrowserSession(
    "s-john", "john", frozenset({"admins", "staff"}), Method.TOTP, NOW, NOW, NOW + 28_800, NOW,
    "a-token", NOW + 3600, True,
)  # fmt: skip


@dataclass
class SessionWorld:
    """Sessions of one browser, with a clock and an issuer of the test's."""

    now: float = NOW
    store: RecordStore = field(default_factory=RecordStore)
    directory: Directory = field(default_factory=Directory)
    faults: list[str] = field(default_factory=list)
    token: str = ""

    def __post_init__(self) -> None:
        self.ledger = MemoryLedger(lambda: self.now)
        self.sessions = BrowserSessions(
            SessionRecords(self.store, RedisKeys("t")),
            sealer=Sealer(["k" * 32], lambda: self.now),
            revocations=self.ledger,
            groups=self.directory,
            issuer="https://auth.example.com",
            clock=lambda: self.now,
            patience=0.05,
            bulkhead=Bulkhead(4, clock=lambda: self.now),
            on_fault=lambda error: self.faults.append(error.detail),
        )

    async def begin(self, session: BrowserSession = JOHN) -> None:
        self.token = await self.sessions.begin(session, ORIGIN)

    async def found(self, rule: BrowserRule = RULE, origin: str = ORIGIN) -> BrowserSession:
        found = await self.sessions.find(origin, self.token)
        return await self.sessions.judge(found, origin, self.token, rule, "192.0.2.1")

    async def refused(self, rule: BrowserRule = RULE, origin: str = ORIGIN) -> Reason | None:
        try:
            await self.found(rule, origin)
        except RefusedError as refused:
            return refused.reason
        except UnavailableError:
            return Reason.ISSUER_UNAVAILABLE
        return None

    async def settle(self) -> None:
        """Let questions that nobody waits for end."""
        for _ in range(20):
            await asyncio.sleep(0)


def play(scene: Callable[[SessionWorld], Awaitable[None]]) -> None:
    async def begun() -> None:
        world = SessionWorld()
        await world.begin()
        await scene(world)
        await world.sessions.aclose()

    asyncio.run(begun())


@pytest.mark.attack("page-session-of-another")
def test_a_session_is_of_its_origin_and_its_token() -> None:
    """The cookie of one host opens nothing at another, nor does a copy in Redis."""

    async def scene(world: SessionWorld) -> None:
        assert await world.refused() is None
        assert await world.refused(origin=OTHER) is Reason.SESSION_MISSING
        ((key, text),) = world.store.kept.items()
        # Whoever writes to Redis gives the session to a token of their own, or to another host.
        mine = await world.sessions.begin(replace(JOHN, subject="s-eve"), OTHER)
        for other in world.store.kept.keys() - {key}:
            world.store.kept[other] = text
        world.token = mine
        assert await world.refused(origin=OTHER) is Reason.SESSION_MISSING
        for token in ("", "x", f"{mine}\n", mine[:-1] + "="):
            world.token = token
            assert await world.refused(origin=OTHER) is Reason.SESSION_MISSING

    play(scene)


@pytest.mark.attack("page-rules")
def test_a_group_that_is_taken_away_ends_access_within_the_bound() -> None:
    """From half of the bound on the issuer is asked beside the request, once for all that come
    meanwhile, and the next request counts what it said; nobody waits for it before the bound.
    """

    async def scene(world: SessionWorld) -> None:
        world.now += 299
        assert await world.refused() is None
        assert world.directory.asked == []
        world.directory.said = frozenset({"staff"})
        world.directory.waits = asyncio.Event()
        world.now += 1
        for _ in range(5):
            assert await world.refused() is None
        await world.settle()
        assert len(world.directory.asked) == 1
        world.directory.waits.set()
        await world.settle()
        assert await world.refused() is Reason.PERSON_NOT_ALLOWED
        assert len(world.directory.asked) == 1
        # Put back, it is found again by half of the bound, and no log-in is needed.
        world.directory.said = frozenset({"admins"})
        world.now += 300
        assert await world.refused() is Reason.PERSON_NOT_ALLOWED
        await world.settle()
        assert (await world.found()).groups == {"admins"}

    play(scene)


@pytest.mark.attack("page-rules")
@pytest.mark.parametrize("away", ["fails", "hangs"])
def test_an_issuer_that_is_away_ends_pages_after_the_bound(away: str) -> None:
    """Until then they stay open, at no cost; then nothing is opened until it answers again."""

    async def scene(world: SessionWorld) -> None:
        world.directory.waits = asyncio.Event()
        if away == "fails":
            world.directory.said = UnavailableError("issuer", "away")
            world.directory.waits.set()
        for age in (300, 450, 599):
            world.now = NOW + age
            assert await world.refused() is None
            await world.settle()
        world.now = NOW + 600
        assert await world.refused() is Reason.ISSUER_UNAVAILABLE
        assert len(world.faults) < 4
        world.directory.said = frozenset({"admins"})
        world.directory.waits.set()
        await world.settle()
        world.now += 30  # a pause after failures
        assert await world.refused() is None

    play(scene)


@pytest.mark.attack("page-rules")
def test_where_groups_are_asked_at_each_request_they_are() -> None:
    """At the console a change counts at once, and an issuer that is away lets nobody in."""

    async def scene(world: SessionWorld) -> None:
        assert await world.refused(EACH_REQUEST) is None
        assert await world.refused(EACH_REQUEST) is None
        assert len(world.directory.asked) == 2
        world.directory.said = frozenset({"staff"})
        assert await world.refused(EACH_REQUEST) is Reason.PERSON_NOT_ALLOWED
        world.directory.said = UnavailableError("issuer", "away")
        assert await world.refused(EACH_REQUEST) is Reason.ISSUER_UNAVAILABLE

    play(scene)


@pytest.mark.attack("page-rules")
def test_a_token_that_the_issuer_ended_ends_the_session() -> None:
    """For good, and it is asked about no second time: the issuer would lock the address."""

    async def scene(world: SessionWorld) -> None:
        world.directory.said = TokenEndedError()
        world.now += 300
        assert await world.refused() is None
        await world.settle()
        assert await world.refused() is Reason.SESSION_MISSING
        assert world.store.kept == {}
        assert len(world.directory.asked) == 1

    play(scene)


@pytest.mark.attack("page-rules")
def test_nobody_is_asked_by_a_token_that_has_expired() -> None:
    """What it confirmed last counts until the bound, and no longer."""

    async def scene(world: SessionWorld) -> None:
        await world.begin(replace(JOHN, token_until=NOW + 400))
        world.now += 599
        assert await world.refused() is None
        world.now += 1
        assert await world.refused() is Reason.SESSION_MISSING
        assert world.directory.asked == []

    play(scene)


@pytest.mark.attack("page-revoked")
def test_a_log_out_is_not_undone_by_an_answer_that_was_under_way() -> None:
    """A session that was ended while the issuer was asked about it stays ended."""

    async def scene(world: SessionWorld) -> None:
        world.directory.waits = asyncio.Event()
        world.now += 300
        assert await world.refused() is None
        await world.settle()
        await world.sessions.end(ORIGIN, world.token)
        world.directory.waits.set()
        await world.settle()
        assert await world.refused() is Reason.SESSION_MISSING
        assert world.store.kept == {}

    play(scene)


@pytest.mark.attack("page-revoked")
def test_who_is_revoked_is_asked_about_nowhere() -> None:
    """Neither at half of the bound nor past it: a revocation is answered first."""

    async def scene(world: SessionWorld) -> None:
        await world.ledger.revoke(b"everything", Revocation(until=NOW))
        for age in (0, 300, 600):
            world.now = NOW + age
            assert await world.refused() is Reason.SESSION_REVOKED
            await world.settle()
        assert world.directory.asked == []

    play(scene)


@pytest.mark.attack("page-rules")
def test_a_clock_that_steps() -> None:
    """Put back, it makes no group fresh and no session longer; put forward, it ends them."""

    async def scene(world: SessionWorld) -> None:
        world.now = NOW - 61
        assert await world.refused() is Reason.SESSION_MISSING
        world.now = NOW + 28_800
        assert await world.refused() is Reason.SESSION_MISSING
        world.now = NOW + 3500
        assert await world.refused() is None  # confirmed at 3500
        world.now = NOW + 3000
        asked = len(world.directory.asked)
        assert await world.refused() is None
        assert len(world.directory.asked) == asked + 1

    play(scene)
