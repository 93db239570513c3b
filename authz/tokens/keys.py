"""The keys that tokens are verified with, kept fresh without making anybody wait.

Law: a token whose key is known waits for nobody. Keys come in the background, and once per
cooldown for a kid that is not known; a fetch that fails changes nothing, and one that succeeds
takes withdrawn keys away together with all that was verified with them.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from authz.core.ledger import Unavailable
from authz.core.reason import Reason
from authz.core.request import Refused
from authz.tokens.documents import Fault, IssuerError
from authz.tokens.jwk import KeySet, VerificationKey

_MAX_DOUBLINGS: Final = 10
# Seconds for which a key set tells all there is to know: what it does not have is no key.
_FRESH: Final = 5.0
_MOST_UNKNOWN: Final = 1000


class KeySource(Protocol):
    """Fetch a key set: over HTTP, or a test's."""

    async def fetch(self) -> KeySet:
        """Return the key set as it is now.

        Raises:
            IssuerError: where none can be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class Renewal:
    """Say when keys are fetched; all in seconds.

    Attributes:
        interval: between two fetches in the background, give or take `jitter` (a fraction), so
            that workers do not ask all at once.
        retry: until the first new try after a failure; doubled each time, up to the interval.
        cooldown: at least between two fetches for unknown kids, whether they succeed or not.
        deadline: how long a token with an unknown kid waits for such a fetch.
        max_age: how long keys are trusted that could not be fetched again: whoever cuts us off
            from the issuer must not keep a withdrawn key alive for ever.
    """

    interval: float = 300.0
    jitter: float = 0.1
    retry: float = 1.0
    cooldown: float = 30.0
    deadline: float = 1.0
    max_age: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """Report one fetch to the observer, which counts and logs.

    Attributes:
        fault: what went wrong; None for a success.
        detail: fixed words on the fault.
        changed: whether this is news: another outcome than last time, or other keys. What is
            not news is counted and not logged again.
        keys, skipped, withdrawn: how many keys there are now, were unusable, have gone.
    """

    fault: Fault | None
    detail: str
    changed: bool
    keys: int
    skipped: int
    withdrawn: int


def _ignore(_: Fetched) -> None:
    """Observe nothing."""


class SigningKeys:
    """Keep the issuer's keys. One per worker, used from one event loop."""

    def __init__(
        self,
        source: KeySource,
        renewal: Renewal = Renewal(),
        *,
        observer: Callable[[Fetched], None] = _ignore,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Take where keys come from and when; nothing is fetched before `run` or `key`.

        Args:
            source: where keys come from.
            renewal: when they are fetched.
            observer: is told of every fetch.
            clock: seconds that never go back.
            sleep: waits between two fetches.
            chance: a number from 0 to 1, for the jitter.
        """
        self._source = source
        self._renewal = renewal
        self._observer = observer
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._keys = KeySet()
        self._unknown: dict[str, float] = {}
        self._loaded_at: float | None = None
        self._asked_at: float | None = None
        self._last: Fault | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[frozenset[str]], None]] = []

    def on_withdrawn(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Have a listener told of the identities of keys that are gone."""
        self._listeners.append(listener)

    def age(self) -> float | None:
        """Return the seconds since keys were last fetched; None where they never were."""
        return None if self._loaded_at is None else self._clock() - self._loaded_at

    async def key(self, key_id: str | None, algorithm: str) -> VerificationKey:
        """Return the key that must have signed a token; at once where it is known.

        Raises:
            Refused: TOKEN_INVALID where there is no such key.
            Unavailable: where that cannot be said, because the issuer has not answered.
        """
        if self._is_older_than(self._renewal.max_age):
            await self._look_again()
        if (found := self._known(key_id, algorithm)) is not None:
            return found
        if not self._is_remembered(key_id):
            await self._look_again()
        if (found := self._known(key_id, algorithm)) is not None:
            return found
        self._remember(key_id)
        raise Refused(Reason.TOKEN_INVALID, "no such key")

    def _is_remembered(self, key_id: str | None) -> bool:
        """Tell whether this kid was asked for and is of no key, within this cooldown."""
        asked = self._unknown.get(key_id or "")
        return asked is not None and self._clock() - asked < self._renewal.cooldown

    def _remember(self, key_id: str | None) -> None:
        """Remember a kid of no key; the oldest make room, and a new key set forgets them all."""
        if key_id is not None and not self._is_remembered(key_id):
            self._unknown.pop(key_id, None)
            self._unknown[key_id] = self._clock()
        while len(self._unknown) > _MOST_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]

    async def run(self) -> None:
        """Fetch now and again, until cancelled."""
        failures = 0
        while True:
            await asyncio.wait({self._fetch()})
            failures = 0 if self._last is None else failures + 1
            await self._sleep(self._pause(failures))

    async def aclose(self) -> None:
        """End a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    def _known(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key, or None where asking the issuer again could bring it."""
        found = self._keys.choose(key_id, algorithm)
        if found is None and self._loaded_at is not None and self._is_settled(key_id):
            raise Refused(Reason.TOKEN_INVALID, "no key of that name and algorithm")
        return found

    def _is_settled(self, key_id: str | None) -> bool:
        """Tell whether a fetch is of no use: the key is here and no match, or none was named."""
        return key_id is None or self._keys.knows(key_id)

    async def _look_again(self) -> None:
        """Wait for a fetch, within the deadline; return where it tells all there is to know."""
        task = self._fetching if self._is_fetching() else None
        if task is None and self._may_ask():
            self._asked_at = self._clock()
            task = self._fetch()
        if task is not None:
            await asyncio.wait({task}, timeout=self._renewal.deadline)
        answered = task is None or (task.done() and not task.cancelled())
        # A log-in is not thrown away (401) because the issuer did not answer, or because a
        # stranger's kid has begun the cooldown in which a new key's first token arrives.
        if not answered or self._last is not None or self._is_older_than(_FRESH):
            raise Unavailable("issuer", "the key set could not be read")

    def _is_older_than(self, seconds: float) -> bool:
        """Tell whether the keys were fetched longer ago, or never."""
        age = self.age()
        return age is None or age > seconds

    def _may_ask(self) -> bool:
        asked = self._asked_at
        return asked is None or self._clock() - asked >= self._renewal.cooldown

    def _is_fetching(self) -> bool:
        return self._fetching is not None and not self._fetching.done()

    def _fetch(self) -> asyncio.Task[None]:
        """Return the fetch under way, or begin one: there is never more than one."""
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch_once())
        return self._fetching

    async def _fetch_once(self) -> None:
        try:
            keys = await self._source.fetch()
        except IssuerError as error:
            self._fail(error.fault, error.detail)
        except Exception as error:  # noqa: BLE001 - what an issuer sends must not end the renewal
            self._fail(Fault.UNEXPECTED, type(error).__name__)
        else:
            self._install(keys)

    def _fail(self, fault: Fault, detail: str) -> None:
        news = self._last is not fault
        self._last = fault
        self._observer(Fetched(fault, detail, news, len(self._keys.keys), 0, 0))

    def _install(self, keys: KeySet) -> None:
        before, after = self._keys.identities, keys.identities
        withdrawn = before - after
        news = self._last is not None or before != after
        self._keys, self._last, self._loaded_at = keys, None, self._clock()
        if before != after:
            self._unknown.clear()
        if withdrawn:
            for listener in self._listeners:
                listener(withdrawn)
        self._observer(Fetched(None, "", news, len(after), keys.skipped, len(withdrawn)))

    def _pause(self, failures: int) -> float:
        pause = self._renewal.interval
        if failures:
            doubled = self._renewal.retry * 2.0 ** min(failures - 1, _MAX_DOUBLINGS)
            pause = min(pause, doubled)
        return pause * (1 + self._renewal.jitter * (2 * self._chance() - 1))
