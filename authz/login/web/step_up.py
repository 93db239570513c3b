"""The step-up: a person proves at Authelia, once more, who it is, for one grant and one server.

Law: nothing happens before a click on a page that says what it is for; nothing is recorded but
what a verified ID token of the very person of the ticket proves, for that person, grant and server.

What it proves has bounds. `auth_time` is when the person last typed something, password or code.
Authelia asks for the password again where that is older than `max_age`, and not for the code: `otp`
stays in its `amr` for as long as its session lives, so the code may be older than the record says.
A `max_age` of 0 can never be met there (it would ask for ever), so 1 is the least that is asked.
"""

import secrets
import time
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlencode

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
from authz.login.protocol.values import ClientIdentity, LoginIdentity
from authz.login.web.client_description import ClientDescription, describe_client, shown
from authz.login.web.cookies import NotThisBrowserError, read_form
from authz.login.web.rendering import redirect
from authz.login.web.upstream_login import (
    AWAY,
    NOT_THIS_BROWSER,
    ErrorPage,
    PageError,
    Parts,
    Visit,
    arrive,
    aside,
    depart,
    forget,
    problem_route,
)
from authz.tokens.sealing import NotSealedError, Sealer
from authz.tokens.tickets import open_ticket, ticket_of, ticket_value

PATH: Final = "/authz/step-up"
# How long a record is kept where no rule asks for an age: a working day. A rule with an age looks
# at the record's auth_time itself, so that the longer life of the record weakens none.
LIFETIME: Final = 12 * 3600
_LONGEST_TICKET: Final = 2048  # characters: the cookie holds it with a little more
_MARGIN: Final = 60  # seconds in which the person goes back and tries again

_VISIT: Final = Visit("step-up", f"{PATH}/callback", two_factor=True)
_START: Final = "step-up"
_END: Final = "end-step-up"
_DONE: Final = "step-up-done"

