"""People who have logged in, and which of them an operator means.

Invariant: a name finds a person only where nobody else is, or was, called so in what is known, and
a subject always finds its own person, whatever others are called
(tests/login/protocol/test_people.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import ClassVar, Final

from pydantic import ConfigDict

from authz.login.protocol.members import STRICT, MembersCodec
from authz.login.protocol.values import LoginIdentity

_MOST: Final = 3  # names that are suggested


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """Hold what the issuer's newest ID token said of a person.

    Attributes:
        subject: its `sub`.
        account: its `preferred_username`, which is unique at Authelia; may be empty.
        email: its `email`; may be empty.
        seen_at: seconds since the epoch.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    subject: str
    account: str
    email: str
    seen_at: int


PERSON_RECORD: Final = MembersCodec(PersonRecord)


def person_record(who: LoginIdentity, now: int) -> PersonRecord:
    """Return the record of who has just logged in."""
    return PersonRecord(who.subject, who.account, who.email, now)


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """Describe one person for operators.

    Attributes:
        name: the digest that names the person in keys and in revocations.
        subject: empty where an earlier release recorded the log-in, which kept the digest alone.
        account, email: what the person is called; may be empty.
        last: when the person was seen last, seconds since the epoch.
        former: other names of the person in log-ins that are older.
        log_ins: how many log-ins at the front door have not ended.
    """

    name: str
    subject: str
    account: str
    email: str
    last: int
    former: frozenset[str] = field(default_factory=frozenset[str])
    log_ins: int = 0

    @property
    def names(self) -> frozenset[str]:
        """Return what the person is called now, but for the subject."""
        return frozenset({self.account, self.email}) - {""}

    def to_json(self) -> dict[str, object]:
        """Return it for programs."""
        return {
            "subject": self.subject,
            "account": self.account,
            "email": self.email,
            "log_ins": self.log_ins,
            "last": self.last,
        }


class UnknownPersonError(ValueError):
    """Say that nobody is known by a name.

    Attributes:
        near: names that are like it.
    """

    def __init__(self, near: Sequence[str]) -> None:
        """Take the names that are like it."""
        super().__init__("nobody is known by that name")
        self.near = tuple(near)


class AmbiguousPersonError(ValueError):
    """Say that a name may mean several people, or somebody who is called otherwise now.

    Attributes:
        candidates: whom it may mean.
    """

    def __init__(self, candidates: Sequence[KnownPerson]) -> None:
        """Take whom it may mean."""
        super().__init__("the name does not say who is meant")
        self.candidates = tuple(candidates)


def find_person(name: str, people: Sequence[KnownPerson]) -> KnownPerson:
    """Return the person that an operator means: by subject, else by account or e-mail address.

    `person:` and the digest, as revocations are listed, means a person whose subject is not known.

    Letter case counts. A name that a person had earlier finds nobody: it may be another's by now.

    Raises:
        UnknownPersonError: where nobody is called so.
        AmbiguousPersonError: where several are, or where somebody was called so earlier.
    """
    for person in people:
        if name and name in (person.subject, f"person:{person.name}"):
            return person
    now = [person for person in people if name in person.names]
    earlier = [person for person in people if name in person.former - person.names]
    match now, earlier:
        case [person], []:
            return person
        case [], []:
            known = sorted({each for person in people for each in person.names | {person.subject}})
            raise UnknownPersonError(get_close_matches(name, [*filter(None, known)], _MOST))
        case _:
            raise AmbiguousPersonError([*now, *earlier])
