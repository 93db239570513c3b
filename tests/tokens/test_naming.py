"""What a revocation calls a token is what its principal is called."""

import asyncio

import pytest

from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.tokens.cache import token_digest
from authz.tokens.naming import name_token
from tests.tokens.opaque import TOKEN
from tests.tokens.token_factory import ISSUER, NOW, TokenBench, ec_signer, rsa_signer


@pytest.mark.parametrize("signer", [rsa_signer, ec_signer])
def test_a_signed_token_is_named_as_its_principal_is(signer: type) -> None:
    """The verifier and a revocation agree on the name of a token, and on its end."""
    token = signer().token()
    principal = asyncio.run(TokenBench().verifier.verify(token))
    named = name_token(token, ISSUER)

    assert (named.token_id, named.expires_at) == (principal.token_id, principal.expires_at)


def test_another_signature_is_the_same_token() -> None:
    """ECDSA signatures can be altered and stay valid: the name does not hold them."""
    head, payload, _ = ec_signer().token().split(".")

    first, second = (name_token(f"{head}.{payload}.{each}", ISSUER) for each in ("AAAA", "BBBB"))
    assert first == second


def test_an_opaque_token_is_named_by_all_of_it() -> None:
    """Its end is not known."""
    named = name_token(TOKEN, ISSUER)

    assert (named.token_id, named.expires_at) == (token_digest(TOKEN).hex(), None)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        pytest.param("authelia_rt_" + "S" * 43 + "." + "_" * 43, "token_wrong_kind", id="refresh"),
        pytest.param("authelia_at_short.x", "token_invalid", id="cut"),
        pytest.param("", "token_invalid", id="empty"),
        pytest.param("a b", "token_invalid", id="blank"),
        pytest.param("eyJ.x", "token_invalid", id="half-a-jwt"),
        pytest.param(rsa_signer().token({"iss": "https://x.test"}), "token_invalid", id="issuer"),
        pytest.param(rsa_signer().token({}, {"typ": "JWT"}), "token_wrong_kind", id="id-token"),
        pytest.param(rsa_signer().token({"exp": None}), "token_invalid", id="no-end"),
        pytest.param(rsa_signer().token({"exp": True}), "token_invalid", id="true"),
        pytest.param(rsa_signer().token({"exp": 10**15}), "token_invalid", id="never"),
        pytest.param(rsa_signer().token({"exp": f"{NOW}"}), "token_invalid", id="text"),
    ],
)
def test_what_could_pass_nowhere_is_told(token: str, reason: str) -> None:
    """Somebody who hands in the wrong thing must not believe that it is revoked."""
    with pytest.raises(RefusedError) as refused:
        name_token(token, ISSUER)

    assert refused.value.reason is next(each for each in Reason if each.label == reason)
