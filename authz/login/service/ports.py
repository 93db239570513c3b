"""What the front door and the visits both need of others.

Law: ports alone; what only one of them needs stands beside it.
"""

from collections.abc import Sequence
from typing import Protocol

from authz.login.protocol.values import UpstreamAuthorizationRequest, UpstreamLogin


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
        """Trade a code in."""
        ...

    async def revoke(self, *, two_factor: bool, token: str, address: str) -> None:
        """End a token and its family."""
        ...

    def check_iss(self, iss: str | None) -> None:
        """Refuse an answer that is not Authelia's."""
        ...


class Tell(Protocol):
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
    ) -> None:
        """Tell a step, its outcome, and whose it is: names, never a token, a code or a state.

        `scopes` are those of authz.yaml, never what a client made up.
        """
        ...
