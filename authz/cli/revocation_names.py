"""Whose tokens an operator means: names, e-mail addresses, subjects, clients and log-ins.

Invariant: nothing is taken for a name of somebody that is not in a log-in, in the audit trail or in
authz.yaml, unless that is forced, and a name that several people have is refused with all of them
(tests/cli/test_revocation_names.py).
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final, NamedTuple

from authz.audit.query import NAMING_EVENTS, latest_records
from authz.audit.record import AuditRecord
from authz.audit.store import TrailStore
from authz.cli.common import CommandError
from authz.cli.login_stores import LoginStores, login_stores
from authz.cli.revocation_commands import LedgerRequest, shown_moment, shown_text
from authz.core.browser_session import CLIENT_ID
from authz.core.principal import Client, Person
from authz.ledger import revocations
from authz.ledger.keys import person_digest
from authz.ledger.redis import RedisLedger
from authz.ledger.revocations import RevocationTarget
from authz.login.clients.operator_names import AmbiguousClientError, UnknownClientError, called
from authz.login.protocol.people import (
    AmbiguousPersonError,
    KnownPerson,
    UnknownPersonError,
    find_person,
)

UNKNOWN: Final = 3  # exit status: nobody is known by that name, and nothing was changed
_MOST: Final = 3
_NO_ADDRESSES: Final = (
    " E-mail addresses are known only with front_door.email_addresses: true (docs/revocation.md)."
)


class NamedTarget(NamedTuple):
    """Say whose tokens are revoked, and what is known of them.

    Attributes:
        target: for the revocation.
        description: who that is, for people; empty where the revocation's own words say it.
        person: whose; None for a client, or a person of whom nothing is known.
        log_ins: of these at the front door, those that have not ended.
        is_known: whether anybody is known by that name.
    """

    target: RevocationTarget
    description: str
    person: KnownPerson | None
    log_ins: int
    is_known: bool


@dataclass(frozen=True, slots=True)
class NameResolver:
    """Find whom an operator means, in one deployment.

    Every method raises CommandError for what is unknown (status 3) or ambiguous, and
    UnavailableError where Redis does not answer.

    Attributes:
        ledger, request: of the command.
        force: take a name that nobody is known by for a subject, a client_id or a log-in's id.
        option: by which a person is named.
        outcome: what an error says of what was not done.
        forcing: what it says of `force`.
    """

    ledger: RedisLedger
    request: LedgerRequest
    force: bool
    option: str = "--user"
    outcome: str = "nothing was revoked"
    forcing: str = "; --force revokes that very name all the same"

    async def person(self, name: str) -> NamedTarget:
        """Return whose tokens `--user` means."""
        stores = self._stores()
        known = () if stores is None else await stores.known_people()
        person = self._find(name, known)
        if person is None:
            person = self._find(name, [*known, *await self._people_of_trail(known)])
        elif name not in (person.subject, f"person:{person.name}"):
            person = await self._unless_subject(name, person)
        issuer = self._issuer
        if person is None:
            self._check_forced("person", name, _near_people(name, known))
            return NamedTarget(
                revocations.person_target(Person(issuer, name)), "", None, 0, is_known=False
            )
        target = (
            revocations.person_target(Person(issuer, person.subject))
            if person.subject
            else RevocationTarget(b"person:" + person.name.encode("ascii"))
        )
        return NamedTarget(target, describe_person(person), person, person.log_ins, is_known=True)

    async def client(self, name: str) -> NamedTarget:
        """Return whose tokens `--client` means."""
        config, stores = self.request.settings.config, self._stores()
        known = () if stores is None else await stores.known_clients()
        names = list(config.named)
        try:
            found = called(name, [each.called for each in known], names)
        except AmbiguousClientError as error:
            raise CommandError(f"--client: {error}; nothing was revoked") from None
        except UnknownClientError:
            found = name
        log_ins = sum(each.log_ins for each in known if found in (each.name, each.client_id))
        is_known = bool(log_ins) or found in names or found == CLIENT_ID
        if not is_known:
            seen = {record.fields.get("client_id", "") async for record in self._records()}
            is_known = found in seen
            names += [each.name for each in known] + sorted(seen - {""})
        if not is_known:
            self._check_forced("client", name, get_close_matches(name, names, _MOST))
        target = revocations.client_target(Client(self._issuer, found))
        return NamedTarget(target, "", None, log_ins, is_known)

    async def grant(self, name: str) -> NamedTarget:
        """Return whose tokens `--grant` means."""
        stores = self._stores()
        person, is_usable, is_known = None, False, False
        if stores is not None:
            async for key, grant in stores.grants.all_grants():
                if grant.id == name:
                    is_known, is_usable = True, stores.grants.is_usable(grant)
                    who = stores.grants.person_name(key)
                    people = await stores.known_people()
                    person = next((each for each in people if each.name == who), None)
        if not is_known:
            is_known = name in {record.fields.get("grant", "") async for record in self._records()}
        if not is_known:
            self._check_forced("log-in", name, ())
        target = revocations.grant_target(self._issuer, name)
        whose = "" if person is None else f"all of the log-in {name} of {describe_person(person)}"
        return NamedTarget(target, whose, person, int(is_usable), is_known)

    async def token(self, text: str) -> KnownPerson | None:
        """Return whose a token of the front door is; None for others."""
        stores = self._stores()
        record = None if stores is None else await stores.records.get(text)
        if record is None:
            return None
        name = person_digest(Person(self._issuer, record.subject))
        return KnownPerson(name, record.subject, record.account, "", 0)

    @property
    def _issuer(self) -> str:
        return self.request.settings.config.issuer.url

    @property
    def _trail(self) -> TrailStore:
        return TrailStore(self.ledger.command, self.request.options.keys)

    def _stores(self) -> LoginStores | None:
        return login_stores(self.ledger, self.request)

    def _find(self, name: str, people: Sequence[KnownPerson]) -> KnownPerson | None:
        try:
            return find_person(name, people)
        except UnknownPersonError:
            return None
        except AmbiguousPersonError as error:
            listed = "\n".join(f"  {_candidate(each)}" for each in error.candidates)
            raise CommandError(
                f"{self.option}: {shown_text(name)} does not say who is meant; {self.outcome}. Give"
                f" one of these subjects:\n{listed}"
            ) from None

    async def _unless_subject(self, name: str, found: KnownPerson) -> KnownPerson:
        """Return who has a name as subject, if anybody in the trail has; else who is called so.

        Whoever may choose a user name must not be taken for the person whose subject it repeats.
        """
        other = Person(self._issuer, name)
        is_subject = await self._trail.knows(other)
        return KnownPerson(person_digest(other), name, "", "", 0) if is_subject else found

    def _check_forced(self, kind: str, name: str, near: Sequence[str]) -> None:
        if self.force:
            return
        like = f"; did you mean {' or '.join(map(shown_text, near))}?" if near else ""
        mail = self.request.settings.config.front_door
        unasked = "@" in name and mail is not None and not mail.email_addresses
        hint = _NO_ADDRESSES if kind == "person" and unasked else ""
        raise CommandError(
            f"no {kind} is known by the name {shown_text(name)}, so {self.outcome}{like or '.'}"
            f"{hint} `authz clients` and `authz audit` show who is known{self.forcing}",
            UNKNOWN,
        )

    def _records(self) -> AsyncIterator[AuditRecord]:
        """Yield what the audit trail tells of requests and log-ins, the latest first."""
        return latest_records(self._trail, NAMING_EVENTS)

    async def _people_of_trail(self, known: Sequence[KnownPerson]) -> list[KnownPerson]:
        """Return people of the audit trail who are not known otherwise."""
        others = {person.subject for person in known}
        found = dict[str, KnownPerson]()
        async for record in self._records():
            subject, account = record.fields.get("subject", ""), record.fields.get("account", "")
            if not subject or subject in others:
                continue
            before = found.get(subject)
            if before is None:
                name = person_digest(Person(self._issuer, subject))
                found[subject] = KnownPerson(name, subject, account, "", int(record.time))
            elif not before.account:
                found[subject] = replace(before, account=account)
            elif account not in ("", before.account):
                found[subject] = replace(before, former=before.former | {account})
        return list(found.values())


def describe_person(person: KnownPerson) -> str:
    """Return who a person is, for an operator, safe for a terminal."""
    names = [shown_text(each) for each in (person.account, person.email) if each]
    subject = shown_text(person.subject) or f"person:{person.name}"
    return f"{', '.join(names)} (subject {subject})" if names else f"the subject {subject}"


def _candidate(person: KnownPerson) -> str:
    subject = shown_text(person.subject) or f"person:{person.name}"
    names = ", ".join(shown_text(each) for each in (person.account, person.email) if each)
    former = ", ".join(map(shown_text, sorted(person.former)))
    earlier = f", earlier {former}" if former else ""
    last = shown_moment(person.last)
    return f"{subject}  {names}{earlier}; {person.log_ins} log-in(s), last seen {last}"


def _near_people(name: str, known: Sequence[KnownPerson]) -> Sequence[str]:
    try:
        find_person(name, known)
    except UnknownPersonError as error:
        return error.near
    except AmbiguousPersonError:
        pass
    return ()
