"""A log-in at Authelia through this browser: begun by a click on our page, finished once.

The front door, step-ups and the page of a person's own sessions all log people in through here.

Invariant: a log-in is finished only in the browser that began it, by the configured issuer's answer
to this very request (state, nonce and PKCE of its own; RFC 9207), and once.
"""

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar, Final, Generic, Protocol, TypeVar

from pydantic import ConfigDict
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from authz.core.browser_session import BrowserSession
from authz.core.ledger import UnavailableError
from authz.core.second_factor import methods
from authz.login.protocol.members import STRICT, MembersCodec
from authz.login.protocol.parameters import read_parameters
from authz.login.protocol.values import (
    LoginIdentity,
    OAuthError,
    UpstreamAuthorizationRequest,
    UpstreamError,
    UpstreamLogin,
)
from authz.login.service import ports
from authz.login.service.rate_limits import APPROVALS, LoginRateLimiter
from authz.login.web import error_pages
from authz.login.web.cookies import (
    BrowserCookies,
    CookieTooLargeError,
    NotThisBrowserError,
    Purpose,
)
from authz.login.web.error_pages import PageError
from authz.login.web.rendering import Pages
from authz.login.web.requests import address_of

T = TypeVar("T")


class UsedStates(Protocol):
    """Remember which log-ins have come back (`authz.login.store.codes.StateStore`)."""

    async def use(self, state: str) -> bool:
        """Use a state up; tell whether this was the first time, or raise UnavailableError."""
        ...


