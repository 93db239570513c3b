"""Security events: the closed set of what an operator has to hear of, and when each is told.

Names and values are those of the Elastic Common Schema (ECS 8.17): docs/decisions/0025.

Invariant: every occurrence is counted; the lines of one event are bounded by the clock and say how
many were left out, and no caller makes what is kept grow (tests/telemetry/test_security_events.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from authz.core.reason import Reason

_ECS: Final = "8.17"
_MAX_SOURCES: Final = 32  # addresses that are kept of one window
# A line has to stay below PIPE_BUF (telemetry/audit.py), with every character escaped.
_MAX_VALUE: Final = 96  # characters


@dataclass(frozen=True, slots=True)
class SecurityEventRow:
    """Define one event.

    Attributes:
        label: `event.action`, the metric's label and the name in authz.yaml; stable.
        category, type, outcome, kind: values that ECS allows for `event.category` and so on.
        severity: 1 to remember, 2 to look at today, 3 to look at now.
        title: what a person reads first.
        threshold: occurrences within the window before it is told.
        window: seconds, from the first occurrence on.
        lines: how often it is told within one window.
        reasons: the refusals that are occurrences of it.
    """

    label: str
    category: str
    type: str
    outcome: str
    kind: str
    severity: int
    title: str
    threshold: int = 1
    window: float = 300.0
    lines: int = 5
    reasons: tuple[Reason, ...] = ()


class SecurityEvent(Enum):
    """Name what an operator has to hear of."""

    FORGED_TOKEN = SecurityEventRow(
        "forged_token",
        "intrusion_detection",
        "denied",
        "failure",
        "alert",
        3,
        "A burst of tokens that no issuer made",
        threshold=30,
        lines=1,
        reasons=(
            Reason.TOKEN_INVALID,
            Reason.TOKEN_MALFORMED,
            Reason.TOKEN_OPAQUE,
            Reason.TOKEN_WRONG_KIND,
        ),
    )
    FOREIGN_TOKEN = SecurityEventRow(
        "foreign_token",
        "intrusion_detection",
        "denied",
        "failure",
        "alert",
        2,
        "Tokens that were made for another server or client",
        threshold=10,
        lines=1,
        reasons=(Reason.AUDIENCE_MISMATCH, Reason.FOREIGN_CLIENT),
    )
    SESSION_OF_ANOTHER = SecurityEventRow(
        "session_of_another",
        "intrusion_detection",
        "denied",
        "failure",
        "alert",
        3,
        "Somebody used an MCP session of somebody else",
        reasons=(Reason.SESSION_OF_ANOTHER,),
    )
    SECOND_FACTOR_REFUSED = SecurityEventRow(
        "second_factor_refused",
        "authentication",
        "info",
        "failure",
        "alert",
        3,
        "A burst of calls without the second factor that they need",
        threshold=30,
        window=600.0,
        lines=1,
        reasons=(Reason.SECOND_FACTOR_REQUIRED, Reason.LOGIN_TOO_OLD),
    )
    APPROVAL_DECLINED = SecurityEventRow(
        "approval_declined",
        "iam",
        "info",
        "failure",
        "alert",
        3,
        "A person declined a call that a client wanted to make",
    )
    CREDENTIAL_REPLAYED = SecurityEventRow(
        "credential_replayed",
        "intrusion_detection",
        "denied",
        "failure",
        "alert",
        3,
        "A code or a refresh token was used twice: somebody may have a copy",
    )
    BLOCKED_CLIENT = SecurityEventRow(
        "blocked_client",
        "authentication",
        "info",
        "failure",
        "alert",
        2,
        "A client that is blocked tried to log in",
    )
    REVOCATION = SecurityEventRow(
        "revocation",
        "iam",
        "change",
        "success",
        "event",
        1,
        "Tokens were revoked",
    )
    CONFIGURATION_CHANGED = SecurityEventRow(
        "configuration_changed",
        "configuration",
        "change",
        "success",
        "event",
        1,
        "Another authz.yaml is in force",
    )
    TOOL_CHANGED = SecurityEventRow(
        "tool_changed",
        "configuration",
        "change",
        "unknown",
        "alert",
        2,
        "A server says something else of a tool than before",
    )

    @property
    def label(self) -> str:
        """Return its stable name."""
        return self.value.label


EVENT_OF_REASON: Final[Mapping[Reason, SecurityEvent]] = {
    reason: event for event in SecurityEvent for reason in event.value.reasons
}


@dataclass(frozen=True, slots=True)
class EventFacts:
    """Say what is known of one occurrence; empty where it is not.

    Attributes:
        address: of the caller.
        person: the subject.
        client: its id.
        server, tool: what was called.
        reason: the refusal's label, or what was changed; of a closed set, or of authz.yaml.
        request_id: of the request.
    """

    address: str = ""
    person: str = ""
    client: str = ""
    server: str = ""
    tool: str = ""
    reason: str = ""
    request_id: str = ""


NO_FACTS: Final = EventFacts()


@dataclass(frozen=True, slots=True)
class SecurityNotice:
    """One event as it is told.

    Attributes:
        event: which.
        facts: of the last occurrence.
        occurrences: since it was told last.
        left_out: whether it ends a window in which more came than were told.
        sources: how many addresses they came from; at most 32 are told apart.
        is_last: whether no further one is told until its window has ended.
    """

    event: SecurityEvent
    facts: EventFacts
    occurrences: int
    left_out: bool = False
    sources: int = 0
    is_last: bool = False


class _Window:
    """Count the occurrences of one event since a window began."""

    __slots__ = ("began", "count", "facts", "lines", "sources", "untold")

    def __init__(self) -> None:
        self.began = 0.0
        self.count = 0
        self.lines = 0
        self.untold = 0  # since the last line
        self.facts = NO_FACTS
        self.sources: set[str] = set()


class SecurityEvents:
    """Decide when an occurrence is told; one thread asks."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._windows: dict[SecurityEvent, _Window] = {each: _Window() for each in SecurityEvent}

    def occur(
        self, event: SecurityEvent, facts: EventFacts, now: float
    ) -> tuple[SecurityNotice, ...]:
        """Count one occurrence, and return what has to be told now.

        Args:
            event: which.
            facts: what is known of it.
            now: monotonic seconds.
        """
        row, window = event.value, self._windows[event]
        ended = self._end(event, window, now)
        if window.count == 0:
            window.began = now
        window.count += 1
        window.untold += 1
        window.facts = facts
        if facts.address and len(window.sources) < _MAX_SOURCES:
            window.sources.add(facts.address)
        if window.count < row.threshold or window.lines >= row.lines:
            return ended
        window.lines += 1
        return (*ended, replace(_notice(event, window), is_last=window.lines >= row.lines))

    def flush(self, now: float) -> tuple[SecurityNotice, ...]:
        """Return what was left out in windows that have ended."""
        found = [self._end(event, window, now) for event, window in self._windows.items()]
        return tuple([each for some in found for each in some])

    @staticmethod
    def _end(event: SecurityEvent, window: _Window, now: float) -> tuple[SecurityNotice, ...]:
        """End a window that is over; what was told of it in part is told in whole."""
        if window.count == 0 or now - window.began < event.value.window:
            return ()
        notice = _notice(event, window, left_out=True)
        told = window.lines > 0 and notice.occurrences > 0
        window.count = window.lines = window.untold = 0
        window.sources.clear()
        return (notice,) if told else ()


