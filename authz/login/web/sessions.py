"""One's own log-ins: which applications are connected in a person's name, each with its end.

Law: a person sees and ends what is theirs, after a log-in at Authelia of the last ten minutes, in
this browser; nobody else's log-in is ever shown, named or ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.core.ledger import UnavailableError
from authz.core.principal import Person
from authz.login.protocol.values import ClientIdentity
from authz.login.web.client_description import describe_client, shown
from authz.login.web.cookies import NotThisBrowserError, read_form
from authz.login.web.rendering import redirect
from authz.login.web.step_up import format_time
from authz.login.web.upstream_login import (
    AWAY,
    NOT_THIS_BROWSER,
    PageError,
    Parts,
    Visit,
    arrive,
    aside,
    depart,
    forget,
)

PATH: Final = "/authz/log-ins"

_VISIT: Final = Visit("log-ins", f"{PATH}/callback", two_factor=False)
_START: Final = "log-ins"
_END: Final = "end-grant"
_LEAVE: Final = "leave"
_SESSION: Final = "log-ins-session"


@dataclass(frozen=True, slots=True)
class OwnGrant:
    """Describe one consent of a person's, for that person.

    Attributes:
        grant: its id.
        client: what the client was at the consent.
        server: the server's name.
        scopes: what was consented to.
        began: when, seconds since the epoch.
        ends: when it ends by itself.
    """

    grant: str
    client: ClientIdentity
    server: str
    scopes: tuple[str, ...]
    began: int
    ends: int


class OwnGrants(Protocol):
    """Where grants are kept."""

    async def of(self, person: Person) -> Sequence[OwnGrant]:
        """Return a person's grants.

        Raises:
            UnavailableError: where they cannot be read.
        """

    async def end(self, person: Person, grant: str, address: str) -> None:
        """End one of a person's grants, upstream too; nothing where it is not that person's.

        Raises:
            UnavailableError: where it may live on.
        """


@dataclass(frozen=True, slots=True)
class _OwnLogIns:
    parts: Parts
    grants: OwnGrants

    async def show(self, request: Request) -> Response:
        """Show a person's log-ins, or the way to log in."""
        session = self._session(request)
        if session is None:
            token, cookie = self.parts.browser.form_token(request, _START)
            return self.parts.pages.page(
                "log_in.html",
                {"form_token": token},
                set_cookie=cookie,
                has_form=True,
            )
        person = Person(self.parts.issuer, session["subject"])
        try:
            grants = await self.grants.of(person)
        except UnavailableError:
            return self.parts.problem(request, AWAY)
        leave, cookie = self.parts.browser.form_token(request, _LEAVE)
        content = {
            "account": session["account"],
            "grants": [self._row(request, person, grant) for grant in _newest_first(grants)],
            "leave_token": leave,
        }
        return self.parts.pages.page("log_ins.html", content, set_cookie=cookie, has_form=True)

    async def log_in(self, request: Request) -> Response:
        """Send the person to Authelia, after a click."""
        try:
            self.parts.browser.check_post(request, await read_form(request), _START)
            return await depart(self.parts, request, _VISIT, {})
        except NotThisBrowserError:
            return self.parts.problem(request, NOT_THIS_BROWSER)
        except PageError as error:
            return self.parts.problem(request, error.problem)

    async def callback(self, request: Request) -> Response:
        """Take Authelia's answer."""
        try:
            arrived = await arrive(self.parts, request, _VISIT)
        except PageError as error:
            return aside(self.parts, request, error.problem)
        response = redirect(self.parts.origin + PATH)
        found = arrived.identity
        session = {"subject": found.subject, "account": shown(found.account)}
        self.parts.browser.begin(response, _SESSION, session, _SESSION, request)
        response.background = arrived.end
        return forget(self.parts, request, response)

    async def end(self, request: Request) -> Response:
        """End one of the person's log-ins."""
        try:
            about = self.parts.browser.check_post(request, await read_form(request), _END)
            session = self._session(request)
            # The form names whose it is: in the meantime another may have logged in here.
            if session is None or session["subject"] != about["subject"]:
                return redirect(self.parts.origin + PATH)
            person = Person(self.parts.issuer, session["subject"])
            await self.grants.end(person, about["grant"], self.parts.address(request))
        except NotThisBrowserError:
            return self.parts.problem(request, NOT_THIS_BROWSER)
        except UnavailableError:
            return self.parts.problem(request, AWAY)
        return redirect(self.parts.origin + PATH)

    async def leave(self, request: Request) -> Response:
        """Forget who looked, in this browser."""
        try:
            self.parts.browser.check_post(request, await read_form(request), _LEAVE)
        except NotThisBrowserError:
            return self.parts.problem(request, NOT_THIS_BROWSER)
        response = redirect(self.parts.origin + PATH)
        self.parts.browser.forget(response, _SESSION)
        return response

    def _session(self, request: Request) -> Mapping[str, Any] | None:
        try:
            return self.parts.browser.take(request, _SESSION, _SESSION)
        except NotThisBrowserError:
            return None

    def _row(self, request: Request, person: Person, grant: OwnGrant) -> Mapping[str, Any]:
        about = {"grant": grant.grant, "subject": person.subject}
        token, _ = self.parts.browser.form_token(request, _END, about)
        return {
            "grant": grant,
            "who": describe_client(grant.client),
            "began": format_time(grant.began),
            "ends": format_time(grant.ends),
            "form_token": token,
        }


def routes(parts: Parts, grants: OwnGrants) -> list[Route]:
    """Return the routes of one's own log-ins."""
    own = _OwnLogIns(parts, grants)
    return [
        Route(PATH, own.show, methods=["GET"]),
        Route(PATH, own.log_in, methods=["POST"]),
        Route(_VISIT.callback, own.callback, methods=["GET"]),
        Route(f"{PATH}/end", own.end, methods=["POST"]),
        Route(f"{PATH}/leave", own.leave, methods=["POST"]),
    ]


def _newest_first(grants: Sequence[OwnGrant]) -> Sequence[OwnGrant]:
    return sorted(grants, key=lambda grant: grant.began, reverse=True)
