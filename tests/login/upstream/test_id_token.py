"""What Authelia's tokens prove: recorded ones at a fixed clock, forged ones, and random claims."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.ledger import UnavailableError
from authz.core.principal import Principal
from authz.login.protocol.values import LoginIdentity
from authz.login.upstream.id_token import (
    ExpectedTokens,
    InvalidTokenResponseError,
    TokenResponseVerifier,
)
from authz.tokens.claims import ClaimRules
from authz.tokens.issuer_http import IssuerError, IssuerFault
from authz.tokens.jwk import DEFAULT_ALGORITHMS, read_key_set
from authz.tokens.keys import KeyRefreshPolicy, SigningKeys
from tests.tokens.token_factory import (
    ABSENT,
    ISSUER,
    NOW,
    RULES,
    Source,
    ec_signer,
    key_set,
    rsa_signer,
    unhurried,
    with_changes,
)

US: Final = "authz-two-factor"
JOHN: Final = "52b134ec-d812-4022-82b4-9100df7e1418"
NONCE: Final = "nonce-of-this-transaction"
FIXTURES: Final = Path(__file__).parents[2] / "fixtures" / "authelia"
EXPECTED: Final = ExpectedTokens(US, NONCE)
FOREIGN: Final = "foreign"
WRONG: Final = "wrong"

# As the real one answered our client at its token endpoint.
ID: Final[Mapping[str, object]] = {
    "amr": ["pwd", "kba", "otp", "mfa"],
    "aud": [US],
    "auth_time": NOW - 62,
    "azp": US,
    "exp": NOW + 3540,
    "iat": NOW - 60,
    "iss": ISSUER,
    "jti": "3f79758a-28f8-4c51-a74f-dd7666253b13",
    "nonce": NONCE,
    "preferred_username": "john",
    "sub": JOHN,
}


def half(token: str) -> str:
    digest = hashlib.sha256(token.encode()).digest()[:16]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def access(**claims: object) -> str:
    return rsa_signer().token({"client_id": US, "sub": JOHN, **claims})


ACCESS: Final = access()


def identifying(
    claims: Mapping[str, object] | None = None,
    header: Mapping[str, object] | None = None,
    beside: str = ACCESS,
) -> str:
    signer = rsa_signer()
    told = with_changes({**ID, "at_hash": half(beside)}, claims or {})
    return signer.compact(
        json.dumps(signer.header(typ="JWT") | dict(header or {})).encode(),
        json.dumps(told).encode(),
    )


def proofs(
    answer: Any = None, now: float = NOW, rules: ClaimRules = RULES
) -> TokenResponseVerifier:
    source = Source(key_set(rsa_signer().jwk(), ec_signer().jwk()) if answer is None else answer)
    keys = SigningKeys(source, KeyRefreshPolicy(spacing=0.0))
    return TokenResponseVerifier(keys, rules, clock=lambda: now)


def outcome(
    access_token: str = ACCESS,
    id_token: str | None = None,
    expected: ExpectedTokens = EXPECTED,
    checker: TokenResponseVerifier | None = None,
) -> tuple[Principal, LoginIdentity] | str:
    """Check two tokens: what they prove, or how they do not."""
    beside = identifying(beside=access_token) if id_token is None else id_token
    try:
        return asyncio.run((checker or proofs()).check(access_token, beside, expected))
    except InvalidTokenResponseError as error:
        return FOREIGN if error.foreign else WRONG
    except UnavailableError as fault:
        return f"unavailable: {fault.dependency}"


# --- recorded ---------------------------------------------------------------------------------

FLOWS: Final[Mapping[str, Any]] = json.loads((FIXTURES / "flows.json").read_text())
PASSWORD: Final = frozenset({"pwd", "kba"})
TOTP: Final = PASSWORD | {"otp", "mfa"}
RECORDED: Final = {
    name: flow["response"]
    for name, flow in FLOWS.items()
    if "id_token" in (flow.get("response") or {})
}


def recorded(name: str, **changes: Any) -> tuple[Principal, LoginIdentity] | str:
    flow, keys = RECORDED[name], json.loads((FIXTURES / "jwks.json").read_text())
    client_id = FLOWS[name]["id"]["claims"]["aud"][0]
    expected = ExpectedTokens(**{"client_id": client_id, "nonce": flow["_nonce"], **changes})
    issued = FLOWS[name]["id"]["claims"]["iat"]
    checker = proofs(read_key_set(keys, DEFAULT_ALGORITHMS), issued + 1)
    return outcome(flow["access_token"], flow["id_token"], expected, checker)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_log_ins_prove_what_was_typed(name: str) -> None:
    """Each recorded pair with a signed access token tells its person and methods; opaque, none."""
    found = recorded(name)
    claims = FLOWS[name]["id"]["claims"]

    if RECORDED[name]["access_token"].startswith("authelia_at_"):
        assert found == WRONG
        return
    assert isinstance(found, tuple)
    principal, identity = found
    assert principal.subject == identity.subject == claims["sub"]
    assert identity.amr == (PASSWORD if name == "1fa client, 1fa session" else TOTP)
    assert identity.auth_time == claims["auth_time"]
    assert identity.account == ""


@pytest.mark.attack("callback-swapped-nonce")
def test_a_recorded_pair_is_of_its_own_transaction_and_client() -> None:
    """Another nonce, client or person makes the same good tokens prove nothing."""
    assert recorded("2fa default", nonce=NONCE) == FOREIGN
    assert recorded("2fa default", client_id=US) == FOREIGN
    assert recorded("2fa default", subject="4531f362-f96e-4719-9af2-64398982e5fd") == FOREIGN


def test_the_tokens_of_two_log_ins_do_not_mix() -> None:
    """The access token of one log-in beside the ID token of another proves nothing."""
    bob, john = RECORDED["bob"], RECORDED["2fa default"]
    keys = read_key_set(json.loads((FIXTURES / "jwks.json").read_text()), DEFAULT_ALGORITHMS)
    now = FLOWS["bob"]["id"]["claims"]["iat"] + 1

    def mixed(first: Any, second: Any) -> object:
        expected = ExpectedTokens("mcp-2fa", second["_nonce"])
        return outcome(first["access_token"], second["id_token"], expected, proofs(keys, now))

    assert isinstance(mixed(john, john), tuple)
    assert {mixed(bob, john), mixed(john, bob)} <= {FOREIGN, WRONG}


# A log-in, and refreshes of it after Authelia's key was exchanged for another.
ROTATION: Final[Mapping[str, Any]] = json.loads((FIXTURES / "rotation.json").read_text())


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("version", ROTATION)
def test_refreshes_go_on_when_authelia_has_another_key(version: str, number: int) -> None:
    """Its refreshed ID tokens name the key of the log-in, and are signed with the one of today."""
    step = ROTATION[version][number]
    expected = ExpectedTokens("authz-one-factor", subject=subject_of(ROTATION[version][0]))
    checker = proofs(read_key_set(step["jwks"], DEFAULT_ALGORITHMS), step["now"])
    pair = step["response"]["access_token"], step["response"]["id_token"]

    found = outcome(*pair, expected, checker)

    assert isinstance(found, tuple)
    assert found[1].account == "john"
    names = [jwt.get_unverified_header(each)["kid"] for each in pair]
    assert names == ["k1" if number == 0 else "k2", "k1"]


@pytest.mark.parametrize("version", ROTATION)
def test_tokens_of_the_old_key_are_good_as_long_as_it_is_published(version: str) -> None:
    """Beside the new one; with the new one alone they prove nothing."""
    first, both, alone = ROTATION[version]
    pair = first["response"]["access_token"], first["response"]["id_token"]
    expected = ExpectedTokens("authz-one-factor", subject=subject_of(first))

    def under(step: Mapping[str, Any]) -> object:
        checker = proofs(read_key_set(step["jwks"], DEFAULT_ALGORITHMS), first["now"])
        return outcome(*pair, expected, checker)

    assert isinstance(under(both), tuple)
    assert not isinstance(under(alone), tuple)


def subject_of(step: Mapping[str, Any]) -> str:
    claims = jwt.decode(step["response"]["id_token"], options={"verify_signature": False})
    return str(claims["sub"])


@pytest.mark.attack("id-token-forged")
@pytest.mark.parametrize("kid", ["mcp-rs256", "gone"])
def test_a_key_that_is_not_the_issuers_signs_no_refresh(kid: str) -> None:
    """Beside a good access token, and whichever key it names; a log-in's is the one it names."""
    refresh = ExpectedTokens(US, subject=JOHN)
    told = {**ID, "at_hash": half(ACCESS)}
    forged = rsa_signer("forger").compact(
        json.dumps(rsa_signer().header(typ="JWT", kid=kid)).encode(), json.dumps(told).encode()
    )
    own = identifying(header={"kid": kid})

    assert outcome(ACCESS, forged, refresh) == WRONG
    assert isinstance(outcome(ACCESS, own, refresh), tuple)
    assert isinstance(outcome(ACCESS, own), tuple) is (kid == "mcp-rs256")


