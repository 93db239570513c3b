"""The log-in portal: the authorization endpoint and the pages between it and the client.

Invariant: a browser gets on to the client only when its session has the factors that the client's
policy wants, the password as fresh as the request wants it, and the person's consent where the
scopes want it.
"""

import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

import pyotp
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from authz_demo.issuer import pages
from authz_demo.issuer.authorize import (
    CheckedRequest,
    back,
    check,
    consent_required,
    find_client,
    issue_code,
    login_required,
    sufficient,
)
from authz_demo.issuer.errors import ErrorCode, StandInOAuthError
from authz_demo.issuer.metadata import ENDPOINTS
from authz_demo.issuer.requests import NO_STORE, forwarded, read_form
from authz_demo.issuer.state import LoginFlow, PortalSession, StandInIssuer
from authz_demo.issuer.values import User

COOKIE = "authelia_session"
DECISION = "/consent/openid/decision"
LOGOUT = "/logout"
COMPLETION = "/consent/completion"
_WRONG_PASSWORD = "Authentication failed. Check your credentials."  # noqa: S105 - a sentence
_WRONG_CODE = "Authentication failed, please retry later."


def _redirect(url: str, status: int = 302) -> Response:
    return RedirectResponse(url, status, headers=NO_STORE)


def _html(text: str, status: int = 200) -> Response:
    return HTMLResponse(text, status, headers=NO_STORE)


