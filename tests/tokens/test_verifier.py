"""Tokens against the verifier: forged, replayed, expired, withdrawn."""

import asyncio
import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz.core.principal import Principal, names_resource
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.tokens import base64url
from authz.tokens.issuer_http import IssuerError, IssuerFault
from authz.tokens.jwk import ALGORITHMS
from authz.tokens.keys import KeyRefreshPolicy, Presented
from authz.tokens.verifier import TokenVerifier
from tests.tokens.token_factory import (
    ABSENT,
    CLAIMS,
    FILES,
    ISSUER,
    NOTES,
    NOW,
    RULES,
    TokenBench,
    b64,
    ec_signer,
    key_set,
    rsa_signer,
)

STRANGER = rsa_signer("stranger")
ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def principal_of(bench: TokenBench, token: str) -> Principal:
    outcome = bench.outcome(token)
    assert isinstance(outcome, Principal), outcome
    return outcome


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
def test_a_good_token_is_its_principal(alg: str) -> None:
    """Each algorithm that can be configured verifies what its key signed."""
    signer = ec_signer("k", alg) if alg.startswith("ES") else rsa_signer("k", alg)
    token = signer.token()

    principal = principal_of(TokenBench(signer.jwk(), algorithms=frozenset({alg})), token)

    assert (principal.issuer, principal.subject) == (ISSUER, CLAIMS["sub"])
    assert principal.key_id == "k"
    assert principal.token_id == hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()


def hmac_secrets() -> dict[str, bytes]:
    """Spell the public key in all the ways that a confused verifier might take for a secret."""
    public = rsa_signer().key.public_key()
    assert isinstance(public, RSAPublicKey)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    jwk = rsa_signer().jwk()
    return {
        "pem": pem,
        "pem-stripped": pem.strip(),
        "pem-crlf": pem.replace(b"\n", b"\r\n"),
        "pem-bom": b"\xef\xbb\xbf" + pem,
        "pkcs1-pem": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "jwk": json.dumps(jwk).encode(),
        "jwk-compact": json.dumps(jwk, separators=(",", ":"), sort_keys=True).encode(),
        "modulus": str(jwk["n"]).encode(),
        "empty": b"",
    }


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512", "RS256", "none"])
@pytest.mark.parametrize("secret", hmac_secrets().values(), ids=hmac_secrets().keys())
@pytest.mark.attack("hmac-with-public-key")
def test_the_public_key_is_no_secret(alg: str, secret: bytes) -> None:
    """A MAC keyed with the public key in any form verifies nothing, whatever `alg` says."""
    digest = {"HS384": "sha384", "HS512": "sha512"}.get(alg, "sha256")
    signed = ".".join(
        b64(json.dumps(part).encode()) for part in (rsa_signer().header(alg=alg), CLAIMS)
    )
    mac = hmac.new(secret, signed.encode(), digest).digest()

    assert TokenBench().outcome(f"{signed}.{b64(mac)}") is Reason.TOKEN_INVALID


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "RS256", "ES256"])
@pytest.mark.attack("alg-none")
def test_an_unsigned_token_is_refused(alg: str) -> None:
    """No header makes a signature unnecessary."""
    signed = ".".join(
        b64(json.dumps(part).encode()) for part in (rsa_signer().header(alg=alg), CLAIMS)
    )

    for signature in ("", "AA", b64(bytes(64)), b64(bytes(256))):
        assert TokenBench().outcome(f"{signed}.{signature}") is Reason.TOKEN_INVALID


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        pytest.param({"alg": "ES256"}, {"RS256", "ES256"}, id="alg-of-another-type"),
        pytest.param({"alg": "PS256"}, {"RS256", "PS256"}, id="pss-with-a-pkcs1-key"),
        pytest.param({"alg": "RS512"}, {"RS256", "RS512"}, id="other-hash"),
        pytest.param({"kid": "mcp-es256"}, {"RS256", "ES256"}, id="kid-of-another-type"),
    ],
)
@pytest.mark.attack("alg-not-the-keys")
def test_the_algorithm_is_the_keys_own(header: dict[str, object], allowed: set[str]) -> None:
    """An allowed `alg` that is not the named key's own is refused, and asks nobody."""
    bench = TokenBench(algorithms=frozenset(allowed))

    assert bench.outcome(rsa_signer().token(header=header)) is Reason.TOKEN_INVALID
    assert bench.source.fetches == 1


