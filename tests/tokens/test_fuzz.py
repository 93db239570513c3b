"""Anything at all as token, key set or metadata: the one law is that nothing else comes out."""

import asyncio
import json
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.strict_json import StrictJsonError, loads
from authz.tokens.issuer import IssuerAddress
from authz.tokens.issuer_http import IssuerError
from authz.tokens.jwk import ALGORITHMS, KeySetError, read_key_set
from tests.tokens.token_factory import (
    CLAIMS,
    ISSUER,
    TokenBench,
    b64,
    ec_signer,
    outcome_of,
    rsa_signer,
    unhurried,
)

REFUSALS: Final = frozenset(
    {
        Reason.TOKEN_INVALID,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_OPAQUE,
        Reason.TOKEN_WRONG_KIND,
        Reason.AUDIENCE_MISMATCH,
    }
)
ALPHABET: Final = 'ABCXYZabcxyz0189-_.=+/ \n~eyJ{}"é\ud800'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
header_names = st.sampled_from(
    ["alg", "kid", "typ", "cty", "crit", "b64", "jwk", "jku", "x5c", "x5t", "zip", "enc", "x"]
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as one:
        yield one


BENCH: Final = TokenBench(capacity=50)


def judge(runner: asyncio.Runner, token: str) -> Principal | Reason | str:
    return runner.run(outcome_of(BENCH.verifier.verify(token)))


@unhurried
@given(token=st.text() | st.text(ALPHABET) | st.binary().map(lambda raw: raw.decode("latin-1")))
@example(token="\ud800")
@example(token="authelia_")
@example(token="." * 8192)
@pytest.mark.attack("fuzz-token")
def test_any_text_is_refused(runner: asyncio.Runner, token: str) -> None:
    """Text that nobody signed is refused for a reason of a token, and raises nothing else."""
    assert judge(runner, token) in REFUSALS


@unhurried
@given(segments=st.lists(st.binary(max_size=60), min_size=2, max_size=6))
@pytest.mark.attack("fuzz-token")
def test_any_segments_are_refused(runner: asyncio.Runner, segments: list[bytes]) -> None:
    """Well-encoded segments of any bytes are refused."""
    assert judge(runner, ".".join(map(b64, segments))) in REFUSALS


@unhurried
@given(changes=st.dictionaries(header_names, json_values, max_size=4))
@pytest.mark.attack("fuzz-token")
def test_any_header_is_refused_or_means_the_same(
    runner: asyncio.Runner, changes: dict[str, object]
) -> None:
    """Whatever a correctly signed header says, its claims are read or the token is refused."""
    signer = ec_signer()
    header = json.dumps(signer.header(**changes)).encode()
    outcome = judge(runner, signer.compact(header, json.dumps(CLAIMS).encode()))

    assert outcome in REFUSALS or (
        isinstance(outcome, Principal) and outcome.subject == CLAIMS["sub"]
    )


@unhurried
@given(header=st.binary(max_size=80), payload=st.binary(max_size=80))
@pytest.mark.attack("fuzz-token")
def test_any_signed_bytes_are_refused(
    runner: asyncio.Runner, header: bytes, payload: bytes
) -> None:
    """A signature over bytes that are no access token makes none of them."""
    signer = ec_signer()

    assert judge(runner, signer.compact(header, payload)) in REFUSALS
    good = json.dumps(signer.header()).encode()
    assert judge(runner, signer.compact(good, payload)) in REFUSALS


edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "swap", "repeat"]),
        st.integers(min_value=0, max_value=2000),
        st.sampled_from(list(ALPHABET)),
    ),
    min_size=1,
    max_size=4,
)


def edited(token: str, edits: list[tuple[str, int, str]]) -> str:
    for kind, where, character in edits:
        at = where % max(len(token), 1)
        before, here, after = token[:at], token[at : at + 1], token[at + 1 :]
        token = {
            "flip": before + character + after,
            "insert": before + character + here + after,
            "delete": before + after,
            "swap": before + after[:1] + here + after[1:],
            "repeat": before + here + here + after,
        }[kind]
    return token


