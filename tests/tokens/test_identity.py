"""The signed identity: what the gateway signs is what the middleware of MCP servers believes."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authz.cli.main import main
from authz.config.key_files import read_private_key
from authz.core.policy import Server
from authz.core.principal import Principal
from authz.integrations.mcp_identity import Assertions, Caller, IdentityError
from authz.tokens.identity import LIFETIME, TYPE, IdentitySigner, public_key
from authz.tokens.identity import key_set as published
from tests.support.values import FILES, principal, server

GATEWAY = "https://mcp.example.test"
KEY = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
OTHER = ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> str:
    found: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return found.decode()


def key_set(*keys: Any) -> dict[str, Any]:
    return {"keys": [public_key(*read_private_key(pem(key))) for key in keys]}


class IdentityClock:
    """A clock to turn; PyJWT looks at the real one."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def signer(
    key: Any = KEY, clock: IdentityClock | None = None
) -> tuple[IdentitySigner, IdentityClock]:
    clock = IdentityClock() if clock is None else clock
    return IdentitySigner(pem(key), GATEWAY, clock), clock


def living(clock: IdentityClock, **changes: Any) -> Principal:
    return principal(expires_at=int(clock.now) + 3600, **changes)


SERVER = server(signed_identity=True)


def believed(assertion: str, keys: Any = None, audience: str = FILES) -> Caller:
    return asyncio.run(
        Assertions(key_set(KEY) if keys is None else keys, GATEWAY, audience)(assertion)
    )


@pytest.mark.parametrize("key", [KEY, RSA], ids=["ES256", "RS256"])
def test_what_is_signed_is_believed(key: Any) -> None:
    """Issuer, person, client, scopes and groups arrive as they are, whatever is in them."""
    made, clock = signer(key)
    who = living(clock, subject="jöhn, x", groups=frozenset({"a,b", "ü"}))

    caller = believed(made.assertion(who, SERVER), key_set(OTHER, key))

    assert caller == Caller(who.issuer, "jöhn, x", "claude", ("mcp:files",), ("a,b", "ü"))
    machine = living(clock, subject=None)
    assert believed(made.assertion(machine, SERVER), key_set(key)).subject is None


@pytest.mark.attack("signed-identity-of-another-server")
def test_an_assertion_is_for_one_server_and_one_key() -> None:
    """Neither another server's nor one of another key or gateway is believed."""
    made, clock = signer()
    assertion = made.assertion(living(clock), SERVER)

    for keys, audience, token in (
        (key_set(KEY), f"{FILES}/other", assertion),
        (key_set(OTHER), FILES, assertion),
        ({"keys": []}, FILES, assertion),
        (key_set(KEY), FILES, assertion[:-4] + "AAAA"),
        (key_set(KEY), FILES, ""),
    ):
        with pytest.raises(IdentityError):
            believed(token, keys, audience)
    foreign = Assertions(key_set(KEY), "https://other.example", FILES)
    with pytest.raises(IdentityError):
        asyncio.run(foreign(assertion))


@pytest.mark.attack("signed-identity-forged")
@pytest.mark.parametrize(
    ("headers", "claims"),
    [
        ({"typ": "at+jwt"}, {}),
        ({"typ": None}, {}),
        ({"kid": "other"}, {}),
        ({}, {"exp": None}),
        ({}, {"exp": 1}),
        ({}, {"client_id": None}),
        ({}, {"client_id": 7}),
        ({}, {"idp": None}),
        ({}, {"sub": 7}),
        ({}, {"aud": None}),
    ],
    ids=str,
)
def test_other_tokens_of_the_same_key_are_none(
    headers: dict[str, Any], claims: dict[str, Any]
) -> None:
    """What lacks a claim, has expired or was made for something else is not believed."""
    made, clock = signer()
    assertion = made.assertion(living(clock), SERVER)
    told = jwt.decode(assertion, options={"verify_signature": False}) | claims
    told = {name: value for name, value in told.items() if value is not None}
    kid = key_set(KEY)["keys"][0]["kid"]
    forged = jwt.encode(told, KEY, "ES256", headers={"typ": TYPE, "kid": kid} | headers)

    with pytest.raises(IdentityError):
        believed(forged)


@pytest.mark.attack("signed-identity-forged")
def test_an_assertion_without_a_signature_is_none() -> None:
    """Nor one that is keyed with what everybody has."""
    kid = key_set(KEY)["keys"][0]["kid"]
    claims = {"iss": GATEWAY, "aud": FILES, "idp": "x", "client_id": "c", "exp": 2**31, "iat": 1}
    for algorithm, key in (("none", ""), ("HS256", "x" * 40)):
        with pytest.raises(IdentityError):
            believed(jwt.encode(claims, key, algorithm, headers={"typ": TYPE, "kid": kid}))


