"""The flow without HTTP, its steps in any order: real Valkey, a small Authelia, a schedule.

Every command to Redis, every call of Authelia and every wait stands still until the schedule lets
it go on, so that a property can choose the order, or end a task between two steps.
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from authz.core.policy import Policy, Rule, Server
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import LoginRecords
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.login.protocol.authorization_code import AuthorizationCode
from authz.login.protocol.members import digest
from authz.login.protocol.parameters import Parameters
from authz.login.protocol.resources import ResourceServers
from authz.login.protocol.values import (
    ClientKind,
    LoginIdentity,
    OAuthClient,
    OAuthError,
    UpstreamAuthorizationRequest,
    UpstreamError,
    UpstreamLogin,
    UpstreamTokens,
)
from authz.login.service.code_exchange import CodeExchange
from authz.login.service.grant_end import GrantEnder
from authz.login.service.ports import StepLog
from authz.login.service.rate_limits import LoginRateLimiter
from authz.login.service.refresh import TokenRefresh
from authz.login.service.revocation import TokenRevocation
from authz.login.store.blocklist import Blocklist
from authz.login.store.codes import CodeStore, LoginFaults, RefreshStore, StateStore
from authz.login.store.grants import GrantStore
from authz.login.store.people import PeopleStore
from authz.login.web.own_grants import PersonsGrants
from authz.tokens.sealing import Sealer
from tests.support.valkey import ValkeyServer
from tests.support.values import FILES, ISSUER

GATEWAY: Final = "https://mcp.example.test"
REDIRECT: Final = "http://127.0.0.1/callback"
VERIFIER: Final = "v" * 43
CHALLENGE: Final = "7w_YNF9DSfIdPf_pRjSq646_kPr-2-o9NAl16JGghdM"


def parameters(**values: str) -> Parameters:
    return Parameters(values, frozenset(), ())


class Killed(BaseException):
    """The process died here."""


class Schedule:
    """Let one step go on at a time, in the order of the choices."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []
        self.free = True
        self.busy = 0  # commands under way

    async def step(self) -> None:
        if self.free:
            await asyncio.sleep(0)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        await turn

    async def run(
        self, work: Mapping[str, Awaitable[Any]], choose: Callable[[int], int], kill: int = -1
    ) -> dict[str, Any]:
        """Run tasks to their ends, interleaved; return results or exceptions by name.

        Args:
            work: the tasks.
            choose: one of so many waiting steps.
            kill: the number of the step after which its task does nothing more; -1 for none.
        """
        self.free, number = False, 0
        tasks = {name: asyncio.ensure_future(each) for name, each in work.items()}
        while await self._stands_still():
            turn = self.waiting.pop(choose(len(self.waiting)))
            if number != kill:  # a dead process does not even clean up behind itself
                turn.set_result(None)
            number += 1
        self.free = True
        return {name: _outcome(task) for name, task in tasks.items()}

    async def bury(self) -> None:
        """End what never ended, and what that began."""
        self.free = True
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _stands_still(self) -> bool:
        """Wait until nothing moves; tell whether something waits for its turn."""
        for _ in range(6):
            await asyncio.sleep(0)
            while self.busy:  # noqa: ASYNC110 - the point is to look after every turn of the loop
                await asyncio.sleep(0)
        return bool(self.waiting)


def _outcome(task: asyncio.Future[Any]) -> Any:
    if not task.done():
        return Killed()
    return task.exception() or task.result()


@dataclass
class FakeAuthelia:
    """Log in whom the code names; rotate refresh tokens; note what is asked."""

    schedule: Schedule
    refreshed: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    alive: dict[str, str] = field(default_factory=dict)  # refresh token → subject
    lifetime: int = 3600  # seconds that access tokens live
    numbers: Any = field(default_factory=itertools.count)

    async def push(self, asked: UpstreamAuthorizationRequest, address: str) -> str:
        await self.schedule.step()
        return f"{ISSUER}/authorize?{asked.state}"

    async def exchange(self, *, code: str, **_: object) -> UpstreamLogin:
        await self.schedule.step()
        return self._logged_in(code)

    async def refresh(self, *, refresh_token: str, subject: str, **_: object) -> UpstreamLogin:
        self.refreshed.append(refresh_token)
        await self.schedule.step()
        if self.alive.pop(refresh_token, None) != subject:
            raise UpstreamError("invalid_grant")
        return self._logged_in(subject)

    async def revoke(self, *, token: str, **_: object) -> None:
        await self.schedule.step()
        self.revoked.append(token)
        self.alive.pop(token, None)

    def check_iss(self, iss: str | None) -> None:
        if iss != ISSUER:
            raise UpstreamError("invalid_request")

    def _logged_in(self, subject: str) -> UpstreamLogin:
        number = next(self.numbers)
        refresh = f"rt-{number}"
        self.alive[refresh] = subject
        tokens = UpstreamTokens(
            f"at-{number}",
            refresh,
            int(time.time()) + self.lifetime,
            frozenset({"openid", "mcp:tools"}),
            (FILES,),
        )
        return UpstreamLogin(
            tokens, LoginIdentity(subject, frozenset({"pwd"}), 1_700_000_000, subject)
        )


