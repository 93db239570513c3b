"""Sessions of browsers: found, judged, confirmed, ended; of admin pages and of the console alike.

Invariant: whoever is let in has a session that `core.browser_session.admit` lets in at this moment,
by groups that the issuer has confirmed within the rule's `groups_max_age`; where Redis does not
answer nobody is, and where the issuer does not, nobody after that age
(tests/server/test_browser_sessions.py).
"""

import asyncio
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from authz.core.browser_session import (
    BrowserRule,
    BrowserSession,
    GroupAge,
    admit,
    check_live,
    check_revoked,
    group_age,
    session_query,
)
from authz.core.detail import Detail
from authz.core.ledger import Ledger, UnavailableError
from authz.core.limits import digest
from authz.core.reason import Reason
from authz.core.request import RefusedError
from authz.ledger.browser_sessions import SessionRecords
from authz.tokens.browser_sessions import open_session, seal_session
from authz.tokens.bulkhead import Bulkhead, NoSlotError
from authz.tokens.sealing import NotSealedError, Sealer
from authz.tokens.userinfo import TokenEndedError

TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")  # 32 random bytes


class GroupSource(Protocol):
    """Who knows groups (`tokens.userinfo.UserInfo`)."""

    async def groups(self, token: str, subject: str, address: str) -> frozenset[str]:
        """Return the groups of a person now, or raise TokenEndedError or UnavailableError."""
        ...


