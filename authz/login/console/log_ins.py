"""Log-ins and clients: searched a bounded part at a time, ended and blocked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.ledger.bounded_scan import read_cursor
from authz.login.console.access import AdmittedPerson, ConsoleAccess
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
from authz.login.protocol.grant import Grant
from authz.login.store.blocklist import Blocklist, BlocklistEntry, BlocklistFullError
from authz.login.store.grants import GrantStore
from authz.login.store.known_clients import KnownClient, block, gather_clients

_ROWS: Final = 50
_PEOPLE: Final = 50  # whose log-ins one part holds: a person has a hundred at most
_MOST_QUERY: Final = 200
_BLOCKS: Final = 100


@dataclass(frozen=True, slots=True)
class _ShownLogIn:
    grant: Grant
    person: str  # the digest that names the person
    end: str
    revoke: str


@dataclass(frozen=True, slots=True)
class _ShownClient:
    client: KnownClient
    block: str


@dataclass(frozen=True, slots=True)
class _ShownBlock:
    entry: BlocklistEntry
    unblock: str


def query_of(request: Request) -> str:
    """Return what is searched for, bounded."""
    return request.query_params.get("q", "").strip()[:_MOST_QUERY]


def cursor_of(request: Request) -> int:
    """Return where the part of a list begins that is asked for."""
    return read_cursor(request.query_params.get("after", ""))


class LogInPages:
    """Show log-ins and clients."""

    def __init__(
        self,
        frame: ConsoleFrame,
        grants: GrantStore,
        blocks: Blocklist,
        clock: Callable[[], float],
    ) -> None:
        """Take the frame and the stores."""
        self._frame = frame
        self._grants = grants
        self._blocks = blocks
        self._clock = clock

    def routes(self, access: ConsoleAccess, actions: ConsoleActions) -> list[Route]:
        """Return the routes."""

        async def log_ins(request: Request, person: AdmittedPerson) -> Response:
            return await self._show_log_ins(request, person, actions)

        async def clients(request: Request, person: AdmittedPerson) -> Response:
            return await self._show_clients(request, person, actions)

        return [
            Route(Section.LOG_INS.path, access.guard(log_ins), methods=["GET"]),
            Route(Section.CLIENTS.path, access.guard(clients), methods=["GET"]),
        ]

    def performers(self) -> dict[ActionKind, Performer]:
        """Return what does the things that these pages offer."""
        return {
            ActionKind.END_LOG_IN: self._end,
            ActionKind.BLOCK: self._block,
            ActionKind.UNBLOCK: self._unblock,
        }

    async def _show_log_ins(
        self, request: Request, person: AdmittedPerson, actions: ConsoleActions
    ) -> Response:
        found, cursor = await self._page(request)
        query = query_of(request).casefold()
        matching = [
            (key, grant)
            for key, grant in found
            if not query or any(query in each.casefold() for each in _searched(key, grant))
        ]
        newest_first = sorted(matching, key=lambda pair: pair[1].used_at, reverse=True)
        rows = []
        for key, grant in newest_first[:_ROWS]:
            who = grant.account or "somebody"
            rows.append(
                _ShownLogIn(
                    grant,
                    key,
                    actions.offer(
                        request,
                        person,
                        ActionKind.END_LOG_IN,
                        (key, grant.id),
                        f"{who}: {grant.client} on {grant.server}",
                    ),
                    actions.offer(
                        request,
                        person,
                        ActionKind.REVOKE,
                        ("person-digest", key),
                        f"all tokens of {who}",
                    ),
                )
            )
        content = {
            "rows": rows,
            "hidden": max(0, len(matching) - _ROWS),
            "query": query_of(request),
            "cursor": cursor,
            "done": done(request),
        }
        return self._frame.page(request, person, Section.LOG_INS, content)

    async def _show_clients(
        self, request: Request, person: AdmittedPerson, actions: ConsoleActions
    ) -> Response:
        found, cursor = await self._page(request)
        blocks = await self._blocks.all()
        query = query_of(request).casefold()
        pairs = [(key.encode("ascii", "replace"), grant) for key, grant in found]
        clients = [
            each
            for each in gather_clients(pairs, {block.what for block in blocks})
            if not query
            or any(
                query in text.casefold() for text in (each.name, each.client_id, each.client_name)
            )
        ]
        content = {
            "rows": [
                _ShownClient(
                    each,
                    ""
                    if each.blocked
                    else actions.offer(
                        request, person, ActionKind.BLOCK, (each.name,), f"all of {each.name}"
                    ),
                )
                for each in clients[:_ROWS]
            ],
            "hidden": max(0, len(clients) - _ROWS),
            "blocks": [
                _ShownBlock(
                    each,
                    actions.offer(request, person, ActionKind.UNBLOCK, (each.what,), each.what),
                )
                for each in reversed(blocks[-_BLOCKS:])
            ],
            "more_blocks": max(0, len(blocks) - _BLOCKS),
            "query": query_of(request),
            "cursor": cursor,
            "done": done(request),
        }
        return self._frame.page(request, person, Section.CLIENTS, content)

    async def _page(self, request: Request) -> tuple[list[tuple[str, Grant]], int]:
        """Return the log-ins of one part, each with the name of its person, and the next part."""
        page = await self._grants.page(cursor_of(request), _PEOPLE)
        found = [
            (self._grants.person_name(key), grant)
            for key in page.keys
            for grant in await self._grants.usable_at(key)
        ]
        return found, page.cursor

    async def _end(self, action: ConsoleAction, operator: Operator) -> ActionOutcome:
        name, grant_id = action.target
        why = f"ended by {operator.by}"
        ended = await self._grants.end_at(self._grants.key_of_name(name), grant_id, why)
        if ended is None:
            raise NotDoneError
        return ActionOutcome(
            grant_id,
            (("grant", grant_id), ("client_id", ended.client), ("server", ended.server)),
        )

    async def _block(self, action: ConsoleAction, operator: Operator) -> ActionOutcome:
        (name,) = action.target
        entry = BlocklistEntry(name, int(self._clock()), operator.by, operator.reason)
        try:
            await block(self._grants, self._blocks, entry)
        except BlocklistFullError as error:
            raise NotDoneError from error
        return ActionOutcome(name, (("client_id", name),))

    async def _unblock(self, action: ConsoleAction, operator: Operator) -> ActionOutcome:
        del operator
        (name,) = action.target
        if not await self._blocks.unblock(name):
            raise NotDoneError
        return ActionOutcome(name, (("client_id", name),))


def _searched(key: str, grant: Grant) -> tuple[str, ...]:
    return key, grant.id, grant.account, grant.client, grant.client_id, grant.title, grant.server
