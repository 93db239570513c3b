"""A person's grants, as the page of one's own log-ins shows and ends them.

Law: of the person who is logged in, and nobody else's.
"""

from collections.abc import Sequence

from authz.core.principal import Person
from authz.login.protocol.values import ClientIdentity
from authz.login.service.grant_end import BY_PERSON, end
from authz.login.service.means import Means
from authz.login.web.sessions import OwnGrant


class OwnGrantsOf:
    """Show and end a person's grants, for the page of one's own log-ins."""

    def __init__(self, means: Means) -> None:
        """Take the parts."""
        self._means = means

    async def of(self, person: Person) -> Sequence[OwnGrant]:
        """Return a person's grants."""
        return [
            OwnGrant(
                grant=each.id,
                client=ClientIdentity(
                    name=each.client,
                    title=each.title,
                    redirect_uri=each.redirect_uri,
                    ends_at=each.ends_at,
                    document_host=each.document_host,
                ),
                server=each.server,
                scopes=each.scopes,
                began=each.created_at,
                ends=self._means.grants.ends_at(each),
            )
            for each in await self._means.grants.of(person.subject)
        ]

    async def end(self, person: Person, grant: str, address: str) -> None:
        """End one of them.

        Authelia is told a moment later (`revocation_outbox`): the person waits for nothing of it.
        """
        await end(
            self._means, person.subject, grant, BY_PERSON, two_factor=False, token="",
            address=address,
        )  # fmt: skip
