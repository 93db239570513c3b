"""Limits: who is near or over which, live; and the reset of one."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.core.policy import Policy
from authz.ledger.keys import RedisKeys
from authz.ledger.limit_usage import LimitedCaller, LimitUse, read_usage, reset_limit
from authz.ledger.login_records import Command
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
from authz.login.console.log_ins import query_of
from authz.login.console.rules import describe_limit

_ROWS: Final = 100
_LIVE: Final = 10  # seconds


@dataclass(frozen=True, slots=True)
class _ShownUse:
    use: LimitUse
    words: str
    reset: str


class LimitPage:
    """Show how much of each limit is used."""

    def __init__(
        self,
        frame: ConsoleFrame,
        policy: Policy,
        command: Command,
        keys: RedisKeys,
        *,
        issuer: str,
        callers: Callable[[], Awaitable[Sequence[LimitedCaller]]],
    ) -> None:
        """Take the frame, the limits, Redis, and who may have used them."""
        self._frame = frame
        self._policy = policy
        self._command = command
        self._keys = keys
        self._issuer = issuer
        self._callers = callers

    def routes(self, access: ConsoleAccess, actions: ConsoleActions) -> list[Route]:
        """Return the routes."""

        async def show(request: Request, person: AdmittedPerson) -> Response:
            return await self._show(request, person, actions)

        return [Route(Section.LIMITS.path, access.guard(show), methods=["GET"])]

    def performers(self) -> dict[ActionKind, Performer]:
        """Return what does the things that this page offers."""
        return {ActionKind.RESET_LIMIT: self._reset}

    async def _show(
        self, request: Request, person: AdmittedPerson, actions: ConsoleActions
    ) -> Response:
        callers = await self._callers()
        used = await read_usage(self._command, self._keys, self._policy, self._issuer, callers)
        query = query_of(request).casefold()
        found = [
            each
            for each in used
            if not query
            or any(query in text.casefold() for text in (each.whose, each.client, each.limit.place))
        ]
        content = {
            "rows": [
                _ShownUse(
                    each,
                    describe_limit(each.limit),
                    actions.offer(
                        request,
                        person,
                        ActionKind.RESET_LIMIT,
                        (each.id, each.limit.name, each.person, each.client),
                        f"{each.whose}: {describe_limit(each.limit)}",
                    ),
                )
                for each in found[:_ROWS]
            ],
            "hidden": max(0, len(found) - _ROWS),
            "callers": len(callers),
            "query": query_of(request),
            "done": done(request),
        }
        return self._frame.page(request, person, Section.LIMITS, content, live=_LIVE)

    async def _reset(self, action: ConsoleAction, operator: Operator) -> ActionOutcome:
        del operator
        bucket, name, _, client = action.target
        if not await reset_limit(self._command, self._keys, bucket):
            raise NotDoneError
        return ActionOutcome(f"{name} {bucket}", (("client_id", client),))
