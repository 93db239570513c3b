"""Authorization requests (RFC 6749, section 4.1.1), and the responses to them (RFC 9207)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final
from urllib.parse import quote, urlencode

from pydantic import ConfigDict, Field

from authz.config.model import RefreshTokens
from authz.login.protocol.authorization_code import AuthorizationCode
from authz.login.protocol.members import STRICT, MembersCodec, digest
from authz.login.protocol.parameters import Parameters
from authz.login.protocol.resources import ResourceServer, ResourceServers, read_scopes
from authz.login.protocol.values import (
    ClientIdentity,
    OAuthClient,
    OAuthError,
    UpstreamLogin,
)

OFFLINE: Final = "offline_access"
LONGEST_STATE: Final = 1024
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")
# The base64url of a SHA-256 (RFC 7636, section 4.2): nothing else is S256.
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
# What would bring parameters from elsewhere (RFC 9101), or the answer in another way.
_UNSUPPORTED: Final = (
    ("request", "request_not_supported", "request objects are not supported"),
    ("request_uri", "request_uri_not_supported", "request_uri is not supported"),
    ("registration", "registration_not_supported", "registration is not supported here"),
)


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """Hold a checked authorization request.

    Attributes:
        client_id: of the client.
        redirect_uri: where the answer goes, one of the client's.
        state: of the client; None where it sent none.
        challenge: of PKCE, S256.
        server, resource: the server's name and URL.
        scopes: to consent to, sorted.
        two_factor: whether the log-in has to have a second factor.
        name: what the client was called on the page (`ClientIdentity.name`).
        restricted: whether the client asked for anything that is not among the scopes; then it is
            told what it has, also where that is nothing (RFC 6749, section 5.1).
        offline: whether it gets a refresh token, for which Authelia asks the person once more.
        optional: those of the scopes that the page lets the person leave out, sorted; empty once
            that is decided.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    client_id: str
    redirect_uri: str
    state: str | None
    challenge: str
    server: str
    resource: str
    scopes: tuple[str, ...]
    two_factor: bool
    name: str = ""
    restricted: bool = False
    offline: bool = True
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Consent:
    """An authorization request that the person agreed to, while the log-in is pending.

    Attributes:
        request: what was agreed to.
        grant_id: of the grant that is to begin.
        consented_at: seconds since the epoch.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    request: Annotated[AuthorizationRequest, Field(alias="wish")]
    grant_id: Annotated[str, Field(alias="grant")]
    consented_at: Annotated[int, Field(alias="at")]


# The first for a sealed form, both for a cookie of 4 KiB.
AUTHORIZATION_REQUEST: Final = MembersCodec(AuthorizationRequest)
CONSENT: Final = MembersCodec(Consent)


@dataclass(frozen=True, slots=True)
class AuthorizationResponse:
    """Say where a client hears of the end of its request.

    Attributes:
        redirect_uri, state: the client's.
        issuer: ours.
    """

    redirect_uri: str
    state: str | None
    issuer: str

    def code(self, code: str) -> str:
        """Return the URL that brings a code (RFC 6749, section 4.1.2)."""
        return self._url({"code": code})

    def error(self, error: str, description: str) -> str:
        """Return the URL that brings an error (RFC 6749, section 4.1.2.1)."""
        return self._url({"error": error, "error_description": description})

    def _url(self, members: Mapping[str, str]) -> str:
        state = {} if self.state is None else {"state": self.state}
        # RFC 6749, appendix B, would have a blank be `+`, which many clients show as it stands;
        # `%20` every parser reads as a blank.
        query = urlencode({**members, **state, "iss": self.issuer}, safe="", quote_via=quote)
        # The URI stays as it was registered, a query in it too; it has no fragment.
        return self.redirect_uri + ("&" if "?" in self.redirect_uri else "?") + query


class RedirectedOAuthError(Exception):
    """Carry an error to the client, by way of the browser."""

    def __init__(self, answer: AuthorizationResponse, error: str, description: str) -> None:
        """Keep the answer, and what the log says of it."""
        super().__init__(error)
        self.error = error
        self.url = answer.error(error, description)


def state_of(parameters: Parameters) -> str | None:
    """Return the client's state; None also for one that cannot be given back."""
    state = parameters.get("state")
    if state is None or len(state) > LONGEST_STATE or _PRINTABLE.fullmatch(state) is None:
        return None
    return state


def read_request(
    parameters: Parameters, client: OAuthClient, identity: ClientIdentity, targets: ResourceServers
) -> AuthorizationRequest:
    """Return what is asked for, of a client and redirect URI that are known to be good.

    Raises:
        OAuthError: for the client to hear.
    """
    parameters.check_repeated()
    if parameters.get("state") is not None and state_of(parameters) is None:
        raise OAuthError("invalid_request", "state is too long, or not printable ASCII")
    for name, error, description in _UNSUPPORTED:
        if parameters.get(name) is not None:
            raise OAuthError(error, description)
    response_type = parameters.needed("response_type")
    if response_type != "code":
        raise OAuthError("unsupported_response_type", "response_type has to be code")
    if parameters.get("response_mode") not in (None, "query"):
        raise OAuthError("invalid_request", "response_mode has to be query")
    _check_challenge(parameters)
    # The person is always asked; nothing is silent (OpenID Connect Core, section 3.1.2.6).
    if "none" in (parameters.get("prompt") or "").split(" "):
        raise OAuthError("interaction_required", "a person has to be asked")
    target = targets.find(parameters.resources)
    asked = read_scopes(parameters.get("scope"))
    scopes = target.grantable(asked, client, identity.name)
    return AuthorizationRequest(
        client_id=client.client_id,
        redirect_uri=identity.redirect_uri,
        state=state_of(parameters),
        challenge=parameters.needed("code_challenge"),
        server=target.name,
        resource=target.resource,
        scopes=tuple(sorted(scopes)),
        two_factor=target.two_factor,
        name=identity.name,
        restricted=not asked <= scopes,
        optional=tuple(sorted(target.optional(scopes))),
    )


