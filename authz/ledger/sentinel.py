"""The primary that sentinels name.

What sentinels say is asked of all of them, and the answer of the newest failover counts (its
configuration epoch): a sentinel that was cut off goes on naming the old primary. An older epoch
than was seen before counts only where most of the sentinels answer
(https://redis.io/docs/latest/develop/reference/sentinel-clients/).

Invariant: no connection is handed out to a node that says it is a replica
(tests/ledger/test_sentinel.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from authz.ledger.commands import command
from authz.ledger.connections import RedisEndpoint, RedisProtocol
from authz.ledger.faults import (
    DiscoveryError,
    InvalidReplyError,
    RedisFault,
    ReplyError,
    fault_of,
)
from authz.ledger.primary import DiscoveredPrimary, RedisAddress

_REPLICATION: Final = command("INFO", "replication")
_IS_PRIMARY: Final = b"\r\nrole:master\r\n"


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


class SentinelPrimary(DiscoveredPrimary):
    """The primary that sentinels name.

    Attributes:
        service: whom it asks, and about what.
    """

    def __init__(self, service: SentinelService) -> None:
        """Take whom to ask; nobody is asked yet."""
        super().__init__(service.node)
        self.service = service
        self._question = command("SENTINEL MASTER", service.name)
        self._epoch = -1
        self._answered = 0  # sentinels, the last time

    @property
    def topology(self) -> str:
        """Return which service it is, its primary, and how many sentinels say so."""
        sentinels = f"{self._answered} of {len(self.service.sentinels)} sentinels answer"
        primary = "not found" if self.current is None else str(self.current)
        return f"the primary of {self.service.name} is {primary}; {sentinels}"

    async def check(self, protocol: RedisProtocol) -> None:
        """Ask whether it is a primary."""
        info = await protocol.request(_REPLICATION)
        if not isinstance(info, bytes) or _IS_PRIMARY not in info:
            raise ReplyError("READONLY as INFO says")

    async def name_primary(self) -> RedisAddress:
        """Return the primary since the newest failover."""
        sentinels = self.service.sentinels
        replies, errors = await self._informants.survey(sentinels, self._question)
        views = list[SentinelView]()
        for _, reply in replies:
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
        return newest.address


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
    if any(fault_of(error) is RedisFault.TLS_FILES for error in errors):
        return DiscoveryError(RedisFault.TLS_FILES)
    if any(fault_of(error) is RedisFault.TLS for error in errors):
        return DiscoveryError(RedisFault.SENTINEL_TLS)
    return DiscoveryError(RedisFault.NO_SENTINEL)
