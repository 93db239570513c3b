"""The step-up: a person proves at Authelia, once more, who it is, for one grant and one server.

Invariant: nothing happens before a click on a page that says what it is for; nothing is recorded
but what a verified ID token of the very person of the ticket proves, for that person, grant and
server.

What it proves has bounds. `auth_time` is when the person last typed something, password or code.
Authelia asks for the password again where that is older than `max_age`, and not for the code: `otp`
stays in its `amr` for as long as its session lives, so the code may be older than the record says.
A `max_age` of 0 can never be met there (it would ask for ever), so 1 is the least that is asked.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Protocol
from urllib.parse import urlencode

from pydantic import ConfigDict, PlainSerializer, PlainValidator
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.core.ledger import StepUpKey, UnavailableError
from authz.core.principal import Person
from authz.core.second_factor import (
    Evidence,
    Method,
    Proof,
    SecondFactor,
    StepUpNeed,
    methods,
    proves,
    satisfies,
)
from authz.core.step_up import StepUpTicket
from authz.login.protocol.members import STRICT, MembersCodec
from authz.login.protocol.values import ClientIdentity, LoginIdentity
from authz.login.service import ports
from authz.login.web import error_pages
from authz.login.web.client_description import ClientDescription, describe_client, shown
from authz.login.web.cookies import (
    BrowserCookies,
    NotThisBrowserError,
    purpose,
    read_form,
)
from authz.login.web.error_pages import ErrorPage, ErrorResponder, PageError
from authz.login.web.rendering import Pages, format_duration, redirect
from authz.login.web.upstream_login import BrowserLogins, IdentityLogin, login_kind
from authz.tokens.sealing import NotSealedError, Sealer
from authz.tokens.tickets import open_ticket, ticket_of, ticket_value

PATH: Final = "/authz/step-up"
# How long a record is kept where no rule asks for an age: a working day. A rule with an age looks
# at the record's auth_time itself, so that the longer life of the record weakens none.
LIFETIME: Final = 12 * 3600
_LONGEST_TICKET: Final = 2048  # characters: the cookie holds it with a little more
_MARGIN: Final = 60  # seconds in which the person goes back and tries again

NO_TICKET: Final = ErrorPage(
    403,
    "This link has ended",
    "A link to confirm a call is good for ten minutes. Let your assistant try again: it gets a new "
    "one.",
    "no ticket",
)
LINK_TOO_LONG: Final = ErrorPage(
    400,
    "This link is too long",
    "Nothing was done. Tell the people who run this gateway: a name in it is too long.",
    "ticket too long",
)
OTHER_PERSON: Final = ErrorPage(
    403,
    "You are logged in as somebody else",
    "Nothing was recorded: the call was made for another account than the one that you are logged "
    "in with. Log out at the log-in service, then let your assistant try again and log in with the "
    "account that it uses.",
    "another person",
)
ONLY_PASSWORD: Final = ErrorPage(
    403,
    "You logged in without the second factor that is asked for",
    "Nothing was recorded: you logged in with a password only, and a second factor is asked for. "
    "Set one up at the log-in service if you have none, then let your assistant try again.",
    "no second factor",
)
NO_CODE: Final = ErrorPage(
    403,
    "You logged in without a one-time code",
    "Nothing was recorded: a one-time code (TOTP) is asked for, and this log-in was made with "
    "another method. Log out at the log-in service, then let your assistant try again and choose "
    "the one-time code.",
    "no one-time code",
)
TOO_OLD: Final = ErrorPage(
    403,
    "Your log-in is too old for this",
    "Nothing was recorded: a more recent log-in is asked for. Log out at the log-in service, then "
    "let your assistant try again.",
    "log-in too old",
)
NO_RESULT: Final = ErrorPage(
    404,
    "There is nothing here any more",
    "What was recorded stays as it is. You can close this page.",
    "no result",
)


class StepUps(Protocol):
    """Where step-ups are recorded (`authz.ledger.redis.RedisLedger`)."""

    async def record_step_up(
        self, key: StepUpKey, method: Method, auth_time: int, ttl: int
    ) -> None:
        """Record a step-up."""

    async def end_step_up(self, key: StepUpKey) -> None:
        """Forget a step-up."""


class SelfChosenNames(Protocol):
    """What clients call themselves (`authz.login.web.own_grants.GrantedClientNames`)."""

    async def of(self, ticket: StepUpTicket) -> str:
        """Return what the client of a ticket calls itself; empty where that is not known."""
        ...


@dataclass(frozen=True, slots=True)
class _StartForm:
    """The ticket of the link, as the form of its page is about it."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    ticket: str


