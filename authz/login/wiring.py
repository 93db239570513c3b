"""The log-in server of one configuration: every part, built once, closed together."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import httpx

from authz.audit.record import AuditEvent, Fields
from authz.audit.trail import AuditTrail, trail_settings
from authz.config.load import Settings
from authz.config.model import FrontDoorConfig
from authz.config.restarts import PAGES
from authz.config.server_metadata import server_metadata
from authz.core.ledger import UnavailableError
from authz.core.principal import Person
from authz.ledger.approval_requests import ApprovalRequests
from authz.ledger.browser_sessions import SessionRecords
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import LoginRecords
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.resilient import PROBE
from authz.ledger.revocations import prune
from authz.login.clients.assertions import ClientAssertions, KeySets
from authz.login.clients.documents import Documents
from authz.login.clients.faults import DocumentFault
from authz.login.clients.fetching import Fetcher, SystemResolver
from authz.login.clients.lookup import stranger_bulkhead
from authz.login.clients.registration import Registrations
from authz.login.clients.registry import Clients, redirect_rules
from authz.login.console.app import ConsoleParts, console_routes
from authz.login.protocol.resources import ResourceServers, identity_scopes
from authz.login.service.client_authentication import ClientAuthenticator
from authz.login.service.code_exchange import CodeExchange
from authz.login.service.grant_end import REUSED, GrantEnder
from authz.login.service.rate_limits import LoginRateLimiter, configured_rates
from authz.login.service.refresh import TokenRefresh
from authz.login.service.revocation import TokenRevocation
from authz.login.store.blocklist import Blocklist
from authz.login.store.codes import CodeStore, LoginFaults, RefreshStore, StateStore, UsedAssertions
from authz.login.store.grants import GrantStore
from authz.login.store.page_codes import LIFETIME as PAGE_CODE
from authz.login.store.page_codes import PageCodes
from authz.login.store.people import PeopleStore
from authz.login.store.revocation_outbox import PAUSE, RevocationOutbox
from authz.login.upstream.client import Authelia, OurClient
from authz.login.upstream.id_token import TokenResponseVerifier
from authz.login.web.admin_pages import AdminPageEndpoints
from authz.login.web.app import LoginApp
from authz.login.web.approval import ApprovalEndpoints
from authz.login.web.authorize import AuthorizationEndpoint
from authz.login.web.client_validation import ClientValidator
from authz.login.web.cookies import BrowserCookies
from authz.login.web.error_pages import ErrorResponder
from authz.login.web.oauth_endpoints import OAuthEndpoints
from authz.login.web.own_activity import PersonsActivity
from authz.login.web.own_grants import GrantedClientNames, PersonsGrants
from authz.login.web.own_proofs import PersonsProofs
from authz.login.web.paths import TOKEN
from authz.login.web.rendering import Pages
from authz.login.web.requests import NETWORK, REQUEST_ID, log_keys
from authz.login.web.sessions import SessionEndpoints
from authz.login.web.step_up import StepUpEndpoints
from authz.login.web.upstream_login import BrowserLogins
from authz.process.ticks import next_tick
from authz.server.activity_reporter import ActivityReporter, ReportedState
from authz.server.browser_sessions import BrowserSessions
from authz.server.health import Health
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import EventFacts, SecurityEvent
from authz.telemetry.traced_http import traced_by
from authz.tokens.claims import ClaimRules
from authz.tokens.client_auth import PrivateKeyJwt
from authz.tokens.issuer import IssuerAddress, IssuerKeys
from authz.tokens.issuer_http import issuer_client
from authz.tokens.keys import KeyRefreshPolicy, KeysFetched, SigningKeys
from authz.tokens.sealing import Sealer, sealing_secrets
from authz.tokens.userinfo import UserInfo

# Seconds. A person waits longer than a request to an MCP server does.
_REDIS: Final = 1.0
_AUTHELIA: Final = 10.0
_AT_ONCE: Final = 16
_PRUNE: Final = 600.0
_LOOK: Final = 1.0  # seconds between two looks at Redis
# Steps of log-ins with their outcome, and where that does not tell, their detail.
_SECURITY: Final[Mapping[tuple[str, ...], SecurityEvent]] = {
    ("approval", "declined"): SecurityEvent.APPROVAL_DECLINED,
    ("authorize", "blocked"): SecurityEvent.BLOCKED_CLIENT,
    ("token", "blocked"): SecurityEvent.BLOCKED_CLIENT,
    ("end", "ok", REUSED): SecurityEvent.CREDENTIAL_REPLAYED,
    ("token", "replayed"): SecurityEvent.CREDENTIAL_REPLAYED,
}


class LoginServer:
    """Own the parts of one configuration.

    Attributes:
        app: the ASGI application.
        clients, codes, states, faults, grants, people, blocks, approval_requests, records, limiter,
            upstream, sealer, ender, refresh, clock: its parts.
    """

    def __init__(
        self,
        settings: Settings,
        options: RedisOptions,
        recorder: Recorder,
        *,
        http: httpx.AsyncClient | None = None,
        health: Health | None = None,
        replicas: int = 1,
    ) -> None:
        """Build.

        Args:
            settings: with a front door and its secrets.
            options: where Redis is.
            recorder: the log.
            http: what reaches Authelia; None for the network.
            health: is told whether Redis is there.
            replicas: how many processes serve these pages; they share the rates by address.

        Raises:
            ValueError: where a secret is none.
        """
        self._recorder = recorder
        self._health = health or Health()
        self._redis_fault = ""
        self._settings = settings
        config, section = settings.config, _section(settings)
        issuer, self.clock = config.issuer, time.time
        self.sealer = _sealer(settings)
        identity = identity_scopes(email=section.email_addresses)
        self._servers = ResourceServers(settings.policy, identity)
        self._http = http or issuer_client(
            timeout=_AUTHELIA, connections=_AT_ONCE, kept=4, wrap=traced_by(recorder.tracer)
        )
        self.upstream, self._keys = self._authelia(section)
        self._resolver = SystemResolver()
        rules = redirect_rules(config, section)
        hosts = section.metadata_hosts
        fetcher, bulkhead = Fetcher(self._resolver), stranger_bulkhead()
        self._documents = Documents(
            fetcher,
            rules,
            None if hosts is None else tuple(hosts),
            bulkhead=bulkhead,
            requester=NETWORK.get,
            on_fetched=self._log_fetched,
        )
        self._key_sets = KeySets(fetcher, bulkhead=bulkhead, requester=NETWORK.get)
        self._registrations = Registrations(
            self.sealer.mac_key("client"), rules, self.clock, taken=section.registration
        )
        self.clients = Clients(config, self._documents, self._registrations)
        self._redis = RedisLedger(replace(options, timeout=_REDIS))
        command, keys = self._redis.command, options.keys
        audited = trail_settings(settings, options)
        self._trail = None if audited is None else AuditTrail(audited, recorder)
        max_age = int(section.grant_max_age)
        self.codes = CodeStore(command, keys, self.sealer, max_age)
        self.states = StateStore(command, keys)
        self.faults = LoginFaults(command, keys, self.clock)
        self.grants = GrantStore(
            command,
            keys,
            issuer.url,
            max_age=max_age,
            max_lifetime=int(issuer.max_lifetime + issuer.leeway),
            clock=self.clock,
        )
        self.people = PeopleStore(
            command,
            keys,
            issuer.url,
            sealer=self.sealer,
            # A page's session begins within the minute of its code.
            lifetime=max(self.grants.kept, int(section.page_session) + PAGE_CODE),
            clock=self.clock,
        )
        self.blocks = Blocklist(command, keys)
        self.approval_requests = ApprovalRequests(command, keys)
        self.records = LoginRecords(command, keys)
        self.limiter = LoginRateLimiter(self.clock, rates=configured_rates(section, replicas))
        self._outbox = RevocationOutbox(
            command,
            keys,
            issuer.url,
            sealer=self.sealer,
            upstream=self.upstream,
            log=self.log,
            clock=time.monotonic,
        )
        self.ender = GrantEnder(self.grants, self.upstream, self.log)
        self.refresh = TokenRefresh(
            servers=self._servers,
            clients=self.clients,
            upstream=self.upstream,
            refreshes=RefreshStore(command, keys, self.sealer),
            faults=self.faults,
            grants=self.grants,
            people=self.people,
            blocks=self.blocks,
            ender=self.ender,
            limiter=self.limiter,
            sealer=self.sealer,
            grant_max_age=max_age,
            refresh_tokens=section.refresh_tokens,
            stale_refresh=int(section.stale_refresh),
            clock=self.clock,
            log=self.log,
        )
        self._used_assertions = UsedAssertions(command, keys)
        self.app = self._app(section, keys)
        # Where a console asks for it.
        reported = ReportedState(None if config.console is None else options)
        self._reporter = ActivityReporter(
            PAGES, lambda: reported, recorder, self._health, self.clock
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Renew keys, prune revocations, look at Redis and empty the outbox, from now on."""
        if self._trail is not None:
            self._trail.start()
        self._tasks = [
            asyncio.create_task(self._keys.run()),
            asyncio.create_task(self._keep_pruning()),
            asyncio.create_task(self._keep_revoking()),
            asyncio.create_task(self._reporter.run()),
            asyncio.create_task(self._keep_looking()),  # the last two: `retire` ends them
        ]

    def retire(self) -> None:
        """Leave readiness, and what is said of it, to the configuration that takes its place."""
        for task in self._tasks[-2:]:
            task.cancel()

    async def aclose(self) -> None:
        """End it all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reporter.aclose()
        await self._keys.aclose()
        await self._documents.aclose()
        await self._key_sets.aclose()
        self._resolver.close()
        await self._http.aclose()
        if self._trail is not None:
            await self._trail.aclose()
        await self._redis.aclose()

    def _app(self, section: FrontDoorConfig, keys: RedisKeys) -> LoginApp:
        config = self._settings.config
        url, issuer = config.gateway.url, config.issuer.url
        cookies, pages = BrowserCookies(self.sealer, url), Pages(url, issuer, config.scopes)
        log_out_url = self.upstream.log_out_url
        names = GrantedClientNames(self.grants)
        errors = ErrorResponder(url, cookies, pages, log_out_url, self._note)
        logins = BrowserLogins(
            origin=url,
            upstream=self.upstream,
            cookies=cookies,
            pages=pages,
            states=self.states,
            people=self.people,
            limiter=self.limiter,
            identity_scopes=identity_scopes(email=section.email_addresses),
        )
        authorization = AuthorizationEndpoint(
            url,
            servers=self._servers,
            clients=self.clients,
            validator=ClientValidator(url, self.clients, self.blocks, self.log),
            codes=self.codes,
            faults=self.faults,
            limiter=self.limiter,
            sealer=self.sealer,
            refresh_tokens=section.refresh_tokens,
            logins=logins,
            cookies=cookies,
            pages=pages,
            errors=errors,
            clock=self.clock,
            log=self.log,
        )
        step_ups = StepUpEndpoints(
            origin=url,
            issuer=issuer,
            logins=logins,
            cookies=cookies,
            pages=pages,
            errors=errors,
            sealer=self.sealer,
            records=self._redis,
            names=names,
            log_out_url=log_out_url,
            clock=self.clock,
            log=self.log,
        )
        approvals = ApprovalEndpoints(
            origin=url,
            issuer=issuer,
            logins=logins,
            cookies=cookies,
            pages=pages,
            errors=errors,
            sealer=self.sealer,
            requests=self.approval_requests,
            names=names,
            log_out_url=log_out_url,
            clock=self.clock,
            log=self.log,
        )
        policy = self._settings.policy
        own_grants = PersonsGrants(self.grants, self.ender)
        proofs = PersonsProofs(
            self._redis,
            self.approval_requests,
            self.sealer,
            direct=[each.client_id for each in policy.clients.values() if each.direct],
            servers=list(policy.servers),
        )
        sessions = SessionEndpoints(
            origin=url,
            issuer=issuer,
            logins=logins,
            cookies=cookies,
            pages=pages,
            errors=errors,
            grants=own_grants,
            activity=PersonsActivity(self._redis.command, keys),
            proofs=proofs,
            log=self.log,
        )
        address = IssuerAddress(config.issuer.url, config.issuer.internal)
        browser_sessions = BrowserSessions(
            SessionRecords(self._redis.command, keys),
            sealer=self.sealer,
            revocations=self._redis,
            groups=UserInfo(address, self._http),
            issuer=issuer,
            clock=self.clock,
        )
        admin_pages = AdminPageEndpoints(
            admin_pages=policy.pages,
            issuer=issuer,
            logins=logins,
            cookies=cookies,
            pages=pages,
            errors=errors,
            sealer=self.sealer,
            codes=PageCodes(self._redis.command, keys, self.sealer),
            sessions=browser_sessions,
            lifetime=int(section.page_session),
            log_out_url=log_out_url,
            clock=self.clock,
            log=self.log,
        )
        routes = [
            *(admin_pages.routes() if policy.pages else ()),
            *authorization.routes(),
            *self._oauth_endpoints(url, int(section.grant_max_age)).routes(),
            *step_ups.routes(),
            *approvals.routes(),
            *sessions.routes(),
            errors.route(),
        ]
        if config.console is not None:
            parts = ConsoleParts(
                logins=logins,
                cookies=cookies,
                pages=pages,
                errors=errors,
                sessions=browser_sessions,
                ledger=self._redis,
                keys=keys,
                sealer=self.sealer,
                grants=self.grants,
                blocks=self.blocks,
                people=self.people,
                own_grants=own_grants,
                proofs=proofs,
                requests=self.approval_requests,
                used=self.states,
                record=self._record_operator,
                clock=self.clock,
                log=self.log,
            )
            routes += console_routes(self._settings, config.console, parts)
        return LoginApp(routes, errors, self._recorder)

    def _oauth_endpoints(self, url: str, grant_max_age: int) -> OAuthEndpoints:
        assertions = ClientAssertions(self._key_sets, frozenset({url, url + TOKEN}), self.clock)
        return OAuthEndpoints(
            server_metadata(self._settings.config),
            authenticator=ClientAuthenticator(
                self.clients, assertions, self._used_assertions, self.limiter
            ),
            exchange=CodeExchange(
                clients=self.clients,
                upstream=self.upstream,
                codes=self.codes,
                grants=self.grants,
                blocks=self.blocks,
                ender=self.ender,
                sealer=self.sealer,
                grant_max_age=grant_max_age,
                clock=self.clock,
                log=self.log,
            ),
            refresh=self.refresh,
            revocation=TokenRevocation(
                clients=self.clients,
                grants=self.grants,
                records=self.records,
                ender=self.ender,
                sealer=self.sealer,
                log=self.log,
            ),
            registrar=self._registrations,
            clock=self.clock,
            log=self.log,
        )

    def _authelia(self, section: FrontDoorConfig) -> tuple[Authelia, SigningKeys]:
        issuer = self._settings.config.issuer
        address = IssuerAddress(issuer.url, issuer.internal)
        algorithms = frozenset[str](issuer.algorithms)
        renewal = KeyRefreshPolicy(
            interval=issuer.keys.refresh,
            cooldown=issuer.keys.cooldown,
            deadline=issuer.deadline,
            max_age=issuer.keys.max_age,
        )
        source = IssuerKeys(address, algorithms, self._http)
        keys = SigningKeys(source, renewal, observer=self._observe)
        rules = ClaimRules(issuer.url, int(issuer.leeway), int(issuer.max_lifetime))
        pem = self._settings.secrets.front_door
        if pem is None:
            raise ValueError("front_door.key_file was not read")

        def ours(client_id: str) -> OurClient:
            auth = PrivateKeyJwt(client_id, pem.get_secret_value(), issuer.url, section.key_id)
            return OurClient(client_id, auth)

        response_verifier = TokenResponseVerifier(keys, rules, algorithms)
        one, two = ours(section.one_factor), ours(section.two_factor)
        upstream = Authelia(
            address, one, two, response_verifier, self._http, total=_AUTHELIA, at_once=_AT_ONCE
        )
        return upstream, keys

    async def redis_fault(self) -> str:
        """Return why Redis takes no write with these settings; empty where it does."""
        try:
            await self._redis.take(PROBE)
        except UnavailableError as error:
            return error.detail
        return ""

    async def look(self) -> None:
        """Try a write, so that a Redis that became a replica is left without waiting for a request.

        What is wrong is logged where it changes, and shown by readiness.
        """
        fault = await self.redis_fault()
        self._health.set("redis", fault and f"Redis is away ({fault})")
        if fault != self._redis_fault:
            self._redis_fault = fault
            if fault:
                self._recorder.fault("redis", fault)
            else:
                self._recorder.event("redis_back")

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            self._recorder.flush_security()
            await next_tick(_LOOK)

    async def _keep_pruning(self) -> None:
        while True:
            with suppress(UnavailableError):
                await prune(self._redis, self.clock())
            await asyncio.sleep(_PRUNE)

    async def _keep_revoking(self) -> None:
        while True:
            try:
                waiting = await self._outbox.revoke_all()
                self._recorder.metrics.revocations_waiting.set(waiting)
            except UnavailableError:
                pass  # Redis is away: the next look will do
            except Exception as error:  # noqa: BLE001 - a defect in one must not silence the rest
                self._recorder.crash(error)
            await asyncio.sleep(PAUSE)

    def _observe(self, fetched: KeysFetched) -> None:
        if fetched.fault is not None and fetched.changed:
            self._recorder.fault("issuer", fetched.fault.value)

    def _record_operator(self, fields: Fields) -> None:
        """Record what an operator did at the console, in the trail and in the log."""
        named = (("request_id", REQUEST_ID.get()), *fields)
        if self._trail is not None:
            self._trail.event(AuditEvent.OPERATOR, named)
        self._recorder.event("operator", **{name: value for name, value in named if value})

    def _note(self, request_id: str, description: str) -> None:
        self._recorder.event("page", request_id=request_id, detail=description, **log_keys())

    def _log_fetched(self, url: str, fault: DocumentFault | None, description: str) -> None:
        outcome = "ok" if fault is None else fault.value
        self.log("client_document", outcome, client=url, detail=description)

    def log(
        self,
        step: str,
        outcome: str,
        *,
        client: str = "",
        server: str = "",
        grant: str = "",
        detail: str = "",
        scopes: Sequence[str] = (),
        subject: str = "",
    ) -> None:
        """Write one line of the log of log-ins (`service.ports.StepLog`).

        What is known of a person is a record of the audit trail, too; strangers cannot fill it.
        """
        said: dict[str, object] = {
            "step": step,
            "outcome": outcome,
            "client": client[:256],
            "server": server,
            "grant": grant,
            "detail": detail,
            "scopes": list(scopes),
            "request_id": REQUEST_ID.get(),
            **log_keys(),
        }
        # Both are fixed texts of ours: no caller chooses a label.
        self._recorder.metrics.logins.labels(step, outcome).inc()
        security = _SECURITY.get((step, outcome)) or _SECURITY.get((step, outcome, detail))
        if security is not None:
            facts = EventFacts(
                NETWORK.get(), subject, client, server,
                reason=f"{step}: {outcome}", request_id=REQUEST_ID.get(),
            )  # fmt: skip
            self._recorder.security(security, facts)
        self._recorder.event("log_in", **{name: value for name, value in said.items() if value})
        if subject and self._trail is not None:
            fields = (
                ("step", step), ("outcome", outcome), ("request_id", REQUEST_ID.get()),
                ("server", server), ("subject", subject), ("client_id", client), ("grant", grant),
                ("detail", detail),
            )  # fmt: skip
            person = Person(self._settings.config.issuer.url, subject)
            self._trail.event(AuditEvent.LOG_IN, fields, person)


def _section(settings: Settings) -> FrontDoorConfig:
    if settings.config.front_door is None:
        raise ValueError("authz.yaml has no front_door")
    return settings.config.front_door


def _sealer(settings: Settings) -> Sealer:
    secrets = settings.secrets
    if secrets.front_door is None:
        raise ValueError("front_door.key_file was not read")
    file = None if secrets.sealing is None else secrets.sealing.get_secret_value()
    return Sealer(sealing_secrets(file, secrets.front_door.get_secret_value()), time.time)
