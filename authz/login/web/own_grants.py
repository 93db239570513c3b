"""A person's grants in Redis, as the page of that person's log-ins (`sessions`) needs them."""

from collections.abc import Sequence

from authz.core.principal import Person
from authz.login.protocol.values import ClientIdentity
from authz.login.service.grant_end import BY_PERSON, GrantEnder
from authz.login.store.grants import GrantStore
from authz.login.web.sessions import OwnGrant


class PersonsGrants:
    """Adapt the grants in Redis to the page of a person's log-ins (`sessions.OwnGrants`)."""

    def __init__(self, grants: GrantStore, ender: GrantEnder) -> None:
        self._grants = grants
        self._ender = ender

    async def of(self, person: Person) -> Sequence[OwnGrant]:
        """Return a person's grants."""
        return [
            OwnGrant(
                grant=each.id,
                client=ClientIdentity(
                    name=each.client,
                    client_name=each.title,
                    redirect_uri=each.redirect_uri,
                    ends_at=each.ends_at,
                    document_host=each.document_host,
                ),
                server=each.server,
                scopes=each.scopes,
                began=each.created_at,
                ends=self._grants.expiry(each),
            )
            for each in await self._grants.of(person.subject)
        ]

    async def end(self, person: Person, grant: str) -> None:
        """End one of them.

        It is revoked at Authelia a moment later (`store.revocation_outbox`).
        """
        await self._ender.end(person.subject, grant, BY_PERSON)
