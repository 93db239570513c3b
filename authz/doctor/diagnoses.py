"""What may be wrong with a token: a table of diagnoses, and what mends each.

Law: a row is found by the reason, or by the fixed words, that the verifier refuses with; words
that nobody has put here yet are shown as they are.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from authz.core.reason import Reason

CLIENT: Final = "the client's entry in Authelia's identity_providers.oidc.clients"
_SIGNED: Final = (
    f"access_token_signed_response_alg: RS256 in {CLIENT}, then log in again; "
    "or issuer.introspection in authz.yaml"
)


class Diagnosis(NamedTuple):
    """Hold the stable name of a fault, its message, and what fixes it."""

    diagnosis: str
    message: str
    fix: str


REASONS: Final[Mapping[Reason, Diagnosis]] = {
    Reason.TOKEN_OPAQUE: Diagnosis(
        "opaque", "it is opaque, where a signed one is expected", _SIGNED
    ),
    Reason.TOKEN_WRONG_KIND: Diagnosis(
        "wrong_kind",
        "it is no access token",
        "give the member access_token of the token answer, not refresh_token, id_token or the code",
    ),
    Reason.TOKEN_EXPIRED: Diagnosis("expired", "it has expired", "refresh it, or log in again"),
    Reason.TOKEN_REVOKED: Diagnosis("revoked", "it was revoked", "log in again"),
    Reason.AUDIENCE_MISMATCH: Diagnosis(
        "empty_audience",
        "its audience is empty: the client named no `resource`, or Authelia forgot it (4.39.21 and "
        "4.39.22 do)",
        f"the client has to send `resource`; where it cannot, requested_audience_mode: implicit "
        f"in {CLIENT}. Where it does: let it log in by the front door, or use Authelia 4.39.20",
    ),
}
DETAILS: Final[Mapping[str, Diagnosis]] = {
    "iss is not the configured issuer": Diagnosis(
        "other_issuer",
        "its issuer is not issuer.url",
        "write issuer.url in authz.yaml as the token says it, if it is your Authelia's",
    ),
    "no such key": Diagnosis(
        "unknown_kid",
        "its key is not, or no more, in the issuer's key set",
        "log in again; if that helps nothing, issuer.internal leads to another Authelia",
    ),
    "no key of that name and algorithm": Diagnosis(
        "unknown_kid",
        "no key of the issuer's fits its kid and alg",
        "log in again; if that helps nothing, issuer.internal leads to another Authelia",
    ),
    "alg is not allowed": Diagnosis(
        "algorithm",
        "its algorithm is none of issuer.algorithms",
        f"access_token_signed_response_alg in {CLIENT}, or issuer.algorithms in authz.yaml",
    ),
    "iat or nbf is in the future": Diagnosis(
        "from_the_future",
        "it was issued in the future: the clocks differ by more than issuer.leeway",
        "set both clocks by NTP",
    ),
    "exp is not within the maximum lifetime after iat": Diagnosis(
        "lives_too_long",
        "it lives longer than issuer.max_lifetime",
        "identity_providers.oidc.lifespans.access_token at Authelia, or issuer.max_lifetime",
    ),
    "the signature does not verify": Diagnosis(
        "signature",
        "its signature does not verify: it was altered, or signed by somebody else",
        "log in again; if that helps nothing, issuer.internal leads to another Authelia",
    ),
    "not active": Diagnosis(
        "inactive",
        "Authelia says that it is not active: expired, refreshed since, or revoked",
        "log in again",
    ),
}
