"""Look-ups: one for all who wait, bounded, remembered, and no more of them than needed."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.tokens.introspection_cache import Ages, LookUpEvent
from authz.tokens.issuer_http import IssuerError, IssuerFault
from tests.tokens.opaque import (
    ANSWER,
    INACTIVE,
    TOKEN,
    UNAVAILABLE,
    IntrospectionDesk,
    junk,
    play,
    said,
    settled,
)
from tests.tokens.token_factory import NOW, unhurried

DOWN = IssuerError(IssuerFault.STATUS, "status 500")
SOON = Ages(deadline=0.02)


@pytest.mark.attack("introspection-coalesced")
def test_a_thousand_with_one_token_are_one_question() -> None:
    """Who comes while a token is asked about waits for the same answer."""

    async def scene(desk: IntrospectionDesk) -> None:
        desk.endpoint.gate = asyncio.Event()
        waiting = [asyncio.create_task(desk.outcome()) for _ in range(1000)]
        await settled()
        desk.endpoint.gate.set()
        outcomes = await asyncio.gather(*waiting)

        assert all(isinstance(each, Principal) for each in outcomes)
        assert len(set(outcomes)) == 1

    desk = play(scene)

    assert desk.endpoint.asked == [TOKEN]
    assert desk.outcomes == ["active"]


def test_an_answer_holds_for_its_age() -> None:
    """Within the age nobody is asked again; past it, somebody is."""

    async def scene(desk: IntrospectionDesk) -> None:
        await desk.outcome()
        desk.clock.now = NOW + 30
        assert isinstance(await desk.outcome(), Principal)
        await settled()
        asked = len(desk.endpoint.asked)
        desk.clock.now = NOW + 61
        assert isinstance(await desk.outcome(), Principal)
        assert len(desk.endpoint.asked) == asked + 1

    play(scene)


def test_an_answer_holds_no_longer_than_the_token() -> None:
    """A token that ends within the age of the answer is asked about again, and refused."""

    async def scene(desk: IntrospectionDesk) -> None:
        desk.endpoint.answer = said(exp=NOW + 5)
        assert isinstance(await desk.outcome(), Principal)
        desk.clock.now = NOW + 5
        assert desk.verifier.cached(TOKEN) is None
        assert await desk.outcome() is Reason.TOKEN_EXPIRED

    play(scene)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (INACTIVE, Reason.TOKEN_INVALID),
        (said(aud=[]), Reason.AUDIENCE_MISMATCH),
        (said(exp=NOW - 1), Reason.TOKEN_EXPIRED),
    ],
    ids=["inactive", "for-nobody", "expired"],
)
def test_a_refusal_is_remembered_too(answer: dict[str, object], expected: Reason) -> None:
    """A token that is of no use is not asked about again for a while, then once more."""

    async def scene(desk: IntrospectionDesk) -> None:
        desk.endpoint.answer = answer
        for _ in range(3):
            assert await desk.outcome() is expected
        assert len(desk.endpoint.asked) == 1

        desk.clock.now = NOW + 11
        assert await desk.outcome() is expected
        assert len(desk.endpoint.asked) == 2

    play(scene)


def test_a_clock_that_steps_back_makes_nothing_last() -> None:
    """An answer of the future is no answer: it could hold for as long as the clock stepped."""

    async def scene(desk: IntrospectionDesk) -> None:
        await desk.outcome()
        desk.clock.now = NOW - 25.0
        assert desk.verifier.cached(TOKEN) is None

    play(scene)


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.attack("introspection-flood")
def test_junk_pushes_out_no_token_that_is_known() -> None:
    """Ten thousand tokens of nobody are forgotten again, and known ones are not."""

    async def scene(desk: IntrospectionDesk) -> None:
        await desk.outcome()
        desk.endpoint.answer = INACTIVE
        for _ in range(1000):
            assert await desk.outcome(junk()) is Reason.TOKEN_INVALID

        assert desk.verifier.cached(TOKEN) is not None
        assert len(desk.lookups._inactive) == 50
        assert len(desk.lookups._active) == 1
        assert desk.lookups._asking == {}

    play(scene, IntrospectionDesk(capacity=50))


@pytest.mark.attack("introspection-flood")
def test_a_flood_of_junk_is_so_many_questions_at_once_and_no_more() -> None:
    """Five thousand junk tokens at once ask eight at a time; most are turned away, none waits."""

    async def scene(desk: IntrospectionDesk) -> None:
        desk.endpoint.answer = INACTIVE
        desk.endpoint.gate = asyncio.Event()
        flood = [asyncio.create_task(desk.outcome(junk())) for _ in range(5000)]
        await settled()
        assert desk.endpoint.running == 8
        assert len(desk.lookups._asking) == 8 + 8 * 16
        desk.endpoint.gate.set()
        outcomes = await asyncio.gather(*flood)

        assert outcomes.count(Reason.TOKEN_INVALID) == 8 + 8 * 16
        assert outcomes.count(UNAVAILABLE) == 5000 - (8 + 8 * 16)

    desk = play(scene)

    assert desk.endpoint.most == 8
    assert desk.outcomes.count("turned_away") == 5000 - (8 + 8 * 16)


@pytest.mark.attack("introspection-flood")
def test_a_known_token_goes_before_a_line_of_junk() -> None:
    """Who was known before is asked about as soon as a place is free."""

    async def scene(desk: IntrospectionDesk) -> None:
        await desk.outcome()
        desk.clock.now = NOW + 60  # too old by now
        desk.endpoint.answer = lambda token: ANSWER if token == TOKEN else INACTIVE
        desk.endpoint.gate = asyncio.Event()
        flood = [asyncio.create_task(desk.outcome(junk())) for _ in range(100)]
        await settled()
        known = asyncio.create_task(desk.outcome())
        await settled()
        desk.endpoint.gate.set()
        await settled()

        assert isinstance(await known, Principal)
        assert TOKEN in desk.endpoint.asked[1 : 2 + 2 * 8]
        await asyncio.gather(*flood)

    play(scene)


# --- an issuer that is slow or away -----------------------------------------------------------


@pytest.mark.attack("introspection-late")
def test_a_late_answer_fills_the_cache() -> None:
    """Who waits is answered at the deadline; the question goes on, and the next one has it."""

    async def scene(desk: IntrospectionDesk) -> None:
        desk.endpoint.gate = asyncio.Event()
        assert await desk.outcome() == UNAVAILABLE
        desk.endpoint.gate.set()
        await settled()

        assert desk.verifier.cached(TOKEN) is not None
        assert isinstance(await desk.outcome(), Principal)
        assert not desk.gate.failing

    desk = play(scene, IntrospectionDesk(ages=SOON))

    assert len(desk.endpoint.asked) == 1


@pytest.mark.attack("introspection-late")
def test_while_the_issuer_hangs_nobody_waits_any_more() -> None:
    """One question that is late is enough: strangers are turned away, and nobody is asked."""

    async def scene(desk: IntrospectionDesk) -> None:
        desk.endpoint.gate = asyncio.Event()
        assert await desk.outcome() == UNAVAILABLE
        await settled()
        assert desk.gate.failing
        for _ in range(100):
            assert await desk.outcome(junk()) == UNAVAILABLE

    desk = play(scene, IntrospectionDesk(ages=SOON))

    assert len(desk.endpoint.asked) == 1


@pytest.mark.parametrize("fault", list(IssuerFault))
@pytest.mark.attack("introspection-away")
def test_no_fault_of_the_issuer_refuses_a_token(fault: IssuerFault) -> None:
    """Whatever is wrong with the issuer, a log-in is not thrown away for it."""

    async def scene(desk: IntrospectionDesk) -> None:
        assert await desk.outcome() == UNAVAILABLE
        assert desk.gate.failing

    desk = play(scene, IntrospectionDesk(IssuerError(fault, "x")))

    assert desk.reports == [
        LookUpEvent(fault.value, desk.reports[0].seconds, fault, "x", news=True)
    ]


@pytest.mark.parametrize("error", [ValueError("x"), RecursionError(), OSError(), KeyError("y")])
def test_what_nobody_thought_of_is_a_fault_too(error: Exception) -> None:
    """An exception of a library is a fault of the issuer, without its text."""

    async def scene(desk: IntrospectionDesk) -> None:
        assert await desk.outcome() == UNAVAILABLE

    desk = play(scene, IntrospectionDesk(error))

    assert desk.reports[0].fault is IssuerFault.UNEXPECTED
    assert desk.reports[0].detail == type(error).__name__


@pytest.mark.attack("introspection-away")
def test_an_issuer_that_fails_is_left_alone_between_probes() -> None:
    """A thousand tokens during a pause ask nothing; after it one of them does."""

    async def scene(desk: IntrospectionDesk) -> None:
        for _ in range(1000):
            assert await desk.outcome(junk()) == UNAVAILABLE
        assert len(desk.endpoint.asked) == 1

        desk.monotonic.now += 0.6
        for _ in range(1000):
            assert await desk.outcome(junk()) == UNAVAILABLE
        assert len(desk.endpoint.asked) == 2

    play(scene, IntrospectionDesk(DOWN))


def test_an_issuer_that_is_back_is_asked_as_before() -> None:
    """The probe that is answered serves who waits for it, and everybody after."""

    async def scene(desk: IntrospectionDesk) -> None:
        assert await desk.outcome() == UNAVAILABLE
        desk.endpoint.answer = ANSWER
        desk.monotonic.now += 0.6
        assert isinstance(await desk.outcome(), Principal)
        assert isinstance(await desk.outcome(junk()), Principal)

    desk = play(scene, IntrospectionDesk(DOWN))

    assert desk.outcomes == ["status", "active", "active"]
    assert [report.news for report in desk.reports] == [True, True, False]


@pytest.mark.attack("introspection-away")
def test_what_is_known_holds_while_the_issuer_is_away() -> None:
    """A known token passes until its answer is too old, and is a 503 then, not a 401."""

    async def scene(desk: IntrospectionDesk) -> None:
        await desk.outcome()
        desk.endpoint.answer = DOWN
        for second in range(1, 31):
            desk.clock.now = NOW + second
            desk.monotonic.now += 1
            assert desk.verifier.cached(TOKEN) is not None
            await settled()

        desk.clock.now = NOW + 30.1
        assert desk.verifier.cached(TOKEN) is None
        assert await desk.outcome() == UNAVAILABLE

    play(scene)


# --- renewal ----------------------------------------------------------------------------------


def test_a_token_in_use_never_waits_for_the_issuer() -> None:
    """What grows old is renewed in the background, once, while the old answer still serves."""

    async def scene(desk: IntrospectionDesk) -> None:
        await desk.outcome()
        for second in range(1, 301):
            desk.clock.now = NOW + second
            assert desk.verifier.cached(TOKEN) is not None
            assert desk.verifier.cached(TOKEN) is not None
            await settled()

    desk = play(scene)

    # Every 22 seconds: when seven tenths of 30 have passed.
    assert len(desk.endpoint.asked) == 1 + 300 // 22


@pytest.mark.attack("introspection-revoked")
def test_a_renewal_that_says_no_ends_the_token() -> None:
    """A token that was revoked is refused as soon as the renewal has said so."""

    async def scene(desk: IntrospectionDesk) -> None:
        await desk.outcome()
        desk.endpoint.answer = INACTIVE
        desk.clock.now = NOW + 22
        assert desk.verifier.cached(TOKEN) is not None
        await settled()

        assert desk.verifier.cached(TOKEN) is None
        assert await desk.outcome() is Reason.TOKEN_INVALID

    play(scene)


# --- who waits --------------------------------------------------------------------------------


def test_a_caller_that_goes_away_does_not_end_the_question() -> None:
    """A cancelled request leaves the question to the others, and its answer to the cache."""

    async def scene(desk: IntrospectionDesk) -> None:
        desk.endpoint.gate = asyncio.Event()
        gone, left = (asyncio.create_task(desk.outcome()) for _ in range(2))
        await settled()
        gone.cancel()
        await settled()
        desk.endpoint.gate.set()

        assert isinstance(await left, Principal)
        assert gone.cancelled()

    desk = play(scene)

    assert len(desk.endpoint.asked) == 1


def test_closing_ends_what_is_under_way() -> None:
    """Nothing is left running when the service stops."""

    async def scene(desk: IntrospectionDesk) -> None:
        desk.endpoint.gate = asyncio.Event()
        waiting = [asyncio.create_task(desk.outcome(junk())) for _ in range(20)]
        await settled()
        await desk.introspector.aclose()
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

        assert desk.endpoint.running == 0

    play(scene)


@unhurried
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["known", "junk", "down", "up", "revoke", "wait"]), st.floats(0, 40)
        ),
        max_size=25,
    )
)
@pytest.mark.attack("introspection-revoked")
def test_whatever_happens_no_word_is_older_than_its_age(steps: list[tuple[str, float]]) -> None:
    """In no order of events does a token pass on an answer that is too old, or after a no."""

    async def scene(desk: IntrospectionDesk) -> None:
        revoked_at: float | None = None
        refused = False
        for step, much in steps:
            if step == "revoke" and revoked_at is None:
                revoked_at = desk.clock.now
            elif step == "wait":
                desk.clock.now += much
                desk.monotonic.now += much
            if step in {"down", "up", "revoke"}:
                answer = said(exp=NOW + 7000) if revoked_at is None else INACTIVE
                desk.endpoint.answer = DOWN if step == "down" else answer
            found = await desk.outcome(junk() if step == "junk" else TOKEN)
            await settled()
            if isinstance(found, Principal):
                assert found.confirmed_at is not None
                assert 0 <= desk.clock.now - found.confirmed_at <= 30
                assert revoked_at is None or found.confirmed_at <= revoked_at
                assert not refused
            refused = refused or (found is Reason.TOKEN_INVALID and step != "junk")

    play(scene, IntrospectionDesk(said(exp=NOW + 7000)))