def _notice(event: SecurityEvent, window: _Window, *, left_out: bool = False) -> SecurityNotice:
    notice = SecurityNotice(event, window.facts, window.untold, left_out, len(window.sources))
    window.untold = 0
    return notice


def ecs_fields(notice: SecurityNotice, now: float) -> dict[str, object]:
    """Return a notice in ECS' flat names; `authz.*` is what ECS has no field for.

    Args:
        notice: what is told.
        now: seconds since the epoch.
    """
    row, facts = notice.event.value, notice.facts
    fields: dict[str, object] = {
        "@timestamp": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        "ecs.version": _ECS,
        "event.kind": row.kind,
        "event.category": [row.category],
        "event.type": [row.type],
        "event.action": row.label,
        "event.outcome": row.outcome,
        "event.severity": row.severity,
        "event.dataset": "authz.security",
        "message": row.title,
    }
    values = (
        ("event.reason", facts.reason),
        ("source.ip", facts.address),
        ("user.id", facts.person),
        ("authz.client", facts.client),
        ("authz.server", facts.server),
        ("authz.tool", facts.tool),
        ("http.request.id", facts.request_id),
    )
    fields |= {name: value[:_MAX_VALUE] for name, value in values if value}
    fields["authz.occurrences"] = notice.occurrences
    if notice.sources > 1:
        fields["authz.sources"] = notice.sources
    # What has no line of its own; of a burst that is told once, all but the one whose facts stand
    # here.
    left_out = notice.occurrences - (0 if notice.left_out else 1)
    if left_out:
        fields["authz.left_out"] = left_out
    if notice.is_last:
        fields["authz.quiet_until_window_ends"] = int(row.window)
    return fields
