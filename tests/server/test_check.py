"""The check: bytes in, bytes out; whatever breaks is a refusal, recorded once."""

import asyncio
import io
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.ledger import LedgerAnswer, Mode, Query, Revoked, Taken, UnavailableError
from authz.core.policy import JsonBounds, Rule, Server
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError
from authz.envoy.pb import external_auth_pb2 as wire
from authz.ledger.deadline import Deadline
from authz.server.check import Check, Snapshot
from authz.server.refusal_limiter import BAD_TOKENS, REFUSED, RefusalLimiter
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.verifier import Stage
from tests.support.examples import examples
from tests.support.values import NOW, policy, principal, request, server
from tests.support.wire import WireAnswer, answer, check_request, reason_of

Verify = Callable[[str], Principal]


class FakeVerifier:
    """A verifier whose known tokens are cached and whose others do as they are told."""

    def __init__(self, verify: Verify | None = None, known: Principal | None = None) -> None:
        self.asked: list[str] = []
        self.passes: tuple[Stage, ...] = ()  # the stages that a token passes
        self.asks = False  # whether the issuer is asked for what has a good signature
        self._verify = verify
        self._known = known

    def cached(self, token: str) -> Principal | None:
        return self._known if token == "known" else None

    async def verify(
        self,
        token: str,
        *,
        opaque: bool,
        passed: Callable[[Stage], None],
        before_asking: Callable[[], None],
    ) -> Principal:
        for stage in self.passes:
            passed(stage)
        if self.asks or Stage.SIGNATURE not in self.passes:
            before_asking()
        self.asked.append(token)
        if self._verify is None:
            await asyncio.Event().wait()
            raise AssertionError("nobody sets the event")
        return self._verify(token)

    async def confirm(self, token: str, principal: Principal, since: float) -> Principal:
        raise AssertionError("no rule asks for it")


class Answers:
    """A ledger that gives one answer, or raises one fault."""

    def __init__(self, given_answer: object) -> None:
        self.asked: list[Query] = []
        self._answer = given_answer

    async def take(self, query: Query) -> LedgerAnswer:
        self.asked.append(query)
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer  # type: ignore[return-value]  # hostile on purpose


class CheckWorld:
    """One check with its parts in reach."""

    def __init__(self, tokens: FakeVerifier, ledger: Answers, deadline: float = 5.0) -> None:
        self.stream = io.StringIO()
        self.recorder = Recorder(Metrics(), EventLog("json", self.stream, clock=lambda: 0.0))
        self.check = Check(
            Snapshot(policy(), tokens, ledger, Deadline(deadline)),
            self.recorder,
            RefusalLimiter(),
            clock=lambda: NOW,
        )

    def ask(self, sent: HttpRequest | None = None) -> WireAnswer:
        return self.raw(check_request(sent))

    def raw(self, sent: bytes) -> WireAnswer:
        return answer(asyncio.run(self.check(sent)))

    def lines(self, event: str = "decision") -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]


def raising(error: Exception) -> Verify:
    def verify(_: str) -> Principal:
        raise error

    return verify


TAKEN = Taken((), Mode.REDIS)


def good() -> CheckWorld:
    return CheckWorld(FakeVerifier(lambda _: principal(), principal()), Answers(TAKEN))


def test_a_good_request_is_allowed_with_its_identity() -> None:
    """What passes every step goes on with identity headers and without credentials."""
    found = good().ask()

    assert found.allowed
    assert found.headers["x-authz-client"] == "claude"
    assert {"authorization", "cookie"} <= set(found.removed)


@pytest.mark.parametrize("origin", ["https://inspector.example.com", None])
def test_envoy_is_told_which_page_asked(origin: str | None) -> None:
    """So that the page can read what takes the place of a server's answer."""
    world = good()
    rules = policy(origins=frozenset({"https://inspector.example.com"}))
    world.check.snapshot = replace(world.check.snapshot, policy=rules)
    raw = asyncio.run(world.check(check_request(request(origin=origin))))

    told = wire.CheckResponse.FromString(raw).dynamic_metadata.fields
    assert told["origin"].string_value == (origin or "")