_NO_TICKET: Final = ErrorPage(
    403,
    "This link has ended",
    "A link to confirm a call is good for ten minutes. Let your assistant try again: it gets a new "
    "one.",
    "no ticket",
)
_TOO_LARGE: Final = ErrorPage(
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
_ENDED: Final = ErrorPage(
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


@dataclass(frozen=True, slots=True)
class _StepUp:
    parts: Parts
    sealer: Sealer
    records: StepUps

    async def start(self, request: Request) -> Response:
        """Show what a step-up is for, and wait for a click."""
        text = request.query_params.get("ticket", "")
        try:
            ticket = self._ticket(text)
        except PageError as error:
            return self.parts.problem(request, error.problem)
        token, cookie = self.parts.browser.form_token(request, _START, {"ticket": text})
        back = f"{self.parts.origin}{PATH}?{urlencode({'ticket': text})}"
        content = {
            "ticket": ticket,
            "who": describe_ticket(ticket),
            "at": format_time(ticket.at),
            "totp": Method.OTP in ticket.need.method,
            "age": words(ticket.need.max_login_age),
            "form_token": token,
            "log_out": self.parts.upstream.log_out_url(back),
        }
        return self.parts.pages.page("step_up.html", content, set_cookie=cookie, has_form=True)

    async def click(self, request: Request) -> Response:
        """Send the person to Authelia."""
        try:
            about = self.parts.browser.check_post(request, await read_form(request), _START)
            ticket = self._ticket(str(about.get("ticket", "")))
            return await depart(
                self.parts, request, _VISIT, ticket_value(ticket), asked_age(ticket.need)
            )
        except NotThisBrowserError:
            return self.parts.problem(request, NOT_THIS_BROWSER)
        except PageError as error:
            return self.parts.problem(request, error.problem)

    async def callback(self, request: Request) -> Response:
        """Take Authelia's answer, record what it proves, and send the browser on."""
        try:
            arrived = await arrive(self.parts, request, _VISIT)
            ticket = ticket_of(arrived.kept)
            missing = missing_proof(ticket, arrived.identity, self.parts.clock())
            if missing is not None:
                self._tell("not_proved", ticket)
                response = aside(self.parts, request, missing, log_out=True)
                response.background = arrived.end
                return response
            result = await self._recorded(ticket, arrived.identity)
        except PageError as error:
            return aside(self.parts, request, error.problem)
        except UnavailableError:
            return aside(self.parts, request, AWAY)
        name = secrets.token_urlsafe(32)
        response = redirect(f"{self.parts.origin}{PATH}/done?{urlencode({'of': name})}")
        kept = {"ticket": ticket_value(ticket), **result}
        self.parts.browser.begin(response, name, kept, _DONE, request)
        response.background = arrived.end
        return forget(self.parts, request, response)

    async def done(self, request: Request) -> Response:
        """Say what was recorded."""
        try:
            kept = self.parts.browser.take(request, request.query_params.get("of", ""), _DONE)
            ticket = ticket_of(kept["ticket"])
        except (NotThisBrowserError, NotSealedError):
            return self.parts.problem(request, _ENDED)
        back = f"{self.parts.origin}{PATH}/done?{urlencode({'of': request.query_params['of']})}"
        log_out = self.parts.upstream.log_out_url(back)
        about = {name: kept["ticket"][name] for name in ("issuer", "subject", "grant", "server")}
        token, cookie = self.parts.browser.form_token(request, _END, about)
        content = {
            "ticket": ticket,
            "who": describe_ticket(ticket),
            "account": kept["account"],
            "totp": Method.OTP in Method(kept["method"]),
            "auth_time": format_time(kept["auth_time"]),
            "until": format_time(kept["until"]),
            "left": words(max(0, kept["until"] - int(self.parts.clock()))),
            "form_token": token,
            "log_out": log_out,
        }
        return self.parts.pages.page("step_up_done.html", content, set_cookie=cookie, has_form=True)

    async def end(self, request: Request) -> Response:
        """Forget what was recorded."""
        try:
            about = self.parts.browser.check_post(request, await read_form(request), _END)
            person = Person(about["issuer"], about["subject"])
            await self.records.end_step_up(StepUpKey(person, about["grant"], about["server"]))
            self.parts.tell("step_up", "ended", server=about["server"], grant=about["grant"])
        except NotThisBrowserError:
            return self.parts.problem(request, NOT_THIS_BROWSER)
        except UnavailableError:
            return self.parts.problem(request, AWAY)
        return self.parts.pages.page("step_up_ended.html", {"server": about["server"]})

    def _tell(self, outcome: str, ticket: StepUpTicket) -> None:
        self.parts.tell(
            "step_up", outcome, client=ticket.client, server=ticket.server, grant=ticket.grant
        )

    def _ticket(self, text: str) -> StepUpTicket:
        """Return the ticket of a link.

        Raises:
            PageError: where it is none for us, or one that no cookie could hold.
        """
        try:
            ticket = open_ticket(self.sealer, text)
        except NotSealedError as error:
            raise PageError(_NO_TICKET) from error
        if ticket.issuer != self.parts.issuer:
            raise PageError(_NO_TICKET)  # of another issuer's person: nobody proves it here
        if len(text) > _LONGEST_TICKET:
            raise PageError(_TOO_LARGE)
        return ticket

    async def _recorded(self, ticket: StepUpTicket, identity: LoginIdentity) -> dict[str, Any]:
        """Record what a log-in proves; return what there is to tell.

        Raises:
            UnavailableError: where it could not be recorded.
        """
        method = methods(identity.amr)
        age = ticket.need.max_login_age
        key = StepUpKey(Person(ticket.issuer, ticket.subject), ticket.grant, ticket.server)
        kept = max(LIFETIME, age or 0)
        await self.records.record_step_up(key, method, identity.auth_time, kept)
        self._tell("ok", ticket)
        until = int(self.parts.clock()) + kept if age is None else identity.auth_time + age
        return {
            "account": shown(identity.account),
            "method": int(method),
            "auth_time": identity.auth_time,
            "until": until,
        }


def routes(parts: Parts, sealer: Sealer, records: StepUps) -> list[Route]:
    """Return the routes of the step-up, and of what went wrong in a visit."""
    step_up = _StepUp(parts, sealer, records)
    return [
        Route(PATH, step_up.start, methods=["GET"]),
        Route(PATH, step_up.click, methods=["POST"]),
        Route(_VISIT.callback, step_up.callback, methods=["GET"]),
        Route(f"{PATH}/done", step_up.done, methods=["GET"]),
        Route(f"{PATH}/end", step_up.end, methods=["POST"]),
        problem_route(parts),
    ]


def describe_ticket(ticket: StepUpTicket) -> ClientDescription:
    """Return what the consent said of the client, but for what it calls itself."""
    return describe_client(
        ClientIdentity(
            name=ticket.client,
            title="",
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


def format_time(seconds: int) -> str:
    """Return a moment for people. UTC: without a script nobody here knows their time zone."""
    return time.strftime("%d %b %Y, %H:%M UTC", time.gmtime(seconds))


def words(seconds: int | None) -> str:
    """Return a length of time for people; empty for None."""
    if seconds is None:
        return ""
    for size, name in ((3600, "hour"), (60, "minute")):
        if seconds >= 2 * size or (seconds >= size and seconds % size == 0):
            count = seconds // size
            return f"{count} {name}" + ("" if count == 1 else "s")
    return f"{seconds} second" + ("" if seconds == 1 else "s")