def revalidate(
    request: AuthorizationRequest,
    client: OAuthClient,
    identity: ClientIdentity,
    targets: ResourceServers,
) -> AuthorizationRequest:
    """Return a request by the rules of now: they may have changed while the page was open.

    Raises:
        OAuthError: where it cannot be granted any more.
    """
    check_same_client(request, identity)
    target = targets.named(request.server, request.resource)
    if target is None:
        raise OAuthError("invalid_target", "there is no such server any more")
    scopes = target.grantable(request.scopes, client, identity.name)
    if scopes != frozenset(request.scopes):
        raise OAuthError(
            "invalid_scope",
            f"what the client {identity.name} may have at the server {target.name} has changed "
            f"meanwhile ({' '.join(sorted(scopes.symmetric_difference(request.scopes)))}); connect "
            "again",
            server=target.name,
            scopes=scopes.symmetric_difference(request.scopes),
        )
    return replace(request, two_factor=target.two_factor)


def leave_out(
    request: AuthorizationRequest, unwanted: frozenset[str], target: ResourceServer
) -> AuthorizationRequest:
    """Return a request without the scopes that the person has left out on the page.

    Its client is told the scopes of its token (RFC 6749, sections 3.3 and 5.1).

    Args:
        request: by the rules of now (`revalidate`).
        unwanted: what the person has left out; what the page had no box for stays.
        target: the server of the request, by the rules of now.

    Raises:
        OAuthError: where the server has come to need what was left out.
    """
    scopes = frozenset(request.scopes)
    gone = unwanted.intersection(request.optional)
    needed = gone - target.optional(scopes)
    if needed:
        raise OAuthError(
            "invalid_scope",
            f"what the server {target.name} needs has changed meanwhile "
            f"({' '.join(sorted(needed))}); connect again",
            server=target.name,
            scopes=needed,
        )
    return replace(
        request,
        scopes=tuple(sorted(scopes - gone)),
        restricted=request.restricted or bool(gone),
        optional=(),
    )


def check_same_client(request: AuthorizationRequest, identity: ClientIdentity) -> None:
    """Refuse a client that is not what the page said of it: its document may have changed.

    Raises:
        OAuthError: for the client to hear.
    """
    if identity.name != request.name:
        raise OAuthError(
            "access_denied", "what the page said of the client has changed meanwhile; connect again"
        )


def issues_refresh_token(mode: RefreshTokens, client: OAuthClient, scope: str | None) -> bool:
    """Tell whether a log-in gives a refresh token.

    Args:
        mode: `front_door.refresh_tokens`.
        client: whose log-in it is.
        scope: of the request.
    """
    if mode == "never" or not client.refreshes:
        return False
    return mode == "unless_declined" or OFFLINE in read_scopes(scope)


def _check_challenge(parameters: Parameters) -> None:
    # RFC 9700, section 2.1.1; absent, the method would be `plain` (RFC 7636, section 4.3).
    if parameters.get("code_challenge_method") != "S256":
        raise OAuthError("invalid_request", "code_challenge_method has to be S256")
    if _CHALLENGE.fullmatch(parameters.needed("code_challenge")) is None:
        raise OAuthError("invalid_request", "code_challenge is no S256 challenge")


def authorization_code(
    consent: Consent, client: ClientIdentity, login: UpstreamLogin, address: str
) -> AuthorizationCode:
    """Return what our code stands for once Authelia has logged the person in.

    Args:
        consent: what the person consented to.
        client: what the client is now.
        login: what Authelia gave.
        address: that Authelia is told for this person.
    """
    request, tokens, who = consent.request, login.tokens, login.identity
    return AuthorizationCode(
        grant_id=consent.grant_id,
        subject=who.subject,
        two_factor=request.two_factor,
        upstream_token=tokens.refresh_token or tokens.access_token,
        address=address,
        client=client.name,
        client_digest=digest(request.client_id),
        redirect_uri=request.redirect_uri,
        code_challenge=request.challenge,
        server=request.server,
        resource=request.resource,
        # What Authelia did not grant is not promised (RFC 6749, section 3.3).
        scopes=tuple(sorted(tokens.scopes.intersection(request.scopes))),
        restricted=request.restricted,
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token,
        expires_at=tokens.expires_at,
        account=who.account,
        amr=tuple(sorted(who.amr)),
        auth_time=who.auth_time,
        consented_at=consent.consented_at,
    )
