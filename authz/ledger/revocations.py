"""Revocations as operators make, list and lift them: whose tokens, who revoked them, when and why.

Invariant: `revoke` makes no revocation weaker than it was, also where several operators revoke at
once; only `lift` does (tests/ledger/test_revocations.py). A name in a record is shown only where
the record's field is its digest, and whatever is shown is printable.

Functions that take a store raise UnavailableError where it did not answer or confirm.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from authz.core.ledger import LedgerAnswer, Query, Revoked, UnavailableError
from authz.core.principal import Client, Person
from authz.core.strict_json import StrictJsonError, loads
from authz.ledger.keys import EVERYTHING, client_field, grant_field, person_field, token_field
from authz.ledger.records import Revocation, stricter

MAX_NAME: Final = 2_048  # characters: as many as the client_id of a registered client has
MAX_REASON: Final = 200
MAX_BY: Final = 64


@dataclass(frozen=True, slots=True)
class RevocationTarget:
    """Whose tokens are revoked.

    Attributes:
        field: of the revocations (authz.ledger.keys).
        issuer, name: the person's subject, the client's id or the grant's, with its issuer; empty
            otherwise.
    """

    field: bytes
    issuer: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class RevocationNote:
    """Who revoked something, when and why.

    Attributes:
        at: seconds since the epoch; None where a record does not say.
        by, reason: empty where a record does not say.
    """

    at: int | None = None
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RevocationEntry:
    """One revocation as it is shown to operators.

    Attributes:
        target: whose tokens; without a name where the record's field is not its digest.
        revocation: which of them.
        note: who, when, why.
    """

    target: RevocationTarget
    revocation: Revocation
    note: RevocationNote

    @property
    def id(self) -> str:
        """Return the id by which it is lifted."""
        return self.target.field.decode("ascii", "backslashreplace")

    @property
    def kind(self) -> str:
        """Return its kind: token, person, client, grant, everything, or unknown."""
        kind = self.id.partition(":")[0]
        return kind if kind in _FIELD_OF else "unknown"

    def to_json(self) -> dict[str, str | int | None]:
        """Return it for programs; moments are seconds since the epoch."""
        return {
            "id": self.id,
            "what": self.kind,
            "issuer": self.target.issuer,
            "name": self.target.name,
            "issued_until": self.revocation.issued_until,
            "until": self.revocation.until,
            "at": self.note.at,
            "by": self.note.by,
            "reason": self.note.reason,
        }


def token_target(token_id: str) -> RevocationTarget:
    """Name one token."""
    return RevocationTarget(token_field(token_id))


def person_target(who: Person) -> RevocationTarget:
    """Name a person's tokens."""
    return RevocationTarget(person_field(who), who.issuer, who.subject)


def client_target(which: Client) -> RevocationTarget:
    """Name a client's tokens."""
    return RevocationTarget(client_field(which), which.issuer, which.client_id)


def grant_target(issuer: str, which: str) -> RevocationTarget:
    """Name the tokens and step-ups of a grant of the front door."""
    return RevocationTarget(grant_field(issuer, which), issuer, which)


def everything_target() -> RevocationTarget:
    """Name all tokens."""
    return RevocationTarget(EVERYTHING)


# The field of a kind and name: that of a record must equal it for the name to be shown.
_FIELD_OF: Final[Mapping[str, Callable[[str, str], bytes | None]]] = {
    "token": lambda _issuer, _name: None,
    "person": lambda issuer, name: person_field(Person(issuer, name)),
    "client": lambda issuer, name: client_field(Client(issuer, name)),
    "grant": grant_field,
    "everything": lambda _issuer, _name: None,
}


def encode_metadata(target: RevocationTarget, note: RevocationNote) -> str:
    """Return the metadata of a record: JSON in ASCII, of bounded length."""
    members = {
        "at": note.at,
        "by": note.by[:MAX_BY],
        "why": note.reason[:MAX_REASON],
        "issuer": target.issuer,
        "name": target.name[:MAX_NAME],
    }
    return json.dumps({name: value for name, value in members.items() if value}, ensure_ascii=True)


def read_entry(field: bytes, revocation: Revocation) -> RevocationEntry:
    """Return a stored revocation as an entry; a record with malformed metadata is shown too."""
    metadata = dict(_read_metadata(revocation.metadata))
    at = metadata.get("at")
    note = RevocationNote(
        at if isinstance(at, int) and 0 <= at < 10**15 else None,
        _printable(metadata.get("by"), MAX_BY),
        _printable(metadata.get("why"), MAX_REASON),
    )
    return RevocationEntry(
        _read_target(field, metadata.get("issuer"), metadata.get("name")), revocation, note
    )