def _read_ticket(members: Mapping[str, object]) -> StepUpTicket:
    try:
        return ticket_of(members)
    except NotSealedError as error:
        raise ValueError("no whole ticket") from error


_Ticket = Annotated[StepUpTicket, PlainValidator(_read_ticket), PlainSerializer(ticket_value)]
_Methods = Annotated[Method, PlainValidator(Method), PlainSerializer(int)]


@dataclass(frozen=True, slots=True)
class _Context:
    """The ticket, as the browser keeps it during the log-in."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    kept: _Ticket


@dataclass(frozen=True, slots=True)
class _Result:
    """What was recorded, as the last page tells it.

    Attributes:
        ticket: what for.
        account: who logged in.
        method: by which methods.
        auth_time: when, seconds since the epoch.
        until: the end of its effect, seconds since the epoch.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    ticket: _Ticket
    account: str
    method: _Methods
    auth_time: int
    until: int


@dataclass(frozen=True, slots=True)
class _StepUpRef:
    """Whose step-up a record is, for which server, as the form to end it holds that."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    issuer: str
    subject: str
    grant: str
    server: str

    @property
    def key(self) -> StepUpKey:
        """Return it as the ledger names it."""
        return StepUpKey(Person(self.issuer, self.subject), self.grant, self.server)

    @classmethod
    def of(cls, ticket: StepUpTicket) -> "_StepUpRef":
        """Return the form's value for the step-up of a ticket."""
        return cls(ticket.issuer, ticket.subject, ticket.grant, ticket.server)


_CONTEXT: Final = MembersCodec(_Context)
_LOGIN: Final = login_kind(
    "step-up",
    f"{PATH}/callback",
    _CONTEXT.write,
    _CONTEXT.read,
)
_START_FORM: Final = purpose("step-up", _StartForm)
_END_FORM: Final = purpose("end-step-up", _StepUpRef)
_RESULT: Final = purpose("step-up-done", _Result, is_page=True)


