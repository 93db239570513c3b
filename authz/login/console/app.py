"""Everything of the console, built from its parts."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.routing import Route

from authz.config.load import Settings
from authz.config.model import ConsoleConfig
from authz.core.browser_session import BrowserRule
from authz.core.second_factor import Evidence, Method, SecondFactor
from authz.ledger.activity import ActivityStore
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger
from authz.login.console.access import ConsoleAccess, ConsoleSettings
from authz.login.console.frame import ConsoleFrame, Section
from authz.login.console.overview import OverviewPage
from authz.login.service import ports
from authz.login.store.browser_sessions import BrowserSessionStore
from authz.login.web.browser_sessions import BrowserSessions, GroupSource
from authz.login.web.cookies import BrowserCookies
from authz.login.web.error_pages import ErrorResponder
from authz.login.web.rendering import Pages
from authz.login.web.upstream_login import BrowserLogins
from authz.tokens.sealing import Sealer

_METHODS = {"any": Method.ANY, "totp": Method.TOTP}


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """Hold what the console shares with the other pages.

    Attributes:
        logins, cookies, pages, errors: of the front door.
        groups: who knows groups.
        ledger, keys, sealer: Redis, the names there, and what seals.
        clock: seconds since the epoch.
        log: of steps.
    """

    logins: BrowserLogins
    cookies: BrowserCookies
    pages: Pages
    errors: ErrorResponder
    groups: GroupSource
    ledger: RedisLedger
    keys: RedisKeys
    sealer: Sealer
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
    store = BrowserSessionStore(command, parts.keys, parts.sealer, config.issuer.url)
    rule = BrowserRule(
        frozenset(console.groups),
        SecondFactor(_METHODS[console.second_factor], evidence=frozenset({Evidence.LOGIN})),
    )
    access = ConsoleAccess(
        ConsoleSettings(rule, int(console.session)),
        origin=config.gateway.url,
        sessions=BrowserSessions(store, parts.groups, parts.clock),
        logins=parts.logins,
        cookies=parts.cookies,
        pages=parts.pages,
        errors=parts.errors,
        clock=parts.clock,
        log=parts.log,
    )
    frame = ConsoleFrame(parts.cookies, parts.pages, (Section.OVERVIEW,))
    overview = OverviewPage(
        frame, ActivityStore(command, parts.keys), str(settings.digest), parts.clock
    )
    return [*access.routes(), *overview.routes(access)]
