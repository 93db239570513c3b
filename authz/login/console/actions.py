"""What an operator changes: asked once on a page of its own, done by POST, in the audit trail.

Invariant: nothing is done but what the page before named, once, by a form of this browser's own
session, and what was done has a record with who did it (tests/login/console/test_actions.py).
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar, Final, Protocol

from pydantic import ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.audit.record import Fields
from authz.ledger.revocations import MAX_BY, MAX_REASON
from authz.login.console.access import PATH, SESSION_OVER, AdmittedPerson, ConsoleAccess
from authz.login.console.frame import ConsoleFrame, Section
from authz.login.protocol.members import STRICT
from authz.login.web.client_description import shown
from authz.login.web.cookies import BrowserCookies, purpose, read_form
from authz.login.web.error_pages import ErrorPage, PageError
from authz.login.web.rendering import redirect

_ASK: Final = f"{PATH}/ask"
_DO: Final = f"{PATH}/do"
_DONE: Final = "done"  # the parameter that says so
_LONGEST_SHOWN: Final = 160

BAD_REASON: Final = ErrorPage(
    400,
    "That reason cannot be kept",
    f"Nothing was done. Write {MAX_REASON} characters at most, none of which is invisible.",
    "console: reason not printable",
)
NOT_DONE: Final = ErrorPage(
    409,
    "That was not done",
    "Somebody has changed it meanwhile, or it is not there any more. Look at the list again.",
    "console: changed meanwhile",
)


USED_FORM: Final = ErrorPage(
    409,
    "That was sent already",
    "It was not done again. Look at the list for what came of it; to do it once more, begin there.",
    "console: form sent again",
)


class ActionKind(Enum):
    """Name what can be done: the word of the audit trail."""

    END_LOG_IN = "end_log_in"
    BLOCK = "block"
    UNBLOCK = "unblock"
    REVOKE = "revoke"
    LIFT = "lift"
    END_STEP_UP = "end_step_up"
    END_APPROVAL = "end_approval"
    RESET_LIMIT = "reset_limit"


@dataclass(frozen=True, slots=True)
class ConsoleAction:
    """One thing to do, as the forms hold it.

    Attributes:
        kind: what.
        target: to what: names that the kind understands.
        shown: what the pages call it.
        session: in which session it was offered.
        once: names the page that asks, whose form counts once; another each time that it is shown.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    kind: ActionKind
    target: tuple[str, ...]
    shown: str
    session: str
    once: str = ""


@dataclass(frozen=True, slots=True)
class Operator:
    """Who does something, and why.

    Attributes:
        subject: of the person.
        by: what lists call the person.
        reason: free text.
    """

    subject: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """What was done.

    Attributes:
        what: the id of the entry, or the client, for the record.
        names: further fields by which the record is found.
    """

    what: str
    names: Fields = ()


class NotDoneError(Exception):
    """Say that nothing was done, because it is not as it was when it was offered."""


@dataclass(frozen=True, slots=True)
class ActionWords:
    """What the pages say of a kind.

    Attributes:
        title: of the page that asks, with the target in front of or behind it.
        effect: what will happen.
        button: what it says.
        section: where to go back to.
    """

    title: str
    effect: str
    button: str
    section: Section


_WORDS: Final[Mapping[ActionKind, ActionWords]] = {
    ActionKind.END_LOG_IN: ActionWords(
        "End this log-in?",
        "Its tokens are refused at once, and its client has to log in again.",
        "End it",
        Section.LOG_INS,
    ),
    ActionKind.BLOCK: ActionWords(
        "Block this client?",
        "All of its log-ins end at once, and nobody can log in with it until it is unblocked.",
        "Block it",
        Section.CLIENTS,
    ),
    ActionKind.UNBLOCK: ActionWords(
        "Unblock this client?", "People can log in with it again.", "Unblock it", Section.CLIENTS
    ),
    ActionKind.REVOKE: ActionWords(
        "Revoke these tokens?",
        "They are refused from the next request on, on every worker, until that is lifted.",
        "Revoke",
        Section.REVOCATIONS,
    ),
    ActionKind.LIFT: ActionWords(
        "Lift this revocation?",
        "New log-ins pass. What was issued until now stays refused; a token's revocation is "
        "removed.",
        "Lift it",
        Section.REVOCATIONS,
    ),
    ActionKind.END_STEP_UP: ActionWords(
        "End this step-up?",
        "The next call that needs a fresh log-in asks for one.",
        "End it",
        Section.PROOFS,
    ),
    ActionKind.END_APPROVAL: ActionWords(
        "End this approval?",
        "The next such call has to be approved again.",
        "End it",
        Section.PROOFS,
    ),
    ActionKind.RESET_LIMIT: ActionWords(
        "Reset this limit?",
        "What was counted is forgotten, and the whole quota is there again.",
        "Reset it",
        Section.LIMITS,
    ),
}

