"""How often one address may ask for what costs others something: pages, and requests to Authelia.

Law: memory is bounded, and who is told to wait is told so for the sake of nobody else: the address
of a neighbour in another network waits for nothing.

Codes and refresh tokens are not paced here. One that is not good costs a look into Redis or at its
seal, never Authelia; and a pace at the token endpoint would hold up whoever shares an address with
a guesser, which is everybody whose client is a company's server.
"""

from collections.abc import Callable
from typing import Final

from authz.core.limits import Limit, Per, Take, bucket_id
from authz.ledger.memory import Buckets

# Each may make us fetch a client's document.
PAGES: Final = Limit("login-pages", Per.ADDRESS, quota=120, window=60)
# Each is a request pushed to Authelia, and at most one failure that it counts.
APPROVALS: Final = Limit("login-approvals", Per.ADDRESS, quota=20, window=60)
_LARGEST: Final = 20_000


class Attempts:
    """Count attempts in this process's memory; at the cap the oldest is forgotten."""

    def __init__(self, clock: Callable[[], float], largest: int = _LARGEST) -> None:
        """Begin with nobody counted; `clock` gives seconds since the epoch."""
        self._buckets = Buckets(largest)
        self._clock = clock

    def take(self, limit: Limit, address: str) -> int:
        """Count an attempt; return the seconds to wait where it is one too many, else 0."""
        one = Take(bucket_id(limit, None, address), limit)
        return self._buckets.take((one,), int(self._clock() * 1000)).retry_after