class BrowserSessions:
    """Begin, judge and end the sessions of browsers of one deployment."""

    def __init__(
        self,
        records: SessionRecords,
        *,
        sealer: Sealer,
        revocations: Ledger,
        groups: GroupSource,
        issuer: str,
        clock: Callable[[], float],
        patience: float = 5.0,
        bulkhead: Bulkhead | None = None,
        on_fault: Callable[[UnavailableError], None] = lambda _: None,
    ) -> None:
        """Take the parts.

        Args:
            records: where sessions are.
            sealer: opens and seals them.
            revocations: who knows what is revoked.
            groups: who knows the groups of people.
            issuer: the configured one.
            clock: seconds since the epoch.
            patience: seconds that a request waits for the issuer.
            bulkhead: of questions to the issuer; None where each request may ask.
            on_fault: is told of questions that nobody waits for and that failed.
        """
        self._records = records
        self._sealer = sealer
        self._revocations = revocations
        self._source = groups
        self._issuer = issuer
        self._clock = clock
        self._patience = patience
        self._bulkhead = bulkhead
        self._on_fault = on_fault
        self._asking: dict[tuple[str, str], asyncio.Task[BrowserSession]] = {}

    async def find(self, origin: str, token: str) -> BrowserSession:
        """Return the session of a token for an origin, which may have ended.

        Raises:
            RefusedError: SESSION_MISSING where there is none.
            UnavailableError: where Redis does not answer.
        """
        text = await self._records.get(origin, token) if TOKEN.match(token) else None
        try:
            return open_session(self._sealer, text or "", origin, token)
        except NotSealedError:
            raise RefusedError(Reason.SESSION_MISSING, Detail.SESSION_UNKNOWN) from None

    async def judge(
        self, session: BrowserSession, origin: str, token: str, rule: BrowserRule, address: str
    ) -> BrowserSession:
        """Return a session that a rule lets in, with the groups that count at this moment.

        Args:
            session: found.
            origin: of the page or pages that it is for.
            token: by which it was found.
            rule: what is asked.
            address: of the person: Authelia counts failures by it.

        Raises:
            RefusedError: of `core.browser_session.admit`.
            UnavailableError: where Redis does not answer, or the issuer and the groups are stale.
        """
        check_live(session, self._clock())
        query = session_query(session, self._issuer, digest(origin, token))
        answer = await self._revocations.take(query)
        check_revoked(answer)  # before the issuer is asked
        confirmed = await self._confirmed(session, origin, token, rule, address)
        admit(rule, confirmed, answer, self._clock())
        return confirmed

    async def begin(self, session: BrowserSession, origin: str, former: str | None = None) -> str:
        """Keep a session that was judged; return its new token, and end the browser's former one.

        Raises:
            UnavailableError: where Redis does not answer.
        """
        token = secrets.token_urlsafe(32)  # never one that the browser had before
        if former is not None:
            await self.end(origin, former)
        lifetime = max(1, int(session.until - self._clock()))
        text = seal_session(self._sealer, session, origin, token, lifetime)
        await self._records.put(origin, token, text, lifetime)
        return token

    async def end(self, origin: str, token: str) -> None:
        """End a session, for good.

        Raises:
            UnavailableError: where Redis does not answer.
        """
        if TOKEN.match(token):
            await self._records.end(origin, token)

    async def aclose(self) -> None:
        """Cancel the questions under way."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    # --- groups ---------------------------------------------------------------------------------

    async def _confirmed(
        self, session: BrowserSession, origin: str, token: str, rule: BrowserRule, address: str
    ) -> BrowserSession:
        now = self._clock()
        age = group_age(rule, session, now)
        if age is GroupAge.FRESH:
            return session
        if now >= session.token_until:  # nobody can ask any more
            if age is GroupAge.AGING:
                return session
            raise RefusedError(Reason.SESSION_MISSING, Detail.SESSION_ENDED)
        if rule.groups_max_age <= 0:
            return await self._ask(session, origin, token, address)
        task = self._asking.get((origin, token)) or self._begin_asking(
            session, origin, token, address
        )
        if age is GroupAge.AGING:
            return session
        done, _ = await asyncio.wait({task}, timeout=self._patience)
        if not done:
            raise UnavailableError("issuer", "userinfo: no answer in time")
        return task.result()

    def _begin_asking(
        self, session: BrowserSession, origin: str, token: str, address: str
    ) -> asyncio.Task[BrowserSession]:
        """Ask once for all requests of a session that come meanwhile; nobody has to wait."""

        def over(task: asyncio.Task[BrowserSession]) -> None:
            self._asking.pop((origin, token), None)
            error = None if task.cancelled() else task.exception()
            turned_away = isinstance(getattr(error, "__cause__", None), NoSlotError)
            if isinstance(error, UnavailableError) and not turned_away:
                self._on_fault(error)

        asked = self._ask_and_keep(session, origin, token, address)
        task = self._asking[origin, token] = asyncio.create_task(asked)
        task.add_done_callback(over)
        return task

    async def _ask_and_keep(
        self, session: BrowserSession, origin: str, token: str, address: str
    ) -> BrowserSession:
        confirmed = await self._ask(session, origin, token, address)
        lifetime = confirmed.until - self._clock()
        text = seal_session(self._sealer, confirmed, origin, token, lifetime)
        with suppress(UnavailableError):  # the next request asks again
            await self._records.renew(origin, token, text)
        return confirmed

    async def _ask(
        self, session: BrowserSession, origin: str, token: str, address: str
    ) -> BrowserSession:
        """Return a session with the groups that the issuer knows now; end it where it knows none.

        Raises:
            RefusedError: SESSION_MISSING where the issuer takes its token no more: asked again and
                again it would lock the person's address.
            UnavailableError: where it does not answer.
        """
        now = int(self._clock())
        try:
            groups = await self._groups(session, address)
        except TokenEndedError:
            await self._records.end(origin, token)
            raise RefusedError(Reason.SESSION_MISSING, Detail.SESSION_ENDED) from None
        return replace(session, groups=groups, groups_at=now)

    async def _groups(self, session: BrowserSession, address: str) -> frozenset[str]:
        if self._bulkhead is None:
            return await self._source.groups(session.token, session.subject, address)
        try:
            slot = self._bulkhead.join(known=True, source=session.subject)
            async with slot:
                try:
                    groups = await self._source.groups(session.token, session.subject, address)
                except UnavailableError:
                    slot.failed()
                    raise
                except TokenEndedError:
                    slot.succeeded()
                    raise
                slot.succeeded()
                return groups
        except NoSlotError as error:
            raise UnavailableError("issuer", f"userinfo: {error}") from error
