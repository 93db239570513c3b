"""Introspection set up wrongly, and opaque tokens where it is set up rightly."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from authz.config.secret_files import Secrets
from authz.doctor import token
from authz.doctor.finding import Finding, Severity
from authz.doctor.introspection import introspection_client, unconfigured
from tests.demo.kit import CLIENT_KEY
from tests.doctor.kit import (
    SERVERS,
    against,
    answering,
    diagnoses,
    problems,
    saying,
    settings,
    stand_in,
    the,
)

OPAQUE = "authelia_at_" + "a" * 43 + "." + "b" * 43


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def examine(
    app: Any,
    credential: str,
    *,
    auth: str = "key_file: /k",
    client: str = "authz-stepup",
    clients: str = "{}",
    servers: str = SERVERS,
    now: float | None = None,
) -> list[Finding]:
    async def look(url: str) -> list[Finding]:
        section = f", introspection: {{client_id: {client}, {auth}}}"
        known = settings(url, issuer=section, clients=clients, servers=servers)
        known = replace(known, secrets=Secrets(introspection=SecretStr(credential)))
        async with introspection_client(known) as who:
            assert who is not None
            found = await who.examine(known)
            one = await token.examine(OPAQUE, known, None, now or time.time(), who)
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


DIRECT = "{script: {}}"


def test_direct_clients_without_introspection() -> None:
    """Opaque tokens are refused then, which is said with both ways out; the door needs neither."""
    (found,) = unconfigured(settings(clients=DIRECT).config)
    assert (found.diagnosis, found.severity) == ("no_introspection", Severity.NOTE)
    assert "script" in found.message
    assert "RS256" in found.fix
    assert "issuer.introspection" in found.fix
    assert list(unconfigured(settings().config)) == []
    asked = ", introspection: {client_id: authz, key_file: /k}"
    assert list(unconfigured(settings(clients=DIRECT, issuer=asked).config)) == []


def test_a_server_that_takes_signed_tokens_alone() -> None:
    """Introspection works, and opaque tokens of direct clients are refused there all the same."""
    servers = (
        "  files: {upstream: 'http://f:1', tokens: [jwt]}\n  notes: {upstream: 'http://n:1'}\n"
    )
    found = examine(stand_in(), pem(CLIENT_KEY), clients=DIRECT, servers=servers)

    assert diagnoses(found) == ["introspection", "opaque_refused", "inactive"]
    assert "files" in found[1].message
    assert "notes" not in found[1].message


RECORDED = json.loads(
    (Path(__file__).parents[1] / "fixtures/authelia/introspection.json").read_text()
)


@pytest.mark.parametrize(
    ("name", "diagnosis"),
    [
        ("opaque", "verified"),
        ("new access after refresh", "verified"),
        ("old access after refresh", "inactive"),
        ("garbage", "inactive"),
        ("wrong secret", "not_asked"),
        ("unauthenticated", "not_asked"),
    ],
)
def test_an_opaque_token_by_what_authelia_really_answers(name: str, diagnosis: str) -> None:
    """Recorded with 4.39.20: whose it is and for which server, or why nobody can say."""
    said = RECORDED[name]
    endpoint = "https://auth.example.test/introspect"
    reply = (said["status"], json.dumps(said["body"]).encode())
    metadata = saying(introspection_endpoint=endpoint)
    app = answering(metadata, (200, b'{"active": false}'), reply)
    now = said["body"]["iat"] + 60 if said["body"].get("active") else time.time()
    found = examine(app, pem(CLIENT_KEY), now=now)

    assert diagnosis in diagnoses(found)
    if diagnosis == "verified":
        assert "mcp-opaque" in the(found, "verified").message
        assert "52b134ec" in the(found, "verified").message


def test_no_endpoint() -> None:
    """An issuer without introspection is told."""
    found = examine(answering(saying()), pem(CLIENT_KEY))

    assert problems(found) == ["introspection", "not_asked"]