class StepUpEndpoints:
    """Ask for a step-up, and record what it proves."""

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
        records: StepUps,
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
            sealer: opens tickets.
            records: where step-ups are recorded.
            names: what clients call themselves.
            log_out_url: returns where a session at Authelia ends, to come back to a URL.
            clock: seconds since the epoch.
            log: of steps and their outcomes.
        """
        self._url = origin + PATH
        self._issuer = issuer
        self._login = IdentityLogin(logins, _LOGIN, two_factor=True)
        self._cookies = cookies
        self._pages = pages
        self._errors = errors
        self._sealer = sealer
        self._records = records
        self._names = names
        self._log_out_url = log_out_url
        self._clock = clock
        self._log = log

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(PATH, self.start, methods=["GET"]),
            Route(PATH, self.begin, methods=["POST"]),
            Route(_LOGIN.callback, self.callback, methods=["GET"]),
            Route(f"{PATH}/done", self.done, methods=["GET"]),
            Route(f"{PATH}/end", self.end, methods=["POST"]),
        ]

    async def start(self, request: Request) -> Response:
        """Show what a step-up is for, and wait for a click."""
        text = request.query_params.get("ticket", "")
        ticket = self._ticket(text)
        token, cookie = self._cookies.form_token(request, _START_FORM, _StartForm(text))
        content = {
            "ticket": ticket,
            "who": describe_ticket(ticket, await self._names.of(ticket)),
            "at": ticket.at,
            "totp": Method.OTP in ticket.need.method,
            "age": format_duration(ticket.need.max_login_age),
            "form_token": token,
            "log_out": self._log_out_url(f"{self._url}?{urlencode({'ticket': text})}"),
        }
        return self._pages.page(
            "step_up.html", content, set_cookie=cookie, has_form=True, has_times=True
        )

    async def begin(self, request: Request) -> Response:
        """Send the person to Authelia, after a click."""
        form = self._cookies.check_post(request, await read_form(request), _START_FORM)
        ticket = self._ticket(form.ticket)
        return await self._login.begin(request, _Context(ticket), asked_age(ticket.need))

    async def callback(self, request: Request) -> Response:
        """Take Authelia's response, record what it proves, and send the browser on."""
        try:
            found = await self._login.finish(request)
            ticket = found.context.kept
            missing = missing_proof(ticket, found.identity, self._clock())
            if missing is not None:
                self._log_outcome("not_proved", ticket)
                response = self._errors.redirect_to_error(request, missing, log_out=True)
                response.background = found.revocation
                return response
            result = await self._record(ticket, found.identity)
        except PageError as error:
            return self._errors.redirect_to_error(request, error.page)
        except UnavailableError:
            return self._errors.redirect_to_error(request, error_pages.AWAY)
        key = secrets.token_urlsafe(32)
        response = redirect(self._done_url(key))
        self._cookies.keep(request, response, key, _RESULT, result)
        response.background = found.revocation
        self._cookies.end_login(request, response, found.state)
        return response

    async def done(self, request: Request) -> Response:
        """Say what was recorded."""
        key = request.query_params.get("of", "")
        try:
            result = self._cookies.read(request, key, _RESULT)
        except NotThisBrowserError as error:
            raise PageError(NO_RESULT) from error
        token, cookie = self._cookies.form_token(request, _END_FORM, _StepUpRef.of(result.ticket))
        content = {
            "ticket": result.ticket,
            "who": describe_ticket(result.ticket),
            "account": result.account,
            "totp": Method.OTP in result.method,
            "auth_time": result.auth_time,
            "until": result.until,
            "left": format_duration(max(0, result.until - int(self._clock()))),
            "form_token": token,
            "log_out": self._log_out_url(self._done_url(key)),
        }
        return self._pages.page(
            "step_up_done.html", content, set_cookie=cookie, has_form=True, has_times=True
        )

    async def end(self, request: Request) -> Response:
        """Forget what was recorded."""
        key = self._cookies.check_post(request, await read_form(request), _END_FORM).key
        await self._records.end_step_up(key)
        self._log(
            "step_up", "ended", server=key.server, grant=key.grant, subject=key.person.subject
        )
        return self._pages.page("step_up_ended.html", {"server": key.server})

    def _log_outcome(self, outcome: str, ticket: StepUpTicket) -> None:
        self._log(
            "step_up", outcome, client=ticket.client, server=ticket.server, grant=ticket.grant,
            subject=ticket.subject,
        )  # fmt: skip

    def _done_url(self, key: str) -> str:
        return f"{self._url}/done?{urlencode({'of': key})}"

    def _ticket(self, text: str) -> StepUpTicket:
        """Return the ticket of a link.

        Raises:
            PageError: where it is none for us, or one that no cookie could hold.
        """
        try:
            ticket = open_ticket(self._sealer, text)
        except NotSealedError as error:
            raise PageError(NO_TICKET) from error
        if ticket.issuer != self._issuer:
            raise PageError(NO_TICKET)  # of another issuer's person: nobody proves it here
        if len(text) > _LONGEST_TICKET:
            raise PageError(LINK_TOO_LONG)
        return ticket

    async def _record(self, ticket: StepUpTicket, identity: LoginIdentity) -> _Result:
        """Record what a log-in proves; return what there is to tell.

        Raises:
            UnavailableError: where it could not be recorded.
        """
        method = methods(identity.amr)
        age = ticket.need.max_login_age
        kept = max(LIFETIME, age or 0)
        await self._records.record_step_up(
            _StepUpRef.of(ticket).key, method, identity.auth_time, kept
        )
        self._log_outcome("ok", ticket)
        until = int(self._clock()) + kept if age is None else identity.auth_time + age
        return _Result(ticket, shown(identity.account), method, identity.auth_time, until)


def describe_ticket(ticket: StepUpTicket, client_name: str = "") -> ClientDescription:
    """Return what the consent said of the client.

    Args:
        ticket: what is known of it.
        client_name: what it calls itself; never believed.
    """
    return describe_client(
        ClientIdentity(
            name=ticket.client,
            client_name=client_name,
            redirect_uri="",
            ends_at=ticket.ends_at,
            document_host=ticket.document_host,
        )
    )


def missing_proof(ticket: StepUpTicket, identity: LoginIdentity, now: float) -> ErrorPage | None:
    """Return what a log-in lacks of what a ticket asks for; None where nothing.

    The rule is the check's own (`satisfies`): what is recorded here is what counts there.
    """
    if identity.subject != ticket.subject:
        return OTHER_PERSON
    rule = SecondFactor(ticket.need.method, ticket.need.max_login_age)
    proof = Proof(Evidence.STEP_UP, methods(identity.amr), identity.auth_time)
    if satisfies(rule, proof, now):
        return None
    if proves(rule, proof):
        return TOO_OLD
    return NO_CODE if Method.ANY in proof.method else ONLY_PASSWORD


def asked_age(need: StepUpNeed) -> int | None:
    """Return the `max_age` to ask Authelia for; None where no age matters.

    Somewhat less than the rule's: a log-in that is just young enough would be too old before the
    person is back at the call.
    """
    age = need.max_login_age
    return None if age is None else max(1, age - min(_MARGIN, age // 2))
