"""How much of each limit is used, by whom; and the reset of one.

A bucket is named by a digest of its limit and of whose requests it counts, so that it is found by
computing the names of those who may have used it, never by looking through all buckets.

Invariant: what is shown of a bucket is what a decision at that moment would find in it
(tests/ledger/test_limit_usage.py), and nothing is charged.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from authz.core.limits import (
    SLOTS,
    Limit,
    Per,
    WindowState,
    advance,
    bucket_id,
    group_bucket,
    period_bucket,
    quota_of,
)
from authz.core.policy import Policy
from authz.core.principal import LoginRecord, Principal
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command

_STATE: Final = struct.Struct(f">Q{SLOTS + 1}I")  # as take.lua
_AT_ONCE: Final = 1000
MOST_BUCKETS: Final = 50_000
_UNCONFIGURED: Final = "clients that nobody configured"
_WITHOUT_GROUPS: Final = "people without groups"


@dataclass(frozen=True, slots=True)
class LimitedCaller:
    """Name somebody whom limits count.

    Attributes:
        subject: of the person; empty for a machine.
        account: what the person is called; may be empty.
        client: as rules call it.
        by_front_door: whether it logs in there.
        grant: of the front door; empty where it is not known.
    """

    subject: str
    client: str
    account: str = ""
    by_front_door: bool = False
    grant: str = ""

    def principal(self, issuer: str) -> Principal:
        """Return as whom a decision counts its requests."""
        login = LoginRecord(self.client, "", self.grant, self.subject, frozenset(), 0)
        return Principal(
            issuer=issuer,
            subject=self.subject or None,
            client_id=self.client,
            scopes=frozenset(),
            audience=(),
            groups=frozenset(),
            amr=None,
            auth_time=None,
            issued_at=0,
            expires_at=0,
            token_id="",
            login=login if self.by_front_door else None,
        )


@dataclass(frozen=True, slots=True)
class LimitUse:
    """Hold how much of one limit one caller has used.

    Attributes:
        id: of the bucket.
        limit: which limit.
        person, client: whose requests it counts; empty where it does not tell them apart.
        used: units in the window.
        reset: seconds until the first units come back.
        subject: of that person; empty likewise.
        group: whose people it counts; empty likewise.
    """

    id: str
    limit: Limit
    person: str
    client: str
    used: int
    reset: int
    subject: str = ""
    group: str = ""

    @property
    def whose(self) -> str:
        """Return whose requests it counts, first of all, for people."""
        if self.limit.per is Per.GROUP and not self.client:
            return f"group {self.group}" if self.group else _WITHOUT_GROUPS
        return self.person or self.client

    @property
    def share(self) -> float:
        """Return how much of the quota is used: 1 where it is used up."""
        return self.used / self.limit.quota

    def to_json(self) -> Mapping[str, str | int | float]:
        """Return it for programs."""
        return {
            "id": self.id,
            "limit": self.limit.name,
            "place": self.limit.place,
            "per": self.limit.per.value,
            "person": self.person,
            "subject": self.subject,
            "client": self.client,
            "group": self.group,
            "used": self.used,
            "quota": self.limit.quota,
            "window": self.limit.window,
            "reset": self.reset,
            "shadow": self.limit.shadow,
            "calendar": "" if self.limit.calendar is None else str(self.limit.calendar),
        }


def limits_of(policy: Policy) -> tuple[Limit, ...]:
    """Return every limit of a policy that counts people and clients; not those by address."""
    found = list(policy.limits)
    for server in policy.servers.values():
        found += [limit for target in server.targets() for limit in target.rule.limits]
        found += [] if server.streams is None else [server.streams]
    return tuple(dict.fromkeys(each for each in found if each.per is not Per.ADDRESS))


async def read_usage(
    command: Command,
    keys: RedisKeys,
    policy: Policy,
    issuer: str,
    callers: Iterable[LimitedCaller],
) -> tuple[LimitUse, ...]:
    """Return what callers have used, those that are nearest to their limit first.

    Raises:
        UnavailableError: where Redis did not answer.
    """
    seconds, microseconds = await command("TIME")
    now = int(seconds) * 1000 + int(microseconds) // 1000
    named = dict[str, tuple[Limit, LimitedCaller | str]]()
    for group, limit, bucket in _group_buckets(policy, issuer):
        named[_at(bucket, limit, now)] = limit, group
    for each, limit, bucket in _buckets(policy, issuer, callers):
        named.setdefault(_at(bucket, limit, now), (limit, each))
        if len(named) >= MOST_BUCKETS:
            break
    found = list[LimitUse]()
    buckets = list(named)
    for begin in range(0, len(buckets), _AT_ONCE):
        part = buckets[begin : begin + _AT_ONCE]
        values: Sequence[bytes | None] = await command("MGET", *map(keys.bucket, part))
        for bucket, value in zip(part, values, strict=True):
            limit, caller = named[bucket]
            state = _read(value)
            if state is None:
                continue
            ends = 0 if limit.calendar is None else limit.calendar.period(now / 1000).ends
            quota = quota_of(advance(state, limit, now), limit, now, ends)
            used = limit.quota - quota.remaining
            if used > 0:
                found.append(_use(bucket, limit, caller, used, quota.reset))
    return tuple(sorted(found, key=lambda use: (-use.share, use.limit.name, use.id)))


def _at(bucket: str, limit: Limit, now: int) -> str:
    """Return the bucket of today, or of this month, where it is one of a calendar."""
    if limit.calendar is None:
        return bucket
    return period_bucket(bucket, limit.calendar.period(now / 1000))


async def reset_limit(command: Command, keys: RedisKeys, bucket: str) -> bool:
    """Forget what a bucket counts; tell whether there was anything.

    Raises:
        UnavailableError: where Redis did not confirm it.
    """
    return bool(await command("PEXPIRE", keys.bucket(bucket), 0))


def _buckets(
    policy: Policy, issuer: str, callers: Iterable[LimitedCaller]
) -> Iterator[tuple[LimitedCaller, Limit, str]]:
    limits = limits_of(policy)
    for each in callers:
        principal = each.principal(issuer)
        for limit in limits:
            # What a person's token says of groups and claims is kept nowhere.
            if each.subject and limit.per in {Per.GROUP, Per.CLAIM}:
                continue
            # One log-in is one bucket, and nobody's where it is not known which.
            if limit.per is Per.GRANT and each.subject and each.by_front_door and not each.grant:
                continue
            yield each, limit, bucket_id(limit, principal, "")


def _group_buckets(policy: Policy, issuer: str) -> Iterator[tuple[str, Limit, str]]:
    """Yield the buckets of groups that rules and overrides name, and that of people in none."""
    limits = limits_of(policy)
    named = {group for target in policy.targets() for group in target.rule.groups or ()}
    for limit in limits:
        selector = None if limit.audience is None else limit.audience.selector
        if selector is not None and selector.groups is not None:
            named |= selector.groups
    for limit in limits:
        if limit.per is Per.GROUP:
            yield "", limit, group_bucket(limit, issuer)
            for group in sorted(named):
                yield group, limit, group_bucket(limit, issuer, group)


def _use(bucket: str, limit: Limit, caller: LimitedCaller | str, used: int, reset: int) -> LimitUse:
    if isinstance(caller, str):
        return LimitUse(bucket, limit, "", "", used, reset, group=caller)
    person = caller.account or caller.subject
    is_unconfigured = caller.principal("").is_unconfigured
    client = _UNCONFIGURED if is_unconfigured else caller.client
    if limit.per is Per.CLIENT:
        return LimitUse(bucket, limit, "", client, used, reset)
    if limit.per is Per.USER and person:
        client = ""
    return LimitUse(bucket, limit, person, client, used, reset, caller.subject)


def _read(value: bytes | None) -> WindowState | None:
    """Return the counts of a bucket; None for none, and for what is none of ours."""
    if value is None or len(value) != _STATE.size:
        return None
    slot, *counts = _STATE.unpack(value)
    return WindowState(slot, tuple(counts))
