"""Which keys of a published set may verify what."""

import pytest

from authz.tokens.jwk import (
    ALGORITHMS,
    DEFAULT_ALGORITHMS,
    KeySetError,
    check_algorithms,
    read_key_set,
)
from tests.tokens.token_factory import ABSENT, b64, ec_signer, key_set, number, rsa_signer

GOOD = rsa_signer().jwk()
POINT = ec_signer().jwk()
EVERY = frozenset(ALGORITHMS)

BAD_KEYS = {
    "not-an-object": "key",
    "null": None,
    "empty": {},
    "use-enc": ec_signer().jwk(use="enc"),
    "use-list": ec_signer().jwk(use=["sig"]),
    "use-null": ec_signer().jwk(use=None),
    "key-ops-sign": ec_signer().jwk(key_ops=["sign"]),
    "key-ops-string": ec_signer().jwk(key_ops="verify"),
    "key-ops-empty": ec_signer().jwk(key_ops=[]),
    "alg-not-allowed": rsa_signer().jwk(kid="x", alg="RS384"),
    "alg-none": ec_signer().jwk(alg="none"),
    "alg-hmac": ec_signer().jwk(alg="HS256"),
    "alg-null": ec_signer().jwk(alg=None),
    "alg-list": ec_signer().jwk(alg=["ES256"]),
    "alg-of-another-type": ec_signer().jwk(alg="RS256"),
    "rsa-with-an-ec-alg": rsa_signer().jwk(kid="x", alg="ES256"),
    "alg-of-another-curve": ec_signer("k", "ES384").jwk(alg="ES256"),
    "curve-of-another-alg": ec_signer().jwk(crv="P-384"),
    "curve-missing": ec_signer().jwk(crv=ABSENT),
    "curve-unknown": ec_signer().jwk(crv="secp256k1"),
    "curve-list": ec_signer().jwk(crv=["P-256"]),
    "type-missing": ec_signer().jwk(kty=ABSENT),
    "type-oct": {"kty": "oct", "kid": "x", "alg": "HS256", "k": b64(b"s" * 32)},
    "type-oct-as-rs256": {"kty": "oct", "kid": "x", "alg": "RS256", "k": b64(b"s" * 32)},
    "type-okp": {"kty": "OKP", "kid": "x", "crv": "Ed25519", "x": b64(bytes(32))},
    "type-list": ec_signer().jwk(kty=["EC"]),
    "point-off-the-curve": ec_signer().jwk(x=b64(b"\x01" * 32)),
    "coordinate-short": ec_signer().jwk(x=b64(b"\x01" * 31)),
    "coordinate-missing": ec_signer().jwk(y=ABSENT),
    "coordinate-null": ec_signer().jwk(y=None),
    "coordinate-padded": ec_signer().jwk(x=f"{POINT['x']}="),
    "coordinate-not-base64url": ec_signer().jwk(x="!" * 43),
    "coordinate-surrogate": ec_signer().jwk(x="\ud800" * 43),
    "rsa-1024": rsa_signer("x", bits=1024).jwk(),
    "rsa-2047": rsa_signer().jwk(kid="x", n=number((1 << 2046) + 1)),
    "rsa-16384": rsa_signer().jwk(kid="x", n=number((1 << 16383) + 1)),
    "rsa-even-modulus": rsa_signer().jwk(kid="x", n=number(1 << 2047)),
    "rsa-exponent-1": rsa_signer().jwk(kid="x", e=number(1)),
    "rsa-exponent-even": rsa_signer().jwk(kid="x", e=number(65536)),
    "rsa-exponent-huge": rsa_signer().jwk(kid="x", e=number((1 << 2000) + 1)),
    "rsa-exponent-empty": rsa_signer().jwk(kid="x", e=""),
    "rsa-modulus-missing": rsa_signer().jwk(kid="x", n=ABSENT),
    "private": ec_signer().jwk(d=b64(b"\x01" * 32)),
    "kid-number": ec_signer().jwk(kid=7),
    "kid-null": ec_signer().jwk(kid=None),
    "kid-empty": ec_signer().jwk(kid=""),
    "kid-long": ec_signer().jwk(kid="k" * 129),
    "kid-control": ec_signer().jwk(kid="a\nb"),
}


@pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=BAD_KEYS.keys())
@pytest.mark.attack("key-not-for-this")
def test_one_bad_key_is_left_out_and_spoils_nothing(bad: object) -> None:
    """A key that is not plainly a public signature key of an allowed algorithm is skipped."""
    keys = key_set(bad, GOOD)

    assert [key.key_id for key in keys.keys] == ["mcp-rs256"]
    assert keys.skipped == 1


@pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=BAD_KEYS.keys())
@pytest.mark.attack("key-set-broken")
def test_a_set_of_bad_keys_is_no_key_set(bad: object) -> None:
    """Without one usable key there is no key set: what was there before stays."""
    with pytest.raises(KeySetError):
        key_set(bad)


