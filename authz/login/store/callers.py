"""Who may have used limits lately: by the log-ins at the front door, and by the audit trail."""

from typing import Final

from authz.audit.query import latest_records
from authz.audit.record import AuditEvent
from authz.audit.store import TrailStore
from authz.core.policy import Policy
from authz.ledger.limit_usage import LimitedCaller
from authz.login.store.grants import GrantStore
from authz.login.store.people import PeopleStore

_PEOPLE: Final = 500
_RECORDS: Final = 2_000
_SEEN: Final = frozenset({AuditEvent.DECISION, AuditEvent.REFUSALS})


async def recent_callers(
    policy: Policy, trail: TrailStore, grants: GrantStore | None, people: PeopleStore | None
) -> tuple[LimitedCaller, ...]:
    """Return them, who was seen last first: those of the last 2,000 records, then of 500 people.

    Args:
        policy: names machines, which have no log-in.
        trail: the audit trail; may be empty.
        grants: of the front door; None where there is none.
        people: likewise.

    Raises:
        UnavailableError: where Redis does not answer.
    """
    found = dict[tuple[str, str, bool, str], LimitedCaller]()
    async for record in latest_records(trail, _SEEN, _RECORDS):
        fields = record.fields
        if fields.get("client_id"):
            client = fields["client_id"]
            declared = policy.clients.get(client)
            is_direct = policy.front_door is None or (declared is not None and declared.direct)
            _add(
                found,
                LimitedCaller(
                    fields.get("subject", ""),
                    client,
                    fields.get("account", ""),
                    by_front_door=not is_direct,
                    grant=fields.get("grant", ""),
                ),
            )
    if grants is not None and people is not None:
        for key in (await grants.page(0, _PEOPLE)).keys[:_PEOPLE]:
            person = await people.of_name(grants.person_name(key))
            if person is None:
                continue
            for grant in await grants.usable_at(key):
                _add(
                    found,
                    LimitedCaller(
                        person.subject,
                        grant.client,
                        person.account,
                        by_front_door=True,
                        grant=grant.id,
                    ),
                )
    for declared_client in policy.clients.values():
        if declared_client.machine:
            _add(found, LimitedCaller("", declared_client.client_id))
    return tuple(found.values())


def _add(found: dict[tuple[str, str, bool, str], LimitedCaller], caller: LimitedCaller) -> None:
    key = caller.subject, caller.client, caller.by_front_door, caller.grant
    found.setdefault(key, caller)
