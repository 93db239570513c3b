"""The check where a rule says that the issuer is always asked."""

import asyncio
import io
import json
from collections.abc import Callable, Mapping

import pytest

from authz.core.detail import Detail
from authz.core.ledger import LedgerAnswer, Mode, Query, Taken, UnavailableError
from authz.core.policy import Rule, TokenKind
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.ledger.deadline import Deadline
from authz.server.check import Check, Snapshot
from authz.server.refusal_limiter import REFUSED, RefusalLimiter
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.verifier import Stage
from tests.support.values import NOW, call, policy, principal, request, server
from tests.support.wire import WireAnswer, answer, check_request, reason_of

Word = Principal | Exception


class ConfirmVerifier:
    """A verifier that knows every token, and an issuer that says what it is told to."""

    def __init__(self, word: Word, known: Principal | None = None) -> None:
        self.word = word
        self.known = principal() if known is None else known
        self.asked: list[float] = []
        self.opaque: list[bool] = []

    def cached(self, token: str) -> Principal | None:
        return self.known if token == "known" else None

    async def verify(
        self,
        token: str,
        *,
        opaque: bool,
        passed: Callable[[Stage], None],
        before_asking: Callable[[], None],
    ) -> Principal:
        self.opaque.append(opaque)
        return self.known

    async def confirm(self, token: str, principal: Principal, since: float) -> Principal:
        self.asked.append(since)
        if isinstance(self.word, Exception):
            raise self.word
        return self.word


class ConfirmLedger:
    """A ledger that lets everybody pass, and counts."""

    def __init__(self) -> None:
        self.asked: list[Query] = []

    async def take(self, query: Query) -> LedgerAnswer:
        self.asked.append(query)
        return Taken((), Mode.REDIS)


RULES: Mapping[str, Rule] = {"read_*": Rule(), "delete_*": Rule(confirm=True)}


class ConfirmWorld:
    """One check of a server whose deletions are confirmed."""

    def __init__(self, tokens: ConfirmVerifier, rule: Rule | None = None) -> None:
        self.stream = io.StringIO()
        self.ledger = ConfirmLedger()
        self.check = Check(
            Snapshot(
                policy(server(rule, RULES), confirm_age=1.0), tokens, self.ledger, Deadline(5.0)
            ),
            Recorder(Metrics(), EventLog("json", self.stream, clock=lambda: 0.0)),
            RefusalLimiter(),
            clock=lambda: NOW,
        )

    def ask(self, tool: str = "delete_it", token: str = "known") -> WireAnswer:
        sent = check_request(request(call(tool), authorization=f"Bearer {token}"))
        return answer(asyncio.run(self.check(sent)))


def test_who_is_confirmed_passes() -> None:
    """The issuer is asked as of a moment ago, and its word lets the call through."""
    tokens = ConfirmVerifier(principal(confirmed_at=NOW))
    world = ConfirmWorld(tokens)

    assert world.ask().allowed
    assert tokens.asked == [NOW - 1.0]


def test_other_tools_ask_nobody() -> None:
    """Where no rule asks for it, a known token waits for nobody."""
    tokens = ConfirmVerifier(RuntimeError("nobody asks"))

    assert ConfirmWorld(tokens).ask("read_it").allowed
    assert tokens.asked == []


@pytest.mark.parametrize(
    ("word", "expected", "status"),
    [
        (RefusedError(Reason.TOKEN_REVOKED, Detail.NOT_ACTIVE), "token_revoked", 401),
        (RefusedError(Reason.TOKEN_INVALID, Detail.OTHER_TOKEN), "token_invalid", 401),
        (UnavailableError("issuer", "late"), "issuer_unavailable", 200),
        (RuntimeError("boom"), "internal", 503),
        (principal(confirmed_at=NOW, scopes=frozenset()), None, 200),
        (principal(confirmed_at=NOW, audience=()), "audience_mismatch", 401),
        (principal(confirmed_at=None), "internal", 200),
        (principal(confirmed_at=NOW - 2), "internal", 200),
    ],
)
@pytest.mark.attack("introspection-revoked")
def test_whatever_the_issuer_says_decides(word: Word, expected: str | None, status: int) -> None:
    """Inactive, about another token, away, or not said after all: refused, and never charged."""
    world = ConfirmWorld(ConfirmVerifier(word))
    found = world.ask()

    if expected is None:
        assert found.allowed
        return
    assert (reason_of(found), found.status) == (expected, status)
    if expected != "internal":
        assert world.ledger.asked == []


def test_a_refusal_tells_what_was_asked() -> None:
    """The answer has the request's id, and the challenge of a 401."""
    found = ConfirmWorld(ConfirmVerifier(RefusedError(Reason.TOKEN_REVOKED))).ask()

    assert json.loads(found.body)["id"] == 7
    assert 'error="invalid_token"' in found.headers["www-authenticate"]


def test_a_revoked_token_that_keeps_coming_is_told_to_wait() -> None:
    """It is counted like any refusal of somebody known."""
    world = ConfirmWorld(ConfirmVerifier(RefusedError(Reason.TOKEN_REVOKED)))
    for _ in range(REFUSED.quota):
        assert reason_of(world.ask()) == "token_revoked"

    assert reason_of(world.ask()) == "too_many_refusals"


@pytest.mark.parametrize(
    ("kinds", "may"),
    [({TokenKind.JWT}, False), ({TokenKind.OPAQUE}, True), (set(TokenKind), True)],
)
def test_the_verifier_is_told_what_the_server_takes(kinds: set[TokenKind], may: bool) -> None:
    """A server that takes signed tokens only makes nobody ask about others."""
    tokens = ConfirmVerifier(principal(confirmed_at=NOW))
    ConfirmWorld(tokens, Rule(tokens=frozenset(kinds))).ask(token="new")

    assert tokens.opaque == [may]
