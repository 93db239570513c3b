"""What strangers publish, fetched and remembered within bounds: documents, and key sets.

Invariant: strangers can name any URL, so fetches are few at once and keep to a pace, one for all
who wait for it, and nothing is remembered without bounds. Who is known waits for no stranger, and
no address has more than its share of the fetches: who asks for what hosts never answer keeps nobody
at another address waiting, also where both ask for the same URL.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Generic, TypeVar

from authz.login.clients.faults import DocumentFault
from authz.login.clients.fetching import Fetched, FetchError
from authz.tokens.bulkhead import Bulkhead, NoSlotError, Slot, TokenBucket

SHORTEST_AGE: Final = 300.0  # seconds
LONGEST_AGE: Final = 86_400.0
PAUSE: Final = 60.0  # seconds before one that was no use is fetched again
_CAPACITY: Final = 4096
_WIDTH: Final = 8  # fetches at once
_SHARE: Final = 2  # of them for one address
_PACE: Final = 4.0  # URLs a second that nobody knows
_PATIENCE: Final = 8.0  # seconds that a caller waits, in line and for the fetch

_LOG: Final = logging.getLogger("authz.login")
V = TypeVar("V")
Fetch = Callable[[str, str], Awaitable[Fetched]]


class DocumentError(Exception):
    """Say why a URL stands for nothing that can be used.

    Attributes:
        fault: what is wrong.
        description: fixed text that follows "the client's metadata document is of no use: ".
    """

    def __init__(self, fault: DocumentFault, description: str = "") -> None:
        """Take the fault, and a description where that of the fault is not specific enough."""
        super().__init__(fault.value, description)
        self.fault = fault
        self.description = description or fault.description


@dataclass(frozen=True, slots=True)
class _Known(Generic[V]):
    value: V
    fetched_at: float
    fresh_until: float
    tried_at: float


@dataclass(frozen=True, slots=True)
class _Refused:
    fault: DocumentFault
    description: str
    until: float


@dataclass(eq=False, slots=True)
class _Search:
    """Hold who is in line for what is at one URL: everybody who asks, once for each address.

    Attributes:
        answered: done when the search is over.
        tasks: by who asks.
        fetching: the slot that fetches, once one of them has come.
    """

    answered: asyncio.Future[None]
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    fetching: Slot | None = None


class _LruDict(OrderedDict[str, V]):
    """An LRU dict; not cachetools, whose caches have one fixed capacity and evict on reading."""

    def used(self, key: str) -> V | None:
        """Return a value, and mark it as used."""
        if key in self:
            self.move_to_end(key)
        return self.get(key)

    def put(self, key: str, value: V, capacity: int) -> None:
        """Store a value, and evict down to the capacity."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > capacity:
            self.popitem(last=False)


def stranger_bulkhead(clock: Callable[[], float] = time.monotonic) -> Bulkhead:
    """Return how many fetches there may be: eight at once, and four strangers a second.

    Of one address two at once.
    """
    return Bulkhead(_WIDTH, TokenBucket(_PACE, _WIDTH, clock), share=_SHARE, clock=clock)


def nobody() -> str:
    """Return the requester where nobody is told from anybody: all have one share."""
    return ""


OnFetched = Callable[[str, DocumentFault | None, str], None]  # URL, what is wrong, in words


def unheard(url: str, fault: DocumentFault | None, description: str) -> None:
    """Hear of a fetch, and do nothing."""
    del url, fault, description


