"""Revocations: listed, added and lifted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.core.principal import Client, Person
from authz.ledger import revocations
from authz.ledger.redis import RedisLedger
from authz.ledger.revocations import (
    MAX_LIFETIME,
    MAX_NAME,
    NotLiftedError,
    RevocationEntry,
    RevocationNote,
    RevocationTarget,
)
from authz.login.clients.operator_names import AmbiguousClientError
from authz.login.console.access import PATH, AdmittedPerson, ConsoleAccess
from authz.login.console.actions import (
    ActionKind,
    ActionOutcome,
    ConsoleAction,
    ConsoleActions,
    NotDoneError,
    Operator,
    Performer,
    done,
)
from authz.login.console.frame import ConsoleFrame, Section
from authz.login.console.log_ins import query_of
from authz.login.console.names import FoundName, KnownNames
from authz.login.protocol.people import (
    AmbiguousPersonError,
    KnownPerson,
    UnknownPersonError,
    find_person,
)
from authz.login.store.people import PeopleStore
from authz.login.web.client_description import shown
from authz.login.web.cookies import BrowserCookies, empty_purpose, read_form
from authz.login.web.error_pages import ErrorPage, PageError

_ROWS: Final = 50
_MOST_OFFSET: Final = 1_000_000
_ADD_FORM: Final = empty_purpose("console-add-revocation")
_ADD: Final = f"{PATH}/revocations/add"
# Which entry is named by a digest alone, as the list of log-ins knows a person.
_DIGEST: Final = "person-digest"
_NOW: Final = "now"

NO_SUCH_NAME: Final = ErrorPage(
    400,
    "No token has such a name",
    "Nothing was done. Give the subject of a person, the client_id or name of a client, or the id "
    "of a log-in, as the lists and the log have it.",
    "console: no name",
)
SEVERAL: Final = ErrorPage(
    400,
    "Several are called so",
    "Nothing was done. Give the subject of the person, or the client_id, that is meant: "
    "`authz clients` lists them.",
    "console: name of several",
)
NOBODY: Final = ErrorPage(
    404,
    "Nobody is known by that name",
    "Nothing was done. No log-in, no record of the audit trail and no client of authz.yaml is "
    "called so: look at the lists, or tick that this very name is meant all the same.",
    "console: name of nobody",
)
_FORCED: Final = (
    "Nobody is known by that name: this refuses the tokens of that very one, and ends nothing that "
    "is known."
)
_FORCE: Final = "yes"


@dataclass(frozen=True, slots=True)
class _ShownEntry:
    entry: RevocationEntry
    tokens: str
    lift: str


class RevocationPages:
    """Show revocations, and change them."""

    def __init__(
        self,
        frame: ConsoleFrame,
        cookies: BrowserCookies,
        ledger: RedisLedger,
        people: PeopleStore,
        names: KnownNames,
        *,
        issuer: str,
        leeway: int,
        clock: Callable[[], float],
    ) -> None:
        """Take the parts, whose tokens these are, and how far the ledger's clock may be off."""
        self._frame = frame
        self._cookies = cookies
        self._ledger = ledger
        self._people = people
        self._names = names
        self._issuer = issuer
        self._leeway = leeway
        self._clock = clock

    def routes(self, access: ConsoleAccess, actions: ConsoleActions) -> list[Route]:
        """Return the routes."""

        async def show(request: Request, person: AdmittedPerson) -> Response:
            return await self._show(request, person, actions)

        async def add(request: Request, person: AdmittedPerson) -> Response:
            return await self._add(request, person, actions)

        return [
            Route(Section.REVOCATIONS.path, access.guard(show), methods=["GET"]),
            Route(_ADD, access.guard(add), methods=["POST"]),
        ]

    def performers(self) -> dict[ActionKind, Performer]:
        """Return what does the things that this page offers."""
        return {ActionKind.REVOKE: self._revoke, ActionKind.LIFT: self._lift}

    async def _show(
        self, request: Request, person: AdmittedPerson, actions: ConsoleActions
    ) -> Response:
        entries = await revocations.list_revocations(self._ledger, self._clock())
        query, offset = query_of(request).casefold(), _offset(request)
        found = [
            each
            for each in reversed(entries)
            if not query or any(query in text.casefold() for text in _searched(each))
        ]
        token, _ = self._cookies.form_token(request, _ADD_FORM, None)
        content = {
            "rows": [
                _ShownEntry(
                    each,
                    describe_entry(each),
                    actions.offer(
                        request, person, ActionKind.LIFT, (each.id,), describe_entry(each)
                    )
                    if _can_lift(each)
                    else "",
                )
                for each in found[offset : offset + _ROWS]
            ],
            "total": len(found),
            "query": query_of(request),
            "cursor": offset + _ROWS if offset + _ROWS < len(found) else 0,
            "add_token": token,
            "done": done(request),
        }
        return self._frame.page(request, person, Section.REVOCATIONS, content)

    async def _add(
        self, request: Request, person: AdmittedPerson, actions: ConsoleActions
    ) -> Response:
        """Ask about what the form says, on the page on which every change is asked."""
        form = await read_form(request)
        self._cookies.check_post(request, form, _ADD_FORM)
        kind, name = form.get("kind", ""), form.get("name", "").strip()
        moment = _NOW if form.get("issued") == _NOW else ""
        named = _TARGETS.get(kind)
        if kind == "everything":
            action = (kind, "", _NOW)
            words = "everybody's tokens that were issued until now"
        elif named is None or not (0 < len(name) <= MAX_NAME and name.isprintable()):
            raise PageError(NO_SUCH_NAME)
        else:
            action = (kind, name, moment)
            until = ", issued until now" if moment else ""
            words = f"all tokens of the {named[0]} {shown(name)}{until}"
        is_known = True
        if kind == "person":
            subject, called, is_known = await self._person(name)
            action, words = (kind, subject, moment), f"all tokens of {called}{until}"
        elif kind in {"client", "grant"}:
            found = await self._found(kind, name)
            action, is_known = (kind, found.name, moment), found.is_known
            words = f"all tokens of the {_TARGETS[kind][0]} {shown(found.name)}{until}"
        if not is_known and form.get("force") != _FORCE:
            raise PageError(NOBODY)
        note = "" if is_known else _FORCED
        asked = ConsoleAction(ActionKind.REVOKE, action, shown(words, 160), person.name)
        return actions.confirmation(request, person, asked, note)

    async def _found(self, kind: str, name: str) -> FoundName:
        """Return which client or log-in a name means.

        Raises:
            PageError: where it may mean several clients.
        """
        if kind == "grant":
            return await self._names.grant(name)
        try:
            return await self._names.client(name)
        except AmbiguousClientError as error:
            raise PageError(SEVERAL) from error

    async def _person(self, name: str) -> tuple[str, str, bool]:
        """Return whom a name means, as `authz revoke --user` has it: subject, words, is it known.

        Raises:
            PageError: where it may mean several people.
        """
        people = [
            KnownPerson(digest, each.subject, each.account, each.email, each.seen_at)
            async for digest, each in self._people.all()
        ]
        try:
            found = find_person(name, people)
        except AmbiguousPersonError as error:
            raise PageError(SEVERAL) from error
        except UnknownPersonError:
            is_known = await self._names.trail.knows(Person(self._issuer, name))
            return name, f"the person {shown(name)}", is_known
        names = ", ".join(shown(each) for each in (found.account, found.email) if each)
        subject = f"subject {shown(found.subject)}"
        return found.subject, f"{names} ({subject})" if names else subject, True

    async def _revoke(self, action: ConsoleAction, operator: Operator) -> ActionOutcome:
        kind, name, *rest = action.target
        moment = int(self._clock()) + self._leeway if rest == [_NOW] else None
        until = None if moment is None else moment + MAX_LIFETIME
        target = self._target(kind, name)
        note = RevocationNote(int(self._clock()), operator.by, operator.reason)
        entry = await revocations.revoke(self._ledger, target, moment, until, note)
        return ActionOutcome(entry.id, _names_of(entry))

    async def _lift(self, action: ConsoleAction, operator: Operator) -> ActionOutcome:
        (entry_id,) = action.target
        now = int(self._clock())
        note = RevocationNote(now, operator.by, operator.reason)
        moment = now + self._leeway
        restore = entry_id.partition(":")[0] == "token"
        try:
            ((entry, _),) = await revocations.lift(
                self._ledger, [entry_id], moment, note, restore=restore
            )
        except NotLiftedError as error:
            raise NotDoneError from error
        return ActionOutcome(entry.id, _names_of(entry))

    def _target(self, kind: str, name: str) -> RevocationTarget:
        if kind == "everything":
            return revocations.everything_target()
        if kind == _DIGEST:
            return RevocationTarget(b"person:" + name.encode("ascii"))
        return _TARGETS[kind][1](self._issuer, name)


