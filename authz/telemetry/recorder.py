"""Record decisions, faults and events: count, time and log them.

Invariant: each check is recorded exactly once, after its answer was made, and what traces it or
tells people of it takes neither away (tests/telemetry/test_recorder.py).
"""

import time
import traceback
from collections.abc import Callable
from typing import Final

from authz.core.admin_pages import PageAllow, PageDecision
from authz.core.decision import Allow, Decision, Deny
from authz.core.identity_cache import IdentityCache
from authz.core.request import HttpRequest
from authz.telemetry.audit import EventLog
from authz.telemetry.decision_spans import record_decision, record_page_decision
from authz.telemetry.metrics import ALLOWED, UNKNOWN, Metrics
from authz.telemetry.security_events import (
    EVENT_OF_REASON,
    NO_FACTS,
    EventFacts,
    SecurityEvent,
    SecurityEvents,
    SecurityNotice,
    ecs_fields,
)
from authz.telemetry.traces import CURRENT, Trace, Tracer

_FRAMES: Final = 20  # the last ones: where it happened
_MAX_VALUE: Final = 256  # characters


def places(error: BaseException) -> list[str]:
    """Return where an error was raised: `file:line` of its last frames, the innermost last."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames]


class Recorder:
    """Record decisions and the faults of dependencies.

    Attributes:
        metrics, log: where they are counted and written.
        tracer: begins traces; None where nothing is traced.
        notify: is given each security event that is told; None where nobody is to be notified.
    """

    def __init__(
        self,
        metrics: Metrics,
        log: EventLog,
        worker: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Record to metrics and log.

        Args:
            metrics: counts decisions and faults.
            log: gets a line for each.
            worker: the number of this process among several, for its events.
            clock: monotonic seconds.
        """
        self.metrics = metrics
        self.log = log
        self.notify: Callable[[SecurityNotice], None] | None = None
        self._clock = clock
        self._security = SecurityEvents()
        self.worker: Final = worker
        self.tracer: Tracer | None = None
        self._worker_fields = {} if worker is None else {"worker": worker}
        metrics.log_lost.set_function(lambda: log.lost)

    def decision(
        self,
        decision: Decision,
        request: HttpRequest | None,
        seconds: float,
        cache: IdentityCache | None = None,
        *,
        trace: Trace | None = None,
    ) -> None:
        """Record one decision.

        Args:
            decision: what it is.
            request: what was asked; None where it could not be decoded.
            seconds: how long it took.
            cache: that of its policy.
            trace: of the check, which ends here; None where nothing is traced.
        """
        if isinstance(decision, Allow):
            server, reason = decision.server.name, ALLOWED
            for name in {quota.limit.name for quota in decision.quotas if quota.exceeded}:
                self.metrics.shadow_refusals.labels(name).inc()
            for name in {quota.limit.name for quota in decision.quotas if quota.is_near}:
                self.metrics.near_limits.labels(name).inc()
        else:
            server = decision.server.name if decision.server else UNKNOWN
            reason = decision.reason.label
            self.metrics.refusals.labels(reason).inc()
        self.metrics.decisions.labels(server, reason).inc()
        self.metrics.duration.observe(seconds)
        trace_id = ""
        if trace is not None and self.tracer is not None:
            try:
                # Most are allowed and not kept: for them nothing else is done.
                if not isinstance(decision, Allow) or self.tracer.may_keep(trace, seconds):
                    record_decision(self.tracer, trace, decision, request, seconds)
            except Exception as error:  # noqa: BLE001 - a span costs no decision
                self.crash(error)
            trace_id = trace.known_id
        self.log.decision(decision, request, seconds, cache, trace_id=trace_id)
        if isinstance(decision, Deny):
            event = EVENT_OF_REASON.get(decision.reason)
            if event is not None:
                self.security(event, _facts(decision, request))

    def page_decision(
        self,
        decision: PageDecision,
        request: HttpRequest,
        seconds: float,
        *,
        trace: Trace | None = None,
    ) -> None:
        """Record one decision about a request for an admin page.

        It is not among the refusals of MCP, which alerts count: a tab that is left open goes on
        asking after its session has ended.

        Args:
            decision: what it is.
            request: what was asked.
            seconds: how long it took.
            trace: of the check, which ends here; None where nothing is traced.
        """
        page = UNKNOWN if decision.page is None else decision.page.name
        allowed = isinstance(decision, PageAllow)
        reason, detail = ALLOWED, ""
        if not isinstance(decision, PageAllow):
            reason, detail = decision.reason.label, decision.detail
        self.metrics.page_decisions.labels(page, reason).inc()
        self.metrics.duration.observe(seconds)
        trace_id = ""
        if trace is not None and self.tracer is not None:
            try:
                record_page_decision(self.tracer, trace, decision, request, seconds)
            except Exception as error:  # noqa: BLE001 - a span costs no decision
                self.crash(error)
            trace_id = trace.known_id
        session = decision.session
        fields = {
            "verdict": "allow" if allowed else "deny",
            "reason": reason,
            "detail": detail,
            "request_id": request.request_id,
            "http_method": request.method,
            "address": request.address,
            "page": "" if decision.page is None else page,
            "subject": "" if session is None else session.subject,
            "trace_id": trace_id,
        }
        self.log.write(
            {
                "event": "decision",
                **{name: value[:_MAX_VALUE] for name, value in fields.items() if value},
                "ms": round(seconds * 1000, 3),
            }
        )

    def list_not_shown(
        self, server: str, method: str, request_id: str, fault: str, detail: str
    ) -> None:
        """Record that nothing of a server's list was shown.

        Args:
            server: its name, or `UNKNOWN`.
            method: what asked for the list.
            request_id: of the request.
            fault: why, of a closed set.
            detail: fixed words.
        """
        self.metrics.lists.labels(server, fault).inc()
        self.log.write(
            {
                "event": "list_not_shown",
                "server": server,
                "method": method,
                "request_id": request_id,
                "fault": fault,
                "detail": detail,
            }
        )

    def fault(self, dependency: str, detail: str = "") -> None:
        """Record that a dependency failed."""
        self.metrics.dependency_errors.labels(dependency).inc()
        record = {"event": "fault", "dependency": dependency, "detail": detail}
        self.log.write(record | self._trace_fields())

    def crash(self, error: BaseException, request_id: str = "") -> None:
        """Record a defect of ours: the places of its last frames, never its message.

        The message may quote what a caller sent.
        """
        self.metrics.dependency_errors.labels("authz").inc()
        record = {"event": "crash", "error": type(error).__name__, "where": places(error)}
        self.log.write(record | ({"request_id": request_id} if request_id else {}))

    def event(self, name: str, **fields: object) -> None:
        """Log an event of the service."""
        self.log.write({"event": name, **self._worker_fields, **fields, **self._trace_fields()})

    def _trace_fields(self) -> dict[str, str]:
        """Return the trace of what is under way in this task, where there is one."""
        trace = None if self.tracer is None else CURRENT.get()
        return {} if trace is None else {"trace_id": trace.trace_id}

    def security(self, event: SecurityEvent, facts: EventFacts = NO_FACTS) -> None:
        """Count an occurrence of a security event, and tell it where it is due."""
        self.metrics.security_events.labels(event.label).inc()
        self._tell(self._security.occur(event, facts, self._clock()))

    def flush_security(self) -> None:
        """Tell what was left out of security events whose window has ended."""
        self._tell(self._security.flush(self._clock()))

    def _tell(self, notices: tuple[SecurityNotice, ...]) -> None:
        for notice in notices:
            fields = ecs_fields(notice, time.time())
            self.log.write({"event": "security", **self._worker_fields, "ecs": fields})
            if self.notify is not None:
                try:
                    self.notify(notice)
                except Exception as error:  # noqa: BLE001 - a notice costs no decision
                    self.crash(error)


def _facts(decision: Deny, request: HttpRequest | None) -> EventFacts:
    principal, message = decision.principal, decision.message
    return EventFacts(
        address="" if request is None else request.address,
        person="" if principal is None else principal.subject or "",
        client="" if principal is None else principal.client_id,
        server="" if decision.server is None else decision.server.name,
        tool="" if message is None else message.tool or "",
        reason=decision.reason.label,
        request_id="" if request is None else request.request_id,
    )
