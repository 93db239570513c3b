"""The audit trail of one process: what decisions and events become, and where they go.

Invariant: a decision is recorded after its answer was made, and waits for nothing; a trail that
cannot be written changes no decision (tests/audit/test_trail.py).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from authz.audit.chain import AuditChain, TrailKeys
from authz.audit.record import AuditEvent, ChainLink, Fields, body, decision_fields, is_recorded
from authz.audit.refusals import RefusedGroup
from authz.audit.store import TrailBound, TrailStore
from authz.audit.writer import QUEUE, TrailWriter
from authz.config.load import Settings
from authz.core.decision import Allow, Decision, Deny
from authz.core.identity_cache import IdentityCache
from authz.core.principal import Person
from authz.core.request import HttpRequest
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.telemetry.recorder import Recorder
from authz.tokens.sealing import Sealer, sealing_secrets

# Seconds. Nobody waits for it, and it has connections of its own.
_TIMEOUT: Final = 2.0
_GRACE: Final = 2.0


@dataclass(frozen=True, slots=True)
class TrailSettings:
    """Hold what a trail is built from, to tell whether it can be kept over a reload."""

    options: RedisOptions
    bound: TrailBound
    keys: TrailKeys


class _RecordedFaults:
    """Log and count how the writing goes."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def written(self, records: int) -> None:
        self._recorder.metrics.audit_records.labels("written").inc(records)

    def lost(self, records: int) -> None:
        self._recorder.metrics.audit_records.labels("lost").inc(records)

    def fault(self, detail: str) -> None:
        self._recorder.event("audit_fault" if detail else "audit_back", detail=detail)

    def head(self, chain: str, link: ChainLink) -> None:
        self._recorder.event("audit_head", chain=chain, n=link.number, mac=link.mac)

    def crash(self, error: Exception) -> None:
        self._recorder.crash(error)


class AuditTrail:
    """Record to the trail in Redis."""

    def __init__(
        self,
        settings: TrailSettings,
        recorder: Recorder,
        clock: Callable[[], float] = time.time,
        *,
        queue: int = QUEUE,
    ) -> None:
        """Build it; nothing is connected yet."""
        self.settings = settings
        self._redis = RedisLedger(replace(settings.options, timeout=_TIMEOUT, connections=1))
        store = TrailStore(self._redis.command, settings.options.keys)
        self._writer = TrailWriter(
            store, settings.bound, settings.keys, _RecordedFaults(recorder), clock, queue=queue
        )
        self._unread: list[tuple[Decision, HttpRequest | None, IdentityCache | None]] = []

    def start(self) -> None:
        """Write from now on."""
        self._writer.start()

    def decision(
        self,
        decision: Decision,
        request: HttpRequest | None,
        cache: IdentityCache | None = None,
    ) -> None:
        """Record a decision, in the next turn of the event loop: its answer goes first."""
        if not is_recorded(decision, request):
            return
        self._unread.append((decision, request, cache))
        if len(self._unread) == 1:
            asyncio.get_running_loop().call_soon(self._record)

    def event(self, event: AuditEvent, fields: Fields, person: Person | None = None) -> None:
        """Record what is no decision."""
        self._writer.record(event, fields, person)

    def _record(self) -> None:
        unread, self._unread = self._unread, []
        for decision, request, cache in unread:
            if isinstance(decision, Allow) or self._writer.gets_own_record(_group(decision)):
                principal = decision.principal
                self._writer.record(
                    AuditEvent.DECISION,
                    decision_fields(decision, request, cache),
                    None if principal is None else principal.person,
                )

    def note(self) -> str:
        """Return what is wrong with the trail; nothing where nothing is."""
        fault, lost = self._writer.fault, self._writer.lost
        if fault:
            return f"the audit trail is not written ({fault}); {self._writer.waiting} records wait"
        return f"{lost} records of the audit trail were lost since the start" if lost else ""

    async def aclose(self) -> None:
        """Write what waits, and close the connection."""
        self._record()
        await self._writer.aclose(_GRACE)
        await self._redis.aclose()


def _group(deny: Deny) -> RefusedGroup:
    server, reason = "" if deny.server is None else deny.server.name, deny.reason.label
    principal = deny.principal
    if principal is None:
        return RefusedGroup(server, reason)
    return RefusedGroup(server, reason, principal.subject or "", principal.client_id)


def trail_settings(settings: Settings, options: RedisOptions | None) -> TrailSettings | None:
    """Return what authz.yaml says of the trail; None where none is written."""
    audit = settings.config.audit
    if options is None or audit.to == "off":
        return None
    return TrailSettings(options, TrailBound(audit.most, audit.keep), trail_keys(settings))


def trail_keys(settings: Settings) -> TrailKeys:
    """Return the keys of the trail: made of the sealing key, where there is one."""
    secrets = settings.secrets
    if secrets.front_door is None:
        return TrailKeys()
    file = None if secrets.sealing is None else secrets.sealing.get_secret_value()
    sealer = Sealer(sealing_secrets(file, secrets.front_door.get_secret_value()), time.time)
    return TrailKeys(tuple(sealer.mac_key("audit")))


async def record_operator(settings: Settings, options: RedisOptions, fields: Fields) -> None:
    """Record what somebody did on the command line, as a chain of one record.

    Raises:
        UnavailableError: where Redis did not take it.
    """
    wanted = trail_settings(settings, options)
    if wanted is None:
        return
    redis = RedisLedger(replace(options, timeout=_TIMEOUT, connections=1))
    try:
        store = TrailStore(redis.command, options.keys)
        chain = AuditChain(wanted.keys.newest)
        text = body(AuditEvent.OPERATOR, (*fields, ("last", "yes")))
        await store.append(chain.name, [chain.add(text, time.time())], [None], wanted.bound.keep)
    finally:
        await redis.aclose()