class FetchedCache(Generic[V]):
    """Fetch what is at a URL, and remember it. Used from one event loop."""

    def __init__(
        self,
        fetch: Fetch,
        read: Callable[[str, str, bytes], V],
        *,
        bulkhead: Bulkhead | None = None,
        capacity: int = _CAPACITY,
        patience: float = _PATIENCE,
        requester: Callable[[], str] = nobody,
        on_fetched: OnFetched = unheard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how to fetch and to read.

        Args:
            fetch: the document at a URL of a host (`Fetcher`); raises FetchError.
            read: what a body at a URL of a host says; raises DocumentError.
            bulkhead: how many fetches there may be; None for `stranger_bulkhead`.
            capacity: how many are remembered, and how many that were no use.
            patience: seconds that a caller waits; the fetch goes on.
            requester: the address of who asks at this moment, for the share of each.
            on_fetched: hears of each fetch, in the context of who asked for it.
            clock: seconds that never go back.
        """
        self._on_fetched = on_fetched
        self._fetch = fetch
        self._read = read
        self._bulkhead = stranger_bulkhead(clock) if bulkhead is None else bulkhead
        self._capacity = capacity
        self._patience = patience
        self._requester = requester
        self._clock = clock
        # Two caches: junk fills its own and evicts nothing else.
        self._known: _LruDict[_Known[V]] = _LruDict()
        self._refused: _LruDict[_Refused] = _LruDict()
        self._searches: dict[str, _Search] = {}

    async def at(self, url: str, host: str) -> V:
        """Return what is at a URL of a host.

        Raises:
            DocumentError: where there is nothing, or nothing can be had now.
        """
        known, refused, now = self._known.used(url), self._refused.used(url), self._clock()
        if known is not None and now < known.fresh_until:
            return known.value
        if refused is not None and now < refused.until:
            raise DocumentError(refused.fault, refused.description)
        return await self._wait_for_search(url, host)

    async def newer(self, url: str, host: str, age: float) -> V | None:
        """Return what is at a URL now, fetched anew.

        None where that was tried less than `age` ago, or cannot be had: a forged name of a key
        makes nobody fetch at a stranger's pace.

        Raises:
            DocumentError: as `at`.
        """
        known, now = self._known.get(url), self._clock()
        if known is None:
            return await self.at(url, host)
        if now < known.tried_at + age:
            return None
        # What cannot be had anew stays good for its time (`_refuse`).
        self._known[url] = replace(known, fresh_until=now, tried_at=now)
        await self.at(url, host)
        found = self._known.get(url)
        return None if found is None or found.fetched_at == known.fetched_at else found.value

    def fetches(self, url: str) -> bool:
        """Tell whether to look here is to fetch what nobody has asked for lately."""
        refused = self._refused.get(url)
        known = url in self._known or url in self._searches
        return not known and (refused is None or self._clock() >= refused.until)

    async def aclose(self) -> None:
        """End the fetches that are under way."""
        tasks = {task for search in self._searches.values() for task in search.tasks.values()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _wait_for_search(self, url: str, host: str) -> V:
        search = self._join(url, host)
        if search is not None:
            await asyncio.wait({search.answered}, timeout=self._patience)
        known = self._known.get(url)
        # Perhaps not fresh, where there is no fetch now, or it takes long.
        if known is not None and self._clock() < known.fetched_at + LONGEST_AGE:
            return known.value
        refused = self._refused.get(url)
        if refused is not None and self._clock() < refused.until:
            raise DocumentError(refused.fault, refused.description)
        raise DocumentError(DocumentFault.BUSY)

    def _join(self, url: str, host: str) -> _Search | None:
        """Return the search for what is at a URL, with whoever asks now in line; None without one.

        Who asks for what another address is in line for takes a place of its own: it would wait for
        as long as the other, who may have a long line.
        """
        search, requester = self._searches.get(url), self._requester()
        if search is not None and (search.fetching is not None or requester in search.tasks):
            return search
        try:
            slot = self._bulkhead.join(known=url in self._known, source=requester)
        except NoSlotError:
            return search
        if search is None:
            search = _Search(asyncio.get_running_loop().create_future())
            self._searches[url] = search
        if slot.begun:
            search.fetching = slot
        task = asyncio.create_task(self._run_search(url, host, slot, search))
        search.tasks[requester] = task
        task.add_done_callback(partial(self._left, url, search, requester, slot))
        return search

    def _left(
        self, url: str, search: _Search, requester: str, slot: Slot, _task: "asyncio.Task[None]"
    ) -> None:
        """End a search with its fetch, or when the last has left the line."""
        slot.abandon()  # for a task that was cancelled before it ran
        del search.tasks[requester]
        if self._searches.get(url) is not search or (search.tasks and search.fetching is not slot):
            return
        del self._searches[url]
        search.answered.set_result(None)
        for task in search.tasks.values():
            task.cancel()

    async def _run_search(self, url: str, host: str, slot: Slot, search: _Search) -> None:
        """Fetch and remember; raise nothing, since perhaps nobody waits any more.

        The bulkhead is told of no failure: hosts fail each for itself.
        """
        try:
            async with slot:
                search.fetching = search.fetching or slot
                if search.fetching is not slot:
                    return
                fetched = await self._fetch(url, host)
            value = self._read(url, host, fetched.body)
        except NoSlotError:
            return
        except DocumentError as error:
            self._refuse(url, error.fault, error.description)
        except FetchError as error:
            self._refuse(url, error.fault, error.description)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no document
            _LOG.warning("a client's metadata document: %s", type(error).__name__)
            self._refuse(url, DocumentFault.UNUSABLE, "")
        else:
            now = self._clock()
            age = min(max(float(fetched.max_age or 0), SHORTEST_AGE), LONGEST_AGE)
            self._refused.pop(url, None)
            self._known.put(url, _Known(value, now, now + age, now), self._capacity)
            self._on_fetched(url, None, "")

    def _refuse(self, url: str, fault: DocumentFault, description: str) -> None:
        """Remember for a while that there is no document, so that it is not fetched at a pace.

        The draft's section 5.2 wants no error remembered: a minute is the pause before the next
        try, which strangers would otherwise choose.
        """
        self._on_fetched(url, fault, description)
        known, now = self._known.get(url), self._clock()
        end = -1.0 if known is None else known.fetched_at + LONGEST_AGE
        if known is not None and fault.passing and now < end:
            # One that was good stays good for its longest age while it cannot be had anew: who is
            # logged in should not lose that by a bad minute of somebody's web server.
            self._known[url] = replace(known, fresh_until=min(now + PAUSE, end))
            return
        self._known.pop(url, None)
        self._refused.put(url, _Refused(fault, description, now + PAUSE), self._capacity)