@pytest.mark.attack("alg-not-the-keys")
def test_a_signature_of_another_scheme_by_the_right_key_is_refused() -> None:
    """An RSA key for RS256 does not verify a PSS signature that its owner made."""
    bench = TokenBench(algorithms=frozenset({"RS256", "PS256"}))
    owner = rsa_signer()
    pss = type(owner)(owner.key, owner.kid, "PS256")

    assert bench.outcome(pss.token()) is Reason.TOKEN_INVALID
    assert bench.outcome(pss.token(header={"alg": "RS256"})) is Reason.TOKEN_INVALID


@pytest.mark.attack("key-not-for-this")
def test_a_key_for_encryption_verifies_nothing() -> None:
    """What the owner of a `use: enc` key signs is signed by nobody."""
    bench = TokenBench(rsa_signer().jwk(), STRANGER.jwk(use="enc"))

    assert bench.outcome(STRANGER.token()) is Reason.TOKEN_INVALID


@pytest.mark.parametrize("how", ["jwk", "jku", "x5u", "x5c"])
@pytest.mark.attack("header-brings-its-key")
def test_a_key_that_the_token_brings_is_not_used(how: str) -> None:
    """An embedded or linked key verifies nothing, and nothing is fetched for it."""
    value: object = STRANGER.jwk() if how == "jwk" else ["https://evil.example/"]
    bench = TokenBench()

    for kid in ("mcp-rs256", "stranger", ABSENT):
        token = STRANGER.token(header={how: value, "kid": kid})
        assert bench.outcome(token) is Reason.TOKEN_INVALID
    assert bench.source.fetches == 0


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(STRANGER.token(header={"kid": "mcp-rs256"}), id="signed-by-a-stranger"),
        pytest.param(STRANGER.token(header={"kid": ABSENT}), id="stranger-without-kid"),
        pytest.param(ec_signer().token(header={"kid": "mcp-rs256"}), id="ec-under-rsa-kid"),
        pytest.param(rsa_signer().token()[:-8] + "AAAAAAAA", id="signature-altered"),
        pytest.param(
            rsa_signer().token() + rsa_signer().token().split(".")[2][:4], id="signature-longer"
        ),
    ],
)
@pytest.mark.attack("signature-of-another")
def test_a_signature_of_anybody_else_is_refused(token: str) -> None:
    """Only the named key of the issuer vouches for a token."""
    assert TokenBench().outcome(token) is Reason.TOKEN_INVALID


@pytest.mark.parametrize("r", [0, 1, ORDER_P256, ORDER_P256 - 1, (1 << 256) - 1])
@pytest.mark.parametrize("s", [0, 1, ORDER_P256, (1 << 256) - 1])
@pytest.mark.attack("signature-of-another")
def test_no_made_up_ecdsa_signature_passes(r: int, s: int) -> None:
    """Zeros, the group order and other numbers outside the range are no signature."""
    signed = ec_signer().token().rpartition(".")[0]

    assert TokenBench().outcome(f"{signed}.{b64(r.to_bytes(32) + s.to_bytes(32))}") is (
        Reason.TOKEN_INVALID
    )


@pytest.mark.attack("one-spelling")
def test_a_token_id_does_not_depend_on_the_signature() -> None:
    """An ECDSA signature can be altered and stay valid: a revoked token must stay revoked."""
    token = ec_signer().token()
    signed, _, text = token.rpartition(".")
    signature = base64url.decode(text)
    s = ORDER_P256 - int.from_bytes(signature[32:])
    other = f"{signed}.{b64(signature[:32] + s.to_bytes(32))}"
    bench = TokenBench()

    assert other != token
    assert principal_of(bench, other) == principal_of(bench, token)


@pytest.mark.attack("lifetime")
def test_an_expired_token_is_told_so_once_its_signature_is_known() -> None:
    """An expired token says "expired"; a forged expired one says no more than "invalid"."""
    old = {"iat": NOW - 3700, "nbf": NOW - 3700, "exp": NOW - 100}

    assert TokenBench().outcome(rsa_signer().token(old)) is Reason.TOKEN_EXPIRED
    forged = STRANGER.token(old, {"kid": "mcp-rs256"})
    assert TokenBench().outcome(forged) is Reason.TOKEN_INVALID


