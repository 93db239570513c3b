"""Limit refusals: addresses that present bad tokens, and principals that keep being refused, wait.

Invariant: memory is bounded, and a token known to be valid is never refused for the bad tokens of
its address (tests/server/test_refusal_limiter.py, test_shared_address.py).
"""

import math
from collections import OrderedDict
from dataclasses import replace
from hashlib import sha256
from typing import Final

from authz.config.value_types import Rate
from authz.core.limits import Limit, Per, Take, bucket_id
from authz.core.principal import Principal
from authz.ledger.memory import Buckets

# Tokens about which the issuer was asked in vain, per address (per /64 for IPv6), each token once:
# the default of gateway.address_bad_tokens.
BAD_TOKENS: Final = Limit("refused-tokens", Per.ADDRESS, quota=60, window=60)
# Refusals of a valid token, per client and user: an agent that retries what it may not do.
REFUSED: Final = Limit("refusals", Per.CLIENT_USER, quota=300, window=60)
_CAPACITY: Final = 20_000
# Seconds after which a token that was told to wait counts as returned, and not merely repeated.
_RETURNED_AFTER: Final = 1.0


def bad_tokens_limit(rate: Rate) -> Limit:
    """Return the limit of `gateway.address_bad_tokens`."""
    return replace(BAD_TOKENS, quota=rate.quota, window=rate.window)


class RefusalLimiter:
    """Count refusals in this worker's memory.

    At capacity the bucket that was charged longest ago is evicted: a flood of addresses can lift
    the wait of one, which changes no verdict.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        """Begin with nobody counted."""
        self._principals = Buckets(capacity)
        self._addresses = _TokenBuckets(capacity)
        # A second budget for tokens that returned after their wait, which new made-up tokens do
        # not use up.
        self._returned = _TokenBuckets(capacity)
        self._counted = _Digests(capacity)  # tokens, until when they are counted
        self._waiting = _Digests(capacity)  # tokens that were told to wait, until when

    def __len__(self) -> int:
        """Return how many principals and addresses are counted."""
        return len(self._principals) + len(self._addresses) + len(self._returned)

    def address_must_wait(
        self, address: str, token: str, now: float, limit: Limit = BAD_TOKENS
    ) -> int | None:
        """Return the seconds that an address must wait before the issuer is asked about a token.

        A token that returns after its wait is charged to a budget that new tokens do not use.
        """
        bucket = bucket_id(limit, None, address)
        wait = self._addresses.wait(bucket, limit, now)
        if not wait:
            return None
        digest = _digest(bucket, token)
        until = self._waiting.get(digest)
        if until is None:
            self._waiting.put(digest, now + _RETURNED_AFTER)
        elif until <= now:
            wait = self._returned.wait(bucket, limit, now)
        return math.ceil(wait) or None

    def bad_token(self, address: str, token: str, now: float, limit: Limit = BAD_TOKENS) -> None:
        """Count a token about which the issuer was asked in vain, once in a window.

        A client that repeats one token does not guess.
        """
        bucket = bucket_id(limit, None, address)
        digest = _digest(bucket, token)
        if (self._counted.get(digest) or 0.0) > now:
            return
        self._counted.put(digest, now + limit.window)
        waited = self._waiting.get(digest)
        came_back = waited is not None and waited <= now
        (self._returned if came_back else self._addresses).spend(bucket, limit, now)

    def principal_must_wait(self, principal: Principal, now: float) -> int | None:
        """Return the seconds that a client and user must wait before they are judged again."""
        if not self._principals:
            return None
        one = Take(bucket_id(REFUSED, principal, ""), REFUSED)
        return self._principals.wait(one, int(now * 1000)) or None

    def refused(self, principal: Principal, now: float) -> None:
        """Count a refusal of a valid token."""
        one = Take(bucket_id(REFUSED, principal, ""), REFUSED)
        self._principals.take((one,), int(now * 1000))


class _TokenBuckets:
    """Token buckets by name: a burst of the quota, then one token per window / quota.

    Not the sliding window of the ledger: there a burst blocks its address for a whole window after
    it has ended, and with it honest tokens that were not verified yet. Not cachetools, here and in
    `_Digests`: this module is compiled and runs for every refusal.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, bucket: str, limit: Limit, now: float) -> float:
        """Return the seconds until there is a token; 0 where there is one now."""
        part = limit.window / limit.quota
        return max(0.0, self._full_at.get(bucket, 0.0) - now - (limit.window - part))

    def spend(self, bucket: str, limit: Limit, now: float) -> None:
        """Take one token; an empty bucket goes into no debt."""
        full_at = max(self._full_at.pop(bucket, 0.0), now) + limit.window / limit.quota
        self._full_at[bucket] = min(full_at, now + limit.window)
        if len(self._full_at) > self._capacity:
            self._full_at.popitem(last=False)


class _Digests:
    """A moment for each digest; the oldest are evicted."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._moments: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._moments)

    def get(self, digest: bytes) -> float | None:
        return self._moments.get(digest)

    def put(self, digest: bytes, moment: float) -> None:
        self._moments.pop(digest, None)
        self._moments[digest] = moment
        if len(self._moments) > self._capacity:
            self._moments.popitem(last=False)


def _digest(bucket: str, token: str) -> bytes:
    return sha256(f"{bucket} {token}".encode("utf-8", "surrogatepass")).digest()
