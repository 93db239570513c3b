"""Revocations as operators make, list and lift them: whose tokens, who revoked them, when and why.

Invariant: only `lift` and `restore` make a revocation weaker than it was
(tests/ledger/test_revocations.py).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from authz.core.ledger import UnavailableError
from authz.core.principal import Client, Person
from authz.core.strict_json import StrictJsonError, loads
from authz.ledger.keys import EVERYTHING, client_field, grant_field, person_field, token_field
from authz.ledger.records import Revocation, stricter

MAX_NAME: Final = 2_048  # characters: as many as the id of a registered client has
MAX_REASON: Final = 200
MAX_BY: Final = 64


@dataclass(frozen=True, slots=True)
class RevocationTarget:
    """Name whose tokens are taken back.

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
    """Tell who took something back, when and why.

    Attributes:
        at: seconds since the epoch; None where a record does not say.
        by, reason: words; empty where there are none.
    """

    at: int | None = None
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RevocationEntry:
    """Hold one revocation as it is shown.

    Attributes:
        target: whose tokens; without a name where the record's is not proved by its field.
        revocation: which of them.
        note: who, when, why.
    """

    target: RevocationTarget
    revocation: Revocation
    note: RevocationNote

    @property
    def id(self) -> str:
        """Return what it is lifted by."""
        return self.target.field.decode("ascii", "backslashreplace")

    @property
    def what(self) -> str:
        """Return its kind: token, person, client, grant, everything, or unknown."""
        kind = self.id.partition(":")[0]
        return kind if kind in _PROOFS else "unknown"

    def to_json(self) -> dict[str, str | int | None]:
        """Return it for programs; moments are seconds since the epoch."""
        return {
            "id": self.id,
            "what": self.what,
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


# What a field must be for the name in its record to be true.
_PROOFS: Final[Mapping[str, Callable[[str, str], bytes | None]]] = {
    "token": lambda _issuer, _name: None,
    "person": lambda issuer, name: person_field(Person(issuer, name)),
    "client": lambda issuer, name: client_field(Client(issuer, name)),
    "grant": grant_field,
    "everything": lambda _issuer, _name: None,
}


def encode_metadata(target: RevocationTarget, note: RevocationNote) -> str:
    """Return the words of a record: JSON in ASCII, of bounded length."""
    said = {
        "at": note.at,
        "by": note.by[:MAX_BY],
        "why": note.reason[:MAX_REASON],
        "issuer": target.issuer,
        "name": target.name[:MAX_NAME],
    }
    return json.dumps({name: value for name, value in said.items() if value}, ensure_ascii=True)


def read_entry(field: bytes, revocation: Revocation) -> RevocationEntry:
    """Read a record of the revocations; whatever it holds, it is shown."""
    said = dict(_read_words(revocation.words))
    at = said.get("at")
    note = RevocationNote(
        at if isinstance(at, int) and 0 <= at < 10**15 else None,
        _shown(said.get("by"), MAX_BY),
        _shown(said.get("why"), MAX_REASON),
    )
    return RevocationEntry(_proved(field, said.get("issuer"), said.get("name")), revocation, note)


def _read_words(words: str) -> Iterator[tuple[str, object]]:
    """Yield what the words of a record say; of another's words, that they are words."""
    try:
        said = loads(words.encode("utf-8", "backslashreplace"))
    except StrictJsonError:
        said = None
    if isinstance(said, dict):
        yield from said.items()
    else:
        yield "why", words


def _proved(field: bytes, issuer: object, name: object) -> RevocationTarget:
    """Return the target of a field, with its name where the field is the digest of it."""
    prove = _PROOFS.get(field.partition(b":")[0].decode("ascii", "replace"))
    if prove is None or not isinstance(issuer, str) or not isinstance(name, str):
        return RevocationTarget(field)
    return (
        RevocationTarget(field, issuer, name)
        if prove(issuer, name) == field
        else RevocationTarget(field)
    )


def _shown(text: object, longest: int) -> str:
    """Return words of a record as a terminal may show them."""
    if not isinstance(text, str):
        return ""
    plain = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[:longest])
    return plain + ("…" if len(text) > longest else "")


