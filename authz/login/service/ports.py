"""Ports of the log-in: what its steps need of clients, of Authelia, and of the log."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from authz.login.clients.assertions import VerifiedAssertion
from authz.login.protocol.values import OAuthClient, UpstreamAuthorizationRequest, UpstreamLogin


class ClientFinder(Protocol):
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


class ClientRegistrar(Protocol):
    """Register clients (RFC 7591)."""

    def register(self, metadata: bytes) -> Mapping[str, object]:
        """Return the answer to a registration, or raise OAuthError."""
        ...


class AssertionVerifier(Protocol):
    """Verify assertions of clients (`authz.login.clients.assertions.ClientAssertions`)."""

    def fetches(self, client: OAuthClient) -> bool:
        """Tell whether that asks a stranger's host."""
        ...

    async def verify(self, client: OAuthClient, text: str) -> VerifiedAssertion:
        """Return what is left to do, or raise InvalidAssertionError or DocumentError."""
        ...


class Upstream(Protocol):
    """Log people in at Authelia (`authz.login.upstream.client.Authelia`)."""

    async def push(self, asked: UpstreamAuthorizationRequest, address: str) -> str:
        """Push an authorization request, and return where the browser goes."""
        ...

    async def exchange(
        self,
        *,
        two_factor: bool,
        code: str,
        verifier: str,
        redirect_uri: str,
        nonce: str,
        address: str,
    ) -> UpstreamLogin:
        """Exchange a code for tokens."""
        ...

    async def revoke(self, *, two_factor: bool, token: str, address: str) -> None:
        """End a token and its family."""
        ...

    def check_iss(self, iss: str | None) -> None:
        """Refuse an answer that is not Authelia's."""
        ...


class RefreshingUpstream(Upstream, Protocol):
    """Log people in at Authelia, and keep them so."""

    async def refresh(
        self, *, two_factor: bool, refresh_token: str, subject: str, address: str
    ) -> UpstreamLogin:
        """Refresh tokens."""
        ...


class StepLog(Protocol):
    """Write one line of the log of log-ins."""

    def __call__(
        self,
        step: str,
        outcome: str,
        *,
        client: str = "",
        server: str = "",
        grant: str = "",
        detail: str = "",
        scopes: Sequence[str] = (),
        subject: str = "",
    ) -> None:
        """Log a step, its outcome, and whose it is: names, never a token, a code or a state.

        A `subject` goes to the audit trail alone: whose log-in it is.
        `scopes` are those of authz.yaml, never what a client made up.
        """
        ...
