"""Compact JWS (RFC 7515), read strictly before a library sees it.

Invariant: one token has one spelling and one meaning. What is not three canonical base64url
segments around two strict JSON objects, with a header that names an allowed algorithm and has no
member that steers the verifier, is refused before a signature is checked or a key is fetched.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from authz.core.detail import Detail
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.core.strict_json import StrictJsonError, loads
from authz.tokens import base64url

MAX_TOKEN: Final = 8192  # characters; checked before anything is decoded

_JWT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")
# RFC 6750, section 2.1, b64token without padding. Fewer than two dots: nothing that could be a
# JWS, a JWE or a cut one may pass for opaque, since opaque tokens are sent to the issuer.
_OPAQUE: Final = re.compile(r"(?!eyJ)[A-Za-z0-9_~+/-]+(?:\.[A-Za-z0-9_~+/-]+)?\Z")
_AUTHELIA: Final = "authelia_"
_AUTHELIA_ACCESS: Final = "authelia_at_"

# RFC 9068, section 4 names both spellings; media types have no letter case (RFC 2045, section 5.1).
_ACCESS_TOKEN_TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
_OTHER_TOKEN_TYPES: Final = frozenset({"jwt", "application/jwt"})
_ASSERTION_TYPES: Final = frozenset(
    {"client-authentication+jwt", "application/client-authentication+jwt"}
)
# Each of them changes how the rest is read, or says where to find a key (RFC 7515, section 4.1;
# RFC 7516; RFC 7797). None has a meaning here, so none may be there and be ignored.
_STEERING: Final = frozenset({"crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "enc"})
_IGNORED: Final = ("cty", "x5t", "x5t#S256")  # of no use here, but strings where they are
_KEY_ID: Final = re.compile(r"[\x21-\x7e]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Unverified:
    """A well-formed token whose signature is not verified yet.

    Attributes:
        algorithm: the header's `alg`, one of the allowed ones.
        key_id: the header's `kid`; None where it has none.
        signed: the signing input, header and payload as they were sent.
        claims: the payload.
    """

    algorithm: str
    key_id: str | None
    signed: bytes
    claims: Mapping[str, object]


def is_key_id(value: object) -> bool:
    """Tell whether a value may be a `kid`: 1 to 128 visible ASCII characters."""
    return isinstance(value, str) and _KEY_ID.match(value) is not None


def is_opaque(token: str) -> bool:
    """Tell an opaque access token from a JWT by its shape; nothing is decoded.

    Raises:
        RefusedError: TOKEN_WRONG_KIND for what Authelia marks as something else (refresh tokens,
            codes), TOKEN_INVALID for what is neither shape or longer than 8 KiB.
    """
    if len(token) > MAX_TOKEN:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.LONG_TOKEN)
    if token.startswith(_AUTHELIA) and not token.startswith(_AUTHELIA_ACCESS):
        raise RefusedError(Reason.TOKEN_WRONG_KIND, Detail.NO_ACCESS_TOKEN)
    if _OPAQUE.match(token) is not None:
        return True
    if _JWT.match(token) is None:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.NEITHER_JWS_NOR_OPAQUE)
    return False


def read_jws(token: str, algorithms: frozenset[str]) -> Unverified:
    """Read a compact JWS (RFC 7515, section 7.1) that must be an access token (RFC 9068).

    Raises:
        RefusedError: TOKEN_WRONG_KIND for an ID token, TOKEN_INVALID for all else.
    """
    return _read(token, algorithms, _check_type)


def read_id_token(token: str, algorithms: frozenset[str]) -> Unverified:
    """Read a compact JWS that must be an ID token: `typ` is JWT or absent (RFC 7519, section 5.1).

    Raises:
        RefusedError: TOKEN_INVALID; for an access token too.
    """
    return _read(token, algorithms, _check_id_token_type)


def read_client_assertion(token: str, algorithms: frozenset[str]) -> Unverified:
    """Read a compact JWS by which a client authenticates (RFC 7523, section 3).

    Its `typ` is absent, JWT, or the explicit one of draft-ietf-oauth-rfc7523bis. An access token is
    none, whoever signed it.

    Raises:
        RefusedError: TOKEN_INVALID.
    """
    return _read(token, algorithms, _check_assertion_type)


def _read(
    token: str, algorithms: frozenset[str], check_type: Callable[[Mapping[str, object]], None]
) -> Unverified:
    if len(token) > MAX_TOKEN or _JWT.match(token) is None:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.NOT_THREE_SEGMENTS)
    signed, _, signature = token.rpartition(".")
    first, _, second = signed.partition(".")
    header = _json_object(_octets(first))
    _check_members(header)
    algorithm = _algorithm(header, algorithms)
    check_type(header)
    key_id = _key_id(header)
    _octets(signature)
    return Unverified(algorithm, key_id, signed.encode("ascii"), _json_object(_octets(second)))


def _octets(segment: str) -> bytes:
    try:
        return base64url.decode(segment)
    except ValueError as error:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.SEGMENT_NOT_BASE64URL) from error


def _json_object(data: bytes) -> Mapping[str, object]:
    try:
        document = loads(data)
    except StrictJsonError as error:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.SEGMENT_NOT_JSON) from error
    if not isinstance(document, dict):
        raise RefusedError(Reason.TOKEN_INVALID, Detail.SEGMENT_NOT_AN_OBJECT)
    return document


def _check_members(header: Mapping[str, object]) -> None:
    if not _STEERING.isdisjoint(header):
        raise RefusedError(Reason.TOKEN_INVALID, Detail.HEADER_STEERS)
    if not all(isinstance(header.get(name, ""), str) for name in _IGNORED):
        raise RefusedError(Reason.TOKEN_INVALID, Detail.HEADER_NOT_A_STRING)


def _algorithm(header: Mapping[str, object], allowed: frozenset[str]) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in allowed:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.ALGORITHM)
    return algorithm


def _check_type(header: Mapping[str, object]) -> None:
    kind = header.get("typ")
    name = kind.lower() if isinstance(kind, str) else ""
    if name in _OTHER_TOKEN_TYPES:
        raise RefusedError(Reason.TOKEN_WRONG_KIND, Detail.TYP_ID_TOKEN)
    if name not in _ACCESS_TOKEN_TYPES:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.TYP_NOT_AT_JWT)


def _check_id_token_type(header: Mapping[str, object]) -> None:
    kind = header.get("typ", "JWT")
    name = kind.lower() if isinstance(kind, str) else ""
    if name not in _OTHER_TOKEN_TYPES:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.TYP_NOT_JWT)


def _check_assertion_type(header: Mapping[str, object]) -> None:
    kind = header.get("typ", "JWT")
    name = kind.lower() if isinstance(kind, str) else ""
    if name not in _OTHER_TOKEN_TYPES | _ASSERTION_TYPES:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.TYP_NOT_ASSERTION)


def _key_id(header: Mapping[str, object]) -> str | None:
    if "kid" not in header:
        return None
    key_id = header["kid"]
    if not isinstance(key_id, str) or not is_key_id(key_id):
        raise RefusedError(Reason.TOKEN_INVALID, Detail.KID_MALFORMED)
    return key_id