# The most that `issuer.max_lifetime` may be: no token lives longer, whatever it is set to later.
MAX_LIFETIME: Final = 30 * 86_400
# How long a record is kept beyond its need: a clock that is off must not bring a token back.
CLOCK_MARGIN: Final = 86_400
_SHORTEST_ID: Final = 4  # characters of a digest


class RevocationStore(Protocol):
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
    store: RevocationStore,
    target: RevocationTarget,
    issued_until: int | None,
    until: int | None,
    note: RevocationNote,
) -> RevocationEntry:
    """Take tokens back, and return the record as it stands then.

    Of a record that is there already the stricter half of both is kept; it is left alone where it
    says all that is asked for.

    Args:
        store: where revocations are kept.
        target: whose tokens.
        issued_until: those issued at or before this second; None for all.
        until: the second after which nobody needs the record; None to keep it.
        note: who, when, why.

    Raises:
        UnavailableError: where the store did not confirm it.
        ValueError: where a moment cannot be written.
    """
    before = (await store.revocations()).get(target.field)
    wanted = Revocation(issued_until, until, encode_metadata(target, note))
    if before is not None:
        wanted = replace(stricter(before, wanted), words=wanted.words)
        if replace(wanted, words=before.words) == before:
            return read_entry(target.field, before)
    await store.revoke(target.field, wanted)
    return read_entry(target.field, wanted)


async def list_revocations(store: RevocationStore, now: float) -> tuple[RevocationEntry, ...]:
    """Return what is revoked, and remove what nobody needs any more.

    Raises:
        UnavailableError: where the store did not answer.
    """
    found = await store.revocations()
    stale = {field: each for field, each in found.items() if _is_stale(each, now)}
    with suppress(UnavailableError):  # who may only read is not kept from reading
        await store.discard(stale)
    left = (read_entry(field, each) for field, each in found.items() if field not in stale)
    return tuple(sorted(left, key=lambda entry: (entry.note.at or 0, entry.id)))


async def prune(store: RevocationStore, now: float) -> None:
    """Remove what nobody needs any more.

    Raises:
        UnavailableError: where the store did not answer.
    """
    found = await store.revocations()
    await store.discard({field: each for field, each in found.items() if _is_stale(each, now)})


async def lift(
    store: RevocationStore, ids: Sequence[str], moment: int, note: RevocationNote, *, restore: bool
) -> tuple[tuple[RevocationEntry, RevocationEntry | None], ...]:
    """Lift revocations; all that are named, or none where one cannot be.

    A person's, client's or grant's is replaced by one of what was issued up to now: what was
    taken back stays so, and its step-ups with it; who logs in again passes. A token's is removed.

    Args:
        store: where revocations are kept.
        ids: as listed; the beginning of one is enough where no other begins so.
        moment: what was issued up to this second stays refused.
        note: who, when, why.
        restore: remove it as if it had never been, so that what it took back passes again.

    Returns:
        What was lifted, each with what is left of it.

    Raises:
        NotLiftedError: where an id names none or several, or there is nothing to lift.
        UnavailableError: where the store did not confirm it.
    """
    found = await list_revocations(store, moment)
    named = tuple(dict.fromkeys(_named(each, found) for each in ids))
    for entry in named:
        if not restore and _keeps(entry) and entry.revocation.issued_until is not None:
            raise NotLiftedError(
                f"{entry.id} refuses only what was issued before; new log-ins pass already."
                " --restore lets the old ones pass again"
            )
    return tuple([(each, await _lift(store, each, moment, note, restore)) for each in named])


async def _lift(
    store: RevocationStore, entry: RevocationEntry, moment: int, note: RevocationNote, restore: bool
) -> RevocationEntry | None:
    if restore or not _keeps(entry):
        await store.lift(entry.target.field)
        return None
    left = Revocation(moment, moment + MAX_LIFETIME, encode_metadata(entry.target, note))
    await store.revoke(entry.target.field, left)
    return read_entry(entry.target.field, left)


def _keeps(entry: RevocationEntry) -> bool:
    """Tell whether something of a revocation is to be left when it is lifted."""
    return entry.what in ("person", "client", "grant", "everything")


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


def _is_stale(revocation: Revocation, now: float) -> bool:
    return revocation.until is not None and revocation.until + CLOCK_MARGIN < now