def _read_metadata(metadata: str) -> Iterator[tuple[str, object]]:
    """Yield the members of a record's metadata; where it is no JSON, all of it is the reason."""
    try:
        members = loads(metadata.encode("utf-8", "backslashreplace"))
    except StrictJsonError:
        members = None
    if isinstance(members, dict):
        yield from members.items()
    else:
        yield "why", metadata


def _read_target(field: bytes, issuer: object, name: object) -> RevocationTarget:
    """Return the target of a field, with its name where the field is the digest of it."""
    field_of = _FIELD_OF.get(field.partition(b":")[0].decode("ascii", "replace"))
    if field_of is None or not isinstance(issuer, str) or not isinstance(name, str):
        return RevocationTarget(field)
    is_proved = field_of(issuer, name) == field
    return RevocationTarget(field, issuer, name) if is_proved else RevocationTarget(field)


def _printable(text: object, longest: int) -> str:
    """Return a text of a record as a terminal may show it."""
    if not isinstance(text, str):
        return ""
    plain = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[:longest])
    return plain + ("…" if len(text) > longest else "")


# The most that `issuer.max_lifetime` may be, so that no token lives longer.
MAX_LIFETIME: Final = 30 * 86_400
# How long a record is kept beyond its need: a clock that is off must not bring a token back.
CLOCK_MARGIN: Final = 86_400
_SHORTEST_ID: Final = 4  # characters of a digest


class RevocationStore(Protocol):
    """Keep revocations (`RedisLedger`, `MemoryLedger`); every method may raise UnavailableError."""

    async def revoke(self, target: bytes, revocation: Revocation) -> None:
        """Write a revocation, whatever is there."""
        ...

    async def update(
        self, target: bytes, change: Callable[[Revocation | None], Revocation]
    ) -> Revocation:
        """Write what `change` makes of a revocation, atomically; return what stands then."""
        ...

    async def lift(self, target: bytes, found: Revocation | None = None) -> bool:
        """Remove a revocation, if it still is as it was found; return whether it was removed."""
        ...

    async def discard(self, found: Mapping[bytes, Revocation]) -> None:
        """Remove revocations that still are as they were found."""
        ...

    async def revocations(self) -> Mapping[bytes, Revocation]:
        """Return all revocations by their target."""
        ...

    async def take(self, query: Query) -> LedgerAnswer:
        """Answer a decision (authz.core.ledger.Ledger)."""
        ...


def _nothing(_: RevocationEntry) -> AbstractAsyncContextManager[object]:
    return nullcontext()


class NotLiftedError(ValueError):
    """Nothing was lifted, for the reason in the message."""


async def revoke(
    store: RevocationStore,
    target: RevocationTarget,
    issued_until: int | None,
    until: int | None,
    note: RevocationNote,
) -> RevocationEntry:
    """Revoke tokens, and return the record as it stands then.

    A record that is there already is merged with what is asked, so that the stricter of both
    holds; it is left alone where it says all that is asked for.

    Args:
        store: where revocations are kept.
        target: whose tokens.
        issued_until: those issued at or before this second; None for all.
        until: the second after which the record is not needed; None to keep it.
        note: who, when, why.

    Raises:
        ValueError: where a moment cannot be written.
    """
    asked = Revocation(issued_until, until, encode_metadata(target, note))

    def merge(before: Revocation | None) -> Revocation:
        if before is None:
            return asked
        merged = replace(stricter(before, asked), metadata=before.metadata)
        return before if merged == before else replace(merged, metadata=asked.metadata)

    return read_entry(target.field, await store.update(target.field, merge))


async def is_in_force(store: RevocationStore, target: RevocationTarget, issued_at: int) -> bool:
    """Tell whether a revocation that was written refuses a token of its target.

    Where the target tells whose token it is, the question is that of a decision, which charges
    nothing.

    Args:
        store: where revocations are kept.
        target: whose token.
        issued_at: of the token, seconds since the epoch.
    """
    query = _query(target, issued_at)
    if query is not None:
        return isinstance(await store.take(query), Revoked)
    found = (await store.revocations()).get(target.field)
    return found is not None and found.covers(issued_at)


