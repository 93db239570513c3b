"""The components of one configuration: keys, verifier, ledger, step-ups; built, kept or replaced.

Invariant: a component is kept over a reload where all that it was built from is the same, so that a
reload forgets no key, no verified token and no count that it need not forget.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import httpx
from pydantic import SecretStr

from authz.audit.trail import AuditTrail, trail_settings
from authz.config.load import Settings
from authz.config.model import IssuerConfig, RedisConfig
from authz.config.problems import ConfigError, ConfigProblem
from authz.core.ledger import Ledger, Mode
from authz.core.policy import FrontDoor, StepUpFallback
from authz.envoy.data_planes import FORMATS
from authz.ledger.approval_requests import ApprovalRequests
from authz.ledger.browser_sessions import SessionRecords
from authz.ledger.deadline import Deadline
from authz.ledger.login_records import Command, LoginRecords
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.sightings import MemorySightings, RedisSightings, SightingStore
from authz.server.browser_sessions import BrowserSessions
from authz.server.capabilities import Capabilities
from authz.server.check import Snapshot
from authz.server.introspecting import Introspecting
from authz.server.ledger_lifecycle import LedgerLifecycle
from authz.server.page_check import PageCheck
from authz.server.redis_options import require_redis
from authz.server.refusal_limiter import bad_tokens_limit
from authz.server.step_up_links import ApprovalLinks, StepUpLinks, StepUpOffers
from authz.server.tool_catalogues import ToolCatalogues
from authz.telemetry.recorder import Recorder
from authz.telemetry.traced_http import traced_by
from authz.tokens.bulkhead import Bulkhead
from authz.tokens.claims import ClaimRules
from authz.tokens.front_door import FrontDoorTokens
from authz.tokens.identity import IdentitySigner, key_set
from authz.tokens.issuer import IssuerAddress, IssuerKeys
from authz.tokens.issuer_http import issuer_client
from authz.tokens.keys import KeyRefreshPolicy, KeysFetched, SigningKeys
from authz.tokens.sealing import Sealer, sealing_secrets
from authz.tokens.userinfo import UserInfo
from authz.tokens.verifier import TokenVerifier

# Seconds for the ledger on top of the issuer's deadline; Envoy waits 100 ms longer than that
# deadline, so that the answer is ours.
_LEDGER: Final = 0.08
_CONNECT: Final = 5.0
_GROUPS_AT_ONCE: Final = 8  # questions to the issuer
_CATALOGUE: Final = 2.0  # seconds for a call about what servers list


class Identity:
    """Own what verifies the tokens of one issuer."""

    def __init__(
        self,
        issuer: IssuerConfig,
        credential: SecretStr | None,
        recorder: Recorder,
        front_door: FrontDoorTokens | None = None,
        counted: tuple[str, ...] = (),
    ) -> None:
        """Build the key set and the verifier; nothing is fetched yet.

        Args:
            issuer: the section of authz.yaml.
            credential: what introspection is allowed with; None where it is not configured.
            recorder: where faults go.
            front_door: what knows its tokens; None without front door.
            counted: the claims that limits count by.
        """
        self._recorder = recorder
        self._max_age = issuer.keys.max_age
        algorithms = frozenset[str](issuer.algorithms)
        self._client: httpx.AsyncClient = issuer_client(
            timeout=_CONNECT, wrap=traced_by(recorder.tracer)
        )
        source = IssuerKeys(IssuerAddress(issuer.url, issuer.internal), algorithms, self._client)
        renewal = KeyRefreshPolicy(
            interval=issuer.keys.refresh,
            cooldown=issuer.keys.cooldown,
            deadline=issuer.deadline,
            max_age=issuer.keys.max_age,
        )
        self.keys = SigningKeys(source, renewal, observer=self._observe)
        rules = ClaimRules(
            issuer.url,
            int(issuer.leeway),
            int(issuer.max_lifetime),
            issuer.assurance_claim,
            counted,
        )
        self._introspecting: Introspecting | None = None
        if issuer.introspection is not None and credential is not None:
            self._introspecting = Introspecting(
                issuer, issuer.introspection, credential, rules, recorder
            )
        introspector = None if self._introspecting is None else self._introspecting.introspector
        self.verifier = TokenVerifier(self.keys, rules, algorithms, introspector, front_door)
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

    def _observe(self, fetched: KeysFetched) -> None:
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

    issuer: IssuerConfig
    credential: SecretStr | None
    front_door: frozenset[str] | None  # our clients at the issuer
    redis: RedisConfig
    options: RedisOptions | None
    workers: int
    step_up: tuple[SecretStr | None, SecretStr | None, str, StepUpFallback] | None
    counted: tuple[str, ...]  # the claims that limits count by


class PageSessions:
    """Own what judges the sessions of admin pages, and what asks the issuer about them.

    Attributes:
        sessions: what judges.
    """

    def __init__(
        self,
        issuer: IssuerConfig,
        records: SessionRecords,
        sealer: Sealer,
        ledger: Ledger,
        recorder: Recorder,
    ) -> None:
        """Build; nothing is asked yet."""
        self._client = issuer_client(timeout=_CONNECT, wrap=traced_by(recorder.tracer))
        self.sessions: Final = BrowserSessions(
            records,
            sealer=sealer,
            revocations=ledger,
            groups=UserInfo(IssuerAddress(issuer.url, issuer.internal), self._client),
            issuer=issuer.url,
            clock=time.time,
            patience=issuer.deadline,
            bulkhead=Bulkhead(_GROUPS_AT_ONCE),
            on_fault=lambda error: recorder.fault(error.dependency, error.detail),
        )

    async def aclose(self) -> None:
        """End the questions under way and close the connections."""
        await self.sessions.aclose()
        await self._client.aclose()


class Assembly:
    """Own the parts of one configuration.

    Attributes:
        identity: what verifies tokens.
        counting: what counts and remembers.
        offers: what offers step-ups; None where none are offered.
        tools: what the servers say of their tools.
        sources: what they were built from.
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
            ConfigError: where there is a front door, and no Redis or no key to seal with for it.
        """
        config = settings.config
        options = require_redis(settings, env)
        door = settings.policy.front_door
        self.sources = _Sources(
            config.issuer,
            settings.secrets.introspection,
            None if door is None else door.clients,
            config.redis,
            options,
            config.service.workers,
            None if door is None else _step_up_sources(settings, door),
            config.counted_claims,
        )
        self.counting = _kept_counting(self.sources, before) or LedgerLifecycle(
            config.redis, options, config.service.workers, recorder
        )
        self.identity = _kept_identity(self.sources, before, self.counting) or Identity(
            config.issuer,
            settings.secrets.introspection,
            recorder,
            front_door_tokens(settings, options, self.counting.command),
            config.counted_claims,
        )
        self.offers = _kept_offers(self.sources, before, self.counting) or _offers(
            self.sources, self.counting.command
        )
        self.identity_keys = _identity_keys(settings)
        # A separate connection: lists may be long, and a late call fails every waiting caller.
        self._catalogue_redis = _catalogue_redis(options)
        self.tools: ToolCatalogues = ToolCatalogues(
            config,
            settings.policy,
            _sightings(options, self._catalogue_redis),
            recorder,
            before=None if before is None else before.tools,
            events=self.counting.events,
        )
        self.trail = _trail(settings, options, recorder, before)
        self._page_sessions = _page_sessions(settings, options, self.counting, recorder)
        self.snapshot = Snapshot(
            settings.policy,
            self.identity.verifier,
            self.counting.ledger,
            Deadline(config.issuer.deadline + _LEDGER),
            self.offers,
            bad_tokens_limit(config.gateway.address_bad_tokens),
            _identity_signer(settings),
            catalogues=self.tools.catalogues,
            plane=FORMATS[config.service.data_plane],
            trail=self.trail,
            pages=self._pages(settings, Deadline(config.issuer.deadline + _LEDGER)),
        )

    def _pages(self, settings: Settings, deadline: Deadline) -> PageCheck | None:
        """Return what decides about admin pages.

        Raises:
            ConfigError: where there is nothing to open sessions with.
        """
        if self._page_sessions is None:
            return None
        return PageCheck(
            settings.policy,
            sessions=self._page_sessions.sessions,
            sealer=_sealer(settings.secrets.front_door, settings.secrets.sealing),
            gateway=settings.config.gateway.url,
            deadline=deadline,
        )

    def start(self) -> None:
        """Start what keeps the parts fresh, where it does not run yet."""
        self.identity.start()
        self.counting.start()
        self.tools.start()
        if self.trail is not None:
            self.trail.start()

    async def settle(self, seconds: float) -> None:
        """Wait until the keys are there and the revocations were read, so long at most."""
        try:
            async with asyncio.timeout(seconds):
                # Both come by tasks of their own.
                while self.identity.problem() or not self.counting.has_read:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            return

    def lost_redis(self, before: "Assembly") -> bool:
        """Tell whether Redis, which answers the assembly before, does not answer this one.

        A mistyped password would turn a service that works into one that refuses everything.
        """
        answers = before.counting.has_read and before.counting.mode() == Mode.REDIS.value
        return answers and before.counting is not self.counting and not self.counting.has_read

    async def problems(self) -> Mapping[str, str]:
        """Return each part and why it is not ready; empty where it is."""
        return {"keys": self.identity.problem(), "redis": await self.counting.problem()}

    def notes(self) -> Mapping[str, str]:
        """Return what is wrong with parts that are ready all the same; empty where nothing is."""
        return {
            "redis": self.counting.note(),
            "audit": "" if self.trail is None else self.trail.note(),
        }

    def key_age(self) -> float:
        """Return the seconds since the keys were fetched; -1 where they never were."""
        age = self.identity.keys.age()
        return -1.0 if age is None else age

    def mode(self) -> str:
        """Return who counts now."""
        return self.counting.mode()

    async def aclose(self, keep: "Assembly | None" = None) -> None:
        """Close the parts, but for those that another assembly has taken over."""
        await self.tools.aclose()
        if self._page_sessions is not None:
            await self._page_sessions.aclose()
        if self._catalogue_redis is not None:
            await self._catalogue_redis.aclose()
        if keep is None or keep.identity is not self.identity:
            await self.identity.aclose()
        if self.offers is not None and (keep is None or keep.offers is not self.offers):
            await self.offers.aclose()
        if self.trail is not None and (keep is None or keep.trail is not self.trail):
            await self.trail.aclose()
        if keep is None or keep.counting is not self.counting:
            await self.counting.aclose()


_POLL: Final = 0.02


def front_door_tokens(
    settings: Settings, options: RedisOptions | None, command: Command | None
) -> FrontDoorTokens | None:
    """Return what knows the tokens of the front door, by their records in Redis."""
    door = settings.policy.front_door
    if door is None or options is None or command is None:
        return None
    return FrontDoorTokens(door.clients, LoginRecords(command, options.keys))


def _page_sessions(
    settings: Settings, options: RedisOptions | None, counting: LedgerLifecycle, recorder: Recorder
) -> PageSessions | None:
    """Return what judges sessions of admin pages; None where there is no page.

    Raises:
        ConfigError: where there is nothing to open sessions with.
    """
    command = counting.command
    if not settings.policy.pages or options is None or command is None:
        return None
    records = SessionRecords(command, options.keys)
    sealer = _sealer(settings.secrets.front_door, settings.secrets.sealing)
    return PageSessions(settings.config.issuer, records, sealer, counting.ledger, recorder)


def _catalogue_redis(options: RedisOptions | None) -> RedisLedger | None:
    if options is None:
        return None
    return RedisLedger(replace(options, timeout=_CATALOGUE, connections=1))


def _sightings(options: RedisOptions | None, redis: RedisLedger | None) -> SightingStore:
    """Return where the workers of a deployment share what servers list."""
    if options is None or redis is None:
        return MemorySightings()
    return RedisSightings(redis.command, options.keys)


def _trail(
    settings: Settings, options: RedisOptions | None, recorder: Recorder, before: Assembly | None
) -> AuditTrail | None:
    wanted = trail_settings(settings, options)
    if wanted is None:
        return None
    if before is not None and before.trail is not None and before.trail.settings == wanted:
        return before.trail
    return AuditTrail(wanted, recorder)


def _identity_signer(settings: Settings) -> IdentitySigner | None:
    key = settings.secrets.identity
    if key is None:
        return None
    return IdentitySigner(key.get_secret_value(), settings.config.gateway.url, time.time)


def _identity_keys(settings: Settings) -> bytes | None:
    """Return what MCP servers verify the signed identity with; None where nothing is signed."""
    found = (settings.secrets.identity, settings.secrets.identity_other)
    pems = [secret.get_secret_value() for secret in found if secret is not None]
    return key_set(*pems) if pems else None


def _step_up_sources(
    settings: Settings, door: FrontDoor
) -> tuple[SecretStr | None, SecretStr | None, str, StepUpFallback] | None:
    secrets = settings.secrets
    if door.step_up is StepUpFallback.OFF:
        return None
    return secrets.front_door, secrets.sealing, settings.config.gateway.url, door.step_up


def _offers(sources: _Sources, command: Command | None) -> StepUpOffers | None:
    """Return what offers step-ups.

    Raises:
        ConfigError: where there is nothing to seal links with.
    """
    if sources.step_up is None or sources.options is None or command is None:
        return None
    key, file, gateway, mode = sources.step_up
    sealer, keys = _sealer(key, file), sources.options.keys
    approvals = ApprovalLinks(sealer, gateway, ApprovalRequests(command, keys))
    return StepUpOffers(StepUpLinks(sealer, gateway), Capabilities(command, keys), mode, approvals)


def _sealer(key: SecretStr | None, file: SecretStr | None) -> Sealer:
    if key is None:
        raise ConfigError([_unsealed("key_file", "it was not read")])
    try:
        secrets = sealing_secrets(
            None if file is None else file.get_secret_value(), key.get_secret_value()
        )
    except ValueError as error:
        raise ConfigError([_unsealed("seal_file", str(error))]) from None
    return Sealer(secrets, time.time)


def _unsealed(field: str, wrong: str) -> ConfigProblem:
    right = "give a file whose keys have 32 characters or more"
    return ConfigProblem("authz.yaml", 0, 0, f"front_door.{field}", wrong, right)


def _kept_offers(
    sources: _Sources, before: Assembly | None, counting: LedgerLifecycle
) -> StepUpOffers | None:
    if before is None or before.counting is not counting:
        return None
    return before.offers if before.sources.step_up == sources.step_up else None


def _kept_identity(
    sources: _Sources, before: Assembly | None, counting: LedgerLifecycle
) -> Identity | None:
    if before is None:
        return None
    was = before.sources
    same = (was.issuer, was.credential, was.front_door, was.counted) == (
        sources.issuer,
        sources.credential,
        sources.front_door,
        sources.counted,
    )
    # With a front door it reads log-ins through the ledger's connections.
    kept = sources.front_door is None or before.counting is counting
    return before.identity if same and kept else None


def _kept_counting(sources: _Sources, before: Assembly | None) -> LedgerLifecycle | None:
    if before is None:
        return None
    was = before.sources
    same = (was.redis, was.options, was.workers) == (
        sources.redis,
        sources.options,
        sources.workers,
    )
    return before.counting if same else None