class FakeClients:
    """Two clients, and nobody else."""

    def recognize(self, client_id: str) -> None:
        if client_id not in ("one", "two"):
            raise OAuthError("invalid_client", "unknown", 401)

    async def find(self, client_id: str) -> OAuthClient:
        self.recognize(client_id)
        return OAuthClient(
            client_id, ClientKind.CONFIGURED, client_id.title(), "", (REDIRECT,), None
        )

    def fetches(self, client_id: str) -> bool:
        return False


@dataclass
class Flow:
    """The parts of the flow."""

    servers: ResourceServers
    sealer: Sealer
    codes: CodeStore
    states: StateStore
    refreshes: RefreshStore
    faults: LoginFaults
    grants: GrantStore
    people: PeopleStore
    blocks: Blocklist
    records: LoginRecords
    limiter: LoginRateLimiter
    ender: GrantEnder
    log: StepLog
    authelia: FakeAuthelia
    schedule: Schedule
    ledger: RedisLedger
    valkey: ValkeyServer
    deployment: str
    told: list[tuple[str, str]]
    clock: Callable[[], float] = time.time

    async def code(self, client_id: str = "one", subject: str = "john", grant: str = "") -> str:
        """A code of a log-in that has just ended."""
        text = uuid.uuid4().hex + "a" * 11
        tokens, who = await self._log_in(subject)
        code = AuthorizationCode(
            grant_id=grant or uuid.uuid4().hex,
            subject=subject,
            two_factor=False,
            upstream_token=tokens.refresh_token or "",
            address="192.0.2.7",
            client=client_id,
            client_digest=digest(client_id),
            redirect_uri=REDIRECT,
            code_challenge=CHALLENGE,
            server="files",
            resource=FILES,
            scopes=("mcp:tools",),
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            expires_at=tokens.expires_at,
            account=who.account,
            amr=("pwd",),
            auth_time=who.auth_time,
            consented_at=int(time.time()),
        )
        await self.codes.issue(text, code)
        return text

    def exchange(self) -> CodeExchange:
        return CodeExchange(
            clients=FakeClients(),
            upstream=self.authelia,
            codes=self.codes,
            grants=self.grants,
            blocks=self.blocks,
            ender=self.ender,
            sealer=self.sealer,
            grant_max_age=30 * 86_400,
            clock=self.clock,
            log=self.log,
        )

    def refresh(self, **options: Any) -> TokenRefresh:
        return TokenRefresh(
            servers=self.servers,
            clients=FakeClients(),
            upstream=self.authelia,
            refreshes=self.refreshes,
            faults=self.faults,
            grants=self.grants,
            people=self.people,
            blocks=self.blocks,
            ender=self.ender,
            limiter=self.limiter,
            sealer=self.sealer,
            grant_max_age=30 * 86_400,
            refresh_tokens="unless_declined",
            stale_refresh=86_400,
            clock=self.clock,
            log=self.log,
            **options,
        )

    def revocation(self) -> TokenRevocation:
        return TokenRevocation(
            clients=FakeClients(),
            grants=self.grants,
            records=self.records,
            ender=self.ender,
            sealer=self.sealer,
            log=self.log,
        )

    def own_grants(self) -> PersonsGrants:
        return PersonsGrants(self.grants, self.ender)

    async def _log_in(self, subject: str) -> tuple[UpstreamTokens, LoginIdentity]:
        found = self.authelia._logged_in(subject)
        return found.tokens, found.identity

    def keys(self, kind: str = "") -> list[bytes]:
        found: list[bytes] = self.valkey.command("KEYS", f"{{{self.deployment}}}:{kind}*")
        return sorted(found)


@asynccontextmanager
async def flow(valkey: ValkeyServer) -> AsyncIterator[Flow]:
    """Make the parts, on a deployment of their own."""
    deployment = f"test-{uuid.uuid4().hex}"
    ledger = RedisLedger(RedisOptions(valkey.url, deployment=deployment, timeout=20.0))
    schedule = Schedule()
    authelia = FakeAuthelia(schedule)

    async def command(*words: Any) -> Any:
        await schedule.step()
        schedule.busy += 1
        try:
            return await ledger.command(*words)
        finally:
            schedule.busy -= 1

    keys, sealer, told = (
        RedisKeys(deployment),
        Sealer(("k" * 40,), time.time),
        list[tuple[str, str]](),
    )
    server = Server("files", FILES, "", Rule(scopes=frozenset({"mcp:tools"})))
    policy = Policy(ISSUER, servers=MappingProxyType({"files": server}))
    grants = GrantStore(
        command, keys, ISSUER, max_age=30 * 86_400, max_lifetime=43_210, clock=time.time
    )

    people = PeopleStore(
        command, keys, ISSUER, sealer=sealer, lifetime=grants.kept, clock=time.time
    )

    def log(step: str, outcome: str, **_: object) -> None:
        told.append((step, outcome))

    found = Flow(
        servers=ResourceServers(policy),
        sealer=sealer,
        codes=CodeStore(command, keys, sealer, 30 * 86_400),
        states=StateStore(command, keys),
        refreshes=RefreshStore(command, keys, sealer),
        faults=LoginFaults(command, keys, time.time),
        grants=grants,
        people=people,
        blocks=Blocklist(command, keys),
        records=LoginRecords(command, keys),
        limiter=LoginRateLimiter(time.time),
        ender=GrantEnder(grants, authelia, log),
        log=log,
        authelia=authelia,
        schedule=schedule,
        ledger=ledger,
        valkey=valkey,
        deployment=deployment,
        told=told,
    )
    try:
        yield found
    finally:
        await schedule.bury()
        await ledger.aclose()
