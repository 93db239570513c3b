"""Opaque tokens and confirmed ones: what is asked about, what never is, and what follows."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.tokens.introspection_cache import Ages
from authz.tokens.introspector import check_shape
from tests.tokens.opaque import (
    ANSWER,
    INACTIVE,
    TOKEN,
    UNAVAILABLE,
    IntrospectionDesk,
    play,
    said,
    settled,
)
from tests.tokens.token_factory import (
    FILES,
    NOW,
    TokenBench,
    ec_signer,
    outcome_of,
    refusal,
    rsa_signer,
    unhurried,
)

FIXTURES: Final = Path(__file__).parents[1] / "fixtures" / "authelia"
FLOWS: Final[Mapping[str, Any]] = json.loads((FIXTURES / "flows.json").read_text())


def recorded(kind: str) -> list[str]:
    """Return every token of a kind that the recorded Authelia gave out."""
    responses = [flow.get("response") or {} for flow in FLOWS.values()]
    found = {response.get("body", response).get(kind) for response in responses} - {None}
    assert found, kind
    return sorted(found)


# --- what is never sent on --------------------------------------------------------------------


@pytest.mark.parametrize("token", recorded("refresh_token"))
@pytest.mark.attack("refresh-token-as-bearer")
def test_a_refresh_token_is_never_asked_about(token: str) -> None:
    """Authelia would call it active: it is refused by its shape, and said for what it is."""

    async def scene(desk: IntrospectionDesk) -> None:
        assert await desk.outcome(token) is Reason.TOKEN_WRONG_KIND

    assert play(scene).endpoint.asked == []


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        pytest.param(TOKEN.replace("_at_", "_ac_"), Reason.TOKEN_WRONG_KIND, id="code"),
        pytest.param(TOKEN.replace("_at_", "_xx_"), Reason.TOKEN_WRONG_KIND, id="unknown-kind"),
        pytest.param("authelia_at_short.short", Reason.TOKEN_INVALID, id="cut"),
        pytest.param("authelia_at_" + "A" * 86, Reason.TOKEN_INVALID, id="no-dot"),
        pytest.param("authelia_at_" + "A" * 43 + "." + "~" * 43, Reason.TOKEN_INVALID, id="~"),
        pytest.param("a" * 21, Reason.TOKEN_INVALID, id="21-characters"),
        pytest.param("a" * 1025, Reason.TOKEN_INVALID, id="1025-characters"),
        pytest.param("hunter2", Reason.TOKEN_INVALID, id="a-password"),
        pytest.param("a" * 30 + "=", Reason.TOKEN_INVALID, id="padded"),
        pytest.param("a" * 30 + " b", Reason.TOKEN_INVALID, id="blank"),
        pytest.param("a" * 30 + "\n", Reason.TOKEN_INVALID, id="newline"),
        pytest.param("a" * 30 + "&active=true", Reason.TOKEN_INVALID, id="a-form"),
        pytest.param("é" * 30, Reason.TOKEN_INVALID, id="not-ascii"),
        pytest.param("a" * 30 + "\ud800", Reason.TOKEN_INVALID, id="surrogate"),
        pytest.param("eyJhbGciOiJSUzI1NiJ9" + "a" * 30, Reason.TOKEN_INVALID, id="a-cut-jwt"),
        pytest.param("a" * 20 + "." + "b" * 20 + "." + "c" * 20, Reason.TOKEN_INVALID, id="jws"),
        pytest.param(".".join(["a" * 20] * 5), Reason.TOKEN_INVALID, id="jwe"),
        pytest.param("x" * 100_000, Reason.TOKEN_INVALID, id="100-kB"),
    ],
)
@pytest.mark.attack("introspection-shape")
def test_what_is_no_opaque_token_is_never_asked_about(token: str, expected: Reason) -> None:
    """Codes, passwords, cut and over-long tokens cost the issuer nothing."""

    async def scene(desk: IntrospectionDesk) -> None:
        assert await desk.outcome(token) is expected
        assert desk.verifier.cached(token) is None

    assert play(scene).endpoint.asked == []


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(rsa_signer("stranger").token(), id="of-a-stranger"),
        pytest.param(rsa_signer().token({"exp": NOW - 1}), id="expired"),
        pytest.param(rsa_signer().token({"iss": "https://evil.example"}), id="another-issuer"),
        pytest.param(rsa_signer().token(header={"typ": "JWT"}), id="id-token"),
        pytest.param(rsa_signer().token(header={"alg": "none"}), id="alg-none"),
        pytest.param(rsa_signer().token({"aud": []}), id="for-nobody"),
        pytest.param(ec_signer().token()[:-4], id="cut"),
        *(
            pytest.param(token, id=f"recorded-id-token-{n}")
            for n, token in enumerate(recorded("id_token")[:3])
        ),
    ],
)
@pytest.mark.attack("failed-jwt-introspected")
def test_a_signed_token_that_fails_is_never_asked_about(token: str) -> None:
    """An issuer that calls it active all the same does not make a bad signature good."""

    async def scene(desk: IntrospectionDesk) -> None:
        assert isinstance(await desk.outcome(token), Reason)

    assert play(scene).endpoint.asked == []


@unhurried
@given(token=st.from_regex(r"[A-Za-z0-9_~+/.-]{1,1100}", fullmatch=True))
@pytest.mark.attack("introspection-shape")
def test_only_one_shape_gets_through(token: str) -> None:
    """What is let through is of an opaque token's length, and Authelia's own is whole."""
    if refusal(lambda: check_shape(token)) is None:
        assert 22 <= len(token) <= 1024
        assert not token.startswith("authelia_at_") or len(token) >= 99


@pytest.mark.parametrize("token", [t for t in recorded("access_token") if "authelia_at_" in t])
def test_the_recorded_opaque_tokens_get_through(token: str) -> None:
    """What Authelia gives out is asked about, and is who it says."""

    async def scene(desk: IntrospectionDesk) -> None:
        assert isinstance(await desk.outcome(token), Principal)

    assert play(scene).endpoint.asked == [token]


# --- who it is --------------------------------------------------------------------------------


def test_an_opaque_token_is_its_principal() -> None:
    """All that is known of it is the issuer's word, and of when that word is."""

    async def scene(desk: IntrospectionDesk) -> None:
        found = await desk.outcome()

        assert isinstance(found, Principal)
        assert (found.client_id, found.subject) == (ANSWER["client_id"], ANSWER["sub"])
        assert (found.opaque, found.confirmed_at, found.key_id) == (True, NOW, "")
        assert desk.verifier.cached(TOKEN) == found

    play(scene)


