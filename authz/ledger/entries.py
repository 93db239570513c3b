"""One revocation as people see it: whose tokens, who took them back, when and why.

Law: what is shown of a record is what its field proves, and is printable: a name that the field is
no digest of is not shown. Whatever stands in a record is read as words at least.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from authz.core.principal import Client, Person
from authz.core.strict_json import StrictJsonError, loads
from authz.ledger.keys import EVERYTHING, client_field, grant_field, person_field, token_field
from authz.ledger.records import Revocation

LONGEST_NAME: Final = 2_048  # characters: as many as the id of a registered client has
LONGEST_REASON: Final = 200
LONGEST_BY: Final = 64


@dataclass(frozen=True, slots=True)
class Target:
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
class Remark:
    """Tell who took something back, when and why.

    Attributes:
        at: seconds since the epoch; None where a record does not say.
        by, reason: words; empty where there are none.
    """

    at: int | None = None
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """Hold one revocation as it is shown.

    Attributes:
        target: whose tokens; without a name where the record's is not proved by its field.
        revocation: which of them.
        remark: who, when, why.
    """

    target: Target
    revocation: Revocation
    remark: Remark

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
            "at": self.remark.at,
            "by": self.remark.by,
            "reason": self.remark.reason,
        }


def token(token_id: str) -> Target:
    """Name one token."""
    return Target(token_field(token_id))


def person(who: Person) -> Target:
    """Name a person's tokens."""
    return Target(person_field(who), who.issuer, who.subject)


def client(which: Client) -> Target:
    """Name a client's tokens."""
    return Target(client_field(which), which.issuer, which.client_id)


def grant(issuer: str, which: str) -> Target:
    """Name the tokens and step-ups of a grant of the front door."""
    return Target(grant_field(issuer, which), issuer, which)


def everything() -> Target:
    """Name all tokens."""
    return Target(EVERYTHING)


# What a field must be for the name in its record to be true.
_PROOFS: Final[Mapping[str, Callable[[str, str], bytes | None]]] = {
    "token": lambda _issuer, _name: None,
    "person": lambda issuer, name: person_field(Person(issuer, name)),
    "client": lambda issuer, name: client_field(Client(issuer, name)),
    "grant": grant_field,
    "everything": lambda _issuer, _name: None,
}


def written(target: Target, remark: Remark) -> str:
    """Return the words of a record: JSON in ASCII, of bounded length."""
    said = {
        "at": remark.at,
        "by": remark.by[:LONGEST_BY],
        "why": remark.reason[:LONGEST_REASON],
        "issuer": target.issuer,
        "name": target.name[:LONGEST_NAME],
    }
    return json.dumps({name: value for name, value in said.items() if value}, ensure_ascii=True)


def entry_of(field: bytes, revocation: Revocation) -> Entry:
    """Read a record of the revocations; whatever it holds, it is shown."""
    said = dict(_read_words(revocation.words))
    at = said.get("at")
    remark = Remark(
        at if isinstance(at, int) and 0 <= at < 10**15 else None,
        _shown(said.get("by"), LONGEST_BY),
        _shown(said.get("why"), LONGEST_REASON),
    )
    return Entry(_proved(field, said.get("issuer"), said.get("name")), revocation, remark)


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


def _proved(field: bytes, issuer: object, name: object) -> Target:
    """Return the target of a field, with its name where the field is the digest of it."""
    prove = _PROOFS.get(field.partition(b":")[0].decode("ascii", "replace"))
    if prove is None or not isinstance(issuer, str) or not isinstance(name, str):
        return Target(field)
    return Target(field, issuer, name) if prove(issuer, name) == field else Target(field)


def _shown(text: object, longest: int) -> str:
    """Return words of a record as a terminal may show them."""
    if not isinstance(text, str):
        return ""
    plain = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[:longest])
    return plain + ("…" if len(text) > longest else "")
