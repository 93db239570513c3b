"""The stand-in's configuration: its people, its clients, its lifetimes.

Names are Authelia's own where it has a word for a thing. Passwords and secrets are in the clear,
because nobody's are in here.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, TypeAdapter

Policy = Literal["one_factor", "two_factor"]
AuthMethod = Literal["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]
AudienceMode = Literal["explicit", "implicit"]
AccessTokenKind = Literal["opaque", "RS256", "ES256"]
# 4.39.21 stands for all that came after 4.39.20, up to the master of 2026-08-22.
Release = Literal["4.39.20", "4.39.21"]

# The scope that lets each standard claim out (OpenID Connect Core, section 5.4; Authelia adds
# `groups`).
CLAIM_SCOPES = {
    "email": "email",
    "groups": "groups",
    "name": "profile",
    "preferred_username": "profile",
}


@dataclass(frozen=True, slots=True)
class User:
    """Describe a person of the demonstration.

    Attributes:
        username, password: what is typed at the first factor.
        totp_secret: Base32, as an authenticator app is given it; None where the person has no
            second factor, so that no client with the policy `two_factor` can be reached.
        subject: the `sub` of all this person's tokens: a UUID, the same for every client.
        groups, email, display_name: what scopes and claims policies let out.
    """

    username: str
    password: str = field(repr=False)
    totp_secret: str | None = field(repr=False)
    subject: str
    groups: tuple[str, ...] = ()
    email: str = ""
    display_name: str = ""


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """Describe a client: Authelia has no registration, so this is the only way to be one.

    Attributes:
        client_id: its id.
        redirect_uris: compared exactly, but for the port of `127.0.0.1` and `[::1]`.
        scopes: what it may ask for.
        audience: the resources that it may ask for, and everything below their paths.
        requested_audience_mode: whether a request that names no resource gets none (`explicit`)
            or all of them (`implicit`).
        authorization_policy: what its people must have typed.
        grant_types: `authorization_code`, `refresh_token`, `client_credentials`.
        token_endpoint_auth_method: how it proves itself, at every endpoint.
        client_secret: in the clear; for the two methods that use one.
        public_key: PEM; for `private_key_jwt`.
        access_token: `opaque`, or the algorithm that signs a JWT.
        claims_policy: the claims that a JWT access token carries besides the standard ones, each
            only where its scope was granted.
        id_token_claims: the same for its ID tokens, repeated at every refresh.
        access_token_lifetime: seconds, where it has a lifespan of its own; 0 for everybody's.
        require_pkce: whether a code needs a challenge; public clients always do.
        require_pushed: whether authorization requests have to be pushed (RFC 9126).
    """

    client_id: str
    redirect_uris: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    audience: tuple[str, ...] = ()
    requested_audience_mode: AudienceMode = "explicit"
    authorization_policy: Policy = "two_factor"
    grant_types: tuple[str, ...] = ("authorization_code", "refresh_token")
    token_endpoint_auth_method: AuthMethod = "none"  # noqa: S105 - a method, not a secret
    client_secret: str = field(default="", repr=False)
    public_key: str = ""
    access_token: AccessTokenKind = "opaque"  # noqa: S105 - the kind of token, not one
    claims_policy: tuple[str, ...] = ()
    id_token_claims: tuple[str, ...] = ()
    access_token_lifetime: int = 0
    require_pkce: bool = True
    require_pushed: bool = False

    @property
    def public(self) -> bool:
        """Tell whether it has nothing to prove itself with."""
        return self.token_endpoint_auth_method == "none"  # noqa: S105 - a method


@dataclass(frozen=True, slots=True)
class CustomClaim:
    """Define a claim with one value for everybody, let out by a scope of its own."""

    name: str
    scope: str
    value: str


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Hold how long things live, in seconds, as in the recorded configuration."""

    access_token: int = 3600
    id_token: int = 3600
    refresh_token: int = 5400
    authorize_code: int = 60
    pushed_request: int = 300
    session: int = 3600


@dataclass(frozen=True, slots=True)
class StandInConfig:
    """Configure the stand-in.

    Attributes:
        issuer_url: `https://host[:port]`, with a path of one segment or none, below which all is
            then: what tokens say in `iss`. Requests whose forwarded headers name anything else are
            refused, as Authelia refuses them.
        users, clients: who there is.
        custom_claims: claims beyond the standard ones.
        lifetimes: how long things live.
        release: whose rules for `audience` and `resource` hold (`resources`).
        clock: seconds since the epoch; left out of the JSON form.
    """

    issuer_url: str
    users: tuple[User, ...] = ()
    clients: tuple[RegisteredClient, ...] = ()
    custom_claims: tuple[CustomClaim, ...] = ()
    lifetimes: Lifetimes = Lifetimes()
    release: Release = "4.39.20"
    clock: Annotated[Callable[[], float], Field(exclude=True)] = field(
        default=time.time, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        """Refuse an issuer that Authelia could not be."""
        parts = urlsplit(self.issuer_url)
        if parts.scheme != "https" or not parts.netloc or self.issuer_url != self.base:
            raise ValueError("issuer_url must be https://host[:port] or https://host[:port]/path")
        if self.path.count("/") > 1 or self.path.endswith("/"):
            raise ValueError("issuer_url has a path of more than one segment")

    @property
    def authority(self) -> str:
        """Return the host, and the port where there is one: what `X-Forwarded-Host` must say."""
        return urlsplit(self.issuer_url).netloc

    @property
    def domain(self) -> str:
        """Return the domain of the sessions: what is left of the host without its first label."""
        host = urlsplit(self.issuer_url).hostname or ""
        return host.partition(".")[2] or host

    @property
    def path(self) -> str:
        """Return the path that all its own begin with; empty where it has a name of its own."""
        return urlsplit(self.issuer_url).path

    @property
    def base(self) -> str:
        """Return what its URLs begin with, without a trailing slash: the issuer itself."""
        return f"https://{self.authority}{self.path}"

    def user(self, username: str) -> User | None:
        """Return the person of that name."""
        return next((user for user in self.users if user.username == username), None)

    def client(self, client_id: str) -> RegisteredClient | None:
        """Return the client of that id."""
        return next((client for client in self.clients if client.client_id == client_id), None)


@cache
def _adapter() -> TypeAdapter[StandInConfig]:
    return TypeAdapter(StandInConfig)


def to_json(config: StandInConfig) -> str:
    """Return the configuration as JSON for a child process; the clock is left out."""
    return _adapter().dump_json(config, indent=2).decode()


def from_json(text: str) -> StandInConfig:
    """Read what `to_json` wrote.

    Raises:
        pydantic.ValidationError: where a member is missing or of another type.
    """
    return _adapter().validate_json(text)
