"""The check of a request to an admin page: its session, its rule, revocations.

Invariant: every path ends in exactly one decision, recorded once; whatever raises is a refusal, and
`PageAllow` is made here alone, of a session that `BrowserSessions.judge` returned.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from authz.core.admin_pages import (
    BROWSER_COOKIE,
    BROWSER_HEADER,
    AdminPage,
    PageAllow,
    PageDecision,
    PageDeny,
    navigates,
    page_deny,
    page_of,
    read_page,
)
from authz.core.browser_session import BrowserSession
from authz.core.ledger import UnavailableError
from authz.core.limits import digest
from authz.core.page_answers import page_changes, page_refusal
from authz.core.policy import Policy
from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError
from authz.envoy import codec
from authz.ledger.deadline import Deadline
from authz.server.browser_sessions import BrowserSessions
from authz.telemetry.recorder import Recorder
from authz.telemetry.traces import Trace
from authz.tokens.page_tickets import LIFETIME, PageTicket, seal_page_ticket
from authz.tokens.sealing import Sealer

LOG_IN_PATH: Final = "/authz/page"
_RANDOM: Final = 43  # characters of 32 bytes in base64url
_ALPHABET: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
# SameSite=Lax: a link from elsewhere may open a page; the rest is judged (core/admin_pages.py).
COOKIE_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Lax"
_FAULTS: Final = {"redis": Reason.LEDGER_UNAVAILABLE, "issuer": Reason.ISSUER_UNAVAILABLE}


@dataclass(slots=True)
class _Known:
    """What is known of a request by the time that it is refused."""

    page: AdminPage | None = None
    session: BrowserSession | None = None


class PageCheck:
    """Decide about requests to the pages of one configuration."""

    def __init__(
        self,
        policy: Policy,
        *,
        sessions: BrowserSessions,
        sealer: Sealer,
        gateway: str,
        deadline: Deadline,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the parts.

        Args:
            policy: has the pages.
            sessions: finds and judges sessions.
            sealer: seals tickets.
            gateway: the URL at which people log in.
            deadline: after it any check is answered.
            clock: seconds since the epoch.
        """
        self._pages: Mapping[str, AdminPage] = policy.pages
        self._sessions = sessions
        self._sealer = sealer
        self._log_in = f"{gateway}{LOG_IN_PATH}?ticket="
        self._deadline = deadline
        self._clock = clock

    async def __call__(
        self, request: HttpRequest, recorder: Recorder, started: float, trace: Trace | None = None
    ) -> bytes:
        """Answer the check of a request whose route names a page.

        Raises nothing but CancelledError.

        Args:
            request: what was sent.
            recorder: records the decision.
            started: when the check arrived, by `time.perf_counter`.
            trace: of the check; None where nothing is traced.
        """
        known = _Known()
        decision: PageDecision
        try:
            with self._deadline.block():
                decision = await self._decide(request, known, trace)
            answer = self._answer(decision, request)
        except RefusedError as refused:
            decision = page_deny(refused, known.page, known.session)
            answer = self._answer(decision, request)
        except (UnavailableError, TimeoutError) as fault:
            decision = self._unavailable(fault, known, recorder)
            answer = self._answer(decision, request)
        except Exception as error:  # noqa: BLE001 - the last line: nobody is let in
            recorder.crash(error, request.request_id)
            decision = PageDeny(Reason.INTERNAL, type(error).__name__, known.page)
            answer = codec.FALLBACK_DENY
        elapsed = time.perf_counter() - started
        recorder.page_decision(decision, request, elapsed, trace=trace)
        return answer

    async def _decide(self, request: HttpRequest, known: _Known, trace: Trace | None) -> PageAllow:
        page = known.page = page_of(request, self._pages)
        asked = read_page(request, page)
        if trace is not None:
            trace.ledger_at = time.perf_counter()  # the session, its revocations and groups
        found = known.session = await self._sessions.find(page.origin, asked.token)
        judged = await self._sessions.judge(
            found, page.origin, asked.token, page.rule, request.address
        )
        if trace is not None:
            trace.answer_at = time.perf_counter()
        return PageAllow(page, judged)

    def _answer(self, decision: PageDecision, request: HttpRequest) -> bytes:
        if isinstance(decision, PageAllow):
            changes = page_changes(decision, self._clock())
            return codec.encode_allow(changes)
        log_in: str | None = None
        cookie: str | None = None
        if decision.page is not None and decision.is_lifted_by_login and navigates(request):
            log_in, cookie = self._redirect(decision.page, request)
        answer = page_refusal(decision, request, log_in, cookie)
        return codec.encode_deny(answer, decision.reason.label)

    def _redirect(self, page: AdminPage, request: HttpRequest) -> tuple[str, str]:
        """Return where a person logs in, and the cookie that ties the log-in to this browser.

        One is used again: with a new one, log-ins begun in other tabs would end.
        """
        sent = request.headers.get(BROWSER_HEADER, "")
        is_ours = len(sent) == _RANDOM and _ALPHABET.issuperset(sent)
        value = sent if is_ours else secrets.token_urlsafe(32)
        ticket = PageTicket(page.name, page.return_path(request.path), digest(value))
        cookie = f"{BROWSER_COOKIE}={value}; Max-Age={2 * LIFETIME}; {COOKIE_ATTRIBUTES}"
        return self._log_in + seal_page_ticket(self._sealer, ticket), cookie

    def _unavailable(
        self, fault: UnavailableError | TimeoutError, known: _Known, recorder: Recorder
    ) -> PageDeny:
        if isinstance(fault, UnavailableError):
            recorder.fault(fault.dependency, fault.detail)
            reason = _FAULTS.get(fault.dependency, Reason.INTERNAL)
            return PageDeny(reason, fault.detail, known.page, known.session)
        return PageDeny(Reason.LEDGER_UNAVAILABLE, "the deadline has passed", known.page)
