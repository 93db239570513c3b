"""Find the node of Redis that takes writes: the one that is named, or the one that sentinels name.

Invariant: no connection is handed out to a node that says it is a replica, and one to a node that
is no longer the primary is not used again once that is known (tests/ledger/test_sentinel.py).

What sentinels say is asked of all of them, and the answer of the newest failover counts (its
configuration epoch): a sentinel that was cut off goes on naming the old primary. An older epoch
than was seen before counts only where most of the sentinels answer
(https://redis.io/docs/latest/develop/reference/sentinel-clients/).
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from authz.ledger.addresses import HostAddresses, SharedTask
from authz.ledger.commands import command
from authz.ledger.connections import RedisEndpoint, RedisProtocol
from authz.ledger.faults import (
    DiscoveryError,
    InvalidReplyError,
    NotConnectedError,
    RedisFault,
    ReplyError,
    fault_of,
)

# Seconds for which all sentinels are heard, and after which none is waited for any more.
_SURVEY: Final = 0.3
_PATIENCE: Final = 1.2
_NODE: Final = 0.6  # seconds for a connection to the node that was found
_LOOK: Final = 1.0  # seconds between two looks at who is the primary
_MOST_HOSTS: Final = 64
_REPLICATION: Final = command("INFO", "replication")
_IS_PRIMARY: Final = b"\r\nrole:master\r\n"


class RedisAddress(NamedTuple):
    """Where a node is; of a Unix socket the path, and 0."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else self.host


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


class _Hosts:
    """The addresses of the hosts of nodes, of the newest ones only."""

    def __init__(self) -> None:
        self._hosts: dict[tuple[str, int], HostAddresses] = {}

    def __getitem__(self, endpoint: RedisEndpoint) -> HostAddresses:
        key = endpoint.host, endpoint.port
        found = self._hosts.pop(key, None) or HostAddresses(*key)
        self._hosts[key] = found
        if len(self._hosts) > _MOST_HOSTS:
            del self._hosts[next(iter(self._hosts))]
        return found

    def cancel(self) -> set[asyncio.Task[None]]:
        return {task for each in self._hosts.values() for task in each.cancel()}


class _Informants:
    """Those who are asked where the primary is, over connections that stay open."""

    def __init__(self, hosts: _Hosts) -> None:
        self._hosts = hosts
        self._open: dict[RedisEndpoint, RedisProtocol] = {}
        self._closed = False

    async def ask(self, endpoint: RedisEndpoint, call: bytes) -> Any:
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
    ) -> tuple[list[Any], list[BaseException]]:
        """Ask all of them; return the replies and the errors that came in time."""
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
        replies = [task.result() for task in tasks if _answered(task)]
        errors = [error for task in tasks if task.done() and (error := _error(task)) is not None]
        return replies, errors

    def close(self) -> None:
        self._closed = True
        for each in self._open.values():
            each.abort()
        self._open.clear()


