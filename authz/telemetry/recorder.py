"""The one place where a decision is recorded: counted, timed and written down.

Law: each check is recorded exactly once, after its answer was made, and recording changes none.
"""

import traceback

from authz.core.decision import Allow, Decision
from authz.core.request import HttpRequest
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import ALLOWED, UNKNOWN, Metrics


class Recorder:
    """Record decisions and the faults of dependencies."""

    def __init__(self, metrics: Metrics, log: EventLog, worker: int | None = None) -> None:
        """Keep where to count and where to write.

        Args:
            metrics: where to count.
            log: where to write.
            worker: which of several this process is; its events say so.
        """
        self.metrics = metrics
        self.log = log
        self._who = {} if worker is None else {"worker": worker}
        metrics.log_lost.set_function(lambda: log.lost)

    def decision(self, decision: Decision, request: HttpRequest | None, seconds: float) -> None:
        """Record one decision; `request` is None where it could not be decoded."""
        if isinstance(decision, Allow):
            server, reason = decision.server.name, ALLOWED
        else:
            server = decision.server.name if decision.server else UNKNOWN
            reason = decision.reason.label
        self.metrics.decisions.labels(server, reason).inc()
        self.metrics.duration.observe(seconds)
        self.log.decision(decision, request, seconds)

    def fault(self, dependency: str, detail: str = "") -> None:
        """Record that a dependency failed."""
        self.metrics.dependency_errors.labels(dependency).inc()
        self.log.write({"event": "fault", "dependency": dependency, "detail": detail})

    def crash(self, error: BaseException) -> None:
        """Record a defect of ours: where it happened, never what the message says.

        Its text may quote what a caller sent; the frames quote our own source only.
        """
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames]
        self.metrics.dependency_errors.labels("authz").inc()
        self.log.write({"event": "crash", "error": type(error).__name__, "where": where})

    def event(self, name: str, **fields: object) -> None:
        """Record something that happened to the service itself."""
        self.log.write({"event": name, **self._who, **fields})
