"""Cached introspection (RFC 7662): one request per token for all who wait, within bounds.

Invariant: nobody waits longer than the deadline, while the request goes on. Results of active
tokens are never evicted by those of others, and an issuer that fails gets probes only.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from authz.core.ledger import UnavailableError
from authz.tokens.bulkhead import Bulkhead, NoSlotError, Slot
from authz.tokens.cache import token_digest
from authz.tokens.claims import ClaimRules
from authz.tokens.introspection_result import (
    IntrospectionResult,
    IntrospectionResults,
    read_introspection_result,
)
from authz.tokens.issuer_http import IssuerError, IssuerFault

# Seconds that a caller waits for a probe of a failing issuer.
_PROBE: Final = 0.1


class IntrospectionSource(Protocol):
    """Ask the issuer about a token."""

    async def ask(self, token: str) -> Mapping[str, object]:
        """Return its answer.

        Raises:
            IssuerError: where it gives no usable one.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ages:
    """How long results hold and callers wait; all in seconds.

    Attributes:
        active: how old the result for an active token may be.
        inactive: how long a token that is not active is not asked about again.
        deadline: how long a request waits; also when an answer counts as late.
    """

    active: float = 30.0
    inactive: float = 10.0
    deadline: float = 2.0


@dataclass(frozen=True, slots=True)
class LookUpEvent:
    """Report one look-up to the observer, which counts and logs.

    Attributes:
        outcome: `active`, `inactive`, `refused` (active, and of no use), `turned_away` (not
            asked), or the label of a fault.
        seconds: from request to response; None where none was sent.
        fault: what went wrong, where something did.
        detail: fixed text on the fault.
        news: whether the issuer recovered, or fails in another way than last time.
    """

    outcome: str
    seconds: float | None = None
    fault: IssuerFault | None = None
    detail: str = ""
    news: bool = False


def _ignore(_: LookUpEvent) -> None:
    """Observe nothing."""


