"""Whether a name that an operator types is anybody's, as `authz revoke` looks for it.

Invariant: what is called known stands in a log-in, in the audit trail or in authz.yaml
(tests/login/console/test_actions.py). The latest records of the trail are looked through, no more.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from authz.audit.query import NAMING_EVENTS, latest_records
from authz.audit.store import TrailStore
from authz.core.browser_session import CLIENT_ID
from authz.login.clients.operator_names import UnknownClientError, called
from authz.login.store.blocklist import Blocklist
from authz.login.store.grants import GrantStore
from authz.login.store.known_clients import known_clients

_RECORDS: Final = 5000


@dataclass(frozen=True, slots=True)
class FoundName:
    """What a name means.

    Attributes:
        name: as a revocation has it.
        is_known: whether anybody is known by it.
    """

    name: str
    is_known: bool


@dataclass(frozen=True, slots=True)
class KnownNames:
    """Look names up; every method may raise UnavailableError.

    Attributes:
        grants, blocks, trail: where names stand.
        configured: clients of authz.yaml.
    """

    grants: GrantStore
    blocks: Blocklist
    trail: TrailStore
    configured: Collection[str]

    async def client(self, name: str) -> FoundName:
        """Return the client that a name means.

        Raises:
            AmbiguousClientError: where several are called so.
        """
        known = await known_clients(self.grants, self.blocks)
        names = {*self.configured, CLIENT_ID}
        try:
            found = called(name, [each.called for each in known], names)
        except UnknownClientError:
            found = name
        is_known = found in names or any(found in (each.name, each.client_id) for each in known)
        return FoundName(found, is_known or await self._is_in_trail("client_id", found))

    async def grant(self, name: str) -> FoundName:
        """Return the log-in of an id."""
        async for _, grant in self.grants.all_grants():
            if grant.id == name:
                return FoundName(name, is_known=True)
        return FoundName(name, await self._is_in_trail("grant", name))

    async def _is_in_trail(self, field: str, name: str) -> bool:
        async for record in latest_records(self.trail, NAMING_EVENTS, _RECORDS):
            if record.fields.get(field) == name:
                return True
        return False
