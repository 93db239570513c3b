"""Opaque tokens, what an issuer says of them, and fakes of the issuer that is asked."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.tokens.bulkhead import Bulkhead, TokenBucket
from authz.tokens.front_door import FrontDoorTokens
from authz.tokens.introspection_cache import Ages, IntrospectionCache, LookUpEvent
from authz.tokens.introspector import Introspector
from authz.tokens.issuer_http import IssuerError
from authz.tokens.verifier import TokenVerifier
from tests.tokens.token_factory import (
    FILES,
    NOTES,
    NOW,
    RULES,
    TokenBench,
    TokenClock,
    outcome_of,
    with_changes,
)

# As a recorded Authelia answers (fixtures: "opaque").
ANSWER: Final[Mapping[str, object]] = {
    "active": True,
    "aud": [FILES, NOTES],
    "client_id": "mcp-opaque",
    "exp": NOW + 3600,
    "iat": NOW - 60,
    "scope": "openid mcp:tools",
    "sub": "52b134ec-d812-4022-82b4-9100df7e1418",
    "username": "john",
}
UNAVAILABLE: Final = "unavailable: issuer"
INACTIVE: Final[Mapping[str, object]] = {"active": False}
TOKEN: Final = "authelia_at_" + "S" * 43 + "." + "_" * 43

UNHURRIED: Final = Ages(deadline=5.0)

Said = Mapping[str, object] | IssuerError | Exception


def said(**changes: object) -> dict[str, object]:
    """Return the good answer with some changes."""
    return with_changes(ANSWER, changes)


def junk() -> str:
    """Return a token that looks like Authelia's and is nobody's."""
    return f"authelia_at_{secrets.token_urlsafe(32)}.{secrets.token_urlsafe(32)}"


class Unpaced(TokenBucket):
    """Let everybody through, for tests of the rest."""

    def __init__(self) -> None:
        super().__init__(1.0, 1.0, lambda: 0.0)

    def take(self) -> bool:
        return True


class Endpoint:
    """An issuer that answers as it is told, when it is told, and counts."""

    def __init__(self, answer: Said | Callable[[str], Said] = ANSWER) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.running = 0
        self.most = 0
        self.gate: asyncio.Event | None = None

    async def ask(self, token: str) -> Mapping[str, object]:
        self.asked.append(token)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            answer = self.answer(token) if callable(self.answer) else self.answer
        finally:
            self.running -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer


class IntrospectionDesk:
    """An introspector with all that it stands on, in the hands of a test."""

    def __init__(
        self,
        answer: Said | Callable[[str], Said] = ANSWER,
        *,
        ages: Ages = UNHURRIED,
        width: int = 8,
        capacity: int = 100,
        front_door: FrontDoorTokens | None = None,
    ) -> None:
        self.endpoint = Endpoint(answer)
        self.clock = TokenClock(NOW)
        self.monotonic = TokenClock(1000.0)
        self.reports: list[LookUpEvent] = []
        self.gate = Bulkhead(width, Unpaced(), clock=self.monotonic, chance=lambda: 0.5)
        self.lookups = IntrospectionCache(
            self.endpoint,
            RULES,
            ages,
            self.gate,
            capacity=capacity,
            observer=self.reports.append,
            clock=self.clock,
        )
        self.introspector = Introspector(self.lookups, clock=self.clock)
        self.bench = TokenBench()
        self.verifier = TokenVerifier(
            self.bench.keys,
            RULES,
            introspector=self.introspector,
            front_door=front_door,
            clock=self.clock,
        )

    async def outcome(self, token: str = TOKEN) -> Principal | Reason | str:
        """Verify a token: who sent it, why not, or whose fault."""
        return await outcome_of(self.verifier.verify(token))

    async def confirmed(
        self, token: str, principal: Principal, since: float | None = None
    ) -> Principal | Reason | str:
        """Confirm a token as of now, or since a moment."""
        moment = self.clock() if since is None else since
        return await outcome_of(self.verifier.confirm(token, principal, moment))

    @property
    def outcomes(self) -> list[str]:
        return [report.outcome for report in self.reports]


def play(
    scene: Callable[[IntrospectionDesk], Awaitable[None]], desk: IntrospectionDesk | None = None
) -> IntrospectionDesk:
    """Play a scene and close the desk."""
    one = IntrospectionDesk() if desk is None else desk

    async def run() -> None:
        try:
            await scene(one)
        finally:
            await one.introspector.aclose()

    asyncio.run(run())
    return one


async def settled() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)
