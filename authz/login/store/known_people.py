"""People who hold grants or have logged in, as the operator sees them."""

from dataclasses import dataclass, field

from authz.core.principal import Person
from authz.ledger.keys import person_digest
from authz.ledger.login_records import LoginRecords
from authz.login.protocol.grant import Grant
from authz.login.protocol.people import KnownPerson, PersonRecord
from authz.login.store.grants import GrantStore
from authz.login.store.people import PeopleStore


@dataclass(slots=True)
class _Found:
    """Gather what is known of one person."""

    record: PersonRecord | None = None
    grants: list[Grant] = field(default_factory=list[Grant])


async def known_people(
    people: PeopleStore, grants: GrantStore, records: LoginRecords
) -> tuple[KnownPerson, ...]:
    """Return everybody who is known, who was seen last first.

    Of people whose log-ins were recorded by an earlier release alone, the login record of an access
    token that still lives tells the subject.

    Raises:
        UnavailableError: where Redis does not answer.
    """
    found: dict[str, _Found] = {}
    async for name, record in people.all():
        found.setdefault(name, _Found()).record = record
    async for key, grant in grants.all_grants():
        if grants.is_usable(grant):
            found.setdefault(grants.person_name(key), _Found()).grants.append(grant)
    known = [await _known(name, each, grants.issuer, records) for name, each in found.items()]
    return tuple(sorted(known, key=lambda person: person.last, reverse=True))


async def _known(name: str, found: _Found, issuer: str, records: LoginRecords) -> KnownPerson:
    newest_first = sorted(found.grants, key=lambda grant: grant.used_at, reverse=True)
    record = found.record
    if record is None:
        subject = await _subject(name, newest_first, issuer, records)
        account = next((grant.account for grant in newest_first if grant.account), "")
        record = PersonRecord(subject, account, "", newest_first[0].used_at)
    return KnownPerson(
        name=name,
        subject=record.subject,
        account=record.account,
        email=record.email,
        last=max([record.seen_at, *(grant.used_at for grant in newest_first)]),
        former=frozenset(grant.account for grant in newest_first) - {record.account, ""},
        log_ins=len(newest_first),
    )


async def _subject(name: str, grants: list[Grant], issuer: str, records: LoginRecords) -> str:
    for grant in grants:
        record = await records.of_digest(grant.access)
        if record is not None and person_digest(Person(issuer, record.subject)) == name:
            return record.subject
    return ""
