"""The approval: a person reads what an application wants to do, and approves or declines it.

Invariant: what is asked is shown to its very person alone, after a log-in at Authelia that proves
the second factor which the rule asks for; it is shown whole; a decision counts once, for what was
shown, and comes from a click on this page in this browser (tests/login/web/test_approval.py).

An approval raises nothing else: a step-up is recorded with it only where the call lacked one, and
then for that grant and server alone, as on the page of step-ups.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final
from urllib.parse import urlencode

from pydantic import ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.core.exact_call import ExactCall
from authz.core.ledger import StepUpKey, UnavailableError
from authz.core.limits import digest
from authz.core.second_factor import Method, methods
from authz.core.step_up import ApprovalRequest
from authz.ledger.approval_requests import (
    APPROVED,
    DECLINED,
    ApprovalRequests,
    KeptRequest,
    ProvedStepUp,
)
from authz.ledger.keys import approval_name
from authz.login.protocol.members import STRICT, MembersCodec
from authz.login.protocol.values import LoginIdentity
from authz.login.service import ports
from authz.login.store.approvals import LISTED_APPROVAL, ListedApproval
from authz.login.web import error_pages
from authz.login.web.client_description import shown
from authz.login.web.cookies import (
    BrowserCookies,
    NotThisBrowserError,
    purpose,
    read_form,
)
from authz.login.web.error_pages import ErrorPage, ErrorResponder, PageError
from authz.login.web.rendering import Pages, format_duration, redirect
from authz.login.web.step_up import (
    LIFETIME,
    SelfChosenNames,
    asked_age,
    describe_ticket,
    missing_proof,
)
from authz.login.web.upstream_login import BrowserLogins, IdentityLogin, LoginKind, login_kind
from authz.login.web.visible_json import Piece, visible_json
from authz.tokens.approval_requests import open_name, open_request
from authz.tokens.sealing import NotSealedError, Sealer

PATH: Final = "/authz/approval"
_CALL: Final = f"{PATH}/call"
_DECIDE: Final = f"{PATH}/decide"
_DECISIONS: Final[Mapping[str, bool]] = {"approve": True, "decline": False}
# What an application says of itself in each request (MCP 2026-07-28): part of what is approved, and
# shown apart, so that it hides nothing else.
_OF_ITSELF: Final = frozenset(
    f"io.modelcontextprotocol/{name}"
    for name in ("protocolVersion", "clientInfo", "clientCapabilities", "logLevel")
)

NO_REQUEST: Final = ErrorPage(
    404,
    "There is nothing to decide here any more",
    "It was decided already, or it is too long ago. If your assistant still waits, let it try "
    "again: it gets a new link.",
    "no request for an approval",
)


REQUEST_CHANGED: Final = ErrorPage(
    409,
    "Something else is asked now",
    "The application has asked again while you read, and not for the same. Nothing was decided. Go "
    "back and load the page again: it shows what is asked now.",
    "a request that changed while it was read",
)


@dataclass(frozen=True, slots=True)
class _AskForm:
    """The request that the form of the first page is about, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class _Viewing:
    """Who has logged in to look at a request.

    Attributes:
        name, request_id: of the request.
        subject, account: who.
        amr, auth_time: of the log-in; `amr` separated by blanks.
        shown: of a form, the digest of what stood beside it.
    """

    name: str
    request_id: str
    subject: str
    account: str
    amr: str
    auth_time: int
    shown: str = ""

    @property
    def identity(self) -> LoginIdentity:
        """Return the log-in as the rules look at it."""
        return LoginIdentity(
            subject=self.subject,
            amr=frozenset(self.amr.split()),
            auth_time=self.auth_time,
            account=self.account,
        )


@dataclass(frozen=True, slots=True)
class ShownCall:
    """Hold an exact call as the page shows it: all of it, in parts.

    Attributes:
        tool: the tool's name.
        arguments: what the tool is given.
        others: whatever else the call says; none as a rule.
        of_itself: what the application says of itself.
    """

    tool: tuple[tuple[Piece, ...], ...]
    arguments: tuple[tuple[Piece, ...], ...]
    others: tuple[tuple[Piece, ...], ...]
    of_itself: tuple[tuple[Piece, ...], ...]


