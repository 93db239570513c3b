"""What refusals cost: those who keep presenting what fails are told to wait.

Law: memory is bounded whatever arrives, a token known to be valid is never locked out by its
neighbours, and nothing here lets anybody in.
"""

from dataclasses import replace
from hashlib import sha256
from typing import Final

from authz.config.scalars import Rate
from authz.core.limits import Limit, Per, Take, bucket_id
from authz.core.principal import Principal
from authz.ledger.memory import Buckets

# Presented tokens that nobody is known to have signed, per address (per /64 for IPv6), each token
# once: the default of gateway.address_bad_tokens.
BAD_TOKENS: Final = Limit("refused-tokens", Per.ADDRESS, quota=60, window=60)
# Refusals of a valid token, per client and user: an agent that retries what it may not do.
REFUSED: Final = Limit("refusals", Per.CLIENT_USER, quota=300, window=60)
_LARGEST: Final = 20_000


def bad_tokens_limit(rate: Rate) -> Limit:
    """Return the limit of `gateway.address_bad_tokens`."""
    return replace(BAD_TOKENS, quota=rate.quota, window=rate.window)


class Refusals:
    """Count refusals in this worker's memory.

    At the cap the bucket that was charged longest ago is forgotten, which forgives its owner: a
    flood of addresses can buy forgiveness for one, and never a verdict.
    """

    def __init__(self, largest: int = _LARGEST) -> None:
        """Begin with nobody counted."""
        self._buckets = Buckets(largest)
        self._largest = largest
        self._counted: dict[bytes, float] = {}  # tokens by digest, until when they are counted

    def __len__(self) -> int:
        """Return how many are counted."""
        return len(self._buckets)

    def address_must_wait(self, address: str, now: float, limit: Limit = BAD_TOKENS) -> int | None:
        """Return the seconds that an address must wait before the issuer is asked for it."""
        return self._wait(Take(bucket_id(limit, None, address), limit), now)

    def bad_token(self, address: str, token: str, now: float, limit: Limit = BAD_TOKENS) -> None:
        """Count a presented token that nobody is known to have signed, once in a window.

        A client that repeats one token is one mistake, and not a guesser.
        """
        bucket = bucket_id(limit, None, address)
        digest = sha256(f"{bucket} {token}".encode("utf-8", "surrogatepass")).digest()
        if self._counted.get(digest, 0.0) > now:
            return
        self._counted.pop(digest, None)
        self._counted[digest] = now + limit.window
        if len(self._counted) > self._largest:
            del self._counted[next(iter(self._counted))]
        self._charge(Take(bucket, limit), now)

    def principal_must_wait(self, principal: Principal, now: float) -> int | None:
        """Return the seconds that a client and user must wait before they are judged again."""
        if not self._buckets:
            return None
        return self._wait(Take(bucket_id(REFUSED, principal, ""), REFUSED), now)

    def refused(self, principal: Principal, now: float) -> None:
        """Count a refusal of a valid token."""
        self._charge(Take(bucket_id(REFUSED, principal, ""), REFUSED), now)

    def _wait(self, one: Take, now: float) -> int | None:
        return self._buckets.wait(one, int(now * 1000)) or None

    def _charge(self, one: Take, now: float) -> None:
        self._buckets.take((one,), int(now * 1000))
