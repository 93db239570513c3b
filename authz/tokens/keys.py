"""The issuer's signing keys, fetched in the background and again for a `kid` that is not known.

Invariant: a token whose key is known waits for nobody. A token is refused (401) for its key only
where a successful fetch that began after the token existed does not have that key; where there was
none yet, it waits for one, or is answered with `UnavailableError` (503) and the seconds to wait.
How many fetches tokens can cause is bounded (`FetchBudget`). A fetch that fails changes nothing;
one that succeeds removes withdrawn keys together with all that was verified with them.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from authz.core.detail import Detail
from authz.core.ledger import UnavailableError
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.tokens.fetch_budget import FetchBudget
from authz.tokens.issuer_http import IssuerError, IssuerFault
from authz.tokens.jwk import KeySet, VerificationKey

_MAX_DOUBLINGS: Final = 10
_MAX_REFUSED: Final = 1000
# Seconds by which `iat` must precede a fetch before it proves that the token did: the issuer's
# clock may differ from ours by `issuer.leeway`, and it rounds down to a second.
_CLOCK_MARGIN: Final = 60.0


class KeySource(Protocol):
    """Fetch a key set (`IssuerKeys`)."""

    async def fetch(self) -> KeySet:
        """Return the key set as it is now.

        Raises:
            IssuerError: where none can be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class KeyRefreshPolicy:
    """When keys are fetched; all in seconds.

    Attributes:
        interval: between two fetches in the background, give or take `jitter` (a fraction), so
            that workers do not ask all at once.
        retry: until the first new try after a failure; doubled each time, up to the interval.
        cooldown: on average between two fetches for unknown kids, whether they succeed or not.
        burst: how many of those fetches may come before the cooldown holds: key rotations can
            follow each other, and a stranger's made-up `kid` must not use up the only one.
        spacing: least between two of those fetches.
        deadline: how long a token with an unknown kid waits for such a fetch.
        max_age: how long keys are trusted that could not be fetched again: whoever cuts us off
            from the issuer must not keep a withdrawn key alive for ever.
    """

    interval: float = 300.0
    jitter: float = 0.1
    retry: float = 1.0
    cooldown: float = 30.0
    burst: int = 3
    spacing: float = 0.5
    deadline: float = 1.0
    max_age: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Presented:
    """When a token was issued, as far as is known before its signature is verified.

    Attributes:
        digest: of the whole token. It is remembered once it was refused: a token that was refused
            for its key existed before the fetch that proved it, whatever its `iat` says.
        age: seconds since its `iat`, which is unverified: a lie about it gains a 503 in place of a
            401. Infinite where `iat` is not a number, since such a token is never valid.
    """

    digest: bytes
    age: float

    @classmethod
    def of(cls, digest: bytes, issued_at: object, now: float) -> "Presented":
        """Return what is known of a token from its `iat` claim and the time (epoch seconds)."""
        if not isinstance(issued_at, int | float) or isinstance(issued_at, bool):
            return cls(digest, math.inf)
        # A comparison in place of a subtraction: an integer may be too long for a float.
        return cls(digest, now - issued_at if issued_at < now else 0.0)


@dataclass(frozen=True, slots=True)
class KeysFetched:
    """Report one fetch to the observer, which counts and logs.

    Attributes:
        fault: what went wrong; None for a success.
        detail: fixed text on the fault.
        changed: whether the outcome or the keys differ from last time; else it is counted and not
            logged again.
        keys, skipped, withdrawn: how many keys there are now, were unusable, have gone.
    """

    fault: IssuerFault | None
    detail: str
    changed: bool
    keys: int
    skipped: int
    withdrawn: int


def _ignore(_: KeysFetched) -> None:
    """Observe nothing."""


