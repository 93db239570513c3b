"""A person's own sessions: which applications are connected in their name, and the end of each.

The same page shows, and ends, what these may do after a step-up or an approval, and what they did.

Invariant: a person sees and ends what is theirs, after a log-in at Authelia of the last ten
minutes, in this browser; nobody else's grant, step-up or approval is ever shown, named or ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final, Protocol

from pydantic import ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.core.principal import Person
from authz.login.protocol.members import STRICT
from authz.login.protocol.values import ClientIdentity
from authz.login.service import ports
from authz.login.web.client_description import ClientDescription, describe_client, shown
from authz.login.web.cookies import (
    BrowserCookies,
    NotThisBrowserError,
    empty_purpose,
    purpose,
    read_form,
)
from authz.login.web.error_pages import ErrorResponder, PageError
from authz.login.web.rendering import Pages, redirect
from authz.login.web.upstream_login import BrowserLogins, IdentityLogin, login_kind

PATH: Final = "/authz/log-ins"
_LATELY: Final = 20  # operations that the page shows


@dataclass(frozen=True, slots=True)
class SignedInPerson:
    """Who looks at the page, as a cookie holds it.

    Attributes:
        subject: of the log-in.
        account: what the person is called; for the page.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    subject: str
    account: str


@dataclass(frozen=True, slots=True)
class _GrantOfPerson:
    """A grant, and whose: what the form is about that ends it."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    grant: str
    subject: str


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


@dataclass(frozen=True, slots=True)
class OwnOperation:
    """Describe one operation in a person's name, for that person.

    Attributes:
        time: seconds since the epoch.
        grant: of which log-in; empty for a client that logs in at the issuer.
        client: as rules call it.
        server: the server's name.
        what: the tool, prompt or resource; empty where there is none.
        method: the MCP method.
        allowed: whether it was let through.
    """

    time: int
    grant: str
    client: str
    server: str
    what: str
    method: str
    allowed: bool


class ProofKind(Enum):
    """Say what a person proved or approved."""

    STEP_UP = "step_up"
    TOOL = "tool"  # a tool, for a time
    CALL = "call"  # one exact call, once


@dataclass(frozen=True, slots=True)
class ProofId:
    """Name a step-up or an approval among those of one person.

    Attributes:
        kind: which of them.
        grant: of which log-in; for a client of `login: direct` its client id.
        server: the server's name.
        approval: the name of the approval; empty for a step-up.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    kind: ProofKind
    grant: str
    server: str
    approval: str = ""


@dataclass(frozen=True, slots=True)
class OwnProof:
    """Describe a step-up or an approval that is live, for its person.

    Attributes:
        id: what ends it.
        client: as rules call it.
        server: the server's name.
        since: of the log-in or the click, seconds since the epoch.
        tool: what was approved; empty for a step-up.
        until: when an approval ends by itself; 0 for a step-up: each rule asks an age of its own.
    """

    id: ProofId
    client: str
    server: str
    since: int
    tool: str = ""
    until: int = 0

    @property
    def once(self) -> bool:
        """Tell whether it is for one call."""
        return self.id.kind is ProofKind.CALL


class OwnProofs(Protocol):
    """Where a person's step-ups and approvals are kept; all may raise UnavailableError."""

    async def of(self, person: Person, grants: Sequence[OwnGrant]) -> Sequence[OwnProof]:
        """Return those that are live, of the person's grants and of direct clients."""

    async def end(self, person: Person, proof: ProofId) -> None:
        """End one of them."""


class OwnActivity(Protocol):
    """Where a person's latest operations are kept."""

    async def lately(self, person: Person) -> Sequence[OwnOperation]:
        """Return what was done lately, newest first; nothing where that cannot be read."""


class OwnGrants(Protocol):
    """Where grants are kept."""

    async def of(self, person: Person) -> Sequence[OwnGrant]:
        """Return a person's grants.

        Raises:
            UnavailableError: where they cannot be read.
        """

    async def end(self, person: Person, grant: str) -> None:
        """End one of a person's grants, upstream too; nothing where it is not that person's.

        Raises:
            UnavailableError: where it may live on.
        """


