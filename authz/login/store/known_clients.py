"""Clients that hold grants, as the operator sees them; and blocking them.

A client is listed under the name that it proved; what it calls itself is shown beside it. Blocking
one ends its grants. Invariant: what was begun before the block, and not given out yet, ends as well
(tests/login/test_attacks.py::test_who_is_blocked_comes_no_further).
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from authz.login.clients.identity import blocked_by
from authz.login.clients.operator_names import ClientNames
from authz.login.protocol.grant import Grant
from authz.login.protocol.members import digest
from authz.login.store.blocklist import Blocklist, BlocklistEntry
from authz.login.store.grants import GrantStore

SHORT = 12  # characters of a digest, which tell one client from another


@dataclass(slots=True)
class KnownClient:
    """Gather what is known of one client.

    Attributes:
        id: the beginning of its client_id's digest: what it can be called here.
        client_id, name, client_name: as in its grants.
        people: the accounts, or what stands for them, of whoever uses it.
        servers: what it may use.
        log_ins: how many grants it has.
        first, last: when it came, and when it was given tokens last; seconds since the epoch.
        blocked: whether it is.
    """

    id: str
    client_id: str
    name: str
    client_name: str
    first: int
    last: int
    people: set[str] = field(default_factory=set)
    servers: set[str] = field(default_factory=set)
    log_ins: int = 0
    blocked: bool = False

    @property
    def called(self) -> ClientNames:
        """Return how an operator may call it."""
        return ClientNames(self.id, self.client_id, self.name)

    def to_json(self) -> dict[str, object]:
        """Return it for programs."""
        return {
            "id": self.id,
            "client_id": self.client_id,
            "name": self.name,
            "title": self.client_name,
            "people": sorted(self.people),
            "servers": sorted(self.servers),
            "log_ins": self.log_ins,
            "first": self.first,
            "last": self.last,
            "blocked": self.blocked,
        }


async def known_clients(grants: GrantStore, blocks: Blocklist) -> tuple[KnownClient, ...]:
    """Return who has come, the latest first.

    Raises:
        UnavailableError: where Redis does not answer.
    """
    blocked = {block.what for block in await blocks.all()}
    found = [pair async for pair in grants.all_grants() if grants.is_usable(pair[1])]
    return gather_clients(found, blocked)


def gather_clients(
    grants: Iterable[tuple[bytes, Grant]], blocked: AbstractSet[str]
) -> tuple[KnownClient, ...]:
    """Return the clients of grants, the latest first.

    Args:
        grants: each with the key that it is kept at.
        blocked: what is blocked.
    """
    found: dict[tuple[str, str], KnownClient] = {}
    for key, grant in grants:
        # A client whose log-ins end in several places is one for each.
        name = digest(grant.client_id)[:SHORT]
        client = found.setdefault(
            (name, grant.client),
            KnownClient(
                name, grant.client_id, grant.client, grant.title, grant.created_at, grant.used_at
            ),
        )
        client.blocked |= not blocked.isdisjoint(_block_names(grant))
        client.people.add(grant.account or f"person {digest(key.decode('ascii', 'replace'))[:6]}")
        client.servers.add(grant.server)
        client.log_ins += 1
        client.first = min(client.first, grant.created_at)
        client.last = max(client.last, grant.used_at)
    return tuple(sorted(found.values(), key=lambda client: client.last, reverse=True))


async def block(grants: GrantStore, blocks: Blocklist, one: BlocklistEntry) -> int:
    """Block a client, and end its grants; return how many of them were still usable.

    Those past their age are ended too: the last access token of one may live on, and a refresh that
    began in time may be under way at Authelia. What begins meanwhile looks for the block itself
    (`code_exchange`, `refresh`).

    Raises:
        BlocklistFullError: where there is no room.
        UnavailableError: where Redis does not answer.
    """
    await blocks.block(one)
    ended = 0
    async for key, grant in grants.all_grants():
        if one.what in _block_names(grant):
            was_usable = grants.is_usable(grant)
            gone = await grants.end_at(key, grant.id, f"blocked: {one.reason}")
            ended += was_usable and gone is not None
    return ended


async def count_grants(grants: GrantStore, what: str) -> int:
    """Return how many usable grants a block by a client_id or name would have ended.

    Raises:
        UnavailableError: where Redis does not answer.
    """
    return sum(
        [
            grants.is_usable(grant)
            async for _, grant in grants.all_grants()
            if what in _block_names(grant)
        ]
    )


def _block_names(grant: Grant) -> frozenset[str]:
    names = blocked_by(grant.client, grant.ends_at, grant.document_host)
    return names | {grant.client_id}