# --- made -------------------------------------------------------------------------------------


def test_a_good_pair_tells_person_methods_time_and_name() -> None:
    """What the tokens say arrives as it was said."""
    found = outcome()

    assert isinstance(found, tuple)
    principal, identity = found
    assert identity == LoginIdentity(JOHN, TOTP, NOW - 62, "john")
    assert (principal.client_id, principal.expires_at) == (US, NOW + 3600)


@pytest.mark.parametrize(
    ("claims", "email"),
    [
        ({"email": "john@example.com"}, "john@example.com"),
        ({"email": "john@example.com", "email_verified": True}, "john@example.com"),
        ({"email": "john@example.com", "email_verified": False}, ""),
        ({"email": "john@example.com", "email_verified": "true"}, ""),
        ({"email": "john"}, ""),
        ({"email": ["john@example.com"]}, ""),
        ({"email": "john@example.com\x1b[2J"}, ""),
        ({"email": f"{'j' * 243}@example.com"}, ""),
    ],
)
def test_an_e_mail_address_is_taken_as_it_is_verified(
    claims: dict[str, object], email: str
) -> None:
    """What is no short printable address, or not verified, names nobody."""
    found = outcome(id_token=identifying(claims))
    assert isinstance(found, tuple)
    assert found[1].email == email


