"""What was done in a person's name lately, as the page of that person's log-ins shows it."""

from collections.abc import Sequence
from typing import Final

from authz.audit.record import AuditEvent, InvalidRecordError, read_record
from authz.audit.store import LISTED, TrailStore
from authz.core.ledger import UnavailableError
from authz.core.principal import Person
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command
from authz.login.web.sessions import OwnOperation

_SUBJECT: Final = "subject"


class PersonsActivity:
    """Read the latest records of a person from the audit trail (`sessions.OwnActivity`)."""

    def __init__(self, command: Command, keys: RedisKeys) -> None:
        self._store = TrailStore(command, keys)

    async def lately(self, person: Person) -> Sequence[OwnOperation]:
        """Return what was done lately, newest first; nothing where the trail cannot be read."""
        try:
            entries = await self._store.of_person(person, LISTED)
        except UnavailableError:
            return ()
        found = list[OwnOperation]()
        for entry in entries:
            try:
                record = read_record(entry.text)
            except InvalidRecordError:
                continue
            fields = record.fields
            # A list may name another person's record only where somebody wrote into Redis.
            if record.event is AuditEvent.DECISION and fields.get(_SUBJECT) == person.subject:
                found.append(
                    OwnOperation(
                        time=int(record.time),
                        grant=fields.get("grant", ""),
                        client=fields.get("client_id", ""),
                        server=fields.get("server", ""),
                        what=fields.get("tool") or fields.get("target") or "",
                        method=fields.get("mcp_method", ""),
                        allowed=fields.get("verdict") == "allow",
                    )
                )
        return found
