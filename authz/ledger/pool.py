"""The pool of connections to the primary: each is lent to one call at a time.

Callers wait for a connection as long as for a reply, but its setup goes on without them, and the
next caller finds it: look-up, TLS handshake and AUTH may together take longer than a reply may, and
would never end if they began anew with every call.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final

from authz.ledger.addresses import SharedTask
from authz.ledger.commands import command
from authz.ledger.connections import RedisProtocol
from authz.ledger.faults import ReplyError
from authz.ledger.primary import PrimaryFinder, RedisAddress

_SETUP_TIMEOUT: Final = 2.0  # seconds to find the primary, connect, and for TLS, AUTH and SELECT
_MOST_REDIRECTS: Final = 5  # of one call; nothing ran before any of them
_ASKING: Final = command("ASKING")
_SCRIPT_LOAD: Final = command("SCRIPT LOAD", "").partition(b"$0")[0]


class _Connection:
    """A place in the pool: its connection, replaced by a new one where it has ended."""

    __slots__ = ("_finder", "_place", "_protocol", "_setup")

    def __init__(self, finder: PrimaryFinder) -> None:
        self._finder = finder
        self._place: RedisAddress | None = None
        self._protocol: RedisProtocol | None = None
        self._setup = SharedTask(self._connect)

    @property
    def idle(self) -> bool:
        return (
            self._protocol is not None
            and self._protocol.idle
            and self._place == self._finder.current
        )

    async def send(self, call: bytes, *, asking: bool = False) -> Any:
        protocol = self._protocol
        if protocol is None or not self.idle:
            # New, or closed by the server, or aborted by a caller, or to a node that is no primary
            # any more. Nothing has been sent yet. The setup goes on where the caller is cancelled.
            protocol = await asyncio.shield(self._setup.begin())
        if asking:
            await protocol.request(_ASKING)
        return await protocol.request(call)

    async def _connect(self) -> RedisProtocol:
        self.abort()
        async with asyncio.timeout(_SETUP_TIMEOUT):
            self._place, protocol = await self._finder.connect()
            self._protocol = protocol
        return protocol

    def cancel(self) -> set[asyncio.Task[RedisProtocol]]:
        """Cancel the setup under way; return what is to be awaited for it."""
        return self._setup.cancel()

    def abort(self) -> None:
        if self._protocol is not None:
            self._protocol.abort()


class ConnectionPool:
    """Lend each connection to one call at a time.

    There are as many as there were calls at once; the caller bounds that.
    """

    def __init__(self, finder: PrimaryFinder) -> None:
        """Open nothing yet."""
        self._finder = finder
        self._nodes = dict[RedisAddress, ConnectionPool]()  # where the slot was on its way to
        self._free: list[_Connection] = []
        self._in_use: set[_Connection] = set()
        self._retired = False

    @property
    def idle(self) -> int:
        """Return how many connections are open and free."""
        return sum(each.idle for each in self._free)

    @property
    def size(self) -> int:
        """Return how many connections there are, open or not."""
        return len(self._free) + len(self._in_use)

    @property
    def in_use(self) -> int:
        """Return how many are lent."""
        return len(self._in_use)

    @property
    def topology(self) -> str:
        """Return what kind of Redis it is, in words."""
        return self._finder.topology

    async def send(self, call: bytes) -> Any:
        """Return the reply to a command, which is carried out at most once.

        Raises:
            ReplyError: Redis' error reply.
            Exception: where there is no reply.
        """
        asking: RedisAddress | None = None
        for attempt in range(_MOST_REDIRECTS + 1):
            try:
                if asking is not None:
                    return await self._node(asking).lend(call, asking=True)
                reply = await self.lend(call)
                break
            except ReplyError as error:
                redirect = self._finder.redirect(error)
                if redirect is None or attempt == _MOST_REDIRECTS:
                    raise
            asking = redirect.asking
            if redirect.pause:
                await asyncio.sleep(redirect.pause)
            elif asking is None:  # the slot has arrived
                self._leave_nodes()
        if self._nodes and call.startswith(_SCRIPT_LOAD):
            # Where the slot is on its way to, too: the call may be asked of that node.
            for each in tuple(self._nodes.values()):  # another call may leave or add some
                with suppress(Exception):
                    await each.lend(call)
        return reply

    async def lend(self, call: bytes, *, asking: bool = False) -> Any:
        """Return the reply to a command of the node that was found; with `asking`, after ASKING."""
        self._finder.look()
        connection = self._free.pop() if self._free else _Connection(self._finder)
        self._in_use.add(connection)
        try:
            return await connection.send(call, asking=asking)
        finally:
            self._in_use.remove(connection)
            self._free.append(connection)
            if self._retired:
                connection.abort()

    def _node(self, address: RedisAddress) -> "ConnectionPool":
        found = self._nodes.get(address)
        if found is None:
            found = self._nodes[address] = ConnectionPool(self._finder.node(address))
        return found

    def _leave_nodes(self) -> None:
        """Forget where the slot was on its way to; calls under way there come to their end."""
        for node in self._nodes.values():
            node.retire()
        self._nodes.clear()

    def retire(self) -> None:
        """Close each connection as soon as it is free."""
        self._retired = True
        self.abort()

    def doubt(self) -> None:
        """Look for the primary again before the next connection."""
        self._finder.doubt()

    def abort(self) -> None:
        """Close the free connections, at once, and look for the primary again."""
        self._finder.doubt()
        for each in self._free:
            each.abort()
        for node in self._nodes.values():
            node.abort()

    async def aclose(self) -> None:
        """Close all connections, those too that are being set up."""
        connections = (*self._free, *self._in_use)
        cancelled = self._finder.close()
        cancelled |= {task for each in connections for task in each.cancel()}
        if cancelled:
            await asyncio.wait(cancelled)
        for each in connections:
            each.abort()
        for node in self._nodes.values():
            await node.aclose()