_TARGETS: Final[Mapping[str, tuple[str, Callable[[str, str], RevocationTarget]]]] = {
    "person": ("person", lambda issuer, name: revocations.person_target(Person(issuer, name))),
    "client": ("client", lambda issuer, name: revocations.client_target(Client(issuer, name))),
    "grant": ("log-in", revocations.grant_target),
}
_WHOSE: Final = {
    "token": "one token",
    "everything": "everybody's tokens",
    "unknown": "an entry that this release does not know",
}
_NAMED: Final = {"person": "the person", "client": "the client", "grant": "the log-in"}
_FIELDS: Final = {"person": "subject", "client": "client_id", "grant": "grant"}


def describe_entry(entry: RevocationEntry) -> str:
    """Return which tokens an entry revokes, for people; a foreign name may be in it."""
    named = _NAMED.get(entry.kind)
    return _WHOSE[entry.kind] if named is None else f"{named} {entry.target.name or entry.id}"


def _can_lift(entry: RevocationEntry) -> bool:
    # One of what was issued before is what a lift leaves; to let that pass again takes a command.
    return entry.kind == "token" or entry.revocation.issued_until is None


def _names_of(entry: RevocationEntry) -> tuple[tuple[str, str], ...]:
    field = _FIELDS.get(entry.kind)
    return () if field is None else ((field, entry.target.name or ""),)


def _searched(entry: RevocationEntry) -> tuple[str, ...]:
    return entry.id, entry.target.name or "", entry.note.by, entry.note.reason


def _offset(request: Request) -> int:
    text = request.query_params.get("after", "")
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(_MOST_OFFSET))
    return min(int(text), _MOST_OFFSET) if is_number else 0
