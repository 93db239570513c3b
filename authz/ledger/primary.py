"""Find the node of Redis that takes writes: the one that is named, or that others name.

Invariant: a connection to a node that is no longer the primary is not used again once that is known
(tests/ledger/test_sentinel.py, test_cluster.py).
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from authz.ledger.addresses import HostAddresses, SharedTask
from authz.ledger.connections import RedisEndpoint, RedisProtocol
from authz.ledger.faults import NotConnectedError, ReplyError

# Seconds for which all sentinels are heard, and after which none is waited for any more.
_SURVEY: Final = 0.3
_PATIENCE: Final = 1.2
_NODE: Final = 0.6  # seconds for a connection to the node that was found
_LOOK: Final = 1.0  # seconds between two looks at who is the primary
_MOST_HOSTS: Final = 64


class RedisAddress(NamedTuple):
    """Where a node is; of a Unix socket the path, and 0."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else self.host


class Redirect(NamedTuple):
    """Say how to send a call again that was refused before it ran.

    Attributes:
        asking: the node that the slot is on its way to, which has to be told ASKING; None for the
            primary.
        pause: seconds to wait before.
    """

    asking: RedisAddress | None = None
    pause: float = 0.0


class PrimaryFinder(ABC):
    """Find the primary, and connect to it.

    Attributes:
        current: where it is as far as is known; connections to any other node are given up.
    """

    current: RedisAddress | None

    @abstractmethod
    async def connect(self) -> tuple[RedisAddress, RedisProtocol]:
        """Return a connection that is set up, and where it leads.

        Raises:
            DiscoveryError: where nobody says which node it is.
            ReplyError: where the node refuses, or is a replica.
            Exception: where the node cannot be reached.
        """

    @property
    @abstractmethod
    def topology(self) -> str:
        """Return what kind of Redis it is, in words, with the primary where that is found."""

    @abstractmethod
    def doubt(self) -> None:
        """Look for the primary again before the next connection."""

    @abstractmethod
    def look(self) -> None:
        """Look for the primary again in the background, where the last time was long ago."""

    def redirect(self, error: ReplyError) -> Redirect | None:  # noqa: ARG002 - of a cluster
        """Return how to send a call again that a node refused before it ran; None not at all."""
        return None

    def node(self, address: RedisAddress) -> "PrimaryFinder":
        """Return what finds the node of that address, and no other."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> set[asyncio.Task[Any]]:
        """Close what is open and cancel what is under way; return what is to be awaited for it."""


class FixedPrimary(PrimaryFinder):
    """The one Redis that the configuration names; a name that follows a failover is followed."""

    def __init__(self, endpoint: RedisEndpoint) -> None:
        """Take where it is."""
        self._endpoint = endpoint
        self._addresses = HostAddresses(endpoint.host, endpoint.port)
        place = (endpoint.path, 0) if endpoint.path else (endpoint.host, endpoint.port)
        self.current: RedisAddress = RedisAddress(*place)

    async def connect(self) -> tuple[RedisAddress, RedisProtocol]:
        """Return a connection to it."""
        return self.current, await self._endpoint.connect(self._addresses)

    @property
    def topology(self) -> str:
        """Return that it is one server."""
        return "one server"

    def doubt(self) -> None:
        """Do nothing: every connection looks the name up."""

    def look(self) -> None:
        """Do nothing."""

    def close(self) -> set[asyncio.Task[Any]]:
        """Cancel the look-up under way."""
        return {*self._addresses.cancel()}


class NodeHosts:
    """The addresses of the hosts of nodes, of the newest ones only."""

    def __init__(self) -> None:
        """Know none yet."""
        self._hosts: dict[tuple[str, int], HostAddresses] = {}

    def __getitem__(self, endpoint: RedisEndpoint) -> HostAddresses:
        """Return those of the host of an endpoint."""
        key = endpoint.host, endpoint.port
        found = self._hosts.pop(key, None) or HostAddresses(*key)
        self._hosts[key] = found
        if len(self._hosts) > _MOST_HOSTS:
            del self._hosts[next(iter(self._hosts))]
        return found

    def cancel(self) -> set[asyncio.Task[None]]:
        """Cancel the look-ups under way; return what is to be awaited for them."""
        return {task for each in self._hosts.values() for task in each.cancel()}


class Informants:
    """Those who are asked where the primary is, over connections that stay open."""

    def __init__(self, hosts: NodeHosts) -> None:
        """Connect to nobody yet."""
        self._hosts = hosts
        self._open: dict[RedisEndpoint, RedisProtocol] = {}
        self._closed = False

    async def ask(self, endpoint: RedisEndpoint, call: bytes) -> Any:
        """Return what one of them replies."""
        protocol = self._open.pop(endpoint, None)
        if protocol is None or not protocol.idle:
            protocol = await endpoint.connect(self._hosts[endpoint])
        try:
            reply = await protocol.request(call)
            if self._closed:
                raise NotConnectedError("closed")  # noqa: TRY301 - closed as after any other
        except BaseException:
            protocol.abort()
            raise
        self._open[endpoint] = protocol
        return reply

    async def survey(
        self, endpoints: Sequence[RedisEndpoint], call: bytes
    ) -> tuple[list[tuple[RedisEndpoint, Any]], list[BaseException]]:
        """Ask all of them; return whose replies, and which errors, came in time."""
        tasks = [asyncio.create_task(self.ask(each, call)) for each in endpoints]
        try:
            await asyncio.wait(tasks, timeout=_SURVEY)
            if not any(_answered(task) for task in tasks):
                loop = asyncio.get_running_loop()
                end = loop.time() + _PATIENCE
                late = {task for task in tasks if not task.done()}
                while late and loop.time() < end:
                    done, late = await asyncio.wait(
                        late, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED
                    )
                    if any(_answered(task) for task in done):
                        break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        asked = zip(endpoints, tasks, strict=True)
        replies = [(each, task.result()) for each, task in asked if _answered(task)]
        errors = [error for task in tasks if task.done() and (error := _error(task)) is not None]
        return replies, errors

    def close(self) -> None:
        """Close the connections to them."""
        self._closed = True
        for each in self._open.values():
            each.abort()
        self._open.clear()


class DiscoveredPrimary(PrimaryFinder):
    """A primary that others name.

    Attributes:
        current: what they have named last.
    """

    def __init__(self, node: RedisEndpoint) -> None:
        """Take how its nodes are reached, whatever their address; nobody is asked yet."""
        self._node = node
        self._hosts = NodeHosts()
        self._informants = Informants(self._hosts)
        self._discovery = SharedTask(self._discover)
        self._doubted = True
        self._looked_at = 0.0
        self.current: RedisAddress | None = None

    @abstractmethod
    async def name_primary(self) -> RedisAddress:
        """Return the address that the others name.

        Raises:
            DiscoveryError: where they name none.
        """

    async def check(self, protocol: RedisProtocol) -> None:
        """Ask a new connection what nobody else can tell."""

    async def connect(self) -> tuple[RedisAddress, RedisProtocol]:
        """Return a connection to the node that the others name."""
        if self._doubted or self.current is None:
            await asyncio.shield(self._discovery.begin())
        address = self.current
        assert address is not None  # as `_discover` ends
        endpoint = self.endpoint(address)
        try:
            async with asyncio.timeout(_NODE):
                protocol = await endpoint.connect(self._hosts[endpoint])
                try:
                    await self.check(protocol)
                except BaseException:
                    protocol.abort()
                    raise
        except BaseException:
            self.doubt()
            raise
        return address, protocol

    def endpoint(self, address: RedisAddress) -> RedisEndpoint:
        """Return how the node of an address is reached."""
        return replace(self._node, host=address.host, port=address.port)

    def doubt(self) -> None:
        """Ask the others again before the next connection."""
        self._doubted = True

    def look(self) -> None:
        """Ask them once a second, while there are calls."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= _LOOK:
            self._looked_at = now
            self._discovery.begin()

    async def _discover(self) -> None:
        self._looked_at = asyncio.get_running_loop().time()
        found = await self.name_primary()
        self._doubted = False
        self.current = found

    def close(self) -> set[asyncio.Task[Any]]:
        """Close the connections to informants, and cancel what is under way."""
        self._informants.close()
        return {*self._discovery.cancel(), *self._hosts.cancel()}


def _error(task: asyncio.Task[Any]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


def _answered(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
