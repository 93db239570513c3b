"""Tokens of the front door at the verifier: with the record of their own log-in, or nobody's."""

import asyncio
from dataclasses import replace

import pytest

from authz.core.ledger import UnavailableError
from authz.core.principal import LoginRecord, Principal
from authz.core.reason import Reason
from authz.tokens.front_door import FrontDoorTokens
from authz.tokens.verifier import Stage
from tests.support.values import OURS, login_record
from tests.tokens.opaque import TOKEN as OPAQUE
from tests.tokens.opaque import IntrospectionDesk, play, said, settled
from tests.tokens.token_factory import (
    ABSENT,
    CLAIMS,
    NOW,
    TokenBench,
    key_set,
    outcome_of,
    rsa_signer,
)

OUR: dict[str, object] = {"client_id": "authz-two-factor"}


class RecordsByToken:
    """Records of log-ins by token, in the hands of a test."""

    def __init__(self, *tokens: str) -> None:
        self.kept: dict[str, LoginRecord] = dict.fromkeys(tokens, login_record())
        self.asked: list[str] = []
        self.away = False
        self.gate: asyncio.Event | None = None

    async def get(self, token: str) -> LoginRecord | None:
        self.asked.append(token)
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise UnavailableError("redis", "TimeoutError")
        return self.kept.get(token)


def bench_of(records: RecordsByToken, *jwks: object) -> TokenBench:
    return TokenBench(*jwks, front_door=FrontDoorTokens(OURS, records))


@pytest.mark.parametrize("ours", sorted(OURS))
def test_a_token_of_ours_is_its_persons_by_its_record(ours: str) -> None:
    """The principal goes by the client's name, and remembers whom the issuer signed for."""
    token = rsa_signer().token({"client_id": ours})
    records = RecordsByToken(token)
    found = bench_of(records).outcome(token)

    assert isinstance(found, Principal)
    assert found.login == login_record()
    assert (found.client_id, found.token_client_id) == ("claude", ours)
    assert found.subject == CLAIMS["sub"]
    assert found.grant == "grant-1"


def test_a_known_token_waits_for_no_record() -> None:
    """The record is read once, and cached with the claims."""
    token = rsa_signer().token(OUR)
    records = RecordsByToken(token)
    bench = bench_of(records)

    first = bench.outcome(token)
    records.away = True

    assert bench.verifier.cached(token) is first
    assert bench.outcome(token) is first
    assert records.asked == [token]


@pytest.mark.attack("front-door-token-without-record")
def test_a_token_whose_record_is_gone_is_refused_and_not_remembered() -> None:
    """What is not on record is 401; a record that is written a moment later holds."""
    token = rsa_signer().token(OUR)
    records = RecordsByToken()
    bench = bench_of(records)

    assert bench.outcome(token) is Reason.LOG_IN_UNKNOWN
    assert bench.verifier.cached(token) is None
    assert bench.outcome(token) is Reason.LOG_IN_UNKNOWN

    records.kept[token] = login_record()
    assert isinstance(bench.outcome(token), Principal)
    assert Reason.LOG_IN_UNKNOWN.row.status == 401


@pytest.mark.attack("front-door-token-without-record")
def test_without_redis_an_unknown_token_is_nobodys_fault() -> None:
    """A log-in is not thrown away because Redis is away; nor is anybody let in."""
    token = rsa_signer().token(OUR)
    records = RecordsByToken(token)
    bench = bench_of(records)
    records.away = True

    assert bench.outcome(token) == "unavailable: redis"
    records.away = False
    assert isinstance(bench.outcome(token), Principal)


@pytest.mark.attack("record-of-another-token")
def test_a_record_is_of_one_token_and_one_person() -> None:
    """Another token of the same client finds none; one of another person is not his by it."""
    mine, other = (rsa_signer().token({**OUR, "jti": each}) for each in "ab")
    bobs = rsa_signer().token({**OUR, "sub": "bob"})
    bench = bench_of(RecordsByToken(mine, bobs))

    assert isinstance(bench.outcome(mine), Principal)
    assert bench.outcome(other) is Reason.LOG_IN_UNKNOWN
    assert bench.outcome(bobs) is Reason.LOG_IN_UNKNOWN


@pytest.mark.attack("front-door-token-without-record")
def test_our_clients_are_no_machines() -> None:
    """A token of ours without a person is refused, and no record is looked for."""
    token = rsa_signer().token({**OUR, "sub": ABSENT})
    records = RecordsByToken(token)

    assert bench_of(records).outcome(token) is Reason.LOG_IN_UNKNOWN
    assert records.asked == []


@pytest.mark.attack("strangers-ask-redis")
def test_nothing_is_asked_of_redis_before_the_signature_has_verified() -> None:
    """Strangers' tokens reach no record, whatever they say of themselves."""
    stranger = rsa_signer("stranger")
    forged = stranger.token(OUR, {"kid": "mcp-rs256"})
    expired = rsa_signer().token({**OUR, "iat": NOW - 3700, "nbf": NOW - 3700, "exp": NOW - 100})
    records = RecordsByToken(forged, expired)
    bench = bench_of(records)

    assert bench.outcome(forged) is Reason.TOKEN_INVALID
    assert bench.outcome(expired) is Reason.TOKEN_EXPIRED
    assert records.asked == []