def test_a_refresh_expects_no_nonce_and_the_same_person() -> None:
    """The refreshed ID token may repeat its nonce or not; another person's is refused."""
    again = ExpectedTokens(US, subject=JOHN)

    assert isinstance(outcome(expected=again), tuple)
    assert isinstance(outcome(id_token=identifying({"nonce": ABSENT}), expected=again), tuple)
    assert outcome(expected=ExpectedTokens(US, subject="somebody else")) == FOREIGN


def test_a_step_up_has_an_access_token_for_nobody() -> None:
    """Without a resource Authelia grants an empty audience: it says who, and is for no server."""
    token = access(aud=[])

    assert isinstance(outcome(token), tuple)


GOOD: Final[dict[str, dict[str, object]]] = {
    "aud-as-string": {"aud": US},
    "no-azp": {"azp": ABSENT},
    "no-at-hash": {"at_hash": ABSENT},
    "iat-within-leeway": {"iat": NOW + 29},
    "auth-time-within-leeway": {"auth_time": NOW + 29},
    "more-claims": {"acr": "0", "groups": ["x"]},
}


@pytest.mark.parametrize("claims", GOOD.values(), ids=GOOD.keys())
def test_what_an_id_token_may_leave_out(claims: dict[str, object]) -> None:
    """OpenID Connect Core, section 2: these are optional, or within what clocks differ by."""
    assert isinstance(outcome(id_token=identifying(claims)), tuple)


