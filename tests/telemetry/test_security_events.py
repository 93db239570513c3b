"""Security events: every occurrence counts, few lines are written, and nobody makes memory grow."""

import io
import json
from pathlib import Path
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from authz.core.decision import Deny
from authz.core.reason import Reason
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import (
    EVENT_OF_REASON,
    NO_FACTS,
    EventFacts,
    SecurityEvent,
    SecurityEvents,
    SecurityNotice,
    ecs_fields,
)
from tests.support.values import request, server

ROOT: Final = Path(__file__).resolve().parents[2]
# ECS 8.17, field reference of `event.category`: the types that it expects of each.
_TYPES: Final = {
    "authentication": {"start", "end", "info"},
    "configuration": {"access", "change", "creation", "deletion", "info"},
    "iam": {"admin", "change", "creation", "deletion", "group", "info", "user"},
    "intrusion_detection": {"allowed", "denied", "info"},
}


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [each["ecs"] for each in found if each["event"] == "security"]


def test_every_event_is_one_that_ecs_knows() -> None:
    """Categories, types, outcomes and kinds are ECS' own, and fit each other; names are stable."""
    for event in SecurityEvent:
        row = event.value
        assert row.type in _TYPES[row.category]
        assert row.outcome in {"success", "failure", "unknown"}
        assert row.kind in {"alert", "event"}
    assert [each.label for each in SecurityEvent] == [
        "forged_token", "foreign_token", "session_of_another", "second_factor_refused",
        "approval_declined", "credential_replayed", "blocked_client", "revocation",
        "configuration_changed", "tool_changed",
    ]  # fmt: skip


def test_the_page_has_a_row_for_each_event_with_its_reasons() -> None:
    """docs/security-events.md names each event, its refusals and its threshold."""
    rows = (ROOT / "docs" / "security-events.md").read_text("utf-8").splitlines()
    for event in SecurityEvent:
        (row,) = [each for each in rows if each.startswith(f"| `{event.label}` |")]
        assert all(f"`{reason.label}`" in row for reason in event.value.reasons)
        if event.value.threshold > 1:
            minutes = int(event.value.window / 60)
            assert f"at {event.value.threshold} in {minutes} minutes" in row


def test_a_refusal_is_an_occurrence_of_its_event() -> None:
    """The reasons of the table count, others do not; the line says who, where and why."""
    stream = io.StringIO()
    recorder = Recorder(Metrics(), EventLog("json", stream), clock=lambda: 0.0)

    recorder.decision(Deny(Reason.SESSION_OF_ANOTHER, "", server()), request(), 0.001)
    recorder.decision(Deny(Reason.TOKEN_MISSING, "", server()), request(), 0.001)

    (line,) = _lines(stream)
    assert line["event.action"] == "session_of_another"
    assert line["event.reason"] == "session_of_another"
    assert line["authz.server"] == "files"
    assert line["source.ip"] == request().address
    counted = recorder.metrics.registry.get_sample_value
    assert counted("authz_security_events_total", {"event": "session_of_another"}) == 1
    assert counted("authz_security_events_total", {"event": "forged_token"}) == 0


def test_a_burst_is_told_once_and_then_how_many_were_left_out() -> None:
    """30 forged tokens are a line, 970 more none, until the window has ended: then one."""
    stream, now = io.StringIO(), [0.0]
    recorder = Recorder(Metrics(), EventLog("json", stream), clock=lambda: now[0])
    for number in range(1000):
        recorder.security(SecurityEvent.FORGED_TOKEN, EventFacts(address=f"192.0.2.{number % 40}"))
    recorder.flush_security()
    assert [each["authz.occurrences"] for each in _lines(stream)] == [30]

    now[0] = 300.0
    recorder.flush_security()
    recorder.flush_security()

    first, last = _lines(stream)
    assert (first["authz.sources"], last["authz.sources"]) == (30, 32)
    assert last["authz.occurrences"] == 970
    assert (first["authz.left_out"], last["authz.left_out"]) == (29, 970)
    assert first["authz.quiet_until_window_ends"] == 300
    assert "authz.quiet_until_window_ends" not in last
    metric = recorder.metrics.registry.get_sample_value
    assert metric("authz_security_events_total", {"event": "forged_token"}) == 1000


def test_what_is_below_its_threshold_is_not_told() -> None:
    """29 forged tokens in one window, and 29 in the next, are no burst."""
    events = SecurityEvents()
    for start in (0.0, 300.0):
        for _ in range(29):
            assert events.occur(SecurityEvent.FORGED_TOKEN, NO_FACTS, start) == ()
    assert events.flush(1e6) == ()


_OCCURRENCES: Final = st.lists(
    st.tuples(
        st.sampled_from(list(SecurityEvent)),
        st.integers(0, 400),  # seconds since the one before
        st.text(max_size=3),
    ),
    max_size=200,
)


@given(_OCCURRENCES)
def test_lines_are_bounded_and_none_counts_an_occurrence_twice(
    occurrences: list[tuple[SecurityEvent, int, str]],
) -> None:
    """In any window one event has its few lines and the last one; what they count is what came."""
    events, now = SecurityEvents(), 0.0
    told: list[tuple[float, SecurityNotice]] = []
    came: dict[SecurityEvent, int] = dict.fromkeys(SecurityEvent, 0)
    for event, pause, address in occurrences:
        now += pause
        came[event] += 1
        told += [(now, each) for each in events.occur(event, EventFacts(address=address), now)]
    told += [(now + 1e6, each) for each in events.flush(now + 1e6)]

    for event in SecurityEvent:
        mine = [(when, each) for when, each in told if each.event is event]
        assert sum(each.occurrences for _, each in mine) <= came[event]
        assert all(each.occurrences > 0 and each.sources <= 32 for _, each in mine)
        # Two windows may lie in the length of one: each has its lines, and one ends in it.
        for when, _ in mine:
            near = [each for at, each in mine if when <= at < when + event.value.window]
            assert len(near) <= 2 * (event.value.lines + 1)
        if event.value.threshold == 1:
            assert sum(each.occurrences for _, each in mine) == came[event]


@given(st.text(max_size=2000), st.sampled_from(list(SecurityEvent)))
def test_a_line_is_short_whatever_a_caller_chose(text: str, event: SecurityEvent) -> None:
    """A line fits into one atomic write of a pipe, on one line, also with all values as escapes."""
    stream = io.StringIO()
    recorder = Recorder(Metrics(), EventLog("json", stream), worker=7, clock=lambda: 0.0)
    for _ in range(event.value.threshold):
        recorder.security(event, EventFacts(*[text] * 7))

    (line,) = stream.getvalue().splitlines()
    assert len(line) < 4096
    assert line.isascii()
    assert json.loads(line)["ecs"] | {"@timestamp": ""} == ecs_fields(
        SecurityNotice(
            event,
            EventFacts(*[text] * 7),
            event.value.threshold,
            sources=int(text != ""),
            is_last=event.value.lines == 1,
        ),
        0.0,
    ) | {"@timestamp": ""}


def test_every_reason_belongs_to_one_event() -> None:
    """No refusal counts for two events."""
    named = [reason for event in SecurityEvent for reason in event.value.reasons]
    assert len(named) == len(set(named)) == len(EVENT_OF_REASON)
