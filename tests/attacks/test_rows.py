"""Rows of the attack list that no other file proves.

Each test is one row; it goes through as much of the service as the row is about.
"""

import asyncio
import gc
import io
import json
import time
import tracemalloc
from dataclasses import replace

import pytest

from authz.core.decision import BearerRequest, PendingDecision, authorize, read
from authz.core.identity_cache import IdentityCache
from authz.core.ledger import OverLimit, Taken
from authz.core.limits import Limit, Per, Take
from authz.core.policy import DeclaredClient, Policy, Rule
from authz.core.reason import Reason
from authz.core.request import HttpRequest
from authz.core.second_factor import Method, SecondFactor
from authz.ledger.deadline import Deadline
from authz.ledger.keys import EVERYTHING, client_field, person_field, token_field
from authz.ledger.memory import MemoryLedger
from authz.ledger.records import Revocation
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.server.check import Check, Snapshot
from authz.server.refusal_limiter import RefusalLimiter
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.claims import ClaimRules
from authz.tokens.keys import SigningKeys
from authz.tokens.verifier import TokenVerifier
from tests.ledger.queries import query
from tests.support.valkey import valkey
from tests.support.values import LIMIT, NOW, call, policy, principal, request, rpc, server
from tests.support.wire import WireAnswer, answer, check_request, reason_of
from tests.tokens.token_factory import (
    FILES,
    RULES,
    Source,
    TokenClock,
    ec_signer,
    key_set,
    rsa_signer,
)
from tests.tokens.token_factory import NOW as TOKEN_NOW

pytestmark = pytest.mark.slow


class AttackWorld:
    """The check with the real verifier and the real in-process ledger, at a fixed moment."""

    def __init__(self, rules: Policy, capacity: int = 100, claims: ClaimRules = RULES) -> None:
        self.clock = TokenClock(TOKEN_NOW)
        self.source = Source(key_set(rsa_signer().jwk(), ec_signer().jwk()))
        self.keys = SigningKeys(self.source, clock=self.clock)
        self.verifier = TokenVerifier(self.keys, claims, clock=self.clock, capacity=capacity)
        self.ledger = MemoryLedger(self.clock, capacity=capacity)
        self.stream = io.StringIO()
        self.recorder = Recorder(Metrics(), EventLog("json", self.stream, clock=self.clock))
        self.refusals = RefusalLimiter(capacity=capacity)
        self.check = Check(
            Snapshot(
                rules,
                self.verifier,
                self.ledger,
                Deadline(5.0),
                cache=IdentityCache(capacity),
            ),
            self.recorder,
            self.refusals,
            clock=self.clock,
        )

    async def ask(self, token: str, sent: HttpRequest | None = None) -> WireAnswer:
        asked = request(authorization=f"Bearer {token}") if sent is None else sent
        return answer(await self.check(check_request(asked)))


# --- tokens -------------------------------------------------------------------------------------


@pytest.mark.attack("cached-and-revoked")
@pytest.mark.parametrize("what", ["token", "person", "client", "everything"])
def test_a_cached_token_is_refused_from_the_request_after_its_revocation(what: str) -> None:
    """That a token is cached keeps nobody from being told that it was revoked."""

    async def run() -> None:
        world, token = AttackWorld(policy()), rsa_signer().token()
        assert (await world.ask(token)).allowed
        known = world.verifier.cached(token)
        assert known is not None
        assert known.person is not None
        targets = {
            "token": token_field(known.token_id),
            "person": person_field(known.person),
            "client": client_field(known.client),
            "everything": EVERYTHING,
        }
        await world.ledger.revoke(targets[what], Revocation())

        refused = await world.ask(token)

        assert world.verifier.cached(token) is known
        assert (refused.status, reason_of(refused)) == (401, "token_revoked")

    asyncio.run(run())


