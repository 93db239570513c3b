"""Sealed values that clients, browsers and Redis hold since before keep opening.

tests/fixtures/login/sealed.json was written by the code of ba566b1.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from authz.login.protocol.authorization import AUTHORIZATION_REQUEST, CONSENT
from authz.login.protocol.grant import decode, encode
from authz.login.protocol.issued import Issued
from authz.login.protocol.members import MembersError, digest
from authz.login.protocol.refresh import UpstreamToken
from authz.login.store.person_address import person_address
from authz.login.store.sealed import (
    CODE,
    LATEST_ANSWER,
    REFRESH_ANSWER,
    USED,
    open_refresh,
    open_upstream,
)
from authz.tokens.sealing import NotSealedError, Sealer

BEFORE: Final = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "login" / "sealed.json").read_text()
)
SEALER: Final = Sealer(("k" * 40,), lambda: 1_700_000_000)
ISSUER: Final = "https://auth.example.test"
FILES: Final = "https://mcp.example.test/files"
CLIENT: Final = "https://claude.ai/client.json"


def test_a_code_opens() -> None:
    fresh, _, used = BEFORE["code"][1:].partition("\n")
    code = CODE.open(SEALER, fresh)

    assert (code.grant_id, code.subject, code.client) == ("g" * 32, "john", "https://claude.ai")
    assert (code.client_digest, code.resource) == (digest(CLIENT), FILES)
    assert (code.access_token, code.refresh_token) == ("a.b.c", "authelia_rt_1")
    assert (code.amr, code.restricted) == (("otp", "pwd"), True)
    assert (code.consented_at, code.auth_time) == (1_699_999_980, 1_699_999_990)
    assert USED.open(SEALER, used) == code.used


def test_a_refresh_token_opens() -> None:
    token = open_refresh(SEALER, BEFORE["refresh_token"], ISSUER)

    assert (token.grant_id, token.client, token.client_digest) == (
        "g" * 32,
        "https://claude.ai",
        digest(CLIENT),
    )
    assert (token.upstream, token.scopes) == ("authelia_rt_1", ("mcp:files",))
    assert token.address == person_address(SEALER, "john")
    with pytest.raises(NotSealedError):
        open_refresh(SEALER, BEFORE["refresh_token"], "https://other.example.test")


def test_a_token_in_the_outbox_opens() -> None:
    assert open_upstream(SEALER, BEFORE["upstream"], ISSUER) == UpstreamToken(
        ISSUER, "authelia_rt_1", two_factor=True, address="fd00::7"
    )


def test_answers_to_refreshes_open() -> None:
    issued = Issued("a.b.c", "sealed", 1_700_003_600, ("mcp:files",))

    assert REFRESH_ANSWER.open(SEALER, BEFORE["answer"]) == issued
    assert LATEST_ANSWER.open(SEALER, BEFORE["latest"]) == replace(issued, network="192.0.2.0")
    with pytest.raises(NotSealedError):
        REFRESH_ANSWER.open(SEALER, BEFORE["latest"])


def test_a_consent_and_its_transaction_open() -> None:
    about = SEALER.open("form-consent", BEFORE["request"])["about"]
    request = AUTHORIZATION_REQUEST.read(about)
    kept = _transaction()
    consent = CONSENT.read(kept)

    assert (request.client_id, request.scopes, request.offline) == (CLIENT, ("mcp:files",), False)
    assert consent.request == request
    assert (consent.grant_id, consent.consented_at) == ("g" * 32, 1_699_999_980)
    assert AUTHORIZATION_REQUEST.write(request) == about
    assert CONSENT.write(consent) == kept


def _transaction() -> dict[str, Any]:
    """What is kept beside nonce and verifier, which `login_kind` reads."""
    kept = SEALER.open("transaction-log-in", BEFORE["transaction"])["transaction"]
    return {name: kept[name] for name in kept.keys() - {"nonce", "verifier"}}


def test_a_grant_is_read() -> None:
    raw = BEFORE["grant"].encode()
    grant = decode(raw)

    assert grant is not None
    assert encode(grant) == raw


@pytest.mark.parametrize(
    "change", [{"more": 1}, {"wish": None}, {"at": "1"}, {"grant": 1}, {"at": True}]
)
def test_members_of_another_kind_are_no_consent(change: dict[str, Any]) -> None:
    with pytest.raises(MembersError):
        CONSENT.read({**_transaction(), **change})