BAD: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "another-client": (FOREIGN, {"aud": ["mcp-2fa"], "azp": "mcp-2fa"}),
    "two-audiences": (FOREIGN, {"aud": [US, "mcp-2fa"]}),
    "us-twice": (FOREIGN, {"aud": [US, US]}),
    "no-audience": (FOREIGN, {"aud": ABSENT}),
    "audience-in-a-list": (FOREIGN, {"aud": [[US]]}),
    "azp-of-another": (WRONG, {"azp": "mcp-2fa"}),
    "azp-not-text": (WRONG, {"azp": [US]}),
    "another-issuer": (FOREIGN, {"iss": "https://auth.example.test/"}),
    "no-issuer": (FOREIGN, {"iss": ABSENT}),
    "issuer-in-a-list": (FOREIGN, {"iss": [ISSUER]}),
    "expired": (WRONG, {"exp": NOW - 31}),
    "no-exp": (WRONG, {"exp": ABSENT}),
    "exp-true": (WRONG, {"exp": True}),
    "exp-text": (WRONG, {"exp": str(NOW + 60)}),
    "exp-float": (WRONG, {"exp": NOW + 60.5}),
    "no-iat": (WRONG, {"iat": ABSENT}),
    "iat-in-the-future": (WRONG, {"iat": NOW + 60}),
    "nbf-in-the-future": (WRONG, {"nbf": NOW + 60}),
    "swapped-nonce": (FOREIGN, {"nonce": "nonce-of-another-transaction"}),
    "no-nonce": (FOREIGN, {"nonce": ABSENT}),
    "nonce-null": (WRONG, {"nonce": None}),
    "nonce-in-a-list": (WRONG, {"nonce": [NONCE]}),
    "at-hash-of-another": (WRONG, {"at_hash": half("another")}),
    "at-hash-not-text": (WRONG, {"at_hash": 7}),
    "another-person": (FOREIGN, {"sub": "4531f362-f96e-4719-9af2-64398982e5fd"}),
    "no-sub": (WRONG, {"sub": ABSENT}),
    "sub-in-a-list": (WRONG, {"sub": [JOHN]}),
    "no-auth-time": (WRONG, {"auth_time": ABSENT}),
    "auth-time-in-the-future": (WRONG, {"auth_time": NOW + 31}),
    "auth-time-text": (WRONG, {"auth_time": str(NOW)}),
    "auth-time-true": (WRONG, {"auth_time": True}),
    "auth-time-zero": (WRONG, {"auth_time": 0}),
    "auth-time-float": (WRONG, {"auth_time": NOW - 0.5}),
    "amr-text": (WRONG, {"amr": "otp"}),
    "amr-nested": (WRONG, {"amr": [["otp"]]}),
    "amr-object": (WRONG, {"amr": {"otp": True}}),
    "amr-of-numbers": (WRONG, {"amr": [1]}),
    "amr-with-a-blank": (WRONG, {"amr": ["otp "]}),
    "amr-too-long": (WRONG, {"amr": ["otp"] * 33}),
}


@pytest.mark.parametrize(("how", "claims"), BAD.values(), ids=BAD.keys())
@pytest.mark.attack("id-token-forged")
def test_what_proves_nothing(how: str, claims: dict[str, object]) -> None:
    """An ID token of another client, issuer, person or transaction, late or malformed: nothing."""
    assert outcome(id_token=identifying(claims)) == how


@pytest.mark.parametrize(
    ("amr", "found"),
    [
        (ABSENT, frozenset()),
        (None, frozenset()),
        ([], frozenset()),
        (["OTP"], frozenset({"OTP"})),
        (["pwd", "pwd"], frozenset({"pwd"})),
    ],
)
@pytest.mark.attack("amr-odd")
def test_amr_is_read_to_the_letter(amr: object, found: frozenset[str]) -> None:
    """No `amr` proves no method, and `OTP` is not `otp`."""
    told = outcome(id_token=identifying({"amr": amr}))

    assert isinstance(told, tuple)
    assert told[1].amr == found


@pytest.mark.parametrize("name", [ABSENT, None, 7, "", " john", "jo\nhn", "jo\u202ehn", "x" * 257])
def test_a_name_that_cannot_be_shown_is_none(name: object) -> None:
    """The account is for people to read: where it could mislead, there is none."""
    told = outcome(id_token=identifying({"preferred_username": name}))

    assert isinstance(told, tuple)
    assert told[1].account == ""


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "RS512"},
        {"alg": "ES256"},
        {"typ": "at+jwt"},
        {"typ": "application/at+jwt"},
        {"typ": "logout+jwt"},
        {"typ": None},
        {"kid": "nobody"},
        {"kid": "mcp-es256"},
        {"crit": ["exp"]},
        {"jwk": rsa_signer().jwk()},
        {"jku": "https://evil.example/"},
    ],
)
@pytest.mark.attack("id-token-forged")
def test_a_header_that_steers_or_lies(header: dict[str, object]) -> None:
    """`alg` none, another key or algorithm, an access token's `typ`: refused."""
    assert outcome(id_token=identifying(header=header)) == WRONG


