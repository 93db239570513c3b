"""Which scopes and resources a client may have a token for: Authelia's rules, with their traps.

Law: a path prefix is enough, and what was asked for is granted verbatim: `…/files/../notes` is
granted to who may have `…/files`. Whoever reads an audience has to compare strings.
"""

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import SplitResult, unquote, urlsplit

from authz.demo.issuer.errors import Error, OAuthError
from authz.demo.issuer.values import RegisteredClient

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
        OAuthError: `invalid_target`.
    """
    allowed = tuple(allowed)
    for resource in wanted:
        try:
            covered = any(_covers(base, resource) for base in allowed)
        except ValueError as error:  # brackets that are no IPv6 address
            raise OAuthError(Error.INVALID_TARGET) from error
        if not covered:
            raise OAuthError(Error.INVALID_TARGET)


def named(form: Form) -> tuple[str, ...] | None:
    """Return the resources that a request names; None where it names none at all.

    `resource` (RFC 8707) or else `audience`; one value is split at its spaces, several are not.

    Raises:
        OAuthError: `invalid_request` for both at once, `invalid_target` for a relative URL or one
            with a fragment.
    """
    if "resource" in form and "audience" in form:
        raise OAuthError(
            Error.INVALID_REQUEST,
            "The 'resource' parameter is only allowed when the 'audience' parameter is not also "
            "present.",
        )
    values = form.get("resource", form.get("audience"))
    if values is None:
        return None
    wanted = split_spaces(values[0]) if len(values) == 1 else tuple(v for v in values if v)
    if "resource" in form and not all(_absolute(resource) for resource in wanted):
        raise OAuthError(Error.INVALID_TARGET)
    return wanted


def _absolute(resource: str) -> bool:
    try:
        url = urlsplit(resource)
    except ValueError:
        return False
    return bool(url.scheme) and not url.fragment


def audience(client: RegisteredClient, form: Form) -> tuple[str, ...]:
    """Return the audience that a request is granted.

    Raises:
        OAuthError: `invalid_target`, `invalid_request`.
    """
    wanted = named(form)
    if wanted is None:
        return client.audience if client.requested_audience_mode == "implicit" else ()
    require_covered(client.audience, wanted)
    return wanted


def require_scopes(client: RegisteredClient, scopes: tuple[str, ...]) -> None:
    """Refuse a scope that the client is not registered for.

    Raises:
        OAuthError: `invalid_scope`.
    """
    for scope in scopes:
        if scope not in client.scopes:
            raise OAuthError(
                Error.INVALID_SCOPE,
                f"The OAuth 2.0 Client is not allowed to request scope '{scope}'.",
            )
