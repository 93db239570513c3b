"""How a client authenticates: an assertion that it signs with a key of its metadata document.

RFC 7523, section 3, as OpenID Connect Core, section 9 (`private_key_jwt`) and
draft-ietf-oauth-rfc7523bis narrow it: `iss` and `sub` are the client, `aud` is this server alone,
it ends soon and has a `jti`, which counts once. The audience is our issuer, as the draft wants it,
or the URL of the token endpoint, as OpenID Connect has it and most clients send; as one string or
a list of one, since an assertion for two servers could be replayed by one of them at the other.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import jwt

from authz.core.request import RefusedError
from authz.login.clients.documents import document_host, read_keys
from authz.login.clients.faults import DocumentFault
from authz.login.clients.lookup import DocumentError, Fetch, FetchedCache, nobody
from authz.login.protocol.values import KeyAuthentication, OAuthClient
from authz.tokens.bulkhead import Bulkhead
from authz.tokens.claims import is_seconds
from authz.tokens.jose import Unverified, read_client_assertion
from authz.tokens.jwk import ALGORITHMS, KeySet, VerificationKey
from authz.tokens.signature import is_signed_by

JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LONGEST_LIFETIME: Final = 3600  # seconds; libraries make assertions of 60 s to an hour
LEEWAY: Final = 30  # seconds that clocks may differ
# Seconds between two fetches of one key set for keys that it did not have.
COOLDOWN: Final = 30.0
_KEY_SETS: Final = 256  # remembered: few clients publish keys, many share one set
_LONGEST_ID: Final = 1024
_ALL: Final = frozenset(ALGORITHMS)

Claims = Mapping[str, object]


class InvalidAssertionError(Exception):
    """Say why an assertion proves nothing.

    Attributes:
        description: fixed text, for the log and the client.
    """

    def __init__(self, description: str) -> None:
        """Keep the description."""
        super().__init__(description)
        self.description = description


@dataclass(frozen=True, slots=True)
class VerifiedAssertion:
    """Hold what is left to do with an assertion: to count it once.

    Attributes:
        token_id: its `jti`.
        lifetime: seconds for which it must not count again.
    """

    token_id: str
    lifetime: int


class KeySets(FetchedCache[KeySet]):
    """Find the key sets at the `jwks_uri` of documents."""

    def __init__(
        self,
        fetch: Fetch,
        *,
        bulkhead: Bulkhead | None = None,
        requester: Callable[[], str] = nobody,
    ) -> None:
        """Take how to fetch.

        Args:
            fetch: what is at a URL of a host.
            bulkhead: how many fetches there may be: the same as the documents'.
            requester: the address of who asks at this moment.
        """
        super().__init__(
            fetch, _read_key_set, bulkhead=bulkhead, capacity=_KEY_SETS, requester=requester
        )


class ClientAssertions:
    """Verify the assertions of clients."""

    def __init__(
        self,
        key_sets: KeySets,
        audiences: frozenset[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take what finds keys, what we are called, and a clock (seconds since the epoch)."""
        self._key_sets = key_sets
        self._audiences = audiences
        self._clock = clock
        self._jws = jwt.PyJWS(sorted(ALGORITHMS))

    def fetches(self, client: OAuthClient) -> bool:
        """Tell whether to verify an assertion is to ask a host that nobody has named lately."""
        how = client.authentication
        return how is not None and bool(how.jwks_uri) and self._key_sets.fetches(how.jwks_uri)

    async def verify(self, client: OAuthClient, text: str) -> VerifiedAssertion:
        """Return an assertion that this client has made, for us, lately.

        Raises:
            InvalidAssertionError: where it is none.
            DocumentError: where the keys of the client cannot be had.
        """
        how = client.authentication
        if how is None:
            raise InvalidAssertionError("the client publishes no keys")
        unverified = _read(text, how.algorithms)
        # Before anybody is asked for keys.
        verified = self._check_claims(client.client_id, unverified.claims)
        await self._check_signature(text, unverified, how)
        return verified

    def _check_claims(self, client_id: str, claims: Claims) -> VerifiedAssertion:
        if claims.get("iss") != client_id or claims.get("sub") != client_id:
            raise InvalidAssertionError("iss and sub of the assertion have to be the client_id")
        said = claims.get("aud")
        audience = said[0] if isinstance(said, list) and len(said) == 1 else said
        if not isinstance(audience, str) or audience not in self._audiences:
            raise InvalidAssertionError(
                "aud of the assertion has to be the issuer or its token endpoint, and nothing else"
            )
        now, expires_at = self._clock(), _seconds(claims, "exp")
        if expires_at is None or not now - LEEWAY < expires_at <= now + LONGEST_LIFETIME + LEEWAY:
            raise InvalidAssertionError("exp of the assertion is past, missing, or over an hour on")
        for name in ("iat", "nbf"):
            moment = _seconds(claims, name)
            if name in claims and (moment is None or moment > now + LEEWAY):
                raise InvalidAssertionError(f"{name} of the assertion is no moment of the past")
        token_id = claims.get("jti")
        if not isinstance(token_id, str) or not 0 < len(token_id) <= _LONGEST_ID:
            raise InvalidAssertionError("jti of the assertion is missing or malformed")
        return VerifiedAssertion(token_id, int(expires_at - now) + 2 * LEEWAY)

    async def _check_signature(
        self, text: str, unverified: Unverified, how: KeyAuthentication
    ) -> None:
        """Check the signature; ask for newer keys where those that are known do not fit."""
        uri, host = how.jwks_uri, document_host(how.jwks_uri) or ""
        if how.jwks:
            keys = read_keys(how.jwks.encode(), how.algorithms)
        else:
            keys = await self._key_sets.at(uri, host)
        key = keys.choose(unverified.key_id, unverified.algorithm)
        if self._is_signed(text, unverified, key):
            return
        if uri:
            newer = await self._key_sets.newer(uri, host, COOLDOWN)
            if newer is None and key is None:
                # Perhaps published since the last look: nothing is decided.
                raise DocumentError(DocumentFault.BUSY)
            if newer is not None:
                key = newer.choose(unverified.key_id, unverified.algorithm)
                if self._is_signed(text, unverified, key):
                    return
        raise InvalidAssertionError("no key of the client verifies the assertion")

    def _is_signed(self, text: str, unverified: Unverified, key: VerificationKey | None) -> bool:
        return key is not None and is_signed_by(self._jws, text, unverified, key)


def client_of(text: str) -> str:
    """Return whom an assertion speaks for, unverified; for a request without client_id.

    Raises:
        InvalidAssertionError: where it does not say.
    """
    subject = _read(text, _ALL).claims.get("sub")
    if not isinstance(subject, str):
        raise InvalidAssertionError("sub of the assertion has to be the client_id")
    return subject


def _read(text: str, algorithms: frozenset[str]) -> Unverified:
    try:
        return read_client_assertion(text, algorithms)
    except RefusedError as refused:
        raise InvalidAssertionError(f"the assertion is not good: {refused.detail}") from refused


def _seconds(claims: Claims, name: str) -> int | None:
    value = claims.get(name)
    return value if is_seconds(value) else None


def _read_key_set(_url: str, _host: str, body: bytes) -> KeySet:
    return read_keys(body, _ALL)