class IntrospectionCache:
    """Introspect and cache. One per worker, used from one event loop."""

    def __init__(
        self,
        endpoint: IntrospectionSource,
        rules: ClaimRules,
        ages: Ages = Ages(),
        bulkhead: Bulkhead | None = None,
        *,
        capacity: int = 10_000,
        observer: Callable[[LookUpEvent], None] = _ignore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take whom to ask and how long answers hold; nothing is asked yet.

        Args:
            endpoint: whom to ask.
            rules: what claims must keep to.
            ages: how long statements hold and callers wait.
            bulkhead: how many questions there may be at once; eight by default.
            capacity: how many active and how many other tokens are remembered.
            observer: is told of every look-up.
            clock: seconds since the epoch.
        """
        self.ages = ages
        self._endpoint = endpoint
        self._rules = rules
        self._bulkhead = Bulkhead(8) if bulkhead is None else bulkhead
        # Two caches: made-up tokens fill their own and evict no known token.
        self._active = IntrospectionResults(capacity)
        self._inactive = IntrospectionResults(capacity)
        self._asking: dict[bytes, asyncio.Task[IntrospectionResult | IssuerError]] = {}
        self._observer = observer
        self._clock = clock
        self._fault: IssuerFault | None = None

    def remembered(self, token: str, since: float) -> IntrospectionResult | None:
        """Return the cached result for a token, without waiting.

        `since` (seconds since the epoch) is for active tokens: what is not active does not become
        so again, so only its own age counts.
        """
        return self._remembered(token_digest(token), since)

    def has_spoken_of(self, token: str) -> bool:
        """Tell whether a token was active once, or was found inactive lately."""
        digest, now = token_digest(token), self._clock()
        if digest in self._active:
            return True
        return self._inactive.get(digest, now - self.ages.inactive, now) is not None

    async def statement(self, token: str, since: float) -> IntrospectionResult:
        """Return a result that was requested since then, or wait for one.

        Raises:
            UnavailableError: where the issuer gives none in time.
        """
        digest, loop = token_digest(token), asyncio.get_running_loop()
        patience = self.ages.deadline
        end = loop.time() + (min(patience, _PROBE) if self._bulkhead.failing else patience)
        while (said := self._remembered(digest, since)) is None:
            task = self._asking.get(digest) or self._ask(digest, token)
            await asyncio.wait({task}, timeout=max(0.0, end - loop.time()))
            if not task.done():
                raise UnavailableError("issuer", "introspection takes too long")
            outcome = task.result()
            if isinstance(outcome, IssuerError):
                raise UnavailableError("issuer", outcome.detail)
            # A request sent before `since` does not count: ask again.
            if outcome.asked_at >= since:
                return outcome
        return said

    def renew(self, token: str) -> None:
        """Ask anew in the background, if that can be done now."""
        digest = token_digest(token)
        if digest not in self._asking:
            try:
                self._ask(digest, token)
            except UnavailableError:
                return  # what is known holds until it is too old

    async def aclose(self) -> None:
        """Cancel the requests under way."""
        tasks = set(self._asking.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _remembered(self, digest: bytes, since: float) -> IntrospectionResult | None:
        now = self._clock()
        said = self._inactive.get(digest, now - self.ages.inactive, now)
        if said is not None:
            return said
        said = self._active.get(digest, since, now)
        expired = said is None or said.principal is None or said.principal.expires_at <= now
        return None if expired else said

    def _ask(self, digest: bytes, token: str) -> "asyncio.Task[IntrospectionResult | IssuerError]":
        """Begin a request.

        Raises:
            UnavailableError: where there may be none now.
        """
        try:
            slot = self._bulkhead.join(known=digest in self._active)
        except NoSlotError as error:
            self._observer(LookUpEvent("turned_away"))
            raise UnavailableError("issuer", f"introspection: {error}") from error
        task = asyncio.create_task(self._question(digest, token, slot))
        self._asking[digest] = task
        return task

    async def _question(
        self, digest: bytes, token: str, slot: Slot
    ) -> IntrospectionResult | IssuerError:
        """Request, cache and report; raise nothing, since perhaps nobody waits any more."""
        try:
            async with slot:
                outcome = await self._answer(digest, token, slot)
        except NoSlotError as error:
            self._observer(LookUpEvent("turned_away"))
            return IssuerError(IssuerFault.UNREACHABLE, f"introspection: {error}")
        finally:
            del self._asking[digest]
        if isinstance(outcome, IntrospectionResult):
            self._remember(digest, outcome)
        return outcome

    async def _answer(
        self, digest: bytes, token: str, slot: Slot
    ) -> IntrospectionResult | IssuerError:
        loop, asked_at = asyncio.get_running_loop(), self._clock()
        began = loop.time()
        # Until it counts as failing, an issuer that hangs would hold all our requests.
        late = loop.call_later(self.ages.deadline, slot.failed)
        outcome: IntrospectionResult | IssuerError
        try:
            answer = await self._endpoint.ask(token)
            outcome = read_introspection_result(
                answer, self._rules, digest, asked_at, self._clock()
            )
        except IssuerError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 - what an issuer sends must not be a crash of ours
            outcome = IssuerError(IssuerFault.UNEXPECTED, type(error).__name__)
        finally:
            late.cancel()
        if isinstance(outcome, IssuerError):
            slot.failed()
        else:
            slot.succeeded()
        self._report(outcome, loop.time() - began)
        return outcome

    def _remember(self, digest: bytes, said: IntrospectionResult) -> None:
        shelf, other = self._active, self._inactive
        if said.principal is None:
            shelf, other = other, shelf
        shelf.put(digest, said)
        other.forget(digest)

    def _report(self, outcome: IntrospectionResult | IssuerError, seconds: float) -> None:
        before, detail = self._fault, ""
        if isinstance(outcome, IssuerError):
            self._fault, detail = outcome.fault, outcome.detail
            label = outcome.fault.value
        else:
            self._fault, label = None, outcome.label
        news = before is not self._fault
        self._observer(LookUpEvent(label, seconds, self._fault, detail, news))
