"""Authorization codes (RFC 6749, section 4.1.2): what one stands for, before and after its use."""

import hmac
import re
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field

from authz.login.protocol.members import STRICT, MembersCodec, digest
from authz.login.protocol.parameters import Parameters
from authz.login.protocol.pkce import s256_challenge
from authz.login.protocol.values import LoginIdentity, OAuthError

CODE_WORDS: Final = "the code is not good, or not any more"
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636, section 4.1


@dataclass(frozen=True, slots=True)
class UsedCode:
    """Hold what is remembered of a code after its use.

    Attributes:
        grant_id: of the grant that it began.
        subject: the person's `sub`.
        two_factor: through which of our clients at Authelia.
        upstream_token: Authelia's refresh token, or its access token where there is none.
        address: that Authelia is told (`person_address`).
        client: what rules call the client.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    grant_id: Annotated[str, Field(alias="grant")]
    subject: str
    two_factor: bool
    upstream_token: Annotated[str, Field(alias="token")] = field(repr=False)
    address: str
    client: Annotated[str, Field(alias="name")]


@dataclass(frozen=True, slots=True)
class AuthorizationCode:
    """Hold what a code stands for, at its first use.

    Attributes:
        grant_id, subject, two_factor, upstream_token, address, client: as `UsedCode` has them.
        client_digest: of the client's client_id.
        redirect_uri, code_challenge: of the authorization request.
        server, resource: the server's name and URL.
        scopes: what the person consented to and Authelia granted, sorted.
        access_token, refresh_token: Authelia's own; the second may be missing.
        expires_at: of the access token, seconds since the epoch.
        account, amr, auth_time: of the ID token.
        consented_at: seconds since the epoch.
        restricted: whether the client asked for more than it got.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    grant_id: Annotated[str, Field(alias="grant")]
    subject: str
    two_factor: bool
    upstream_token: Annotated[str, Field(alias="token")] = field(repr=False)
    address: str
    client: Annotated[str, Field(alias="name")]
    client_digest: Annotated[str, Field(alias="client")]
    redirect_uri: str
    code_challenge: Annotated[str, Field(alias="challenge")]
    server: str
    resource: str
    scopes: tuple[str, ...]
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: int
    account: str
    amr: tuple[str, ...]
    auth_time: int
    consented_at: Annotated[int, Field(alias="at")]
    restricted: bool = False

    @property
    def used(self) -> UsedCode:
        """Return what is remembered after its use."""
        return UsedCode(
            self.grant_id,
            self.subject,
            self.two_factor,
            self.upstream_token,
            self.address,
            self.client,
        )

    @property
    def identity(self) -> LoginIdentity:
        """Return who logged in."""
        return LoginIdentity(self.subject, frozenset(self.amr), self.auth_time, self.account)


AUTHORIZATION_CODE: Final = MembersCodec(AuthorizationCode)
USED_CODE: Final = MembersCodec(UsedCode)


def check_code(code: AuthorizationCode, client_id: str, parameters: Parameters) -> None:
    """Refuse whoever is not the client that the code was made for, in this very transaction.

    Raises:
        OAuthError: with the same description whatever is wrong.
    """
    verifier = parameters.get("code_verifier") or ""
    # OAuth 2.1, section 4.1.3, has no redirect_uri here, since PKCE binds the code: where it is
    # sent it has to be the same (RFC 6749, section 4.1.3).
    redirect_uri = parameters.get("redirect_uri")
    good = (
        hmac.compare_digest(digest(client_id), code.client_digest)
        and _VERIFIER.fullmatch(verifier) is not None
        and hmac.compare_digest(s256_challenge(verifier), code.code_challenge)
        and redirect_uri in (None, code.redirect_uri)
    )
    if not good:
        raise OAuthError("invalid_grant", CODE_WORDS)
    check_resources(parameters, code.resource)


def check_resources(parameters: Parameters, resource: str) -> None:
    """Refuse another resource than the consented one (RFC 8707, section 2.2).

    Raises:
        OAuthError: `invalid_target`.
    """
    if not set(parameters.resources) <= {resource, f"{resource}/"}:
        raise OAuthError("invalid_target", "resource is not what the person consented to")
