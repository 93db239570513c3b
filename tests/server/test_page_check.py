"""The check of an admin page: bytes in, bytes out; whatever breaks lets nobody in."""

import asyncio
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from authz.core.admin_pages import AdminPage
from authz.core.browser_session import BrowserRule, BrowserSession
from authz.core.ledger import Ledger, Mode, Revoked, Taken, UnavailableError
from authz.core.policy import Policy
from authz.core.request import HttpRequest
from authz.core.second_factor import Method, SecondFactor
from authz.ledger.browser_sessions import SessionRecords
from authz.ledger.deadline import Deadline
from authz.ledger.keys import RedisKeys
from authz.server.browser_sessions import BrowserSessions
from authz.server.check import Check, Snapshot
from authz.server.page_check import PageCheck
from authz.server.refusal_limiter import RefusalLimiter
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.telemetry.traces import KeepOptions, Span, Tracer
from authz.tokens.browser_sessions import seal_session
from authz.tokens.sealing import Sealer
from authz.tokens.userinfo import TokenEndedError
from tests.server.test_check import Answers, FakeVerifier
from tests.support.admin_page import Directory, RecordStore
from tests.support.values import policy
from tests.support.wire import WireAnswer, answer, check_request

NOW = 1_800_000_000
ORIGIN, TOKEN = "https://grafana.example.com", "t" * 43
PAGE = AdminPage(
    "grafana", ORIGIN, "",
    BrowserRule(frozenset({"admins"}), SecondFactor(Method.TOTP, 600), 600.0), "d1",
)  # fmt: skip
JOHN = BrowserSession(
    "s-john", "john", frozenset({"admins"}), Method.TOTP, NOW - 60, NOW - 60, NOW + 3600,
    NOW - 60, "a-token", NOW + 3600, True,
)  # fmt: skip
TAKEN = Taken((), Mode.REDIS)
OPENS = {"accept": "text/html", "sec-fetch-mode": "navigate"}


class PageCheckWorld:
    """One check with a session, and what it wrote."""

    def __init__(self, given: object = TAKEN, deadline: float = 5.0) -> None:
        self.log, self.metrics, self.store = io.StringIO(), Metrics(), RecordStore()
        sealer, ledger = Sealer(["k" * 32], lambda: NOW), Answers(given)
        rules: Policy = replace(policy(), pages=MappingProxyType({"grafana": PAGE}))
        self.directory = Directory()
        records = SessionRecords(self.store, RedisKeys("t"))
        as_ledger: Ledger = ledger
        sessions = BrowserSessions(
            records,
            sealer=sealer,
            revocations=as_ledger,
            groups=self.directory,
            issuer=rules.issuer,
            clock=lambda: NOW,
            patience=deadline,
        )
        pages = PageCheck(
            rules,
            sessions=sessions,
            sealer=sealer,
            gateway="https://mcp.example.com",
            deadline=Deadline(deadline),
            clock=lambda: NOW,
        )
        self.ledger, self.sealer, self.records = ledger, sealer, records
        self.recorder = Recorder(self.metrics, EventLog("json", self.log, clock=lambda: 0.0))
        snapshot = Snapshot(rules, FakeVerifier(), ledger, Deadline(deadline), pages=pages)
        self.check = Check(snapshot, self.recorder, RefusalLimiter(), clock=lambda: NOW)
        self.keep(JOHN)

    def keep(self, login: BrowserSession) -> None:
        text = seal_session(self.sealer, login, ORIGIN, TOKEN, 3600)
        asyncio.run(self.records.put(ORIGIN, TOKEN, text, 3600))

    def ask(
        self, headers: Mapping[str, str] = MappingProxyType({}), **told: dict[str, str]
    ) -> WireAnswer:
        sent = {"x-authz-session": TOKEN, **headers}
        context = told.get("context", {"page": "grafana", "upstream": "d1"})
        request = HttpRequest("GET", "/d/a", sent, b"", context, "192.0.2.1", "r-1", "grafana")
        return answer(asyncio.run(self.check(check_request(request))))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def test_one_decision_one_line_one_count() -> None:
    """An Allow says who asks; line and count have the page's name."""
    world = PageCheckWorld()
    found = world.ask()
    assert found.allowed
    assert world.ledger.asked[0].issued_at == JOHN.began
    (line,) = world.lines()
    assert (line["event"], line["verdict"], line["page"]) == ("decision", "allow", "grafana")
    assert TOKEN not in world.log.getvalue()
    assert count(world) == {("grafana", "allowed"): 1.0}