class PeopleRecorder(Protocol):
    """Record who has logged in (`authz.login.store.people.PeopleStore`)."""

    async def keep(self, who: LoginIdentity) -> None:
        """Record a person, or raise UnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class PendingLogin(Generic[T]):
    """What the browser's cookie holds of a log-in while the person is at Authelia.

    Attributes:
        nonce, verifier: of this log-in.
        context: what the log-in is for.
    """

    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    context: T


@dataclass(frozen=True, slots=True)
class _LoginSecrets:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    nonce: str
    verifier: str


_LOGIN_SECRETS: Final = MembersCodec(_LoginSecrets)


@dataclass(frozen=True, slots=True)
class LoginKind(Generic[T]):
    """One kind of log-in.

    Attributes:
        callback: the path that Authelia sends the browser back to.
        cookie: for what the browser keeps meanwhile.
    """

    callback: str
    cookie: Purpose[PendingLogin[T]]


def login_kind(
    name: str,
    callback: str,
    encode: Callable[[T], Mapping[str, object]],
    decode: Callable[[Mapping[str, object]], T],
) -> LoginKind[T]:
    """Return a kind of log-in whose context is sealed beside nonce and verifier."""

    def encode_login(login: PendingLogin[T]) -> Mapping[str, object]:
        own = _LOGIN_SECRETS.write(_LoginSecrets(login.nonce, login.verifier))
        return {**own, **encode(login.context)}

    def decode_login(members: Mapping[str, object]) -> PendingLogin[T]:
        names = ("nonce", "verifier")
        own = _LOGIN_SECRETS.read({name: members[name] for name in names if name in members})
        context = {name: members[name] for name in members.keys() - set(names)}
        return PendingLogin(own.nonce, own.verifier, decode(context))

    return LoginKind(callback, Purpose(name, encode_login, decode_login))


@dataclass(frozen=True, slots=True)
class AcceptedResponse(Generic[T]):
    """An authorization response (RFC 6749, section 4.1.2) that counts: of this browser, and new.

    Attributes:
        state: of the log-in.
        login: what the browser kept of it.
        code, error: what the response says.
    """

    state: str = field(repr=False)
    login: PendingLogin[T]
    code: str | None = field(repr=False)
    error: str | None


class BrowserLogins:
    """Send browsers to Authelia, and take its responses.

    Attributes:
        identity_scopes: to ask for where only the person matters.
    """

    def __init__(
        self,
        *,
        origin: str,
        upstream: ports.Upstream,
        cookies: BrowserCookies,
        pages: Pages,
        states: UsedStates,
        people: PeopleRecorder,
        limiter: LoginRateLimiter,
        identity_scopes: frozenset[str],
    ) -> None:
        """Take the gateway's origin, as browsers send it, and the parts."""
        self.identity_scopes: Final = identity_scopes
        self._origin = origin
        self._upstream = upstream
        self._cookies = cookies
        self._pages = pages
        self._states = states
        self._people = people
        self._limiter = limiter

    def check_rate(self, request: Request) -> None:
        """Count a click that is to begin a log-in; call it before anybody is asked anything.

        Raises:
            TooManyRequestsError: where this address has begun too many.
        """
        self._limiter.check(APPROVALS, address_of(request))

    async def begin(
        self,
        request: Request,
        kind: LoginKind[T],
        context: T,
        *,
        two_factor: bool,
        scopes: frozenset[str],
        resource: str | None = None,
        max_age: int | None = None,
    ) -> Response:
        """Push an authorization request (RFC 9126); return the page that leads to Authelia.

        Args:
            request: a click, checked.
            kind: of log-in.
            context: what `accept` gives back.
            two_factor: this and what follows as of `UpstreamAuthorizationRequest`.
            scopes: `openid` among them.
            resource: None for a log-in that is for no server.
            max_age: seconds.

        Raises:
            PageError: where the context does not fit into a cookie.
            UpstreamError: where Authelia answers with an OAuth error.
            UnavailableError: where it gives no usable answer.
        """
        address = address_of(request)
        pushed = UpstreamAuthorizationRequest(
            two_factor=two_factor,
            redirect_uri=self._origin + kind.callback,
            scopes=scopes,
            resource=resource,
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(32),
            max_age=max_age,
        )
        response = self._pages.go_on(await self._upstream.push(pushed, address))
        login = PendingLogin(pushed.nonce, pushed.verifier, context)
        try:
            self._cookies.keep(request, response, pushed.state, kind.cookie, login)
        except CookieTooLargeError as error:
            raise PageError(error_pages.TOO_LARGE) from error
        return response

    async def accept(self, request: Request, kind: LoginKind[T]) -> AcceptedResponse[T]:
        """Return Authelia's response to a log-in that this browser began; each counts once.

        Raises:
            PageError: where it is none, or was used before.
            UnavailableError: where Redis does not answer.
        """
        try:
            parameters = read_parameters(request.scope["query_string"].decode("latin-1"))
            parameters.check_repeated()
            state = parameters.needed("state")
        except OAuthError as error:
            raise PageError(error_pages.MALFORMED_ANSWER) from error
        try:
            login = self._cookies.read(request, state, kind.cookie)
        except NotThisBrowserError as error:
            end = self._cookies.login_end(request, state)
            raise PageError(error_pages.not_pending(end)) from error
        try:
            # RFC 9207, section 2.4: before anything else of the answer is believed, errors too.
            self._upstream.check_iss(parameters.get("iss"))
        except UpstreamError as error:
            raise PageError(error_pages.FOREIGN) from error
        if not await self._states.use(state):
            raise PageError(error_pages.USED)
        return AcceptedResponse(state, login, parameters.get("code"), parameters.get("error"))

    async def redeem(
        self,
        request: Request,
        kind: LoginKind[T],
        response: AcceptedResponse[T],
        *,
        two_factor: bool,
    ) -> UpstreamLogin:
        """Exchange the code of a response; return who logged in, by a verified ID token.

        Who that is is recorded, so that operators can name the person (`authz revoke --user`).

        Raises:
            UpstreamError: where Authelia answers with an OAuth error, or the code or the tokens are
                of another log-in.
            UnavailableError: where it gives no usable answer, or Redis none.
        """
        login = await self._upstream.exchange(
            two_factor=two_factor,
            code=response.code or "",
            verifier=response.login.verifier,
            redirect_uri=self._origin + kind.callback,
            nonce=response.login.nonce,
            address=address_of(request),
        )
        await self._people.keep(login.identity)
        return login

    async def revoke(self, token: str, address: str, *, two_factor: bool) -> None:
        """Revoke tokens that nobody will use (RFC 7009); they end soon anyway: one try will do."""
        with suppress(UpstreamError, UnavailableError):
            await self._upstream.revoke(two_factor=two_factor, token=token, address=address)