@pytest.mark.attack("cached-and-expired")
def test_a_cached_token_ends_at_its_exp() -> None:
    """Expiry is looked at on each hit, by the second."""
    bench, token = TokenBench(), rsa_signer().token({"exp": NOW + 10})
    principal = principal_of(bench, token)

    bench.clock.now = NOW + 9.9
    assert bench.verifier.cached(token) is principal
    assert bench.verifier.cached(token, NOW + 10) is None
    bench.clock.now = NOW + 10
    assert bench.verifier.cached(token) is None
    assert bench.outcome(token) is Reason.TOKEN_EXPIRED


@pytest.mark.attack("key-withdrawn")
def test_a_cached_token_goes_with_its_key() -> None:
    """When a key is withdrawn, its tokens are refused from the next request on, others stay."""
    bench, rsa, point = TokenBench(), rsa_signer().token(), ec_signer().token()
    principal_of(bench, rsa)
    principal_of(bench, point)

    bench.source.answer = key_set(ec_signer().jwk())
    asyncio.run(_renew(bench))

    assert bench.verifier.cached(rsa) is None
    assert bench.verifier.cached(point) is not None
    assert bench.outcome(rsa) is Reason.TOKEN_INVALID


@pytest.mark.attack("key-withdrawn")
def test_a_cached_token_goes_when_its_kid_gets_another_key() -> None:
    """A kid that is used again for another key does not vouch for the old tokens."""
    bench, token = TokenBench(), rsa_signer().token()
    principal_of(bench, token)

    bench.source.answer = key_set(STRANGER.jwk(kid="mcp-rs256"))
    asyncio.run(_renew(bench))

    assert bench.verifier.cached(token) is None
    assert bench.outcome(token) is Reason.TOKEN_INVALID


async def _renew(bench: TokenBench) -> None:
    """Let an unknown kid bring the new keys."""
    bench.monotonic.now += 60
    with pytest.raises(RefusedError):
        await bench.keys.key("nobody", "RS256", Presented(b"", 0.0))


@pytest.mark.attack("key-rotation")
def test_a_good_token_of_a_replaced_key_is_admitted() -> None:
    """The issuer replaces its key under the same name: a token of the new one is verified after
    one more fetch, and a forged one is refused.
    """
    bench = TokenBench()
    principal_of(bench, rsa_signer().token())
    bench.source.answer = key_set(STRANGER.jwk(kid="mcp-rs256"))
    bench.clock.now = NOW + 120
    bench.monotonic.now += 120

    principal_of(bench, STRANGER.token({"iat": NOW + 119}, {"kid": "mcp-rs256"}))

    assert bench.source.fetches == 2
    forged = rsa_signer().token({"iat": NOW + 119})
    assert bench.outcome(forged) is Reason.TOKEN_INVALID


@pytest.mark.attack("key-rotation")
def test_a_signature_that_may_be_of_a_new_key_is_no_401() -> None:
    """Where the key set may not be fetched so soon, a token issued since the last fetch whose
    signature does not verify gets 503; one issued before it is refused at once.
    """
    bench = TokenBench(renewal=KeyRefreshPolicy(burst=1))
    principal_of(bench, rsa_signer().token())
    bench.clock.now = NOW + 10
    bench.monotonic.now += 10

    fresh = rsa_signer("stranger").token({"iat": NOW + 9}, {"kid": "mcp-rs256"})
    assert bench.outcome(fresh) == "unavailable: issuer"
    stale = rsa_signer("stranger").token({"iat": NOW - 60}, {"kid": "mcp-rs256"})
    assert bench.outcome(stale) is Reason.TOKEN_INVALID
    assert bench.source.fetches == 1


@pytest.mark.attack("issuer-hangs")
def test_known_tokens_need_no_issuer() -> None:
    """With the issuer away, a cached token and a new one of a known key go on."""
    bench, token = TokenBench(), rsa_signer().token()
    principal = principal_of(bench, token)
    bench.source.answer = IssuerError(IssuerFault.UNREACHABLE, "down")

    assert bench.verifier.cached(token) is principal
    principal_of(bench, rsa_signer().token({"jti": "another"}))
    assert bench.source.fetches == 1


def test_a_cached_token_is_answered_without_waiting() -> None:
    """The coroutine of a hit ends at its first step."""
    bench, token = TokenBench(), rsa_signer().token()
    principal = principal_of(bench, token)

    with pytest.raises(StopIteration) as done:
        bench.verifier.verify(token).send(None)

    assert done.value.value is principal


