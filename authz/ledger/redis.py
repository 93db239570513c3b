"""The ledger in Redis or Valkey: one script call for a query or a batch, and the writes.

Invariant: a query is sent at most once, so it is charged at most once; every failure, however slow,
ends in UnavailableError, after one time-out for the caller and at the same moment for those who
wait for a connection (tests/ledger/test_redis.py). A call without its reply costs its connection,
so that nobody reads another caller's reply.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from authz.core.approval import ApprovalKey
from authz.core.identity_cache import IdentityCache
from authz.core.ledger import LedgerAnswer, Query, StepUpKey, UnavailableError
from authz.core.second_factor import Method
from authz.ledger.commands import command, evalsha, pack
from authz.ledger.connections import TlsFiles
from authz.ledger.data_loss import (
    MARK_LIFETIME_MS,
    DataLoss,
    MergeRequest,
    ReadRequest,
    StoredRevocations,
    new_generation,
    parse_merged,
    parse_stored_revocations,
)
from authz.ledger.deadline import Deadline
from authz.ledger.faults import (
    InvalidReplyError,
    RedisFault,
    ReplyError,
    fault_of,
    needs_new_connection,
    unavailable,
)
from authz.ledger.keys import RedisKeys
from authz.ledger.late_charges import BATCH_LIFETIME_MS, LateBatch, parse_charged
from authz.ledger.location import NO_SENTINEL_LOGIN, SentinelAccess, find_primary
from authz.ledger.pool import ConnectionPool
from authz.ledger.primary import PrimaryFinder
from authz.ledger.records import (
    CorruptRecordError,
    Revocation,
    encode_approval,
    encode_step_up,
    read_revocation,
    read_step_up,
)
from authz.ledger.script import (
    CHARGE_LATE,
    DISCARD_REVOCATIONS,
    MERGE_REVOCATIONS,
    READ_REVOCATIONS,
    REPLACE_REVOCATION,
    BatchCall,
    KnownCalls,
    Script,
    TakeCall,
)

_LATE: Final = struct.Struct(">IQ")
# A reader that is away for longer only takes the data set for an older copy.
_MARK_LIFETIME: Final = b"%d" % MARK_LIFETIME_MS
# Each failed attempt means that another writer succeeded.
_REPLACE_ATTEMPTS: Final = 64


@dataclass(frozen=True, slots=True)
class LiveStepUp:
    """Hold a step-up that is recorded.

    Attributes:
        key: whose, and for which server.
        auth_time, method: when the log-in was, in seconds since the epoch, and what it proved.
    """

    key: StepUpKey
    auth_time: int
    method: Method


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """Where Redis is and how long to wait for it.

    Attributes:
        url: as `find_primary` takes it; without user and password.
        username: the ACL user; empty for the default one.
        password: empty where none is asked.
        deployment: the prefix of all keys; deployments of one name share their limits.
        timeout: seconds for all that a call needs once it has a connection slot: a new connection
            and the script's loading included.
        connections: how many there may be; further callers wait for a slot, as long as the calls
            before them are answered.
        tls: the files of TLS, in place of those that the URL names; None for those.
        sentinel: how to log in at sentinels.
    """

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    deployment: str = "authz"
    timeout: float = 0.05
    connections: int = 16
    tls: TlsFiles | None = None
    sentinel: SentinelAccess = NO_SENTINEL_LOGIN

    def __post_init__(self) -> None:
        """Check the URL.

        Raises:
            ValueError: as `find_primary` does.
        """
        self.finder()

    @property
    def keys(self) -> RedisKeys:
        """Return the keys of the deployment.

        Raises:
            ValueError: as `RedisKeys` does.
        """
        return RedisKeys(self.deployment)

    def finder(self) -> PrimaryFinder:
        """Return what finds the node that takes writes."""
        login = self.username, self.password
        return find_primary(self.url, *login, self.tls, self.sentinel, deployment=self.deployment)


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What readiness needs to know of a Redis.

    Attributes:
        policy: `maxmemory-policy`; anything but `noeviction` may evict limits and step-ups.
        writable: whether it is a primary (a replica takes no charges).
    """

    policy: str
    writable: bool

    @property
    def may_evict(self) -> bool:
        """Tell whether records may be lost before they expire."""
        return self.policy != "noeviction"


def _read_hash(reply: object) -> dict[bytes, bytes]:
    if not isinstance(reply, list) or len(reply) % 2 or {*map(type, reply)} - {bytes}:
        raise InvalidReplyError("no hash")
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _read_info(reply: object) -> dict[str, str]:
    if not isinstance(reply, bytes):
        raise InvalidReplyError("no information")
    lines = reply.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


# What reads replies to commands that are not of one plain value.
_READERS: Final[Mapping[str, Callable[[object], Any]]] = MappingProxyType(
    {"HGETALL": _read_hash, "INFO": _read_info}
)