class SigningKeys:
    """Fetch and hold the issuer's keys. One per worker, used from one event loop."""

    def __init__(
        self,
        source: KeySource,
        renewal: KeyRefreshPolicy = KeyRefreshPolicy(),
        *,
        observer: Callable[[KeysFetched], None] = _ignore,
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
        self._budget = FetchBudget(renewal.cooldown, renewal.burst, renewal.spacing)
        self._refused: dict[bytes, None] = {}  # tokens that were refused for their key
        self._loaded_at: float | None = None
        self._current_as_of: float | None = None  # when the fetch of these keys began
        self._last: IssuerFault | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._scheduled: asyncio.Task[None] | None = None  # a fetch that the budget puts off
        self._scheduled_at = 0.0
        self._listeners: list[Callable[[frozenset[str]], None]] = []

    def on_withdrawn(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Call a listener with the identities of withdrawn keys."""
        self._listeners.append(listener)

    def age(self) -> float | None:
        """Return the seconds since keys were last fetched; None where they never were."""
        return None if self._loaded_at is None else self._clock() - self._loaded_at

    def known(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Return the only key that can have signed a token, if it is held and fresh enough."""
        if self._is_too_old():
            return None
        return self._keys.choose(key_id, algorithm)

    async def key(
        self,
        key_id: str | None,
        algorithm: str,
        presented: Presented,
        other_than: VerificationKey | None = None,
    ) -> VerificationKey:
        """Return the only key that can have signed a token; without waiting where it is held.

        Args:
            key_id: the token's `kid`.
            algorithm: the token's `alg`.
            presented: when the token came into being.
            other_than: a key with that `kid` that does not verify it: the issuer may have replaced
                it by another under the same `kid`.

        Raises:
            RefusedError: TOKEN_INVALID where there is no such key.
            UnavailableError: where that cannot be said yet, because the issuer has not answered or
                may not be asked again so soon.
        """
        arrived = self._clock()
        loop = asyncio.get_running_loop()
        end = loop.time() + self._renewal.deadline
        while True:
            found = self.known(key_id, algorithm)
            if found is not None and (other_than is None or found.identity != other_than.identity):
                return found
            if self._is_settled(key_id, presented, arrived):
                self._remember_refused(presented.digest)
                raise RefusedError(
                    Reason.TOKEN_INVALID,
                    Detail.NO_KEY if other_than is None else Detail.SIGNATURE,
                )
            task = self._fetching
            if task is None or task.done():
                task = self._schedule()
            if task is self._scheduled and self._scheduled_at > arrived + self._renewal.deadline:
                raise self._unavailable("the key set was fetched too often of late")
            await asyncio.wait({task}, timeout=max(0.0, end - loop.time()))
            # A log-in is not thrown away (401) because the issuer did not answer.
            if not task.done() or task.cancelled() or self._last is not None:
                raise self._unavailable("the key set could not be read")

    def begin_fetch(self, key_id: str | None, presented: Presented) -> None:
        """Begin a fetch for a token whose key may be a new one, within the budget."""
        if not self._is_settled(key_id, presented, self._clock()) and (
            self._fetching is None or self._fetching.done()
        ):
            self._schedule()

    def _is_settled(self, key_id: str | None, presented: Presented, arrived: float) -> bool:
        """Tell whether the held keys are all that could have signed a token."""
        began = self._current_as_of
        if began is None or self._is_too_old():
            return False
        # Without a kid the only key is meant; no fetch can tell which of several it is.
        if key_id is None and len(self._keys.keys) > 1:
            return True
        return (
            began >= arrived
            or arrived - presented.age <= began - _CLOCK_MARGIN
            or presented.digest in self._refused
        )

    def _remember_refused(self, digest: bytes) -> None:
        """Remember a refused token; the oldest make room, and a new key set forgets them all."""
        self._refused[digest] = None
        if len(self._refused) > _MAX_REFUSED:
            del self._refused[next(iter(self._refused))]

    async def run(self) -> None:
        """Fetch at intervals, until cancelled."""
        failures = 0
        while True:
            await asyncio.wait({self._fetch()})
            failures = 0 if self._last is None else failures + 1
            await self._sleep(self._pause(failures))

    async def aclose(self) -> None:
        """End a fetch that is under way, and one that is scheduled."""
        for task in (self._scheduled, self._fetching):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})

    def _is_too_old(self) -> bool:
        """Tell whether the keys were fetched longer ago than they are trusted, or never."""
        age = self.age()
        return age is None or age > self._renewal.max_age

    def _unavailable(self, detail: str) -> UnavailableError:
        now = self._clock()
        wait = self._scheduled_at - now if self._is_scheduled() else self._budget.wait(now)
        return UnavailableError("issuer", detail, retry_after=max(1, math.ceil(wait)))

    def _is_scheduled(self) -> bool:
        return self._scheduled is not None and not self._scheduled.done()

    def _schedule(self) -> asyncio.Task[None]:
        """Return the next fetch that the budget allows; all that want one share it.

        It runs even where nobody can wait so long: a client that retries finds the key then.
        """
        if self._scheduled is not None and not self._scheduled.done():
            return self._scheduled
        now = self._clock()
        wait = self._budget.wait(now)
        self._budget.spend(now + wait)
        if not wait:
            return self._fetch()
        self._scheduled_at = now + wait
        self._scheduled = asyncio.create_task(self._fetch_later(wait), name="scheduled-key-fetch")
        return self._scheduled

    async def _fetch_later(self, wait: float) -> None:
        await self._sleep(wait)
        await asyncio.wait({self._fetch()})

    def _fetch(self) -> asyncio.Task[None]:
        """Return the fetch under way, or begin one: there is never more than one."""
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch_once())
        return self._fetching

    async def _fetch_once(self) -> None:
        began = self._clock()
        try:
            keys = await self._source.fetch()
        except IssuerError as error:
            self._fail(error.fault, error.detail)
        except Exception as error:  # noqa: BLE001 - what an issuer sends must not end the renewal
            self._fail(IssuerFault.UNEXPECTED, type(error).__name__)
        else:
            self._install(keys, began)

    def _fail(self, fault: IssuerFault, detail: str) -> None:
        news = self._last is not fault
        self._last = fault
        self._observer(KeysFetched(fault, detail, news, len(self._keys.keys), 0, 0))

    def _install(self, keys: KeySet, began: float) -> None:
        before, after = self._keys.identities, keys.identities
        withdrawn = before - after
        news = self._last is not None or before != after
        self._keys, self._last, self._loaded_at = keys, None, self._clock()
        self._current_as_of = began
        if before != after:
            self._refused.clear()
        if withdrawn:
            for listener in self._listeners:
                listener(withdrawn)
        self._observer(KeysFetched(None, "", news, len(after), keys.skipped, len(withdrawn)))

    def _pause(self, failures: int) -> float:
        pause = self._renewal.interval
        if failures:
            doubled = self._renewal.retry * 2.0 ** min(failures - 1, _MAX_DOUBLINGS)
            pause = min(pause, doubled)
        return pause * (1 + self._renewal.jitter * (2 * self._chance() - 1))