@pytest.mark.attack("marker")
@pytest.mark.parametrize(
    ("client", "said", "expected"),
    [
        ("declared", {"mcp_assurance": "two_factor"}, None),
        ("declared", {}, "second_factor_required"),
        ("declared", {"mcp_assurance": "totp"}, "second_factor_required"),
        ("declared", {"mcp_assurance": "TWO_FACTOR"}, "second_factor_required"),
        ("declared", {"MCP_ASSURANCE": "two_factor"}, "second_factor_required"),
        ("declared", {"mcp_assurance": ["two_factor"]}, "token_invalid"),
        ("declared", {"mcp_assurance": True}, "token_invalid"),
        ("declared", {"mcp_assurance": "two_factor "}, "token_invalid"),
        ("undeclared", {"mcp_assurance": "two_factor"}, "second_factor_required"),
    ],
)
def test_a_declared_client_without_its_very_marker_has_no_second_factor(
    client: str, said: dict[str, object], expected: str | None
) -> None:
    """A token whose marker is missing, another's or malformed is worth no declaration.

    And a marker is worth nothing without one. A cached token is judged as when it came.
    """

    async def run() -> None:
        ruled = server(Rule(second_factor=SecondFactor(Method.ANY)))
        known = DeclaredClient("declared", assurance=Method.ANY, assurance_claim="two_factor")
        rules = policy(ruled, known, DeclaredClient("undeclared"))
        world = AttackWorld(rules, claims=replace(RULES, assurance_claim="mcp_assurance"))
        token = rsa_signer().token({"client_id": client, **said})

        for found in (await world.ask(token), await world.ask(token)):
            assert found.allowed is (expected is None)
            assert expected is None or reason_of(found) == expected

    asyncio.run(run())


HOSTILE_KIDS = [
    "../../etc/passwd",
    "' OR 1=1--",
    "https://evil.example/x",
    "\x1b[31mred",
    "k" * 128,
]


@pytest.mark.attack("kid-in-log")
@pytest.mark.parametrize("kid", HOSTILE_KIDS)
def test_a_kid_is_in_no_log_line_and_no_label(kid: str) -> None:
    """What a stranger calls its key is told to nobody."""

    async def run() -> None:
        world = AttackWorld(policy())
        assert (await world.ask(rsa_signer("stranger").token(header={"kid": kid}))).status == 401
        told = world.stream.getvalue() + str(list(world.recorder.metrics.registry.collect()))

        assert '"reason":"token_invalid"' in told
        assert kid not in told
        assert json.dumps(kid)[1:-1] not in told

    asyncio.run(run())


@pytest.mark.attack("issuer-black-holed")
def test_an_unknown_key_is_told_to_come_back_while_the_issuer_hangs() -> None:
    """A 401 would throw a good log-in away: it is 503 with Retry-After, and known tokens pass."""

    async def run() -> None:
        world = AttackWorld(policy())
        known = rsa_signer().token()
        assert (await world.ask(known)).allowed
        world.source.gate = asyncio.Event()
        world.clock.now += 60
        world.check.snapshot = Snapshot(policy(), world.verifier, world.ledger, Deadline(0.01))

        late = await world.ask(ec_signer("rotated").token({"iat": TOKEN_NOW + 60}))

        assert (late.status, reason_of(late)) == (503, "issuer_unavailable")
        assert int(late.headers["retry-after"]) >= 1
        assert (await world.ask(known)).allowed
        await world.keys.aclose()

    asyncio.run(run())


@pytest.mark.attack("shared-address")
def test_five_hundred_people_behind_one_address_beside_a_stranger() -> None:
    """A stranger of the same address presents hundreds of forged, expired and unknown tokens; 500
    people with tokens that were never seen before are all admitted meanwhile, and afterwards.
    """

    async def run() -> None:
        world = AttackWorld(policy(), capacity=2000)
        assert (await world.ask(rsa_signer().token())).allowed
        told = set()
        for number in range(500):
            bad = (
                rsa_signer("stranger").token({"jti": str(number)}, {"kid": "mcp-rs256"}),
                rsa_signer("made-up").token({"iat": TOKEN_NOW, "jti": str(number)}),
                rsa_signer().token({"exp": TOKEN_NOW - 1}),
            )[number % 3]
            told.add((await world.ask(bad)).status)
            token = ec_signer().token({"sub": f"person-{number}", "jti": f"good-{number}"})
            assert (await world.ask(token)).allowed
        assert told == {401, 429}
        assert (await world.ask(rsa_signer().token({"jti": "late"}))).allowed

    asyncio.run(run())


# --- requests -----------------------------------------------------------------------------------


@pytest.mark.attack("several-origins")
@pytest.mark.parametrize("between", [",", ", ", " "])
def test_two_known_origins_at_once_are_foreign(between: str) -> None:
    """Two Origin headers arrive joined; no page sends that, so it is no known origin."""
    one, two = "https://one.example", "https://two.example"
    rules = policy(origins=frozenset({one, two}))

    assert isinstance(read(request(origin=one), rules), BearerRequest)
    for joined in (f"{one}{between}{two}", f"{one}{between}{one}"):
        found = read(request(origin=joined), rules)
        assert not isinstance(found, BearerRequest)
        assert found.reason is Reason.FOREIGN_ORIGIN