@pytest.mark.attack("replay-at-another-server")
def test_the_audience_is_kept_and_not_the_verdict() -> None:
    """A token that was verified for one server is still for that server only."""
    bench, token = TokenBench(), rsa_signer().token({"aud": [FILES]})
    principal_of(bench, token)

    hit = bench.verifier.cached(token)

    assert hit is not None
    assert names_resource(hit.audience, FILES)
    assert not names_resource(hit.audience, NOTES)


def test_a_refused_token_is_not_remembered() -> None:
    """Only good tokens take room."""
    bench = TokenBench(capacity=1)
    token = rsa_signer().token()
    principal_of(bench, token)

    refused: list[dict[str, object]] = [{"sub": ""}, {"exp": NOW - 1}, {"aud": []}]
    for claims in refused:
        assert isinstance(bench.outcome(rsa_signer().token(claims)), Reason)

    assert bench.verifier.cached(token) is not None


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        pytest.param("authelia_rt_a.b", Reason.TOKEN_WRONG_KIND, id="refresh-token"),
        pytest.param("authelia_ac_a.b", Reason.TOKEN_WRONG_KIND, id="code"),
        pytest.param(
            rsa_signer().token(header={"typ": "JWT"}), Reason.TOKEN_WRONG_KIND, id="id-token"
        ),
        pytest.param("authelia_at_a.b", Reason.TOKEN_OPAQUE, id="opaque"),
        pytest.param("a" * 8193, Reason.TOKEN_INVALID, id="long"),
        pytest.param("\ud800", Reason.TOKEN_INVALID, id="surrogate"),
        pytest.param("\udcff.a.b", Reason.TOKEN_INVALID, id="surrogate-in-a-jwt"),
        pytest.param("", Reason.TOKEN_INVALID, id="empty"),
        pytest.param(
            rsa_signer().token({"iss": "https://evil.example"}, {"kid": "x"}),
            Reason.TOKEN_INVALID,
            id="another-issuer",
        ),
        pytest.param(rsa_signer().token(header={"kid": "a\nb"}), Reason.TOKEN_INVALID, id="kid"),
        pytest.param(rsa_signer().token(header={"kid": 7}), Reason.TOKEN_INVALID, id="kid-number"),
        pytest.param(
            rsa_signer().token(header={"alg": "HS256", "kid": "x"}), Reason.TOKEN_INVALID, id="alg"
        ),
    ],
)
@pytest.mark.attack("nothing-sent-on")
def test_what_cannot_be_good_asks_nobody(token: str, expected: Reason) -> None:
    """Wrong kinds, other issuers and malformed names are refused before any key is looked for."""
    bench = TokenBench()

    assert bench.outcome(token) is expected
    assert bench.source.fetches == 0
    assert bench.verifier.cached(token) is None


@pytest.mark.attack("issuer-hangs")
def test_no_keys_and_a_hanging_issuer_is_unavailable() -> None:
    """Where the issuer must be asked and does not answer, it is nobody's bad token."""
    bench = TokenBench(renewal=KeyRefreshPolicy(deadline=0.01))

    async def play() -> object:
        bench.source.gate = asyncio.Event()
        try:
            return await bench.verifier.verify(rsa_signer().token())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at
            return error
        finally:
            await bench.keys.aclose()

    assert "issuer" in repr(asyncio.run(play()))


@pytest.mark.attack("machine-is-nobody")
def test_a_machines_token_has_no_person() -> None:
    """A client_credentials token is verified, and says that there is no person."""
    principal = principal_of(
        TokenBench(), rsa_signer().token({"sub": ABSENT, "client_id": "machine"})
    )

    assert principal.person is None
    assert principal.client == (ISSUER, "machine")


@pytest.mark.parametrize(
    "algorithms",
    [{"none"}, {"HS256"}, {"RS256", "HS256"}, set()],
    ids=lambda names: str(sorted(names)),
)
@pytest.mark.attack("alg-none")
def test_a_verifier_cannot_be_built_for_shared_secrets(algorithms: set[str]) -> None:
    """A mistake in the configuration is an error, not a door."""
    with pytest.raises(ValueError, match="algorithms"):
        TokenVerifier(TokenBench().keys, RULES, frozenset(algorithms))
