"""Verification of access tokens: shape, issuer, key, signature, claims, login; in that order.

Invariant: nothing is asked of the issuer for a token that cannot be valid, and no principal of a
signed token exists before its signature was verified with the key's own algorithm. What looks
signed is never introspected instead. A token of the front door needs the record of its login, which
is read once its signature has verified.
"""

import hashlib
import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Final

from authz.core.detail import Detail
from authz.core.ledger import UnavailableError
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.tokens.cache import PrincipalCache, token_digest
from authz.tokens.claims import ClaimRules, check_issuer, read_principal
from authz.tokens.front_door import FrontDoorTokens
from authz.tokens.introspector import Introspector, check_shape
from authz.tokens.jose import MAX_TOKEN, is_opaque, read_jws
from authz.tokens.jwk import DEFAULT_ALGORITHMS, check_algorithms
from authz.tokens.keys import SigningKeys
from authz.tokens.signature import SignatureVerifier

_CAPACITY: Final = 10_000
_DOTS: Final = 2  # of a compact JWS; an opaque token has fewer


class Stage(Enum):
    """The stages of verification, in their order.

    LOG_IN is passed by tokens of the front door only; an opaque token passes the first and the
    last alone.
    """

    SHAPE = "shape"
    ISSUER = "issuer"
    KEY = "key"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    LOG_IN = "log_in"
    INTROSPECTION = "introspection"


def _ignore(_: Stage) -> None:
    """Observe nothing."""


def _ask_freely() -> None:
    """Allow every request to the issuer."""


class TokenVerifier:
    """Verify access tokens of one issuer, and cache the valid ones."""

    def __init__(
        self,
        keys: SigningKeys,
        rules: ClaimRules,
        algorithms: frozenset[str] = DEFAULT_ALGORITHMS,
        introspector: Introspector | None = None,
        front_door: FrontDoorTokens | None = None,
        *,
        clock: Callable[[], float] = time.time,
        capacity: int = _CAPACITY,
    ) -> None:
        """Take the issuer's keys and rules; `clock` gives seconds since the epoch.

        Without an introspector opaque tokens are refused. Without a front door no client id is
        ours.

        Raises:
            ValueError: where an algorithm is not an asymmetric signature.
        """
        self._rules = rules
        self._algorithms = check_algorithms(algorithms)
        self._signatures = SignatureVerifier(keys, algorithms)
        self._introspector = introspector
        self._front_door = front_door
        self._clock = clock
        self._cache = PrincipalCache(capacity)
        keys.on_withdrawn(self._cache.forget_keys)

    def cached(self, token: str, now: float | None = None) -> Principal | None:
        """Return the principal of a token that was verified before and has not expired.

        `now` is for a caller that has read the clock already.
        """
        # A token that cannot be valid is not hashed: a megabyte would be work for nothing.
        if len(token) > MAX_TOKEN or not token.isascii():
            return None
        # A signed token that was confirmed is known to the introspector too; it is good for
        # nothing without its signature.
        if self._introspector is not None and token.count(".") < _DOTS:
            return self._not_ours(self._introspector.known(token))
        return self._cache.get(token_digest(token), self._clock() if now is None else now)

    async def verify(
        self,
        token: str,
        *,
        opaque: bool = True,
        passed: Callable[[Stage], None] = _ignore,
        before_asking: Callable[[], None] = _ask_freely,
    ) -> Principal:
        """Return the principal of a token; the caller compares the audience.

        Args:
            token: the token.
            opaque: whether an opaque token may be introspected.
            passed: called with each stage that the token passes; never for a cached one.
            before_asking: called before the issuer is asked, for a key or about an opaque token;
                its exceptions propagate. Not called for a token that a held key has signed,
                nor for an opaque one with a recent result.

        Raises:
            RefusedError: TOKEN_WRONG_KIND, TOKEN_OPAQUE, TOKEN_INVALID, TOKEN_EXPIRED,
                AUDIENCE_MISMATCH for a token that is for nobody, or LOG_IN_UNKNOWN for one of the
                front door without its log-in.
            UnavailableError: where the issuer has to be asked, for a key or about an opaque token,
                or the ledger for a log-in, and does not answer in time.
        """
        known = self.cached(token)
        if known is not None:
            return known
        if not is_opaque(token):
            return await self._verify_jwt(token, passed, before_asking)
        if self._introspector is None or not opaque:
            raise RefusedError(Reason.TOKEN_OPAQUE)
        check_shape(token)
        passed(Stage.SHAPE)
        if not self._introspector.is_settled(token):
            before_asking()
        principal = self._not_ours(await self._introspector.principal(token))
        # The tokens of the front door are signed; what else is made for our clients is not of it.
        if principal is None:
            raise RefusedError(Reason.TOKEN_OPAQUE, Detail.OPAQUE_OF_FRONT_DOOR)
        passed(Stage.INTROSPECTION)
        return principal

    async def confirm(self, token: str, principal: Principal, since: float) -> Principal:
        """Return the principal of a verified token as far as the issuer still agrees.

        Args:
            token: a token that `cached` or `verify` gave the principal of.
            principal: what they gave.
            since: the oldest introspection that counts, seconds since the epoch.

        Raises:
            RefusedError: TOKEN_REVOKED where it is not active any more.
            UnavailableError: where the issuer does not answer in time, or cannot be asked at all.
        """
        if self._introspector is None:
            raise UnavailableError("issuer", "introspection is not configured")
        return await self._introspector.confirm(token, principal, since)

    async def _verify_jwt(
        self, token: str, passed: Callable[[Stage], None], before_asking: Callable[[], None]
    ) -> Principal:
        unverified = read_jws(token, self._algorithms)
        passed(Stage.SHAPE)
        # Before the key: a token of another issuer must not make us ask ours.
        check_issuer(unverified.claims, self._rules.issuer)
        passed(Stage.ISSUER)
        key = await self._signatures.verify(
            token,
            unverified,
            self._clock(),
            key_found=partial(passed, Stage.KEY),
            before_fetch=before_asking,
        )
        passed(Stage.SIGNATURE)
        principal = read_principal(
            unverified.claims,
            self._rules,
            self._clock(),
            token_id=hashlib.sha256(unverified.signed).hexdigest(),
            key_id=key.key_id,
        )
        passed(Stage.CLAIMS)
        if self._front_door is not None and self._front_door.owns(principal):
            principal = await self._front_door.known(token, principal)
            passed(Stage.LOG_IN)
            again = self._signatures.known_key(unverified)
            if again is None or again.identity != key.identity:
                raise RefusedError(Reason.TOKEN_INVALID, Detail.KEY_WITHDRAWN)
        # No await since the key was found: a key withdrawn meanwhile could not be missed.
        self._cache.put(token_digest(token), principal, key.identity)
        return principal

    def _not_ours(self, principal: Principal | None) -> Principal | None:
        """Return the principal of an opaque token, unless it was issued to one of our clients."""
        if principal is None or self._front_door is None or not self._front_door.owns(principal):
            return principal
        return None
