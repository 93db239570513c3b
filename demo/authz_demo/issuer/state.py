"""All that the stand-in remembers, in memory, until it ends.

Nothing is ever forgotten, so that a replay is known as one.
"""

import secrets
import uuid
from dataclasses import dataclass, field
from typing import Literal

from authz_demo.issuer.keys import StandInKeys
from authz_demo.issuer.resources import Form
from authz_demo.issuer.throttle import Throttle
from authz_demo.issuer.values import RegisteredClient, StandInConfig, User

Parameters = tuple[tuple[str, str], ...]
THROTTLED = ("token", "pushed", "introspection", "revocation", "userinfo")


@dataclass(slots=True)
class PortalSession:
    """Remember a browser: who logged in, and when each factor was typed last."""

    user: User
    password_at: float
    expires_at: float
    totp_at: float | None = None

    @property
    def auth_time(self) -> float:
        """Return the later of the two factors: typing the password again moves it."""
        return max(self.password_at, self.totp_at or 0.0)

    @property
    def amr(self) -> tuple[str, ...]:
        """Return the methods (RFC 8176) as Authelia words them; they tell of the whole session."""
        return ("pwd", "kba", "otp", "mfa") if self.totp_at is not None else ("pwd", "kba")


@dataclass(slots=True)
class LoginFlow:
    """Remember an authorization request that waits for a person.

    Attributes:
        sent: the request as it came, to be made again once the person is done.
        form: its parameters, those of a pushed request included.
        requested_at: when it came; what `prompt=login` and `max_age` count from.
        client, scopes: what the pages show.
        decided_by, accepted: who answered the consent page, and what.
    """

    sent: Parameters
    form: Form
    requested_at: float
    client: RegisteredClient
    scopes: tuple[str, ...]
    decided_by: str | None = None
    accepted: bool = False


@dataclass(slots=True)
class IssuerGrant:
    """Remember what one log-in (or one client_credentials request) granted.

    Attributes:
        revoked: set when the code or a refresh token is used twice, or a token is revoked: ends
            every token of the family.
    """

    client_id: str
    user: User | None
    scopes: tuple[str, ...]
    audience: tuple[str, ...]
    requested_at: float
    nonce: str = ""
    acr_asked: bool = False
    amr: tuple[str, ...] = ()
    auth_time: int = 0
    revoked: bool = False


@dataclass(slots=True)
class Code:
    """Remember an authorization code and what it is bound to."""

    grant: IssuerGrant
    redirect_uri: str
    challenge: str
    expires_at: float
    used: bool = False
    challenge_spent: bool = False


@dataclass(slots=True)
class Token:
    """Remember an access or refresh token."""

    kind: Literal["access", "refresh"]
    grant: IssuerGrant
    scopes: tuple[str, ...]
    audience: tuple[str, ...]
    issued_at: int
    expires_at: int
    ended: bool = False

    def active(self, now: float) -> bool:
        """Tell whether introspection calls it active."""
        return not self.ended and not self.grant.revoked and now < self.expires_at


@dataclass(slots=True)
class PushedRequest:
    """Remember a pushed authorization request (RFC 9126), its client's id among the parameters."""

    parameters: Parameters
    expires_at: float


@dataclass(slots=True)
class Memory:
    """Hold everything by the secret that names it."""

    sessions: dict[str, PortalSession] = field(default_factory=dict)
    flows: dict[str, LoginFlow] = field(default_factory=dict)
    pushed: dict[str, PushedRequest] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    assertions: set[tuple[str, str]] = field(default_factory=set)


def opaque(prefix: str) -> str:
    """Return a new secret in the shape of Authelia's: `authelia_<kind>_<43>.<43>`."""
    return f"authelia_{prefix}_{secrets.token_urlsafe(32)}.{secrets.token_urlsafe(32)}"


class StandInIssuer:
    """Hold what every endpoint shares.

    Attributes:
        config: who there is and what the time is.
        keys: what signs; replace it to withdraw a key.
        memory: what was granted.
        throttles: the failures of each endpoint.
    """

    def __init__(self, config: StandInConfig, keys: StandInKeys | None = None) -> None:
        """Begin with no log-ins; make keys where none are given."""
        self.config = config
        self.keys = keys or StandInKeys.generate()
        self.memory = Memory()
        self.throttles = {name: Throttle() for name in THROTTLED}

    def now(self) -> float:
        """Return the time of the configured clock."""
        return self.config.clock()

    def session(self, cookie: str | None) -> PortalSession | None:
        """Return the live session that a cookie names."""
        session = self.memory.sessions.get(cookie or "")
        return session if session is not None and self.now() < session.expires_at else None

    def start_session(self, user: User) -> str:
        """Log a person in with a password; return the new cookie's value."""
        cookie, now = secrets.token_urlsafe(24), self.now()
        self.memory.sessions[cookie] = PortalSession(user, now, now + self.config.lifetimes.session)
        return cookie

    def remember(self, flow: LoginFlow) -> str:
        """Keep a waiting request; return the id that the pages carry."""
        flow_id = str(uuid.uuid4())
        self.memory.flows[flow_id] = flow
        return flow_id

    def family(self, grant: IssuerGrant, kind: Literal["access", "refresh"]) -> list[Token]:
        """Return the tokens of a grant."""
        tokens = self.memory.tokens.values()
        return [token for token in tokens if token.grant is grant and token.kind == kind]
