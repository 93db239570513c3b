"""Five hundred people behind one address, each with a token of their own, and a stranger there.

The issuer runs in this process, so that tokens can be made without five hundred log-ins; their
records are written where the front door writes them. All else is as it runs: Envoy, `authz serve`,
`authz pages`, Valkey, MCP servers.
"""

import asyncio
import os
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final

import pyotp

from authz.config.load import load
from authz.config.model import Login
from authz.core.principal import LoginRecord
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import LoginRecords
from authz.ledger.redis import RedisLedger
from authz.local.redis_location import shared_redis
from authz.process.service import ServiceSpec
from authz_demo import front_door
from authz_demo.environment import Location, People, listening, process_environment
from authz_demo.issuer import StandInConfig, StandInIssuer, User, mint
from authz_demo.issuer.run import run
from authz_demo.issuer.state import IssuerGrant
from authz_demo.login_drivers import LoginDriver
from authz_demo.loopback import LoopbackNetwork
from authz_demo.person import FORMS, BrowserUser
from authz_demo.serving import Address
from tests.support.demo_environment import RunningEnvironment

ADDRESS: Final = "127.0.0.9"
SERVER: Final = "notes"
_AMR: Final = ("pwd", "kba", "otp", "mfa")
_WAITING: Final = (sys.executable, "-c", "import signal; signal.pause()")
_PATIENCE: Final = 120


@dataclass(frozen=True, slots=True)
class Member:
    """One of the crowd: who they are, and the token that they have."""

    person: BrowserUser
    subject: str
    token: str


class OpenIssuer:
    """The stand-in in a thread of this process, with many people."""

    portal: LoginDriver = FORMS

    def __init__(self, people: int) -> None:
        self._users = [
            User(
                f"person-{number}",
                secrets.token_urlsafe(9),
                pyotp.random_base32(),
                f"00000000-0000-4000-8000-{number:012}",
            )
            for number in range(people)
        ]
        self._running: Future[StandInIssuer] = Future()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread: threading.Thread | None = None

    def part(self, place: Location, who: People, machine_secret: str, login: Login) -> ServiceSpec:
        """Start it, and return a part that stands for it."""
        del who, machine_secret, login
        known = front_door.clients(place.gateway, place.folder)
        config = StandInConfig(place.issuer, tuple(self._users), known)
        address = Address(place.issuer_port)
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._run(config, address))
        )
        self._thread.start()
        self._running.result(_PATIENCE)
        return ServiceSpec("issuer", _WAITING, process_environment(), listening(place.issuer_port))

    async def _run(self, config: StandInConfig, address: Address) -> None:
        try:
            async with run(config, address) as running:
                self._running.set_result(running.issuer)
                await self._end.wait()
        except BaseException as error:  # noqa: BLE001 - told to the thread that waits
            if not self._running.done():
                self._running.set_exception(error)

    def close(self) -> None:
        """End it."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
        self._loop.close()

    def members(self, gateway: str) -> list[Member]:
        """Return everybody with a new access token for the server."""
        issuer = self._running.result()
        client = next(
            each for each in issuer.config.clients if each.client_id == front_door.TWO_FACTOR
        )
        scopes, audience = ("openid", f"mcp:{SERVER}"), (f"{gateway}/{SERVER}",)
        now = int(time.time())
        return [
            Member(
                BrowserUser(user.username, user.password, user.totp_secret),
                user.subject,
                mint.access_token(
                    issuer,
                    client,
                    IssuerGrant(
                        client.client_id, user, scopes, audience, now, amr=_AMR, auth_time=now
                    ),
                    scopes,
                ),
            )
            for user in self._users
        ]


async def record(running: RunningEnvironment, members: Sequence[Member]) -> None:
    """Write down the log-in behind each token, as the front door does."""
    settings = load(running.environment.configuration, os.environ)
    ledger = RedisLedger(replace(shared_redis(settings, os.environ, running.state), timeout=20))
    log_ins = LoginRecords(ledger.command, RedisKeys(settings.config.redis.deployment))
    try:
        for member in members:
            name = "dynamic/assistant.example"
            log_in = LoginRecord(
                name, name, member.subject, member.subject, frozenset(_AMR), int(time.time())
            )
            await log_ins.put(member.token, log_in, 3600)
    finally:
        await ledger.aclose()


def from_one_address(running: RunningEnvironment) -> LoopbackNetwork:
    """Return how everybody of the office reaches the gateway."""
    return replace(running.network, source=ADDRESS)
