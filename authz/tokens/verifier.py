"""From a bearer token to a principal: shape, issuer, key, signature, claims, in that order.

Law: nothing is asked of the issuer for a token that cannot be good, and no principal is built or
remembered before the signature was verified with the key's own algorithm.
"""

import hashlib
import time
from collections.abc import Callable
from typing import Final

import jwt

from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import Refused
from authz.tokens.cache import PrincipalCache
from authz.tokens.claims import ClaimRules, check_issuer, read_principal
from authz.tokens.jose import MAX_TOKEN, Unverified, is_opaque, read_jws
from authz.tokens.jwk import DEFAULT_ALGORITHMS, VerificationKey, check_algorithms
from authz.tokens.keys import SigningKeys

_CAPACITY: Final = 10_000


class TokenVerifier:
    """Verify access tokens of one issuer, and remember the good ones."""

    def __init__(
        self,
        keys: SigningKeys,
        rules: ClaimRules,
        algorithms: frozenset[str] = DEFAULT_ALGORITHMS,
        *,
        clock: Callable[[], float] = time.time,
        capacity: int = _CAPACITY,
    ) -> None:
        """Take the issuer's keys and rules; `clock` gives seconds since the epoch.

        Raises:
            ValueError: where an algorithm is not an asymmetric signature.
        """
        self._keys = keys
        self._rules = rules
        self._algorithms = check_algorithms(algorithms)
        self._clock = clock
        self._cache = PrincipalCache(capacity)
        self._jws = jwt.PyJWS(sorted(self._algorithms))
        keys.on_withdrawn(self._cache.forget_keys)

    def cached(self, token: str, now: float | None = None) -> Principal | None:
        """Return the principal of a token that was verified before and has not expired.

        `now` is for a caller that has looked at the clock already.
        """
        # A token that cannot be good has no digest: hashing a megabyte would be work for nothing.
        if len(token) > MAX_TOKEN or not token.isascii():
            return None
        return self._cache.get(_digest(token), self._clock() if now is None else now)

    async def verify(self, token: str) -> Principal:
        """Return who sent the token; the audience is the caller's to compare.

        Raises:
            Refused: TOKEN_WRONG_KIND, TOKEN_OPAQUE, TOKEN_INVALID, TOKEN_EXPIRED, or
                AUDIENCE_MISMATCH for a token that is for nobody.
            Unavailable: where its key is not known and the issuer does not answer in time.
        """
        known = self.cached(token)
        if known is not None:
            return known
        if is_opaque(token):
            return await self._introspect()
        return await self._verify_jwt(token)

    async def _introspect(self) -> Principal:
        """Refuse opaque tokens: the one place where introspection will answer for them."""
        raise Refused(Reason.TOKEN_OPAQUE)

    async def _verify_jwt(self, token: str) -> Principal:
        unverified = read_jws(token, self._algorithms)
        # Before the key: a token of another issuer must not make us ask ours.
        check_issuer(unverified.claims, self._rules.issuer)
        key = await self._keys.key(unverified.key_id, unverified.algorithm)
        self._check_signature(token, unverified, key)
        principal = read_principal(
            unverified.claims,
            self._rules,
            self._clock(),
            token_id=hashlib.sha256(unverified.signed).hexdigest(),
            key_id=key.key_id,
        )
        # No await since the key was found: a key withdrawn meanwhile could not be missed.
        self._cache.put(_digest(token), principal, key.identity)
        return principal

    def _check_signature(self, token: str, unverified: Unverified, key: VerificationKey) -> None:
        # A PyJWK brings its own algorithm; PyJWT refuses a header that names another.
        bound = key.by_algorithm[unverified.algorithm]
        try:
            self._jws.decode(token, bound, algorithms=[unverified.algorithm])
        except (jwt.PyJWTError, ValueError) as error:
            raise Refused(Reason.TOKEN_INVALID, "the signature does not verify") from error


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii")).digest()