@dataclass(frozen=True, slots=True)
class IdentifiedPerson(Generic[T]):
    """What a finished `IdentityLogin` tells.

    Attributes:
        state: of the log-in.
        context: what `begin` was given.
        identity: who logged in, and how.
        revocation: ends the tokens at Authelia: the background of the answer.
        access_token: Authelia's, of this log-in.
        expires_at: of that token, seconds since the epoch.
    """

    state: str = field(repr=False)
    context: T
    identity: LoginIdentity
    revocation: BackgroundTask
    access_token: str = field(repr=False)
    expires_at: int


def session_of_login(
    found: IdentifiedPerson[T], now: int, until: int, *, two_factor: bool
) -> BrowserSession:
    """Return the session of a browser that has just logged in with the scope `groups`.

    Args:
        found: who logged in. Its token is not to be revoked where a session begins.
        now: its first second, seconds since the epoch.
        until: the one in which it ends by itself.
        two_factor: whether it was by our client that asks for a second factor.
    """
    identity = found.identity
    return BrowserSession(
        subject=identity.subject,
        account=identity.account,
        groups=identity.groups,
        method=methods(identity.amr),
        auth_time=identity.auth_time,
        began=now,
        until=until,
        groups_at=now,
        token=found.access_token,
        token_until=found.expires_at,
        two_factor=two_factor,
        name=identity.name,
        email=identity.email,
    )


class IdentityLogin(Generic[T]):
    """Log a person in only to learn who it is; whoever asks ends the tokens (`revocation`)."""

    def __init__(
        self, logins: BrowserLogins, kind: LoginKind[T], *, two_factor: bool, groups: bool = False
    ) -> None:
        """Take the log-ins, the kind, as which of our clients to ask, and whether for groups.

        For groups both clients need the scope at Authelia (`authelia.front_door`).
        """
        self._logins = logins
        self._kind = kind
        self._two_factor = two_factor
        self._scopes = logins.identity_scopes | ({"groups"} if groups else frozenset())

    async def begin(self, request: Request, context: T, max_age: int | None = None) -> Response:
        """Send the browser to Authelia, after a click that was checked.

        Raises:
            PageError: where Authelia does not take the request.
            TooManyRequestsError: where this address has begun too many.
        """
        self._logins.check_rate(request)
        try:
            return await self._logins.begin(
                request,
                self._kind,
                context,
                two_factor=self._two_factor,
                scopes=self._scopes,
                max_age=max_age,
            )
        except UpstreamError as error:
            raise PageError(error_pages.REFUSED) from error
        except UnavailableError as error:
            raise PageError(error_pages.AWAY) from error

    async def finish(self, request: Request) -> IdentifiedPerson[T]:
        """Return who logged in.

        Raises:
            PageError: where this is no answer of Authelia to a log-in of this browser, or it says
                that nobody logged in.
        """
        try:
            response = await self._accept(request)
            if response.error is not None:
                denied = response.error == "access_denied"
                raise PageError(error_pages.DENIED if denied else error_pages.REFUSED)
            found = await self._logins.redeem(
                request, self._kind, response, two_factor=self._two_factor
            )
        except UpstreamError as error:
            raise PageError(error_pages.REFUSED) from error
        except UnavailableError as error:
            raise PageError(error_pages.AWAY) from error
        revocation = BackgroundTask(
            self._logins.revoke,
            found.tokens.access_token,
            address_of(request),
            two_factor=self._two_factor,
        )
        return IdentifiedPerson(
            response.state,
            response.login.context,
            found.identity,
            revocation,
            found.tokens.access_token,
            found.tokens.expires_at,
        )

    async def _accept(self, request: Request) -> AcceptedResponse[T]:
        try:
            return await self._logins.accept(request, self._kind)
        except PageError as error:
            # Without a state of its own it belongs to nothing that was begun here.
            if error.page is error_pages.MALFORMED_ANSWER:
                raise PageError(error_pages.NOT_THIS_BROWSER) from error
            raise