@pytest.mark.parametrize(
    ("path", "slash"),
    [("/files", ""), ("/files/", "/"), ("/files/?a=b", "/"), ("/files?a=/", "")],
)
def test_a_challenge_names_the_document_of_the_url_that_was_asked_for(
    path: str, slash: str
) -> None:
    """RFC 9728, section 3.3: clients compare the document's `resource` with their own URL."""
    found = good().ask(request(path=path, authorization=None))

    assert found.status == 401
    document = policy().servers["files"].metadata_url
    assert f'resource_metadata="{document}{slash}"' in found.headers["www-authenticate"]


class Signs:
    """Sign as told."""

    def assertion(self, principal: Principal, server: Server) -> str:
        return f"signed.{principal.client_id}.{server.name}"


@pytest.mark.attack("spoofed-identity")
def test_a_signed_identity_is_set_where_it_is_asked_for_and_else_removed() -> None:
    """A client's own never passes, and without a key nothing does."""
    sent = request(x_authz_identity="mine")
    assert "x-authz-identity" in good().ask(sent).removed

    world = good()
    signed = policy(server(signed_identity=True))
    world.check.snapshot = replace(world.check.snapshot, policy=signed)
    assert reason_of(world.ask(sent)) == "internal"
    world.check.snapshot = replace(world.check.snapshot, identity=Signs())
    found = world.ask(sent)
    assert found.headers["x-authz-identity"] == "signed.claude.files"
    assert "x-authz-identity" not in found.removed


def test_each_check_is_recorded_once() -> None:
    """Allowed, refused or broken: one line and one count."""
    for world in (good(), CheckWorld(FakeVerifier(), Answers(ValueError("x")))):
        world.ask(request(authorization="Bearer known"))

        assert len(world.lines()) == 1
        sample = world.recorder.metrics.registry.get_sample_value
        assert sample("authz_check_duration_seconds_count") == 1
        assert sample("authz_checks_in_flight") == 0


@pytest.mark.parametrize(
    ("tokens", "ledger", "expected"),
    [
        pytest.param(
            FakeVerifier(raising(RefusedError(Reason.TOKEN_INVALID))),
            Answers(TAKEN),
            Reason.TOKEN_INVALID,
            id="bad-token",
        ),
        pytest.param(
            FakeVerifier(raising(UnavailableError("issuer"))),
            Answers(TAKEN),
            Reason.ISSUER_UNAVAILABLE,
            id="issuer-away",
        ),
        pytest.param(
            FakeVerifier(raising(RuntimeError("boom"))),
            Answers(TAKEN),
            Reason.INTERNAL,
            id="verifier",
        ),
        pytest.param(
            FakeVerifier(lambda _: principal()),
            Answers(UnavailableError("redis")),
            Reason.LEDGER_UNAVAILABLE,
            id="redis-away",
        ),
        pytest.param(
            FakeVerifier(lambda _: principal()),
            Answers(KeyError("x")),
            Reason.INTERNAL,
            id="ledger",
        ),
        pytest.param(
            FakeVerifier(lambda _: principal()), Answers(None), Reason.INTERNAL, id="no-answer"
        ),
        pytest.param(
            FakeVerifier(lambda _: principal()),
            Answers(True),
            Reason.INTERNAL,
            id="true-is-no-answer",
        ),
        pytest.param(
            FakeVerifier(lambda _: principal()),
            Answers(Revoked("token")),
            Reason.TOKEN_REVOKED,
            id="revoked",
        ),
        pytest.param(
            FakeVerifier(lambda _: principal(subject="\udc00")),
            Answers(TAKEN),
            Reason.INTERNAL,
            id="unencodable",
        ),
    ],
)
@pytest.mark.attack("whatever-breaks-is-a-refusal")
def test_whatever_breaks_is_a_refusal(
    tokens: FakeVerifier, ledger: Answers, expected: Reason
) -> None:
    """A fault of the issuer, of Redis or of our own is a refusal, never an Allow."""
    assert reason_of(CheckWorld(tokens, ledger).ask()) == expected.label