@pytest.mark.parametrize("signer", [rsa_signer(), ec_signer()], ids=["RS256", "ES256"])
@unhurried
@given(edits=edits)
@pytest.mark.attack("fuzz-mutation")
def test_no_altered_token_is_another_principal(
    runner: asyncio.Runner, signer: object, edits: list[tuple[str, int, str]]
) -> None:
    """A token with characters changed, added or removed is refused, or says what it said."""
    token = {id(rsa_signer()): RSA_TOKEN, id(ec_signer()): EC_TOKEN}[id(signer)]
    original = judge(runner, token)
    assert isinstance(original, Principal)

    outcome = judge(runner, edited(token, edits))

    assert outcome in REFUSALS or outcome == original


RSA_TOKEN: Final = rsa_signer().token()
EC_TOKEN: Final = ec_signer().token()


@pytest.mark.parametrize("token", [RSA_TOKEN, EC_TOKEN], ids=["RS256", "ES256"])
@pytest.mark.attack("fuzz-mutation")
def test_no_single_character_can_be_changed(runner: asyncio.Runner, token: str) -> None:
    """Each character of a token matters, the last one of each segment too."""
    original = judge(runner, token)
    assert isinstance(original, Principal)

    for at, character in enumerate(token):
        other = "A" if character != "A" else "B"
        assert judge(runner, token[:at] + other + token[at + 1 :]) in REFUSALS
        assert judge(runner, token[:at] + token[at + 1 :]) in REFUSALS


jwk_members = st.sampled_from(
    ["kty", "alg", "use", "key_ops", "kid", "crv", "n", "e", "x", "y", "d"]
)
jwk_values = json_values | st.sampled_from(
    ["RSA", "EC", "oct", "OKP", "P-256", "P-521", "sig", "AQAB", "AA", ["verify"], *ALGORITHMS]
)


@unhurried
@given(
    document=json_values
    | st.fixed_dictionaries(
        {
            "keys": st.lists(
                json_values
                | st.dictionaries(jwk_members, jwk_values)
                | st.dictionaries(jwk_members, jwk_values, max_size=2).map(
                    lambda changes: ec_signer().jwk(**changes)
                )
                | st.dictionaries(jwk_members, jwk_values, max_size=2).map(
                    lambda changes: rsa_signer().jwk(**changes)
                ),
                max_size=4,
            )
        }
    )
)
@pytest.mark.attack("fuzz-key-set")
def test_any_document_is_a_key_set_or_an_error(document: object) -> None:
    """A key set has usable keys with names of their own, or there is an error."""
    try:
        keys = read_key_set(document, frozenset(ALGORITHMS))
    except KeySetError:
        return

    named = [key.key_id for key in keys.keys if key.key_id]
    assert keys.keys
    assert len(named) == len(set(named))
    assert all(key.by_algorithm for key in keys.keys)


@unhurried
@given(data=st.binary(max_size=200))
@pytest.mark.attack("fuzz-key-set")
def test_any_bytes_are_a_key_set_or_an_error(data: bytes) -> None:
    """From the bytes on, an issuer's answer is read or refused, and raises nothing else."""
    try:
        read_key_set(loads(data), frozenset(ALGORITHMS))
    except (StrictJsonError, KeySetError):
        return


@unhurried
@given(
    uri=json_values
    | st.text()
    | st.text("htps:/.@#?[]%\\auexmlv \t\n0:é\x00", max_size=30).map(lambda tail: f"https:{tail}")
)
@pytest.mark.attack("fuzz-key-set")
def test_any_jwks_uri_is_a_target_or_an_error(uri: object) -> None:
    """Whatever metadata says, keys are asked for inside, or over https, or not at all."""
    try:
        target = IssuerAddress(ISSUER, "http://authelia:9091").endpoint("jwks_uri", uri)
    except IssuerError:
        return

    inside = str(target.url).startswith("http://authelia:9091/")
    assert inside or (target.url.scheme == "https" and target.url.host)
