"""Queries for the ledger's tests, and one interface to both kinds of ledger."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from authz.core.approval import Approval, ApprovalKey
from authz.core.ledger import LedgerAnswer, Mode, OverLimit, Query, Session, StepUpKey, Taken
from authz.core.limits import Limit, Per, Take, digest
from authz.core.principal import Client, Person
from authz.core.second_factor import Method, StepUpNeed
from authz.ledger.memory import MemoryLedger
from authz.ledger.records import read_revocation
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.script import TakeCall
from tests.support.valkey import ValkeyServer

PERSON = Person("https://auth.example.com", "ada")
CLIENT = Client("https://auth.example.com", "claude")
GRANT = "grant-1"
SELF_NAMED = Client(CLIENT.issuer, "https://claude.ai/client.json")
KEY = StepUpKey(PERSON, GRANT, "files")
ISSUED = 1_700_000_000
DAY = 86_400
START = 1_800_000_000.0

T = TypeVar("T")
Either = RedisLedger | MemoryLedger


def limit(quota: int = 3, window: int = DAY, cost: int = 1) -> Limit:
    """Return a limit whose slot does not end while a test runs."""
    return Limit("test", Per.USER, quota, window, cost)


def take(name: str = "bucket", *, quota: int = 3, window: int = DAY, cost: int = 1) -> Take:
    """Return a take on the bucket of that name."""
    return Take(digest(name), limit(quota, window, cost))


def query(*takes: Take, need: StepUpNeed | None = None, key: StepUpKey = KEY) -> Query:
    """Return a query of ada's with claude."""
    key_if_needed = key if need else None
    return Query("token-1", PERSON, CLIENT, ISSUED, key_if_needed, need, takes, GRANT, SELF_NAMED)


NOTHING = StepUpNeed(Method.NONE, None)
APPROVAL_KEY = ApprovalKey(
    PERSON, GRANT, "files", "delete_file", Approval(), NOTHING, digest("exact call")
)


def approving(asked: Query, lifetime: int | None = None, key: ApprovalKey = APPROVAL_KEY) -> Query:
    """Return a query that needs an approval: of its call, or of the tool for some seconds."""
    if lifetime is not None:
        key = replace(key, approval=Approval(lifetime), call=None)
    return replace(asked, approval_key=key)


def session(
    name: str = "s", owner: str = "ada", client: str = "claude", *, lifetime: int = DAY
) -> Session:
    """Return the session of that name, used by a person with a client."""
    return Session(digest(name), digest(owner, client), digest(owner), lifetime)


def left(answer: LedgerAnswer) -> list[int]:
    """Return what is left of each limit."""
    assert isinstance(answer, Taken | OverLimit), answer
    return [quota.remaining for quota in answer.quotas]


def exceeded(answer: LedgerAnswer) -> list[int]:
    """Return 1 for each limit that had no room, 0 for each other."""
    assert isinstance(answer, Taken | OverLimit), answer
    return [int(quota.exceeded) for quota in answer.quotas]


def without_mode(answer: LedgerAnswer) -> LedgerAnswer:
    """Return the answer without saying who counted."""
    return Taken(answer.quotas, Mode.REDIS) if isinstance(answer, Taken) else answer


class Subject(ABC):
    """A ledger under the contract, and what a test may do to it from outside."""

    def __init__(self, ledger: Either) -> None:
        self.ledger = ledger

    @abstractmethod
    async def now(self) -> float:
        """Return the seconds of the ledger's own clock."""

    @abstractmethod
    async def end_session(self, session: Session) -> None:
        """Let the binding of a session end, as its lifetime does."""

    @abstractmethod
    async def put_revocation(self, target: bytes, value: bytes) -> None:
        """Write a revocation that no code of ours has checked."""

    @abstractmethod
    async def put_step_up(self, key: StepUpKey, value: bytes) -> None:
        """Write a step-up record that no code of ours has checked."""

    @abstractmethod
    async def put_approval(self, key: ApprovalKey, value: bytes) -> None:
        """Write the record of an approval that no code of ours has checked."""


class InMemory(Subject):
    """The in-process ledger, its clock standing still."""

    ledger: MemoryLedger

    async def now(self) -> float:
        return START

    async def end_session(self, session: Session) -> None:
        bound = self.ledger._sessions._bound
        bound[session.id] = bound[session.id]._replace(ends=0)

    async def put_revocation(self, target: bytes, value: bytes) -> None:
        self.ledger._revocations[target] = read_revocation(value)

    async def put_step_up(self, key: StepUpKey, value: bytes) -> None:
        self.ledger._step_ups[key] = (value, START + DAY)

    async def put_approval(self, key: ApprovalKey, value: bytes) -> None:
        self.ledger._approvals[key] = (value, START + DAY)


class Real(Subject):
    """The ledger in a real server, with its real clock."""

    ledger: RedisLedger

    async def now(self) -> float:
        seconds, _ = await self.ledger.command("TIME")
        return float(seconds)

    async def end_session(self, session: Session) -> None:
        await self.ledger.command("DEL", self.ledger._keys.session(session))

    async def put_revocation(self, target: bytes, value: bytes) -> None:
        await self.ledger.command("HSET", self.ledger._keys.revocations, target, value)

    async def put_step_up(self, key: StepUpKey, value: bytes) -> None:
        await self.ledger.command("SET", self.ledger._keys.step_up(key), value, "EX", DAY)

    async def put_approval(self, key: ApprovalKey, value: bytes) -> None:
        await self.ledger.command("SET", self.ledger._keys.approval(key), value, "EX", DAY)


def patient(server: ValkeyServer, deployment: str) -> RedisOptions:
    """Return options for tests that are not about time-outs: a busy machine is no fault."""
    return RedisOptions(server.url, deployment=deployment, timeout=20)


@asynccontextmanager
async def connected(options: RedisOptions) -> AsyncIterator[RedisLedger]:
    """Yield a ledger and close its connections."""
    ledger = RedisLedger(options)
    try:
        yield ledger
    finally:
        await ledger.aclose()


class Contract:
    """Run a scenario on one kind of ledger, which begins empty."""

    def __init__(self, server: ValkeyServer | None, deployment: str) -> None:
        self._server = server
        self._deployment = deployment

    def __call__(self, scenario: Callable[[Subject], Awaitable[T]]) -> T:
        async def run() -> T:
            if self._server is None:
                return await scenario(InMemory(MemoryLedger(lambda: START)))
            async with connected(patient(self._server, self._deployment)) as ledger:
                return await scenario(Real(ledger))

        return asyncio.run(run())


async def timed(ledger: RedisLedger, asked: Query) -> tuple[int, LedgerAnswer]:
    """Answer a query as `take` does, and tell Redis' clock at the answer, in milliseconds."""
    call = TakeCall(ledger._keys, asked)
    reply = await ledger._guard(ledger._evaluate, call.script, call.command)
    return reply[0], call.read(reply)