def count(world: PageCheckWorld) -> dict[tuple[str, str], float]:
    return {
        (each.labels["page"], each.labels["reason"]): each.value
        for metric in world.metrics.registry.collect()
        for each in metric.samples
        if each.name == "authz_page_decisions_total"
    }


@pytest.mark.parametrize(
    ("given", "status", "reason"),
    [
        (Revoked("person"), 401, "session_revoked"),
        (UnavailableError("redis", "away"), 503, "ledger_unavailable"),
        (UnavailableError("something", "away"), 503, "internal"),
        (TimeoutError(), 503, "ledger_unavailable"),
        (None, 503, "internal"),
        (RuntimeError("secret"), 503, "internal"),
    ],
)
def test_whatever_breaks_is_a_refusal(given: object, status: int, reason: str) -> None:
    """One line says why, and nothing that an exception said."""
    world = PageCheckWorld(given)
    found = world.ask()
    assert not found.allowed
    assert found.status == status
    decisions = [line for line in world.lines() if line["event"] == "decision"]
    assert [line["reason"] for line in decisions] == [reason]
    assert "secret" not in world.log.getvalue()


@pytest.mark.parametrize(
    ("given", "kept", "error"),
    [(TAKEN, "sample", ""), (Revoked("person"), "sample", ""), (None, "sample", "internal")],
)
def test_a_page_has_a_span_that_names_nobody(given: object, kept: str, error: str) -> None:
    """Whatever came of it, under Envoy's span; the line has its trace, the span no session."""
    world, traces = PageCheckWorld(given), list[tuple[Span, ...]]()
    world.recorder.tracer = Tracer(KeepOptions(sample=1.0), traces.append, lambda: None)
    world.ask()
    ((span, *stages),) = traces
    said = dict(span.attributes)
    assert (span.name, span.error, said["authz.kept"]) == ("authorize page", error, kept)
    assert said["authz.page"] == "grafana"
    assert [each.name for each in stages][:2] == ["read", "ledger"]
    assert world.lines()[-1]["trace_id"] == span.trace_id
    assert not {TOKEN, JOHN.subject, JOHN.account, "192.0.2.1"} & set(map(str, said.values()))


def test_a_log_in_that_became_too_old_is_offered_again() -> None:
    """The age is that of the request's moment; a person is sent to log in, a call is told."""
    world = PageCheckWorld()
    world.keep(replace(JOHN, auth_time=NOW - 601))
    assert world.ask().status == 403
    found = world.ask(OPENS)
    assert found.status == 303
    assert dict(found.headers)["location"].startswith("https://mcp.example.com/authz/page?ticket=")
    assert count(world) == {("grafana", "login_too_old"): 2.0}


@pytest.mark.attack("page-rules")
@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        (frozenset({"staff"}), 403, "person_not_allowed"),
        (TokenEndedError(), 401, "session_missing"),
        (UnavailableError("issuer", "away"), 503, "issuer_unavailable"),
    ],
)
def test_groups_of_long_ago_open_nothing(
    said: frozenset[str] | Exception, status: int, reason: str
) -> None:
    """The issuer is asked before, and where it does not answer nothing is opened."""
    world = PageCheckWorld()
    world.directory.said = said
    world.keep(replace(JOHN, groups_at=NOW - 600))
    found = world.ask()
    assert (found.allowed, found.status) == (False, status)
    assert count(world) == {("grafana", reason): 1.0}
    assert world.directory.asked == ["a-token"]


@pytest.mark.attack("page-apart")
def test_a_page_that_is_not_there() -> None:
    """What Envoy's route names is looked up; without pages every such route is refused."""
    world = PageCheckWorld()
    assert world.ask(context={"page": "other", "upstream": "d1"}).status == 404
    assert count(world) == {("-", "unknown_page"): 1.0}
    assert world.ask(context={"page": "grafana", "upstream": "d2"}).status == 503
    world.check.snapshot = replace(world.check.snapshot, pages=None)
    assert world.ask().status == 404
    # A route of a server looks at no session.
    assert world.ask(context={"server": "files"}).status == 401
    assert not world.ledger.asked
