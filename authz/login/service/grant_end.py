"""The end of a grant: here at once and for all workers, whatever Authelia answers; then there."""

from typing import Final

from authz.core.ledger import UnavailableError
from authz.login.protocol.grant import Grant
from authz.login.protocol.values import UpstreamError
from authz.login.service import ports
from authz.login.store.grants import GrantStore
from authz.login.store.revocation_outbox import FAILED, REFUSED_THERE, STEP

REVOKED: Final = "revoked by its client"
REPLAYED: Final = "its code was used twice"
REUSED: Final = "an old refresh token was used again"
BY_PERSON: Final = "ended by the person"
BLOCKED: Final = "its client was blocked meanwhile"
LOST: Final = "its first answer was lost"
MEANWHILE: Final = "it was ended while it was refreshed"
REFUSED: Final = "refused by the issuer"
REVOKED_FOR: Final = "revoked by the operator"


class GrantEnder:
    """End grants: here at once and for all workers, then at Authelia."""

    def __init__(self, grants: GrantStore, upstream: ports.Upstream, log: ports.StepLog) -> None:
        self._grants = grants
        self._upstream = upstream
        self._log = log

    async def end(
        self,
        subject: str,
        grant_id: str,
        why: str,
        *,
        two_factor: bool = False,
        token: str = "",
        address: str = "",
    ) -> Grant | None:
        """End a grant, and the family of one of Authelia's tokens.

        Args:
            subject: whose.
            grant_id: which.
            why: for the list of revocations.
            two_factor: through which of our clients.
            token: one of Authelia's, which may be newer than the grant's, or older; empty where
                only the grant's own is revoked, a moment later (`store.revocation_outbox`).
            address: in whose name that is.

        Raises:
            UnavailableError: where Redis did not confirm the end.
        """
        ended = await self._grants.end(subject, grant_id, why)
        if ended is not None:
            self._log(
                "end", "ok", client=ended.client, server=ended.server, grant=grant_id, detail=why,
                subject=subject,
            )  # fmt: skip
        if token:
            # Nobody can use it any more: refreshes come through here, access tokens are revoked.
            try:
                await self._upstream.revoke(two_factor=two_factor, token=token, address=address)
            except (UpstreamError, UnavailableError) as error:
                # What waits in the outbox is tried again, and logged then.
                if ended is None or not ended.upstream:
                    self._log_failure(grant_id, error)
        return ended

    def _log_failure(self, grant_id: str, error: UpstreamError | UnavailableError) -> None:
        if isinstance(error, UpstreamError):
            self._log(STEP, REFUSED_THERE, grant=grant_id, detail=error.error)
        else:
            self._log(STEP, FAILED, grant=grant_id, detail=error.detail)
