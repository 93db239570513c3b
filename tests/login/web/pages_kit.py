"""The pages beside the stand-in issuer, and browsers that reach both; all without a socket."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html import unescape
from io import StringIO
from typing import Any, Final
from urllib.parse import parse_qsl

import httpx
import pytest
from starlette.routing import Route

from authz.core.ledger import StepUpKey, UnavailableError
from authz.core.principal import Person
from authz.core.second_factor import Method, StepUpNeed
from authz.core.step_up import StepUpTicket
from authz.ledger.approval_requests import ApprovalRequests
from authz.login.protocol.resources import identity_scopes
from authz.login.protocol.values import LoginIdentity
from authz.login.service.ports import StepLog
from authz.login.service.rate_limits import LoginRateLimiter
from authz.login.web.app import LoginApp
from authz.login.web.approval import ApprovalEndpoints
from authz.login.web.cookies import BrowserCookies
from authz.login.web.error_pages import ErrorResponder
from authz.login.web.rendering import Pages
from authz.login.web.sessions import (
    OwnGrant,
    OwnOperation,
    OwnProof,
    ProofId,
    SessionEndpoints,
)
from authz.login.web.step_up import StepUpEndpoints
from authz.login.web.upstream_login import BrowserLogins
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.sealing import Sealer
from authz.tokens.tickets import seal_ticket
from authz_demo.issuer import create_app
from authz_demo.issuer.run import forwarded_headers
from authz_demo.login_drivers import automatic_redirect
from tests.demo.kit import ISSUER, JOHN, DemoWorld
from tests.login.upstream.upstream_kit import UpstreamKit, standing

ORIGIN: Final = "https://mcp.example.test"
FROM_OUR_PAGE: Final = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
START: Final = f"{ORIGIN}/authz/step-up"
LOG_INS: Final = f"{ORIGIN}/authz/log-ins"
APPROVAL: Final = f"{ORIGIN}/authz/approval"
# Of our clients at the issuer, besides those that it knows.
CALLBACKS: Final = {
    "authz-one-factor": (f"{LOG_INS}/callback", f"{APPROVAL}/one-factor/callback"),
    "authz-two-factor": (f"{APPROVAL}/callback",),
}


@dataclass
class FakeRecords:
    """Step-ups as they are recorded."""

    kept: dict[StepUpKey, tuple[Method, int, int]] = field(default_factory=dict)
    away: bool = False

    async def record_step_up(
        self, key: StepUpKey, method: Method, auth_time: int, ttl: int
    ) -> None:
        self._ask()
        self.kept[key] = (method, auth_time, ttl)

    async def end_step_up(self, key: StepUpKey) -> None:
        self._ask()
        self.kept.pop(key, None)

    def _ask(self) -> None:
        if self.away:
            raise UnavailableError("redis", "away")


@dataclass
class People:
    """Whose log-ins were recorded."""

    kept: list[LoginIdentity] = field(default_factory=list[LoginIdentity])

    async def keep(self, who: LoginIdentity) -> None:
        self.kept.append(who)


@dataclass
class States:
    """Used states."""

    seen: set[str] = field(default_factory=set)

    async def use(self, state: str) -> bool:
        new = state not in self.seen
        self.seen.add(state)
        return new


@dataclass
class Kept:
    """Grants by person."""

    grants: dict[str, list[OwnGrant]] = field(default_factory=dict)
    operations: dict[str, list[OwnOperation]] = field(default_factory=dict)
    ended: list[tuple[str, str]] = field(default_factory=list)
    asked: int = 0

    async def of(self, person: Person) -> list[OwnGrant]:
        return list(self.grants.get(person.subject, ()))

    async def lately(self, person: Person) -> list[OwnOperation]:
        return list(self.operations.get(person.subject, ()))

    async def end(self, person: Person, grant: str) -> None:
        self.asked += 1
        for each in self.grants.get(person.subject, []):
            if each.grant == grant:
                self.grants[person.subject].remove(each)
                self.ended.append((person.subject, grant))
                return


@dataclass
class LiveProofs:
    """Step-ups and approvals by person."""

    kept: dict[str, list[OwnProof]] = field(default_factory=dict)
    asked: int = 0

    async def of(self, person: Person, grants: Sequence[OwnGrant]) -> list[OwnProof]:
        of_grants = {each.grant for each in grants}
        return [each for each in self.kept.get(person.subject, ()) if each.id.grant in of_grants]

    async def end(self, person: Person, proof: ProofId) -> None:
        self.asked += 1
        left = [each for each in self.kept.get(person.subject, ()) if each.id != proof]
        self.kept[person.subject] = left


@dataclass
class ChosenNames:
    """What clients call themselves, by grant."""

    names: dict[str, str] = field(default_factory=dict)

    async def of(self, ticket: StepUpTicket) -> str:
        return self.names.get(ticket.grant, "")


@dataclass
class FakeGateway:
    """The pages, and what they keep."""

    world: DemoWorld
    stand: UpstreamKit
    sealer: Sealer
    app: LoginApp
    records: FakeRecords = field(default_factory=FakeRecords)
    grants: Kept = field(default_factory=Kept)
    proofs: LiveProofs = field(default_factory=LiveProofs)
    notes: list[str] = field(default_factory=list)
    names: ChosenNames = field(default_factory=ChosenNames)

    def run(self, call: Any) -> Any:
        return self.world.runner.run(call)

    def browser(self) -> httpx.AsyncClient:
        """One browser with cookies of its own, that reaches the gateway and the issuer."""
        issuer = httpx.ASGITransport(create_app(self.world.issuer))
        browser = httpx.AsyncClient(
            mounts={ORIGIN: httpx.ASGITransport(self.app), ISSUER: issuer},
            headers=forwarded_headers(self.world.issuer.config)
            | {"X-Forwarded-For": "192.0.2.10", "X-Request-Id": "request-1"},
        )
        self.world.browsers.append(browser)
        return browser

    def ticket(self, **changes: Any) -> str:
        return seal_ticket(self.sealer, replace(TICKET, at=int(self.world.clock()), **changes))

    def get(self, browser: httpx.AsyncClient, url: str) -> httpx.Response:
        found: httpx.Response = self.run(browser.get(url))
        return found

    def click(
        self,
        browser: httpx.AsyncClient,
        page: httpx.Response,
        headers: Mapping[str, str] = FROM_OUR_PAGE,
        number: int = 0,
        **changes: str,
    ) -> httpx.Response:
        """Send a form of a page."""
        action, fields = forms(page)[number]
        found: httpx.Response = self.run(
            browser.post(str(page.url.join(action)), data=fields | changes, headers=headers)
        )
        return found

    def begin(self, browser: httpx.AsyncClient, **changes: Any) -> str:
        """Open a link and click; return where the browser goes."""
        page = self.get(browser, f"{START}?ticket={self.ticket(**changes)}")
        assert page.status_code == 200, page.text
        sent = self.click(browser, page)
        url = automatic_redirect(sent)
        assert url is not None, sent.text
        return url

    def log_in(self, browser: httpx.AsyncClient, url: str, **knows: Any) -> str:
        """Type what the issuer asks for; return the callback."""
        callback: str = self.run(self.world.person(**knows).log_in(browser, url))
        return callback

    def step_up(self, browser: httpx.AsyncClient, knows: Any = None, **changes: Any) -> Any:
        """The whole of it: the page at its end."""
        url = self.log_in(browser, self.begin(browser, **changes), **(knows or {}))
        answer = self.get(browser, url)
        assert answer.status_code == 303, answer.text
        return self.get(browser, answer.headers["location"])


TICKET: Final = StepUpTicket(
    issuer=ISSUER,
    subject=JOHN,
    grant="grant-1",
    client="https://claude.ai",
    account="john",
    server="notes",
    tool="delete_note",
    need=StepUpNeed(Method.TOTP, 300),
    at=0,
    ends_at="claude.ai",
    document_host="claude.ai",
)


def forms(page: httpx.Response) -> list[tuple[str, dict[str, str]]]:
    """Every form of a page: where it goes, and what it hides."""
    found = []
    for head, body in re.findall(r"<form ([^>]*)>(.*?)</form>", page.text, re.DOTALL):
        action = re.search(r'action="([^"]*)"', head)
        assert action is not None
        inputs = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', body)
        found.append((unescape(action[1]), {name: unescape(value) for name, value in inputs}))
    return found


def words(page: httpx.Response) -> str:
    """What a person reads."""
    body = page.text.partition("</head>")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", "", body)).split())


def another_nonce(transport: httpx.AsyncBaseTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Authelia hear of another nonce than the one that its ID token is to have."""
    send = transport.handle_async_request

    async def altered(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/pushed-authorization-request"):
            form = dict(parse_qsl(request.content.decode())) | {"nonce": "n" * 43}
            headers = {
                name: value for name, value in request.headers.items() if "length" not in name
            }
            request = httpx.Request("POST", request.url, headers=headers, data=form)
        return await send(request)

    monkeypatch.setattr(transport, "handle_async_request", altered)


def browser_app(
    *,
    origin: str,
    issuer: str,
    upstream: Any,
    sealer: Sealer,
    records: FakeRecords,
    grants: Kept,
    proofs: LiveProofs,
    clock: Callable[[], float],
    note: Callable[[str, str], None] = lambda _id, _words: None,
    requests: ApprovalRequests | None = None,
    log: StepLog = lambda *_, **__: None,
    names: ChosenNames | None = None,
    others: Sequence[Route] = (),
) -> LoginApp:
    """The step-up, the sessions and, where requests are kept, the approvals, as they are wired;
    beside them whatever else a test has.
    """
    cookies, pages = BrowserCookies(sealer, origin), Pages(origin, issuer)
    errors = ErrorResponder(origin, cookies, pages, upstream.log_out_url, note)
    logins = BrowserLogins(
        origin=origin,
        upstream=upstream,
        cookies=cookies,
        pages=pages,
        states=States(),
        people=People(),
        limiter=LoginRateLimiter(clock),
        identity_scopes=identity_scopes(email=False),
    )
    chosen = names or ChosenNames()
    shared: dict[str, Any] = {
        "origin": origin,
        "issuer": issuer,
        "logins": logins,
        "cookies": cookies,
        "pages": pages,
        "errors": errors,
    }
    step_ups = StepUpEndpoints(
        **shared, sealer=sealer, records=records, names=chosen, log_out_url=upstream.log_out_url,
        clock=clock,
    )  # fmt: skip
    sessions = SessionEndpoints(**shared, grants=grants, activity=grants, proofs=proofs, log=log)
    routes = [*step_ups.routes(), *sessions.routes(), errors.route(), *others]
    if requests is not None:
        approvals = ApprovalEndpoints(
            **shared,
            sealer=sealer,
            requests=requests,
            names=chosen,
            log_out_url=upstream.log_out_url,
            clock=clock,
            log=log,
        )
        routes += approvals.routes()
    return LoginApp(routes, errors, Recorder(Metrics(), EventLog("json", StringIO())))


@contextmanager
def gateway(
    world: DemoWorld,
    requests: ApprovalRequests | None = None,
    log: StepLog = lambda *_, **__: None,
) -> Iterator[FakeGateway]:
    """Put the pages beside the stand-in."""
    with standing(world) as stand:
        config = world.issuer.config
        ours = [
            replace(each, redirect_uris=(*each.redirect_uris, *CALLBACKS.get(each.client_id, ())))
            for each in config.clients
        ]
        world.issuer.config = replace(config, clients=tuple(ours))
        sealer = Sealer(["a" * 32], world.clock)
        records, grants, proofs, names = FakeRecords(), Kept(), LiveProofs(), ChosenNames()
        notes = list[str]()

        def note(request_id: str, words: str) -> None:
            notes.append(f"{request_id}: {words}")

        app = browser_app(
            origin=ORIGIN,
            issuer=ISSUER,
            upstream=stand.authelia,
            sealer=sealer,
            records=records,
            grants=grants,
            proofs=proofs,
            clock=world.clock,
            note=note,
            requests=requests,
            log=log,
            names=names,
        )
        yield FakeGateway(world, stand, sealer, app, records, grants, proofs, notes, names)
