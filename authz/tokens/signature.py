"""Find the key that signed a token, and verify the signature with it."""

from collections.abc import Callable

import jwt

from authz.core.detail import Detail
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.tokens.cache import token_digest
from authz.tokens.jose import Unverified
from authz.tokens.jwk import VerificationKey, check_algorithms
from authz.tokens.keys import Presented, SigningKeys


def _ignore() -> None:
    """Do nothing."""


class SignatureVerifier:
    """Verify signatures of one issuer."""

    def __init__(self, keys: SigningKeys, algorithms: frozenset[str]) -> None:
        """Take the issuer's keys and the allowed algorithms.

        Raises:
            ValueError: where an algorithm is not an asymmetric signature.
        """
        self._keys = keys
        self._jws = jwt.PyJWS(sorted(check_algorithms(algorithms)))

    def known_key(self, unverified: Unverified) -> VerificationKey | None:
        """Return the key that a token names, where it is held."""
        return self._keys.known(unverified.key_id, unverified.algorithm)

    async def verify(
        self,
        token: str,
        unverified: Unverified,
        now: float,
        *,
        key_found: Callable[[], None] = _ignore,
        before_fetch: Callable[[], None] = _ignore,
    ) -> VerificationKey:
        """Return the key that signed a token.

        A signature that a known key does not verify can mean that the issuer has replaced the key
        under the same `kid`, so the issuer may be asked again before the token is refused.

        Args:
            token: the whole token.
            unverified: its parts.
            now: seconds since the epoch.
            key_found: called once a key with that `kid` is held.
            before_fetch: called before the issuer is asked for keys; its exceptions propagate.

        Raises:
            RefusedError: TOKEN_INVALID where none of the issuer's keys has signed it.
            UnavailableError: where the issuer has not answered, or may not be asked again so soon.
        """
        key = self.known_key(unverified)
        if key is not None:
            key_found()
            if self._is_signed_by(token, unverified, key):
                return key
        digest = token_digest(token)
        presented = Presented.of(digest, unverified.claims.get("iat"), now)
        # A caller that `before_fetch` makes wait finds the new key when it retries.
        self._keys.begin_fetch(unverified.key_id, presented)
        before_fetch()
        fetched = await self._keys.key(
            unverified.key_id, unverified.algorithm, presented, other_than=key
        )
        if key is None:
            key_found()
        if not self._is_signed_by(token, unverified, fetched):
            raise RefusedError(Reason.TOKEN_INVALID, Detail.SIGNATURE)
        return fetched

    def is_signed_by(self, token: str, unverified: Unverified, key: VerificationKey) -> bool:
        """Tell whether a key of the issuer's has signed a token, whatever `kid` the token names."""
        return unverified.algorithm in key.by_algorithm and is_signed_by(
            self._jws, token, unverified, key
        )

    def _is_signed_by(self, token: str, unverified: Unverified, key: VerificationKey) -> bool:
        return is_signed_by(self._jws, token, unverified, key)


def is_signed_by(jws: jwt.PyJWS, token: str, unverified: Unverified, key: VerificationKey) -> bool:
    """Tell whether a key, which fits the algorithm of a token, has signed it."""
    # A PyJWK brings its own algorithm; PyJWT refuses a header that names another.
    bound = key.by_algorithm[unverified.algorithm]
    try:
        jws.decode(token, bound, algorithms=[unverified.algorithm])
    except (jwt.PyJWTError, ValueError):
        return False
    return True
