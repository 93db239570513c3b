"""The end of a grant, whoever asks for it: here at once and for all workers, then at Authelia.

Law: what is ended here is ended, whatever Authelia answers; what it did not hear is said.
"""

from typing import Final

from authz.core.ledger import UnavailableError
from authz.login.protocol.grant import Grant
from authz.login.protocol.values import UpstreamError
from authz.login.service.means import Means
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


async def end(
    means: Means,
    subject: str,
    grant_id: str,
    why: str,
    *,
    two_factor: bool,
    token: str,
    address: str,
) -> Grant | None:
    """End a grant, and the family of one of Authelia's tokens.

    Args:
        means: the parts.
        subject: whose.
        grant_id: which.
        why: for the list of revocations.
        two_factor: through which of our clients.
        token: one of Authelia's, which may be newer than the grant's, or older; empty where it is
            told of the grant's own alone, a moment later (`revocation_outbox`).
        address: in whose name it is told.

    Raises:
        UnavailableError: where Redis did not confirm the end.
    """
    ended = await means.grants.end(subject, grant_id, why)
    if ended is not None:
        means.tell(
            "end", "ok", client=ended.client, server=ended.server, grant=grant_id, detail=why
        )
    if token:
        # Nobody can use it any more: refreshes come through here, and access tokens are revoked.
        try:
            await means.upstream.revoke(two_factor=two_factor, token=token, address=address)
        except (UpstreamError, UnavailableError) as error:
            _told(means, grant_id, error, waits=ended is not None and bool(ended.upstream))
    return ended


def _told(
    means: Means, grant_id: str, error: UpstreamError | UnavailableError, *, waits: bool
) -> None:
    """Say what Authelia did not hear; what waits to be told is tried again, and said then."""
    if waits:
        return
    if isinstance(error, UpstreamError):
        means.tell(STEP, REFUSED_THERE, grant=grant_id, detail=error.error)
    else:
        means.tell(STEP, FAILED, grant=grant_id, detail=error.detail)
