"""The OAuth endpoints: token, revocation, registration, metadata.

Answers are JSON, never cached, and readable from any origin without cookies. The client is checked
before any other parameter is looked at (RFC 6749, section 5.2): it is public, or authenticates with
a key that its metadata document publishes.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from authz.core.ledger import UnavailableError
from authz.login.protocol.issued import Issued, token_response
from authz.login.protocol.parameters import read_parameters
from authz.login.protocol.values import OAuthError
from authz.login.service import ports
from authz.login.service.client_authentication import ClientAuthenticator, ClientRequest
from authz.login.service.code_exchange import CodeExchange
from authz.login.service.refresh import TokenRefresh
from authz.login.service.revocation import TokenRevocation
from authz.login.web import paths
from authz.login.web.error_pages import ErrorPage, PageError
from authz.login.web.requests import address_of, content_type, read_body, set_attempt

_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"
_ORIGINS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "retry-after, www-authenticate",
    "X-Content-Type-Options": "nosniff",
}
_PREFLIGHT: Final = {
    "Access-Control-Allow-Headers": "accept, authorization, content-type, mcp-protocol-version",
    "Access-Control-Max-Age": "7200",
}
# RFC 6749, section 5.1.
_NOT_KEPT: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_A_MINUTE: Final = {"Cache-Control": "public, max-age=60"}
_CREATED: Final = 201
_UNAUTHORIZED: Final = 401
_AWAY: Final = 503

# Whose errors are JSON, whatever goes wrong.
JSON_PATHS: Final = frozenset({paths.TOKEN, paths.REVOKE, paths.REGISTER})
_ERRORS: Final = {
    429: "temporarily_unavailable",
    503: "temporarily_unavailable",
    500: "server_error",
}

Members = Mapping[str, object]
Handler = Callable[[Request], Awaitable[Response]]


class OAuthEndpoints:
    """Answer clients."""

    def __init__(
        self,
        metadata: Members,
        *,
        authenticator: ClientAuthenticator,
        exchange: CodeExchange,
        refresh: TokenRefresh,
        revocation: TokenRevocation,
        registrar: ports.ClientRegistrar,
        clock: Callable[[], float],
        log: ports.StepLog,
    ) -> None:
        self._metadata = metadata
        self._authenticator = authenticator
        self._exchange = exchange
        self._refresh = refresh
        self._revocation = revocation
        self._registrar = registrar
        self._clock = clock
        self._log = log

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            self._route(paths.TOKEN, self.token, "POST"),
            self._route(paths.REVOKE, self.revoke, "POST"),
            self._route(paths.REGISTER, self.register, "POST"),
            self._route(paths.METADATA, self.metadata, "GET"),
        ]

    async def token(self, request: Request) -> Response:
        """Give tokens (RFC 6749, section 3.2)."""
        found = await self._form(request, "token")
        issued = await self._issued(found, _address(request))
        return _answered(token_response(issued, self._clock()))

    async def revoke(self, request: Request) -> Response:
        """End a token (RFC 7009)."""
        parameters, authenticated = await self._form(request, "revoke")
        await self._revocation.revoke(parameters, authenticated=authenticated)
        return _answered({})

    async def register(self, request: Request) -> Response:
        """Register a client (RFC 7591, section 3.1)."""
        if content_type(request) != _JSON:
            raise OAuthError("invalid_client_metadata", "the metadata has to be JSON")
        try:
            answer = self._registrar.register(await read_body(request))
        except OAuthError as error:
            self._log("register", error.error, detail=error.description)
            raise
        set_attempt(str(answer.get("client_id", "")))
        self._log("register", "ok")
        return _answered(answer, _CREATED)

    async def metadata(self, request: Request) -> Response:  # noqa: ARG002 - one for all
        """Say what there is (RFC 8414)."""
        return JSONResponse(self._metadata, headers=_ORIGINS | _A_MINUTE)

    def _route(self, path: str, handler: Handler, method: str) -> Route:
        async def answer(request: Request) -> Response:
            if request.method == "OPTIONS":
                allowed = {"Access-Control-Allow-Methods": f"{method}, OPTIONS"}
                return Response(status_code=204, headers=_ORIGINS | _PREFLIGHT | allowed)
            try:
                return await handler(request)
            except OAuthError as error:
                body = {"error": error.error, "error_description": error.description}
                return JSONResponse(body, error.status, _ORIGINS | _NOT_KEPT | error.headers)
            except UnavailableError as error:
                detail = f"{error.dependency}: {error.detail}"
                self._log(path.removeprefix("/"), "unavailable", detail=detail)
                return _unavailable(error)

        return Route(path, answer, methods=[method, "OPTIONS"])

    async def _form(self, request: Request, step: str) -> ClientRequest:
        """Return the parameters of a request whose client is known here.

        A program that is told `invalid_client` registers anew by itself (the official TypeScript
        client does). With `invalid_grant` it would come again and again with an id that a new
        sealing key, for one, has ended.

        Raises:
            OAuthError: `invalid_client` for a client that is not known, or that does not
                authenticate as it has to; `invalid_request` where it is no form, names no client,
                or has a parameter twice.
            TooManyRequestsError: where strangers' hosts would be asked too often.
            UnavailableError: where Redis does not answer.
        """
        if content_type(request) != _FORM:
            raise OAuthError("invalid_request", "the body has to be a form")
        body = await read_body(request)
        parameters = read_parameters(body.decode("latin-1"))
        set_attempt(parameters.get("client_id") or "")
        if "authorization" in request.headers:
            headers = {"WWW-Authenticate": 'Basic realm="authz"'}
            raise OAuthError("invalid_client", _NO_SECRETS, _UNAUTHORIZED, headers)
        try:
            found = await self._authenticator.authenticate(parameters, partial(_address, request))
        except OAuthError as error:
            self._log(step, error.error, detail=error.description)
            raise
        found.parameters.check_repeated()
        return found

    async def _issued(self, found: ClientRequest, address: str) -> Issued:
        parameters, authenticated = found
        match parameters.needed("grant_type"):
            case "authorization_code":
                return await self._exchange.exchange(parameters, authenticated=authenticated)
            case "refresh_token":
                return await self._refresh.refresh(parameters, address, authenticated=authenticated)
        raise OAuthError("unsupported_grant_type", "only codes and refresh tokens are taken")


_NO_SECRETS: Final = "no client has a secret here: send client_id alone, or a client_assertion"


def _address(request: Request) -> str:
    """Return the address of who asks.

    Raises:
        OAuthError: where Envoy did not write one.
    """
    try:
        return address_of(request)
    except PageError as error:
        raise OAuthError("invalid_request", "not through the gateway") from error


def _unavailable(away: UnavailableError) -> Response:
    """Return the answer where something did not answer: try again, nothing was decided."""
    body = {
        "error": "temporarily_unavailable",
        "error_description": "something that the gateway needs does not answer",
    }
    wait = "1" if away.dependency == "redis" else "5"
    return JSONResponse(body, _AWAY, _ORIGINS | _NOT_KEPT | {"Retry-After": wait})


def json_error(problem: ErrorPage) -> Response:
    """Return a problem as programs read it (RFC 6749, section 5.2)."""
    body = {
        "error": _ERRORS.get(problem.status, "invalid_request"),
        "error_description": problem.happened,
    }
    return JSONResponse(body, problem.status, _ORIGINS | _NOT_KEPT)


def _answered(answer: Members, status: int = 200) -> Response:
    return JSONResponse(dict(answer), status, _ORIGINS | _NOT_KEPT)