def test_an_issuer_that_hangs_costs_the_deadline() -> None:
    """A look-up that does not end is answered at the deadline with a 503, not with a 401."""
    found = CheckWorld(FakeVerifier(), Answers(TAKEN), deadline=0.05).ask()

    assert (found.status, reason_of(found)) == (503, "issuer_unavailable")
    assert "retry-after" in found.headers


def test_a_known_token_asks_the_issuer_nothing() -> None:
    """With a verified token nothing waits for anybody but the ledger."""
    tokens = FakeVerifier(None, principal())
    world = CheckWorld(tokens, Answers(TAKEN))

    assert world.ask(request(authorization="Bearer known")).allowed
    assert tokens.asked == []


@pytest.mark.attack("replay-at-another-server")
def test_a_cached_token_is_judged_at_every_server() -> None:
    """What is cached is who asks, never a verdict: another audience is refused on a hit."""
    tokens = FakeVerifier(None, principal(audience=("https://mcp.example.test/notes",)))
    world = CheckWorld(tokens, Answers(TAKEN))

    found = world.ask(request(authorization="Bearer known"))

    assert reason_of(found) == "audience_mismatch"


def test_nothing_is_charged_before_every_rule_passed() -> None:
    """A refusal by the rules never reaches the ledger."""
    ledger = Answers(TAKEN)
    CheckWorld(FakeVerifier(lambda _: principal(audience=())), ledger).ask()

    assert ledger.asked == []


@pytest.mark.attack("flood-of-bad-tokens")
def test_an_address_full_of_bad_tokens_locks_out_no_known_one() -> None:
    """Unknown tokens of a failing address wait; a known one beside them passes."""
    tokens = FakeVerifier(raising(RefusedError(Reason.TOKEN_INVALID)), principal())
    world = CheckWorld(tokens, Answers(TAKEN))
    for number in range(BAD_TOKENS.quota):
        assert world.ask(request(authorization=f"Bearer bad-{number}")).status == 401

    refused = world.ask()

    assert (refused.status, reason_of(refused)) == (429, "too_many_refusals")
    assert len(tokens.asked) == BAD_TOKENS.quota
    assert world.ask(request(authorization="Bearer known")).allowed


@pytest.mark.attack("shared-address")
def test_one_bad_token_counts_once_and_a_signed_one_never() -> None:
    """A client that repeats one token is one mistake, and what the issuer has signed (an expired
    token) is no guess: neither locks the address out.
    """
    tokens = FakeVerifier(raising(RefusedError(Reason.TOKEN_INVALID)))
    world = CheckWorld(tokens, Answers(TAKEN))
    assert {world.ask().status for _ in range(10 * BAD_TOKENS.quota)} == {401}

    tokens.passes = (Stage.SHAPE, Stage.ISSUER, Stage.KEY, Stage.SIGNATURE)
    for number in range(2 * BAD_TOKENS.quota):
        assert world.ask(request(authorization=f"Bearer expired-{number}")).status == 401
    tokens.asks = True  # of a key that had to be fetched
    for number in range(2 * BAD_TOKENS.quota):
        assert world.ask(request(authorization=f"Bearer expired-{number}")).status == 401
    tokens.passes = ()
    assert world.ask(request(authorization="Bearer another")).status == 401


@pytest.mark.attack("issuer-hangs-for-strangers")
def test_tokens_that_nobody_can_judge_count_as_bad_ones() -> None:
    """While the issuer is away, an address cannot hold more calls than its quota of bad tokens."""
    tokens = FakeVerifier(raising(UnavailableError("issuer")), principal())
    world = CheckWorld(tokens, Answers(TAKEN))
    for number in range(BAD_TOKENS.quota):
        assert world.ask(request(authorization=f"Bearer bad-{number}")).status == 503

    assert world.ask().status == 429
    assert len(tokens.asked) == BAD_TOKENS.quota
    assert world.ask(request(authorization="Bearer known")).allowed


@pytest.mark.attack("key-rotation")
def test_a_dependency_that_knows_says_when_to_come_again() -> None:
    """A 503 carries the seconds after which the key set may be fetched again."""
    world = CheckWorld(
        FakeVerifier(raising(UnavailableError("issuer", retry_after=27))), Answers(TAKEN)
    )
    refused = world.ask()

    assert refused.status == 503
    assert dict(refused.headers)["retry-after"] == "27"