def test_a_server_that_takes_none_asks_nothing() -> None:
    """Where opaque tokens are not accepted, the issuer is not asked about them."""

    async def scene(desk: IntrospectionDesk) -> None:
        found = await outcome_of(desk.verifier.verify(TOKEN, opaque=False))
        assert found is Reason.TOKEN_OPAQUE

    assert play(scene).endpoint.asked == []


def test_without_introspection_opaque_tokens_are_refused() -> None:
    """Where nobody can be asked, an opaque token is refused with words, and confirms nothing."""
    bench = TokenBench()

    async def run() -> None:
        assert await outcome_of(bench.verifier.verify(TOKEN)) is Reason.TOKEN_OPAQUE
        token = rsa_signer().token()
        found = await bench.verifier.verify(token)
        assert await outcome_of(bench.verifier.confirm(token, found, NOW)) == UNAVAILABLE

    asyncio.run(run())


# --- confirmed --------------------------------------------------------------------------------

SIGNED: Final = rsa_signer().token()
AGREES: Final = said(client_id="mcp-2fa")


async def signed(desk: IntrospectionDesk) -> Principal:
    found = await desk.outcome(SIGNED)
    assert isinstance(found, Principal)
    return found


def test_a_signed_token_is_confirmed() -> None:
    """It stays what it is, as of the moment when the issuer was asked."""

    async def scene(desk: IntrospectionDesk) -> None:
        found = await signed(desk)

        assert await desk.confirmed(SIGNED, found) == replace(found, confirmed_at=NOW)
        assert not found.opaque

    assert play(scene, IntrospectionDesk(AGREES)).endpoint.asked == [SIGNED]


@pytest.mark.attack("introspection-revoked")
def test_a_signed_token_that_was_revoked_is_refused() -> None:
    """Signature and claims are as good as ever; the issuer's word ends it, with its reason."""

    async def scene(desk: IntrospectionDesk) -> None:
        found = await signed(desk)
        for _ in range(3):
            assert await desk.confirmed(SIGNED, found) is Reason.TOKEN_REVOKED
        assert len(desk.endpoint.asked) == 1

    play(scene, IntrospectionDesk(INACTIVE))


