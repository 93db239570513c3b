"""The parts that a configuration asks for: keys, verifier, ledger; built, kept or replaced.

Law: a part is kept over a reload where all that it was built from is the same, so that a reload
forgets no key, no verified token and no count that it need not forget.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx
from pydantic import SecretStr

from authz.config.load import Settings
from authz.config.model import Issuer
from authz.config.model import Redis as RedisConfig
from authz.ledger.redis import RedisOptions
from authz.server.check import Snapshot
from authz.server.counting import Counting
from authz.server.introspecting import Introspecting
from authz.server.redis_options import redis_options
from authz.telemetry.recorder import Recorder
from authz.tokens.claims import ClaimRules
from authz.tokens.documents import issuer_client
from authz.tokens.issuer import IssuerAddress, IssuerKeys
from authz.tokens.keys import Fetched, Renewal, SigningKeys
from authz.tokens.verifier import TokenVerifier

# Seconds for the ledger on top of the issuer's deadline; Envoy waits 100 ms longer than that
# deadline, so that the answer is ours.
_LEDGER: Final = 0.08
_CONNECT: Final = 5.0


class Identity:
    """Own what verifies the tokens of one issuer."""

    def __init__(self, issuer: Issuer, credential: SecretStr | None, recorder: Recorder) -> None:
        """Build the key set and the verifier; nothing is fetched yet.

        Args:
            issuer: the section of authz.yaml.
            credential: what introspection is allowed with; None where it is not configured.
            recorder: where faults go.
        """
        self._recorder = recorder
        self._max_age = issuer.keys.max_age
        algorithms = frozenset[str](issuer.algorithms)
        self._client: httpx.AsyncClient = issuer_client(timeout=_CONNECT)
        source = IssuerKeys(IssuerAddress(issuer.url, issuer.internal), algorithms, self._client)
        renewal = Renewal(
            interval=issuer.keys.refresh,
            cooldown=issuer.keys.cooldown,
            deadline=issuer.deadline,
            max_age=issuer.keys.max_age,
        )
        self.keys = SigningKeys(source, renewal, observer=self._observe)
        rules = ClaimRules(issuer.url, int(issuer.leeway), int(issuer.max_lifetime))
        self._introspecting: Introspecting | None = None
        if issuer.introspection is not None and credential is not None:
            self._introspecting = Introspecting(
                issuer, issuer.introspection, credential, rules, recorder
            )
        introspector = None if self._introspecting is None else self._introspecting.introspector
        self.verifier = TokenVerifier(self.keys, rules, algorithms, introspector)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Keep the keys fresh from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self.keys.run())

    def problem(self) -> str:
        """Return why tokens cannot be verified; nothing where they can."""
        age = self.keys.age()
        if age is None:
            return "the issuer's keys are not loaded yet"
        if age > self._max_age:
            return "the issuer's keys could not be renewed for longer than issuer.keys.max_age"
        return ""

    async def aclose(self) -> None:
        """End the renewal and close the connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.keys.aclose()
        if self._introspecting is not None:
            await self._introspecting.aclose()
        await self._client.aclose()

    def _observe(self, fetched: Fetched) -> None:
        if fetched.fault is not None:
            self._recorder.metrics.dependency_errors.labels("issuer").inc()
        if fetched.changed:
            self._recorder.event(
                "keys",
                fault="" if fetched.fault is None else fetched.fault.value,
                detail=fetched.detail,
                keys=fetched.keys,
                skipped=fetched.skipped,
                withdrawn=fetched.withdrawn,
            )


@dataclass(frozen=True, slots=True)
class _Sources:
    """Hold what the parts were built from, to tell whether they can be kept."""

    issuer: Issuer
    credential: SecretStr | None
    redis: RedisConfig
    options: RedisOptions | None
    workers: int


class Assembly:
    """Own the parts of one configuration.

    Attributes:
        identity: what verifies tokens.
        counting: what counts and remembers.
        sources: what the two were built from.
        snapshot: what decisions are made with.
    """

    def __init__(
        self,
        settings: Settings,
        env: Mapping[str, str],
        recorder: Recorder,
        before: "Assembly | None" = None,
    ) -> None:
        """Build the parts, or take them over from the assembly before.

        Raises:
            OSError: where a secret cannot be read.
        """
        config = settings.config
        options = redis_options(settings, env)
        credential = settings.secrets.introspection
        self.sources = _Sources(
            config.issuer, credential, config.redis, options, config.service.workers
        )
        self.identity = _kept_identity(self.sources, before) or Identity(
            config.issuer, credential, recorder
        )
        self.counting = _kept_counting(self.sources, before) or Counting(
            config.redis, options, config.service.workers, recorder
        )
        self.snapshot = Snapshot(
            settings.policy,
            self.identity.verifier,
            self.counting.ledger,
            config.issuer.deadline + _LEDGER,
        )

    def start(self) -> None:
        """Start what keeps the parts fresh, where it does not run yet."""
        self.identity.start()
        self.counting.start()

    async def settle(self, seconds: float) -> None:
        """Wait until the keys are there, so long at most."""
        try:
            async with asyncio.timeout(seconds):
                while self.identity.problem():  # noqa: ASYNC110 - keys come by a task of their own
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            return

    async def problems(self) -> Mapping[str, str]:
        """Return each part and why it is not ready; empty where it is."""
        return {"keys": self.identity.problem(), "redis": await self.counting.problem()}

    def key_age(self) -> float:
        """Return the seconds since the keys were fetched; -1 where they never were."""
        age = self.identity.keys.age()
        return -1.0 if age is None else age

    def mode(self) -> str:
        """Return who counts now."""
        return self.counting.mode()

    async def aclose(self, keep: "Assembly | None" = None) -> None:
        """Close the parts, but for those that another assembly has taken over."""
        if keep is None or keep.identity is not self.identity:
            await self.identity.aclose()
        if keep is None or keep.counting is not self.counting:
            await self.counting.aclose()


_POLL: Final = 0.02


def _kept_identity(sources: _Sources, before: Assembly | None) -> Identity | None:
    if before is None:
        return None
    was = before.sources
    same = (was.issuer, was.credential) == (sources.issuer, sources.credential)
    return before.identity if same else None


def _kept_counting(sources: _Sources, before: Assembly | None) -> Counting | None:
    if before is None:
        return None
    was = before.sources
    same = (was.redis, was.options, was.workers) == (
        sources.redis,
        sources.options,
        sources.workers,
    )
    return before.counting if same else None