@pytest.mark.parametrize(
    "document",
    [None, [], "keys", {}, {"keys": None}, {"keys": {}}, {"keys": []}, {"keys": "x"}, [GOOD]],
    # Not the whole: a key is another one in every run, and an id must not be.
    ids=lambda value: repr(value)[:16],
)
@pytest.mark.attack("key-set-broken")
def test_what_is_no_key_set_is_an_error(document: object) -> None:
    """A document without a list of keys is an error."""
    with pytest.raises(KeySetError):
        read_key_set(document, DEFAULT_ALGORITHMS)


@pytest.mark.attack("key-set-broken")
def test_a_key_set_is_bounded() -> None:
    """Sixty-four keys are read, sixty-five are an error: reading each costs."""
    assert len(key_set(*[ec_signer().jwk(kid=f"k{n}") for n in range(64)]).keys) == 64
    with pytest.raises(KeySetError):
        key_set(*[ec_signer().jwk(kid=f"k{n}") for n in range(65)])


def test_a_key_is_bound_to_its_own_algorithm() -> None:
    """A JWK's `alg` is the only one that it verifies, whatever else is allowed."""
    keys = read_key_set({"keys": [GOOD]}, EVERY)

    assert keys.choose("mcp-rs256", "RS256") is not None
    for other in EVERY - {"RS256"}:
        assert keys.choose("mcp-rs256", other) is None


def test_a_key_without_alg_verifies_what_its_type_and_curve_can() -> None:
    """Without `alg`, an EC key has its curve's algorithm, an RSA key the allowed ones of RSA."""
    rsa, point = rsa_signer().jwk(alg=ABSENT), ec_signer().jwk(alg=ABSENT)
    every, some = read_key_set({"keys": [rsa, point]}, EVERY), key_set(rsa, point)

    assert {a for a in EVERY if every.choose("mcp-rs256", a)} == {
        *("RS256", "RS384", "RS512"),
        *("PS256", "PS384", "PS512"),
    }
    assert {a for a in EVERY if every.choose("mcp-es256", a)} == {"ES256"}
    assert {a for a in EVERY if some.choose("mcp-rs256", a)} == {"RS256"}


@pytest.mark.attack("kid-missing")
def test_without_a_kid_the_only_key_that_fits_is_meant() -> None:
    """A token without `kid` is verified where exactly one key fits its algorithm."""
    one_of_each = key_set(GOOD, POINT)
    two_of_rsa = key_set(GOOD, rsa_signer("other").jwk(), POINT)

    assert one_of_each.choose(None, "RS256") is not None
    assert two_of_rsa.choose(None, "RS256") is None
    assert two_of_rsa.choose(None, "ES256") is not None


def test_a_key_without_a_kid_is_found_by_its_algorithm_only() -> None:
    """A token that names a key does not mean one without a name."""
    keys = key_set(rsa_signer().jwk(kid=ABSENT), POINT)

    assert keys.choose(None, "RS256") is not None
    assert keys.choose("mcp-rs256", "RS256") is None
    assert not keys.knows("mcp-rs256")


@pytest.mark.attack("kid-twice")
def test_two_keys_under_one_kid_are_both_left_out() -> None:
    """A `kid` that means two keys does not say who signed; one key published twice is one."""
    twin = ec_signer("mcp-rs256").jwk()

    assert [key.key_id for key in key_set(GOOD, twin, POINT).keys] == ["mcp-es256"]
    assert [key.key_id for key in key_set(GOOD, GOOD, POINT).keys] == ["mcp-rs256", "mcp-es256"]
    # A bad twin was never a candidate, so it cannot take the good one with it.
    assert len(key_set(GOOD, rsa_signer("mcp-rs256", bits=1024).jwk()).keys) == 1


def test_another_key_under_the_same_kid_is_another_key() -> None:
    """The identity of a key is its material, its name and what it verifies."""
    jwks = [GOOD, rsa_signer().jwk(kid="x"), rsa_signer().jwk(alg=ABSENT, kid="y"), POINT]
    replaced = rsa_signer("other").jwk(kid="mcp-rs256")
    identities = {key_set(jwk).identities for jwk in [*jwks, replaced]}

    assert len(identities) == 5
    assert key_set(GOOD).identities == key_set({**GOOD, "x5t": "changes nothing"}).identities


@pytest.mark.parametrize(
    "names", [[], ["none"], ["HS256"], ["RS256", "HS256"], ["EdDSA"], ["rs256"], [""]], ids=repr
)
@pytest.mark.attack("alg-none")
def test_no_configuration_allows_none_or_shared_secrets(names: list[str]) -> None:
    """The allow-list itself takes asymmetric signatures only."""
    with pytest.raises(ValueError, match="algorithms must be"):
        check_algorithms(names)
