"""The end of a grant, whoever asks for it: here at once and for all workers, then at Authelia.

Law: what is ended here is ended, whatever Authelia answers.
"""

from contextlib import suppress
from typing import Final

from authz.core.ledger import Unavailable
from authz.login.front_door.grant import Grant
from authz.login.front_door.means import Means
from authz.login.values import UpstreamRefused

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
        token: one of Authelia's; empty where it is told nothing.
        address: in whose name it is told.

    Raises:
        Unavailable: where Redis did not confirm the end.
    """
    ended = await means.grants.end(subject, grant_id, why)
    if ended is not None:
        means.tell(
            "end", "ok", client=ended.client, server=ended.server, grant=grant_id, detail=why
        )
    if token:
        # Nobody can use it any more: refreshes come through here, and access tokens are revoked.
        with suppress(UpstreamRefused, Unavailable):
            await means.upstream.revoke(two_factor=two_factor, token=token, address=address)
    return ended
