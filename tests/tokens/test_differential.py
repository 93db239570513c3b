"""The verifier against a second JOSE library: whatever that one rejects, we reject too."""

import asyncio
import json
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk, jws, jwt
from joserfc.errors import JoseError

from authz.core.principal import Principal
from tests.tokens.token_factory import (
    CLAIMS,
    ISSUER,
    NOW,
    TokenBench,
    ec_signer,
    outcome_of,
    rsa_signer,
    unhurried,
)

ALLOWED: Final = ["RS256", "ES256"]
KEYS: Final = jwk.KeySet.import_key_set(
    {"keys": [rsa_signer().jwk(), ec_signer().jwk()]}  # type: ignore[list-item]
)
# RFC 7515, section 4: what is not understood and not critical is ignored.
REGISTRY: Final = jws.JWSRegistry(algorithms=ALLOWED, strict_check_header=False)
REGISTERED: Final = jwt.JWTClaimsRegistry(
    now=NOW,
    leeway=30,
    iss={"essential": True, "value": ISSUER},
    exp={"essential": True},
    iat={"essential": True},
    aud={"essential": True},
    client_id={"essential": True},
)
BENCH: Final = TokenBench(capacity=50)


def second_opinion(token: str) -> dict[str, object] | None:
    """Return the claims as the other library reads them, or None where it rejects the token."""
    try:
        signed = jws.deserialize_compact(token, KEYS, algorithms=ALLOWED, registry=REGISTRY)
        if str(signed.headers().get("typ")).lower() not in {"at+jwt", "application/at+jwt"}:
            return None
        claims = json.loads(signed.payload)
        REGISTERED.validate(claims)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return dict(claims)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as one:
        yield one


def agree(runner: asyncio.Runner, token: str) -> bool:
    """Compare; tell whether we accepted."""
    ours = runner.run(outcome_of(BENCH.verifier.verify(token)))
    if not isinstance(ours, Principal):
        return False
    theirs = second_opinion(token)
    assert theirs is not None, "we accept what the other library rejects"
    assert theirs["client_id"] == ours.client_id
    assert theirs["exp"] == ours.expires_at
    assert theirs.get("sub") in (ours.subject, ours.client_id)
    aud = theirs["aud"]
    assert ours.audience == (tuple(aud) if isinstance(aud, list) else (aud,))
    return True


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, NOW + 9000) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
SIGNERS: Final = {"RS256": rsa_signer(), "ES256": ec_signer()}
signers = st.sampled_from(list(SIGNERS))
TOKENS: Final = {alg: signer.token() for alg, signer in SIGNERS.items()}


@pytest.mark.parametrize("alg", ALLOWED)
def test_both_accept_a_good_token(runner: asyncio.Runner, alg: str) -> None:
    """The comparison compares something: a good token is good for both."""
    assert agree(runner, TOKENS[alg])


@unhurried
@given(
    alg=signers,
    changes=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "cty", "crit", "b64", "jku", "x5t", "x5t#S256", "y"]),
        json_values | st.sampled_from(["at+jwt", "RS256", "ES256", "mcp-rs256", ["b64"], "JWT"]),
        max_size=3,
    ),
)
@pytest.mark.attack("differential")
def test_no_header_is_accepted_that_the_other_library_rejects(
    runner: asyncio.Runner, alg: str, changes: dict[str, object]
) -> None:
    """Headers of any shape, correctly signed."""
    agree(runner, SIGNERS[alg].token(header=changes))


@unhurried
@given(
    alg=signers,
    changes=st.dictionaries(st.sampled_from(sorted(CLAIMS)), json_values, max_size=3),
)
@pytest.mark.attack("differential")
def test_no_claims_are_accepted_that_the_other_library_rejects(
    runner: asyncio.Runner, alg: str, changes: dict[str, object]
) -> None:
    """Claims of any shape, correctly signed."""
    agree(runner, SIGNERS[alg].token(changes))


@unhurried
@given(
    alg=signers,
    where=st.integers(0, 2000),
    text=st.text('ABab01-_.=+/ \n{}"', max_size=3),
    cut=st.integers(0, 3),
)
@pytest.mark.attack("differential")
def test_no_spelling_is_accepted_that_the_other_library_rejects(
    runner: asyncio.Runner, alg: str, where: int, text: str, cut: int
) -> None:
    """A good token with characters replaced, added and removed."""
    token = TOKENS[alg]
    at = where % len(token)

    agree(runner, token[:at] + text + token[at + cut :])


@unhurried
@given(alg=signers, payload=st.sampled_from(["{}", "[]", '"x"', "null"]) | st.text(max_size=20))
@pytest.mark.attack("differential")
def test_no_payload_is_accepted_that_the_other_library_rejects(
    runner: asyncio.Runner, alg: str, payload: str
) -> None:
    """Payloads that are no claims, and good claims with text before and behind them."""
    signer, good = SIGNERS[alg], json.dumps(CLAIMS)
    header = json.dumps(signer.header()).encode()
    around = [payload, good + payload, payload + good, good[:-1] + "," + payload + "}"]

    for text in around:
        agree(runner, signer.compact(header, text.encode("utf-8", "surrogatepass")))