@pytest.mark.attack("introspection-revoked")
def test_an_opaque_token_that_was_revoked_is_refused() -> None:
    """A known opaque token that must be confirmed is asked about although its answer holds."""

    async def scene(desk: IntrospectionDesk) -> None:
        found = await desk.outcome()
        assert isinstance(found, Principal)
        desk.endpoint.answer = INACTIVE
        desk.clock.now = NOW + 5
        assert await desk.confirmed(TOKEN, found, NOW + 4) is Reason.TOKEN_REVOKED
        assert desk.verifier.cached(TOKEN) is None

        # The no is forgotten before the yes would have been: that does not come back.
        desk.clock.now = NOW + 16
        assert desk.verifier.cached(TOKEN) is None
        assert await desk.outcome() is Reason.TOKEN_INVALID

    play(scene)


@pytest.mark.attack("introspection-of-another")
def test_an_answer_about_another_token_confirms_nothing() -> None:
    """An answer for another client or person, as of a cache or a proxy that mixes them up."""

    async def scene(desk: IntrospectionDesk) -> None:
        found = await signed(desk)
        for changes in ({"client_id": "other"}, {"sub": "bob"}, {"iss": "https://evil.example"}):
            desk.endpoint.answer = said(**{"client_id": "mcp-2fa", **changes})
            assert await desk.confirmed(SIGNED, found) is Reason.TOKEN_INVALID
            desk.clock.now += 11

    play(scene)


@pytest.mark.attack("failed-jwt-introspected")
def test_a_confirmed_token_is_nothing_without_its_signature() -> None:
    """Once its key is withdrawn, the issuer's word on a signed token does not bring it back."""

    async def scene(desk: IntrospectionDesk) -> None:
        found = await signed(desk)
        await desk.confirmed(SIGNED, found)
        gone = desk.bench.keys._keys.identities
        desk.verifier._cache.forget_keys(gone)

        assert desk.verifier.cached(SIGNED) is None

    play(scene, IntrospectionDesk(AGREES))


def test_a_confirmation_may_be_so_old_and_no_older() -> None:
    """Within the asked age the last answer serves, beyond it the issuer is asked again."""

    async def scene(desk: IntrospectionDesk) -> None:
        found = await signed(desk)
        await desk.confirmed(SIGNED, found)
        desk.clock.now = NOW + 1
        await desk.confirmed(SIGNED, found, NOW)
        assert len(desk.endpoint.asked) == 1
        await desk.confirmed(SIGNED, found, NOW + 0.5)
        assert len(desk.endpoint.asked) == 2

    play(scene, IntrospectionDesk(AGREES))


@pytest.mark.attack("introspection-revoked")
def test_a_question_from_before_is_no_answer_for_now() -> None:
    """Who must know as of now does not take the answer to a question that was sent before."""

    async def scene(desk: IntrospectionDesk) -> None:
        found = await signed(desk)
        desk.endpoint.gate = asyncio.Event()
        early = asyncio.create_task(desk.confirmed(SIGNED, found))
        await settled()
        desk.clock.now = NOW + 1
        late = [asyncio.create_task(desk.confirmed(SIGNED, found)) for _ in range(100)]
        await settled()
        desk.endpoint.gate.set()

        for each in late:
            principal = await each
            assert isinstance(principal, Principal)
            assert principal.confirmed_at == NOW + 1
        assert isinstance(await early, Principal)

    # The first question, and one for the hundred who came later.
    assert play(scene, IntrospectionDesk(AGREES)).endpoint.asked == [SIGNED] * 2


def test_an_issuer_that_is_away_confirms_nothing() -> None:
    """Where the issuer must be asked and cannot be, the answer is a 503."""

    async def scene(desk: IntrospectionDesk) -> None:
        found = await signed(desk)
        desk.endpoint.gate = asyncio.Event()
        assert await desk.confirmed(SIGNED, found) == UNAVAILABLE

    play(scene, IntrospectionDesk(AGREES, ages=Ages(deadline=0.02)))


def test_what_the_issuer_took_away_is_gone() -> None:
    """Scopes and audience that the issuer does not confirm are not the token's any more."""

    async def scene(desk: IntrospectionDesk) -> None:
        found = await signed(desk)
        principal = await desk.confirmed(SIGNED, found)
        assert isinstance(principal, Principal)
        assert (principal.scopes, principal.audience) == (frozenset({"openid"}), (FILES,))

    play(scene, IntrospectionDesk(said(client_id="mcp-2fa", scope="openid other", aud=FILES)))
