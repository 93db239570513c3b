"""Everything of the console, built from its parts."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.routing import Route

from authz.audit.store import TrailStore
from authz.config.load import Settings
from authz.config.model import ConsoleConfig
from authz.core.browser_session import BrowserRule
from authz.core.second_factor import Evidence, Method, SecondFactor
from authz.ledger.activity import ActivityStore
from authz.ledger.approval_requests import ApprovalRequests
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger
from authz.login.console.access import ConsoleAccess, ConsoleSettings
from authz.login.console.actions import ConsoleActions, Record, UsedForms
from authz.login.console.frame import ConsoleFrame, Section
from authz.login.console.limits import LimitPage
from authz.login.console.log_ins import LogInPages
from authz.login.console.names import KnownNames
from authz.login.console.overview import OverviewPage
from authz.login.console.proofs import ProofPage, ProofSources
from authz.login.console.refusals import RefusalPages
from authz.login.console.revocations import RevocationPages
from authz.login.console.rules import RulePage
from authz.login.service import ports
from authz.login.store.blocklist import Blocklist
from authz.login.store.callers import recent_callers
from authz.login.store.grants import GrantStore
from authz.login.store.people import PeopleStore
from authz.login.web.cookies import BrowserCookies
from authz.login.web.error_pages import ErrorResponder
from authz.login.web.rendering import Pages
from authz.login.web.sessions import OwnGrants, OwnProofs
from authz.login.web.upstream_login import BrowserLogins
from authz.server.browser_sessions import BrowserSessions
from authz.tokens.sealing import Sealer

_METHODS = {"any": Method.ANY, "totp": Method.TOTP}


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """Hold what the console shares with the other pages.

    Attributes:
        logins, cookies, pages, errors: of the front door.
        sessions: of browsers.
        ledger, keys, sealer: Redis, the names there, and what seals.
        grants, blocks, people, own_grants, proofs, requests: stores of the front door.
        used: remembers which forms were sent.
        record: records what an operator did.
        clock: seconds since the epoch.
        log: of steps.
    """

    logins: BrowserLogins
    cookies: BrowserCookies
    pages: Pages
    errors: ErrorResponder
    sessions: BrowserSessions
    ledger: RedisLedger
    keys: RedisKeys
    sealer: Sealer
    grants: GrantStore
    blocks: Blocklist
    people: PeopleStore
    own_grants: OwnGrants
    proofs: OwnProofs
    requests: ApprovalRequests
    used: UsedForms
    record: Record
    clock: Callable[[], float]
    log: ports.StepLog


def console_routes(settings: Settings, console: ConsoleConfig, parts: ConsoleParts) -> list[Route]:
    """Return the routes of the console.

    Args:
        settings: of authz.yaml.
        console: its section.
        parts: what it shares.
    """
    command, config = parts.ledger.command, settings.config
    rule = BrowserRule(
        frozenset(console.groups),
        SecondFactor(_METHODS[console.second_factor], evidence=frozenset({Evidence.LOGIN})),
    )
    access = ConsoleAccess(
        ConsoleSettings(rule, int(console.session)),
        origin=config.gateway.url,
        sessions=parts.sessions,
        logins=parts.logins,
        cookies=parts.cookies,
        pages=parts.pages,
        errors=parts.errors,
        clock=parts.clock,
        log=parts.log,
    )
    frame = ConsoleFrame(parts.cookies, parts.pages, tuple(Section))
    issuer, policy, digest = config.issuer.url, settings.policy, str(settings.digest)
    trail = TrailStore(command, parts.keys)
    overview = OverviewPage(frame, ActivityStore(command, parts.keys), digest, parts.clock)
    log_ins = LogInPages(frame, parts.grants, parts.blocks, parts.clock)
    revocations = RevocationPages(
        frame,
        parts.cookies,
        parts.ledger,
        parts.people,
        KnownNames(parts.grants, parts.blocks, trail, config.named),
        issuer=issuer,
        leeway=int(config.issuer.leeway),
        clock=parts.clock,
    )
    proofs = ProofPage(
        frame,
        ProofSources(
            parts.grants,
            parts.people,
            parts.own_grants,
            parts.proofs,
            parts.requests,
            parts.sealer,
            issuer,
        ),
    )
    limits = LimitPage(
        frame,
        policy,
        command,
        parts.keys,
        issuer=issuer,
        callers=lambda: recent_callers(policy, trail, parts.grants, parts.people),
    )
    actions = ConsoleActions(
        frame,
        parts.cookies,
        config.gateway.url,
        {
            **log_ins.performers(),
            **revocations.performers(),
            **proofs.performers(),
            **limits.performers(),
        },
        used=parts.used,
        record=parts.record,
    )
    return [
        *access.routes(),
        *overview.routes(access),
        *actions.routes(access),
        *log_ins.routes(access, actions),
        *revocations.routes(access, actions),
        *proofs.routes(access, actions),
        *limits.routes(access, actions),
        *RefusalPages(frame, trail, policy).routes(access),
        *RulePage(frame, policy, digest).routes(access),
    ]