def test_a_signature_is_made_once_for_half_of_its_life() -> None:
    """A decision pays for one in thirty seconds; what is handed out never has less than half."""
    made, clock = signer()
    who = living(clock)
    first = made.assertion(who, SERVER)
    claims = jwt.decode(first, options={"verify_signature": False})

    assert claims["exp"] - claims["iat"] == LIFETIME <= 60
    clock.now += LIFETIME / 2 - 1
    assert made.assertion(who, SERVER) is first
    clock.now += 2
    assert made.assertion(who, SERVER) is not first


@pytest.mark.attack("signed-identity-of-another-server")
def test_what_is_remembered_is_one_principals_at_one_server() -> None:
    """Equal values are no mix-up, other principals and servers have their own."""
    made, clock = signer()
    other: Server = replace(SERVER, name="notes", resource="https://mcp.example.test/notes")
    people = [living(clock), living(clock, subject="bob"), living(clock, client_id="cursor")]
    found = {
        made.assertion(who, where): (who, where) for who in people for where in (SERVER, other)
    }

    assert len(found) == 6
    for assertion, (who, where) in found.items():
        caller = believed(assertion, audience=where.resource)
        assert (caller.subject, caller.client) == (who.subject, who.client_id)


def test_an_assertion_ends_with_its_token() -> None:
    """Nothing that the gateway says outlives what it was said of."""
    made, clock = signer()
    who = principal(expires_at=int(clock.now) + 7)
    claims = jwt.decode(made.assertion(who, SERVER), options={"verify_signature": False})

    assert claims["exp"] == who.expires_at


def test_no_more_is_held_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first."""
    monkeypatch.setattr("authz.tokens.identity._CAPACITY", 3)
    made, clock = signer()
    for number in range(9):
        made.assertion(living(clock, subject=str(number)), SERVER)

    assert len(made._signed) == 3


def test_a_new_key_is_read_when_it_is_first_seen(tmp_path: Path) -> None:
    """After a change of the gateway's key the file is read again, and no oftener than it may be."""
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(key_set(OTHER)))
    made, clock = signer()
    assertion = made.assertion(living(clock), SERVER)

    async def go() -> None:
        verify = Assertions(str(file), GATEWAY, FILES)
        with pytest.raises(IdentityError):
            await verify(assertion)
        file.write_text(json.dumps(key_set(OTHER, KEY)))
        with pytest.raises(IdentityError):
            await verify(assertion)
        verify._read_at -= 11
        assert (await verify(assertion)).client == "claude"

    asyncio.run(go())


def test_the_command_prints_the_public_half_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`authz identity-keys --make-key` makes the key; what it prints verifies and is no secret."""
    key, file = tmp_path / "identity.pem", tmp_path / "authz.yaml"
    file.write_text(
        "issuer: {url: https://auth.example.com}\n"
        f"gateway: {{url: {GATEWAY}, identity_key_file: {key}}}\n"
        "servers: {files: {upstream: http://files:8000/mcp, identity: signed}}\n"
    )

    assert main(["identity-keys", str(file)]) != 0
    assert main(["identity-keys", str(file), "--make-key"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert key.stat().st_mode & 0o777 == 0o600
    assert all("d" not in each for each in printed["keys"])
    clock = IdentityClock()
    made = IdentitySigner(key.read_text(), GATEWAY, clock)
    assert believed(made.assertion(living(clock), SERVER), printed).client == "claude"


def test_two_keys_are_published_and_one_signs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Servers know the next key before it signs, and the last one until what it signed has ended:
    with the same two files the other way round, every token of before is believed.
    """
    for name, key in (("one.pem", KEY), ("two.pem", OTHER)):
        (tmp_path / name).write_text(pem(key))
    file = tmp_path / "authz.yaml"
    file.write_text(
        "issuer: {url: https://auth.example.com}\n"
        f"gateway: {{url: {GATEWAY}, identity_key_file: {tmp_path}/one.pem,"
        f" identity_other_key_file: {tmp_path}/two.pem}}\n"
        "servers: {files: {upstream: http://files:8000/mcp, identity: signed}}\n"
    )
    assert main(["identity-keys", str(file)]) == 0
    printed = json.loads(capsys.readouterr().out)

    assert [key["kid"] for key in printed["keys"]] == [
        key["kid"] for key in key_set(KEY, OTHER)["keys"]
    ]
    for key in (KEY, OTHER):
        made, clock = signer(key)
        assert believed(made.assertion(living(clock), SERVER), printed).client == "claude"
    assert published(pem(KEY), pem(KEY)) == published(pem(KEY))