def _query(target: RevocationTarget, issued_at: int) -> Query | None:
    """Return what a decision about such a token asks; None where the target does not tell."""
    kind, _, rest = target.field.partition(b":")
    nobody = Query(
        token_id="",
        person=None,
        client=Client(target.issuer, ""),
        issued_at=issued_at,
        step_up_key=None,
        step_up=None,
        takes=(),
    )
    if target.field == EVERYTHING:
        return nobody
    match kind:
        case b"token":
            return replace(nobody, token_id=rest.decode("utf-8", "surrogatepass"))
        case b"person" if target.name:
            return replace(nobody, person=Person(target.issuer, target.name))
        case b"client" if target.name:
            return replace(nobody, client=Client(target.issuer, target.name))
        case b"grant" if target.name:
            return replace(nobody, grant=target.name)
        case _:
            return None


async def list_revocations(store: RevocationStore, now: float) -> tuple[RevocationEntry, ...]:
    """Return what is revoked, and remove records that are not needed any more."""
    found = await store.revocations()
    stale = _stale(found, now)
    with suppress(UnavailableError):  # an ACL user without the right to write may read
        await store.discard(stale)
    left = (read_entry(field, each) for field, each in found.items() if field not in stale)
    return tuple(sorted(left, key=lambda entry: (entry.note.at or 0, entry.id)))


async def prune(store: RevocationStore, now: float) -> None:
    """Remove records that are not needed any more."""
    await store.discard(_stale(await store.revocations(), now))


async def lift(
    store: RevocationStore,
    ids: Sequence[str],
    moment: int,
    note: RevocationNote,
    *,
    restore: bool,
    around: Callable[[RevocationEntry], AbstractAsyncContextManager[object]] = _nothing,
) -> tuple[tuple[RevocationEntry, RevocationEntry | None], ...]:
    """Lift revocations; all that are named, or none where one cannot be.

    One of a person, client or grant is replaced by one of what was issued up to now: what was
    revoked stays so, and its step-ups with it, but new log-ins pass. A token's is removed.

    Args:
        store: where revocations are kept.
        ids: as listed; an unambiguous prefix is enough.
        moment: what was issued up to this second stays revoked.
        note: who, when, why.
        restore: remove it altogether, so that what it revoked passes again.
        around: entered around the lifting of each.

    Returns:
        What was lifted, each with what is left of it.

    Raises:
        NotLiftedError: where an id names none or several, or there is nothing to lift; and where
            another writer changed one meanwhile, which stays then (those before it are lifted).
    """
    found = await list_revocations(store, moment)
    named = tuple(dict.fromkeys(_named(each, found) for each in ids))
    for entry in named:
        if not restore and _leaves_remainder(entry) and entry.revocation.issued_until is not None:
            raise NotLiftedError(
                f"{entry.id} refuses only what was issued before; new log-ins pass already."
                " --restore lets the old ones pass again"
            )
    lifted = list[tuple[RevocationEntry, RevocationEntry | None]]()
    for entry in named:
        async with around(entry):
            lifted.append((entry, await _lift(store, entry, moment, note, restore)))
    return tuple(lifted)


async def _lift(
    store: RevocationStore, entry: RevocationEntry, moment: int, note: RevocationNote, restore: bool
) -> RevocationEntry | None:
    changed = NotLiftedError(f"{entry.id} was changed meanwhile, and stays; list it again")
    if restore or not _leaves_remainder(entry):
        if not await store.lift(entry.target.field, entry.revocation):
            raise changed
        return None
    left = Revocation(moment, moment + MAX_LIFETIME, encode_metadata(entry.target, note))

    def replaced(before: Revocation | None) -> Revocation:
        if before != entry.revocation:
            raise changed
        return left

    return read_entry(entry.target.field, await store.update(entry.target.field, replaced))


def _leaves_remainder(entry: RevocationEntry) -> bool:
    """Tell whether lifting an entry leaves a revocation of what was issued before."""
    return entry.kind in ("person", "client", "grant", "everything")


def _named(text: str, found: Sequence[RevocationEntry]) -> RevocationEntry:
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


def _stale(found: Mapping[bytes, Revocation], now: float) -> Mapping[bytes, Revocation]:
    oldest = now - CLOCK_MARGIN
    return {
        field: each
        for field, each in found.items()
        if each.until is not None and each.until < oldest
    }
