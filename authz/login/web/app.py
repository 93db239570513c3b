"""The pages as one ASGI application: routes, and what becomes of whatever goes wrong in them.

Invariant: no exception leaves it, and no page, header or log line tells what one says; what is not
a route is not there. What one network has under way is bounded, so that none holds all there is.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authz.core.answers import TRACEPARENT
from authz.core.ledger import UnavailableError
from authz.core.limits import network
from authz.login.service.rate_limits import TooManyRequestsError
from authz.login.web import error_pages
from authz.login.web.cookies import NotThisBrowserError
from authz.login.web.error_pages import ErrorPage, ErrorResponder, PageError
from authz.login.web.oauth_endpoints import JSON_PATHS, json_error
from authz.login.web.paths import is_callback
from authz.login.web.rendering import request_id
from authz.login.web.requests import NETWORK, REQUEST_ID, begin_request
from authz.telemetry.recorder import Recorder
from authz.telemetry.request_spans import begin_trace, end_trace

# Requests under way from one address, of the 512 that the server takes (`serve`): the others are
# for others. A body that never comes is one for ten seconds, and so is a wait for Authelia.
EACH: Final = 128
_AGAIN: Final = 5  # seconds
# What ends a log-in that may have been good: shown away from its address, which holds a code.
_REDIRECTED: Final = (error_pages.AWAY, error_pages.BROKEN, error_pages.TOO_MANY)


class LoginApp:
    """Serve one configuration."""

    def __init__(self, routes: Sequence[Route], errors: ErrorResponder, recorder: Recorder) -> None:
        """Take the routes, what shows error pages, and where defects are recorded."""
        self._errors = errors
        self._recorder = recorder
        self._under_way = Counter[str]()
        self._paths = frozenset(route.path for route in routes if not route.param_convertors)
        # No redirects to paths with or without a slash: they would be made of the Host header.
        self._router: ASGIApp = Router(routes, redirect_slashes=False, default=self._missing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        begin_request(request_id(request), network(request.headers.get("x-forwarded-for", "")))
        tracer = self._recorder.tracer
        if tracer is None:
            await self._serve(request, scope, receive, send)
            return
        trace = begin_trace(tracer, request.headers.getlist(TRACEPARENT))
        status = 0

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._serve(request, scope, receive, watching)
        finally:
            end_trace(tracer, trace, request.method, self._route(scope["path"]), status)

    async def _serve(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # without it, a route answers errors itself instead of raising them
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            with self._counted():
                await self._router(scope, receive, sending)
        except Exception as error:  # noqa: BLE001 - the invariant above
            response = self._explain(request, error)
            if not begun:
                await response(scope, receive, send)

    def _route(self, path: str) -> str:
        """Return a path as it is declared; empty where no route is it to the letter."""
        return path if path in self._paths else ""

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a request while it is under way.

        Raises:
            TooManyRequestsError: where its network has too many.
        """
        whose = NETWORK.get()
        if self._under_way[whose] >= EACH:
            raise TooManyRequestsError(_AGAIN)
        self._under_way[whose] += 1
        try:
            yield
        finally:
            self._under_way[whose] -= 1
            if not self._under_way[whose]:
                del self._under_way[whose]

    def _explain(self, request: Request, error: Exception) -> Response:
        page, headers = self._page(error)
        if request.scope["path"] in JSON_PATHS:  # not `url`, which decodes a query of any bytes
            response = json_error(page)
        elif page in _REDIRECTED and is_callback(request.scope["path"]):
            response = self._errors.redirect_to_error(request, page)
        else:
            response = self._errors.show(request, page)
        response.headers.update(headers)
        return response

    def _page(self, error: Exception) -> tuple[ErrorPage, Mapping[str, str]]:
        match error:
            case PageError():
                return error.page, {}
            case NotThisBrowserError():
                return error_pages.NOT_THIS_BROWSER, {}
            case TooManyRequestsError():
                return error_pages.TOO_MANY, {"Retry-After": str(error.seconds)}
            case HTTPException(status_code=405):
                return error_pages.NOT_THIS_WAY, error.headers or {}
            case UnavailableError():
                self._recorder.fault(error.dependency, error.detail)
                return error_pages.AWAY, {}
        self._recorder.crash(error, REQUEST_ID.get())
        return error_pages.BROKEN, {}

    async def _missing(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self._errors.show(Request(scope), error_pages.NOT_FOUND)
        await response(scope, receive, send)
