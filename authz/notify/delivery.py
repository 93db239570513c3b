"""Deliver messages to one target: a bounded queue, bounded attempts, nothing read of an answer.

Invariant: each message ends as sent, failed or dropped, within a bound of time, whatever the target
does; its answer costs no memory beyond its head (tests/notify/test_delivery.py).
"""

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple
from uuid import uuid4

import httpx

from authz.http.bounded_network import BoundedTransport
from authz.notify.messages import NotifyTarget, TimedNotice, notify_request

QUEUE: Final = 64  # messages that wait for one target
_ATTEMPT: Final = 10.0  # seconds
_LONGEST_HEAD: Final = 64 * 1024  # bytes of an answer
_ATTEMPTS: Final = 8
_LONGEST_PAUSE: Final = 60.0
_TOO_OLD: Final = 900.0  # seconds after which nobody wants to be told any more
_GOOD, _REDIRECT, _REFUSED, _FAULTS = 200, 300, 400, 500
_AGAIN: Final = frozenset({408, 425, 429})


class DeliveryOutcome(Enum):
    """Name how a message ended; labels of `authz_notifications_total`.

    SUPPRESSED: one more of an event than are sent in its window.
    """

    SENT = "sent"
    FAILED = "failed"
    DROPPED = "dropped"
    SUPPRESSED = "suppressed"


class DeliveryAnswer(NamedTuple):
    """Say what came of one attempt, in fixed words; 0 where there was no response."""

    status: int
    detail: str

    @property
    def is_good(self) -> bool:
        """Tell whether the target took it."""
        return _GOOD <= self.status < _REDIRECT

    @property
    def is_final(self) -> bool:
        """Tell whether another attempt would bring the same."""
        return 0 < self.status < _FAULTS and self.status not in _AGAIN


Report = Callable[[str, str, DeliveryOutcome, str], None]


@dataclass(frozen=True, slots=True)
class DeliveryTiming:
    """Say how a delivery spends time; seconds.

    Attributes:
        clock: seconds since the epoch.
        sleep: waits so many seconds.
        jitter: returns a number between 0.5 and 1.
        attempt: that one attempt may take, from the name's look-up to the answer's head.
    """

    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
    attempt: float = _ATTEMPT


def notify_client(target: NotifyTarget) -> httpx.AsyncClient:
    """Return what reaches a target: no proxy of the environment, no redirect, TLS verified.

    Raises:
        OSError, ssl.SSLError: where the authority's file cannot be read, or is none.
    """
    context = ssl.create_default_context(cafile=target.authority or None)
    return httpx.AsyncClient(
        # One target's answer holds no message for another one.
        transport=BoundedTransport(_LONGEST_HEAD, context, keeps=False),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(_ATTEMPT),
        headers={"accept-encoding": "identity"},
    )


async def attempt(
    client: httpx.AsyncClient,
    target: NotifyTarget,
    timed: TimedNotice,
    delivery: str,
    within: float = _ATTEMPT,
) -> DeliveryAnswer:
    """Send a message once, and read the head of the answer alone."""
    wanted = notify_request(target, timed, delivery)
    request = client.build_request(
        "POST", wanted.url, content=wanted.body, headers=dict(wanted.headers)
    )
    try:
        async with asyncio.timeout(within):
            response = await client.send(request, stream=True)
            status = response.status_code
            await response.aclose()
    except TimeoutError:
        return DeliveryAnswer(0, "no answer in time")
    except httpx.HTTPError as error:
        return DeliveryAnswer(0, _fault(error))
    finally:
        client.cookies.clear()
    if _REDIRECT <= status < _REFUSED:
        return DeliveryAnswer(status, f"status {status}: redirects are not followed")
    return DeliveryAnswer(status, f"status {status}")


def _fault(error: BaseException) -> str:
    """Return fixed words; a message of the library may quote the URL."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "its certificate is not trusted, or TLS failed"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectError):
        return "it cannot be reached"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return "its answer is no HTTP, or was cut off"


class Delivery:
    """Deliver to one target, one message after the other."""

    def __init__(
        self,
        target: NotifyTarget,
        report: Report,
        timing: DeliveryTiming = DeliveryTiming(),
    ) -> None:
        """Take where; nothing is sent before `run`.

        Args:
            target: where.
            report: is told how each message ended: target, event, outcome, fixed words.
            timing: how time is spent.
        """
        self.target = target
        self._report = report
        self._timing = timing
        self._queue: deque[TimedNotice] = deque()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Return how many wait, the one under way included."""
        return len(self._queue)

    def offer(self, timed: TimedNotice) -> None:
        """Take a message; where too many wait, it is dropped."""
        if len(self._queue) >= QUEUE or self._stopping.is_set():
            self._tell(timed, DeliveryOutcome.DROPPED, "too many wait")
            return
        self._queue.append(timed)
        self._wake.set()

    def stop(self) -> None:
        """Take nothing new, and send what waits without pauses."""
        self._stopping.set()
        self._wake.set()

    def drop(self) -> None:
        """Drop what waits."""
        while self._queue:
            self._tell(self._queue.popleft(), DeliveryOutcome.DROPPED, "the process ended")

    async def run(self) -> None:
        """Send what comes, until `stop` and nothing waits any more."""
        try:
            client = notify_client(self.target)
        except (OSError, ssl.SSLError):
            await self._refuse_all("the file of its authority cannot be read")
            return
        async with client:
            while await self._next():
                outcome, detail = await self._deliver(client, self._queue[0])
                self._tell(self._queue.popleft(), outcome, detail)

    async def _next(self) -> bool:
        while not self._queue:
            if self._stopping.is_set():
                return False
            self._wake.clear()
            await self._wake.wait()
        return True

    async def _refuse_all(self, detail: str) -> None:
        while await self._next():
            self._tell(self._queue.popleft(), DeliveryOutcome.FAILED, detail)

    async def _deliver(
        self, client: httpx.AsyncClient, timed: TimedNotice
    ) -> tuple[DeliveryOutcome, str]:
        delivery = str(uuid4())
        for number in range(_ATTEMPTS):
            answer = await attempt(client, self.target, timed, delivery, self._timing.attempt)
            if answer.is_good:
                return DeliveryOutcome.SENT, answer.detail
            if answer.is_final or self._stopping.is_set():
                break
            if self._timing.clock() - timed.at > _TOO_OLD:
                break
            await self._pause(min(2.0**number, _LONGEST_PAUSE) * self._timing.jitter())
        return DeliveryOutcome.FAILED, answer.detail

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until `stop`."""
        paused = asyncio.ensure_future(self._timing.sleep(seconds))
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({paused, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            paused.cancel()
            stopped.cancel()

    def _tell(self, timed: TimedNotice, outcome: DeliveryOutcome, detail: str) -> None:
        self._report(self.target.name, timed.label, outcome, detail)
