"""Principals of opaque tokens, and confirmation of signed ones, by introspection.

Invariant: what is no opaque access token by its shape (a refresh token, a code) is never sent to
the issuer; a token that is known never waits for it.
"""

import re
import time
from collections.abc import Callable
from typing import Final

from authz.core.detail import Detail
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.tokens.introspection_cache import IntrospectionCache
from authz.tokens.introspection_result import intersect_with

# A token is guessed by chance unless it has 128 bits (RFC 6749, section 10.10): 22 characters of
# base64url at the least. The longest is for our memory and the issuer's.
_LENGTHS: Final = range(22, 1024 + 1)
_AUTHELIA: Final = "authelia_at_"
# Authelia's own: 32 random octets, a dot, and their MAC.
_AUTHELIA_SHAPE: Final = re.compile(r"authelia_at_[A-Za-z0-9_-]{43,}\.[A-Za-z0-9_-]{43,}\Z")
# The share of its age after which a result is renewed in the background.
_RENEWAL: Final = 0.7


def check_shape(token: str) -> None:
    """Refuse what cannot be an opaque access token, before the issuer is asked.

    Whether a token is opaque at all, and no refresh token or code of Authelia's, was looked at
    before (`jose.is_opaque`).

    Raises:
        RefusedError: TOKEN_INVALID.
    """
    if len(token) not in _LENGTHS:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.NOT_OPAQUE_LENGTH)
    if token.startswith(_AUTHELIA) and _AUTHELIA_SHAPE.match(token) is None:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.NOT_OPAQUE_FORM)


class Introspector:
    """Return the principals of tokens by introspection."""

    def __init__(
        self, lookups: IntrospectionCache, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Take who asks and remembers; `clock` gives seconds since the epoch."""
        self._lookups = lookups
        self._ages = lookups.ages
        self._clock = clock

    def known(self, token: str) -> Principal | None:
        """Return the principal of a cached opaque token, without waiting.

        A result that grows old is renewed in the background.
        """
        now = self._clock()
        said = self._lookups.remembered(token, now - self._ages.active)
        if said is None or said.principal is None:
            return None
        if now - said.asked_at > self._ages.active * _RENEWAL:
            self._lookups.renew(token)
        return said.principal

    def is_settled(self, token: str) -> bool:
        """Tell whether a token was active once, or was found inactive lately.

        Such a token was not made up, or asking about it costs the issuer nothing.
        """
        return self._lookups.has_spoken_of(token)

    async def principal(self, token: str) -> Principal:
        """Return the principal of an opaque token, waiting for the issuer where needed.

        Raises:
            RefusedError: TOKEN_INVALID where it is not active; as `read_principal` for its
                claims.
            UnavailableError: where the issuer does not answer in time.
        """
        check_shape(token)
        said = await self._lookups.statement(token, self._clock() - self._ages.active)
        if said.principal is None:
            raise RefusedError(*said.refusal)
        return said.principal

    async def confirm(self, token: str, known: Principal, since: float) -> Principal:
        """Return the principal of a verified token as far as the issuer still agrees.

        Args:
            token: signed or opaque, verified before.
            known: its principal so far.
            since: the oldest introspection that counts, seconds since the epoch.

        Raises:
            RefusedError: TOKEN_REVOKED where the token is not active any more, TOKEN_INVALID where
                the issuer's answer is about another one.
            UnavailableError: where the issuer does not answer in time.
        """
        said = await self._lookups.statement(token, since)
        if not said.active:
            raise RefusedError(Reason.TOKEN_REVOKED, Detail.NOT_ACTIVE_ANY_MORE)
        if said.principal is None:
            raise RefusedError(*said.refusal)
        return intersect_with(known, said.principal)

    async def aclose(self) -> None:
        """Cancel the requests under way."""
        await self._lookups.aclose()
