"""Our refresh tokens: Authelia's own, sealed with what it is for, and kept by the client.

Law: what does not open is no refresh token, whoever sends it, and never reaches Authelia, nor
another issuer than it came from; what opens still says only what was consented to, not that it is
still so.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from authz.login.service.person_address import person_address
from authz.login.store.revocation_outbox import seal_upstream
from authz.tokens.sealing import NotSealedError, Sealer

_PURPOSE: Final = "refresh-token"


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """Hold what a refresh token of ours says.

    Attributes:
        issuer: of whose it is made.
        upstream: Authelia's own.
        grant: whose it is.
        client: the digest of the client's client_id.
        name: what rules count the client by.
        subject: the person's `sub`.
        server, resource: the server's name and URL.
        scopes: what was consented to.
        two_factor: through which of our clients.
        consented_at: seconds since the epoch.
        redirect_uri: where the log-in ended; empty in a token of before that was kept.
        address: that Authelia is told (`person_address`), whatever the sealed token says.
    """

    issuer: str
    upstream: str = field(repr=False)
    grant: str
    client: str
    name: str
    subject: str
    server: str
    resource: str
    scopes: tuple[str, ...]
    two_factor: bool
    consented_at: int
    address: str
    redirect_uri: str = ""


def seal_refresh(sealer: Sealer, token: RefreshToken, lifetime: float) -> str:
    """Return it as the client keeps it."""
    return sealer.seal(_PURPOSE, asdict(token), lifetime)


def sealed_upstream(sealer: Sealer, token: RefreshToken, lifetime: float) -> str:
    """Return the issuer's token as its grant keeps it; empty where there is none."""
    if not token.upstream:
        return ""
    return seal_upstream(
        sealer,
        token.upstream,
        lifetime,
        issuer=token.issuer,
        two_factor=token.two_factor,
        address=token.address,
    )


def open_refresh(sealer: Sealer, text: str, issuer: str) -> RefreshToken:
    """Return what a client sent.

    Raises:
        NotSealedError: where it is none of ours, too old, or of an issuer that was ours before.
    """
    value: Mapping[str, Any] = sealer.open(_PURPOSE, text)
    try:
        address = person_address(sealer, value["subject"])
        changes = {"scopes": tuple(value["scopes"]), "address": address}
        token = RefreshToken(**{**value, **changes})
    except (KeyError, TypeError) as error:
        raise NotSealedError from error
    if token.issuer != issuer:
        raise NotSealedError
    return token
