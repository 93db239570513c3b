"""Assertions of clients: what proves who a client is, and what does not; and its keys."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz.login.clients.assertions import (
    COOLDOWN,
    LONGEST_LIFETIME,
    ClientAssertions,
    InvalidAssertionError,
    KeySets,
)
from authz.login.clients.documents import read_document
from authz.login.clients.faults import DocumentFault
from authz.login.clients.fetching import Fetched, FetchError
from authz.login.clients.lookup import DocumentError
from authz.login.clients.redirects import RedirectRules
from authz.login.protocol.values import OAuthClient
from authz.tokens import base64url
from tests.login.clients.assertion_kit import EC_KEY, OTHER_KEY, RSA_KEY, assertion, public_jwk

NOW = 1_795_380_700
US = "https://mcp.example.test"
TOKEN = f"{US}/token"
URL = "https://client.example.test/client.json"
SET = "https://keys.example.test/jwks.json"


@dataclass
class Web:
    """The host of a key set, at a time that stands still."""

    keys: list[dict[str, Any]] = field(default_factory=lambda: [public_jwk(EC_KEY, "k1")])
    fault: DocumentFault | None = None
    now: float = NOW
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key_sets = KeySets(self.fetch)
        self.key_sets._clock = lambda: self.now
        self.assertions = ClientAssertions(self.key_sets, frozenset({US, TOKEN}), lambda: self.now)

    async def fetch(self, url: str, host: str) -> Fetched:
        self.asked.append(url)
        if self.fault is not None:
            raise FetchError(self.fault)
        return Fetched(json.dumps({"keys": self.keys}).encode(), 86_400)

    async def verify(self, text: str, **said: Any) -> str:
        return (await self.assertions.verify(client(**said), text)).token_id


def client(**said: Any) -> OAuthClient:
    body = {
        "client_id": URL,
        "redirect_uris": ["https://client.example.test/cb"],
        "token_endpoint_auth_method": "private_key_jwt",
        **({} if "jwks" in said else {"jwks_uri": SET}),
        **said,
    }
    return read_document(URL, "client.example.test", json.dumps(body).encode(), RedirectRules())


def verified(text: str, web: Web | None = None, **said: Any) -> str:
    async def play() -> str:
        found = web or Web()
        try:
            return await found.verify(text, **said)
        finally:
            await found.key_sets.aclose()

    return asyncio.run(play())


def made(audience: Any = US, key: Any = EC_KEY, **how: Any) -> str:
    return assertion(URL, audience, key, **{"now": NOW, **how})


GOOD: Mapping[str, str] = {
    "issuer": made(),
    "token endpoint": made(TOKEN),
    "a list of one": made([US]),
    "no kid, one key": made(kid=None),
    "typ of the draft": made(header={"typ": "client-authentication+jwt"}),
    "no iat": made(iat=None),
    "an hour": made(exp=NOW + LONGEST_LIFETIME),
    "a slow clock": made(now=NOW - 310),
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("said", [{}, {"jwks": {"keys": [public_jwk(EC_KEY, "k1")]}}])
def test_what_a_client_has_signed_for_us_is_taken(text: str, said: dict[str, Any]) -> None:
    """By keys in the document, or at its jwks_uri."""
    assert verified(text, **said)


def test_rsa_is_taken_too() -> None:
    """ChatGPT signs RS256."""
    web = Web([public_jwk(RSA_KEY, "k1")])
    assert verified(made(key=RSA_KEY, algorithm="RS256"), web)


PEM = EC_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signed_with_the_public_key() -> str:
    head = base64url.encode(b'{"alg":"HS256","kid":"k1"}')
    body = made().split(".")[1]
    mac = hmac.digest(PEM, f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}.{base64url.encode(mac)}"


BAD: Mapping[str, str] = {
    "of another key": made(key=OTHER_KEY),
    "of another client": assertion("https://client.example.test/other", US, now=NOW),
    "iss of another": made(iss="https://evil.example/c"),
    "sub of another": made(sub="https://evil.example/c"),
    "no sub": made(sub=None),
    "aud of another server": made("https://evil.example"),
    "aud of two": made([US, "https://evil.example"]),
    "aud twice us": made([US, TOKEN]),
    "no aud": made(None),
    "aud an empty list": made([]),
    "aud with a slash": made(f"{US}/"),
    "aud revocation": made(f"{US}/revoke"),
    "aud a number": made([7]),
    "past": made(now=NOW - 400),
    "no exp": made(exp=None),
    "exp far": made(exp=NOW + 2 * LONGEST_LIFETIME),
    "exp a string": made(exp=str(NOW + 60)),
    "exp true": made(exp=True),
    "iat ahead": made(iat=NOW + 300),
    "iat a string": made(iat="x"),
    "nbf ahead": made(nbf=NOW + 300),
    "no jti": made(jti=None),
    "jti empty": made(jti=""),
    "jti a number": made(jti=7),
    "jti long": made(jti="x" * 2000),
    "alg none": jwt.encode({"iss": URL, "sub": URL}, "", "none"),
    "alg HS256 with the public key": signed_with_the_public_key(),
    "an access token": made(header={"typ": "at+jwt"}),
    "jwk embedded": made(key=OTHER_KEY, header={"jwk": public_jwk(OTHER_KEY)}),
    "jku": made(key=OTHER_KEY, header={"jku": "https://evil.example/jwks"}),
    "crit": made(header={"crit": ["x"], "x": 1}),
    "not a JWT": "x",
    "empty": "",
    "altered": made()[:-4] + "AAAA",
    "long": made(x="y" * 9000),
}


@pytest.mark.attack("client-assertion-forged")
@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_nothing_else_proves_anything(text: str) -> None:
    """Of another key, client, server or time, unsigned, with a shared secret, or steering us."""
    with pytest.raises(InvalidAssertionError):
        verified(text)


@pytest.mark.attack("client-assertion-forged")
def test_what_cannot_be_good_asks_nobody_for_keys() -> None:
    """Claims are read before a host is asked."""
    for name in ("past", "aud of another server", "sub of another", "alg none", "jku"):
        web = Web()
        with pytest.raises(InvalidAssertionError):
            verified(BAD[name], web)
        assert web.asked == []


@pytest.mark.attack("client-assertion-forged")
def test_the_algorithm_is_the_documents_and_the_keys() -> None:
    """A document that names one takes no other; a key is bound to its own type and `alg`."""
    with pytest.raises(InvalidAssertionError):
        verified(made(), token_endpoint_auth_signing_alg="RS256")
    for keys in ([public_jwk(RSA_KEY, "k1")], [public_jwk(EC_KEY, "k1", alg="ES384")]):
        with pytest.raises((InvalidAssertionError, DocumentError)):
            verified(made(), Web(keys))
    with pytest.raises((InvalidAssertionError, DocumentError)):
        verified(made(), Web([public_jwk(EC_KEY, "k1", use="enc")]))


def test_keys_are_fetched_once() -> None:
    """They are kept as long as their host says, within a day."""
    web = Web()

    async def play() -> None:
        for _ in range(3):
            await web.verify(made())
        await web.key_sets.aclose()

    asyncio.run(play())
    assert web.asked == [SET]


def test_a_new_key_is_found() -> None:
    """A name that is not in the set makes us look again, also where the old name has a new key."""
    web = Web()

    async def play() -> None:
        await web.verify(made())
        web.keys = [public_jwk(OTHER_KEY, "k2")]
        with pytest.raises(DocumentError) as caught:
            await web.verify(made(key=OTHER_KEY, kid="k2"))
        assert caught.value.fault is DocumentFault.BUSY  # no verdict: it may be there by now
        web.now += COOLDOWN
        assert await web.verify(made(key=OTHER_KEY, kid="k2", now=int(web.now)))
        web.keys = [public_jwk(EC_KEY, "k2")]
        web.now += COOLDOWN
        assert await web.verify(made(kid="k2", now=int(web.now)))
        await web.key_sets.aclose()

    asyncio.run(play())
    assert len(web.asked) == 3


@pytest.mark.attack("client-assertion-flood")
@pytest.mark.parametrize("fault", [None, DocumentFault.UNREACHABLE, DocumentFault.LATE])
def test_forged_names_of_keys_are_one_fetch_a_while(fault: DocumentFault | None) -> None:
    """Whether the host answers or not; and the keys that are known stay good."""
    web = Web()

    async def play() -> None:
        await web.verify(made())
        web.fault = fault
        web.now += COOLDOWN
        for n in range(50):
            with pytest.raises((InvalidAssertionError, DocumentError)):
                await web.verify(made(key=OTHER_KEY, kid=f"x{n}", now=int(web.now)))
        assert await web.verify(made(now=int(web.now)))
        await web.key_sets.aclose()

    asyncio.run(play())
    assert len(web.asked) == 2


@pytest.mark.parametrize("fault", list(DocumentFault))
def test_keys_that_cannot_be_had_are_no_verdict(fault: DocumentFault) -> None:
    """The reason is told apart by its kind."""
    with pytest.raises(DocumentError) as caught:
        verified(made(), Web(fault=fault))
    assert caught.value.fault is fault