def test_other_clients_are_asked_no_record() -> None:
    """A token of another client is what its claims say; the decision judges it."""
    token = rsa_signer().token({"client_id": "authz-two-factor2"})
    records = RecordsByToken(token)
    found = bench_of(records).outcome(token)

    assert isinstance(found, Principal)
    assert (found.client_id, found.login, found.token_client_id) == ("authz-two-factor2", None, "")
    assert records.asked == []


@pytest.mark.attack("key-withdrawn")
def test_a_key_that_is_withdrawn_while_the_record_is_read_lets_nobody_in() -> None:
    """The one wait between signature and cache is no way around a withdrawal."""
    token = rsa_signer().token(OUR)
    records = RecordsByToken(token)
    bench = bench_of(records)

    async def scene() -> object:
        records.gate = asyncio.Event()
        asking = asyncio.create_task(outcome_of(bench.verifier.verify(token)))
        await settled()
        assert records.asked == [token]
        bench.source.answer = key_set(rsa_signer("next").jwk())
        await bench.keys._fetch()
        records.gate.set()
        return await asking

    assert asyncio.run(scene()) is Reason.TOKEN_INVALID
    assert bench.verifier.cached(token) is None


def test_many_at_once_with_one_token_are_all_answered() -> None:
    """First requests may each read the record; each is answered, and one principal stays."""
    token = rsa_signer().token(OUR)
    records = RecordsByToken(token)
    bench = bench_of(records)

    async def scene() -> list[object]:
        return await asyncio.gather(*(outcome_of(bench.verifier.verify(token)) for _ in range(20)))

    found = asyncio.run(scene())

    assert all(isinstance(each, Principal) for each in found)
    assert len(records.asked) <= 20
    assert bench.verifier.cached(token) is not None


def test_the_log_in_is_a_stage_of_its_own() -> None:
    """`authz explain` is told that it was passed, or ends at it."""
    token = rsa_signer().token(OUR)

    async def stages(bench: TokenBench) -> list[Stage]:
        passed: list[Stage] = []
        await outcome_of(bench.verifier.verify(token, passed=passed.append))
        return passed

    assert asyncio.run(stages(bench_of(RecordsByToken(token))))[-1] is Stage.LOG_IN
    assert asyncio.run(stages(bench_of(RecordsByToken())))[-1] is Stage.CLAIMS


# --- introspection ----------------------------------------------------------------------------


def front_desk(answer: dict[str, object], *tokens: str) -> IntrospectionDesk:
    return IntrospectionDesk(answer, front_door=FrontDoorTokens(OURS, RecordsByToken(*tokens)))


@pytest.mark.attack("opaque-token-of-ours")
@pytest.mark.parametrize("ours", sorted(OURS))
def test_an_opaque_token_of_ours_is_refused_known_or_not(ours: str) -> None:
    """The front door's tokens are signed; even a record makes no opaque one of them good."""

    async def scene(desk: IntrospectionDesk) -> None:
        for _ in range(2):
            assert await desk.outcome() is Reason.TOKEN_OPAQUE
            assert desk.verifier.cached(OPAQUE) is None

    play(scene, front_desk(said(client_id=ours), OPAQUE))


def test_what_is_confirmed_keeps_its_log_in() -> None:
    """The issuer confirms whom it signed for; the name and the record stay."""
    token = rsa_signer().token({**OUR, "scp": ["mcp:tools", "mcp:admin"]})

    async def scene(desk: IntrospectionDesk) -> None:
        known = await desk.outcome(token)
        assert isinstance(known, Principal)
        found = await desk.confirmed(token, known)
        assert isinstance(found, Principal)
        assert found == replace(
            known, scopes=frozenset({"mcp:tools"}), confirmed_at=found.confirmed_at
        )
        assert found.login == login_record()

    play(scene, front_desk(said(client_id="authz-two-factor", scope="mcp:tools"), token))


@pytest.mark.parametrize(
    "answer",
    [
        said(client_id="claude"),
        said(client_id="authz-one-factor"),
        said(client_id="authz-two-factor", sub="bob"),
        said(client_id="authz-two-factor", sub=ABSENT),
    ],
    ids=["the-name", "our-other-client", "another-person", "no-person"],
)
@pytest.mark.attack("confirmation-of-another-token")
def test_a_confirmation_of_another_token_confirms_nothing(answer: dict[str, object]) -> None:
    """What the issuer says is of the client that it signed for, not of the name we gave it."""
    token = rsa_signer().token(OUR)

    async def scene(desk: IntrospectionDesk) -> None:
        known = await desk.outcome(token)
        assert isinstance(known, Principal)
        assert await desk.confirmed(token, known) is Reason.TOKEN_INVALID

    play(scene, front_desk(answer, token))
