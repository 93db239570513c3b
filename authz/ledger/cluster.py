"""The node of a Redis Cluster that has all keys of a deployment: they are in one slot.

Any node says which one owns the slot (CLUSTER SLOTS); what most of them say counts. A node that
does not own it refuses every call with keys before it runs, and says who does (MOVED), also a
replica: so such a call may be sent again, and no other is. The same holds while the slot moves (ASK
and TRYAGAIN; https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).

Invariant: a call that may have run is not sent again (tests/ledger/test_cluster.py).
"""

import re
from binascii import crc_hqx
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from authz.ledger.commands import command
from authz.ledger.connections import RedisEndpoint
from authz.ledger.faults import (
    DiscoveryError,
    InvalidReplyError,
    RedisFault,
    ReplyError,
    fault_of,
)
from authz.ledger.primary import (
    DiscoveredPrimary,
    FixedPrimary,
    PrimaryFinder,
    Redirect,
    RedisAddress,
)

_SLOTS: Final = 16384
_QUESTION: Final = command("CLUSTER SLOTS")
_MOST_NODES: Final = 32  # that are asked
_PAUSE: Final = 0.005  # seconds until a call is sent again that met a slot on its way
_REDIRECT: Final = re.compile(r"(MOVED|ASK) ([0-9]{1,5}) (\S*):([0-9]{1,5})")
_NO_CLUSTER: Final = "ERR This instance has cluster support disabled"
_RANGE: Final = 3  # items of a range of slots: its first, its last, and the node that owns it


def key_slot(tag: str) -> int:
    """Return the slot of all keys with a hash tag."""
    return crc_hqx(tag.encode(), 0) % _SLOTS


class ClusterView(NamedTuple):
    """What a node says: who owns our slot (None for nobody), and which nodes there are."""

    owner: RedisAddress | None
    nodes: tuple[RedisAddress, ...]


class ClusterPrimary(DiscoveredPrimary):
    """The node that owns our slot.

    Attributes:
        seeds: the nodes that the configuration names.
    """

    def __init__(self, seeds: Sequence[RedisEndpoint], slot: int) -> None:
        """Take some nodes, which know the others; none is asked yet."""
        super().__init__(seeds[0])
        self.seeds = tuple(RedisAddress(each.host, each.port) for each in seeds)
        self._nodes = tuple[RedisAddress, ...]()
        self._slot = slot
        self._turn = 0

    @property
    def topology(self) -> str:
        """Return who owns the slot, and how many nodes are known."""
        owner = "nobody" if self.current is None else str(self.current)
        return f"{owner} owns slot {self._slot} of a cluster of {len(self._nodes)} nodes"

    async def name_primary(self) -> RedisAddress:
        """Return the owner that most nodes name."""
        asked = list(dict.fromkeys((*self.seeds, *self._nodes)))[:_MOST_NODES]
        endpoints = [self.endpoint(each) for each in asked]
        replies, errors = await self._informants.survey(endpoints, _QUESTION)
        views = list[ClusterView]()
        for informant, reply in replies:
            try:
                views.append(parse_slots(reply, self._slot, informant.host))
            except InvalidReplyError as error:
                errors.append(error)
        owners = Counter(each.owner for each in views if each.owner is not None)
        if owners:
            self._nodes = max((each.nodes for each in views), key=len)
            # Of two that are named as often, the one that was not found wanting.
            return max(owners, key=lambda owner: (owners[owner], owner != self.current))
        if views:
            raise DiscoveryError(RedisFault.CLUSTER_DOWN)
        if any(fault_of(error) is RedisFault.NOT_PERMITTED for error in errors):
            # Each node says by itself whether it is the one, and who is.
            self._turn += 1
            return self.seeds[self._turn % len(self.seeds)]
        raise _no_node(errors)

    def redirect(self, error: ReplyError) -> Redirect | None:
        """Return how to send a call again that was refused before it ran."""
        text = str(error)
        if text.startswith("TRYAGAIN "):
            return Redirect(pause=_PAUSE)
        match = _REDIRECT.fullmatch(text)
        if match is None or int(match[2]) != self._slot:
            return None
        host = match[3].strip("[]") or (self.current.host if self.current else "")
        address = RedisAddress(host, int(match[4]))
        if match[1] == "ASK":
            return Redirect(asking=address)
        self.current = address
        return Redirect()

    def node(self, address: RedisAddress) -> PrimaryFinder:
        """Return what finds the node of that address, and no other."""
        return FixedPrimary(self.endpoint(address))


def parse_slots(reply: object, slot: int, informant: str) -> ClusterView:
    """Read the reply to CLUSTER SLOTS.

    Args:
        reply: what a node replied.
        slot: ours.
        informant: its host, which is meant where it names none.

    Raises:
        InvalidReplyError: where it is no such reply.
    """
    if not isinstance(reply, list):
        raise InvalidReplyError("no slots")
    owner, nodes = None, dict[RedisAddress, None]()
    for each in reply:
        match each:
            case [int(first), int(last), *named] if len(each) >= _RANGE:
                addresses = [_address(one, informant) for one in named]
            case _:
                raise InvalidReplyError("no slots")
        nodes.update((one, None) for one in addresses if one is not None)
        if first <= slot <= last:
            owner = addresses[0]
    return ClusterView(owner, tuple(nodes))


def _address(named: object, informant: str) -> RedisAddress | None:
    match named:
        case [None | b"", int(port), *_]:
            return RedisAddress(informant, port)
        case [b"?", int(), *_]:
            return None
        case [bytes(host), int(port), *_]:
            return RedisAddress(host.decode("ascii", "replace"), port)
    raise InvalidReplyError("no node")


def _no_node(errors: Sequence[BaseException]) -> Exception:
    """Return the fault of nodes of which none says who owns the slot."""
    if any(str(error).startswith(_NO_CLUSTER) for error in errors):
        return DiscoveryError(RedisFault.NO_CLUSTER)
    named = (RedisFault.NOT_LOGGED_IN, RedisFault.LOADING, RedisFault.TLS, RedisFault.TLS_FILES)
    for fault in named:
        for error in errors:
            if fault_of(error) is fault and isinstance(error, Exception):
                return error
    return DiscoveryError(RedisFault.NO_NODE)
