"""What the flow is made of: ports to clients, to Authelia and to Redis, and what it knows itself.

Law: nothing here decides.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from authz.config.model import RefreshTokens
from authz.ledger.login_records import LoginRecords
from authz.login.clients.assertions import VerifiedAssertion
from authz.login.protocol.resources import ResourceServers
from authz.login.protocol.values import OAuthClient, UpstreamLogin
from authz.login.service import ports
from authz.login.service.rate_limits import LoginRateLimiter
from authz.login.store.blocklist import Blocklist
from authz.login.store.codes import CodeStore, LoginFaults, RefreshStore, StateStore, UsedAssertions
from authz.login.store.grants import GrantStore
from authz.tokens.sealing import Sealer


class FindsClients(Protocol):
    """Find clients (`authz.login.clients.registry.Clients`)."""

    def recognize(self, client_id: str) -> None:
        """Raise OAuthError("invalid_client", …) for what cannot be a client's id here."""
        ...

    async def find(self, client_id: str) -> OAuthClient:
        """Return a client, or raise OAuthError("invalid_client", …)."""
        ...

    def fetches(self, client_id: str) -> bool:
        """Tell whether that asks a stranger's host."""
        ...


class Upstream(ports.Upstream, Protocol):
    """Log people in at Authelia (`authz.login.upstream.client.Authelia`), and keep them so."""

    async def refresh(
        self, *, two_factor: bool, refresh_token: str, subject: str, address: str
    ) -> UpstreamLogin:
        """Trade a refresh token in."""
        ...


class Registers(Protocol):
    """Register clients (RFC 7591)."""

    def register(self, metadata: bytes) -> Mapping[str, object]:
        """Return the answer to a registration, or raise OAuthError."""
        ...


class VerifiesAssertions(Protocol):
    """Verify assertions of clients (`authz.login.clients.assertions.ClientAssertions`)."""

    def fetches(self, client: OAuthClient) -> bool:
        """Tell whether that asks a stranger's host."""
        ...

    async def verify(self, client: OAuthClient, text: str) -> VerifiedAssertion:
        """Return what is left to do, or raise InvalidAssertionError or DocumentError."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """Hold the parts of one configuration.

    Attributes:
        url: the gateway's, which is our issuer.
        targets: our servers.
        clients, upstream, registers: ports.
        sealer: for what clients keep.
        assertions: verifies those of clients.
        assertion_ids, codes, states, refreshes, faults, grants, blocks, log_ins: in Redis.
        attempts: how often who asks, in this process.
        grant_max_age: seconds from the consent.
        refresh_tokens: which log-ins give one (`front_door.refresh_tokens`).
        stale_refresh: seconds that a replaced refresh token stands for its successor.
        clock: seconds since the epoch.
        tell: the log.
    """

    url: str
    targets: ResourceServers
    clients: FindsClients
    upstream: Upstream
    registers: Registers
    sealer: Sealer
    assertions: VerifiesAssertions
    assertion_ids: UsedAssertions
    codes: CodeStore
    states: StateStore
    refreshes: RefreshStore
    faults: LoginFaults
    grants: GrantStore
    blocks: Blocklist
    log_ins: LoginRecords
    attempts: LoginRateLimiter
    grant_max_age: int
    refresh_tokens: RefreshTokens
    stale_refresh: int
    clock: Callable[[], float]
    tell: ports.Tell
