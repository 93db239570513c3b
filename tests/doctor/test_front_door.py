"""Our two clients at Authelia, set up wrongly in one way each."""

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from authz.config.secret_files import Secrets
from authz.doctor import front_door
from authz.doctor.finding import Finding
from tests.demo.kit import ISSUER
from tests.doctor.kit import against, answering, diagnoses, problems, settings

DOOR = "front_door: {key_file: /k.pem}\n"
METADATA = {"pushed_authorization_request_endpoint": f"{ISSUER}/par"}
KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
TAKEN = (201, b'{"request_uri": "urn:x", "expires_in": 300}')


def error(code: str) -> tuple[int, bytes]:
    return 400, json.dumps({"error": code, "error_description": "words of others"}).encode()


def examine(app: Any, *, door: str = DOOR, **metadata: object) -> list[Finding]:
    async def look(url: str) -> list[Finding]:
        known = settings(url, rest=door)
        known = replace(known, secrets=Secrets(front_door=SecretStr(KEY)))
        return await front_door.examine(known, metadata or METADATA)

    found: list[Finding] = against(app, look)
    return found


def test_a_sound_one() -> None:
    """Both clients may begin."""
    assert diagnoses(examine(answering(TAKEN))) == ["may_begin", "may_begin"]


@pytest.mark.parametrize(
    ("code", "diagnosis"),
    [
        ("invalid_client", "door_unauthorized"),
        ("invalid_scope", "door_scopes"),
        ("invalid_target", "door_audience"),
        ("invalid_request", "door_redirect"),
        ("something_else", "door_refused"),
    ],
)
def test_one_thing_is_wrong(code: str, diagnosis: str) -> None:
    """What is wrong is told once a client, by what mends it, and in our own words."""
    found = examine(answering(error(code)))

    assert problems(found) == [diagnosis, diagnosis]
    assert "authz-one-factor" in found[0].message
    assert "authz-two-factor" in found[1].message
    assert not any("words of others" in str(each) for each in found)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 50_000, b"x" * 100_000])
def test_an_answer_that_is_none(body: bytes) -> None:
    """Whatever comes, the look goes on."""
    assert problems(examine(answering((502, body)))) == ["door_refused", "door_refused"]


def test_a_wrong_callback_is_found_behind_a_right_one() -> None:
    """Each callback is tried: one's own log-ins and step-ups end elsewhere than log-ins."""
    found = examine(answering(TAKEN, error("invalid_request"), TAKEN))

    assert diagnoses(found) == ["door_redirect", "may_begin"]
    assert "/authz/log-ins/callback" in found[0].message


def test_without_a_front_door_nobody_is_asked() -> None:
    """There is no client of ours then."""
    assert examine(answering(error("invalid_client")), door="") == []


def test_an_authelia_without_the_endpoint() -> None:
    """Metadata that does not name it is told."""
    assert problems(examine(answering(TAKEN), issuer=ISSUER)) == ["no_endpoint"]
