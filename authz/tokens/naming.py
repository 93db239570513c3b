"""The ids by which tokens are revoked, from unverified tokens.

Nothing is verified, and nothing read here is used for access: `exp` says when the record of a
revocation may be forgotten. It cannot be forged to shorten that: a JWT's name is the digest of the
very bytes that hold its `exp`.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, get_args

from authz.config.model import Algorithm
from authz.core.detail import Detail
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.tokens.claims import check_issuer
from authz.tokens.introspector import check_shape
from authz.tokens.jose import is_opaque, read_jws

# All that authz.yaml may ever allow: revocation does not depend on what it allows today.
_ALGORITHMS: Final = frozenset[str](get_args(Algorithm))
_LATEST: Final = 10**15  # a moment in the ledger has 15 digits


@dataclass(frozen=True, slots=True)
class TokenName:
    """Name one token.

    Attributes:
        token_id: as `Principal.token_id`.
        expires_at: its `exp`, unverified; None for an opaque token, which does not say.
    """

    token_id: str
    expires_at: int | None


def name_token(token: str, issuer: str) -> TokenName:
    """Return the id by which a revocation names a token.

    Raises:
        RefusedError: for what could never be accepted: TOKEN_WRONG_KIND for a refresh token, a
            code or an ID token, TOKEN_INVALID for what is malformed, of another issuer, or never
            expires.
    """
    if is_opaque(token):
        check_shape(token)
        return TokenName(hashlib.sha256(token.encode("ascii")).hexdigest(), None)
    unverified = read_jws(token, _ALGORITHMS)
    check_issuer(unverified.claims, issuer)
    expires_at = unverified.claims.get("exp")
    if not isinstance(expires_at, int) or not 1 < expires_at < _LATEST:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.EXP_MALFORMED)
    return TokenName(hashlib.sha256(unverified.signed).hexdigest(), expires_at)
