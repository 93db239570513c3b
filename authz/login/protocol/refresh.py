"""Refresh tokens (RFC 6749, section 6): what one says, and whether it is still good.

A refresh token is Authelia's own, sealed with what it is for, and kept by the client. It says what
was consented to; whether that still holds is checked at every use.
"""

import hmac
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field

from authz.config.model import RefreshTokens
from authz.login.protocol.authorization_code import AuthorizationCode
from authz.login.protocol.issued import Issued
from authz.login.protocol.members import STRICT, MembersCodec, digest
from authz.login.protocol.resources import ResourceServer
from authz.login.protocol.values import ClientIdentity, OAuthClient, OAuthError

REFRESH_WORDS: Final = "the refresh token is not good, or not any more"
# Seconds: with less left of it, the newest access token is renewed before it is given again.
WORTH_GIVING: Final = 60


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """Hold what a refresh token of ours says.

    Attributes:
        issuer: of whose it is made.
        upstream: Authelia's own.
        grant_id: of its grant.
        client_digest: of the client's client_id.
        client: what rules call the client.
        subject: the person's `sub`.
        server, resource: the server's name and URL.
        scopes: what was consented to.
        two_factor: through which of our clients at Authelia.
        consented_at: seconds since the epoch.
        address: that Authelia is told (`person_address`), whatever the sealed token says.
        redirect_uri: where the log-in ended; empty in a token of before that was kept.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    issuer: str
    upstream: str = field(repr=False)
    grant_id: Annotated[str, Field(alias="grant")]
    client_digest: Annotated[str, Field(alias="client")]
    client: Annotated[str, Field(alias="name")]
    subject: str
    server: str
    resource: str
    scopes: tuple[str, ...]
    two_factor: bool
    consented_at: int
    address: str = ""
    redirect_uri: str = ""


@dataclass(frozen=True, slots=True)
class UpstreamToken:
    """Hold a token of Authelia's with what its revocation needs.

    Attributes:
        issuer: whose it is: a command ends grants of every issuer that this deployment has had.
        token: itself.
        two_factor: through which of our clients.
        address: that Authelia is told.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    issuer: str
    token: str = field(repr=False)
    two_factor: bool
    address: str


REFRESH_TOKEN: Final = MembersCodec(RefreshToken)
UPSTREAM_TOKEN: Final = MembersCodec(UpstreamToken)


def first_refresh_token(
    code: AuthorizationCode, client: ClientIdentity, issuer: str
) -> RefreshToken | None:
    """Return the refresh token that a code gives; None where Authelia gave none."""
    if not code.refresh_token:
        return None
    return RefreshToken(
        issuer=issuer,
        upstream=code.refresh_token,
        grant_id=code.grant_id,
        client_digest=code.client_digest,
        client=client.name,
        subject=code.subject,
        server=code.server,
        resource=code.resource,
        scopes=code.scopes,
        two_factor=code.two_factor,
        consented_at=code.consented_at,
        address=code.address,
        redirect_uri=client.redirect_uri,
    )


class RefreshDeniedError(OAuthError):
    """`invalid_grant`, with the cause for the log.

    Attributes:
        cause: fixed text, for the log.
    """

    def __init__(self, cause: str, description: str = REFRESH_WORDS) -> None:
        super().__init__("invalid_grant", description)
        self.cause = cause


def check_owner(token: RefreshToken, client_id: str) -> None:
    """Refuse a token of another client (RFC 6749, section 10.4).

    Raises:
        RefreshDeniedError: where it is.
    """
    if not hmac.compare_digest(digest(client_id), token.client_digest):
        raise RefreshDeniedError("of another client")


def check_server(token: RefreshToken, server: ResourceServer | None, mode: RefreshTokens) -> None:
    """Refuse a token that the configuration of now does not give any more.

    Raises:
        RefreshDeniedError: where it does not.
    """
    if server is None or not server.scopes.issuperset(token.scopes):
        raise RefreshDeniedError("the server has changed")
    # A step up in what the server asks for needs a new log-in, through the other client.
    if server.two_factor and not token.two_factor:
        raise RefreshDeniedError("the server wants a second factor now")
    if mode == "never":
        raise RefreshDeniedError("refresh tokens are not given any more")


def check_client(
    token: RefreshToken, client: OAuthClient, identity: ClientIdentity | None, *, blocked: bool
) -> ClientIdentity:
    """Return what a client is now; refuse one that may not have the token any more.

    Raises:
        RefreshDeniedError: where it may not.
    """
    if identity is None or identity.name != token.client:
        raise RefreshDeniedError("the client has another name")
    if blocked:
        raise RefreshDeniedError("blocked")
    if client.scopes is not None and not client.scopes.issuperset(token.scopes):
        raise RefreshDeniedError("the client may not have these scopes any more")
    return identity


def answer_stale(newest: Issued | None, network: str, now: float) -> Issued | str | None:
    """Judge a replaced refresh token (RFC 9700, section 4.14.2; decision 12).

    Args:
        newest: the newest tokens of its grant, if it was replaced lately.
        network: from which it comes.
        now: seconds since the epoch.

    Returns:
        the newest tokens; their refresh token, where that has to be refreshed first; None where
        somebody has a copy: replaced too long ago, or another network than the last refresh's.
    """
    if newest is None or newest.refresh_token is None or newest.network != network:
        return None
    return newest if newest.expires_at - now >= WORTH_GIVING else newest.refresh_token
