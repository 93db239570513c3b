"""People who have logged in, in Redis: what Authelia calls each subject, sealed.

Invariant: whoever has a usable grant that this release began or refreshed has a record, which is
kept as long as any of their grants, or a session of a page, may be (tests/login/test_flow.py).
Nobody has one whom Authelia did not log in, so strangers cannot fill the store. A refresh never
takes the place of a log-in (tests/login/store/test_people.py): Authelia repeats in it what it said
when that log-in was made (tests/fixtures/authelia/names.json).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from authz.core.principal import Person
from authz.ledger.keys import RedisKeys, person_digest
from authz.ledger.login_records import Command, scan
from authz.ledger.script import run_script
from authz.login.protocol.people import PERSON_RECORD, PersonRecord, person_record
from authz.login.protocol.values import LoginIdentity
from authz.login.store import scripts
from authz.login.store.sealed import SealedValue
from authz.tokens.sealing import NotSealedError, Sealer

_KIND: Final = "person"
_PERSON: Final = SealedValue("person", PERSON_RECORD)


class PeopleStore:
    """Keep who has logged in, for one deployment."""

    def __init__(
        self,
        command: Command,
        keys: RedisKeys,
        issuer: str,
        *,
        sealer: Sealer,
        lifetime: int,
        clock: Callable[[], float],
    ) -> None:
        """Take Redis and names, the issuer, and for how many seconds a record is kept."""
        self._command = command
        self._keys = keys
        self._issuer = issuer
        self._sealer = sealer
        self._lifetime = lifetime
        self._clock = clock

    async def keep(self, who: LoginIdentity) -> None:
        """Record who has logged in, by a verified ID token; call it before anything is issued.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        sealed = self._sealed(person_record(who, int(self._clock())))
        await self._command("SET", self._key(who), sealed, "EX", self._lifetime)

    async def keep_refreshed(self, who: LoginIdentity) -> None:
        """Keep the record of somebody whose log-in was refreshed for as long as after a log-in.

        What it says stays; where it is missing, as for log-ins that an earlier release recorded, or
        cannot be opened any more, the refreshed ID token has to do.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        key, now = self._key(who), int(self._clock())
        held = await self._command("GET", key)
        record = self._opened(held, self._name(who.subject)) or person_record(who, now)
        sealed = self._sealed(replace(record, seen_at=now))
        # Nothing is written where a log-in has written meanwhile: it knows better.
        await run_script(
            self._command, scripts.REPLACE, (key,), held or b"", sealed, self._lifetime
        )

    async def all(self) -> AsyncIterator[tuple[str, PersonRecord]]:
        """Yield each record with the digest that names its person; for commands.

        Records that no sealing key opens any more are left out, and so are those that are not of
        the person whose name they stand under.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        prefix = self._keys.record(_KIND, "")
        async for found in scan(self._command, prefix + b"*"):
            values = await self._command("MGET", *found)
            for key, value in zip(found, values, strict=True):
                name = key.removeprefix(prefix).decode("ascii", "replace")
                record = self._opened(value, name)
                if record is not None:
                    yield name, record

    async def of_name(self, name: str) -> PersonRecord | None:
        """Return the record of a person by the digest that names the person; None for none.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        return self._opened(await self._command("GET", self._keys.record(_KIND, name)), name)

    def _name(self, subject: str) -> str:
        return person_digest(Person(self._issuer, subject))

    def _key(self, who: LoginIdentity) -> bytes:
        return self._keys.record(_KIND, self._name(who.subject))

    def _sealed(self, record: PersonRecord) -> str:
        return _PERSON.seal(self._sealer, record, self._lifetime)

    def _opened(self, value: bytes | None, name: str) -> PersonRecord | None:
        """Return the record of the person of that name; None for anything else."""
        if value is not None:
            with suppress(NotSealedError):
                record = _PERSON.open(self._sealer, value.decode("ascii", "replace"))
                if self._name(record.subject) == name:
                    return record
        return None