class LoginPortal:
    """Answer the browser."""

    def __init__(self, issuer: StandInIssuer) -> None:
        """Serve one issuer's people."""
        self.issuer = issuer

    def _session(self, request: Request) -> PortalSession | None:
        return self.issuer.session(request.cookies.get(COOKIE))

    def _page_url(self, path: str, flow_id: str) -> str:
        query = urlencode({"flow": "openid_connect", "flow_id": flow_id})
        return f"{self.issuer.config.base}{path}?{query}"

    # --- the authorization endpoint ---------------------------------------------------------

    async def authorization(self, request: Request) -> Response:
        """Answer an authorization request: with a page, an error, or a code."""
        if not forwarded(request, self.issuer.config):
            return PlainTextResponse("500 Internal Server Error", 500)
        try:
            asked = find_client(self.issuer, request.query_params.multi_items())
        except StandInOAuthError as error:
            return self._completion(error)
        try:
            check(asked, self.issuer.config.release)
            return self._decide(asked, self._session(request))
        except StandInOAuthError as error:
            return _redirect(back(self.issuer, asked, error.members()), 303)

    def _completion(self, error: StandInOAuthError) -> Response:
        members = {
            "error": error.row.name,
            "error_description": error.row.description,
            "error_hint": error.hint,
            "error_status_code": str(error.row.status),
        }
        return _redirect(f"{self.issuer.config.base}{COMPLETION}?{urlencode(members)}")

    def _decide(self, asked: CheckedRequest, session: PortalSession | None) -> Response:
        flow = self._flow(asked)
        if session is None and asked.prompts == ("none",):
            raise StandInOAuthError(ErrorCode.LOGIN_REQUIRED)
        # `prompt=none` with a password session shows the log-in page all the same.
        if session is None or not sufficient(asked.client, session):
            return self._wait("/", asked, flow)
        if login_required(asked.form, flow.requested_at, session):
            return self._wait(DECISION, asked, flow)
        if consent_required(asked):
            if flow.decided_by is None:
                return self._wait(DECISION, asked, flow)
            if flow.decided_by != session.user.username:
                raise StandInOAuthError(ErrorCode.SERVER_ERROR)
            if not flow.accepted:
                raise StandInOAuthError(ErrorCode.ACCESS_DENIED)
        self.issuer.memory.flows.pop(asked.consent_id, None)  # one consent, one code
        return _redirect(issue_code(self.issuer, asked, session, flow), 303)

    def _flow(self, asked: CheckedRequest) -> LoginFlow:
        """Return the flow that the browser comes back from, or a new one."""
        if not asked.consent_id:
            return LoginFlow(asked.sent, asked.form, self.issuer.now(), asked.client, asked.scopes)
        flow = self.issuer.memory.flows.get(asked.consent_id)
        if flow is None or flow.sent != asked.sent:
            raise StandInOAuthError(ErrorCode.SERVER_ERROR)
        return flow

    def _wait(self, path: str, asked: CheckedRequest, flow: LoginFlow) -> Response:
        if asked.pushed is not None:
            self.issuer.memory.pushed[dict(asked.sent)["request_uri"]] = asked.pushed
        flow_id = asked.consent_id or self.issuer.remember(flow)
        return _redirect(self._page_url(path, flow_id))

    def _resume(self, flow_id: str, flow: LoginFlow) -> Response:
        query = urlencode((*flow.sent, ("consent_id", flow_id)))
        endpoint = self.issuer.config.base + ENDPOINTS["authorization_endpoint"]
        return _redirect(f"{endpoint}?{query}", 303)

    # --- the log-in page --------------------------------------------------------------------

    async def login_page(self, request: Request) -> Response:
        """Show the factor that is missing."""
        flow_id = request.query_params.get("flow_id", "")
        return self._missing_factor(flow_id, self._session(request))

    def _missing_factor(self, flow_id: str, session: PortalSession | None) -> Response:
        flow = self.issuer.memory.flows.get(flow_id)
        if flow is None:
            return _html(pages.message("Sign in", "Begin at the application."))
        if session is None:
            return _html(pages.login(flow_id, flow.client.client_id))
        if not sufficient(flow.client, session):
            return _html(pages.one_time_code(flow_id, session.user.username))
        return self._resume(flow_id, flow)

    async def log_in(self, request: Request) -> Response:
        """Take a password or a one-time code."""
        form = await read_form(request)
        flow_id = form.get("flow_id", "")
        flow = self.issuer.memory.flows.get(flow_id)
        if flow is None:
            return _html(pages.message("Sign in", "This log-in has ended."), 400)
        if "code" in form:
            return self._second_factor(flow_id, self._session(request), form["code"])
        user = self._user(form.get("username", ""), form.get("password", ""))
        if user is None:
            page = pages.login(flow_id, flow.client.client_id, _WRONG_PASSWORD)
            return _html(page, 401)
        cookie = self.issuer.start_session(user)
        # A new id at every log-in, so that nobody can lay one out in advance.
        response = _redirect(self._page_url("/", flow_id), 303)
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=self.issuer.config.lifetimes.session,
            secure=True,
            httponly=True,
            samesite="lax",
        )
        return response

    def _user(self, username: str, password: str) -> User | None:
        user = self.issuer.config.user(username)
        expected = user.password if user is not None else ""
        right = hmac.compare_digest(password.encode(), expected.encode())
        return user if right and password else None

    def _second_factor(self, flow_id: str, session: PortalSession | None, code: str) -> Response:
        if session is None:
            return _redirect(self._page_url("/", flow_id), 303)
        secret, now = session.user.totp_secret, self.issuer.now()
        moment = datetime.fromtimestamp(now, UTC)
        if secret is None or not pyotp.TOTP(secret).verify(code, for_time=moment, valid_window=1):
            page = pages.one_time_code(flow_id, session.user.username, _WRONG_CODE)
            return _html(page, 403)
        session.totp_at = now
        return _redirect(self._page_url("/", flow_id), 303)

    # --- the consent page -------------------------------------------------------------------

    async def decision_page(self, request: Request) -> Response:
        """Ask for the password again, then for consent."""
        return self._with_flow(request, request.query_params.get("flow_id", ""), self._ask)

    def _with_flow(
        self,
        request: Request,
        flow_id: str,
        answer: Callable[[str, LoginFlow, PortalSession], Response],
    ) -> Response:
        flow, session = self.issuer.memory.flows.get(flow_id), self._session(request)
        if flow is None:
            return _html(pages.message("Consent", "This request has ended."), 400)
        if session is None:
            return _redirect(self._page_url("/", flow_id), 303)
        return answer(flow_id, flow, session)

    def _ask(self, flow_id: str, flow: LoginFlow, session: PortalSession) -> Response:
        client_id = flow.client.client_id
        if login_required(flow.form, flow.requested_at, session):
            return _html(pages.password_again(flow_id, client_id))
        return _html(pages.consent(flow_id, client_id, flow.scopes))

    async def decide(self, request: Request) -> Response:
        """Take the password again, or the decision."""
        form = await read_form(request)

        def answer(flow_id: str, flow: LoginFlow, session: PortalSession) -> Response:
            if "password" in form:
                return self._password_again(flow_id, flow, session, form["password"])
            flow.decided_by = session.user.username
            flow.accepted = form.get("decision") == "accept"
            return self._resume(flow_id, flow)

        return self._with_flow(request, form.get("flow_id", ""), answer)

    def _password_again(
        self, flow_id: str, flow: LoginFlow, session: PortalSession, password: str
    ) -> Response:
        if self._user(session.user.username, password) is None:
            client_id = flow.client.client_id
            page = pages.password_again(flow_id, client_id, _WRONG_PASSWORD)
            return _html(page, 401)
        session.password_at = self.issuer.now()
        return self._resume(flow_id, flow)

    # --- the log-out page -------------------------------------------------------------------

    async def log_out(self, request: Request) -> Response:
        """End the session, and go back to where it was asked from, if that is a safe place.

        Authelia's page does so with a script, as soon as it is opened.
        """
        self.issuer.memory.sessions.pop(request.cookies.get(COOKIE, ""), None)
        target = request.query_params.get("rd", "")
        safe = _is_safe(target, self.issuer.config.domain)
        response = _redirect(target if safe else f"{self.issuer.config.base}/")
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")
        return response

    async def completion(self, request: Request) -> Response:
        """Show an error that could be told nowhere else."""
        query = request.query_params
        words = (query.get("error_description", ""), query.get("error_hint", ""))
        title = query.get("error", "") or "Done"
        return _html(pages.message(title, " ".join(word for word in words if word)))


def _is_safe(target: str, domain: str) -> bool:
    """Tell whether a browser may be sent there: https, within the domain of the sessions."""
    try:
        url = urlsplit(target)
    except ValueError:
        return False
    host = url.hostname or ""
    return url.scheme == "https" and (host == domain or host.endswith("." + domain))