def _error(task: asyncio.Task[Any]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


def _answered(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


class SentinelView(NamedTuple):
    """What a sentinel says of a service: the epoch of the failover, and the primary since then."""

    epoch: int
    address: RedisAddress


@dataclass(frozen=True, slots=True)
class SentinelService:
    """A service that sentinels watch.

    Attributes:
        sentinels: where they are, and how we log in there.
        name: of the service, as in `sentinel monitor`.
        node: how its nodes are reached, whatever their address.
    """

    sentinels: tuple[RedisEndpoint, ...]
    name: str
    node: RedisEndpoint


class SentinelPrimary(PrimaryFinder):
    """The primary that sentinels name."""

    def __init__(self, service: SentinelService) -> None:
        """Take whom to ask; nobody is asked yet."""
        self._service = service
        self._question = command("SENTINEL MASTER", service.name)
        self._hosts = _Hosts()
        self._sentinels = _Informants(self._hosts)
        self._discovery = SharedTask(self._discover)
        self._doubted = True
        self._looked_at = 0.0
        self._epoch = -1
        self._answered = 0  # sentinels, the last time
        self.current: RedisAddress | None = None

    async def connect(self) -> tuple[RedisAddress, RedisProtocol]:
        """Return a connection to the node that the sentinels name, which says it is a primary."""
        if self._doubted or self.current is None:
            await asyncio.shield(self._discovery.begin())
        address = self.current
        assert address is not None  # as `_discover` ends
        try:
            async with asyncio.timeout(_NODE):
                return address, await self._connect(address)
        except BaseException:
            self.doubt()
            raise

    async def _connect(self, address: RedisAddress) -> RedisProtocol:
        node = replace(self._service.node, host=address.host, port=address.port)
        protocol = await node.connect(self._hosts[node])
        try:
            info = await protocol.request(_REPLICATION)
            if not isinstance(info, bytes) or _IS_PRIMARY not in info:
                raise ReplyError("READONLY as INFO says")  # noqa: TRY301 - as its own reply
        except BaseException:
            protocol.abort()
            raise
        return protocol

    @property
    def topology(self) -> str:
        """Return which service it is, its primary, and how many sentinels say so."""
        sentinels = f"{self._answered} of {len(self._service.sentinels)} sentinels answer"
        primary = "not found" if self.current is None else str(self.current)
        return f"the primary of {self._service.name} is {primary}; {sentinels}"

    def doubt(self) -> None:
        """Ask the sentinels again before the next connection."""
        self._doubted = True

    def look(self) -> None:
        """Ask the sentinels once a second, while there are calls."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= _LOOK:
            self._looked_at = now
            self._discovery.begin()

    async def _discover(self) -> None:
        self._looked_at = asyncio.get_running_loop().time()
        sentinels = self._service.sentinels
        replies, errors = await self._sentinels.survey(sentinels, self._question)
        views = list[SentinelView]()
        for reply in replies:
            try:
                views.append(parse_sentinel_master(reply))
            except InvalidReplyError as error:
                errors.append(error)
        self._answered = len(views)
        if not views:
            raise _no_sentinel(errors)
        newest = max(views)
        if newest.epoch < self._epoch and 2 * len(views) <= len(sentinels):
            raise DiscoveryError(RedisFault.NO_SENTINEL)
        self._epoch = newest.epoch
        self._doubted = False
        self.current = newest.address

    def close(self) -> set[asyncio.Task[Any]]:
        """Close the connections to sentinels, and cancel what is under way."""
        self._sentinels.close()
        return {*self._discovery.cancel(), *self._hosts.cancel()}


def parse_sentinel_master(reply: object) -> SentinelView:
    """Read the reply to SENTINEL MASTER.

    Raises:
        InvalidReplyError: where it is none.
    """
    if not isinstance(reply, list) or len(reply) % 2 or {*map(type, reply)} - {bytes}:
        raise InvalidReplyError("no primary")
    fields: dict[bytes, bytes] = dict(zip(reply[::2], reply[1::2], strict=True))
    try:
        host, port = fields[b"ip"].decode("ascii"), int(fields[b"port"])
        return SentinelView(int(fields[b"config-epoch"]), RedisAddress(host, port))
    except (KeyError, ValueError) as error:
        raise InvalidReplyError("no primary") from error


def _no_sentinel(errors: Sequence[BaseException]) -> Exception:
    """Return the fault of sentinels of which none says where the primary is."""
    refused = [error for error in errors if isinstance(error, ReplyError)]
    if any(str(error).startswith("ERR No such master") for error in refused):
        return DiscoveryError(RedisFault.NO_SERVICE)
    if any(fault_of(error) is RedisFault.NOT_LOGGED_IN for error in refused):
        return DiscoveryError(RedisFault.SENTINEL_LOGIN)
    if any(fault_of(error) is RedisFault.NOT_PERMITTED for error in refused):
        return DiscoveryError(RedisFault.SENTINEL_RIGHTS)
    if any(fault_of(error) is RedisFault.TLS for error in errors):
        return DiscoveryError(RedisFault.SENTINEL_TLS)
    return DiscoveryError(RedisFault.NO_SENTINEL)
