"""Claims of a verified access token to a principal (RFC 9068, section 2.2).

Invariant: a claim has the one type that the RFC gives it, or the token is refused; nothing is
converted, trimmed or guessed. An absent claim grants nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeGuard

from authz.core.detail import Detail
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import RefusedError

_MAX_TEXT: Final = 256
_MAX_AUDIENCE: Final = 1024
_MAX_AUDIENCES: Final = 32
_MAX_VALUES: Final = 256  # of scopes, groups or methods: what is cached stays small
_MAX_INTEGER: Final = 1 << 53  # beyond it JSON numbers are not exact everywhere (RFC 8259, 6)
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}\Z")  # RFC 6749, section 3.3
_NOT_SECONDS: Final = {
    "iat": Detail.IAT_MALFORMED,
    "exp": Detail.EXP_MALFORMED,
    "nbf": Detail.NBF_MALFORMED,
    "auth_time": Detail.AUTH_TIME_MALFORMED,
}
_NOT_A_LIST: Final = {
    "scp": Detail.SCP_NOT_A_LIST,
    "groups": Detail.GROUPS_NOT_A_LIST,
    "amr": Detail.AMR_NOT_A_LIST,
}
_MALFORMED_ENTRY: Final = {
    "groups": Detail.GROUPS_ENTRY_MALFORMED,
    "amr": Detail.AMR_ENTRY_MALFORMED,
}

Claims = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """State what the claims of every token must keep to.

    Attributes:
        issuer: what `iss` must be, character by character.
        leeway: seconds that the issuer's clock may be ahead of ours (`iat` and `nbf`; `exp` has
            none, so that nothing outlives what the issuer said).
        max_lifetime: the longest time in seconds between `iat` and `exp`.
        assurance_claim: the name of the claim that says what the issuer guarantees of a client's
            logins (`issuer.assurance_claim`); None where none is looked at.
        counted: the names of the claims that limits count by.
    """

    issuer: str
    leeway: int
    max_lifetime: int
    assurance_claim: str | None = None
    counted: tuple[str, ...] = ()


class _Times(NamedTuple):
    issued_at: int
    expires_at: int
    auth_time: int | None


def check_issuer(claims: Claims, issuer: str) -> None:
    """Refuse a token of another issuer (RFC 9068, section 4): equal as strings, nothing less.

    Raises:
        RefusedError: TOKEN_INVALID.
    """
    if claims.get("iss") != issuer:
        raise RefusedError(Reason.TOKEN_INVALID, Detail.ISSUER)


def read_principal(
    claims: Claims, rules: ClaimRules, now: float, *, token_id: str, key_id: str
) -> Principal:
    """Return the principal of claims whose signature has been verified; call it only after that.

    Raises:
        RefusedError: TOKEN_INVALID where a claim is missing or not as it must be; for a token with
            nothing else wrong TOKEN_EXPIRED, or AUDIENCE_MISMATCH where it is for nobody.
    """
    check_issuer(claims, rules.issuer)
    times = _times(claims, rules, now)
    client_id = _client_id(claims)
    _check_token_name(claims)
    principal = Principal(
        issuer=rules.issuer,
        subject=_subject(claims, client_id),
        client_id=client_id,
        scopes=_scopes(claims),
        audience=_audience(claims),
        groups=_texts(claims, "groups") or frozenset(),
        amr=_texts(claims, "amr"),
        auth_time=times.auth_time,
        issued_at=times.issued_at,
        expires_at=times.expires_at,
        token_id=token_id,
        key_id=key_id,
        assurance_claim=_assurance_claim(claims, rules.assurance_claim),
        claims=_counted_claims(claims, rules.counted),
    )
    if times.expires_at <= now:
        raise RefusedError(Reason.TOKEN_EXPIRED)
    if not principal.audience:
        # Authelia's answer to a client that named no resource: a good log-in, made for no server.
        raise RefusedError(Reason.AUDIENCE_MISMATCH, Detail.EMPTY_AUDIENCE)
    return principal


def _invalid(detail: Detail) -> RefusedError:
    return RefusedError(Reason.TOKEN_INVALID, detail)


def _times(claims: Claims, rules: ClaimRules, now: float) -> _Times:
    issued_at = _integer(claims, "iat")
    expires_at = _integer(claims, "exp")
    if not 0 < expires_at - issued_at <= rules.max_lifetime:
        raise _invalid(Detail.LIFETIME)
    not_before = _integer(claims, "nbf") if "nbf" in claims else issued_at
    if max(issued_at, not_before) > now + rules.leeway:
        raise _invalid(Detail.FROM_THE_FUTURE)
    auth_time = _integer(claims, "auth_time") if "auth_time" in claims else None
    return _Times(issued_at, expires_at, auth_time)


def _integer(claims: Claims, name: str) -> int:
    value = claims.get(name)
    if not is_seconds(value):
        raise _invalid(_NOT_SECONDS[name])
    return value


def is_seconds(value: object) -> TypeGuard[int]:
    """Tell whether a value is a NumericDate in whole seconds (RFC 7519, section 2)."""
    # bool is an int in Python: `true` would be the first second of 1970.
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_INTEGER


def is_text(value: object, longest: int = _MAX_TEXT) -> TypeGuard[str]:
    """Tell whether a value is text that can be shown, logged and put into a header safely.

    Printable leaves out controls, lone surrogates, line and paragraph separators and direction
    marks. Blanks around it would be lost in a header, and then two people have one name.
    """
    return (
        isinstance(value, str)
        and 0 < len(value) <= longest
        and value.isprintable()
        and value == value.strip()
    )


def _client_id(claims: Claims) -> str:
    value = claims.get("client_id")
    # RFC 6749, appendix A.1: visible ASCII and blanks, so no look-alike letters.
    if not is_text(value) or not value.isascii():
        raise _invalid(Detail.CLIENT_ID_MALFORMED)
    return value


def _check_token_name(claims: Claims) -> None:
    """Refuse a `jti` that is no text. It is not used: a token is named by its own digest."""
    if "jti" in claims and not is_text(claims["jti"]):
        raise _invalid(Detail.JTI_MALFORMED)


def _assurance_claim(claims: Claims, name: str | None) -> str | None:
    """Return the value of the assurance claim, whatever it means."""
    if name is None or name not in claims:
        return None
    value = claims[name]
    if not is_text(value):
        raise _invalid(Detail.ASSURANCE_MALFORMED)
    return value


def _counted_claims(claims: Claims, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the claims that limits count by, of each kind of value in another spelling.

    Whatever else such a claim is, it counts as absent: it permits nothing, so the token is good.
    """
    found = ((name, _counted(claims.get(name))) for name in names)
    return tuple((name, value) for name, value in found if value is not None)