@dataclass(frozen=True, slots=True)
class _ProofOfPerson:
    """A step-up or an approval, and whose: what the form is about that ends it."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    proof: ProofId
    subject: str


_LOGIN: Final = login_kind("log-ins", f"{PATH}/callback", lambda _: {"kept": {}}, lambda _: None)
_LOG_IN_FORM: Final = empty_purpose("log-ins")
_END_FORM: Final = purpose("end-grant", _GrantOfPerson)
_END_PROOF_FORM: Final = purpose("end-proof", _ProofOfPerson)
_SIGN_OUT_FORM: Final = empty_purpose("leave")
_SESSION: Final = purpose("log-ins-session", SignedInPerson, is_page=True)
_SESSION_KEY: Final = "log-ins-session"


@dataclass(frozen=True, slots=True)
class _ListedGrant:
    """A grant as the page shows it."""

    grant: OwnGrant
    who: ClientDescription
    used: int | None  # when last, as far as that is still known
    form_token: str


@dataclass(frozen=True, slots=True)
class _ListedProof:
    """A step-up or an approval as the page shows it."""

    proof: OwnProof
    form_token: str


class SessionEndpoints:
    """Show a person's grants, step-ups and approvals, and end them."""

    def __init__(
        self,
        *,
        origin: str,
        issuer: str,
        logins: BrowserLogins,
        cookies: BrowserCookies,
        pages: Pages,
        errors: ErrorResponder,
        grants: OwnGrants,
        activity: OwnActivity,
        proofs: OwnProofs,
        log: ports.StepLog = lambda *_, **__: None,
    ) -> None:
        """Take the gateway's origin, the issuer as tokens name it, and the parts."""
        self._url = origin + PATH
        self._issuer = issuer
        self._login = IdentityLogin(logins, _LOGIN, two_factor=False)
        self._cookies = cookies
        self._pages = pages
        self._errors = errors
        self._grants = grants
        self._activity = activity
        self._proofs = proofs
        self._log = log

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(PATH, self.show, methods=["GET"]),
            Route(PATH, self.log_in, methods=["POST"]),
            Route(_LOGIN.callback, self.callback, methods=["GET"]),
            Route(f"{PATH}/end", self.end, methods=["POST"]),
            Route(f"{PATH}/end-proof", self.end_proof, methods=["POST"]),
            Route(f"{PATH}/leave", self.sign_out, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Show a person's grants, or the way to log in."""
        session = self._session(request)
        if session is None:
            token, cookie = self._cookies.form_token(request, _LOG_IN_FORM, None)
            content = {"form_token": token}
            return self._pages.page("log_in.html", content, set_cookie=cookie, has_form=True)
        person = Person(self._issuer, session.subject)
        grants = await self._grants.of(person)
        proofs = await self._proofs.of(person, grants)
        lately = await self._activity.lately(person)
        used = {each.grant: each.time for each in reversed(lately)}
        newest_first = sorted(grants, key=lambda grant: grant.began, reverse=True)
        token, cookie = self._cookies.form_token(request, _SIGN_OUT_FORM, None)
        shown_grants: Mapping[str, object] = {
            "account": session.account,
            "grants": [
                self._row(request, session, grant, used.get(grant.grant)) for grant in newest_first
            ],
            "proofs": [self._proof_row(request, session, each) for each in proofs],
            "lately": lately[:_LATELY],
            "sign_out_token": token,
        }
        return self._pages.page(
            "log_ins.html", shown_grants, set_cookie=cookie, has_form=True, has_times=True
        )

    async def log_in(self, request: Request) -> Response:
        """Send the person to Authelia, after a click."""
        self._cookies.check_post(request, await read_form(request), _LOG_IN_FORM)
        return await self._login.begin(request, None)

    async def callback(self, request: Request) -> Response:
        """Take Authelia's response."""
        try:
            found = await self._login.finish(request)
        except PageError as error:
            return self._errors.redirect_to_error(request, error.page)
        response = redirect(self._url)
        session = SignedInPerson(found.identity.subject, shown(found.identity.account))
        self._cookies.keep(request, response, _SESSION_KEY, _SESSION, session)
        response.background = found.revocation
        self._cookies.end_login(request, response, found.state)
        return response

    async def end(self, request: Request) -> Response:
        """End one of the person's grants."""
        wanted = self._cookies.check_post(request, await read_form(request), _END_FORM)
        person = self._owner(request, wanted.subject)
        if person is not None:
            await self._grants.end(person, wanted.grant)
        return redirect(self._url)

    async def end_proof(self, request: Request) -> Response:
        """End one of the person's step-ups or approvals."""
        wanted = self._cookies.check_post(request, await read_form(request), _END_PROOF_FORM)
        person, proof = self._owner(request, wanted.subject), wanted.proof
        if person is not None:
            await self._proofs.end(person, proof)
            step = "step_up" if proof.kind is ProofKind.STEP_UP else "approval"
            self._log(step, "ended", server=proof.server, grant=proof.grant, subject=person.subject)
        return redirect(self._url)

    async def sign_out(self, request: Request) -> Response:
        """Forget who looked, in this browser."""
        self._cookies.check_post(request, await read_form(request), _SIGN_OUT_FORM)
        response = redirect(self._url)
        self._cookies.forget(response, _SESSION_KEY, _SESSION)
        return response

    def _session(self, request: Request) -> SignedInPerson | None:
        try:
            return self._cookies.read(request, _SESSION_KEY, _SESSION)
        except NotThisBrowserError:
            return None

    def _owner(self, request: Request, subject: str) -> Person | None:
        """Return the person a form is of; None where another has logged in here meanwhile."""
        session = self._session(request)
        if session is not None and session.subject == subject:
            return Person(self._issuer, subject)
        return None

    def _proof_row(
        self, request: Request, session: SignedInPerson, proof: OwnProof
    ) -> _ListedProof:
        about = _ProofOfPerson(proof.id, session.subject)
        token, _ = self._cookies.form_token(request, _END_PROOF_FORM, about)
        return _ListedProof(proof, token)

    def _row(
        self, request: Request, session: SignedInPerson, grant: OwnGrant, used: int | None
    ) -> _ListedGrant:
        about = _GrantOfPerson(grant.grant, session.subject)
        token, _ = self._cookies.form_token(request, _END_FORM, about)
        return _ListedGrant(grant, describe_client(grant.client), used, token)
