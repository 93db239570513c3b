"""Which scopes and resources a client may have a token for: Authelia's rules, with their traps.

With 4.39.20 a path prefix is enough, and what was asked for is granted verbatim: `…/files/../notes`
is granted to who may have `…/files`. Whoever reads an audience has to compare strings.
"""

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import SplitResult, unquote, urlsplit

from authz_demo.issuer.errors import ErrorCode, StandInOAuthError
from authz_demo.issuer.values import RegisteredClient, Release

Form = Mapping[str, Sequence[str]]


def split_spaces(text: str) -> tuple[str, ...]:
    """Return the words of a space-delimited list (RFC 6749, section 3.3)."""
    return tuple(word for word in text.split(" ") if word)


def _host(url: SplitResult) -> str:
    """Return host and port as written: case counts, a default port counts, user info does not."""
    return url.netloc.rpartition("@")[2]


def _covers(allowed: str, wanted: str) -> bool:
    have, want = urlsplit(allowed), urlsplit(wanted)
    if want.scheme != have.scheme or _host(want) != _host(have):
        return False
    base, path = unquote(have.path).rstrip("/"), unquote(want.path)
    return path in (unquote(have.path), base) or path.startswith(base + "/")


def require_covered(allowed: Iterable[str], wanted: Iterable[str]) -> None:
    """Refuse unless every wanted resource lies at or below an allowed one.

    Raises:
        StandInOAuthError: `invalid_target`.
    """
    allowed = tuple(allowed)
    for resource in wanted:
        try:
            covered = any(_covers(base, resource) for base in allowed)
        except ValueError as error:  # brackets that are no IPv6 address
            raise StandInOAuthError(ErrorCode.INVALID_TARGET) from error
        if not covered:
            raise StandInOAuthError(ErrorCode.INVALID_TARGET)


def named(form: Form, release: Release = "4.39.20") -> tuple[str, ...] | None:
    """Return the audience that a request names; None where it names none at all.

    4.39.20: `resource` (RFC 8707) or else `audience`; one value is split at its spaces, several
    are not. 4.39.21: `audience` alone; what `resource` names is granted, and forgotten.

    Raises:
        StandInOAuthError: `invalid_request` for both at once (4.39.20), `invalid_target` for a
            relative URL or one with a fragment.
    """
    if "resource" in form and not all(
        _absolute(resource) for resource in _values(form, "resource")
    ):
        raise StandInOAuthError(ErrorCode.INVALID_TARGET)
    if release != "4.39.20":
        return _values(form, "audience") if "audience" in form else None
    if "resource" in form and "audience" in form:
        raise StandInOAuthError(
            ErrorCode.INVALID_REQUEST,
            "The 'resource' parameter is only allowed when the 'audience' parameter is not also "
            "present.",
        )
    name = "resource" if "resource" in form else "audience"
    return _values(form, name) if name in form else None


def _values(form: Form, name: str) -> tuple[str, ...]:
    values = form[name]
    return split_spaces(values[0]) if len(values) == 1 else tuple(v for v in values if v)


def _absolute(resource: str) -> bool:
    try:
        url = urlsplit(resource)
    except ValueError:
        return False
    return bool(url.scheme) and not url.fragment


def audience(client: RegisteredClient, form: Form, release: Release = "4.39.20") -> tuple[str, ...]:
    """Return the audience that an authorization request is granted.

    Raises:
        StandInOAuthError: `invalid_target`, `invalid_request`.
    """
    wanted = named(form, release)
    if release == "4.39.20":
        require_covered(client.audience, wanted or ())
    else:
        _require_listed(client.audience, wanted or ())
        require_covered(client.audience, _values(form, "resource") if "resource" in form else ())
    if wanted is not None:
        return wanted
    implicit = client.requested_audience_mode == "implicit" and "resource" not in form
    return client.audience if implicit else ()


def machine_audience(
    client: RegisteredClient, form: Form, release: Release = "4.39.20"
) -> tuple[str, ...]:
    """Return the audience of a client's own token; there `resource` is not forgotten.

    Raises:
        StandInOAuthError: as `audience`.
    """
    granted = audience(client, form, release)
    if release == "4.39.20" or "resource" not in form:
        return granted
    return tuple(dict.fromkeys((*granted, *_values(form, "resource"))))


def narrowed(granted: tuple[str, ...], form: Form, release: Release = "4.39.20") -> tuple[str, ...]:
    """Return what a token request keeps of a granted audience.

    Raises:
        StandInOAuthError: `invalid_target` for what was not granted; for 4.39.21 that is every
            `resource`.
    """
    wanted = named(form, release)
    if release == "4.39.20":
        require_covered(granted, wanted or ())
    else:
        _require_listed(granted, wanted or ())
        require_covered((), _values(form, "resource") if "resource" in form else ())
    return wanted or granted


def _require_listed(allowed: Iterable[str], wanted: Iterable[str]) -> None:
    """Refuse unless every wanted audience is an allowed one, to the letter.

    Raises:
        StandInOAuthError: `invalid_target`.
    """
    if not set(wanted) <= set(allowed):
        raise StandInOAuthError(ErrorCode.INVALID_TARGET)


def require_scopes(client: RegisteredClient, scopes: tuple[str, ...]) -> None:
    """Refuse a scope that the client is not registered for.

    Raises:
        StandInOAuthError: `invalid_scope`.
    """
    for scope in scopes:
        if scope not in client.scopes:
            raise StandInOAuthError(
                ErrorCode.INVALID_SCOPE,
                f"The OAuth 2.0 Client is not allowed to request scope '{scope}'.",
            )
