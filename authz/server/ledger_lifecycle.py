"""The ledger's lifecycle: build it from the configuration, start, report readiness, close.

Where Redis is configured, the ledger is not ready before its revocations were read once, and a
Redis that may evict records is a problem.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from authz.config.model import RedisConfig
from authz.core.ledger import Ledger, Mode, UnavailableError
from authz.core.limits import OutagePolicy
from authz.ledger.batch import BatchedLedger
from authz.ledger.data_loss import DataLoss
from authz.ledger.login_records import Command
from authz.ledger.memory import MemoryLedger
from authz.ledger.records import Revocation
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.resilient import OutageOptions, ResilientLedger
from authz.ledger.revocations import read_entry
from authz.server.deployment_events import DeploymentEvents
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import EventFacts, SecurityEvent

# Seconds between two looks at whether Redis may evict.
_FACTS_INTERVAL: Final = 30.0
# Seconds for which readiness reports a data loss.
_REPORT_LOSS: Final = 3600.0
_LOSSES: Final[Mapping[DataLoss, str]] = {
    DataLoss.EMPTIED: "Redis came back empty",
    DataLoss.OLDER_COPY: "Redis went back to an older copy of its data",
}
_EVICTS: Final = "Redis may evict records: set maxmemory-policy noeviction"
_ENDED_BY_DOOR: Final = frozenset({"token", "grant"})
_REPLICA: Final = "Redis is a replica and takes no charges"


class LedgerLifecycle:
    """The ledger of one configuration.

    Attributes:
        events: tells what every worker reads in Redis, once.
    """

    def __init__(
        self,
        config: RedisConfig,
        options: RedisOptions | None,
        workers: int,
        recorder: Recorder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build the ledger; nothing is connected yet."""
        self._clock = clock
        self._recorder = recorder
        self._logged_fault = ""  # the fault that was logged last
        self._lost: DataLoss | None = None  # the last data loss of Redis
        self._lost_at = 0.0
        self._in_memory = MemoryLedger(time.time)
        self._remote: RedisLedger | None = None
        self._batched: BatchedLedger | None = None
        self._resilient: ResilientLedger | None = None
        self._starting: asyncio.Task[None] | None = None
        self._facts_problem = ""
        self._facts_at: float | None = None
        if options is not None:
            sharing = workers * config.replicas
            outage = OutageOptions(OutagePolicy(config.mode), sharing, config.max_away)
            self._remote = RedisLedger(options)
            self._batched = BatchedLedger(self._remote)
            self._resilient = ResilientLedger(
                self._batched,
                self._remote,
                self._in_memory,
                outage,
                clock,
                on_error=self._report_error,
                on_lost=self._report_loss,
                on_probe=recorder.metrics.redis_probe.observe,
                on_revoked=self._report_revoked,
                on_outage=self._report_outage,
                late=self._remote,
                on_late=self._report_late,
            )
        self.events = DeploymentEvents(recorder)
        if options is not None and self._remote is not None:
            claims = self._remote.command, options.keys
            self.events = DeploymentEvents(recorder, claims)

    @property
    def command(self) -> Command | None:
        """Return what sends one command to Redis; None without Redis."""
        return None if self._remote is None else self._remote.command

    @property
    def ledger(self) -> Ledger:
        """Return the ledger that decisions ask."""
        return self._in_memory if self._resilient is None else self._resilient

    @property
    def has_read(self) -> bool:
        """Tell whether the revocations were read; True where they are kept in the process."""
        return self._resilient is None or self._resilient.has_read

    def start(self) -> None:
        """Read the revocations, and keep reading them."""
        if self._resilient is not None and self._starting is None:
            self._starting = asyncio.create_task(self._resilient.start())

    def mode(self) -> str:
        """Return who counts at the moment; `refusing` where everything is refused."""
        mode = Mode.LOCAL if self._resilient is None else self._resilient.mode
        return "refusing" if mode is None else mode.value

    def note(self) -> str:
        """Return what is wrong with Redis, also where requests are answered without it."""
        if self._resilient is None:
            return ""
        if self._resilient.fault:
            return f"Redis is away ({self._resilient.fault})"
        if self._resilient.lost is not None:
            return f"{_LOSSES[self._resilient.lost]}; what was revoked holds here, but is not in it"
        if self._lost is None or self._clock() - self._lost_at > _REPORT_LOSS:
            return ""
        return f"{_LOSSES[self._lost]} within the last hour; what was revoked is in it again"

    def _report_error(self, error: UnavailableError) -> None:
        """Count a failure of Redis, and log a fault that is not the last one logged."""
        if error.detail == self._logged_fault:
            self._recorder.metrics.dependency_errors.labels(error.dependency).inc()
            return
        self._logged_fault = error.detail
        self._recorder.fault(error.dependency, error.detail)

    def _report_outage(self, fault: str, seconds: float) -> None:
        """Log and count that limits are answered without Redis from now on, or no more."""
        change = "begun" if fault else "ended"
        self._recorder.metrics.redis_outages.labels(change).inc()
        facts = {"fault": fault, "mode": self.mode()} if fault else {"seconds": round(seconds, 3)}
        self._recorder.event(f"outage_{change}", **facts)

    def _report_late(self, units: int) -> None:
        """Log that what was admitted without Redis is charged there now."""
        self._recorder.event("outage_charged", units=units)

    def _report_loss(self, loss: DataLoss, revocations: int) -> None:
        """Log and count a data loss of Redis that was repaired."""
        self._lost, self._lost_at = loss, self._clock()
        self._recorder.metrics.redis_losses.labels(loss.value).inc()
        self._recorder.event(f"redis_{loss.value}", revocations_restored=revocations)

    def _report_revoked(self, new: Mapping[bytes, Revocation]) -> None:
        """Tell what operators have revoked since the last reading."""
        for field, revocation in new.items():
            entry = read_entry(field, revocation)
            # The front door writes the ends of grants here too, without a name of who asked.
            if entry.kind in _ENDED_BY_DOOR and not entry.note.by:
                continue
            name = entry.target.name
            facts = EventFacts(
                person=name if entry.kind == "person" else "",
                client=name if entry.kind == "client" else "",
                reason=entry.kind,
            )
            moments = str(entry.note.at), str(revocation.issued_until)
            self.events.tell(SecurityEvent.REVOCATION, (entry.id, *moments), facts)

    def _report_recovery(self) -> None:
        """Log that Redis is back; readiness looks for that once a second."""
        if self._logged_fault and self._resilient is not None and not self._resilient.is_failing:
            self._logged_fault = ""
            self._recorder.event("redis_back")

    async def problem(self) -> str:
        """Return why decisions cannot be made as configured; nothing where they can."""
        if self._resilient is None or self._remote is None:
            return ""
        self._report_recovery()
        if not self._resilient.has_read:
            return f"Redis has not answered yet{self._logged_fault and f' ({self._logged_fault})'}"
        if self._resilient.mode is None:
            return f"{self.note()}, and everything is refused"
        now = self._clock()
        if self._facts_at is None or now - self._facts_at >= _FACTS_INTERVAL:
            await self._read_facts(self._remote)
            self._facts_at = now
        return self._facts_problem

    async def _read_facts(self, remote: RedisLedger) -> None:
        # An ACL user without INFO, or a Redis that is down for a moment, changes nothing.
        with suppress(UnavailableError):
            facts = await remote.facts()
            if facts.may_evict:
                self._facts_problem = _EVICTS
            else:
                self._facts_problem = "" if facts.writable else _REPLICA

    async def aclose(self) -> None:
        """Stop reading and close the connections."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        if self._resilient is not None:
            await self._resilient.aclose()
        await self.events.aclose()
        if self._batched is not None:
            await self._batched.aclose()
        if self._remote is not None:
            await self._remote.aclose()