def _counted(value: object) -> str | None:
    if is_text(value):
        return f'"{value}'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) < _MAX_INTEGER:
        return str(value)
    return None


def _subject(claims: Claims, client_id: str) -> str | None:
    """Return the subject; None where the client acts for itself.

    Authelia leaves `sub` out then. RFC 9068, section 2.2 has issuers name the client in it: that
    must not become a person either, or a client's declared second factor would vouch for it.
    """
    if "sub" not in claims:
        return None
    value = claims["sub"]
    if not is_text(value):
        raise _invalid(Detail.SUB_MALFORMED)
    return None if value == client_id else value


def _audience(claims: Claims) -> tuple[str, ...]:
    value = claims.get("aud")
    entries = [value] if isinstance(value, str) else value  # RFC 7519, section 4.1.3
    if not isinstance(entries, list) or len(entries) > _MAX_AUDIENCES:
        raise _invalid(Detail.AUD_NOT_A_LIST)
    if not all(is_text(entry, _MAX_AUDIENCE) for entry in entries):
        raise _invalid(Detail.AUD_ENTRY_MALFORMED)
    return tuple(entries)


def _scopes(claims: Claims) -> frozenset[str]:
    """Return the scopes of `scp` (a list: Authelia) or `scope` (a string: RFC 9068)."""
    listed = _list(claims, "scp")
    if "scope" not in claims:
        return _scope_set(listed or [])
    text = claims["scope"]
    if not isinstance(text, str):
        raise _invalid(Detail.SCOPE_NOT_A_STRING)
    spelled = _scope_set(text.split(" ") if text else [])
    if listed is not None and _scope_set(listed) != spelled:
        raise _invalid(Detail.SCOPES_DISAGREE)
    return spelled


def _scope_set(values: Sequence[object]) -> frozenset[str]:
    scopes = [value for value in values if isinstance(value, str) and _SCOPE.match(value)]
    if len(scopes) != len(values) or len(values) > _MAX_VALUES:
        raise _invalid(Detail.SCOPE_MALFORMED)
    return frozenset(scopes)


def _texts(claims: Claims, name: str) -> frozenset[str] | None:
    values = _list(claims, name)
    if values is None:
        return None
    texts = [value for value in values if is_text(value)]
    if len(texts) != len(values):
        raise _invalid(_MALFORMED_ENTRY[name])
    return frozenset(texts)


def _list(claims: Claims, name: str) -> list[object] | None:
    # Go writes a list that was never made as null: absent, as with an empty one.
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > _MAX_VALUES:
        raise _invalid(_NOT_A_LIST[name])
    return value
