"""A real Redis Cluster for tests: three primaries, a replica of one of them, slots that move."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import redis

from tests.support.ports import held_port
from tests.support.sentinels import await_that
from tests.support.valkey import ValkeyServer, valkey

_SLOTS: Final = 16384
_PRIMARIES: Final = 3
# Milliseconds without an answer after which a node counts as down: where that is to happen, and
# where none is down, however busy the machine.
_TIMEOUT: Final = "1500"
_PATIENT: Final = "120000"


@dataclass(frozen=True)
class Cluster:
    """Some nodes that know each other.

    Attributes:
        nodes: three primaries, then the replica of the owner.
        slot: the one that tests are about.
        owner: the first that owns it.
        other: a primary that does not.
        replica: of the owner.
    """

    nodes: tuple[ValkeyServer, ...]
    slot: int
    owner: ValkeyServer
    other: ValkeyServer
    replica: ValkeyServer

    @property
    def url(self) -> str:
        """Return where the ledger finds it: by one node that does not own the slot."""
        return f"redis+cluster://127.0.0.1:{self.other.port}"

    def await_gossip(self) -> None:
        """Return once each node has heard of the replica, some later than others."""

        def known(node: ValkeyServer) -> set[bytes]:
            return {each[2] for found in node.command("CLUSTER", "SLOTS") for each in found[2:]}

        await_that(lambda: all(len(known(each)) == len(self.nodes) for each in self.nodes))

    def hurry(self) -> None:
        """Let a node that does not answer count as down soon, for tests of that."""
        for each in self.nodes:
            each.command("CONFIG", "SET", "cluster-node-timeout", _TIMEOUT)

    def begin_move(self) -> None:
        """Let the slot be on its way from the owner to the other, as `reshard` does."""
        ids = {id(each): node_id(each) for each in (self.owner, self.other)}
        self.other.command("CLUSTER", "SETSLOT", self.slot, "IMPORTING", ids[id(self.owner)])
        self.owner.command("CLUSTER", "SETSLOT", self.slot, "MIGRATING", ids[id(self.other)])

    def move(self, keys: list[bytes]) -> None:
        """Move some keys of it."""
        if keys:
            self.owner.command("MIGRATE", "127.0.0.1", self.other.port, "", 0, 5000, "KEYS", *keys)

    def keys(self) -> list[bytes]:
        """Return the keys of it that its owner has."""
        found: list[bytes] = self.owner.command("CLUSTER", "GETKEYSINSLOT", self.slot, 1000)
        return found

    def end_move(self) -> None:
        """Move what is left, and give the slot to the other."""
        while keys := self.keys():
            self.move(keys)
        for each in (self.other, self.owner):
            each.command("CLUSTER", "SETSLOT", self.slot, "NODE", node_id(self.other))


def node_id(node: ValkeyServer) -> str:
    """Return how a cluster calls one of its nodes."""
    found: bytes = node.command("CLUSTER", "MYID")
    return found.decode()


def info(node: ValkeyServer) -> dict[str, str]:
    """Return what a node says of its cluster."""
    said: Any = node.command("CLUSTER", "INFO")
    if isinstance(said, dict):
        return {str(name): str(value) for name, value in said.items()}
    lines = said.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


@contextmanager
def cluster(name: str, slot: int) -> Iterator[Cluster]:
    """Run a cluster for as long as the block does.

    Args:
        name: a name of `binaries`.
        slot: the one that tests are about.
    """
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                valkey(
                    name,
                    tcp=True,
                    cluster_enabled="yes",
                    cluster_port=str(held_port()),
                    cluster_node_timeout=_TIMEOUT,
                    repl_diskless_sync_delay="0",
                )
            )
            for _ in range(_PRIMARIES + 1)
        ]
        share = _SLOTS // _PRIMARIES
        ranges = [
            (n * share, _SLOTS - 1 if n == _PRIMARIES - 1 else (n + 1) * share - 1)
            for n in range(_PRIMARIES)
        ]
        for node, (first, last) in zip(nodes, ranges, strict=False):
            node.command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for each in nodes[1:]:
            bus = int(nodes[0].config["cluster-port"])
            each.command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, bus)
        await_that(lambda: all(int(info(each)["cluster_known_nodes"]) == 4 for each in nodes))
        owner = next(
            node
            for node, (first, last) in zip(nodes, ranges, strict=False)
            if first <= slot <= last
        )
        other = next(each for each in nodes[:_PRIMARIES] if each is not owner)
        replica = nodes[_PRIMARIES]
        identity = node_id(owner)
        await_that(lambda: _is_done(replica, identity))
        await_that(lambda: all(info(each)["cluster_state"] == "ok" for each in nodes))
        await_that(lambda: replica.command("INFO", "replication")["master_link_status"] == "up")
        for each in nodes:
            each.command("CONFIG", "SET", "cluster-node-timeout", _PATIENT)
        yield Cluster((*nodes,), slot, owner, other, replica)


def _is_done(replica: ValkeyServer, primary: str) -> bool:
    try:
        replica.command("CLUSTER", "REPLICATE", primary)
    except redis.ResponseError:  # it does not know that node as a primary yet
        return False
    return True
