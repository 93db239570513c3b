"""Introspection set up wrongly, and opaque tokens where it is set up rightly."""

import time
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from authz.config.secret_files import Secrets
from authz.doctor import token
from authz.doctor.finding import Finding
from authz.doctor.introspection import introspection_client
from tests.demo.kit import CLIENT_KEY
from tests.doctor.kit import against, answering, diagnoses, problems, saying, settings, stand_in

OPAQUE = "authelia_at_" + "a" * 43 + "." + "b" * 43


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def examine(
    app: Any, credential: str, *, auth: str = "key_file: /k", client: str = "authz-stepup"
) -> list[Finding]:
    async def look(url: str) -> list[Finding]:
        section = f", introspection: {{client_id: {client}, {auth}}}"
        known = settings(url, issuer=section)
        known = replace(known, secrets=Secrets(introspection=SecretStr(credential)))
        async with introspection_client(known) as who:
            assert who is not None
            found = await who.examine(known)
            one = await token.examine(OPAQUE, known, None, time.time(), who)
            return [*found, *one.findings]

    found: list[Finding] = against(app, look)
    return found


def test_a_sound_one() -> None:
    """Our key is known, and a token of nobody's is told to be inactive."""
    found = examine(stand_in(), pem(CLIENT_KEY))

    assert diagnoses(found) == ["introspection", "inactive"]


def test_a_key_that_authelia_does_not_know() -> None:
    """Another key than the registered one is told, with the client's entry."""
    found = examine(stand_in(), pem(ec.generate_private_key(ec.SECP256R1())))

    assert problems(found) == ["introspection_unauthorized", "not_asked"]
    assert "authelia-config" in found[0].fix


def test_a_slow_client_secret() -> None:
    """A client secret works, and costs Authelia a password hash each time."""
    secret = "auth: client_secret_basic, secret_file: /s"
    found = examine(stand_in(), "introspector-secret", auth=secret, client="introspector")

    assert diagnoses(found) == ["slow_client_secret", "introspection", "inactive"]


def test_somebody_who_says_yes_to_everything() -> None:
    """An issuer that calls a token of nobody's active is none."""
    endpoint = "https://auth.example.test/introspect"
    yes = (200, b'{"active": true}')
    found = examine(answering(saying(introspection_endpoint=endpoint), yes), pem(CLIENT_KEY))

    assert problems(found)[0] == "introspection"


def test_no_endpoint() -> None:
    """An issuer without introspection is told."""
    found = examine(answering(saying()), pem(CLIENT_KEY))

    assert problems(found) == ["introspection", "not_asked"]
