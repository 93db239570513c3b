"""Introspection responses (RFC 7662, section 2.2), read strictly.

Invariant: a token is active where `active` is true and nothing else; an active token's claims are
read as strictly as a signed token's. A result holds as of the moment of its request.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from authz.core.detail import Detail
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.tokens.claims import ClaimRules, read_principal
from authz.tokens.issuer_http import IssuerError, IssuerFault

_BEARER: Final = "bearer"
_ACCESS: Final = "access_token"


@dataclass(frozen=True, slots=True)
class IntrospectionResult:
    """One introspection response, read.

    Attributes:
        asked_at: when the request was sent, seconds since the epoch.
        active: the member `active`.
        principal: of the token; None where it is not active, or its claims are refused.
        refusal: why there is no principal.
    """

    asked_at: float
    active: bool
    principal: Principal | None = None
    refusal: tuple[Reason, Detail] = (Reason.TOKEN_INVALID, Detail.NOT_ACTIVE)

    @property
    def label(self) -> str:
        """Return the label of a metric."""
        if not self.active:
            return "inactive"
        return "refused" if self.principal is None else "active"


def read_introspection_result(
    answer: Mapping[str, object], rules: ClaimRules, digest: bytes, asked_at: float, now: float
) -> IntrospectionResult:
    """Read the issuer's answer.

    Args:
        answer: the JSON object.
        rules: what claims must keep to.
        digest: of the whole token, which is its id.
        asked_at: when the request was sent.
        now: the time.

    Raises:
        IssuerError: MALFORMED where `active` is no boolean: the issuer is broken then, and
            a log-in is not thrown away for that.
    """
    active = answer.get("active")
    if not isinstance(active, bool):
        raise IssuerError(IssuerFault.MALFORMED, "active is neither true nor false")
    if not active:
        return IntrospectionResult(asked_at, active)
    try:
        _check_kind(answer)
        # RFC 7662 lets an issuer leave `iss` out, as Authelia does; another's is refused.
        claims = {"iss": rules.issuer, **answer}
        # The assurance claim is a signed one or none: an introspection response has no say in it.
        unsigned_rules = replace(rules, assurance_claim=None)
        principal = read_principal(claims, unsigned_rules, now, token_id=digest.hex(), key_id="")
    except RefusedError as refused:
        return IntrospectionResult(asked_at, active, None, (refused.reason, refused.detail))
    return IntrospectionResult(
        asked_at, active, replace(principal, opaque=True, confirmed_at=asked_at)
    )


def _check_kind(answer: Mapping[str, object]) -> None:
    """Refuse what is no bearer access token, where the answer says what it is."""
    kind = answer.get("token_type", _BEARER)
    if not isinstance(kind, str) or kind.lower() != _BEARER:
        raise RefusedError(Reason.TOKEN_WRONG_KIND, Detail.TOKEN_TYPE)
    if answer.get("token_use", _ACCESS) != _ACCESS:  # Ory's word for it
        raise RefusedError(Reason.TOKEN_WRONG_KIND, Detail.TOKEN_USE)


def intersect_with(known: Principal, said: Principal) -> Principal:
    """Return a principal as far as the token and the introspection response agree.

    Scopes and audience may have become fewer, never more. The log-in behind a token of the front
    door stays: the issuer knows nothing of it, and names the client that it signed for. So does
    the assurance claim, which is signed and no response repeats.

    Raises:
        RefusedError: TOKEN_INVALID where the response is about another token.
    """
    if (known.issuer, known.token_client_id or known.client_id, known.subject) != (
        said.issuer,
        said.client_id,
        said.subject,
    ):
        raise RefusedError(Reason.TOKEN_INVALID, Detail.OTHER_TOKEN)
    return replace(
        known,
        scopes=known.scopes & said.scopes,
        audience=tuple(entry for entry in known.audience if entry in said.audience),
        expires_at=min(known.expires_at, said.expires_at),
        confirmed_at=said.confirmed_at,
    )


class IntrospectionResults:
    """LRU cache of the newest result for each token.

    Not cachetools: `get` takes a range of request times.
    """

    def __init__(self, capacity: int) -> None:
        """Take how many to hold at most, at least 1."""
        if capacity < 1:
            raise ValueError("statements are held for at least one token")
        self._capacity = capacity
        self._entries: OrderedDict[bytes, IntrospectionResult] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._entries

    def get(self, digest: bytes, since: float, now: float) -> IntrospectionResult | None:
        """Return the result that was requested within a range of time.

        One from the future, which a clock that stepped back leaves behind, is not used.
        """
        found = self._entries.get(digest)
        if found is None or not since <= found.asked_at <= now:
            return None
        self._entries.move_to_end(digest)
        return found

    def put(self, digest: bytes, result: IntrospectionResult) -> None:
        """Store a result in place of the one before."""
        self._entries[digest] = result
        self._entries.move_to_end(digest)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def forget(self, digest: bytes) -> None:
        """Drop the result for a token."""
        self._entries.pop(digest, None)