# --- MCP bodies ---------------------------------------------------------------------------------


@pytest.mark.attack("mcp-notifications")
@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
    ],
    ids=["notification", "response"],
)
def test_notifications_and_responses_are_limited(body: bytes) -> None:
    """What nobody answers is counted like what somebody does."""
    rules = policy(server(Rule(limits=(LIMIT,))))
    call_of = read(request(body), rules)
    assert isinstance(call_of, BearerRequest)
    pending = authorize(call_of, principal(), rules, NOW)

    assert isinstance(pending, PendingDecision)
    assert [take.limit for take in pending.query.takes] == [LIMIT]


@pytest.mark.attack("mcp-side-doors")
@pytest.mark.parametrize("method", ["prompts/get", "resources/read", "completion/complete", "x/y"])
def test_no_other_method_escapes_the_servers_rule(method: str) -> None:
    """Whatever is asked for, the server's own scopes and limits are asked of it."""
    rules = policy(server(Rule(scopes=frozenset({"mcp:none"})), {"read_*": Rule()}))
    body = rpc(method, name="read_x", uri="file:///x", ref={"type": "ref/prompt", "name": "read_x"})
    call_of = read(request(body), rules)
    assert isinstance(call_of, BearerRequest)
    found = authorize(call_of, principal(), rules, NOW)

    assert not isinstance(found, PendingDecision)
    unknown = method == "x/y"
    expected = Reason.METHOD_NOT_OFFERED if unknown else Reason.INSUFFICIENT_SCOPE
    assert found.reason is expected


# --- limits -------------------------------------------------------------------------------------


@pytest.mark.attack("worker-clocks-apart")
def test_workers_whose_clocks_disagree_count_on_the_same_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock is Redis': a worker an hour ahead admits not one request more."""
    limit = Limit("t", Per.USER, quota=5, window=600)

    async def run() -> None:
        with valkey() as redis:
            options = RedisOptions(redis.url, timeout=5)
            one, other = RedisLedger(options), RedisLedger(options)
            honest = time.time
            answers = []
            for turn in range(10):
                shift = 3600 if turn % 2 else -3600
                monkeypatch.setattr(time, "time", lambda shift=shift: honest() + shift)
                ledger = one if turn % 2 else other
                answers.append(await ledger.take(query(Take("shared", limit))))
            await one.aclose()
            await other.aclose()

        assert [type(each) for each in answers] == [Taken] * 5 + [OverLimit] * 5

    asyncio.run(run())


# --- operation ----------------------------------------------------------------------------------


def _distinct(number: int) -> tuple[str, HttpRequest]:
    """Make a request of a person, a client, an address and a tool that nobody has seen."""
    claims = {"sub": f"person-{number}", "client_id": f"client-{number}", "aud": [FILES]}
    # A third is of nobody, by a key that nobody has.
    token = ec_signer().token(claims, {} if number % 3 else {"kid": f"made-up-{number}"})
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    sent = request(call(f"tool-{number}"), authorization=f"Bearer {token}", address=address)
    return token, sent


@pytest.mark.attack("flat-memory")
def test_memory_is_flat_whoever_asks() -> None:
    """Tokens, people, clients, addresses and tools that come once leave no more than a bound."""
    limits = (Limit("u", Per.USER, 60, 60), Limit("a", Per.ADDRESS, 60, 60, place="a"))
    rules = policy(server(Rule(limits=limits), {"tool-*": Rule()}))

    async def decide(world: AttackWorld, begin: int, count: int) -> int:
        for number in range(begin, begin + count):
            await world.ask(*_distinct(number))
        world.stream.truncate(0)
        world.stream.seek(0)
        # Python keeps thousands of small tuples to use them again: they are nobody's.
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async def run() -> None:
        world = AttackWorld(rules, capacity=64)
        tables = world.check.snapshot.cache._tables
        tracemalloc.start()
        try:
            before = await decide(world, 0, 600)
            series = len(list(_samples(world)))
            after = await decide(world, 600, 1200)
        finally:
            tracemalloc.stop()

        assert series == len(list(_samples(world)))
        assert len(world.verifier._cache) == len(world.refusals) == 64
        assert max(map(len, tables.values())) == 64
        assert len(tables) > 5
        # A single entry per request would be half a megabyte.
        assert after - before < 128 * 1024

    asyncio.run(run())


def _samples(world: AttackWorld) -> list[object]:
    return [each for metric in world.recorder.metrics.registry.collect() for each in metric.samples]
