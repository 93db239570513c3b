"""Taking tokens back, listing what was taken back, and giving it back.

Law: nothing here makes a revocation weaker than it was, except who asks for that by name (`lift`,
`restore`).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from authz.core.ledger import Unavailable
from authz.ledger.entries import Entry, Remark, Target, entry_of, written
from authz.ledger.records import Revocation, stricter

# The most that `issuer.max_lifetime` may be: no token lives longer, whatever it is set to later.
LONGEST: Final = 30 * 86_400
# How long a record is kept beyond its need: a clock that is off must not bring a token back.
MARGIN: Final = 86_400
_SHORTEST_ID: Final = 4  # characters of a digest


class Store(Protocol):
    """Keep revocations (`RedisLedger`, `MemoryLedger`)."""

    async def revoke(self, target: bytes, revocation: Revocation) -> None:
        """Record a revocation."""
        ...

    async def lift(self, *targets: bytes) -> None:
        """Remove revocations."""
        ...

    async def discard(self, found: Mapping[bytes, Revocation]) -> None:
        """Remove revocations that stand as they were found."""
        ...

    async def revocations(self) -> Mapping[bytes, Revocation]:
        """Return all revocations by their target."""
        ...


class NotLiftedError(ValueError):
    """Say in words why nothing was lifted."""


async def revoke(
    store: Store, target: Target, issued_until: int | None, until: int | None, remark: Remark
) -> Entry:
    """Take tokens back, and return the record as it stands then.

    Of a record that is there already the stricter half of both is kept; it is left alone where it
    says all that is asked for.

    Args:
        store: where revocations are kept.
        target: whose tokens.
        issued_until: those issued at or before this second; None for all.
        until: the second after which nobody needs the record; None to keep it.
        remark: who, when, why.

    Raises:
        Unavailable: where the store did not confirm it.
        ValueError: where a moment cannot be written.
    """
    before = (await store.revocations()).get(target.field)
    wanted = Revocation(issued_until, until, written(target, remark))
    if before is not None:
        wanted = replace(stricter(before, wanted), words=wanted.words)
        if replace(wanted, words=before.words) == before:
            return entry_of(target.field, before)
    await store.revoke(target.field, wanted)
    return entry_of(target.field, wanted)


async def entries(store: Store, now: float) -> tuple[Entry, ...]:
    """Return what is revoked, and remove what nobody needs any more.

    Raises:
        Unavailable: where the store did not answer.
    """
    found = await store.revocations()
    stale = {field: each for field, each in found.items() if _is_stale(each, now)}
    with suppress(Unavailable):  # who may only read is not kept from reading
        await store.discard(stale)
    left = (entry_of(field, each) for field, each in found.items() if field not in stale)
    return tuple(sorted(left, key=lambda entry: (entry.remark.at or 0, entry.id)))


async def prune(store: Store, now: float) -> None:
    """Remove what nobody needs any more.

    Raises:
        Unavailable: where the store did not answer.
    """
    found = await store.revocations()
    await store.discard({field: each for field, each in found.items() if _is_stale(each, now)})


async def lift(
    store: Store, ids: Sequence[str], moment: int, remark: Remark, *, restore: bool
) -> tuple[tuple[Entry, Entry | None], ...]:
    """Lift revocations; all that are named, or none where one cannot be.

    A person's, client's or grant's is replaced by one of what was issued up to now: what was
    taken back stays so, and its step-ups with it; who logs in again passes. A token's is removed.

    Args:
        store: where revocations are kept.
        ids: as listed; the beginning of one is enough where no other begins so.
        moment: what was issued up to this second stays refused.
        remark: who, when, why.
        restore: remove it as if it had never been, so that what it took back passes again.

    Returns:
        What was lifted, each with what is left of it.

    Raises:
        NotLiftedError: where an id names none or several, or there is nothing to lift.
        Unavailable: where the store did not confirm it.
    """
    found = await entries(store, moment)
    named = tuple(dict.fromkeys(_named(each, found) for each in ids))
    for entry in named:
        if not restore and _keeps(entry) and entry.revocation.issued_until is not None:
            raise NotLiftedError(
                f"{entry.id} refuses only what was issued before; new log-ins pass already."
                " --restore lets the old ones pass again"
            )
    return tuple([(each, await _lift(store, each, moment, remark, restore)) for each in named])


async def _lift(
    store: Store, entry: Entry, moment: int, remark: Remark, restore: bool
) -> Entry | None:
    if restore or not _keeps(entry):
        await store.lift(entry.target.field)
        return None
    left = Revocation(moment, moment + LONGEST, written(entry.target, remark))
    await store.revoke(entry.target.field, left)
    return entry_of(entry.target.field, left)


def _keeps(entry: Entry) -> bool:
    """Tell whether something of a revocation is to be left when it is lifted."""
    return entry.what in ("person", "client", "grant", "everything")


def _named(text: str, found: Sequence[Entry]) -> Entry:
    exact = [entry for entry in found if entry.id == text]
    kind, _, digest = text.partition(":")
    begun = [entry for entry in found if len(digest) >= _SHORTEST_ID and entry.id.startswith(text)]
    match exact or begun:
        case [one]:
            return one
        case []:
            raise NotLiftedError(f"there is no revocation {text[:80]!a}")
        case _:
            raise NotLiftedError(f"several revocations begin with {kind}:{digest}")


def _is_stale(revocation: Revocation, now: float) -> bool:
    return revocation.until is not None and revocation.until + MARGIN < now
