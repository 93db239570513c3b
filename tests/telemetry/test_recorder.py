"""Every decision is counted once, under bounded labels."""

import io
import json
from dataclasses import replace

import pytest

from authz.core.decision import Allow, Decision, Deny
from authz.core.ledger import Mode
from authz.core.limits import Quota
from authz.core.reason import Reason
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import SecurityNotice
from authz.telemetry.traces import KeepOptions, Span, Tracer
from tests.support.values import LIMIT, principal, request, server


def recorder() -> tuple[Recorder, io.StringIO]:
    stream = io.StringIO()
    return Recorder(Metrics(), EventLog("json", stream, clock=lambda: 0.0)), stream


def value(recorder: Recorder, name: str, **labels: str) -> float | None:
    return recorder.metrics.registry.get_sample_value(name, labels)


def test_a_decision_is_counted_timed_and_written_once() -> None:
    """One record is one count, one observation and one line."""
    record, stream = recorder()

    record.decision(Deny(Reason.TOKEN_MISSING, "", server()), request(), 0.003)

    label = {"server": "files", "reason": "token_missing"}
    assert value(record, "authz_decisions_total", **label) == 1
    assert value(record, "authz_check_duration_seconds_count") == 1
    assert len(stream.getvalue().splitlines()) == 1


def test_every_reason_is_counted_from_zero_over_all_servers() -> None:
    """A burst of refusals for a reason that nobody was refused for yet grows from 0."""
    record, _ = recorder()
    assert {value(record, "authz_refusals_total", reason=each.label) for each in Reason} == {0}

    record.decision(Deny(Reason.TOKEN_MISSING, "", server()), request(), 0.003)
    record.decision(Deny(Reason.TOKEN_MISSING), request(), 0.003)

    assert value(record, "authz_refusals_total", reason="token_missing") == 2


def test_what_a_limit_in_shadow_would_refuse_is_counted_and_written() -> None:
    """By the limit's name, of allowed requests alone; a limit that had room is not told."""
    record, stream = recorder()
    trial, other = (replace(LIMIT, name=name, shadow=True) for name in ("trial", "other"))
    quotas = Quota(trial, 0, 9, exceeded=True), Quota(other, 3, 9), Quota(LIMIT, 3, 9)
    allow = Allow(server(), None, principal(), quotas, Mode.REDIS)

    record.decision(allow, request(), 0.003)
    record.decision(Deny(Reason.RATE_LIMITED, quotas=quotas, retry_after=9), request(), 0.003)

    assert value(record, "authz_shadow_refusals_total", limit="trial") == 1
    assert value(record, "authz_shadow_refusals_total", limit="other") is None
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("shadow") for line in lines] == ["trial", None]


def test_a_limit_near_its_end_is_counted_and_written() -> None:
    """By the limit's name, once a request, of allowed requests alone."""
    record, stream = recorder()
    careful = replace(LIMIT, name="careful", warn_at=50)
    near, far = Quota(careful, 0, 9), Quota(careful, LIMIT.quota, 9)

    for quotas in ((near, near), (far,)):
        record.decision(Allow(server(), None, principal(), quotas, Mode.REDIS), request(), 0.003)
    record.decision(Deny(Reason.RATE_LIMITED, quotas=(near,), retry_after=9), request(), 0.003)

    assert value(record, "authz_near_limit_total", limit="careful") == 1
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("near") for line in lines] == ["careful", None, None]


def test_an_unknown_server_is_one_label() -> None:
    """What a caller chose is no label: every unknown server is the same dash."""
    record, _ = recorder()
    for name in ("a", "b", "c"):
        sent = request(context={"server": name})
        record.decision(Deny(Reason.UNKNOWN_SERVER), sent, 0)

    label = {"server": "-", "reason": "unknown_server"}
    assert value(record, "authz_decisions_total", **label) == 3


def test_a_crash_is_told_by_place_not_by_text() -> None:
    """An exception's message may quote a token; its class and our own lines cannot."""
    record, stream = recorder()
    with pytest.raises(ValueError, match="secret") as caught:
        raise ValueError("secret")

    record.crash(caught.value)

    line = json.loads(stream.getvalue())
    assert line["error"] == "ValueError"
    assert "secret" not in stream.getvalue()
    assert line["where"][0].startswith("test_recorder.py:")
    assert value(record, "authz_dependency_errors_total", dependency="authz") == 1


def test_gauges_are_read_when_asked() -> None:
    """The key age and the limiter's mode are those of the moment of the scrape."""
    record, _ = recorder()
    now = {"age": 5.0, "mode": "redis"}
    record.metrics.follow(lambda: float(str(now["age"])), lambda: str(now["mode"]))
    now.update(age=7.0, mode="local")

    assert value(record, "authz_signing_keys_age_seconds") == 7
    assert value(record, "authz_limiter_mode", mode="local") == 1
    assert value(record, "authz_limiter_mode", mode="redis") == 0


@pytest.mark.parametrize(
    "decision",
    [Allow(server(), None, principal(), (), Mode.REDIS), Deny(Reason.TOKEN_MISSING, "", server())],
)
def test_a_defect_of_tracing_costs_no_decision(decision: Decision) -> None:
    """Whatever raises there, the decision has its count and its line, and who asked its answer."""
    record, stream = recorder()

    def export(_: tuple[Span, ...]) -> None:
        raise RuntimeError("secret")

    record.tracer = Tracer(KeepOptions(sample=1), export, lambda: None)
    trace = record.tracer.begin("", 0.0)

    record.decision(decision, request(), 0.003, trace=trace)

    crash, line = map(json.loads, stream.getvalue().splitlines())
    assert (crash["event"], line["event"]) == ("crash", "decision")
    assert "secret" not in stream.getvalue()
    assert trace.is_ended


def test_a_defect_of_notices_costs_no_decision() -> None:
    """A refusal that people are to hear of is told to its caller, whatever raises there."""
    record, stream = recorder()

    def notify(_: SecurityNotice) -> None:
        raise RuntimeError("secret")

    record.notify = notify

    record.decision(Deny(Reason.SESSION_OF_ANOTHER, "", server()), request(), 0.003)

    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["decision", "security", "crash"]


def test_a_line_has_the_trace_that_somebody_can_find() -> None:
    """Of a trace that is kept, or that its client named; an id that nobody knows is not made up."""
    kept: list[tuple[Span, ...]] = []
    ids = list[object]()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    for sample, header in ((0.0, ""), (1.0, ""), (0.0, parent)):
        record, stream = recorder()
        record.tracer = Tracer(KeepOptions(sample=sample), kept.append, lambda: None)
        trace = record.tracer.begin("", 0.0)
        trace.adopt(header)
        record.decision(
            Allow(server(), None, principal(), (), Mode.REDIS), request(), 0.003, trace=trace
        )
        assert trace.is_ended
        ids.append(json.loads(stream.getvalue()).get("trace_id"))

    ((span,),) = kept
    assert ids == [None, span.trace_id, parent.split("-")[1]]