def shown_call(call: ExactCall) -> ShownCall:
    """Return all that a call says."""
    members = json.loads(call.text)
    params = members["params"]
    tool = params.pop("name")
    arguments = params.pop("arguments", {})
    of_itself: dict[str, object] = {"version": members.pop("version")}
    meta = params.get("_meta")
    if isinstance(meta, dict):
        of_itself |= {name: meta[name] for name in meta if name in _OF_ITSELF}
        params["_meta"] = {name: meta[name] for name in meta if name not in _OF_ITSELF}
        if not params["_meta"]:
            del params["_meta"]
    del members["params"]
    others = {**params, **{f"HTTP {name}": value for name, value in members.items()}}
    return ShownCall(
        visible_json(tool),
        visible_json(arguments),
        visible_json(others) if others else (),
        visible_json(of_itself),
    )


@dataclass(frozen=True, slots=True)
class _Context:
    """The name of the request, as the browser keeps it during the log-in."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    of: str


_CONTEXT: Final = MembersCodec(_Context)


def _kind(name: str, path: str) -> LoginKind[_Context]:
    return login_kind(name, f"{path}/callback", _CONTEXT.write, _CONTEXT.read)


_TWO_FACTOR: Final = _kind("approval", PATH)
_ONE_FACTOR: Final = _kind("approval-one-factor", f"{PATH}/one-factor")
_ASK_FORM: Final = purpose("approval", _AskForm)
_VIEWING: Final = purpose("approval-viewing", _Viewing, is_page=True)
_DECISION_FORM: Final = purpose("approval-decision", _Viewing)


class ApprovalEndpoints:
    """Show what is asked, and record what the person decides."""

    def __init__(
        self,
        *,
        origin: str,
        issuer: str,
        logins: BrowserLogins,
        cookies: BrowserCookies,
        pages: Pages,
        errors: ErrorResponder,
        sealer: Sealer,
        requests: ApprovalRequests,
        names: SelfChosenNames,
        log_out_url: Callable[[str], str],
        clock: Callable[[], float],
        log: ports.StepLog = lambda *_, **__: None,
    ) -> None:
        """Take the parts.

        Args:
            origin: the gateway's, as browsers send it.
            issuer: as tokens name it.
            logins: sends browsers to Authelia.
            cookies: what browsers keep.
            pages: what renders.
            errors: shows error pages.
            sealer: opens links and requests.
            requests: where requests are kept, and decisions recorded.
            names: what clients call themselves.
            log_out_url: returns where a session at Authelia ends, to come back to a URL.
            clock: seconds since the epoch.
            log: of steps and their outcomes.
        """
        self._url = origin + PATH
        self._issuer = issuer
        self._two_factor = IdentityLogin(logins, _TWO_FACTOR, two_factor=True)
        self._one_factor = IdentityLogin(logins, _ONE_FACTOR, two_factor=False)
        self._cookies = cookies
        self._pages = pages
        self._errors = errors
        self._sealer = sealer
        self._requests = requests
        self._names = names
        self._log_out_url = log_out_url
        self._clock = clock
        self._log = log

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(PATH, self.start, methods=["GET"]),
            Route(PATH, self.begin, methods=["POST"]),
            Route(_TWO_FACTOR.callback, self.two_factor_callback, methods=["GET"]),
            Route(_ONE_FACTOR.callback, self.one_factor_callback, methods=["GET"]),
            Route(_CALL, self.call, methods=["GET"]),
            Route(_DECIDE, self.decide, methods=["POST"]),
        ]

    async def start(self, request: Request) -> Response:
        """Say who asks for what, without what only its person may see, and wait for a click."""
        text = request.query_params.get("ticket", "")
        try:
            name = open_name(self._sealer, text)
        except NotSealedError as error:
            raise PageError(NO_REQUEST) from error
        _, asked = await self._find(name)
        token, cookie = self._cookies.form_token(request, _ASK_FORM, _AskForm(name))
        content = {
            **await self._described(asked),
            "totp": Method.OTP in asked.ticket.need.method,
            "second_factor": asked.ticket.need.method is not Method.NONE,
            "age": format_duration(asked.ticket.need.max_login_age),
            "form_token": token,
            "log_out": self._log_out_url(f"{self._url}?{urlencode({'ticket': text})}"),
        }
        return self._pages.page(
            "approval.html", content, set_cookie=cookie, has_form=True, has_times=True
        )

    async def begin(self, request: Request) -> Response:
        """Send the person to Authelia, after a click."""
        form = self._cookies.check_post(request, await read_form(request), _ASK_FORM)
        _, asked = await self._find(form.name)
        need = asked.ticket.need
        login = self._one_factor if need.method is Method.NONE else self._two_factor
        return await login.begin(request, _Context(form.name), asked_age(need))

    async def two_factor_callback(self, request: Request) -> Response:
        """Take Authelia's response to a log-in with a second factor."""
        return await self._callback(request, self._two_factor)

    async def one_factor_callback(self, request: Request) -> Response:
        """Take Authelia's response to a log-in of which no second factor is asked."""
        return await self._callback(request, self._one_factor)

    async def _callback(self, request: Request, login: IdentityLogin[_Context]) -> Response:
        """Take Authelia's response, and let this browser see what its person is asked."""
        try:
            found = await login.finish(request)
            kept, asked = await self._find(found.context.of)
        except PageError as error:
            return self._errors.redirect_to_error(request, error.page)
        except UnavailableError:
            return self._errors.redirect_to_error(request, error_pages.AWAY)
        identity = found.identity
        missing = missing_proof(asked.ticket, identity, self._clock())
        if missing is not None:
            self._log_outcome("not_proved", asked)
            response = self._errors.redirect_to_error(request, missing, log_out=True)
            response.background = found.revocation
            return response
        key = secrets.token_urlsafe(32)
        response = redirect(f"{self._url}/call?{urlencode({'of': key})}")
        viewing = _Viewing(
            found.context.of,
            kept.id,
            identity.subject,
            shown(identity.account),
            " ".join(sorted(each for each in identity.amr if methods({each}))),
            identity.auth_time,
        )
        self._cookies.keep(request, response, key, _VIEWING, viewing)
        response.background = found.revocation
        self._cookies.end_login(request, response, found.state)
        return response

    async def call(self, request: Request) -> Response:
        """Show what is asked, whole, and wait for the decision."""
        key = request.query_params.get("of", "")
        try:
            viewing = self._cookies.read(request, key, _VIEWING)
        except NotThisBrowserError as error:
            raise PageError(NO_REQUEST) from error
        asked = await self._viewed(viewing)
        form = replace(viewing, shown=_shown(asked))
        token, cookie = self._cookies.form_token(request, _DECISION_FORM, form)
        content = {
            **await self._described(asked),
            "account": viewing.account,
            "call": None if asked.call is None else shown_call(asked.call),
            "steps_up": asked.steps_up,
            "form_token": token,
        }
        return self._pages.page(
            "approval_call.html", content, set_cookie=cookie, has_form=True, has_times=True
        )

    async def decide(self, request: Request) -> Response:
        """Record the decision, and say what it means."""
        form = await read_form(request)
        viewing = self._cookies.check_post(request, form, _DECISION_FORM)
        asked = await self._viewed(viewing)
        approved = _DECISIONS.get(form.get("decision", ""))
        if approved is None:
            raise PageError(error_pages.NOT_THIS_BROWSER)
        await self._record(asked, viewing, approved=approved)
        content = {
            **await self._described(asked),
            "approved": approved,
            "within": format_duration(APPROVED),
        }
        return self._pages.page("approval_done.html", content)

    async def _record(self, asked: ApprovalRequest, viewing: _Viewing, *, approved: bool) -> None:
        """Record a decision.

        Raises:
            PageError: where it counts no more, or not for what is asked now.
            UnavailableError: where Redis did not confirm it.
        """
        # The application may have asked again since, under the same name.
        if viewing.shown != _shown(asked):
            raise PageError(REQUEST_CHANGED)
        now, step_up = self._clock(), None
        lifetime = DECLINED
        if approved:
            lifetime = asked.approval.lifetime or APPROVED
            if asked.steps_up:
                step_up = _proved(asked, viewing)
            # The rule may be another since, and the log-in is older.
            missing = missing_proof(asked.ticket, viewing.identity, now)
            if missing is not None:
                raise PageError(missing)
        counts = await self._requests.decide(
            asked.key,
            viewing.request_id,
            int(now),
            lifetime=lifetime,
            approved=approved,
            listed=self._listed(asked, int(now), lifetime) if approved else "",
            step_up=step_up,
        )
        if not counts:
            raise PageError(NO_REQUEST)
        self._log_outcome("approved" if approved else "declined", asked)

    def _listed(self, asked: ApprovalRequest, now: int, lifetime: int) -> str:
        """Return an approval as the list of its person's has it."""
        ticket = asked.ticket
        listed = ListedApproval(
            subject=ticket.subject,
            grant=ticket.grant,
            client=ticket.client,
            server=ticket.server,
            tool=ticket.tool or "",
            at=now,
            until=now + lifetime,
            each_call=asked.approval.each_call,
        )
        return LISTED_APPROVAL.seal(self._sealer, listed, lifetime)

    async def _find(self, name: str) -> tuple[KeptRequest, ApprovalRequest]:
        """Return what is asked under a name.

        Raises:
            PageError: where there is nothing, or it is of another issuer's person.
            UnavailableError: where Redis does not answer.
        """
        kept = await self._requests.find(name)
        if kept is None:
            raise PageError(NO_REQUEST)
        try:
            asked = open_request(self._sealer, kept.sealed)
        except NotSealedError as error:
            raise PageError(NO_REQUEST) from error
        if asked.ticket.issuer != self._issuer:
            raise PageError(NO_REQUEST)
        return kept, asked

    async def _viewed(self, viewing: _Viewing) -> ApprovalRequest:
        """Return what a person has logged in to look at, while it is still that.

        Raises:
            PageError: where it is not, or not for this person.
            UnavailableError: where Redis does not answer.
        """
        kept, asked = await self._find(viewing.name)
        if kept.id != viewing.request_id or asked.ticket.subject != viewing.subject:
            raise PageError(NO_REQUEST)
        return asked

    async def _described(self, asked: ApprovalRequest) -> Mapping[str, object]:
        """Return what every page says of a request."""
        ticket = asked.ticket
        return {
            "ticket": ticket,
            "who": describe_ticket(ticket, await self._names.of(ticket)),
            "at": ticket.at,
            "lifetime": format_duration(asked.approval.lifetime),
        }

    def _log_outcome(self, outcome: str, asked: ApprovalRequest) -> None:
        ticket = asked.ticket
        self._log(
            "approval", outcome, client=ticket.client, server=ticket.server, grant=ticket.grant
        )


def _shown(asked: ApprovalRequest) -> str:
    """Return a digest of what a decision means: whose, for what, for how long, and what it proves.

    The name of the approval holds its lifetime, the need of a log-in and the digest of the call.
    """
    return digest(approval_name(asked.key), asked.ticket.client, str(asked.steps_up))


def _proved(asked: ApprovalRequest, viewing: _Viewing) -> ProvedStepUp:
    """Return the step-up that the log-in on this page is, as the page of step-ups records it."""
    key = asked.key
    return ProvedStepUp(
        StepUpKey(key.person, key.grant, key.server),
        methods(viewing.amr.split()),
        viewing.auth_time,
        max(LIFETIME, asked.ticket.need.max_login_age or 0),
    )