@pytest.mark.attack("id-token-forged")
def test_a_signature_of_somebody_else() -> None:
    """A key of the same name that the issuer never published signs nothing; nor is none enough."""
    forger = rsa_signer("mcp-rs256", "RS256", 2050)
    head, payload = (json.dumps(part).encode() for part in (forger.header(typ="JWT"), dict(ID)))
    good = identifying()

    assert outcome(id_token=forger.compact(head, payload)) == WRONG
    assert outcome(id_token=good.rpartition(".")[0] + ".") == WRONG
    assert outcome(id_token=good[:-6] + ("AAAAAA" if good[-6:] != "AAAAAA" else "BBBBBB")) == WRONG


def test_an_id_token_without_typ_is_one() -> None:
    """OpenID Connect does not ask for `typ` (RFC 7519, section 5.1)."""
    signer = rsa_signer()
    head = {"alg": "RS256", "kid": signer.kid}
    token = signer.compact(json.dumps(head).encode(), json.dumps(dict(ID)).encode())

    assert isinstance(outcome(id_token=token), tuple)


OTHERS: Final[dict[str, tuple[str, str]]] = {
    "another-client": (FOREIGN, access(client_id="mcp-2fa")),
    "another-person": (FOREIGN, access(sub="4531f362-f96e-4719-9af2-64398982e5fd")),
    "a-machine": (FOREIGN, access(sub=ABSENT)),
    "a-machine-by-rfc-9068": (FOREIGN, access(sub=US)),
    "another-issuer": (FOREIGN, access(iss="https://evil.example")),
    "expired": (WRONG, access(exp=NOW - 1)),
    "too-long-lived": (WRONG, access(exp=NOW + 10_000)),
    "no-audience": (WRONG, access(aud=ABSENT)),
    "opaque": (WRONG, "authelia_at_" + "a" * 43 + "." + "b" * 43),
    "id-token": (WRONG, identifying()),
    "too-long": (WRONG, "x" * 9000),
}


@pytest.mark.attack("code-of-another-client")
@pytest.mark.parametrize(("how", "token"), OTHERS.values(), ids=OTHERS.keys())
def test_the_access_token_is_ours_and_of_the_same_person(how: str, token: str) -> None:
    """What is handed on to a client is a signed token of our client, about the same person."""
    assert outcome(token, identifying(beside=token)) == how


@pytest.mark.attack("id-token-forged")
@pytest.mark.parametrize("sub", [ABSENT, None])
@pytest.mark.parametrize("machine", [ABSENT, US])
def test_two_tokens_of_nobody_are_no_log_in(machine: object, sub: object) -> None:
    """That neither token names a person does not make them agree on one."""
    token = access(sub=machine)

    assert outcome(token, identifying({"sub": sub}, beside=token)) == FOREIGN


def test_an_access_token_is_no_id_token() -> None:
    """Neither stands for the other."""
    assert outcome(ACCESS, ACCESS) == WRONG


def test_keys_that_cannot_be_had_are_a_fault() -> None:
    """A log-in is not called false because Authelia's keys did not come."""
    away = proofs(IssuerError(IssuerFault.UNREACHABLE, "away"))

    assert outcome(checker=away) == "unavailable: issuer"


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=6,
)
_CHECKED = sorted({*ID, "nbf", "at_hash"} - {"jti", "preferred_username", "amr"})


@unhurried
@given(st.dictionaries(st.sampled_from([*_CHECKED, "amr"]), _JSON, min_size=1, max_size=3))
def test_random_claims_prove_nothing_new(changes: dict[str, object]) -> None:
    """Whatever a claim is replaced with: refused, or nothing more is proven than was said."""
    found = outcome(id_token=identifying(changes))

    if isinstance(found, tuple):
        _, identity = found
        assert identity.subject == JOHN
        said = changes.get("amr", ID["amr"])
        assert identity.amr == frozenset(said or ())  # type: ignore[call-overload]
        assert identity.auth_time == changes.get("auth_time", ID["auth_time"])
    else:
        assert found in (FOREIGN, WRONG)


@unhurried
@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: f"{data.hex()}.e30.AA"))
def test_junk_is_refused(junk: str) -> None:
    """Whatever stands in place of an ID token: refused, never another error."""
    assert outcome(id_token=junk) == WRONG