class RedisLedger:
    """Answer queries with one atomic script call each, and write revocations and step-ups.

    Every method that talks to Redis raises UnavailableError where no proper reply came in time; the
    command may have run then.
    """

    def __init__(self, options: RedisOptions) -> None:
        """Prepare the connections; none is opened before the first query."""
        self._keys = options.keys
        # By the identity of the query first, by its values second.
        self._calls = IdentityCache(4096)
        self._known_calls = KnownCalls(self._keys)
        self._deadline = Deadline(options.timeout, patient=True)
        self._pool = ConnectionPool(options.finder())
        self._send: Callable[[bytes], Awaitable[Any]] = self._pool.send
        self._slots = asyncio.Semaphore(options.connections)  # one for each connection
        self._lost_calls = 0  # that got no reply

    @property
    def topology(self) -> str:
        """Return what kind of Redis it is, in words, with the primary where that is found."""
        return self._pool.topology

    async def take(self, query: Query) -> LedgerAnswer:
        """Answer one query, atomically; on UnavailableError Redis may have charged."""
        call = TakeCall(self._keys, query)
        return call.read(await self._guard(self._evaluate, call.script, call.command))

    def call(self, query: Query) -> TakeCall:
        """Return a query as a script call, for `answer`."""
        if query.approval_key is not None:
            # The call is in it, so that it hardly comes again: it must not displace others.
            return TakeCall(self._keys, query)
        return self._calls.get(self._known_calls, query)

    async def answer(self, calls: Sequence[TakeCall]) -> Sequence[LedgerAnswer | UnavailableError]:
        """Answer many queries with one script call, each atomically and in their order."""
        if len(calls) == 1:
            # Half the work for the script, and the error reply is told in full.
            (one,) = calls
            return [one.read(await self._guard(self._evaluate, one.script, one.command))]
        batch = BatchCall(calls)
        found = batch.read(await self._guard(self._evaluate, batch.script, batch.command))
        faults = [each for each in found if isinstance(each, UnavailableError)]
        if any(not isinstance(each, CorruptRecordError) for each in faults):
            self._pool.abort()
        return found

    async def revoke(self, target: bytes, revocation: Revocation) -> None:
        """Write a revocation, whatever is there.

        Args:
            target: `token_field`, `person_field`, `client_field`, `grant_field` or EVERYTHING
                of authz.ledger.keys.
            revocation: what of it is revoked.
        """
        await self.command("HSET", self._keys.revocations, target, revocation.encode())

    async def update(
        self, target: bytes, change: Callable[[Revocation | None], Revocation]
    ) -> Revocation:
        """Write what `change` makes of a revocation, by compare-and-set; return what stands then.

        `change` is called again where another writer was faster; it is given None for none.
        """
        for _ in range(_REPLACE_ATTEMPTS):
            (value,) = await self.command("HMGET", self._keys.revocations, target)
            before = None if value is None else read_revocation(value)
            after = change(before)
            if after == before:
                return after
            values = (target, value or b"", after.encode())
            if await self._run(REPLACE_REVOCATION, [self._keys.revocations], values) == 1:
                return after
        raise UnavailableError("redis", "a revocation is changed again and again")

    async def lift(self, target: bytes, found: Revocation | None = None) -> bool:
        """Remove a revocation; return whether it was removed.

        Args:
            target: as of `revoke`.
            found: as it was read, so that one that changed since stays; None for any.
        """
        if found is None:
            return int(await self.command("HDEL", self._keys.revocations, target)) == 1
        (value,) = await self.command("HMGET", self._keys.revocations, target)
        if value is None or read_revocation(value) != found:
            return False
        removed = await self._run(DISCARD_REVOCATIONS, [self._keys.revocations], (target, value))
        return int(removed) == 1

    async def discard(self, found: Mapping[bytes, Revocation]) -> None:
        """Remove revocations that still are as they were found; others of these targets stay."""
        if found:
            values = [part for target, one in found.items() for part in (target, one.encode())]
            await self._run(DISCARD_REVOCATIONS, [self._keys.revocations], values)

    async def revocations(self) -> Mapping[bytes, Revocation]:
        """Return all revocations by their target."""
        found = await self.command("HGETALL", self._keys.revocations)
        return {target: read_revocation(value) for target, value in found.items()}

    async def read(self, request: ReadRequest) -> StoredRevocations:
        """Return the revocations as they are stored, and leave the reader's mark."""
        keys = self._keys
        names = [keys.revocations, keys.generation, keys.mark(request.reader)]
        # Number 0: no reader takes a new data set for a later one than its own.
        first = new_generation(0, DataLoss.EMPTIED)
        values = [request.mark, _MARK_LIFETIME, first, *request.accepted]
        return parse_stored_revocations(await self._run(READ_REVOCATIONS, names, values))

    async def mark(self, reader: str) -> bytes:
        """Return the mark that a reader has left; empty where there is none."""
        (found,) = await self.command("MGET", self._keys.mark(reader))
        return found or b""

    async def merge(self, request: MergeRequest) -> int | None:
        """Write revocations that were lost; return how many, None where the data set changed."""
        keys = self._keys
        names = [keys.revocations, keys.generation, keys.mark(request.reader), keys.restored]
        values = [request.found, request.generation, request.mark, _MARK_LIFETIME]
        values += (part for change in request.changes for part in change)
        return parse_merged(await self._run(MERGE_REVOCATIONS, names, values))

    async def charge_late(self, batch: LateBatch) -> int:
        """Charge what was admitted without Redis; return how many units, 0 where it was before."""
        names = [self._keys.record("late", batch.id)]
        values = [b"%d" % BATCH_LIFETIME_MS]
        for each in batch.charges:
            names.append(self._keys.bucket(each.bucket))
            units = b"".join(_LATE.pack(*one) for one in each.units)
            values += (b"%d" % each.limit.quota, b"%d" % each.limit.slot, units)
        return parse_charged(await self._run(CHARGE_LATE, names, values))

    async def record_step_up(
        self, key: StepUpKey, method: Method, auth_time: int, ttl: int
    ) -> None:
        """Record a step-up.

        Args:
            key: whose step-up, and for which server.
            method: what it proved.
            auth_time: seconds since the epoch, of its ID token.
            ttl: seconds until the record expires, at least 1.
        """
        value = encode_step_up(method, auth_time)
        await self.command("SET", self._keys.step_up(key), value, "EX", ttl)

    async def end_step_up(self, key: StepUpKey) -> None:
        """Remove a step-up record, where there is one."""
        await self.command("DEL", self._keys.step_up(key))

    async def step_ups(self, keys: Sequence[StepUpKey]) -> tuple[LiveStepUp, ...]:
        """Return the step-ups that are recorded, of those that are named."""
        if not keys:
            return ()
        found = await self.command("MGET", *(self._keys.step_up(key) for key in keys))
        read = ((key, read_step_up(record)) for key, record in zip(keys, found, strict=True))
        return tuple(LiveStepUp(key, *each) for key, each in read if each is not None)

    async def record_approval(self, key: ApprovalKey, at: int, ttl: int, *, approved: bool) -> None:
        """Record that a person approved or declined.

        Args:
            key: what, and whose call it is.
            at: seconds since the epoch.
            ttl: seconds until the record expires, at least 1.
            approved: whether it was approved.
        """
        value = encode_approval(at, approved=approved)
        await self.command("SET", self._keys.approval(key), value, "EX", ttl)

    async def ping(self) -> None:
        """Return where Redis answers."""
        await self.command("PING")

    async def facts(self) -> RedisFacts:
        """Return what readiness needs to know."""
        info = await self.command("INFO")
        try:
            return RedisFacts(info["maxmemory_policy"], info["role"] == "master")
        except KeyError as error:
            raise UnavailableError("redis", "INFO lacks a field") from error

    async def aclose(self) -> None:
        """Close the connections."""
        # Who closes has no use for what a broken connection raises.
        with suppress(Exception), self._deadline.block():
            await self._pool.aclose()

    async def command(self, name: str, *arguments: bytes | str | int) -> Any:
        """Return the reply to one command; it is sent at most once."""
        return await self._guard(self._send_command, name, *arguments)

    async def _run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Any:
        """Return the reply of a script."""
        call = evalsha(script.sha, [pack(keys)], [pack(arguments)])
        return await self._guard(self._evaluate, script, call)

    async def _guard(self, work: Callable[..., Awaitable[Any]], *args: object) -> Any:
        """Do the work in time; translate whatever goes wrong into one fault.

        Time counts from the slot on: a thousand callers at once are no fault of Redis. But whoever
        waits for a slot while another call is lost fails with it: its own slot might come after
        many time-outs.
        """
        lost_calls = self._lost_calls
        async with self._slots:
            if lost_calls != self._lost_calls:
                raise UnavailableError("redis", "an earlier call had no answer")
            try:
                with self._deadline.block():
                    return await work(*args)
            except (ReplyError, InvalidReplyError) as error:
                if needs_new_connection(fault_of(error)):
                    self._pool.abort()
                raise unavailable(error) from error
            except Exception as fault:
                # Not RedisError and OSError alone: a defect of a driver (an AttributeError of a
                # connection closed beneath it, a UnicodeError) is an outage of Redis too.
                self._lost_calls += 1
                self._pool.doubt()
                raise unavailable(fault) from fault

    async def _send_command(self, name: str, *arguments: bytes | str | int) -> Any:
        reply = await self._send(command(name, *arguments))
        reader = _READERS.get(name)
        return reply if reader is None else reader(reply)

    async def _evaluate(self, script: Script, call: bytes) -> Any:
        try:
            return await self._send(call)
        except ReplyError as error:
            if fault_of(error) is not RedisFault.NO_SCRIPT:
                raise
        # After a restart. Nothing ran, so nothing was charged: to send it again is no retry. (Not
        # awaited in the `except`: see `AsgiTransport._guard`.)
        await self._send(command("SCRIPT LOAD", script.source))
        return await self._send(call)
