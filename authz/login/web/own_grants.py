"""A person's grants in Redis, as pages need them."""

from collections.abc import Sequence

from authz.core.ledger import UnavailableError
from authz.core.principal import Person
from authz.core.step_up import StepUpTicket
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


class GrantedClientNames:
    """Look up what clients call themselves in the grants (`step_up.SelfChosenNames`)."""

    def __init__(self, grants: GrantStore) -> None:
        self._grants = grants

    async def of(self, ticket: StepUpTicket) -> str:
        """Return what the client of a ticket calls itself.

        Empty where that is not known: of a client of `login: direct`, of a grant that has ended,
        and where Redis does not answer. The page says who the client is without it.
        """
        try:
            stored = await self._grants.find(ticket.subject, ticket.grant)
        except UnavailableError:
            return ""
        if stored is None or stored.grant.client != ticket.client:
            return ""
        return stored.grant.title
