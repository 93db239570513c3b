"""How we prove ourselves to the issuer: assertions that hold once, and secrets in their place."""

import base64

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from authz.tokens.client_auth import ClientSecretBasic, ClientSecretPost, PrivateKeyJwt
from tests.tokens.token_factory import ISSUER, NOW, ec_signer, rsa_signer


def pem(
    key: PrivateKeyTypes,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
) -> str:
    return key.private_bytes(Encoding.PEM, form, encryption or NoEncryption()).decode()


def keyed(key: PrivateKeyTypes, key_id: str | None = None) -> PrivateKeyJwt:
    return PrivateKeyJwt("authz", pem(key), ISSUER, key_id, clock=lambda: NOW + 0.9)


@pytest.mark.parametrize(("signer", "alg"), [(ec_signer(), "ES256"), (rsa_signer(), "RS256")])
def test_an_assertion_is_signed_for_this_issuer_and_a_minute(signer: object, alg: str) -> None:
    """RFC 7523, section 3: issuer and subject are the client, the audience is the issuer."""
    key = ec_signer().key if alg == "ES256" else rsa_signer().key
    form = keyed(key).proof().form

    assertion = form["client_assertion"]
    claims = jwt.decode(
        assertion, key.public_key(), [alg], audience=ISSUER, options={"verify_exp": False}
    )
    assert claims.pop("jti")
    assert claims == {"iss": "authz", "sub": "authz", "aud": ISSUER, "exp": NOW + 60}
    assert jwt.get_unverified_header(assertion) == {"alg": alg, "typ": "JWT"}
    assert form["client_id"] == "authz"
    assert form["client_assertion_type"].endswith("client-assertion-type:jwt-bearer")


def test_a_key_id_goes_into_the_header() -> None:
    """Where the issuer knows several keys of ours, the assertion names its own."""
    assertion = keyed(ec_signer().key, "authz-2").proof().form["client_assertion"]

    assert jwt.get_unverified_header(assertion)["kid"] == "authz-2"


def test_no_assertion_is_used_twice() -> None:
    """Authelia remembers each `jti` and refuses the second use."""
    auth = keyed(ec_signer().key)

    names = {
        jwt.decode(auth.proof().form["client_assertion"], options={"verify_signature": False})[
            "jti"
        ]
        for _ in range(50)
    }

    assert len(names) == 50
    assert all(len(name) >= 32 for name in names)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("hunter2", id="a-password"),
        pytest.param(pem(ec.generate_private_key(ec.SECP384R1())), id="P-384"),
        pytest.param(pem(ed25519.Ed25519PrivateKey.generate()), id="Ed25519"),
        pytest.param(pem(rsa.generate_private_key(65537, 1024)), id="RSA-1024"),
        pytest.param(
            pem(
                ec.generate_private_key(ec.SECP256R1()),
                encryption=BestAvailableEncryption(b"hunter2"),
            ),
            id="with-a-passphrase",
        ),
    ],
)
def test_what_signs_nothing_is_refused_at_the_start(text: str) -> None:
    """A key that cannot sign ES256 or RS256 is an error before the first request, unquoted."""
    with pytest.raises(ValueError, match="key") as raised:
        PrivateKeyJwt("authz", text, ISSUER)

    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL], ids=["pkcs8", "sec1"]
)
def test_both_forms_of_pem_are_read(form: PrivateFormat) -> None:
    """OpenSSL writes keys in two forms."""
    text = pem(ec.generate_private_key(ec.SECP256R1()), form)

    assert PrivateKeyJwt("authz", text, ISSUER).proof().form["client_assertion"]


@pytest.mark.parametrize(
    ("client_id", "secret", "pair"),
    [
        ("introspector", "introspector-secret", "introspector:introspector-secret"),
        ("a:b", "c d", "a%3Ab:c+d"),
        ("ä", "%", "%C3%A4:%25"),
    ],
)
def test_a_secret_in_the_header_is_form_encoded(client_id: str, secret: str, pair: str) -> None:
    """RFC 6749, section 2.3.1: each half is encoded, so that no colon moves the border."""
    proof = ClientSecretBasic(client_id, secret).proof()

    scheme, _, value = proof.headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(value).decode()) == ("Basic", pair)
    assert proof.form == {}


def test_a_secret_in_the_form() -> None:
    """`client_secret_post` puts id and secret into the form and nothing into the header."""
    proof = ClientSecretPost("introspector", "secret").proof()

    assert proof.form == {"client_id": "introspector", "client_secret": "secret"}
    assert proof.headers == {}


def test_no_repr_shows_a_secret() -> None:
    """What is logged by mistake holds no credential."""
    for auth in (ClientSecretBasic("a", "hunter2"), ClientSecretPost("a", "hunter2")):
        assert "hunter2" not in f"{auth!r} {auth.proof()!r}"
    keyed_auth = keyed(ec_signer().key)
    proof = keyed_auth.proof()
    assert proof.form["client_assertion"] not in f"{keyed_auth!r} {proof!r}"
