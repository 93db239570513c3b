"""Keys kept fresh: renewal, cooldown, deadline, withdrawal. No test here waits for a clock."""

import asyncio
import secrets
from collections.abc import Callable

import pytest

from authz.core.ledger import UnavailableError
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.tokens.issuer_http import IssuerError, IssuerFault
from authz.tokens.jwk import KeySet
from authz.tokens.keys import KeyRefreshPolicy, KeysFetched, Presented, SigningKeys
from tests.tokens.token_factory import (
    Source,
    TokenClock,
    ec_signer,
    key_set,
    outcome_of,
    rsa_signer,
)

UNAVAILABLE = "unavailable: issuer"
DOWN = IssuerError(IssuerFault.UNREACHABLE, "ConnectError")
FIRST = key_set(rsa_signer().jwk())
BOTH = key_set(rsa_signer().jwk(), ec_signer().jwk())


class KeysKit:
    """Keys, their source and their clock, with all that was observed."""

    def __init__(
        self,
        answer: KeySet | Exception = FIRST,
        *,
        deadline: float = 5.0,
        chance: float = 0.5,
        burst: int = 1,
        spacing: float = 0.0,
    ) -> None:
        self.source = Source(answer)
        self.clock = TokenClock(100.0)
        self.fetched: list[KeysFetched] = []
        self.pauses: list[float] = []
        self.keys = SigningKeys(
            self.source,
            KeyRefreshPolicy(
                interval=300,
                jitter=0.1,
                retry=1,
                cooldown=30,
                burst=burst,
                spacing=spacing,
                deadline=deadline,
            ),
            observer=self.fetched.append,
            clock=self.clock,
            sleep=self._sleep,
            chance=lambda: chance,
        )
        self.on_pause: Callable[[int], None] = lambda _: None
        self.most_pauses = 0
        self.rested = asyncio.Event()
        self.scheduled: list[float] = []
        self.due = asyncio.Event()
        self.tokens = 0

    async def _sleep(self, seconds: float) -> None:
        task = asyncio.current_task()
        if task is not None and task.get_name() == "scheduled-key-fetch":
            self.scheduled.append(seconds)
            due, self.due = self.clock.now + seconds, asyncio.Event()
            while self.clock.now < due:
                await self.due.wait()
                self.due.clear()
            return
        self.pauses.append(seconds)
        self.clock.now += seconds
        self.on_pause(len(self.pauses))
        if len(self.pauses) >= self.most_pauses:
            self.rested.set()
            await asyncio.Event().wait()  # until cancelled
        await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Let time pass, and what is due by then happen."""
        for _ in range(3):
            await asyncio.sleep(0)
        self.clock.now += seconds
        self.due.set()
        for _ in range(5):
            await asyncio.sleep(0)

    async def ask(
        self,
        kid: str | None = "mcp-rs256",
        alg: str = "RS256",
        *,
        age: float = 0.0,
        token: str | None = None,
    ) -> str | Reason:
        """Present another token each time, or the one that is named."""
        self.tokens += 1
        digest = (token or str(self.tokens)).encode()
        found = await outcome_of(self.keys.key(kid, alg, Presented(digest, age)))
        return found if isinstance(found, (str, Reason)) else found.key_id

    async def renew(self, times: int) -> None:
        """Let the background fetch so many times."""
        self.most_pauses = len(self.pauses) + times
        task = asyncio.create_task(self.keys.run())
        await self.rested.wait()
        self.rested.clear()
        task.cancel()
        await asyncio.wait({task})


def test_the_first_token_brings_the_first_keys() -> None:
    """Where no keys were ever loaded, a token waits for them, and the next one waits no more."""

    async def play() -> None:
        stand = KeysKit()
        assert stand.keys.age() is None

        assert await stand.ask() == "mcp-rs256"
        assert await stand.ask() == "mcp-rs256"

        assert stand.source.fetches == 1
        assert stand.keys.age() == 0.0

    asyncio.run(play())


@pytest.mark.attack("issuer-down")
def test_without_keys_and_issuer_nothing_can_be_said() -> None:
    """No keys ever loaded and an issuer that fails: unavailable, never a refusal."""

    async def play() -> None:
        stand = KeysKit(DOWN)
        for _ in range(100):
            assert await stand.ask() == UNAVAILABLE
            assert await stand.ask(None) == UNAVAILABLE
        assert stand.source.fetches == 1

        stand.source.answer = FIRST
        await stand.advance(30)
        assert await stand.ask() == "mcp-rs256"

    asyncio.run(play())


@pytest.mark.attack("random-kids")
def test_random_kids_cost_a_burst_and_one_fetch_per_cooldown() -> None:
    """10,000 random kids in 300 seconds are the burst and one fetch per cooldown, whatever they
    are told; they leave known keys alone and nothing behind.
    """

    async def play() -> None:
        stand = KeysKit(BOTH, burst=3, deadline=0.0)
        await stand.renew(1)
        began = stand.source.fetches
        size = len(vars(stand.keys))
        for _ in range(10_000):
            await stand.advance(0.03)
            assert await stand.ask(secrets.token_hex(8)) in (UNAVAILABLE, Reason.TOKEN_INVALID)
            assert await stand.ask() == "mcp-rs256"

        assert 10 <= stand.source.fetches - began <= 3 + 300 / 30
        assert size == len(vars(stand.keys))
        assert len(stand.keys._keys.keys) == 2
        assert len(stand.keys._refused) <= 1000
        await stand.keys.aclose()

    asyncio.run(play())


@pytest.mark.attack("key-rotation")
def test_a_strangers_kid_does_not_lock_out_a_new_key() -> None:
    """A made-up kid, a rotation two seconds later and another one after that: each token of a new
    key is verified after one more fetch.
    """

    async def play() -> None:
        stand = KeysKit(FIRST, burst=3)
        await stand.renew(1)
        assert await stand.ask("made-up") is Reason.TOKEN_INVALID
        await stand.advance(2)
        stand.source.answer = key_set(ec_signer("second").jwk())
        assert await stand.ask("second", "ES256") == "second"
        await stand.advance(2)
        stand.source.answer = key_set(ec_signer("third").jwk())
        assert await stand.ask("third", "ES256") == "third"
        assert stand.source.fetches == 4

    asyncio.run(play())


@pytest.mark.attack("key-rotation")
def test_a_kid_that_may_have_come_since_is_never_refused() -> None:
    """With the budget used up a kid that was published since the last fetch is answered with 503
    and the seconds to wait; the fetch comes then by itself, and brings it. The same holds for a kid
    that a stranger named before the issuer used it.
    """

    async def play() -> None:
        stand = KeysKit(FIRST)
        await stand.renew(1)
        assert await stand.ask("next") is Reason.TOKEN_INVALID
        await stand.advance(3)
        stand.source.answer = key_set(ec_signer("next").jwk())
        with pytest.raises(UnavailableError) as error:
            await stand.keys.key("next", "ES256", Presented(b"good", 1.0))
        assert error.value.retry_after == 27
        assert stand.source.fetches == 2

        await stand.advance(27)
        assert stand.scheduled == [27]
        assert stand.keys.known("next", "ES256") is not None
        assert stand.source.fetches == 3

    asyncio.run(play())


@pytest.mark.attack("key-rotation")
def test_two_rotations_within_a_second_share_the_next_fetch() -> None:
    """Tokens that come within the spacing of the last fetch wait for the next one together."""

    async def play() -> None:
        stand = KeysKit(FIRST, burst=3, spacing=1.0)
        await stand.renew(1)
        stand.source.answer = BOTH
        assert await stand.ask("mcp-es256", "ES256") == "mcp-es256"
        await stand.advance(0.25)
        stand.source.answer = key_set(ec_signer("third").jwk())
        waiting = [asyncio.create_task(stand.ask("third", "ES256")) for _ in range(100)]
        await stand.advance(0.75)

        assert set(await asyncio.gather(*waiting)) == {"third"}
        assert stand.scheduled == [0.75]
        assert stand.source.fetches == 3

    asyncio.run(play())


@pytest.mark.attack("key-rotation")
def test_the_same_kid_with_another_key_is_fetched() -> None:
    """A key that was replaced under its name is found by a fetch that began after the token came;
    where the key is the same, the signature was wrong.
    """

    async def play() -> None:
        stand = KeysKit(FIRST, burst=2)
        await stand.renew(1)
        old = stand.keys.known("mcp-rs256", "RS256")
        await stand.advance(2)
        stand.source.answer = key_set(rsa_signer("new").jwk(kid="mcp-rs256"))
        new = await stand.keys.key("mcp-rs256", "RS256", Presented(b"1", 0.0), other_than=old)
        assert old is not None
        assert new.identity != old.identity

        await stand.advance(2)
        with pytest.raises(RefusedError, match="signature"):
            await stand.keys.key("mcp-rs256", "RS256", Presented(b"2", 0.0), other_than=new)
        assert stand.source.fetches == 3

    asyncio.run(play())


@pytest.mark.attack("key-rotation")
def test_a_fetch_under_way_when_a_token_comes_proves_nothing() -> None:
    """A fetch that began before the token came may have read the old set: one more follows."""

    async def play() -> None:
        stand = KeysKit(FIRST, burst=2)
        await stand.renew(1)
        stand.source.gate = asyncio.Event()
        stranger = asyncio.create_task(stand.ask("made-up"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await stand.advance(2)
        good = asyncio.create_task(stand.ask("mcp-es256", "ES256"))
        await asyncio.sleep(0)
        stand.source.gate.set()
        await stranger
        stand.source.answer = BOTH

        assert await good == "mcp-es256"
        assert stand.source.fetches == 3

    asyncio.run(play())


@pytest.mark.attack("random-kids")
def test_what_is_older_than_the_key_set_is_refused_without_a_fetch() -> None:
    """A token issued well before the last fetch is of no key that could come, and so is one that
    was refused before; neither costs a fetch. A new key set forgets what was refused.
    """

    async def play() -> None:
        stand = KeysKit(BOTH, burst=2)
        await stand.renew(1)
        assert await stand.ask("old", age=(stand.keys.age() or 0) + 60) is Reason.TOKEN_INVALID
        assert stand.source.fetches == 1
        assert await stand.ask("made-up", token="one") is Reason.TOKEN_INVALID
        await stand.advance(2)
        assert await stand.ask("made-up", token="one") is Reason.TOKEN_INVALID
        assert stand.source.fetches == 2
        for number in range(3000):
            stand.keys._remember_refused(str(number).encode())
        assert len(stand.keys._refused) == 1000

        stand.source.answer = key_set(rsa_signer().jwk())
        await stand.renew(1)
        assert stand.keys._refused == {}

    asyncio.run(play())


@pytest.mark.attack("random-kids")
def test_the_cooldown_holds_after_a_failure_too() -> None:
    """A failing issuer is not asked once per unknown kid, and good log-ins are not thrown away."""

    async def play() -> None:
        stand = KeysKit()
        await stand.renew(1)
        stand.source.answer = DOWN
        for _ in range(1000):
            assert await stand.ask(secrets.token_hex(8)) == UNAVAILABLE
            assert await stand.ask() == "mcp-rs256"
        assert stand.source.fetches == 2

    asyncio.run(play())


@pytest.mark.attack("random-kids")
def test_concurrent_unknown_kids_share_one_fetch() -> None:
    """A thousand tokens with the new key wait for one fetch, which serves them all."""

    async def play() -> None:
        stand = KeysKit()
        await stand.renew(1)
        stand.source.answer, stand.source.gate = BOTH, asyncio.Event()
        waiting = [asyncio.create_task(stand.ask("mcp-es256", "ES256")) for _ in range(1000)]
        lost = asyncio.create_task(stand.ask("nobody"))
        await asyncio.sleep(0)
        # Nobody with a known key waits for that fetch.
        known = stand.ask()
        with pytest.raises(StopIteration) as done:
            known.send(None)
        assert done.value.value == "mcp-rs256"
        stand.source.gate.set()
        assert set(await asyncio.gather(*waiting)) == {"mcp-es256"}
        assert await lost is Reason.TOKEN_INVALID
        assert stand.source.fetches == 2

    asyncio.run(play())


@pytest.mark.attack("issuer-hangs")
def test_an_unknown_kid_waits_no_longer_than_the_deadline() -> None:
    """Past the deadline the answer is unavailable, while the fetch goes on and fills the set."""

    async def play() -> None:
        stand = KeysKit(deadline=0.01)
        await stand.renew(1)
        stand.source.answer, stand.source.gate = BOTH, asyncio.Event()

        assert await stand.ask("mcp-es256", "ES256") == UNAVAILABLE
        assert await stand.ask("mcp-es256", "ES256") == UNAVAILABLE
        assert await stand.ask() == "mcp-rs256"
        stand.source.gate.set()
        assert stand.keys._fetching is not None
        await asyncio.wait({stand.keys._fetching})

        assert await stand.ask("mcp-es256", "ES256") == "mcp-es256"
        assert stand.source.fetches == 2

    asyncio.run(play())


@pytest.mark.attack("kid-missing")
def test_no_kid_where_there_are_several_keys_causes_no_fetch() -> None:
    """No kid where none is meant is refused at once; with another algorithm than its key's a kid
    may be of a new key, so that it takes a fetch.
    """

    async def play() -> None:
        stand = KeysKit(key_set(rsa_signer().jwk(), rsa_signer("other").jwk(), ec_signer().jwk()))
        await stand.renew(1)

        assert await stand.ask(None, "RS256") is Reason.TOKEN_INVALID
        assert await stand.ask(None, "ES256") == "mcp-es256"
        assert stand.source.fetches == 1
        await stand.advance(1)
        assert await stand.ask("mcp-rs256", "ES256") is Reason.TOKEN_INVALID
        assert await stand.ask("mcp-es256", "RS256") is Reason.TOKEN_INVALID
        assert stand.source.fetches == 2

    asyncio.run(play())


def test_the_background_joins_a_fetch_under_way() -> None:
    """A renewal that comes due while a token already made us ask does not ask again."""

    async def play() -> None:
        stand = KeysKit()
        stand.source.gate = asyncio.Event()
        waiting = asyncio.create_task(stand.ask())
        await asyncio.sleep(0)
        renewing = asyncio.create_task(stand.renew(1))
        await asyncio.sleep(0)
        stand.source.gate.set()
        await renewing

        assert await waiting == "mcp-rs256"
        assert stand.source.fetches == 1

    asyncio.run(play())


def test_a_caller_that_goes_away_does_not_end_the_fetch() -> None:
    """A cancelled request leaves the fetch to the others that wait for it."""

    async def play() -> None:
        stand = KeysKit()
        stand.source.gate = asyncio.Event()
        first, second = (asyncio.create_task(stand.ask()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})
        stand.source.gate.set()

        assert await second == "mcp-rs256"
        assert first.cancelled()

    asyncio.run(play())


@pytest.mark.parametrize("failure", [DOWN, ValueError("whatever"), RecursionError()], ids=repr)
@pytest.mark.attack("issuer-down")
def test_the_last_good_keys_stay_while_fetches_fail(failure: Exception) -> None:
    """A fetch that fails, in whatever way, changes no key; the age tells how old they are."""

    async def play() -> None:
        stand = KeysKit(BOTH)
        await stand.renew(1)
        stand.source.answer = failure
        age = stand.keys.age()
        await stand.renew(5)

        assert await stand.ask() == "mcp-rs256"
        assert stand.source.fetches == 6
        assert [fetched.fault is None for fetched in stand.fetched] == [True, *[False] * 5]
        later = stand.keys.age()
        assert age is not None
        assert later is not None
        assert later > age

    asyncio.run(play())


def test_renewal_comes_at_its_interval_and_sooner_after_failures() -> None:
    """The interval while it works; after failures 1, 2, 4, ... seconds, at most the interval."""

    async def play() -> None:
        stand = KeysKit()
        stand.on_pause = lambda count: setattr(
            stand.source, "answer", FIRST if count > 13 else DOWN
        )
        await stand.renew(15)

        assert stand.pauses == [300, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300, 300]

    asyncio.run(play())


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 270), (0.5, 300), (0.999999, 330)])
def test_renewal_has_jitter(chance: float, expected: float) -> None:
    """Workers that started together do not ask together for ever."""

    async def play() -> None:
        stand = KeysKit(chance=chance)
        await stand.renew(1)

        assert stand.pauses == [pytest.approx(expected, abs=0.001)]

    asyncio.run(play())


def test_each_fetch_is_reported_and_news_is_marked() -> None:
    """The observer hears of every fetch; a fault that repeats is not news, recovery is."""

    async def play() -> None:
        stand = KeysKit(FIRST)
        answers = [FIRST, DOWN, DOWN, IssuerError(IssuerFault.LATE, "late"), FIRST, BOTH, BOTH]
        stand.on_pause = lambda n: setattr(stand.source, "answer", answers[min(n, 6)])
        await stand.renew(7)

        assert [(f.fault, f.changed) for f in stand.fetched] == [
            (None, True),
            (IssuerFault.UNREACHABLE, True),
            (IssuerFault.UNREACHABLE, False),
            (IssuerFault.LATE, True),
            (None, True),
            (None, True),
            (None, False),
        ]
        assert stand.fetched[-1].keys == 2

    asyncio.run(play())


@pytest.mark.attack("key-withdrawn")
def test_listeners_hear_of_withdrawn_keys_only() -> None:
    """A key that is gone, or is another under its old name, is told by its identity."""
    replaced = key_set(rsa_signer("new").jwk(kid="mcp-rs256"), ec_signer().jwk())
    told: list[frozenset[str]] = []

    async def play() -> None:
        stand = KeysKit(BOTH)
        stand.keys.on_withdrawn(told.append)
        answers = [BOTH, BOTH, DOWN, replaced, FIRST]
        stand.on_pause = lambda n: setattr(stand.source, "answer", answers[min(n, 4)])
        await stand.renew(5)

        assert stand.fetched[-1].withdrawn == 2

    asyncio.run(play())

    assert told == [BOTH.identities - replaced.identities, replaced.identities]


@pytest.mark.parametrize("loaded", [False, True])
def test_closing_ends_the_fetch_under_way(loaded: bool) -> None:
    """Nothing is left running when the service stops, and no log-in is thrown away by it."""

    async def play() -> None:
        stand = KeysKit()
        await stand.keys.aclose()
        if loaded:
            await stand.renew(1)
        stand.source.gate = asyncio.Event()
        waiting = asyncio.create_task(stand.ask("mcp-es256", "ES256"))
        await asyncio.sleep(0)
        await stand.keys.aclose()

        assert await waiting == UNAVAILABLE
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(play())