_ASK_FORM: Final = purpose("console-ask", ConsoleAction)
_DO_FORM: Final = purpose("console-do", ConsoleAction)

Performer = Callable[[ConsoleAction, Operator], Awaitable[ActionOutcome]]
Record = Callable[[Fields], None]


class UsedForms(Protocol):
    """Remember which forms were sent (`authz.login.store.codes.StateStore`)."""

    async def use(self, state: str) -> bool:
        """Use one up; tell whether this was the first time, or raise UnavailableError."""
        ...


class ConsoleActions:
    """Offer, ask and do."""

    def __init__(
        self,
        frame: ConsoleFrame,
        cookies: BrowserCookies,
        origin: str,
        performers: Mapping[ActionKind, Performer],
        *,
        used: UsedForms,
        record: Record,
    ) -> None:
        """Take the frame, what does each kind, which forms count no more, and what records."""
        self._frame = frame
        self._cookies = cookies
        self._origin = origin
        self._performers = performers
        self._used = used
        self._record = record

    def routes(self, access: ConsoleAccess) -> list[Route]:
        """Return the routes."""
        return [
            Route(_ASK, access.guard(self.ask), methods=["POST"]),
            Route(_DO, access.guard(self.do), methods=["POST"]),
        ]

    def offer(
        self,
        request: Request,
        person: AdmittedPerson,
        kind: ActionKind,
        target: tuple[str, ...],
        words: str,
    ) -> str:
        """Return the token of a form that leads to the page which asks.

        Args:
            request: for the page with the form.
            person: who looks at it.
            kind: what.
            target: to what.
            words: what the pages call that; a foreign text may be in it.
        """
        action = ConsoleAction(kind, target, shown(words, _LONGEST_SHOWN), person.name)
        token, _ = self._cookies.form_token(request, _ASK_FORM, action)
        return token

    async def ask(self, request: Request, person: AdmittedPerson) -> Response:
        """Show what will happen, and wait for a click."""
        action = self._cookies.check_post(request, await read_form(request), _ASK_FORM)
        return self.confirmation(request, person, action)

    def confirmation(
        self, request: Request, person: AdmittedPerson, action: ConsoleAction, note: str = ""
    ) -> Response:
        """Return the page that asks.

        Args:
            request: a form of this session, checked.
            person: who sent it.
            action: what is to be done.
            note: what else there is to know, in a sentence.
        """
        _check_session(action, person)
        asked = replace(action, once=secrets.token_urlsafe(16))
        token, _ = self._cookies.form_token(request, _DO_FORM, asked)
        words = _WORDS[action.kind]
        content = {"action": action, "words": words, "note": note, "form_token": token}
        return self._frame.page(
            request, person, words.section, content, template="console/confirm.html"
        )

    async def do(self, request: Request, person: AdmittedPerson) -> Response:
        """Do it, record it, and go back to the list."""
        form = await read_form(request)
        action = self._cookies.check_post(request, form, _DO_FORM)
        _check_session(action, person)
        reason = form.get("reason", "").strip()
        if len(reason) > MAX_REASON or not (reason.isprintable() or not reason):
            raise PageError(BAD_REASON)
        if not await self._used.use(action.once):
            raise PageError(USED_FORM)
        session = person.session
        by = (shown(session.account) or session.subject)[:MAX_BY]
        operator = Operator(session.subject, by, reason)
        try:
            outcome = await self._performers[action.kind](action, operator)
        except NotDoneError as error:
            raise PageError(NOT_DONE) from error
        except Exception:
            # All of it may be done, or a part.
            self._tell(action, operator, " ".join(action.target), (("outcome", "unknown"),))
            raise
        self._tell(action, operator, outcome.what, outcome.names)
        section = _WORDS[action.kind].section
        return redirect(f"{self._origin}{section.path}?{_DONE}={action.kind.value}")

    def _tell(self, action: ConsoleAction, operator: Operator, what: str, more: Fields) -> None:
        self._record(
            (
                ("action", action.kind.value),
                ("what", what),
                ("by", operator.by),
                ("by_subject", operator.subject),
                ("at", "console"),
                ("why", operator.reason),
                *more,
            )
        )


def done(request: Request) -> str:
    """Return what a page says of what was done just before; empty for nothing."""
    try:
        kind = ActionKind(request.query_params.get(_DONE, ""))
    except ValueError:
        return ""
    return f"Done: {_WORDS[kind].button.lower()}."


def _check_session(action: ConsoleAction, person: AdmittedPerson) -> None:
    if action.session != person.name:
        raise PageError(SESSION_OVER)