def test_a_valid_token_that_keeps_being_refused_is_told_to_wait() -> None:
    """After its quota of refusals a client and user are answered without being judged."""
    world = CheckWorld(FakeVerifier(lambda _: principal(audience=())), Answers(TAKEN))
    for _ in range(REFUSED.quota):
        assert reason_of(world.ask()) == "audience_mismatch"

    assert reason_of(world.ask()) == "too_many_refusals"


def test_the_id_is_repeated_even_where_the_message_is_refused() -> None:
    """A client matches the error to its request by the id, where the body could be read."""
    body = b'{"jsonrpc":"2.0","id":"abc","method":"tools/call","params":{}}'

    assert json.loads(good().ask(request(body)).body)["id"] == "abc"


def test_a_refusal_reads_what_a_decision_reads() -> None:
    """Where Redis is away the id is looked for by the operator's own bounds of JSON."""
    world = CheckWorld(FakeVerifier(known=principal()), Answers(UnavailableError("redis")))
    nested = b"[" * 80 + b"]" * 80
    body = b'{"jsonrpc":"2.0","id":7,"method":"x/y","params":{"a":%s}}' % nested
    sent = request(body, authorization="Bearer known")
    statuses = []
    for depth in (200, 64):
        rules = policy(json=JsonBounds(depth=depth))
        world.check.snapshot = replace(world.check.snapshot, policy=rules)
        refused = world.ask(sent)
        statuses.append((refused.status, json.loads(refused.body)["id"]))

    assert statuses == [(200, 7), (400, "")]


def test_a_cancelled_check_leaves_nothing_in_flight() -> None:
    """A caller that goes away is no decision and no leak."""
    world = CheckWorld(FakeVerifier(), Answers(TAKEN))

    async def cancel() -> None:
        task = asyncio.ensure_future(world.check(check_request()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())

    assert world.recorder.metrics.registry.get_sample_value("authz_checks_in_flight") == 0


@given(st.binary())
@examples(300)
@pytest.mark.attack("undecodable-request")
def test_any_bytes_are_answered_with_a_refusal(raw: bytes) -> None:
    """Garbage for a CheckRequest is a denial; nothing raises out of the check."""
    assert not good().raw(raw).allowed


def test_a_snapshot_has_a_cache_of_its_own() -> None:
    """What was made of one configuration is dropped with it, and found in no other."""
    one, other = (
        Snapshot(policy(), FakeVerifier(known=principal()), Answers(TAKEN), Deadline(1))
        for _ in range(2)
    )

    assert one.cache is not other.cache
    assert len(one.cache) == len(other.cache) == 0


@pytest.mark.attack("route-of-another-upstream")
def test_what_moved_is_judged_at_its_former_upstream_alone() -> None:
    """While Envoy follows, what is kept for old routes holds for these and nothing else."""

    def decided(current: Server | None, former: Server | None, upstream: str) -> str | None:
        world = good()
        servers = {} if current is None else {"files": current}
        world.check.snapshot = replace(
            world.check.snapshot, policy=replace(policy(), servers=servers)
        )
        if former is not None:
            world.check.former = replace(world.check.snapshot, policy=policy(former))
        sent = request(context={"server": "files", "upstream": upstream})
        found = world.ask(sent)
        return None if found.allowed else reason_of(found)

    old, new = server(upstream="old"), server(upstream="new")
    strict = server(Rule(scopes=frozenset({"none has it"})), upstream="old")
    outdated, unknown = Reason.ROUTE_OUTDATED.label, Reason.UNKNOWN_SERVER.label
    assert decided(new, old, "new") is decided(new, old, "old") is None
    assert decided(new, old, "other") == outdated
    assert decided(new, None, "old") == outdated
    # Another rule for the same upstream holds at once, and a removed server is gone at once.
    assert decided(strict, old, "old") == Reason.INSUFFICIENT_SCOPE.label
    assert decided(None, old, "old") == unknown
