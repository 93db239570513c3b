"""Values of the front door and the step-up, and the errors that end one.

Constructors check nothing: what a client or Authelia said is checked before it is put in one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final


class ClientKind(Enum):
    """Name how a client came to be known."""

    CONFIGURED = "configured"  # named under `clients` in authz.yaml
    DOCUMENT = "document"  # its client_id is the URL of its metadata document
    DYNAMIC = "dynamic"  # its client_id is its own signed registration (RFC 7591)


@dataclass(frozen=True, slots=True)
class KeyAuthentication:
    """Say by which keys a client authenticates (`private_key_jwt`, RFC 7523).

    Attributes:
        jwks: its key set, as JSON; empty where it is at a URL.
        jwks_uri: that URL; empty where the set is here.
        algorithms: what its assertions may be signed with.
    """

    jwks: str
    jwks_uri: str
    algorithms: frozenset[str]


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """Describe an MCP client as the front door knows it.

    Attributes:
        client_id: as it names itself.
        kind: how it came to be known.
        client_name: what it calls itself (RFC 7591), for people: printable, at most 100 characters;
            never believed.
        document_host: the host of its metadata document; empty where it has none.
        redirect_uris: where its log-ins may end.
        scopes: what it may ask for at most; None where that is not narrowed.
        authentication: how it has to authenticate; None for a public client.
        refreshes: whether it can use a refresh token: not where its metadata says otherwise.
    """

    client_id: str
    kind: ClientKind
    client_name: str
    document_host: str
    redirect_uris: tuple[str, ...]
    scopes: frozenset[str] | None = None
    authentication: KeyAuthentication | None = None
    refreshes: bool = True

    def allowed(self, scopes: frozenset[str]) -> frozenset[str]:
        """Return those scopes that it may ask for."""
        return scopes if self.scopes is None else scopes & self.scopes


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Say what a client is for one log-in: made of where that log-in ends, not of where it might.

    Attributes:
        name: what rules, limits and blocks count by (`clients.identity`).
        client_name: what it calls itself; never believed.
        redirect_uri: where the log-in ends; empty for a log-in of before that was recorded, and
            for a client that logs in at the issuer itself.
        ends_at: the same place for pages: a host, `loopback`, or a scheme with its colon
            (`clients.redirects.place_of`).
        document_host: the host of its metadata document; empty where it has none.
    """

    name: str
    client_name: str
    redirect_uri: str
    ends_at: str
    document_host: str


@dataclass(frozen=True, slots=True)
class UpstreamTokens:
    """Hold what Authelia's token endpoint gave.

    Attributes:
        access_token, refresh_token: Authelia's own; the second may be missing.
        expires_at: seconds since the epoch, of the access token.
        scopes: what was granted, `openid` and the like included.
        audience: the access token's `aud`; empty where it is for nobody.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: int
    scopes: frozenset[str]
    audience: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoginIdentity:
    """Hold what a verified ID token says.

    Attributes:
        subject: its `sub`.
        amr: its `amr`; empty where it has none.
        auth_time: seconds since the epoch.
        account: `preferred_username` where it is there, else empty; printable.
        email: `email` where it is there and not said to be unverified, else empty; printable.
        name: `name` where it is there, else empty; printable.
        groups: of the access token beside it; empty where the scope `groups` was not asked for.
    """

    subject: str
    amr: frozenset[str]
    auth_time: int
    account: str
    email: str = ""
    name: str = ""
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class UpstreamLogin:
    """Hold one log-in, or one refresh of it: tokens of one person, and who that is."""

    tokens: UpstreamTokens
    identity: LoginIdentity


@dataclass(frozen=True, slots=True)
class UpstreamAuthorizationRequest:
    """Ask Authelia to log somebody in: what is pushed (RFC 9126) for one transaction.

    Attributes:
        two_factor: with which of our clients.
        redirect_uri: our callback.
        scopes: `openid` included.
        resource: the server's canonical URL, asked for as `audience`; None for a step-up.
        state, nonce, verifier: of this transaction; the verifier is sent as its S256 challenge.
        max_age: seconds since the person last typed something; None where that does not matter.
    """

    two_factor: bool
    redirect_uri: str
    scopes: frozenset[str]
    resource: str | None
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    max_age: int | None = None


class OAuthError(Exception):
    """Carry an OAuth error to whoever answers the client (RFC 6749, section 5.2).

    Attributes:
        error: the code: `invalid_grant`, `invalid_target`, …
        description: `error_description`: fixed text and names of authz.yaml; no value that a caller
            chose, except the name that rules give the client.
        status: the HTTP status of a direct answer.
        headers: what else it needs.
        server, scopes: which server and scopes of authz.yaml it is about, for the log.
    """

    def __init__(
        self,
        error: str,
        description: str,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
        *,
        server: str = "",
        scopes: Iterable[str] = (),
    ) -> None:
        """Keep the answer."""
        super().__init__(error, description)
        self.error = error
        self.description = description
        self.status = status
        self.headers = {} if headers is None else dict(headers)
        self.server = server
        self.scopes = tuple(sorted(scopes))


# An `error` of UpstreamError that is ours: the access token is no JWT.
OPAQUE_TOKEN: Final = "opaque_access_token"  # noqa: S105 - a code


class UpstreamError(Exception):
    """Say that Authelia answered with an OAuth error.

    Attributes:
        error: Authelia's code, of the known ones; `server_error` for any other; `OPAQUE_TOKEN`.
    """

    def __init__(self, error: str) -> None:
        """Keep the code."""
        super().__init__(error)
        self.error = error
