"""The ledger in Redis or Valkey: one script call for a query or for many, and those who write.

Law: a query is sent at most once, so it is charged at most once; whatever goes wrong, and
however slowly, ends in `UnavailableError`: for who was asking after one time-out, for who waited
for a connection at the same moment. A call without its answer costs its connection, so that nobody
reads another caller's answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from authz.core.ledger import LedgerAnswer, Query, StepUpKey, UnavailableError
from authz.core.memo import Memo
from authz.core.second_factor import Method
from authz.ledger.commands import command
from authz.ledger.connections import ConnectionPool, parse_redis_url
from authz.ledger.data_loss import (
    MergeCall,
    MergeRequest,
    ReadCall,
    ReadRequest,
    StoredRevocations,
    read_merged,
    read_reading,
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
from authz.ledger.records import CorruptRecordError, Revocation, encode_step_up, read_revocation
from authz.ledger.script import BatchCall, DiscardCall, TakeCall, known_calls


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """Say where Redis is and how long to wait for it.

    Attributes:
        url: `redis://host:port/db`, `rediss://…` (TLS, verified; `?ssl_ca_certs=file`) or
            `unix:///path?db=0`; without user and password.
        username: the ACL user; empty for the default one.
        password: empty where none is asked.
        deployment: the name that all keys begin with; what shares it shares limits.
        timeout: seconds for all that a call needs once it is its turn: a new connection and the
            script's loading included.
        connections: how many there may be; further callers wait for their turn, as long as the
            calls before them are answered.
    """

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    deployment: str = "authz"
    timeout: float = 0.05
    connections: int = 16

    def __post_init__(self) -> None:
        """Refuse a URL that says more than where Redis is.

        Raises:
            ValueError: as `endpoint` does.
        """
        parse_redis_url(self.url)


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """State what readiness wants to know of a Redis.

    Attributes:
        policy: `maxmemory-policy`; anything but `noeviction` may forget limits and step-ups.
        writable: whether it is a primary (a replica takes no charges).
    """

    policy: str
    writable: bool

    @property
    def may_evict(self) -> bool:
        """Tell whether records may be lost before their time."""
        return self.policy != "noeviction"


def _hash(answer: object) -> dict[bytes, bytes]:
    if not isinstance(answer, list) or len(answer) % 2 or {*map(type, answer)} - {bytes}:
        raise InvalidReplyError("no hash")
    return dict(zip(answer[::2], answer[1::2], strict=True))


class RedisLedger:
    """Answer queries with one atomic script call, and write what other rooms record."""

    def __init__(self, options: RedisOptions) -> None:
        """Prepare the connections; none is opened before the first query."""
        self._keys = RedisKeys(options.deployment)
        # Mostly it is the very same query; else one of the same values.
        self._calls = Memo(known_calls(self._keys).__call__)
        self._deadline = Deadline(options.timeout, patient=True)
        self._pool = ConnectionPool(
            parse_redis_url(options.url, options.username, options.password)
        )
        # What redis-py makes of answers, by the command's name. Of no answer to HGETALL it makes a
        # hash without fields: to us nothing is revoked only where Redis says so.
        reading = Redis().response_callbacks
        self._reading: Mapping[Any, Any] = {**reading, "HGETALL": _hash}
        self._send: Callable[[bytes], Awaitable[Any]] = self._pool.send
        # As many connections as there are turns: further callers wait for theirs.
        self._turn = asyncio.Semaphore(options.connections)
        self._lost = 0  # calls that got no answer

    async def take(self, query: Query) -> LedgerAnswer:
        """Answer one query, atomically.

        Raises:
            UnavailableError: where Redis gave no proper answer in time; it may have charged.
        """
        call = TakeCall(self._keys, query)
        return call.read(await self._guard(self._evaluate, call))

    def call(self, query: Query) -> TakeCall:
        """Return a query in the script's words, for `answer`."""
        return self._calls(query)

    async def answer(self, calls: Sequence[TakeCall]) -> Sequence[LedgerAnswer | UnavailableError]:
        """Answer many queries with one script call, each atomically and in their order.

        Raises:
            UnavailableError: where Redis gave no proper answer in time; it may have charged.
        """
        if len(calls) == 1:
            # Half the work for the script; and what fails is told in full.
            return [calls[0].read(await self._guard(self._evaluate, calls[0]))]
        many = BatchCall(calls)
        found = many.read(await self._guard(self._evaluate, many))
        if any(
            isinstance(each, UnavailableError) and not isinstance(each, CorruptRecordError)
            for each in found
        ):
            self._pool.abort()
        return found

    async def revoke(self, target: bytes, revocation: Revocation) -> None:
        """Record a revocation.

        Args:
            target: `token_field`, `person_field`, `client_field`, `grant_field` or EVERYTHING
                of authz.ledger.keys.
            revocation: what of it is revoked.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        await self.command("HSET", self._keys.revocations, target, revocation.encode())

    async def lift(self, *targets: bytes) -> None:
        """Remove revocations, where there are such.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        if targets:
            await self.command("HDEL", self._keys.revocations, *targets)

    async def revocations(self) -> Mapping[bytes, Revocation]:
        """Return all revocations by their target.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        found = await self.command("HGETALL", self._keys.revocations)
        return {target: read_revocation(value) for target, value in found.items()}

    async def read(self, question: ReadRequest) -> StoredRevocations:
        """Return the revocations as they are stored, and leave the reader's mark.

        Raises:
            UnavailableError: where Redis did not answer; it may have left the mark.
        """
        return read_reading(await self._guard(self._evaluate, ReadCall(self._keys, question)))

    async def mark(self, reader: str) -> bytes:
        """Return the mark that a reader has left; empty where there is none.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        (found,) = await self.command("MGET", self._keys.mark(reader))
        return found or b""

    async def merge(self, merge: MergeRequest) -> int | None:
        """Write revocations that Redis has lost; return how many, None where it changed meanwhile.

        Raises:
            UnavailableError: where Redis did not confirm it; it may have written them.
        """
        return read_merged(await self._guard(self._evaluate, MergeCall(self._keys, merge)))

    async def discard(self, found: Mapping[bytes, Revocation]) -> None:
        """Remove revocations that stand as they were found; others of these targets stay.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        if found:
            await self._guard(self._evaluate, DiscardCall(self._keys, found))

    async def record_step_up(
        self, key: StepUpKey, method: Method, auth_time: int, ttl: int
    ) -> None:
        """Record a step-up.

        Args:
            key: whose step-up, and for which server.
            method: what it proved.
            auth_time: seconds since the epoch, of its ID token.
            ttl: seconds until the record is forgotten, at least 1.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        value = encode_step_up(method, auth_time)
        await self.command("SET", self._keys.step_up(key), value, "EX", ttl)

    async def end_step_up(self, key: StepUpKey) -> None:
        """Forget a step-up, where there is one.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        await self.command("DEL", self._keys.step_up(key))

    async def ping(self) -> None:
        """Return where Redis answers.

        Raises:
            UnavailableError: where it does not.
        """
        await self.command("PING")

    async def facts(self) -> RedisFacts:
        """Return what readiness wants to know.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        info = await self.command("INFO")
        try:
            return RedisFacts(str(info["maxmemory_policy"]), info["role"] == "master")
        except (KeyError, TypeError) as error:
            raise UnavailableError("redis", "INFO lacks a field") from error

    async def aclose(self) -> None:
        """Close the connections."""
        # Who closes has no use for what a broken connection says.
        with suppress(Exception), self._deadline.block():
            await self._pool.aclose()

    async def command(self, name: str, *arguments: bytes | str | int) -> Any:
        """Return the answer to one command; it is sent at most once.

        Raises:
            UnavailableError: where Redis gave none in time, or an error.
        """
        return await self._guard(self._ask, name, *arguments)

    async def _guard(self, work: Callable[..., Awaitable[Any]], *args: object) -> Any:
        """Do the work in time; whatever goes wrong is one fault.

        Time is taken from the call's turn: a thousand callers at once are no fault of Redis.
        But who waits while another's call is lost does not try its own luck: its turn may come
        after many time-outs.
        """
        lost = self._lost
        async with self._turn:
            if lost != self._lost:
                raise UnavailableError("redis", "an earlier call had no answer")
            try:
                with self._deadline.block():
                    return await work(*args)
            except (ReplyError, InvalidReplyError) as error:
                if needs_new_connection(fault_of(error)):
                    self._pool.abort()
                raise unavailable(error) from error
            except Exception as fault:
                # Not RedisError and OSError alone: a driver's slip (an AttributeError of a
                # connection closed beneath it, a UnicodeError) is Redis being away too.
                self._lost += 1
                raise unavailable(fault) from fault

    async def _ask(self, name: str, *arguments: bytes | str | int) -> Any:
        answer = await self._send(command(name, *arguments))
        reading = self._reading.get(name)
        return answer if reading is None else reading(answer)

    async def _evaluate(
        self, call: TakeCall | BatchCall | DiscardCall | ReadCall | MergeCall
    ) -> Any:
        try:
            return await self._send(call.command)
        except ReplyError as error:
            if fault_of(error) is not RedisFault.NO_SCRIPT:
                raise
        # After a restart. Nothing ran, so nothing was charged: to send it again is no retry. (Not
        # awaited in the `except`: see `AsgiTransport._guard`.)
        await self._send(command("SCRIPT LOAD", call.script.source))
        return await self._send(call.command)
