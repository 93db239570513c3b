"""Limits as sliding windows of counters, in pure functions that every store must equal.

Invariant: in no period of a limit's window, wherever it begins, is more than its quota admitted;
what is refused is not charged. The window slides in SLOTS steps: a charge is forgotten when the
last moment of its slot is a whole window ago, so a quota comes back at most 1/SLOTS of a window
late.

A clock that steps back makes all that was counted count as of now: nothing is forgotten early,
and nothing is held longer than a window and a slot. A clock that jumps ahead forgets what a
window of that length forgets; it cannot be told from time that passed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address
from typing import Final

from authz.core.calendar_windows import Calendar, Period
from authz.core.identity_cache import IdentityCache
from authz.core.methods import Counts
from authz.core.principal import Principal

SLOTS: Final = 10
# A count is stored in 32 bits, and times in milliseconds stay exact in the doubles of Redis' Lua.
MAX_UNITS: Final = 2**32 - 1


class Per(Enum):
    """Name whose requests a limit counts together."""

    CLIENT = "client"
    USER = "user"
    CLIENT_USER = "client,user"
    ADDRESS = "address"
    GRANT = "grant"
    GROUP = "group"
    CLAIM = "claim"


class OutagePolicy(Enum):
    """Name what a limit does while Redis is down: count in the worker, refuse, or pass all."""

    LOCAL = "local"
    DENY = "deny"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Selector:
    """Select callers: by all that is named.

    Attributes:
        clients: one of these clients; None for any.
        others: the configured clients: with `clients`, whoever is none of these is selected, too;
            None where no other is.
        users: one of these persons, by their subject; None for any, machines too.
        groups: who is in one of them; None for anybody, machines too.
    """

    clients: frozenset[str] | None = None
    others: frozenset[str] | None = None
    users: frozenset[str] | None = None
    groups: frozenset[str] | None = None

    def matches(self, principal: Principal) -> bool:
        """Tell whether it selects a caller."""
        if self.clients is not None and principal.client_id not in self.clients:
            is_named = not principal.is_unconfigured and principal.client_id in (self.others or ())
            if self.others is None or is_named:
                return False
        if self.users is not None and principal.subject not in self.users:
            return False
        return self.groups is None or not self.groups.isdisjoint(principal.groups)


@dataclass(frozen=True, slots=True)
class Audience:
    """Select callers whom one selector matches, and none of those before it.

    Attributes:
        selector: None for everybody else.
        before: the selectors before it.
    """

    selector: Selector | None
    before: tuple[Selector, ...] = ()

    def includes(self, principal: Principal) -> bool:
        """Tell whether a caller is among them."""
        if self.selector is not None and not self.selector.matches(principal):
            return False
        return not any(each.matches(principal) for each in self.before)

    @property
    def reads_groups(self) -> bool:
        """Tell whether it has to be known which groups the caller is in."""
        selectors = (*self.before, *(() if self.selector is None else (self.selector,)))
        return any(each.groups is not None for each in selectors)


@dataclass(frozen=True, slots=True)
class Limit:
    """Count requests against a quota over a sliding window.

    Attributes:
        name: unique in the policy; printable ASCII, shown to clients in RateLimit fields.
        per: whose requests are counted together.
        quota: units per window, at least `cost`.
        window: seconds.
        cost: units that a request is charged, at least 1.
        place: what is counted: "" everything, a server's name, or server and tool pattern; part
            of the bucket, so that two places never share one.
        counts: which messages are charged; part of the bucket, too.
        claim: the claim whose value tells whose requests are counted; of Per.CLAIM alone.
        audience: whom it concerns; None for everybody.
        calendar: the days or months that its windows are; None for windows that slide. Each has a
            bucket of its own, and `window` is longer than any (`calendar_windows.SPANS`).
        shadow: whether it refuses nothing: it counts what it would have let pass. The bucket is
            that of the same limit without it, so what was counted counts when it is enforced.
        outage: what it does while Redis is down; None as the deployment does.
        warn_at: the hundredths of the quota from which on a request is told that it is near;
            None for never.
    """

    name: str
    per: Per
    quota: int
    window: int
    cost: int = 1
    place: str = ""
    counts: Counts = Counts.ALL
    shadow: bool = False
    claim: str = ""
    audience: Audience | None = None
    outage: OutagePolicy | None = None
    calendar: Calendar | None = None
    warn_at: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that no bucket can count.

        Raises:
            ValueError: where they are no integers, or not 1 <= cost <= quota <= MAX_UNITS and
                1 <= window <= MAX_UNITS.
        """
        numbers = (self.cost, self.quota, self.window)
        # NaN and true: what a lax reader of a configuration lets through.
        if any(type(number) is not int for number in numbers):
            raise ValueError("cost, quota and window are integers")
        if not (1 <= self.cost <= self.quota <= MAX_UNITS and 1 <= self.window <= MAX_UNITS):
            raise ValueError("cost, quota or window out of range")

    @property
    def reads_groups(self) -> bool:
        """Tell whether it has to be known which groups the caller is in."""
        return self.per is Per.GROUP or (self.audience is not None and self.audience.reads_groups)

    @property
    def slot(self) -> int:
        """Return how long a slot is, in milliseconds: exactly a tenth of the window."""
        return self.window * (1000 // SLOTS)


@dataclass(frozen=True, slots=True)
class Take:
    """A charge on one bucket.

    Attributes:
        bucket: a digest that names the limit and whose requests it counts (`bucket_id`).
        limit: what to charge against.
        ends: when the bucket's period ends, in milliseconds since the epoch; 0 of a window that
            slides.
    """

    bucket: str
    limit: Limit
    ends: int = 0


@dataclass(frozen=True, slots=True)
class Quota:
    """The state of one limit.

    Attributes:
        limit: the limit.
        remaining: units left in the window.
        reset: seconds until units come back, rounded up; 0 where none are used.
        exceeded: whether it had no room for the charge. One in shadow was then not charged,
            whatever the answer; any other refused it.
    """

    limit: Limit
    remaining: int
    reset: int
    exceeded: bool = False

    @property
    def is_near(self) -> bool:
        """Tell whether so little is left that callers are told; never of one in shadow."""
        limit = self.limit
        if limit.warn_at is None or limit.shadow:
            return False
        return (limit.quota - self.remaining) * 100 >= limit.warn_at * limit.quota


@dataclass(frozen=True, slots=True)
class WindowState:
    """The counts of one bucket.

    Attributes:
        slot: the newest slot: milliseconds since the epoch, divided by the slot's length.
        counts: the units charged in that slot and in each of the SLOTS before it, newest first.
    """

    slot: int
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Charge:
    """The takes of one query on one bucket, summed.

    Attributes:
        bucket: the bucket.
        limit: its limit.
        cost: the units of all its takes together.
        ends: as of `Take`.
    """

    bucket: str
    limit: Limit
    cost: int
    ends: int = 0


@dataclass(frozen=True, slots=True)
class TakeOutcome:
    """The outcome of a set of takes.

    Attributes:
        quotas: one for every take, in order: after the charge, or as they stand where refused.
        retry_after: 0 where all were charged, but for those in shadow that had no room; else the
            seconds, rounded up, after which the same takes pass if nothing else happens. Takes
            that no empty bucket could hold (several on one bucket, together over its quota) never
            pass; theirs is a window and a slot.
    """

    quotas: tuple[Quota, ...]
    retry_after: int


def charges(takes: Sequence[Take]) -> tuple[Charge, ...]:
    """Return one charge for every bucket: two takes on one bucket are charged their sum.

    Raises:
        ValueError: where takes name one bucket and disagree on its quota, its window or whether it
            is in shadow.
    """
    found: dict[str, Charge] = {}
    for each in takes:
        limit, cost = each.limit, each.limit.cost
        seen = found.get(each.bucket)
        if seen is not None:
            if _rule_of(seen.limit) != _rule_of(limit):
                raise ValueError("two limits in one bucket")
            cost += seen.cost
        found[each.bucket] = Charge(each.bucket, limit, cost, each.ends)
    return tuple(found.values())


def _rule_of(limit: Limit) -> tuple[int, int, bool]:
    return limit.quota, limit.window, limit.shadow


def unsatisfiable_takes() -> tuple[Take, Take]:
    """Return takes that no bucket can hold: a query that includes them is never charged."""
    limit = Limit("none", Per.CLIENT, quota=1, window=1)
    nobody = Take(digest("nobody"), limit)
    return nobody, nobody


def advance(state: WindowState | None, limit: Limit, now: int) -> WindowState:
    """Return the state as it stands now: old slots forgotten, none counted twice.

    Args:
        state: what is stored; None for a bucket that nobody has charged.
        limit: the bucket's limit.
        now: milliseconds since the epoch.
    """
    current = now // limit.slot
    if state is None:
        return WindowState(current, (0,) * (SLOTS + 1))
    late = current - state.slot
    if late < 0:  # the clock stepped back: all of it counts as of now
        return WindowState(current, (min(sum(state.counts), limit.quota), *(0,) * SLOTS))
    if late > SLOTS:
        return WindowState(current, (0,) * (SLOTS + 1))
    return WindowState(current, (0,) * late + state.counts[: SLOTS + 1 - late])


def quota_of(state: WindowState, limit: Limit, now: int, ends: int = 0) -> Quota:
    """Return the quota of an advanced state; `ends` as of `Take`."""
    counts = state.counts
    for age in range(SLOTS, -1, -1):
        if counts[age]:
            return in_use(limit, sum(counts), state.slot, age, now, ends)
    return Quota(limit, limit.quota, 0)


def in_use(  # noqa: PLR0917 - called for every limit of every request
    limit: Limit, used: int, slot: int, oldest: int, now: int, ends: int = 0
) -> Quota:
    """Return the quota of a limit some of whose units are used.

    Args:
        limit: the limit.
        used: how many units, in all slots.
        slot: the newest slot.
        oldest: how many slots before that the oldest of them were charged.
        now: milliseconds since the epoch.
        ends: as of `Take`.
    """
    remaining = limit.quota - used
    reset = _seconds(max(1, ends - now) if ends else _back(slot, limit, oldest) - now)
    return Quota(limit, max(0, remaining), reset)


def wait(state: WindowState, charge: Charge, now: int) -> int:
    """Return the milliseconds until an advanced state has room for a charge; 0 where it has."""
    excess = sum(state.counts) + charge.cost - charge.limit.quota
    if excess <= 0:
        return 0
    if charge.ends:  # by our clock; by Redis' it may be over already
        return max(1, charge.ends - now)
    for age in range(SLOTS, -1, -1):
        excess -= state.counts[age]
        if excess <= 0:
            return _back(state.slot, charge.limit, age) - now
    return (SLOTS + 1) * charge.limit.slot


def take(
    states: Mapping[str, WindowState], takes: Sequence[Take], now: int
) -> tuple[Mapping[str, WindowState], TakeOutcome]:
    """Charge all the takes or none, and return the state of every limit.

    A limit in shadow has no part in whether they are charged, and is charged with them only where
    it has room.

    Args:
        states: what is stored, by bucket.
        takes: what to charge.
        now: milliseconds since the epoch.

    Returns:
        The states to store and the outcome. A refused set of takes stores nothing, but for
        buckets that were ahead of a clock which stepped back: they begin to age again.
    """
    wanted = charges(takes)
    current = {each.bucket: advance(states.get(each.bucket), each.limit, now) for each in wanted}
    delays = {each.bucket: wait(current[each.bucket], each, now) for each in wanted}
    delay = longest(wanted, delays)
    if delay:
        changed = {
            bucket: state
            for bucket, state in current.items()
            if bucket in states and states[bucket].slot > state.slot
        }
    else:
        changed = {
            each.bucket: _add(current[each.bucket], 0 if delays[each.bucket] else each.cost)
            for each in wanted
        }
    return changed, outcome({**current, **changed}, takes, delays, delay, now)


def longest(wanted: Sequence[Charge], delays: Mapping[str, int]) -> int:
    """Return the longest delay of limits that are enforced; 0 where all of these have room."""
    return max((delays[each.bucket] for each in wanted if not each.limit.shadow), default=0)


def outcome(
    states: Mapping[str, WindowState],
    takes: Sequence[Take],
    delays: Mapping[str, int],
    delay: int,
    now: int,
) -> TakeOutcome:
    """Return the outcome of takes whose advanced states are known.

    Args:
        states: after the charge, by bucket.
        takes: what was to be charged.
        delays: milliseconds until each bucket has room, 0 where it had.
        delay: the longest of them that refuses; 0 where none does.
        now: milliseconds since the epoch.
    """
    quotas = tuple(
        exceeded(quota_of(states[each.bucket], each.limit, now, each.ends))
        if delays[each.bucket]
        else quota_of(states[each.bucket], each.limit, now, each.ends)
        for each in takes
    )
    return TakeOutcome(quotas, _seconds(delay))


def exceeded(quota: Quota) -> Quota:
    """Return the quota of a limit that had no room."""
    return Quota(quota.limit, quota.remaining, quota.reset, exceeded=True)


def takes_of(
    limit: Limit,
    principal: Principal | None,
    address: str,
    now: float,
    cache: IdentityCache | None = None,
) -> tuple[Take, ...]:
    """Return what a limit charges at a moment, in seconds since the epoch.

    Raises:
        ValueError: as `bucket_id`.
    """
    buckets = bucket_ids(limit, principal, address, cache)
    if limit.calendar is None:
        return tuple([Take(bucket, limit) for bucket in buckets])
    period = limit.calendar.period(now)
    return tuple([Take(period_bucket(each, period), limit, period.ends) for each in buckets])


def period_bucket(bucket: str, period: Period) -> str:
    """Return the bucket of one day or month, of a limit and of whose requests it counts."""
    return digest(bucket, period.begins)


def bucket_ids(
    limit: Limit, principal: Principal | None, address: str, cache: IdentityCache | None = None
) -> tuple[str, ...]:
    """Return every bucket that a limit charges: of one per group that of each group of the person.

    Args:
        limit: as of `bucket_id`, like the other arguments.
        principal: the caller.
        address: the client's address.
        cache: holds the buckets of principals.

    Raises:
        ValueError: as `bucket_id`.
    """
    counts_groups = (
        limit.per is Per.GROUP and principal is not None and principal.person is not None
    )
    if not counts_groups or principal is None or len(principal.groups) <= 1:
        return (bucket_id(limit, principal, address, cache),)
    return (
        _group_buckets(limit, principal)
        if cache is None
        else cache.get(_group_buckets, limit, principal)
    )


def _group_buckets(limit: Limit, principal: Principal) -> tuple[str, ...]:
    return tuple(
        [group_bucket(limit, principal.issuer, group) for group in sorted(principal.groups)]
    )


def group_bucket(limit: Limit, issuer: str, *group: str) -> str:
    """Return the bucket of a group, or without one of people in none, of a limit per group."""
    return digest(*_scope(limit), "group", issuer, *group)


def bucket_id(
    limit: Limit, principal: Principal | None, address: str, cache: IdentityCache | None = None
) -> str:
    """Return the digest that names whose requests a limit counts.

    Two limits share a bucket only where place, per, quota, window and counts are the same. A token
    without a person counts as its client, never as a person of the same text. All clients that
    came through the front door and that nobody configured count as one client. A token of no grant
    counts as its client and person together; people without groups count together, and so do
    those whose token lacks the claim, or has in it no text, whole number or truth value.

    Args:
        limit: the limit.
        principal: the caller; None before authentication, for limits per address only.
        address: the client's address, as Envoy trusts it.
        cache: holds the buckets of principals; None for none.

    Raises:
        ValueError: for a limit per client or user without a principal, and for one per group and a
            person with several (`bucket_ids`).
    """
    if limit.per is Per.ADDRESS:
        return digest(*_scope(limit), network(address))
    return _bucket(limit, principal) if cache is None else cache.get(_bucket, limit, principal)


def _bucket(limit: Limit, principal: Principal | None) -> str:
    return digest(*_scope(limit), *_whose(limit, principal))


def _scope(limit: Limit) -> tuple[str, ...]:
    per = f"{limit.per.value} {limit.claim}" if limit.claim else limit.per.value
    calendar = () if limit.calendar is None else (str(limit.calendar),)
    scope = (limit.place, per, str(limit.quota), str(limit.window), *calendar)
    # A limit that counts everything has the bucket that it had before `counts` existed.
    return scope if limit.counts is Counts.ALL else (*scope, limit.counts.value)


def _whose(limit: Limit, principal: Principal | None) -> tuple[str, ...]:
    per = limit.per
    if principal is None:
        raise ValueError("a limit per client or user needs a principal")
    client: tuple[str, ...] = ("client", *principal.client)
    if principal.is_unconfigured:
        # Anybody can register another such client: together they have one budget.
        client = ("unconfigured", principal.issuer)
    user = client if principal.person is None else ("person", *principal.person)
    if per in _OF_PEOPLE and principal.person is None:
        return client
    match per:
        case Per.CLIENT:
            return client
        case Per.USER:
            return user
        case Per.GRANT:
            login = principal.login
            grant = ("grant", principal.issuer, "" if login is None else login.grant)
            return (*client, *user) if login is None else grant
        case Per.GROUP:
            if len(principal.groups) > 1:
                raise ValueError("a person in several groups has a bucket for each")
            return ("group", principal.issuer, *principal.groups)
        case Per.CLAIM:
            value = dict(principal.claims).get(limit.claim)
            return ("claim", principal.issuer, *(() if value is None else (value,)))
        case _:
            return (*client, *user)


# Dimensions in which a token without a person counts as its client.
_OF_PEOPLE: Final = frozenset({Per.USER, Per.GRANT, Per.GROUP, Per.CLAIM})


def network(address: str) -> str:
    """Return what addresses are counted by: IPv4 as is, IPv6 by /64, all others together.

    One household or machine has a /64 at least, so single IPv6 addresses cost nothing.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        # RFC 4291, section 2.5.5.2: how a dual-stack listener shows an IPv4 peer.
        mapped = parsed.ipv4_mapped
        return f"{parsed.packed[:8].hex()}/64" if mapped is None else str(mapped)
    return str(parsed)


def digest(*parts: str) -> str:
    """Return a hex digest of a list of texts that no other list has.

    Every part is preceded by its length, so no delimiter can be smuggled in; lone surrogates
    are kept apart too.
    """
    texts = [part.encode("utf-8", "surrogatepass") for part in parts]
    whole = b"".join([len(text).to_bytes(8, "big") + text for text in texts])
    return blake2b(whole, digest_size=16).hexdigest()


def _add(state: WindowState, cost: int) -> WindowState:
    return WindowState(state.slot, (state.counts[0] + cost, *state.counts[1:]))


def _back(slot: int, limit: Limit, age: int) -> int:
    """Return the moment when the units of a slot come back, milliseconds since the epoch."""
    return (slot - age + SLOTS + 1) * limit.slot


def _seconds(milliseconds: int) -> int:
    return -(-milliseconds // 1000)
