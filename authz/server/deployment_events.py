"""Security events that every worker sees, told by one of them: the first that claims it in Redis.

Invariant: a deployment whose workers all reach Redis tells what they see once, and at least once
where one does not reach it (tests/server/test_deployment_events.py). Nobody waits for it.
"""

import asyncio
from collections import deque
from typing import Final

from authz.core.ledger import UnavailableError
from authz.core.limits import digest
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import EventFacts, SecurityEvent

_KIND: Final = "security-event"
_CLAIMED: Final = 3600  # seconds in which a fact is told once
_MAX_WAITING: Final = 256


class DeploymentEvents:
    """Tell facts that are the deployment's, not one process'."""

    def __init__(self, recorder: Recorder, redis: tuple[Command, RedisKeys] | None = None) -> None:
        """Take where to tell; without Redis each process tells for itself."""
        self._recorder = recorder
        self._redis = redis
        self._waiting: deque[tuple[SecurityEvent, str, EventFacts]] = deque()
        self._task: asyncio.Task[None] | None = None

    def tell(self, event: SecurityEvent, fact: tuple[str, ...], facts: EventFacts) -> None:
        """Tell an event in a moment, unless another process has told the same fact.

        Args:
            event: which.
            fact: what makes it one fact, the same in every process.
            facts: what is known of it.
        """
        if self._redis is None or len(self._waiting) >= _MAX_WAITING:
            self._recorder.security(event, facts)
            return
        self._waiting.append((event, digest(event.label, *fact), facts))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._claim_all(*self._redis), name="events")

    @property
    def waiting(self) -> int:
        """Return how many wait for Redis."""
        return len(self._waiting)

    async def _claim_all(self, command: Command, keys: RedisKeys) -> None:
        while self._waiting:
            event, name, facts = self._waiting[0]
            key = keys.record(_KIND, name)
            try:
                claimed = await command("SET", key, b"1", "NX", "EX", _CLAIMED) is not None
            except UnavailableError:
                claimed = True  # told twice rather than not at all
            except Exception as error:  # noqa: BLE001 - a defect must not silence what waits
                self._recorder.crash(error)
                claimed = True
            self._waiting.popleft()
            if claimed:
                self._recorder.security(event, facts)

    async def aclose(self) -> None:
        """Tell what waits, without asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        while self._waiting:
            event, _, facts = self._waiting.popleft()
            self._recorder.security(event, facts)
